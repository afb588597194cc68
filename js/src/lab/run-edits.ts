/** What a run did to the cells of notebooks, as the server's checkpoint has it; and the undo of all of it. */

import { readPageConfig } from "../connection/page-config.js";
import { isOk, type Answer } from "../connection/transport.js";
import { WebSocketTransport } from "../connection/ws.js";
import { isObject } from "../protocol/frames.js";
import type { CellChange } from "../view/notebook/cell-edit-element.js";

/** A change with its place. */
export interface RunEdit extends CellChange {
  /** Of the cell. */
  readonly type: string;
  /** Of a deleted cell: the id of the cell that was before it; "start" where there was none. */
  readonly place: string;
}

/** A run of a session. */
export interface RunName {
  readonly session: string;
  readonly run: string;
}

async function request(method: "GET" | "POST", path: string, body?: unknown): Promise<Answer | null> {
  const config = readPageConfig();
  return config ? new WebSocketTransport(config).request(method, path, body).catch(() => null) : null;
}

function pathOf({ run }: RunName): string {
  return `runs/${encodeURIComponent(run)}`;
}

/** The changes of a run to the notebook at a path that are neither kept nor undone. Empty where there are none, or the server is away. */
export async function readEdits(name: RunName, path: string): Promise<readonly RunEdit[]> {
  const answer = await request("GET", `${pathOf(name)}/edits`);
  if (!answer || !isOk(answer) || !isObject(answer.body)) return [];
  const edits = answer.body["edits"];
  return Array.isArray(edits) ? edits.filter(isObject).filter((edit) => edit["path"] === path).flatMap(editOf) : [];
}

/** Has the server keep or undo changes of a run, of these cells. Null: it is done; else why it is not. */
export async function settleEdits(name: RunName, how: "keep" | "undo", cells: readonly string[]): Promise<string | null> {
  const answer = await request("POST", `${pathOf(name)}/${how}`, { cells });
  if (answer && isOk(answer)) return null;
  const message = isObject(answer?.body) ? answer.body["message"] : null;
  return typeof message === "string" ? message : `HTTP ${answer?.status ?? 0}`;
}

/** The run that a session began last; null: there is none. */
export async function lastRun(session: string): Promise<RunName | null> {
  const answer = await request("GET", `sessions/${encodeURIComponent(session)}/runs?limit=1`);
  const runs = answer && isOk(answer) && isObject(answer.body) ? answer.body["runs"] : null;
  const run: unknown = Array.isArray(runs) ? runs[0] : null;
  return isObject(run) && typeof run["id"] === "string" ? { session, run: run["id"] } : null;
}

function editOf(edit: Readonly<Record<string, unknown>>): readonly RunEdit[] {
  const { cell, before, after, kind, place, state, omitted } = edit;
  if (typeof cell !== "string" || state !== "open" || omitted === true) return [];
  const text = (value: unknown): string => (typeof value === "string" ? value : "");
  const change = before === null ? "inserted" : after === null ? "deleted" : "edited";
  return [{ cell, kind: change, before: text(before), after: text(after), type: text(kind) || "code", place: text(place) }];
}
