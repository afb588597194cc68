/** Times as people read them. */

import { dateFormat, language, numberFormat } from "./language.js";
import { strings } from "./strings.js";

const CLOCK: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit" };
const DAY_AND_CLOCK: Intl.DateTimeFormatOptions = { weekday: "short", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" };
const COMPLETE: Intl.DateTimeFormatOptions = { dateStyle: "full", timeStyle: "medium" };

/** The clock alone, e.g. `14:05`. */
export function clockTime(at: Date): string {
  return dateFormat(CLOCK).format(at);
}

/** Today's times without their day. */
export function shortTime(at: Date, now = new Date()): string {
  return dateFormat(at.toDateString() === now.toDateString() ? CLOCK : DAY_AND_CLOCK).format(at);
}

/** The server's words for a time without the reader's own zone: a zone is named only where it is another one. */
export function withoutOwnZone(words: string, zone = Intl.DateTimeFormat().resolvedOptions().timeZone): string {
  const escaped = zone.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return zone ? words.replace(new RegExp(` ${escaped}(?=[ ,;.]|$)`, "g"), "") : words;
}

/** The clock of a zone that is not this browser's: `09:00 AM Asia/Tokyo`; empty where it is, or is not known here. */
export function clockThere(at: Date, zone: string): string {
  if (zone === "" || zone === Intl.DateTimeFormat().resolvedOptions().timeZone) return "";
  try {
    return `${dateFormat({ ...CLOCK, timeZone: zone }).format(at)} ${zone}`;
  } catch {
    return "";
  }
}

export function fullTime(at: Date): string {
  return dateFormat(COMPLETE).format(at);
}

/** What is left, e.g. `2d 3h`, `1h 05m`, `4:07`. */
export function countdown(milliseconds: number): string {
  const left = Math.ceil(milliseconds / 1000);
  if (left <= 0) return strings.due;
  const [days, hours, minutes, seconds] = [Math.floor(left / 86400), Math.floor(left / 3600) % 24, Math.floor(left / 60) % 60, left % 60];
  if (days) return `${inUnit(days, "day")} ${inUnit(hours, "hour")}`;
  if (hours) return `${inUnit(hours, "hour")} ${inUnit(minutes, "minute", 2)}`;
  return `${minutes}:${String(seconds).padStart(2, "0")}`;
}

function inUnit(value: number, unit: "day" | "hour" | "minute" | "second", minimumIntegerDigits = 1): string {
  const unitDisplay = language() === "en" ? "narrow" : "short"; // in other languages "narrow" gives signs that are not in common use
  return numberFormat({ style: "unit", unit, unitDisplay, minimumIntegerDigits }).format(value);
}

const STEPS = [
  [86_400_000, "day", 3_600_000, "hour"],
  [3_600_000, "hour", 60_000, "minute"],
  [60_000, "minute", 1000, "second"],
] as const;

/** `2d 3h`, `1h 5m`, `4m 7s`, `12s`. */
export function span(milliseconds: number): string {
  const left = Math.max(0, Math.round(milliseconds / 1000)) * 1000;
  for (const [large, largeUnit, small, smallUnit] of STEPS) {
    if (left < large) continue;
    const rest = Math.floor((left % large) / small);
    const first = inUnit(Math.floor(left / large), largeUnit);
    return rest ? `${first} ${inUnit(rest, smallUnit)}` : first;
  }
  return inUnit(left / 1000, "second");
}
