/** The way to another session, and in it to what a run said. Where a chat may not change its session, its page is opened. */

import { readPageConfig } from "../../connection/page-config.js";
import type { ChatContext } from "../features.js";
import { OPEN_SESSION, SHOW_RUN, type SessionPlace } from "./places.js";

/** How long a session may take to be there. Milliseconds. */
const PATIENCE = 10_000;
const RUN_PATIENCE = 1_000;
const STEP = 100;

export async function goTo(chat: ChatContext, session: string, runId: string | null): Promise<void> {
  const { element } = chat;
  chat.overlays.close(false);
  const detail: SessionPlace = { session, runId };
  if (session === element.session) return showPlace(chat, detail);
  if (!element.dispatchEvent(new CustomEvent(OPEN_SESSION, { bubbles: true, cancelable: true, detail }))) return;
  const other = [...document.querySelectorAll<HTMLElement>("navi-chat[session]")].find((each) => each.getAttribute("session") === session);
  if (other) {
    other.scrollIntoView({ block: "nearest" });
    other.dispatchEvent(new CustomEvent(SHOW_RUN, { detail }));
  } else if (element.hasAttribute("fill")) {
    element.session = session;
    await showPlace(chat, detail);
  } else openPage(session, runId); // a chat in a notebook's output is that of its notebook
}

/** Shows a session in this very view, as its user has chosen it there. A host that shows it in its own way cancels the event. */
export async function enterSession(chat: ChatContext, place: SessionPlace): Promise<void> {
  const { element } = chat;
  chat.overlays.close(false);
  if (place.session !== element.session) {
    if (!element.dispatchEvent(new CustomEvent(OPEN_SESSION, { bubbles: true, cancelable: true, detail: place }))) return;
    element.session = place.session;
  }
  await showPlace(chat, place);
}

/** Shows the end of a session, a message, or what a run said; waits until its log is there, and a moment for a run that has just begun. */
export async function showPlace(chat: ChatContext, { session, runId, messageId = null, words = [] }: SessionPlace): Promise<void> {
  const { element } = chat;
  await element.updateComplete; // until then the state is that of the session before
  const isThere = (): boolean => element.session === session && chat.state().head !== null;
  const hasRun = (): boolean => runId === null || chat.state().items.some((item) => item.runId === runId);
  await until(isThere, PATIENCE);
  await until(hasRun, RUN_PATIENCE);
  if (element.session !== session) return;
  if (runId === null) element.focus();
  else if (messageId === null) await chat.places.showRun(runId);
  else await chat.places.showMessage({ runId, messageId, words });
}

async function until(holds: () => boolean, patience: number): Promise<void> {
  for (let waited = 0; waited < patience && !holds(); waited += STEP) await new Promise((resolve) => setTimeout(resolve, STEP));
}

function openPage(session: string, runId: string | null): void {
  const config = readPageConfig();
  if (!config) return;
  const url = new URL("navi", config.baseUrl);
  url.searchParams.set("session", session);
  if (runId !== null) url.searchParams.set("run", runId);
  window.open(url.href, "_blank", "noopener");
}
