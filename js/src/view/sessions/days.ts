/** Sessions in the order and the groups in which a list shows them. Pure. */

import type { SessionInfo } from "../../protocol/generated.js";
import { dateFormat } from "../lib/language.js";
import { strings } from "../lib/strings.js";

export interface Day {
  readonly key: string;
  readonly name: string;
  readonly sessions: readonly SessionInfo[];
}

const THIS_YEAR: Intl.DateTimeFormatOptions = { weekday: "long", month: "long", day: "numeric" };
const OTHER_YEAR: Intl.DateTimeFormatOptions = { year: "numeric", month: "long", day: "numeric" };

/** Groups by the day of their last use, in the reader's zone; the order stays. */
export function byDay(sessions: readonly SessionInfo[], now = new Date()): readonly Day[] {
  const days: { key: string; name: string; sessions: SessionInfo[] }[] = [];
  for (const session of sessions) {
    const at = new Date(session.updated_at);
    const key = at.toDateString();
    const last = days.at(-1);
    if (last?.key === key) last.sessions.push(session);
    else days.push({ key, name: dayName(at, now), sessions: [session] });
  }
  return days;
}

function dayName(at: Date, now: Date): string {
  const yesterday = new Date(now.getFullYear(), now.getMonth(), now.getDate() - 1);
  if (at.toDateString() === now.toDateString()) return strings.sessionsToday;
  if (at.toDateString() === yesterday.toDateString()) return strings.sessionsYesterday;
  return dateFormat(at.getFullYear() === now.getFullYear() ? THIS_YEAR : OTHER_YEAR).format(at);
}

/**
 * What is known, after the first page was read again: it has what changed, and what it lacks although it would be on it is
 * gone. `isWhole`: there is no other page.
 */
export function merged(known: readonly SessionInfo[], first: readonly SessionInfo[], isWhole: boolean): readonly SessionInfo[] {
  const last = first.at(-1);
  if (isWhole || !last) return first;
  const fresh = new Set(first.map(({ id }) => id));
  return [...first, ...known.filter((session) => !fresh.has(session.id) && comesAfter(session, last))];
}

function comesAfter(session: SessionInfo, last: SessionInfo): boolean {
  const [at, end] = [Date.parse(session.updated_at), Date.parse(last.updated_at)];
  return at < end || (at === end && session.id > last.id);
}
