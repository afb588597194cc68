/** What is to change, line by line. */

import { html, type TemplateResult } from "lit";
import { strings } from "../lib/strings.js";

export interface DiffLine {
  readonly kind: "same" | "added" | "removed";
  readonly text: string;
}

/** Longer texts are shown as all removed and all added: comparing them would be felt. */
const MOST_LINES = 600;
/** How many unchanged lines stay around what changed. */
const AROUND = 3;

export function diffLines(before: string, after: string): readonly DiffLine[] {
  const [old, fresh] = [before.split("\n"), after.split("\n")];
  let start = 0;
  while (start < old.length && start < fresh.length && old[start] === fresh[start]) start += 1;
  let end = 0;
  while (end < old.length - start && end < fresh.length - start && old.at(-1 - end) === fresh.at(-1 - end)) end += 1;
  const same = (text: string): DiffLine => ({ kind: "same", text });
  return [
    ...old.slice(0, start).map(same),
    ...middle(old.slice(start, old.length - end), fresh.slice(start, fresh.length - end)),
    ...old.slice(old.length - end).map(same),
  ];
}

function middle(old: readonly string[], fresh: readonly string[]): DiffLine[] {
  if (old.length > MOST_LINES || fresh.length > MOST_LINES) {
    return [...old.map((text) => ({ kind: "removed", text }) as const), ...fresh.map((text) => ({ kind: "added", text }) as const)];
  }
  // lengths[i][j]: of the longest common subsequence of old[i:] and fresh[j:]
  const lengths = Array.from({ length: old.length + 1 }, () => new Uint16Array(fresh.length + 1));
  const at = (i: number, j: number): number => lengths[i]?.[j] ?? 0;
  for (let i = old.length - 1; i >= 0; i -= 1) {
    for (let j = fresh.length - 1; j >= 0; j -= 1) {
      const row = lengths[i];
      if (row) row[j] = old[i] === fresh[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const lines: DiffLine[] = [];
  for (let [i, j] = [0, 0]; i < old.length || j < fresh.length; ) {
    if (i < old.length && j < fresh.length && old[i] === fresh[j]) {
      lines.push({ kind: "same", text: old[i] ?? "" });
      [i, j] = [i + 1, j + 1];
    } else if (i < old.length && (j === fresh.length || at(i + 1, j) >= at(i, j + 1))) {
      lines.push({ kind: "removed", text: old[i] ?? "" });
      i += 1;
    } else {
      lines.push({ kind: "added", text: fresh[j] ?? "" });
      j += 1;
    }
  }
  return lines;
}

/** Only what changed and some lines around it; null stands for what was left out. */
export function withoutFar(lines: readonly DiffLine[]): readonly (DiffLine | null)[] {
  const near = (index: number): boolean =>
    lines.slice(Math.max(0, index - AROUND), index + AROUND + 1).some(({ kind }) => kind !== "same");
  return lines.map((line, index) => (near(index) ? line : null)).filter((line, index, all) => line !== null || all[index - 1] !== null);
}

export function diffView(before: string, after: string): TemplateResult {
  return html`<pre class="navi-code navi-diff" data-navi="diff" tabindex="0" role="group" aria-label=${strings.toolCode}>${withoutFar(
      diffLines(before, after),
    ).map(row)}</pre>`;
}

function row(line: DiffLine | null): TemplateResult {
  if (line === null) return html`<span class="navi-diff-far">⋯</span>`;
  const { kind, text } = line;
  if (kind === "same") return html`<span class="navi-diff-same">  ${text}\n</span>`;
  const said = kind === "added" ? strings.added : strings.removed;
  return html`<span class="navi-diff-${kind}"><span class="navi-hidden">${said}: </span><span aria-hidden="true">${kind === "added" ? "+ " : "− "}</span>${text}\n</span>`;
}
