/** The plug-in that adds to the cells of notebooks: what can be asked about an error, and what a run has changed. */

import type { NaviChat } from "../view/chat-element.js";
import { drawErrorActions } from "./cell-actions.js";
import { installCellStyle } from "./cell-style.js";
import { drawEdits } from "./edits.js";
import type { Application, Plugin } from "./jupyterlab.js";
import { serverPath, type NotebookTracker, type Panel } from "./notebook-types.js";
import { answerRequests } from "./notebook-requests.js";
import { openNotebook } from "./open-notebook.js";
import { findSession, loadElement } from "./server.js";
import { shared } from "./shared-packages.js";
import { LANGUAGE } from "./texts.js";

/** Opens the panel with the chat. */
const OPEN = "navi:open";
/** How long the chat may take to be there, and how often that is looked at. Milliseconds. */
const PATIENCE = 15_000;
const LOOK_EVERY = 50;

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
      answerRequests(tracker);
      drawErrorActions(tracker, (panel) => openChat(app, panel));
      drawEdits(tracker, {
        findSession,
        loadBundle: () => loadElement("navi-cell-edit"),
        follow: (panel) => void openNotebook(panel.context, app.serviceManager.contents),
        refresh: (panel) => openNotebook(panel.context, app.serviceManager.contents).refresh(),
      });
    },
  };
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
