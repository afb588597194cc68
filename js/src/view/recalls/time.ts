/** Relative times of recalls. The texts are kept up to date by `tick`; here is what they say. */

import { html, type TemplateResult } from "lit";
import type { Policy } from "../../protocol/generated.js";
import { durationText } from "../lib/numbers.js";
import { strings } from "../lib/strings.js";
import { fullTime, shortTime, span } from "../lib/time.js";

/** An instant, absolutely; relatively when it is pointed at. */
export function moment(iso: string, now = Date.now()): TemplateResult {
  const at = new Date(iso);
  const away = at.valueOf() - now;
  const relative = away >= 0 ? strings.ahead(span(away)) : strings.ago(span(-away));
  return html`<time datetime=${iso} title="${fullTime(at)} (${relative})">${shortTime(at)}</time>`;
}

/** How late a run began; null when that is not worth saying. */
export function lateness(milliseconds: number | null): string | null {
  return milliseconds === null || milliseconds < 1000 ? null : strings.recallLate(durationText(milliseconds));
}

/** What of a policy is not as it always is, each part in words. */
export function boundsText(policy: Policy): string[] {
  const { until, max_fires: most, misfire, grace, busy, retries, timeout, jitter, cancel_on: endsOn, notify, quiet, needs } = policy;
  return [
    until ? strings.boundUntil(fullTime(new Date(until))) : "",
    most ? strings.boundFires(most) : "",
    misfire && misfire !== "latest" ? strings.boundMisfire[misfire] : "",
    grace ? strings.boundGrace(grace) : "",
    busy && busy !== "defer" ? strings.boundBusy[busy] : "",
    retries ? strings.boundRetries(retries) : "",
    timeout ? strings.boundTimeout(timeout) : "",
    jitter ? strings.boundJitter(jitter) : "",
    ...(endsOn ?? []).map((end) => strings.boundEnds[end]),
    notify?.length ? strings.boundNotify(notify.join(", ")) : "",
    quiet ? strings.boundQuiet(quiet) : "",
    strings.boundNeeds[needs ?? "auto"],
  ].filter(Boolean);
}

/** What the server says of a schedule: code is between backticks. */
export function worded(text: string): (string | TemplateResult)[] {
  return text.split("`").map((part, index) => (index % 2 ? html`<code dir="ltr">${part}</code>` : part));
}

// Emphasis has a boundary outside and none inside: `snake_case`, `2*3*4` and `a * b` have none. `__init__` is a name.
const EMPHASIS =
  /(?<![\p{L}\p{N}*_~\\])(?:(\*{1,3})(?![\s*])([^*\n]*[^*\s\\])\1|(?!__[\p{L}\p{N}_]+__)(_{1,3})(?![\s_])([^\n]{0,200}?[^_\s\\])\3|~~(?![\s~])([^~\n]*[^~\s\\])~~)(?![\p{L}\p{N}*_~])/gu;

/** An answer in one line, without what its Markdown is written with. Names keep their characters. */
export function plain(markdown: string): string {
  const kept: string[] = [];
  const keep = (words: string): string => `\0${kept.push(words) - 1}\0`;
  let text = markdown
    .replaceAll("\0", "")
    .replace(/(?<!`)(`{1,2})(?!`)([^\n]+?)(?<!`)\1(?!`)/g, (_, __, code: string) => keep(code.trim()))
    .replace(/^[ \t]*(?:`{3,}|~{3,})[^\n`]*$/gm, "")
    .replace(/\\([!-/:-@[-`{-~])/g, (_, sign: string) => keep(sign))
    .replace(/^\s*(?:#{1,6}|>|[-*+])\s+/gm, "")
    .replace(/!?\[([^\]\n]*)\]\([^)\s]*\)/g, "$1");
  for (let rounds = 0; rounds < 3; rounds += 1) text = text.replace(EMPHASIS, (_, __, stars?: string, ___?: string, lines?: string, waves?: string) => stars ?? lines ?? waves ?? "");
  while (text.includes("\0")) text = text.replace(/\0(\d+)\0/g, (_, index: string) => kept[Number(index)] ?? "");
  return text.replace(/\s+/g, " ").trim();
}
