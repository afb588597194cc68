/** Notices what happens to recalls of sessions that are not in view, and has it shown once per browser. */

import { claim } from "../lib/claims.js";
import type { OverviewFeed } from "./feed.js";
import { isInView, newsSince, type RecallNews } from "./news.js";

/** Set on the page's root element by a host that shows toasts of its own. */
const HOST = "naviToasts";
/** A view that draws the answer at this moment is waited for. Milliseconds. */
const SETTLE = 300;

/** Calls `show` for what is to be shown. The answer ends it. `isHost`: other views of the page leave it to this one. */
export function watchNews(feed: OverviewFeed, show: (news: RecallNews) => void, isHost = false): () => void {
  const root = document.documentElement;
  if (isHost) root.dataset[HOST] = "host";
  const leave = feed.subscribe({
    changed: () => {
      if (feed.overview && (isHost || root.dataset[HOST] === undefined)) for (const news of newsSince(feed.before, feed.overview)) void offer(news, show);
    },
    wantsAll: () => false,
  });
  return () => {
    leave();
    if (isHost) delete root.dataset[HOST];
  };
}

async function offer(news: RecallNews, show: (news: RecallNews) => void): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, SETTLE));
  if (isInView(news.session) || document.hidden) return;
  if (await claim(`recall:${news.id}`)) show(news);
}
