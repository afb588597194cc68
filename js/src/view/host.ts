/**
 * The page around a chat, where that page has a notebook open: what a chat reads of the notebook and does to it.
 * JupyterLab's extension sets it (`chat.host`); other front ends have none, and then `host` is null.
 *
 * Cells are named by their ids. What a host reads is the page's own state, so it has what is not saved.
 */

import type { ClientNotebook } from "../protocol/generated.js";

/** What of the page would go along, for a line in the composer. */
export interface ContextSummary {
  readonly path: string;
  /** The label of the active cell; null: none is active. */
  readonly cell: string | null;
  readonly hasSelection: boolean;
  /** The label of the cell that failed last. */
  readonly error: string | null;
  readonly unsaved: boolean;
}

/** Something in the notebook that a prompt can name. */
export interface Mention {
  readonly kind: "cell" | "error";
  readonly cell: string;
  /** "In [3]", or the place of a cell that has no number. */
  readonly label: string;
  /** The first line of the cell, or of the error. */
  readonly detail: string;
}

export interface NotebookHost {
  /** From the server's folder. */
  readonly path: string;
  /** Whether the notebook can be changed: false for one that is read-only. */
  readonly canEdit: boolean;

  /** What the page shows. `about`: the cell whose error goes along. Null: the notebook is closed. */
  context(about?: string): ClientNotebook | null;
  summary(): ContextSummary | null;
  /** Calls `changed` when what `summary` answers may be another. The answer ends that. */
  subscribe(changed: () => void): () => void;

  /**
   * "In [3]" as the page shows it, "In [ ]" for one that did not run, "cell 2" for one that is no code; null: not in this
   * notebook. Takes an id or, as tools do, an index from 0.
   */
  cellLabel(cellId: string): string | null;
  /** Scrolls to a cell and makes it the active one. Answers whether it is there. */
  revealCell(cellId: string): boolean;
  /** The cells and errors that match, best first; all for an empty text. */
  mentions(query: string): readonly Mention[];

  /** Whether code of a language (as a code block names it) can run in this notebook's kernel. */
  canRun(language: string): boolean;
  /** Puts a new cell below the active one; Markdown becomes a Markdown cell. The new cell is active then. */
  insertBelow(code: string, language?: string): void;
  /** Puts the code in the place of the active cell's source. */
  replaceCell(code: string, language?: string): void;
  /** Inserts below and runs. */
  runCode(code: string, language?: string): void;
}
