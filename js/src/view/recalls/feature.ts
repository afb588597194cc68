/** The recalls of a session as a part of its chat: their overlay, what happened while the user was away, and browser notifications. */

import { html } from "lit";
import type { ChatContext, ChatFeature } from "../features.js";
import { BrowserNotices } from "../panels/notifications.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";
import { promptOf } from "../../state/select.js";
import { lazyOverlay, type Overlay } from "../overlays.js";
import { PROPOSE_RECALL } from "../overview/places.js";
import type { RecallDraft } from "../overview/remind.js";
import { awayCard } from "./missed.js";

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
    chat.overlays.toggle("recalls", true);
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
  const offer = async (prompt: string, button: HTMLElement): Promise<void> => {
    const remind = await import("./parts.js").catch(() => null);
    if (!remind) return chat.problem(strings.failed(strings.noServer));
    remind.toggleRemindMenu(button, prompt, propose);
  };
  chat.overlays.add(lazyOverlay("recalls", () => strings.recalls, load, chat.redraw));
  chat.messageActions.add({
    name: "remind",
    icon: icons.clock,
    label: () => strings.remind,
    applies: ({ role }) => role === "assistant",
    run: (message, button) => void offer(promptOf(chat.state(), message), button),
  });
  return {
    connected: () => notices.start(),
    gone: () => notices.stop(),
    received: (_before, envelopes) => notices.receive(envelopes),
    card: () => awayCard(controller.away, { showRun, dismiss: () => controller.dismissAway() }),
  };
}
