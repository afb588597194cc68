/**
 * The plug-in for recalls in JupyterLab and Notebook: "when this cell is done" at cells, and a notification when a recall
 * has run in a session that is not in view, also while no chat is open.
 */

import { readPageConfig } from "../connection/page-config.js";
import { isOk, type Method } from "../connection/transport.js";
import { WebSocketTransport } from "../connection/ws.js";
import { isObject } from "../protocol/frames.js";
import { OverviewFeed, readerOf } from "../view/overview/feed.js";
import { OPEN_SESSION, SHOW_RUN, type SessionPlace } from "../view/overview/places.js";
import { newsSince, type RecallNews } from "../view/overview/news.js";
import { newsText } from "../view/overview/news-text.js";
import { browserZone } from "../view/lib/zone.js";
import { watchNews } from "../view/overview/watch.js";
import { RECALLS_RAN } from "./attention.js";
import { CellRecalls, type CellRecallServer, type CellsPanel, type NotebookCell } from "./cell-recalls.js";
import type { Plugin } from "./jupyterlab.js";
import { addRunOnSchedule, openFilesOf, type FileBrowsers, type FilesPage } from "./notebook-jobs.js";
import { panelDoor } from "./panel.js";
import { shared, sharedIfAny } from "./shared-packages.js";
import { LANGUAGE, texts } from "./texts.js";

const ID = "navi-jupyter:recalls";
const WHEN_DONE = "navi:when-cell-done";
const CELL_MENU = ".jp-Notebook .jp-CodeCell";
/** Below what a cell's menu has first. */
const MENU_RANK = 20;
/** Milliseconds. */
const SHOWN_FOR = 10_000;

type NotificationType = "default" | "success" | "error" | "warning";

/** JupyterLab's notifications. */
interface Notifications {
  emit(message: string, type: NotificationType, options: { readonly autoClose: number | false; readonly actions?: readonly { readonly label: string; readonly callback: () => void }[] }): string;
}
interface Tracker {
  readonly currentWidget: CellsPanel | null;
}
interface Palette {
  addItem(item: { readonly command: string; readonly category: string }): unknown;
}
interface Commands {
  addCommand(id: string, command: { readonly label: string; readonly caption: string; isEnabled(): boolean; execute(): unknown }): unknown;
}
/** What we use of the application. */
interface Page {
  readonly commands: Commands;
  readonly contextMenu?: { addItem(item: { readonly command: string; readonly selector: string; readonly rank: number }): unknown };
  contextMenuHitTest?(matches: (node: HTMLElement) => boolean): HTMLElement | undefined;
}
interface Tokens {
  readonly [name: string]: object;
}

interface AppUtils {
  readonly Notification?: Notifications;
  readonly ICommandPalette: object;
}

export async function createRecallsPlugin(): Promise<Plugin> {
  const [apputils, notebooks, browsers] = await Promise.all([shared<AppUtils>("@jupyterlab/apputils"), sharedIfAny<Tokens>("@jupyterlab/notebook"), sharedIfAny<Tokens>("@jupyterlab/filebrowser")]);
  const notifications = apputils.Notification ?? null;
  return {
    id: ID,
    description: "Recalls at cells, and notifications of recalls that have run.",
    autoStart: true,
    requires: [],
    optional: [notebooks?.["INotebookTracker"] ?? { name: "INotebookTracker" }, apputils.ICommandPalette, browsers?.["IFileBrowserFactory"] ?? { name: "IFileBrowserFactory" }, LANGUAGE],
    activate: (app, ...services) => {
      const [tracker, palette, files] = services as [Tracker | null, Palette | null, FileBrowsers | null];
      openFilesOf(app);
      addRunOnSchedule(app as unknown as FilesPage, () => tracker?.currentWidget ?? null, palette, files);
      if (notifications) notifyOfRecalls(notifications);
      if (tracker) addToCells(app as unknown as Page, tracker, palette, notifications);
    },
  };
}

/** One reading of the server for the whole page, whether a chat is open or not. */
function notifyOfRecalls(notifications: Notifications): void {
  const config = readPageConfig();
  if (!config) return;
  const show = (news: RecallNews): void => {
    const { kind, session, runId, sessionTitle } = news;
    const where = sessionTitle === null ? [] : [{ label: texts.recallShow, callback: () => void open(config.baseUrl, { session, runId }) }];
    notifications.emit(newsText(news, texts), kind === "done" ? "success" : kind === "asks" ? "warning" : "error", { autoClose: kind === "done" ? SHOWN_FOR : false, actions: where });
  };
  const feed = new OverviewFeed(readerOf(new WebSocketTransport(config)));
  watchNews(feed, show, true);
  // Not only what is shown: the answer of a recall counts where its session is in view or another tab says it, too.
  const told = (): void => {
    if (feed.overview && newsSince(feed.before, feed.overview).length) document.dispatchEvent(new Event(RECALLS_RAN));
  };
  feed.subscribe({ changed: told, wantsAll: () => false });
}

