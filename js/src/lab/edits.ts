/**
 * The changes that a run made to an open notebook, in the notebook: a line above each cell with the difference, *Keep* and
 * *Undo*. They stay until they are kept or undone, or the session begins its next run, and are there again after a reload.
 */

import { isObject } from "../protocol/frames.js";
import type { NaviChat } from "../view/chat-element.js";
import type { NaviCellEdit } from "../view/notebook/cell-edit-element.js";
import { setText } from "./open-notebook.js";
import { serverPath, type CellWidget, type NotebookTracker, type Panel } from "./notebook-types.js";
import { lastRun, readEdits, settleEdits, type RunEdit, type RunName } from "./run-edits.js";
import { texts } from "./texts.js";

/** In the place of the id of the cell before: there was none. */
const START = "start";
/** Milliseconds after a change of the notebook, and after a tool has changed one. */
const PAUSE = 150;

/** What this needs of the extension. */
export interface EditsSetup {
  /** The id of the session of the notebook at a path; null: it has none. */
  findSession(path: string): Promise<string | null>;
  /** The bundle with the element, from the server. */
  loadBundle(): Promise<unknown>;
  /** Remembers the notebook's file, so that `refresh` can bring a change of it into the page where no collaboration does. */
  follow(panel: Panel): void;
  refresh(panel: Panel): Promise<unknown>;
}

/** All notebooks of the page. */
export interface DrawnEdits {
  /** The server has changed the file of a notebook for a session, or knows something new of the edits of its runs. */
  changed(path: string, session: string): void;
  /** The server was away: what was changed meanwhile was not reported. */
  lookAgain(): void;
}

export function drawEdits(tracker: NotebookTracker, setup: EditsSetup): DrawnEdits {
  const all = new Set<NotebookEdits>();
  const add = (panel: Panel): void => {
    const edits = new NotebookEdits(panel, setup);
    all.add(edits);
    panel.disposed.connect(() => {
      edits.clear();
      all.delete(edits);
    });
  };
  tracker.forEach(add);
  tracker.widgetAdded.connect((_, panel) => add(panel));
  // Of all chats of the page: of those in outputs, and of the one beside the notebooks.
  document.addEventListener("navi-notebook", (event) => {
    const name = runOf(event);
    if (name) for (const edits of all) edits.changed(name);
  });
  document.addEventListener("navi-run", (event) => {
    const name = runOf(event);
    const path = (event.target as Partial<NaviChat> | null)?.host?.path;
    if (name) for (const edits of all) edits.began(name, path);
  });
  return {
    changed: (path, session) => {
      for (const edits of all) if (edits.path === path) edits.changedFor(session);
    },
    lookAgain: () => {
      for (const edits of all) edits.lookAgain();
    },
  };
}

function runOf(event: Event): RunName | null {
  const detail: unknown = event instanceof CustomEvent ? event.detail : null;
  if (!isObject(detail) || typeof detail["session"] !== "string" || typeof detail["run"] !== "string") return null;
  return { session: detail["session"], run: detail["run"] };
}

class NotebookEdits {
  readonly #panel: Panel;
  readonly #setup: EditsSetup;
  #run: RunName | null = null;
  #edits: readonly RunEdit[] = [];
  readonly #elements = new Map<string, NaviCellEdit>();
  #problem = "";
  #drawing: ReturnType<typeof setTimeout> | undefined;
  #reading: ReturnType<typeof setTimeout> | undefined;

