/** Sizes, durations, tokens and money as people read them. */

import type { Usage } from "../../protocol/generated.js";
import { numberFormat } from "./language.js";
import { strings } from "./strings.js";

const COMPACT: Intl.NumberFormatOptions = { notation: "compact", maximumFractionDigits: 1 };
const TENTHS: Intl.NumberFormatOptions = { minimumFractionDigits: 1, maximumFractionDigits: 1 };
const DOLLARS: Intl.NumberFormatOptions = { style: "currency", currency: "USD", currencyDisplay: "narrowSymbol" };

/** For example `1,234`. */
export function countText(count: number): string {
  return numberFormat().format(count);
}

/** For example `3.4 MB`. */
export function sizeText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB"];
  let [value, unit] = [bytes, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${value < 10 && unit > 0 ? numberFormat(TENTHS).format(value) : Math.round(value)} ${units[unit]}`;
}

/** For example `0.4 s`, `12 s`, `2 min 05 s`. */
export function durationText(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 60) return strings.seconds(seconds < 10 ? numberFormat(TENTHS).format(seconds) : String(Math.round(seconds)));
  return strings.minutes(Math.floor(seconds / 60), String(Math.floor(seconds % 60)).padStart(2, "0"));
}

export function tokensText({ input_tokens: input, output_tokens: output }: Usage): string {
  return strings.tokens(numberFormat(COMPACT).format(input + output));
}

export function usageDetail({ input_tokens: input, output_tokens: output, requests }: Usage): string {
  return strings.tokensInOut(countText(input), countText(output), requests);
}

/** US dollars; null where it is not known. */
export function costText({ cost }: Usage): string | null {
  if (cost === null) return null;
  const dollars = numberFormat(DOLLARS);
  return cost > 0 && cost < 0.01 ? `< ${dollars.format(0.01)}` : dollars.format(cost);
}
