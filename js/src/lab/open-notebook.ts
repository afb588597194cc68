/**
 * Brings what the agent changed in a notebook's file into the page that has the notebook open, cell by cell, where
 * there is no real-time collaboration that does. What the user has changed and not saved stays as it is: a cell that both
 * have changed is left alone, and JupyterLab asks when it is saved, as for every other change of the file.
 */

import { isObject } from "../protocol/frames.js";

export interface SharedCell {
  readonly cell_type: string;
  execution_count?: number | null;
  getId(): string;
  getSource(): string;
  setSource(source: string): void;
  /** Replaces the text from `start` to `end`. */
  updateSource?(start: number, end: number, text: string): void;
  setOutputs?(outputs: readonly unknown[]): void;
}

export interface SharedNotebook {
  readonly cells: readonly SharedCell[];
  insertCell(index: number, cell: FileCell): unknown;
  deleteCell(index: number): void;
  transact(change: () => void): void;
  getMetadata?(key: string): unknown;
  setMetadata?(key: string, value: unknown): void;
}

interface Signal<Args = unknown> {
  connect(slot: (sender: unknown, args: Args) => void): unknown;
  disconnect(slot: (sender: unknown, args: Args) => void): unknown;
}

/** A notebook's context, of JupyterLab's. */
export interface NotebookContext {
  readonly path: string;
  readonly isDisposed: boolean;
  readonly model: { readonly sharedModel: SharedNotebook; readonly collaborative?: boolean; dirty: boolean };
  readonly contentsModel: { readonly last_modified: string } | null;
  readonly fileChanged: Signal;
  /** `started` right before what is sent is taken from the page; `completed` or `failed`. */
  readonly saveState: Signal<string>;
  /** Not of its public interface: what a save compares the file with. Without it a save asks, which is no harm. */
  _updateContentsModel?(model: ContentsModel): void;
}

export interface FileCell {
  readonly id?: string;
  readonly cell_type: string;
  readonly source: string | readonly string[];
  readonly outputs?: readonly unknown[];
  readonly execution_count?: number | null;
  readonly metadata?: Readonly<Record<string, unknown>>;
}

interface ContentsModel {
  readonly last_modified: string;
  readonly content: { readonly cells: readonly FileCell[] } | null;
}

export interface Contents {
  get(path: string, options: { content: boolean; type?: "notebook"; hash?: boolean }): Promise<ContentsModel>;
}

const notebooks = new WeakMap<NotebookContext, OpenNotebook>();

/** The path that the server knows: real-time collaboration puts the name of its drive before it. */
export function withoutDrive(path: string): string {
  return path.replace(/^[^:/]+:/, "");
}

/** The notebook of a context: one for all chats that show its session. It ends with the context, whose signals do. */
export function openNotebook(context: NotebookContext, contents: Contents): OpenNotebook {
  let notebook = notebooks.get(context);
  if (!notebook) notebooks.set(context, (notebook = new OpenNotebook(context, contents)));
  return notebook;
}

/** A cell as it was in the file. */
interface Known {
  readonly source: string;
  readonly outputs: string;
}

type Base = ReadonlyMap<string, Known>;

/** The cells of the page, each with its id and source. */
type Sent = readonly (readonly [id: string, source: string])[];

export class OpenNotebook {
  readonly #context: NotebookContext;
  readonly #contents: Contents;
  /** The file as the page and it were the same the last time; null: not known, so nothing is brought over. */
  #base: Base | null = null;
  /** What the save that is under way takes to the file; null: there is none. */
  #sent: Sent | null = null;
  #work: Promise<void>;
  #isOurs = false;

  constructor(context: NotebookContext, contents: Contents) {
    this.#context = context;
    this.#contents = contents;
    this.#work = this.#remember(null);
    context.fileChanged.connect(this.#onFile);
    context.saveState.connect(this.#onSave);
  }

  /** Whether the cells of the page and of the file are known to be the same ones. */
  get isMatched(): boolean {
    return this.#base !== null;
  }

  dispose(): void {
    this.#context.fileChanged.disconnect(this.#onFile);
    this.#context.saveState.disconnect(this.#onSave);
  }

  /** The agent may have changed the file. Answers whether the page has all of the file now. Never rejects. */
  refresh(): Promise<boolean> {
    const merged = this.#work.then(() => this.#merge().catch(() => false));
    this.#work = merged.then(() => undefined);
    return merged;
  }

  /** It was saved, or loaded again. */
  readonly #onFile = (): void => {
    const sent = this.#sent;
    if (!this.#isOurs) this.#work = this.#work.then(() => this.#remember(sent));
  };

  /** JupyterLab calls a page saved once the answer is there, also what was written into it since it was sent. */
  readonly #onSave = (_: unknown, state: string): void => {
    if (this.#isAway) return;
    if (state === "started") {
      this.#sent = this.#cells();
      return;
    }
    const isOther = this.#sent !== null && JSON.stringify(this.#sent) !== JSON.stringify(this.#cells());
    if (state === "completed" && isOther) this.#context.model.dirty = true;
    this.#sent = null;
  };

  #cells(): Sent {
    return this.#context.model.sharedModel.cells.map((cell) => [cell.getId(), cell.getSource()]);
  }

  get #isAway(): boolean {
    return this.#context.isDisposed || this.#context.model.collaborative === true;
  }

