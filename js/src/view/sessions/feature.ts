/** The list of sessions as a part of a chat: its overlay, a button for it, and the copy of a session from a message. */

import { html, nothing, type TemplateResult } from "lit";
import type { SearchHit } from "../../protocol/generated.js";
import type { ChatContext, ChatFeature } from "../features.js";
import { overlayButton } from "../header.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";
import { enterSession } from "../overview/going.js";
import type { SessionPlace } from "../overview/places.js";
import { SessionRequests } from "./requests.js";

/** What `navi-session-open` says: a session, where in it something was found, and what. */
export interface ChosenSession {
  readonly session: string;
  readonly message: string | null;
  readonly run: string | null;
  readonly words: readonly string[];
}

export function chosenOf({ id, hit = null }: { readonly id: string; readonly hit?: SearchHit | null }): ChosenSession {
  const words = hit?.snippet.filter(({ match }) => match).map(({ text }) => text) ?? [];
  return { session: id, message: hit?.message_id ?? null, run: hit?.run_id ?? null, words };
}

/** The same as the place that a chat is led to. */
export function placeOf({ session, run, message, words }: ChosenSession): SessionPlace {
  return { session, runId: run, messageId: message, words };
}

const NAME = "sessions";

/** Defines `<navi-sessions>`, which most views of a page never show. Can be called again. */
export async function loadSessionList(): Promise<void> {
  await import("./list-element.js");
}

export function sessionsFeature(chat: ChatContext): ChatFeature {
  const requests = new SessionRequests(chat.transport, chat.problem);
  /** Unless the page around the chat shows it in its own way. */
  const opened = (event: Event): void => {
    const { detail } = event as CustomEvent<ChosenSession>;
    queueMicrotask(() => {
      if (!event.defaultPrevented) void enterSession(chat, placeOf(detail));
    });
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
    applies: (message, state) => (message.role === "user" || message.role === "assistant") && message.runId !== null && message.runId !== state.run?.id,
    run: (message) => {
      const session = chat.session();
      if (session === null) return;
      void requests.fork(session, message.id).then((fork) => {
        if (fork) void enterSession(chat, { session: fork.id, runId: null });
      });
    },
  });
  return { aboveComposer: ({ session }) => note(session?.sharedBy ?? null) };
}

function note(owner: string | null): TemplateResult | typeof nothing {
  return owner === null ? nothing : html`<p class="navi-session-note" role="note" data-navi="session-read-only">${strings.sessionReadOnly(owner)}</p>`;
}
