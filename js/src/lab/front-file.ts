/**
 * The file that is in front of the page, in an editor. A prompt from the panel then has what is selected there, in the
 * place of the cells of a notebook that is behind it; everything else of the panel's chat is still about that notebook.
 */

import type { ClientNotebook } from "../protocol/generated.js";
import type { ContextSummary, Mention, NotebookHost } from "../view/host.js";
import type { Editor, Signal } from "./notebook-types.js";

/** Characters of a selection that go along. */
const SELECTION = 20_000;
/** Milliseconds between two notes that the page has changed. */
const PAUSE = 150;

/** A file in an editor, of JupyterLab's, as far as it is used here. */
export interface FileWidget {
  readonly node: HTMLElement;
  readonly isDisposed: boolean;
  readonly context: { readonly path: string; readonly model: { readonly dirty: boolean; readonly sharedModel: { getSource(): string } } };
  readonly content: { readonly editor: Editor };
}

export interface FileTracker {
  readonly currentWidget: FileWidget | null;
  readonly widgetAdded: Signal<unknown, FileWidget>;
  forEach(visit: (file: FileWidget) => void): void;
}

export interface FrontShell {
  readonly currentWidget?: unknown;
  readonly currentChanged?: Signal;
}

export class FrontFile {
  readonly #tracker: FileTracker | null;
  readonly #shell: FrontShell;
  readonly #listeners = new Set<() => void>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(tracker: FileTracker | null, shell: FrontShell) {
    this.#tracker = tracker;
    this.#shell = shell;
    if (!tracker) return;
    const follow = ({ node }: FileWidget): void => {
      for (const type of ["pointerup", "keyup"]) node.addEventListener(type, this.#note);
    };
    tracker.forEach(follow);
    tracker.widgetAdded.connect((_, file) => follow(file));
    shell.currentChanged?.connect(this.#note);
  }

  /** Null: something else is in front. */
  get file(): FileWidget | null {
    const file = this.#tracker?.currentWidget ?? null;
    return file && !file.isDisposed && this.#shell.currentWidget === file ? file : null;
  }

  subscribe(changed: () => void): () => void {
    this.#listeners.add(changed);
    return () => this.#listeners.delete(changed);
  }

  /** The host of a chat beside the work: of a notebook, or of none. */
  host(notebook: NotebookHost | null): NotebookHost {
    return new WorkHost(this, notebook);
  }

  readonly #note = (): void => {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      for (const listener of this.#listeners) listener();
    }, PAUSE);
  };
}

function selectedIn({ content: { editor }, context }: FileWidget): string {
  const { start, end } = editor.getSelection();
  const [one, other] = [editor.getOffsetAt(start), editor.getOffsetAt(end)];
  return context.model.sharedModel.getSource().slice(Math.min(one, other), Math.max(one, other));
}

function pathOf({ context }: FileWidget): string {
  return context.path.replace(/^[^:/]+:/, "");
}

class WorkHost implements NotebookHost {
  readonly #front: FrontFile;
  readonly #notebook: NotebookHost | null;

  constructor(front: FrontFile, notebook: NotebookHost | null) {
    this.#front = front;
    this.#notebook = notebook;
  }

  get path(): string {
    return this.#notebook?.path ?? "";
  }

  get canEdit(): boolean {
    return this.#notebook?.canEdit ?? false;
  }

  context(about?: string): ClientNotebook | null {
    const file = about === undefined ? this.#front.file : null;
    if (!file) return this.#notebook?.context(about) ?? null;
    const text = selectedIn(file).slice(0, SELECTION);
    return { path: pathOf(file), cells: null, active: null, selection: text.trim() ? { cell: null, text } : null, error: null, unsaved: file.context.model.dirty };
  }

  summary(): ContextSummary | null {
    const { file } = this.#front;
    if (!file) return this.#notebook?.summary() ?? null;
    return { path: pathOf(file), cell: null, hasSelection: Boolean(selectedIn(file).trim()), error: null, unsaved: file.context.model.dirty };
  }

  subscribe(changed: () => void): () => void {
    const ends = [this.#front.subscribe(changed), this.#notebook?.subscribe(changed)];
    return () => {
      for (const end of ends) end?.();
    };
  }

  cellLabel(cellId: string): string | null {
    return this.#notebook?.cellLabel(cellId) ?? null;
  }

  revealCell(cellId: string): boolean {
    return this.#notebook?.revealCell(cellId) ?? false;
  }

  mentions(query: string): readonly Mention[] {
    return this.#notebook?.mentions(query) ?? [];
  }

  canRun(language: string): boolean {
    return this.#notebook?.canRun(language) ?? false;
  }

  insertBelow(code: string, language?: string): void {
    this.#notebook?.insertBelow(code, language);
  }

  replaceCell(code: string, language?: string): void {
    this.#notebook?.replaceCell(code, language);
  }

  runCode(code: string, language?: string): void {
    this.#notebook?.runCode(code, language);
  }
}