  async #remember(sent: Sent | null): Promise<void> {
    const before = this.#base;
    this.#base = null;
    if (this.#isAway) return;
    const file = await this.#read().catch(() => null);
    // Read a moment after the page was: it may have been changed in between, and then the page does not have that.
    const isSame = file !== null && file.last_modified === this.#context.contentsModel?.last_modified;
    if (isSame) this.#base = baseOf(file.content?.cells ?? []);
    else if (sent && !sent.some(([id]) => !id) && new Set(sent.map(([id]) => id)).size === sent.length)
      this.#base = new Map(sent.map(([id, source]) => [id, { source, outputs: before?.get(id)?.outputs ?? "[]" }]));
  }

  #read(): Promise<ContentsModel> {
    return this.#contents.get(this.#context.path, { type: "notebook", content: true, hash: true });
  }

  async #merge(): Promise<boolean> {
    if (this.#isAway) return true;
    const { last_modified: now } = await this.#contents.get(this.#context.path, { content: false });
    if (now === this.#context.contentsModel?.last_modified) return true;
    if (this.#base === null) return false;
    const file = await this.#read();
    const cells = file.content?.cells ?? [];
    const next = baseOf(cells);
    const base = this.#base;
    if (this.#isAway || next === null) return false;
    const { model } = this.#context;
    const wasDirty = model.dirty;
    let isWhole = true;
    model.sharedModel.transact(() => {
      isWhole = merge(model.sharedModel, base, next, cells);
    });
    // What could not be brought over is a conflict still when this is asked again: the host asks when it is saved.
    if (!isWhole) return false;
    this.#base = next;
    this.#isOurs = true;
    try {
      this.#context._updateContentsModel?.(file);
    } finally {
      this.#isOurs = false;
    }
    if (!wasDirty) model.dirty = false; // it is what is in the file
    return true;
  }
}

/**
 * Has the page's notebook carry the id of its session, as it is on the server, so that the next save brings it to the
 * file. `find` gives the id for a path; null: it has none. With real-time collaboration the server does this.
 */
export async function carryId(context: NotebookContext, find: (path: string) => Promise<string | null>): Promise<void> {
  const { model, path } = context;
  const id = await find(path);
  const page = model.sharedModel;
  if (id === null || context.isDisposed || context.path !== path || model.collaborative === true) return;
  const ours = page.getMetadata?.("navi");
  const known = isObject(ours) ? ours : {};
  if (known["session_id"] !== id) page.setMetadata?.("navi", { ...known, session_id: id });
}

/** Null where a cell has no id: then cells cannot be matched. */
function baseOf(cells: readonly FileCell[]): Base | null {
  const base = new Map<string, Known>();
  for (const cell of cells) {
    if (!cell.id || base.has(cell.id)) return null;
    base.set(cell.id, { source: sourceOf(cell), outputs: JSON.stringify(cell.outputs ?? []) });
  }
  return base;
}

function sourceOf({ source }: FileCell): string {
  return typeof source === "string" ? source : source.join("");
}

/** Does to the page what was done to the file since `base`. Answers whether all of it could be done. */
export function merge(page: SharedNotebook, base: Base, next: Base, cells: readonly FileCell[]): boolean {
  let isWhole = true;
  for (const [id, known] of base) {
    if (next.has(id)) continue;
    const index = page.cells.findIndex((cell) => cell.getId() === id);
    const here = page.cells[index];
    if (here?.getSource() === known.source) page.deleteCell(index);
    else if (here) isWhole = false;
  }
  let before = -1;
  for (const cell of cells) {
    const id = cell.id ?? "";
    const index = page.cells.findIndex((one) => one.getId() === id);
    const here = page.cells[index];
    if (here) {
      isWhole = change(here, base.get(id), cell) && isWhole;
      before = index;
    } else if (!base.has(id)) {
      page.insertCell((before += 1), cell);
    } // else the user has deleted it, and has not saved
  }
  return isWhole;
}

/** Changes no more than what is different: the cursor and what is selected stay where they are. */
export function setText(cell: Pick<SharedCell, "getSource" | "setSource" | "updateSource">, text: string): void {
  const now = cell.getSource();
  if (!cell.updateSource) return cell.setSource(text);
  const most = Math.min(now.length, text.length);
  let start = 0;
  while (start < most && now[start] === text[start]) start += 1;
  let end = 0;
  while (end < most - start && now[now.length - 1 - end] === text[text.length - 1 - end]) end += 1;
  // Half of a character outside of the basic plane cannot be kept alone.
  if (/[\uD800-\uDBFF]/.test(now[start - 1] ?? "")) start -= 1;
  if (/[\uDC00-\uDFFF]/.test(now[now.length - end] ?? "")) end -= 1;
  if (start + end < Math.max(now.length, text.length)) cell.updateSource(start, now.length - end, text.slice(start, text.length - end));
}

function change(here: SharedCell, was: Known | undefined, cell: FileCell): boolean {
  const source = sourceOf(cell);
  const isChanged = was?.source !== source && here.getSource() !== source;
  if (isChanged && here.getSource() !== was?.source) return false;
  if (isChanged) setText(here, source);
  if (cell.cell_type === "code" && here.setOutputs && was?.outputs !== JSON.stringify(cell.outputs ?? [])) {
    here.setOutputs(structuredClone(cell.outputs ?? []) as unknown[]);
    here.execution_count = cell.execution_count ?? null;
  }
  return true;
}
