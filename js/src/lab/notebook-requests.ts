/**
 * Changes that the server asks a page to make: where a notebook is open without real-time collaboration and has changes
 * that are not saved, a change of its file would meet them. The page that has them makes the change in what it shows, and
 * saves. A page without unsaved changes says so, and the server changes the file. It is also asked what it shows.
 */

import { isObject } from "../protocol/frames.js";
import { isOk } from "../connection/transport.js";
import type { ClientNotebook } from "../protocol/generated.js";
import type { NotebookRequest } from "./notebook-socket.js";
import { serverPath, type CellWidget, type NotebookTracker, type Panel } from "./notebook-types.js";
import { setText, type FileCell } from "./open-notebook.js";
import { serverOfPage } from "./server.js";

interface Change {
  readonly action: string;
  readonly cell: string | null;
  readonly source: string;
  readonly expected: string | null;
  readonly after: string | null;
  readonly newCell: FileCell | null;
}

type Refusal = "changed" | "not_found";
interface ReportedCell {
  readonly id: string;
  readonly index: number;
  readonly type: string;
  readonly source: string;
}

/** What this needs of the extension. */
export interface RequestsSetup {
  /** Has the page have what the file has, as far as that is possible, and says whether it is. */
  refresh(panel: Panel): Promise<boolean>;
  /** What the page shows. */
  shown(panel: Panel): ClientNotebook | null;
}

/** Several panels may show a notebook; they share what it is, so one of them answers. */
export async function answerRequest(tracker: NotebookTracker, asked: NotebookRequest, setup: RequestsSetup): Promise<void> {
  const found: Panel[] = [];
  tracker.forEach((panel) => {
    if (serverPath(panel) === asked.path && panel.context.model.collaborative !== true) found.push(panel);
  });
  const [panel] = found;
  if (panel) await answer(panel, asked, setup);
}

async function answer(panel: Panel, { session, request }: NotebookRequest, setup: RequestsSetup): Promise<void> {
  const route = `sessions/${encodeURIComponent(session)}/notebook-requests/${encodeURIComponent(request)}`;
  // First: what is different in the file and in the page is known before either changes.
  const isSame = await setup.refresh(panel);
  const claimed = await serverOfPage()?.request("POST", `${route}/claim`, { unsaved: panel.context.model.dirty });
  if (!claimed || !isOk(claimed) || !isObject(claimed.body)) return; // it is over, or another page makes it
  const change = changeOf(claimed.body["change"]);
  if (!change || panel.isDisposed) return;
  await serverOfPage()?.request("POST", `${route}/report`, await done(panel, change, isSame, setup));
}

async function done(panel: Panel, change: Change, isSame: boolean, setup: RequestsSetup): Promise<object> {
  if (change.action === "show") return { notebook: setup.shown(panel) };
  // To save is to ask the user which of the two is to stay, and the user may be away.
  if (!isSame) return { refusal: "conflict" };
  const made = make(panel, change);
  if (typeof made === "string") return { refusal: made };
  await panel.context.save();
  return made ? { cell: made } : {};
}

function changeOf(value: unknown): Change | null {
  if (!isObject(value) || typeof value["action"] !== "string") return null;
  const text = (name: string): string | null => (typeof value[name] === "string" ? value[name] : null);
  const newCell = isObject(value["new_cell"]) ? (value["new_cell"] as unknown as FileCell) : null;
  return { action: value["action"], cell: text("cell"), source: text("source") ?? "", expected: text("expected"), after: text("after"), newCell };
}

/** The cell as it is then, or was before it was deleted; null where none was meant; else why it cannot be done. */
export function make({ content, context }: Panel, change: Change): ReportedCell | Refusal | null {
  const shared = context.model.sharedModel;
  if (change.action === "save") return null;
  if (change.action === "insert") {
    const before = change.after === null || change.after === "start" ? null : named(content.widgets, change.after);
    if (!change.newCell || before === -1) return "not_found";
    const index = change.after === "start" ? 0 : before === null ? content.widgets.length : before + 1;
    shared.insertCell(index, change.newCell);
    return reported(content.widgets, index);
  }
  const index = named(content.widgets, change.cell ?? "");
  const cell = content.widgets[index]?.model.sharedModel;
  if (!cell) return "not_found";
  if (change.expected !== null && cell.getSource() !== change.expected) return "changed";
  if (change.action === "edit") {
    setText(cell, change.source);
    return reported(content.widgets, index);
  }
  const gone = reported(content.widgets, index);
  shared.deleteCell(index);
  return gone;
}

/** The place of a cell by its id, or by its index from 0; -1: it is not there. */
function named(cells: readonly CellWidget[], name: string): number {
  const index = cells.findIndex(({ model }) => model.id === name);
  return index < 0 && /^\d{1,6}$/.test(name) && Number(name) < cells.length ? Number(name) : index;
}

function reported(cells: readonly CellWidget[], index: number): ReportedCell | Refusal {
  const model = cells[index]?.model;
  if (!model) return "not_found";
  const type = model.type === "markdown" || model.type === "raw" ? model.type : "code";
  return { id: model.id, index, type, source: model.sharedModel.getSource() };
}
