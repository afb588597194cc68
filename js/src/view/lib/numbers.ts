/** Sizes, durations, tokens and money as people read them. */

import type { Usage } from "../../protocol/generated.js";
import { strings } from "./strings.js";

const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const plain = new Intl.NumberFormat();

/** For example `3.4 MB`. */
export function sizeText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB"];
  let [value, unit] = [bytes, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** For example `0.4 s`, `12 s`, `2 min 05 s`. */
export function durationText(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 60) return strings.seconds(seconds < 10 ? seconds.toFixed(1) : String(Math.round(seconds)));
  return strings.minutes(Math.floor(seconds / 60), String(Math.floor(seconds % 60)).padStart(2, "0"));
}

export function tokensText({ input_tokens: input, output_tokens: output }: Usage): string {
  return strings.tokens(compact.format(input + output));
}

export function usageDetail({ input_tokens: input, output_tokens: output, requests }: Usage): string {
  return strings.tokensInOut(plain.format(input), plain.format(output), requests);
}

/** US dollars; null where it is not known. */
export function costText({ cost }: Usage): string | null {
  if (cost === null) return null;
  return cost > 0 && cost < 0.01 ? "< $0.01" : `$${cost.toFixed(2)}`;
}
