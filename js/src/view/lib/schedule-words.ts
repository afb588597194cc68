/** Schedules in the reader's words. */

import type { Schedule } from "../../protocol/generated.js";
import { dateFormat, language, listText } from "./language.js";
import { strings, textOf } from "./strings.js";
import { span, withoutOwnZone } from "./time.js";

/** `said`: in the server's words, which are English. */
export function scheduleWords(schedule: Schedule, said?: string): string {
  if (said !== undefined && language() === "en") return withoutOwnZone(said);
  switch (schedule.kind) {
    case "once":
      return strings.once;
    case "every":
      return everyWords(schedule.every, schedule.start, schedule.tz);
    case "cron":
      return withoutOwnZone(`${cronWords(schedule.expr) ?? strings.cron(schedule.expr)} ${schedule.tz}`);
    case "when": {
      const what = textOf(strings.whenEvent, schedule.event) ?? schedule.event;
      const about = schedule.path ?? schedule.expr;
      const words = about ? `${what}: ${about}` : what;
      return schedule.repeat === "each" ? strings.whenEach(words) : words;
    }
    default: // kinds of a newer server
      schedule satisfies never;
      return (schedule as { kind: string }).kind;
  }
}

const UNITS: Readonly<Record<string, number>> = { w: 604_800_000, d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000 };
const DAY = 86_400_000;

/** A duration as the server writes it: `1h30m`; null where it is none. */
function milliseconds(text: string): number | null {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)\s*([wdhms])/g)];
  if (!parts.length || parts.map(([part]) => part).join("") !== text.replace(/\s+(?=\d)/g, "")) return null;
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * (UNITS[unit ?? ""] ?? 0), 0);
}

/** Whole days are counted on the clock of a zone. */
function everyWords(every: string, start: string, zone: string | null): string {
  const length = milliseconds(every);
  if (length === null) return strings.every(every);
  if (zone === null || length % DAY) return strings.every(span(length));
  const [days, at] = [length / DAY, new Date(start)];
  const clock = dateFormat({ hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: zone }).format(at);
  const words = days === 1 ? strings.everyDay(clock) : days === 7 ? strings.everyWeek(dateFormat({ weekday: "long", timeZone: zone }).format(at), clock) : strings.everyDays(days, clock);
  return withoutOwnZone(`${words} ${zone}`);
}

/** The expressions that most people write; null for others. */
function cronWords(expression: string): string | null {
  const [minute = "", hour = "", date = "", month = "", days = "", ...more] = expression.toLowerCase().split(/\s+/);
  if (more.length || month !== "*") return null;
  const step = /^\*\/(\d+)$/;
  if (hour === "*" && date === "*" && days === "*" && step.test(minute)) return strings.every(span(Number(step.exec(minute)?.[1]) * 60_000));
  if (minute === "0" && date === "*" && days === "*" && step.test(hour)) return strings.every(span(Number(step.exec(hour)?.[1]) * 3_600_000));
  const hours = hour.split(",");
  if (!/^\d+$/.test(minute) || !hours.every((each) => /^\d+$/.test(each))) return null;
  const clock = listText(hours.map((each) => `${each.padStart(2, "0")}:${minute.padStart(2, "0")}`));
  if (date !== "*") return days === "*" && /^\d+$/.test(date) ? strings.everyMonth(Number(date), clock) : null;
  if (days === "*") return strings.everyDay(clock);
  if (/^(1-5|mon-fri)$/.test(days)) return strings.everyWorkday(clock);
  const named = days.split(",").map(dayNumber);
  return named.every((each) => each !== null) ? strings.everyWeek(listText(named.map(dayName)), clock) : null;
}

const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

function dayNumber(text: string): number | null {
  const found = /^[0-7]$/.test(text) ? Number(text) % 7 : DAYS.indexOf(text);
  return found < 0 ? null : found;
}

/** Of a day of the week, Sunday first. */
function dayName(day: number): string {
  return dateFormat({ weekday: "long", timeZone: "UTC" }).format(new Date(Date.UTC(2026, 10, 29 + day)));
}
