/** The difference of two texts, line by line. The comparing is jsdiff's (Myers). */

import { diffArrays } from "diff";
import { html, type TemplateResult } from "lit";
import { strings } from "../lib/strings.js";

export interface DiffLine {
  readonly kind: "same" | "added" | "removed";
  readonly text: string;
}

/** Edits after which comparing is given up and the text is shown as all removed and all added: more would be felt. */
const MOST_EDITS = 600;
/** How many unchanged lines stay around what changed. */
const AROUND = 3;

export function diffLines(before: string, after: string): readonly DiffLine[] {
  const [old, fresh] = [before.split("\n"), after.split("\n")];
  const replaced = [
    { value: old, removed: true, added: false },
    { value: fresh, removed: false, added: true },
  ];
  const parts = diffArrays(old, fresh, { maxEditLength: MOST_EDITS }) ?? replaced;
  return parts.flatMap(({ value, added, removed }) => {
    const kind = added ? "added" : removed ? "removed" : "same";
    return value.map((text) => ({ kind, text }) as const);
  });
}

/** Only what changed and some lines around it; null stands for what was left out. */
export function withoutDistant(lines: readonly DiffLine[]): readonly (DiffLine | null)[] {
  const near = (index: number): boolean =>
    lines.slice(Math.max(0, index - AROUND), index + AROUND + 1).some(({ kind }) => kind !== "same");
  return lines.map((line, index) => (near(index) ? line : null)).filter((line, index, all) => line !== null || all[index - 1] !== null);
}

export function diffView(before: string, after: string): TemplateResult {
  return html`<pre class="navi-code navi-diff" data-navi="diff" tabindex="0" role="group" aria-label=${strings.toolCode}>${withoutDistant(
      diffLines(before, after),
    ).map(row)}</pre>`;
}

function row(line: DiffLine | null): TemplateResult {
  if (line === null) return html`<span class="navi-diff-far">⋯</span>`;
  const { kind, text } = line;
  if (kind === "same") return html`<span class="navi-diff-same">  ${text}\n</span>`;
  const label = kind === "added" ? strings.added : strings.removed;
  return html`<span class="navi-diff-${kind}"><span class="navi-hidden">${label}: </span><span aria-hidden="true">${kind === "added" ? "+ " : "− "}</span>${text}\n</span>`;
}
