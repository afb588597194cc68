/** Requests of the recalls panel; failures are shown to the user. */

import { isOk, type Answer, type Method, type Transport } from "../../connection/transport.js";
import { isObject } from "../../protocol/frames.js";
import type { Away, Firing, FiringPage, Preview, Recall, RecallPage } from "../../protocol/generated.js";
import { strings } from "../lib/strings.js";
import { asker } from "../lib/zone.js";

export interface RequestContext {
  transport(): Transport | null;
  session(): string | null;
  /** Tells the user. */
  problem(text: string): void;
  redraw(): void;
}

/** The most that the server gives at once. */
const PAGE = 1000;
const HISTORY = 30;

/** The answer's body; null when the request failed; the failure is shown. */
export async function ask(context: RequestContext, method: Method, path: string, body?: unknown): Promise<unknown> {
  const answer = await tryTo(context, method, path, body);
  if (answer.why === null) return answer.body ?? {};
  context.problem(strings.failed(answer.why));
  return null;
}

/** The answer's body, or what was wrong. */
export async function tryTo(context: RequestContext, method: Method, path: string, body?: unknown): Promise<{ body?: unknown; why: string | null }> {
  const transport = context.transport();
  if (!transport) return { why: strings.noServer };
  try {
    const answer = await transport.request(method, path, body);
    return isOk(answer) ? { body: answer.body, why: null } : { why: whyNot(answer) };
  } catch {
    return { why: strings.noServer };
  }
}

function whyNot({ status, body }: Answer): string {
  return isObject(body) && typeof body["message"] === "string" ? body["message"] : `HTTP ${status}`;
}

/** What is known of the session's recalls besides themselves, by their ids. */
export interface RecallSummaries {
  /** How each went last. */
  readonly last: Readonly<Record<string, Firing>>;
  /** The schedule of each in words; and which schedule that was. */
  readonly words: Readonly<Record<string, { readonly text: string; readonly of: string }>>;
}

/** Null when the server does not say. */
export async function readSummaries(context: RequestContext): Promise<RecallSummaries | null> {
  const { body } = await tryTo(context, "GET", `recalls?session_id=${encodeURIComponent(context.session() ?? "")}&limit=${PAGE}`);
  if (!isObject(body) || !isObject(body["last"])) return null;
  const { recalls, last, words = {} } = body as unknown as RecallPage;
  const pairs = recalls.flatMap(({ id, schedule }) => (words[id] ? [[id, { text: words[id], of: JSON.stringify(schedule) }] as const] : []));
  return { last, words: Object.fromEntries(pairs) };
}

export interface HistoryPage {
  readonly firings: readonly Firing[];
  readonly next: string | null;
}

/** From `cursor` on, or the newest; `least` rows where there are as many. */
export async function history(context: RequestContext, recallId: string, cursor: string | null, least = HISTORY): Promise<HistoryPage | null> {
  const more = cursor === null ? "" : `&cursor=${encodeURIComponent(cursor)}`;
  const limit = Math.min(Math.max(least, HISTORY), PAGE);
  const body = await ask(context, "GET", `recalls/${encodeURIComponent(recallId)}/firings?limit=${limit}${more}`);
  return isObject(body) && Array.isArray(body["firings"]) ? (body as unknown as FiringPage) : null;
}

/** What a time in words means, or why it means nothing. */
export async function meaningOf(context: RequestContext, text: string): Promise<Preview | string> {
  const { body, why } = await tryTo(context, "POST", "recalls/preview", { text, session_id: context.session(), ...asker(), n: 3 });
  if (why !== null) return why;
  return isObject(body) && typeof body["meaning"] === "string" ? (body as unknown as Preview) : strings.noServer;
}

/** Stops a run, whichever session it is of. True when the server took it. */
export async function stopRun(context: RequestContext, session: string, runId: string): Promise<boolean> {
  const { why } = await tryTo(context, "POST", `sessions/${encodeURIComponent(session)}/commands`, { type: "stop", run_id: runId });
  if (why !== null) context.problem(strings.failed(why));
  return why === null;
}

export async function readAway(context: RequestContext, session: string): Promise<Away | null> {
  const { body } = await tryTo(context, "GET", `sessions/${encodeURIComponent(session)}/away?limit=20`);
  return isObject(body) && Array.isArray(body["runs"]) && Array.isArray(body["not_run"]) ? (body as unknown as Away) : null;
}

/** The notification targets that can be used, by name. */
export async function notifyTargets(context: RequestContext): Promise<readonly string[]> {
  const { body } = await tryTo(context, "GET", "notify");
  if (!isObject(body) || !Array.isArray(body["notify"])) return [];
  return body["notify"].filter(isObject).filter(({ available }) => available === true).map(({ name }) => String(name));
}

export function isRecall(value: unknown): value is Recall {
  return isObject(value) && typeof value["id"] === "string" && isObject(value["schedule"]);
}
