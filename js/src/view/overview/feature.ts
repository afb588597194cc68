/** The recalls of all sessions as a part of a chat: the line above it, the overlay, and toasts. */

import type { Envelope } from "../../protocol/generated.js";
import type { ChatContext, ChatFeature } from "../features.js";
import { strings } from "../lib/strings.js";
import { lazyOverlay, type Overlay } from "../overlays.js";
import { feedOf, type OverviewFeed } from "./feed.js";
import { goTo, showPlace } from "./going.js";
import type { RecallNews } from "./news.js";
import { SHOW_OVERVIEW, SHOW_RUN, type SessionPlace } from "./places.js";
import { todayLine } from "./today.js";
import { watchNews } from "./watch.js";

const NAME = "overview";

export function overviewFeature(chat: ChatContext): ChatFeature {
  const { overlays, element } = chat;
  const visit = (session: string, runId: string | null): void => void goTo(chat, session, runId);
  const isShown = (): boolean => overlays.open === NAME;
  let feed: OverviewFeed | null = null;
  let leave: (() => void)[] = [];

  const load = async (): Promise<Pick<Overlay, "render" | "opened" | "closed" | "reset">> => {
    const view = new (await import("./parts.js")).RecallsOverviewView({ ...chat, goTo: visit, feed: () => feed });
    return { render: () => view.render(), opened: () => feed?.refresh(0), closed: () => view.close(), reset: () => view.close() };
  };
  // What was said last is one key away.
  overlays.add({ ...lazyOverlay(NAME, () => strings.overview, load, chat.redraw), first: "[data-navi=overview-show]" });
  element.addEventListener(SHOW_OVERVIEW, () => overlays.toggle(NAME, true));
  element.addEventListener(SHOW_RUN, (event) => {
    void showPlace(chat, (event as CustomEvent<SessionPlace>).detail);
  });

  const tell = async (news: RecallNews): Promise<void> => {
    const toasts = await import("./parts.js").catch(() => null);
    toasts?.toastRegion().show(news, ({ session, runId }) => visit(session, runId));
  };
  const stop = (): void => {
    for (const each of leave.splice(0)) each();
  };
  const start = (): void => {
    stop();
    const transport = chat.transport();
    feed = transport ? feedOf(transport) : null;
    if (!feed || !element.isConnected) return;
    leave = [
      feed.subscribe({ changed: chat.redraw, wantsAll: isShown }),
      watchNews(feed, (news) => void tell(news)),
    ];
  };
  return {
    reset: start,
    connected: start,
    disconnected: stop,
    received: (_before, envelopes, isPrelude) => {
      if (!isPrelude && envelopes.some(concernsRecalls)) feed?.refresh();
    },
    card: () => todayLine(feed?.overview ?? null, isShown(), () => overlays.toggle(NAME)),
  };
}

function concernsRecalls({ event }: Envelope): boolean {
  return event.type === "CUSTOM" && event.name === "navi.recall";
}
