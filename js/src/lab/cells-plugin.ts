/** The plug-in that adds to the cells of notebooks: what can be asked about an error, and what a run has changed. */

import type { NaviChat } from "../view/chat-element.js";
import { drawErrorActions } from "./cell-actions.js";
import { installCellStyle } from "./cell-style.js";
import { drawEdits } from "./edits.js";
import type { Application, Plugin } from "./jupyterlab.js";
import { serverPath, type NotebookTracker, type Panel } from "./notebook-types.js";
import { answerRequest } from "./notebook-requests.js";
import { NotebookSocket, type Connect } from "./notebook-socket.js";
import { openNotebook, type Contents } from "./open-notebook.js";
import { pageNotebook } from "./page-context.js";
import { findSession, loadElement, serverOfPage } from "./server.js";
import { shared } from "./shared-packages.js";
import { LANGUAGE } from "./texts.js";

/** Opens the panel with the chat. */
const OPEN = "navi:open";
/** How long the chat may take to be there, and how often that is looked at. Milliseconds. */
const PATIENCE = 15_000;
const LOOK_EVERY = 50;
/** What scrolls in a notebook. */
const SCROLLED = ".jp-WindowedPanel-outer";

export async function createCellsPlugin(): Promise<Plugin> {
  const { INotebookTracker } = await shared<{ readonly INotebookTracker: object }>("@jupyterlab/notebook");
  return {
    id: "navi-jupyter:cells",
    description: "Asks Navi about the error of a cell, and shows what a run has changed.",
    autoStart: true,
    requires: [INotebookTracker],
    optional: [LANGUAGE],
    activate: (app, service) => {
      const tracker = service as NotebookTracker;
      installCellStyle();
      drawErrorActions(tracker, (panel) => openChat(app, panel));
      const refresh = (panel: Panel): Promise<boolean> => bringUpToDate(panel, app.serviceManager.contents);
      const edits = drawEdits(tracker, {
        findSession,
        loadBundle: () => loadElement("navi-cell-edit"),
        follow: (panel) => void openNotebook(panel.context, app.serviceManager.contents),
        refresh,
      });
      const connect: Connect = (listener) => serverOfPage()?.connect("notebooks/ws", {}, listener) ?? null;
      const requests = { refresh, shown: (panel: Panel) => pageNotebook(panel).host(null).context() };
      new NotebookSocket(connect, {
        requested: (request) => void answerRequest(tracker, request, requests).catch(() => undefined),
        changed: edits.changed,
        reconnected: edits.lookAgain,
      }).follow(tracker);
    },
  };
}

/**
 * Brings what was changed in a notebook's file into the page. Where its cells have no ids, so that they cannot be matched,
 * a page without unsaved changes reads the file again, and stays where it is. Answers whether the page has all of the file.
 */
async function bringUpToDate(panel: Panel, contents: Contents): Promise<boolean> {
  const { context, content } = panel;
  const notebook = openNotebook(context, contents);
  if (await notebook.refresh()) return true;
  if (panel.isDisposed || context.model.dirty || notebook.isMatched) return false;
  const { activeCellIndex } = content;
  const scrolled = panel.node.querySelector(SCROLLED);
  const top = scrolled?.scrollTop ?? 0;
  await context.revert();
  content.activeCellIndex = Math.min(activeCellIndex, content.widgets.length - 1);
  scrolled?.scrollTo({ top });
  return true;
}

/** The chat of the panel beside the notebooks; where there is no panel, that in an output of the notebook. */
async function openChat(app: Application, panel: Panel): Promise<NaviChat | null> {
  const { commands } = app;
  if (!commands.hasCommand(OPEN)) {
    const chat = panel.node.querySelector<NaviChat>("navi-chat");
    chat?.scrollIntoView({ block: "nearest" });
    chat?.focus();
    return chat;
  }
  await commands.execute(OPEN);
  const until = performance.now() + PATIENCE;
  for (; performance.now() < until; await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY))) {
    const side = document.querySelector<HTMLElement & { notebook: string | null; isPinned: boolean; chat: NaviChat | null }>("navi-panel");
    if (side?.chat && (side.isPinned || side.notebook === serverPath(panel))) return side.chat;
  }
  return null;
}
