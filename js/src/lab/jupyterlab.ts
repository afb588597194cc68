/** What we use of JupyterLab's and Notebook's objects. Their packages are no dependencies of ours: see `shared-packages`. */

import type { Contents, NotebookContext } from "./open-notebook.js";

export interface Signal<Sender = unknown, Args = unknown> {
  connect(slot: (sender: Sender, args: Args) => void): unknown;
  disconnect(slot: (sender: Sender, args: Args) => void): unknown;
}

export interface Title {
  label: string;
  caption: string;
  className: string;
  icon: unknown;
  dataset: Readonly<Record<string, string>>;
}

export interface LuminoWidget {
  /** Of an output area: its outputs, and its boxes for input. */
  readonly widgets?: readonly LuminoWidget[];
  readonly node: HTMLElement;
  readonly parent: LuminoWidget | null;
  readonly title: Title;
  readonly isDisposed: boolean;
  readonly isVisible: boolean;
  id: string;
  addClass(name: string): void;
  dispose(): void;
}

export interface Menu extends LuminoWidget {
  addItem(item: { readonly command?: string; readonly type?: "separator" }): unknown;
}

export interface Lumino {
  readonly Widget: new (options?: { readonly node: HTMLElement }) => LuminoWidget;
  readonly Menu: new (options: { readonly commands: Commands }) => Menu;
}

export interface NotebookPanel extends LuminoWidget {
  readonly context?: NotebookContext;
}

/** A notebook in the main area. */
export interface OpenPanel extends LuminoWidget {
  readonly context: NotebookContext & { readonly pathChanged: Signal<unknown, string> };
  readonly content: { mode: "edit" | "command"; readonly isDisposed: boolean };
}

export interface Tracker {
  readonly currentWidget: OpenPanel | null;
  readonly currentChanged: Signal;
  readonly widgetAdded: Signal<unknown, OpenPanel>;
  find(matches: (panel: OpenPanel) => boolean): OpenPanel | undefined;
  forEach(visit: (panel: OpenPanel) => void): void;
}

export interface Command {
  readonly label: string | ((args: Readonly<Record<string, unknown>>) => string);
  readonly caption?: string;
  readonly icon?: unknown;
  isEnabled?(): boolean;
  isToggled?(): boolean;
  execute(): unknown;
}

export interface Commands {
  readonly keyBindings: readonly { readonly command: string; readonly keys: readonly string[] }[];
  addCommand(id: string, command: Command): unknown;
  addKeyBinding(binding: { readonly command: string; readonly keys: readonly string[]; readonly macKeys?: readonly string[]; readonly selector: string }): unknown;
  notifyCommandChanged(id: string): void;
  hasCommand(id: string): boolean;
  execute(id: string, args?: object): Promise<unknown>;
}

export interface Shell {
  add(widget: LuminoWidget, area: "right" | "menu", options?: { readonly rank: number }): void;
  activateById(id: string): void;
  collapseLeft?(): void;
  collapseRight?(): void;
}

export interface Application {
  readonly serviceManager: { readonly contents: Contents };
  readonly commands: Commands;
  readonly shell: Shell;
  readonly restored: Promise<unknown>;
}

/** A plug-in as JupyterLab's loader takes it; `activate` gets the application and what was asked for, in this order. */
export interface Plugin {
  readonly id: string;
  readonly description: string;
  readonly autoStart: true;
  readonly requires: readonly object[];
  /** Of these, what a page has not is null. */
  readonly optional?: readonly object[];
  /** The token of the service that `activate` answers. */
  readonly provides?: object;
  activate(app: Application, ...services: readonly unknown[]): unknown;
}

/** The notebook that a widget is in. */
export function panelOf(widget: LuminoWidget): NotebookPanel | null {
  let panel = widget.parent;
  while (panel && !panel.node.classList.contains("jp-NotebookPanel")) panel = panel.parent;
  return panel;
}
