/**
 * A notebook of this page as chats see and change it. One `PageNotebook` belongs to each panel; each chat has a
 * `NotebookHost` of it, which knows in which cell the chat itself is.
 */

import type { ClientNotebook, ShownCell, ShownSelection } from "../protocol/generated.js";
import type { ContextSummary, Mention, NotebookHost } from "../view/host.js";
import { isObject } from "../protocol/frames.js";
import { cellFor, isRunnable } from "./code-language.js";
import { serverPath, type Actions, type CellModel, type CellWidget, type Panel } from "./notebook-types.js";
import { shared } from "./shared-packages.js";
import { errorLine, errorOf, hasError, outputsText } from "./output-text.js";
import { texts } from "./texts.js";

/** Characters of all cells that go along: a command has at most a mebibyte, and a prompt has other parts. */
const MOST = 200_000;
/** Cells that a prompt may have. */
const MOST_CELLS = 2_000;
/** Characters of one cell's source, above which it is not sent: half of a source would be taken for the whole. */
const LONGEST = 50_000;
const SELECTION = 20_000;
const MENTIONS = 50;
const DETAIL = 80;
/** Milliseconds between two notes that the page has changed: typing is a change for each key. */
const PAUSE = 150;

/** A cell that was active, and what was selected in it when it ceased to be: the notebook forgets that. */
interface Visited {
  readonly cell: string;
  readonly selection: string;
}

const notebooks = new WeakMap<Panel, PageNotebook>();

/** The notebook of a panel: one object for all chats, so that a chat knows which cell was active before it was made. */
export function pageNotebook(panel: Panel): PageNotebook {
  let notebook = notebooks.get(panel);
  if (!notebook) notebooks.set(panel, (notebook = new PageNotebook(panel, sharedActions)));
  return notebook;
}

async function sharedActions(): Promise<Actions> {
  return (await shared<{ readonly NotebookActions: Actions }>("@jupyterlab/notebook")).NotebookActions;
}

