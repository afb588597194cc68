/** The recalls of a session as a part of its chat: their overlay, what happened while the user was away, and browser notifications. */

import { html, render } from "lit";
import type { ChatContext, ChatFeature } from "../features.js";
import { BrowserNotices } from "../panels/notifications.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";
import type { Message } from "../../state/model.js";
import { promptOf } from "../../state/select.js";
import { lazyOverlay, type Overlay } from "../overlays.js";
import { jobOf, SHOW_CHANGES, type ChangesPlace } from "../conversation/job-result.js";
import { PROPOSE_RECALL } from "../overview/places.js";
import type { RecallDraft } from "../overview/remind.js";
import { awayCard } from "./missed.js";

const NAME = "recalls";

export function recallsFeature(chat: ChatContext): ChatFeature {
  const { controller, element } = chat;
  const showRun = (runId: string): void => void chat.places.showRun(runId);
  const notices = new BrowserNotices({
    session: chat.session,
    state: chat.state,
    isSeen: chat.isSeen,
    focus: () => {
      element.scrollIntoView({ block: "nearest" });
      element.focus();
    },
  });
  /** What the form is to begin with, once the panel is there. */
  let proposed: RecallDraft | null = null;
  const propose = (draft: RecallDraft): void => {
    proposed = draft;
    chat.overlays.close(false);
    chat.overlays.toggle(NAME, true);
  };
  element.addEventListener(PROPOSE_RECALL, (event) => propose((event as CustomEvent<RecallDraft>).detail));
  const load = async (): Promise<Pick<Overlay, "render" | "opened" | "reset">> => {
    const { RecallsPanel, notifySetting } = await import("./parts.js");
    const panel = new RecallsPanel({ ...chat, showRun });
    return {
      render: (state) => html`${panel.render(state, true)} ${notifySetting(notices, chat.redraw)}`,
      opened: () => {
        if (proposed) panel.propose(proposed);
        proposed = null;
      },
      reset: () => panel.reset(),
    };
  };
  /** Shows the menu of times beside a button; it is loaded at the first press. */
  const offer = async (message: Message, button: HTMLElement): Promise<void> => {
    const remind = await import("./parts.js").catch(() => null);
    if (!remind) return chat.problem(strings.failed(strings.noServer));
    const job = jobOf(chat.state(), message.runId);
    remind.toggleRemindMenu(button, promptOf(chat.state(), message), (draft) => propose(job ? { ...draft, job } : draft));
  };
  element.addEventListener(SHOW_CHANGES, (event) => void showChanges(chat, (event as CustomEvent<ChangesPlace>).detail));
  chat.overlays.add(lazyOverlay(NAME, () => strings.recalls, load, chat.redraw));
  chat.messageActions.add({
    name: "remind",
    icon: icons.clock,
    label: () => strings.remind,
    // A recall is made in this session: who only reads it cannot.
    applies: ({ role }, state) => role === "assistant" && !state.session?.sharedBy,
    run: (message, button) => void offer(message, button),
  });
  return {
    connected: () => notices.start(),
    gone: () => notices.stop(),
    received: (_before, envelopes) => notices.receive(envelopes),
    card: () => awayCard(controller.away, { showRun, dismiss: () => controller.dismissAway() }),
  };
}

/** Which recall a run is of stands in its messages. */
async function showChanges(chat: ChatContext, { runId, place }: ChangesPlace): Promise<void> {
  const message = chat.state().items.find((item) => item.kind === "message" && item.runId === runId && item.origin.recall_id !== null);
  const recallId = message?.kind === "message" ? message.origin.recall_id : null;
  const { changesView, readChanges } = await import("./parts.js");
  render(changesView(null), place);
  render(changesView(recallId === null ? { why: strings.failed(strings.noServer) } : await readChanges(chat, recallId, runId)), place);
}
