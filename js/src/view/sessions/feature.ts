/** The list of sessions as a part of a chat: its overlay, a button for it, and the copy of a session from a message. */

import { html, nothing, type TemplateResult } from "lit";
import type { ChatContext, ChatFeature } from "../features.js";
import { overlayButton } from "../header.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";
import { SessionRequests } from "./requests.js";

/** What `navi-session-open` says: a session, and where in it something was found. */
export interface SessionPlace {
  readonly session: string;
  readonly message: string | null;
  readonly run: string | null;
}

const NAME = "sessions";

/** Defines `<navi-sessions>`, which most views of a page never show. Can be called again. */
export async function loadSessionList(): Promise<void> {
  await import("./list-element.js");
}

export function sessionsFeature(chat: ChatContext): ChatFeature {
  const requests = new SessionRequests(chat.transport, chat.problem);
  /** The run to lead to once the session that was opened is there. */
  let wanted: string | null = null;
  /** The owner of a session that is only shared with the user; null: it is the user's. */
  let owner: string | null = null;

  const open = ({ session, run }: SessionPlace): void => {
    wanted = run;
    if (session !== chat.session()) chat.element.session = session;
    else if (run) void chat.showRun(run);
    chat.overlays.close();
  };
  /** Unless the page around the chat shows it in its own way. */
  const opened = (event: Event): void => {
    const { detail } = event as CustomEvent<SessionPlace>;
    queueMicrotask(() => {
      if (!event.defaultPrevented) open(detail);
    });
  };
  const readAccess = async (): Promise<void> => {
    const session = chat.session();
    const access = session === null ? null : await requests.access(session);
    if (session !== chat.session() || access === null) return;
    owner = access.access === "reader" ? access.owner : null;
    chat.redraw();
  };

  chat.overlays.add({
    name: NAME,
    label: () => strings.sessions,
    opened: () => void loadSessionList().catch(() => chat.problem(strings.failed(strings.noServer))),
    render: () => html`<navi-sessions .transport=${chat.transport()} .session=${chat.session()} @navi-session-open=${opened}></navi-sessions>`,
  });
  chat.headerButtons.push({ render: () => overlayButton(chat.overlays, NAME, icons.sessions, strings.sessions) });
  chat.messageActions.add({
    name: "session-fork-here",
    icon: icons.fork,
    label: () => strings.sessionForkHere,
    applies: (message, state) => owner === null && (message.role === "user" || message.role === "assistant") && message.runId !== null && message.runId !== state.run?.id,
    run: (message) => {
      const session = chat.session();
      if (session === null) return;
      void requests.fork(session, message.id).then((fork) => {
        if (!fork) return;
        const place: SessionPlace = { session: fork.id, message: null, run: null };
        const event = new CustomEvent<SessionPlace>("navi-session-open", { bubbles: true, cancelable: true, detail: place });
        if (chat.element.dispatchEvent(event)) open(place);
      });
    },
  });
  return {
    reset: () => {
      owner = null;
    },
    received: (_before, _envelopes, isPrelude) => {
      if (!isPrelude) return;
      void readAccess();
      const run = wanted;
      wanted = null;
      if (run) void chat.showRun(run);
    },
    aboveComposer: () => note(owner),
  };
}

function note(owner: string | null): TemplateResult | typeof nothing {
  return owner === null ? nothing : html`<p class="navi-session-note" role="note" data-navi="session-read-only">${strings.sessionReadOnly(owner)}</p>`;
}
