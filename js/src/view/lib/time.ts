/** Times as people read them. */

import type { Schedule } from "../../protocol/generated.js";
import { strings } from "./strings.js";

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const dayAndClock = new Intl.DateTimeFormat(undefined, {
  weekday: "short",
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
});
const complete = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

/** Today's times without their day. */
export function shortTime(at: Date, now = new Date()): string {
  return at.toDateString() === now.toDateString() ? clock.format(at) : dayAndClock.format(at);
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
    return `${new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", timeZone: zone }).format(at)} ${zone}`;
  } catch {
    return "";
  }
}

export function fullTime(at: Date): string {
  return complete.format(at);
}

/** What is left, e.g. `2d 3h`, `1h 05m`, `4:07`. */
export function countdown(milliseconds: number): string {
  const left = Math.ceil(milliseconds / 1000);
  if (left <= 0) return strings.due;
  const two = (value: number): string => String(value).padStart(2, "0");
  const [days, hours, minutes, seconds] = [Math.floor(left / 86400), Math.floor(left / 3600) % 24, Math.floor(left / 60) % 60, left % 60];
  if (days) return `${days}d ${hours}h`;
  if (hours) return `${hours}h ${two(minutes)}m`;
  return `${minutes}:${two(seconds)}`;
}

export function scheduleText(schedule: Schedule): string {
  switch (schedule.kind) {
    case "once":
      return strings.once;
    case "every":
      return strings.every(schedule.every);
    case "cron":
      return strings.cron(schedule.expr, schedule.tz);
    case "when": {
      const what = strings.whenEvent[schedule.event] ?? schedule.event;
      const about = schedule.path ?? schedule.expr;
      const words = about ? `${what}: ${about}` : what;
      return schedule.repeat === "each" ? strings.whenEach(words) : words;
    }
    default: // kinds of a newer server
      schedule satisfies never;
      return (schedule as { kind: string }).kind;
  }
}
