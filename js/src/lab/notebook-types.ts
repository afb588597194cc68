/** The parts of JupyterLab's notebook that are used here, as far as they are used. */

import type { NotebookContext, SharedNotebook } from "./open-notebook.js";

export interface Signal<Sender = unknown, Args = unknown> {
  connect(slot: (sender: Sender, args: Args) => void): unknown;
  disconnect(slot: (sender: Sender, args: Args) => void): unknown;
}

/** An output, as nbformat has it. */
export type Output = Readonly<Record<string, unknown>>;

export interface OutputsModel {
  readonly length: number;
  readonly changed: Signal;
  get(index: number): { readonly type: string; toJSON(): Output };
}

export interface SharedCell {
  getSource(): string;
  setSource(source: string): void;
  updateSource?(start: number, end: number, text: string): void;
}

export interface CellModel {
  readonly id: string;
  readonly type: string;
  readonly sharedModel: SharedCell;
  readonly contentChanged: Signal;
  /** Of a code cell. */
  readonly outputs?: OutputsModel;
  readonly executionCount?: number | null;
}

export interface Editor {
  getSelection(): { readonly start: Position; readonly end: Position };
  getOffsetAt(position: Position): number;
}

interface Position {
  readonly line: number;
  readonly column: number;
}

export interface CellWidget {
  readonly node: HTMLElement;
  readonly model: CellModel;
  readonly isDisposed: boolean;
  /** Null while the cell is far out of sight. */
  readonly editor: Editor | null;
  /** Of a code cell. */
  readonly outputArea?: { readonly node: HTMLElement };
}

export interface NotebookWidget {
  readonly node: HTMLElement;
  readonly isDisposed: boolean;
  readonly widgets: readonly CellWidget[];
  readonly activeCell: CellWidget | null;
  activeCellIndex: number;
  readonly activeCellChanged: Signal<NotebookWidget, CellWidget | null>;
  readonly model: NotebookModel | null;
  deselectAll(): void;
  scrollToItem?(index: number, align?: string): Promise<void>;
}

export interface NotebookModel {
  readonly cells: { readonly changed: Signal };
  readonly contentChanged: Signal;
  /** Emitted when it becomes dirty or clean, among others. */
  readonly stateChanged?: Signal;
  readonly sharedModel: SharedNotebook;
  readonly dirty: boolean;
  readonly readOnly: boolean;
}

export interface Panel {
  readonly node: HTMLElement;
  readonly content: NotebookWidget;
  readonly context: NotebookContext & { readonly pathChanged: Signal; readonly ready: Promise<void>; save(): Promise<void>; revert(): Promise<void> };
  readonly sessionContext: object;
  readonly isDisposed: boolean;
  readonly disposed: Signal;
}

/** The path that the server knows: real-time collaboration puts the name of its drive before it. */
export function serverPath({ context }: Panel): string {
  return context.path.replace(/^[^:/]+:/, "");
}

export interface NotebookTracker {
  readonly widgetAdded: Signal<NotebookTracker, Panel>;
  readonly currentWidget: Panel | null;
  forEach(visit: (panel: Panel) => void): void;
}

/** `NotebookActions` of `@jupyterlab/notebook`. */
export interface Actions {
  run(notebook: NotebookWidget, session: object): Promise<boolean>;
}
