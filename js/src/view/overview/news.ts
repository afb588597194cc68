/** What has happened to recalls since the page knows of them: what a toast is shown for. Pure, but for the document. */

import type { OverviewFiring, RecallsOverview } from "../../protocol/generated.js";

export type NewsKind = "done" | "failed" | "missed" | "asks";

export interface RecallNews {
  /** The same in every view and tab. */
  readonly id: string;
  readonly kind: NewsKind;
  readonly title: string;
  readonly reason: string | null;
  readonly session: string;
  readonly sessionTitle: string | null;
  readonly runId: string | null;
}

const KINDS: Readonly<Partial<Record<OverviewFiring["firing"]["status"], NewsKind>>> = {
  succeeded: "done",
  failed: "failed",
  missed: "missed",
  expired: "missed",
};

/** What is in `now` and was not in `before`; nothing at first: it may be hours old. The oldest first. */
export function newsSince(before: RecallsOverview | null, now: RecallsOverview): readonly RecallNews[] {
  if (before === null) return [];
  const known = new Set(all(before).map(idOf));
  const since = Date.parse(before.now);
  return all(now)
    .filter((entry) => !known.has(idOf(entry)))
    // Of a day only the last firing of each recall is known, and of many recalls only some: what is old is no news.
    .filter((entry) => entry.asks || Date.parse(entry.firing.ended_at ?? "") >= since - OVERLAP)
    .flatMap((entry) => newsOf(entry) ?? [])
    .reverse();
}

/** What ended while the answer before this one was made is in neither. Milliseconds. */
const OVERLAP = 10_000;

function all({ past, active }: RecallsOverview): readonly OverviewFiring[] {
  return [...active.filter(({ asks }) => asks), ...past.flatMap(({ firings }) => firings)];
}

function idOf({ firing, asks }: OverviewFiring): string {
  return asks ? `${firing.id}:asks:${firing.attempt}` : `${firing.id}:${firing.status}`;
}

function newsOf(entry: OverviewFiring): RecallNews | null {
  const kind = entry.asks ? "asks" : KINDS[entry.firing.status];
  if (kind === undefined) return null;
  return {
    id: idOf(entry),
    kind,
    title: entry.title,
    reason: entry.firing.reason,
    session: entry.session_id,
    sessionTitle: entry.session_title,
    runId: entry.firing.run_id,
  };
}

/** Whether a chat with this session is on the screen. */
export function isInView(session: string, page: Document = document): boolean {
  if (page.hidden) return false;
  const chats = [...page.querySelectorAll<HTMLElement>("navi-chat[session]")];
  return chats.some((chat) => chat.getAttribute("session") === session && isOnScreen(chat));
}

function isOnScreen(element: HTMLElement): boolean {
  if (!element.isConnected || element.checkVisibility?.() === false) return false;
  const { top, bottom, left, right, width, height } = element.getBoundingClientRect();
  return width > 0 && height > 0 && bottom > 0 && right > 0 && top < window.innerHeight && left < window.innerWidth;
}