  constructor(panel: Panel, setup: EditsSetup) {
    this.#panel = panel;
    this.#setup = setup;
    void panel.context.ready.then(() => this.#begin()).catch(() => undefined);
  }

  get path(): string {
    return serverPath(this.#panel);
  }

  async #begin(): Promise<void> {
    const { content } = this.#panel;
    if (this.#panel.isDisposed) return;
    content.model?.contentChanged.connect(this.#plan);
    content.model?.cells.changed.connect(this.#plan);
    await this.#look();
  }

  /** The session of the notebook, and what its last run has changed. */
  async #look(): Promise<void> {
    const session = await this.#setup.findSession(this.path);
    if (session === null || this.#panel.isDisposed) return;
    this.#setup.follow(this.#panel);
    const run = await lastRun(session);
    if (run && this.#run === null) await this.#read(run);
  }

  changedFor(session: string): void {
    void this.#setup.refresh(this.#panel);
    this.#planReading(() => lastRun(session));
  }

  lookAgain(): void {
    void this.#setup.refresh(this.#panel);
    const run = this.#run;
    if (run) this.#planReading(() => lastRun(run.session));
    else void this.#look().catch(() => undefined);
  }

  /** A tool of a run has changed a notebook, which may be this one. */
  changed(name: RunName): void {
    void this.#setup.refresh(this.#panel);
    this.#planReading(() => Promise.resolve(name));
  }

  #planReading(find: () => Promise<RunName | null>): void {
    clearTimeout(this.#reading);
    this.#reading = setTimeout(() => {
      const read = find().then((name) => (name ? this.#read(name) : undefined));
      read.catch(() => undefined); // the server is away: it is read when it is back
    }, PAUSE);
  }

  /** A session begins a run: what an earlier one has changed is taken for kept. `path`: of the chat's notebook. */
  began({ session, run }: RunName, path: string | undefined): void {
    if (path === this.path) this.#setup.follow(this.#panel);
    if (this.#run?.session !== session || this.#run.run === run) return;
    this.clear();
  }

  clear(): void {
    clearTimeout(this.#reading);
    clearTimeout(this.#drawing);
    this.#drawing = undefined;
    this.#run = null;
    this.#edits = [];
    for (const element of this.#elements.values()) element.remove();
    this.#elements.clear();
  }

  async #read(name: RunName): Promise<void> {
    const edits = await readEdits(name, this.path);
    if (this.#panel.isDisposed || (!edits.length && this.#run?.run !== name.run)) return;
    if (edits.length) this.#setup.follow(this.#panel);
    await this.#setup.loadBundle();
    if (this.#run?.run !== name.run) this.#problem = "";
    this.#run = name;
    this.#edits = edits;
    this.#draw();
  }

  readonly #plan = (): void => {
    if (!this.#edits.length) return;
    this.#drawing ??= setTimeout(() => {
      this.#drawing = undefined;
      this.#draw();
    }, PAUSE);
  };

  // --- drawing -------------------------------------------------------------------------------------------------------

  #draw(): void {
    if (this.#panel.isDisposed) return;
    const open = this.#open();
    for (const [cell, element] of this.#elements) {
      if (open.some((edit) => edit.cell === cell)) continue;
      element.remove();
      this.#elements.delete(cell);
    }
    for (const [index, edit] of open.entries()) this.#place(edit, open.length, index === 0 ? this.#problem : "");
  }

  /** Those that the page shows: what was undone by other means is none any more. */
  #open(): readonly RunEdit[] {
    return this.#edits.filter((edit) => {
      const source = this.#cell(edit.cell)?.model.sharedModel.getSource();
      if (edit.kind === "deleted") return source === undefined;
      return source !== undefined && (edit.kind === "inserted" || source !== edit.before);
    });
  }

  #cell(id: string): CellWidget | undefined {
    return this.#panel.content.widgets.find(({ model }) => model.id === id);
  }

  #place(edit: RunEdit, count: number, problem: string): void {
    const element = this.#element(edit);
    element.change = edit;
    element.current = this.#cell(edit.cell)?.model.sharedModel.getSource() ?? "";
    element.count = count;
    element.problem = problem;
    const place = this.#placeOf(edit);
    if (!place || element.parentElement === place) return;
    place.prepend(element);
  }

  /** The header of the cell: an empty widget above it. What was deleted is above the cell that came after it. */
  #placeOf(edit: RunEdit): Element | null {
    const { widgets } = this.#panel.content;
    const before = widgets.findIndex(({ model }) => model.id === edit.place);
    const isLast = edit.place !== START && before < 0;
    const cell = edit.kind === "deleted" ? (isLast ? undefined : widgets[before + 1]) : this.#cell(edit.cell);
    if (cell) return cell.node.querySelector(".jp-CellHeader");
    return widgets.at(-1)?.node.querySelector(".jp-CellFooter") ?? null;
  }

  #element(edit: RunEdit): NaviCellEdit {
    let element = this.#elements.get(edit.cell);
    if (element) return element;
    element = document.createElement("navi-cell-edit") as NaviCellEdit;
    this.#elements.set(edit.cell, element);
    const all = (): readonly string[] => this.#edits.map(({ cell }) => cell);
    element.addEventListener("navi-keep", () => void this.#keep([edit.cell]));
    element.addEventListener("navi-keep-all", () => void this.#keep(all()));
    element.addEventListener("navi-undo", () => void this.#undo([edit.cell]));
    element.addEventListener("navi-undo-all", () => void this.#undo(all()));
    return element;
  }

  // --- what is pressed -------------------------------------------------------------------------------------------------

  /** What is kept stays as it is; the server notes it, so that no other view shows it either. */
  async #keep(cells: readonly string[]): Promise<void> {
    const run = this.#run;
    this.#problem = "";
    this.#edits = this.#edits.filter(({ cell }) => !cells.includes(cell));
    this.#leave();
    if (run) await settleEdits(run, "keep", cells);
  }

  /**
   * The server undoes what is as the run has left it, and notes it in the session's log. What the user has changed since
   * only the page has: a single undo of that is a change of the page, and the undo of all leaves it.
   */
  async #undo(cells: readonly string[]): Promise<void> {
    const run = this.#run;
    if (!run) return;
    const [only, ...others] = this.#edits.filter(({ cell }) => cells.includes(cell));
    if (only && !others.length && this.#isChangedSince(only)) {
      this.#problem = "";
      this.#undoHere(only);
      this.#leave();
      return;
    }
    // Where no page is asked (real-time collaboration), the server knows as much as this one.
    const asLeft = this.#edits.filter((edit) => cells.includes(edit.cell) && !this.#isChangedSince(edit));
    const problem = asLeft.length ? await settleEdits(run, "undo", asLeft.map(({ cell }) => cell)) : null;
    if (this.#panel.isDisposed || this.#run !== run) return;
    this.#problem = problem === null ? "" : texts.undoFailed(problem);
    if (problem === null) {
      await this.#setup.refresh(this.#panel);
      this.#edits = await readEdits(run, this.path);
      const left = this.#open().filter((edit) => cells.includes(edit.cell)).length;
      if (left) this.#problem = texts.undoLeft(left);
    }
    this.#leave();
  }

  #isChangedSince(edit: RunEdit): boolean {
    const source = this.#cell(edit.cell)?.model.sharedModel.getSource();
    return edit.kind !== "deleted" && source !== undefined && source !== edit.after;
  }

  #undoHere(edit: RunEdit): void {
    const cell = this.#cell(edit.cell);
    if (edit.kind === "edited" && cell) setText(cell.model.sharedModel, edit.before);
    else if (cell) this.#panel.context.model.sharedModel.deleteCell(this.#panel.content.widgets.indexOf(cell));
  }

  /** The button that was pressed is gone: the focus goes to the next line of these, else to the notebook. */
  #leave(): void {
    const had = document.activeElement?.closest("navi-cell-edit") ?? null;
    this.#draw();
    if (!had || had.isConnected) return;
    const [next] = this.#elements.values();
    const button = next?.querySelector<HTMLElement>("[data-navi=edit-keep]");
    (button ?? this.#panel.content.node).focus({ preventScroll: true });
  }
}
