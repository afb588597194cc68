/** Days as the server names them (`2026-12-01`, in the reader's zone), in the reader's words. */

import { strings } from "../lib/strings.js";

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
// A date alone is no instant: it is read, and written, in UTC.
const short = new Intl.DateTimeFormat(undefined, { weekday: "short", timeZone: "UTC" });
const long = new Intl.DateTimeFormat(undefined, { weekday: "long", timeZone: "UTC" });
const whole = new Intl.DateTimeFormat(undefined, { weekday: "long", month: "long", day: "numeric", timeZone: "UTC" });
const number = new Intl.DateTimeFormat(undefined, { day: "numeric", timeZone: "UTC" });
const monthDay = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", timeZone: "UTC" });

export function clockTime(iso: string): string {
  return clock.format(new Date(iso));
}

export function weekday(date: string): string {
  return short.format(dayOf(date));
}

export function dayName(date: string): string {
  return long.format(dayOf(date));
}

export function fullDay(date: string): string {
  return whole.format(dayOf(date));
}

/** With its month where that begins, and on the first day that is shown. */
export function dayNumber(date: string, isFirst: boolean): string {
  return (isFirst || date.endsWith("-01") ? monthDay : number).format(dayOf(date));
}

/** "Today", "Yesterday", or the day; `index` counts back from today. */
export function pastDay(date: string, index: number): string {
  return index === 0 ? strings.overviewToday : index === 1 ? strings.overviewYesterday : fullDay(date);
}

function dayOf(date: string): Date {
  return new Date(`${date}T00:00:00Z`);
}
