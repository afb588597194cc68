/** Marks on the tab of a notebook: a run waits for the user, and how much is unread in its chats. */

import type { NaviChat } from "../view/chat-element.js";
import { panelOf, type LuminoWidget, type NotebookPanel } from "./jupyterlab.js";

/** Of the tab of a notebook in which a run waits for the user. */
const ASKS = "navi-asks";
const BADGE = `.${ASKS} .lm-TabBar-tabLabel::after { content: " ●"; color: var(--jp-warn-color1, #e08600); }`;

/** Of the tab of a notebook with sessions in which something is unread; the class says how many. */
const UNREAD = "navi-unread";
const MOST_UNREAD = 10;
const UNREAD_BADGES = Array.from({ length: MOST_UNREAD }, (_, index) => {
  const text = index + 1 === MOST_UNREAD ? `${index}+` : String(index + 1);
  return `.${UNREAD}-${index + 1} .lm-TabBar-tabLabel::before { content: "(${text}) "; font-weight: 600; }`;
}).join("\n");

/** The outputs with open questions, and the notebook of each: an output that is gone is in none any more. */
const asking = new Map<LuminoWidget, NotebookPanel>();

/** Marks the tab of the notebook that `output` is in while one of its outputs has an open question. */
export function markTab(output: LuminoWidget, isAsking: boolean): void {
  const panel = asking.get(output) ?? panelOf(output);
  if (!panel) return;
  if (isAsking) asking.set(output, panel);
  else asking.delete(output);
  const others = panel.title.className.split(" ").filter((name) => name && name !== ASKS);
  panel.title.className = [...others, ...([...asking.values()].includes(panel) ? [ASKS] : [])].join(" ");
}

/** Counts what is unread in all chats of the notebook that `output` is in, on its tab. */
export function countOnTab(output: LuminoWidget): void {
  const panel = panelOf(output);
  if (!panel) return;
  const counts = new Map<string, number>(); // two views of one session count once
  for (const chat of panel.node.querySelectorAll<NaviChat>("navi-chat")) if (chat.session) counts.set(chat.session, chat.unread);
  const count = Math.min([...counts.values()].reduce((sum, each) => sum + each, 0), MOST_UNREAD);
  const others = panel.title.className.split(" ").filter((name) => name && !name.startsWith(`${UNREAD}-`));
  panel.title.className = [...others, ...(count ? [`${UNREAD}-${count}`] : [])].join(" ");
}

export function installTabMarks(): void {
  const style = document.createElement("style");
  style.textContent = `${BADGE}\n${UNREAD_BADGES}`;
  document.head.append(style);
}
