/** What we use of JupyterLab's and Notebook's objects. Their packages are no dependencies of ours: see `shared-packages`. */

import type { Contents, NotebookContext } from "./open-notebook.js";

export interface LuminoWidget {
  /** Of an output area: its outputs, and its boxes for input. */
  readonly widgets?: readonly LuminoWidget[];
  readonly node: HTMLElement;
  readonly parent: LuminoWidget | null;
  readonly title: { className: string };
  addClass(name: string): void;
  dispose(): void;
}

export interface Lumino {
  readonly Widget: new () => LuminoWidget;
}

export interface NotebookPanel extends LuminoWidget {
  readonly context?: NotebookContext;
}

export interface Application {
  readonly serviceManager: { readonly contents: Contents };
}

/** A plug-in as JupyterLab's loader takes it; `activate` gets the application and what was required, in this order. */
export interface Plugin {
  readonly id: string;
  readonly description: string;
  readonly autoStart: true;
  readonly requires: readonly object[];
  readonly optional?: readonly object[];
  activate(app: Application, ...services: readonly unknown[]): void;
}

/** The notebook that a widget is in. */
export function panelOf(widget: LuminoWidget): NotebookPanel | null {
  let panel = widget.parent;
  while (panel && !panel.node.classList.contains("jp-NotebookPanel")) panel = panel.parent;
  return panel;
}