export class PageNotebook {
  readonly panel: Panel;
  readonly #actions: () => Promise<Actions>;
  readonly #listeners = new Set<() => void>();
  #current: CellWidget | null;
  /** The cells that were active, the last one first; at most two, as a chat is in one cell only. */
  #visited: readonly Visited[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(panel: Panel, actions: () => Promise<Actions>) {
    this.panel = panel;
    this.#actions = actions;
    const { content, context } = panel;
    this.#current = content.activeCell;
    content.activeCellChanged.connect(this.#activated);
    void context.ready.then(() => {
      if (panel.isDisposed) return;
      content.model?.contentChanged.connect(this.#note);
      this.#note();
    });
    context.pathChanged.connect(this.#note);
    // A selection is no change of the model; the editors report theirs to the document.
    panel.node.addEventListener("pointerup", this.#note);
    panel.node.addEventListener("keyup", this.#note);
    panel.disposed.connect(() => clearTimeout(this.#timer));
  }

  /** The host of a chat; `output`: the node of the chat in an output, null for a chat beside the notebook. */
  host(output: HTMLElement | null): NotebookHost {
    return new CellHost(this, this.#actions, output);
  }

  subscribe(changed: () => void): () => void {
    this.#listeners.add(changed);
    return () => this.#listeners.delete(changed);
  }

  get cells(): readonly CellWidget[] {
    const { content } = this.panel;
    return this.panel.isDisposed || content.isDisposed ? [] : content.widgets;
  }

  find(id: string): CellWidget | null {
    return this.cells.find(({ model }) => model.id === id) ?? null;
  }

  /** By its id, or by its index from 0, as tools name cells. */
  named(name: string): CellWidget | null {
    return this.find(name) ?? (/^\d{1,6}$/.test(name) ? (this.cells[Number(name)] ?? null) : null);
  }

  /** The cell that is active, or was before `own`, which holds the chat; and what is selected in it. */
  active(own: CellWidget | null): { readonly widget: CellWidget; readonly selection: string } | null {
    const { activeCell } = this.panel.content;
    if (activeCell && activeCell !== own) return { widget: activeCell, selection: selectionIn(activeCell) };
    for (const { cell, selection } of this.#visited) {
      const widget = this.find(cell);
      if (widget && widget !== own) return { widget, selection };
    }
    return null;
  }

  /** The cell that failed last, by the numbers of its execution. */
  failed(): CellWidget | null {
    let last: CellWidget | null = null;
    for (const cell of this.cells) {
      if (hasError(cell.model) && (cell.model.executionCount ?? 0) >= (last?.model.executionCount ?? 0)) last = cell;
    }
    return last;
  }

  /** Emitted while the cell that was active has its selection still. */
  readonly #activated = (): void => {
    const before = this.#current;
    if (before && !before.isDisposed) {
      const visit = { cell: before.model.id, selection: selectionIn(before) };
      this.#visited = [visit, ...this.#visited.filter(({ cell }) => cell !== visit.cell)].slice(0, 2);
    }
    this.#current = this.panel.content.activeCell;
    this.#note();
  };

  readonly #note = (): void => {
    if (!this.#listeners.size) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      for (const listener of this.#listeners) listener();
    }, PAUSE);
  };
}

function selectionIn({ editor, model }: CellWidget): string {
  if (!editor) return "";
  const { start, end } = editor.getSelection();
  const [one, other] = [editor.getOffsetAt(start), editor.getOffsetAt(end)];
  return model.sharedModel.getSource().slice(Math.min(one, other), Math.max(one, other));
}

class CellHost implements NotebookHost {
  readonly #notebook: PageNotebook;
  readonly #actions: () => Promise<Actions>;
  readonly #output: HTMLElement | null;

  constructor(notebook: PageNotebook, actions: () => Promise<Actions>, output: HTMLElement | null) {
    this.#notebook = notebook;
    this.#actions = actions;
    this.#output = output;
  }

  get #panel(): Panel {
    return this.#notebook.panel;
  }

  get path(): string {
    return serverPath(this.#panel);
  }

  get canEdit(): boolean {
    return !this.#panel.isDisposed && this.#panel.content.model?.readOnly === false;
  }

  /** The cell in whose output the chat is. */
  get #own(): CellWidget | null {
    const output = this.#output;
    return output ? (this.#notebook.cells.find(({ node }) => node.contains(output)) ?? null) : null;
  }

  context(about?: string): ClientNotebook | null {
    const { cells } = this.#notebook;
    if (this.#panel.isDisposed) return null;
    const active = this.#notebook.active(this.#own);
    const failed = about === undefined ? this.#notebook.failed() : this.#notebook.find(about);
    const centre = (about === undefined ? active?.widget : failed) ?? cells.at(-1);
    return {
      path: this.path,
      cells: cells.length > MOST_CELLS ? null : shown(cells, centre ? cells.indexOf(centre) : 0),
      active: about ?? active?.widget.model.id ?? null,
      selection: selectionOf(active),
      error: failed ? errorOf(failed.model) : null,
      unsaved: this.#panel.context.model.dirty,
    };
  }

  summary(): ContextSummary | null {
    if (this.#panel.isDisposed) return null;
    const active = this.#notebook.active(this.#own);
    const failed = this.#notebook.failed();
    return {
      path: this.path,
      cell: active ? this.#labelOf(active.widget) : null,
      hasSelection: Boolean(active?.selection.trim()),
      error: failed ? this.#labelOf(failed) : null,
      unsaved: this.#panel.context.model.dirty,
    };
  }

  subscribe(changed: () => void): () => void {
    return this.#notebook.subscribe(changed);
  }

  cellLabel(cellId: string): string | null {
    const cell = this.#notebook.named(cellId);
    return cell ? this.#labelOf(cell) : null;
  }

  #labelOf(cell: CellWidget): string {
    if (cell.model.type === "code") return `In [${cell.model.executionCount ?? " "}]`;
    return texts.cellPlace(this.#notebook.cells.indexOf(cell) + 1);
  }

  revealCell(cellId: string): boolean {
    const cell = this.#notebook.named(cellId);
    if (cell) this.#activate(this.#notebook.cells.indexOf(cell));
    return cell !== null;
  }

  mentions(query: string): readonly Mention[] {
    const { cells } = this.#notebook;
    const own = this.#own;
    const found = cells
      .filter((cell) => cell !== own)
      .flatMap((cell): readonly Mention[] => {
        const label = this.#labelOf(cell);
        const first = cell.model.sharedModel.getSource().trim().split("\n", 1)[0] ?? "";
        const mention = { kind: "cell", cell: cell.model.id, label, detail: first.slice(0, DETAIL) } as const;
        const error = errorOf(cell.model);
        return error ? [{ ...mention, kind: "error", detail: errorLine(error).slice(0, DETAIL) }, mention] : [mention];
      });
    return ranked(found, query).slice(0, MENTIONS);
  }

  canRun(language: string): boolean {
    return isRunnable(language, kernelLanguage(this.#panel));
  }

  insertBelow(code: string, language = ""): void {
    this.#insert(code, language);
  }

  replaceCell(code: string, language = ""): void {
    const active = this.#notebook.active(this.#own);
    if (!active || !this.canEdit) return;
    const { model } = active.widget;
    const index = this.#notebook.cells.indexOf(active.widget);
    const { kind, source } = cellFor(code, language, kernelLanguage(this.#panel));
    const shared = this.#panel.context.model.sharedModel;
    if (model.type === kind) model.sharedModel.setSource(source);
    else {
      shared.transact(() => {
        shared.deleteCell(index);
        shared.insertCell(index, { cell_type: kind, source });
      });
    }
    this.#activate(index);
  }

  runCode(code: string, language = ""): void {
    if (this.#insert(code, language)) void this.#run(this.#panel.content.activeCellIndex).catch(() => undefined);
  }

  async #run(index: number): Promise<void> {
    const actions = await this.#actions();
    const focused = document.activeElement;
    const { content, sessionContext } = this.#panel;
    content.activeCellIndex = index; // what is active runs, and time has passed
    content.deselectAll();
    // Where the focus is in the notebook, a chat in an output included, the notebook takes it to the cell a moment later.
    if (focused instanceof HTMLElement) focused.blur();
    const running = actions.run(content, sessionContext);
    if (focused instanceof HTMLElement && focused.isConnected) focused.focus({ preventScroll: true });
    await running;
  }

  /** Answers whether there is a new cell. */
  #insert(code: string, language: string): boolean {
    if (!this.canEdit) return false;
    const { cells } = this.#notebook;
    const active = this.#notebook.active(this.#own)?.widget ?? this.#own;
    const index = active ? cells.indexOf(active) + 1 : cells.length;
    const { kind, source } = cellFor(code, language, kernelLanguage(this.#panel));
    // The user has pressed the button: what they put there is trusted as what they type is.
    const metadata = kind === "code" ? { trusted: true } : {};
    this.#panel.context.model.sharedModel.insertCell(index, { cell_type: kind, source, metadata });
    this.#activate(index);
    return true;
  }

  #activate(index: number): void {
    const { content } = this.#panel;
    content.activeCellIndex = index;
    content.deselectAll();
    void content.scrollToItem?.(index, "smart").catch(() => undefined);
  }
}

/** The cells as they go along; where there is not room for all texts, those around `centre` have theirs. */
function shown(cells: readonly CellWidget[], centre: number): readonly ShownCell[] {
  const near = cells.map((_, index) => index).sort((one, other) => Math.abs(one - centre) - Math.abs(other - centre));
  const found = new Map<number, ShownCell>();
  let room = MOST;
  for (const index of near) {
    const { model } = cells[index] as CellWidget;
    const text = model.sharedModel.getSource();
    const source = text.length <= Math.min(LONGEST, room) ? text : null;
    room -= source?.length ?? 0;
    const isNear = room > 0;
    const output = isNear ? outputsText(model) : null;
    const error = isNear ? errorOf(model) : null;
    room -= output?.length ?? 0;
    found.set(index, { id: model.id, type: typeOf(model), source, execution_count: model.executionCount ?? null, output, error: error && errorLine(error) });
  }
  return cells.flatMap((_, index) => found.get(index) ?? []);
}

function typeOf({ type }: CellModel): NonNullable<ShownCell["type"]> {
  return type === "markdown" || type === "raw" ? type : "code";
}

function selectionOf(active: { readonly widget: CellWidget; readonly selection: string } | null): ShownSelection | null {
  return active?.selection.trim() ? { cell: active.widget.model.id, text: active.selection.slice(0, SELECTION) } : null;
}

/** The language of the notebook's kernel, in small letters. */
function kernelLanguage({ context }: Panel): string {
  for (const [key, name] of [["kernelspec", "language"], ["language_info", "name"]] as const) {
    const known = context.model.sharedModel.getMetadata?.(key);
    if (isObject(known) && typeof known[name] === "string" && known[name]) return known[name].toLowerCase();
  }
  return "python";
}

function withoutBrackets(text: string): string {
  return text.replace(/[[\] ]/g, "").toLowerCase();
}

/** Those whose label or text begins with the query, then those that have it. */
function ranked(all: readonly Mention[], query: string): readonly Mention[] {
  const wanted = query.trim().toLowerCase();
  if (!wanted) return all;
  const name = withoutBrackets(wanted); // "in3", "in[3" and "In [3]" are the same
  const rank = ({ kind, label, detail }: Mention): number => {
    const texts = [kind, label.toLowerCase(), detail.toLowerCase()];
    if (texts.some((text) => text.startsWith(wanted)) || withoutBrackets(label).startsWith(name || wanted)) return 0;
    return texts.some((text) => text.includes(wanted)) ? 1 : 2;
  };
  return all
    .map((mention) => [rank(mention), mention] as const)
    .filter(([place]) => place < 2)
    .sort(([one], [other]) => one - other)
    .map(([, mention]) => mention);
}