/** The panel shows it; where there is none, the server's page does. */
async function open(server: URL, place: SessionPlace): Promise<void> {
  const { session, runId } = place;
  const chat = await panelDoor.open().catch(() => null);
  if (chat) {
    if (chat.session !== session) chat.dispatchEvent(new CustomEvent(OPEN_SESSION, { bubbles: true, cancelable: true, detail: place }));
    chat.dispatchEvent(new CustomEvent(SHOW_RUN, { detail: place }));
    return;
  }
  const url = new URL("navi", server);
  url.searchParams.set("session", session);
  if (runId !== null) url.searchParams.set("run", runId);
  window.open(url.href, "_blank", "noopener");
}

function addToCells(app: Page, tracker: Tracker, palette: Palette | null, notifications: Notifications | null): void {
  const recalls = new CellRecalls(server, {
    success: (text, undo) => notifications?.emit(text, "success", { autoClose: SHOWN_FOR, actions: [{ label: texts.cellUndo, callback: undo }] }),
    error: (text) => notifications?.emit(text, "error", { autoClose: false }),
  });
  installStyle();
  app.commands.addCommand(WHEN_DONE, {
    label: texts.cellWhenDone,
    caption: texts.cellWhenDoneCaption,
    isEnabled: () => tracker.currentWidget?.content.activeCell?.model.type === "code",
    execute: () => {
      const panel = tracker.currentWidget;
      const cell = panel && (cellAt(app, panel) ?? panel.content.activeCell);
      return panel && cell ? recalls.create(panel, cell) : undefined;
    },
  });
  app.contextMenu?.addItem({ command: WHEN_DONE, selector: CELL_MENU, rank: MENU_RANK });
  palette?.addItem({ command: WHEN_DONE, category: "Navi" });
  recalls.watch(() => tracker.currentWidget);
}

/** The cell whose menu is open. */
function cellAt(app: Page, { content }: CellsPanel): NotebookCell | null {
  const node = app.contextMenuHitTest?.((each) => each.classList.contains("jp-CodeCell"));
  return content.widgets.find((cell) => cell.node === node) ?? null;
}

async function ask(method: Method, path: string, body?: unknown): Promise<Readonly<Record<string, unknown>>> {
  const config = readPageConfig();
  if (!config) throw new Error(texts.recallNoServer);
  const answer = await new WebSocketTransport(config).request(method, path, body);
  const content = isObject(answer.body) ? answer.body : {};
  if (isOk(answer)) return content;
  throw new Error(typeof content["message"] === "string" ? content["message"] : `HTTP ${answer.status}`);
}

const server: CellRecallServer = {
  async session(path) {
    const zone = browserZone();
    const { session } = await ask("POST", "sessions/find", { notebook_path: path, is_open: true, create: true, ...(zone === null ? {} : { timezone: zone, timezone_source: "browser" }) });
    if (!isObject(session) || typeof session["id"] !== "string") throw new Error(texts.recallNoServer);
    return session["id"];
  },
  create: async (recall) => String((await ask("POST", "recalls", recall))["id"]),
  cancel: async (id) => void (await ask("DELETE", `recalls/${encodeURIComponent(id)}`)),
};

/** In the colours of the host. */
const STYLE = `
.navi-cell-recall { padding: 2px 0 2px calc(var(--jp-cell-prompt-width, 64px) + var(--jp-cell-collapser-width, 8px) + 5px); }
.navi-cell-recall button { padding: 2px 10px; border: 1px solid var(--jp-border-color1, #bdbdbd); border-radius: 99px; background: var(--jp-layout-color1, #fff); color: var(--jp-ui-font-color1, #424242); font: 12px/1.5 var(--jp-ui-font-family, system-ui, sans-serif); cursor: pointer; }
.navi-cell-recall button:hover:not(:disabled) { background: var(--jp-layout-color2, #eee); }
.navi-cell-recall button:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 1px; }
.navi-cell-recall button:disabled { border-color: transparent; background: none; cursor: default; }
`;

function installStyle(): void {
  const style = document.createElement("style");
  style.textContent = STYLE;
  document.head.append(style);
}

