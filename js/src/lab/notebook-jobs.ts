/** Files that a chat leads to, opened by JupyterLab or Notebook; and the way from a notebook to a recall that runs it. */

import type { NaviChat } from "../view/chat-element.js";
import { OPEN_FILE, type FilePlace } from "../view/lib/files.js";
import { PROPOSE_RECALL } from "../view/overview/places.js";
import type { RecallDraft } from "../view/overview/remind.js";
import type { Commands } from "./jupyterlab.js";
import { withoutDrive } from "./open-notebook.js";
import type { Panel } from "./notebook-types.js";
import { pageNotebook } from "./page-context.js";
import { panelDoor } from "./panel.js";
import { texts } from "./texts.js";

const OPEN = "docmanager:open";
const OF_NOTEBOOK = "navi:run-on-schedule";
const OF_FILE = "navi:run-file-on-schedule";
const NOTEBOOK_FILE = '.jp-DirListing-item[data-file-type="notebook"]';
/** Below what the menu of a file has first. */
const MENU_RANK = 6;

/** A page that has files: what we use of its application. */
export interface FilesPage {
  readonly commands: Pick<Commands, "addCommand" | "execute" | "hasCommand">;
  readonly contextMenu?: { addItem(item: { readonly command: string; readonly selector: string; readonly rank: number }): unknown };
}
interface Palette {
  addItem(item: { readonly command: string; readonly category: string }): unknown;
}
/** JupyterLab's list of files. */
export interface FileBrowsers {
  readonly tracker: { readonly currentWidget: { selectedItems(): Iterable<{ readonly path: string }> } | null };
}

/** Opens the files that links in a chat lead to, and goes to the cell that is meant. */
export function openFilesOf(app: FilesPage): void {
  if (!app.commands.hasCommand(OPEN)) return;
  document.addEventListener(OPEN_FILE, (event) => {
    const { path, cell } = (event as CustomEvent<FilePlace>).detail;
    event.preventDefault();
    void app.commands.execute(OPEN, { path }).then((widget) => (cell === null ? undefined : reveal(widget as Panel | undefined, cell)));
  });
}

/** Notebook opens another tab, and has no widget for it. */
async function reveal(panel: Panel | undefined, cell: string): Promise<void> {
  if (!panel?.context) return;
  await panel.context.ready;
  pageNotebook(panel).host(null).revealCell(cell);
}

/** A command for the notebook in front, and one in the menu of a file. */
export function addRunOnSchedule(app: FilesPage, current: () => { readonly context: { readonly path: string } } | null, palette: Palette | null, files: FileBrowsers | null): void {
  app.commands.addCommand(OF_NOTEBOOK, {
    label: texts.runOnSchedule,
    caption: texts.runOnScheduleCaption,
    isEnabled: () => current() !== null,
    execute: () => {
      const panel = current();
      return panel ? begin(panel.context.path) : undefined;
    },
  });
  palette?.addItem({ command: OF_NOTEBOOK, category: "Navi" });
  if (!files) return;
  app.commands.addCommand(OF_FILE, {
    label: texts.runOnSchedule,
    caption: texts.runOnScheduleCaption,
    execute: () => {
      const [file] = files.tracker.currentWidget?.selectedItems() ?? [];
      return file ? begin(file.path) : undefined;
    },
  });
  app.contextMenu?.addItem({ command: OF_FILE, selector: NOTEBOOK_FILE, rank: MENU_RANK });
}

/** The form of a new recall in the panel, with this notebook. */
async function begin(path: string): Promise<void> {
  const chat: NaviChat = await panelDoor.open();
  chat.dispatchEvent(new CustomEvent<RecallDraft>(PROPOSE_RECALL, { detail: { message: "", when: "", job: { path: withoutDrive(path) } } }));
}
