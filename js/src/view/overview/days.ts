/** Days as the server names them (`2026-12-01`, in the reader's zone), in the reader's words. */

import { dateFormat } from "../lib/language.js";
import { strings } from "../lib/strings.js";

// A date alone is no instant: it is read, and written, in UTC.
const SHORT: Intl.DateTimeFormatOptions = { weekday: "short", timeZone: "UTC" };
const LONG: Intl.DateTimeFormatOptions = { weekday: "long", timeZone: "UTC" };
const WHOLE: Intl.DateTimeFormatOptions = { weekday: "long", month: "long", day: "numeric", timeZone: "UTC" };
const NUMBER: Intl.DateTimeFormatOptions = { day: "numeric", timeZone: "UTC" };
const MONTH_DAY: Intl.DateTimeFormatOptions = { month: "short", day: "numeric", timeZone: "UTC" };

export function weekday(date: string): string {
  return dateFormat(SHORT).format(dayOf(date));
}

export function dayName(date: string): string {
  return dateFormat(LONG).format(dayOf(date));
}

export function fullDay(date: string): string {
  return dateFormat(WHOLE).format(dayOf(date));
}

/** With its month where that begins, and on the first day that is shown. */
export function dayNumber(date: string, isFirst: boolean): string {
  return dateFormat(isFirst || date.endsWith("-01") ? MONTH_DAY : NUMBER).format(dayOf(date));
}

/** "Today", "Yesterday", or the day; `index` counts back from today. */
export function pastDay(date: string, index: number): string {
  return index === 0 ? strings.overviewToday : index === 1 ? strings.overviewYesterday : fullDay(date);
}

function dayOf(date: string): Date {
  return new Date(`${date}T00:00:00Z`);
}
