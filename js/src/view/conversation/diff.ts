/** The difference of two texts, line by line. The comparing is jsdiff's (Myers). */

import { diffArrays } from "diff";
import { html, type TemplateResult } from "lit";
import { strings } from "../lib/strings.js";
import "../../style/code.js";

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

/** A line as it is drawn. `far`: stands for what is left out. */
export interface DrawnLine {
  readonly kind: DiffLine["kind"] | "far";
  readonly content: unknown;
}

/** The lines of a difference. Lines that replace others stand beside them where there is room. */
export function diffRows(lines: readonly DrawnLine[]): readonly TemplateResult[] {
  const rows: TemplateResult[] = [];
  for (let at = 0; at < lines.length; ) {
    const old = runOf(lines, at, "removed");
    const fresh = old.length ? runOf(lines, at + old.length, "added") : [];
    if (fresh.length) {
      rows.push(html`<span class="navi-diff-pair"><span class="navi-diff-old">${old.map(row)}</span><span class="navi-diff-new">${fresh.map(row)}</span></span>`);
      at += old.length + fresh.length;
    } else rows.push(row(lines[at++] as DrawnLine));
  }
  return rows;
}

/** The lines of a kind that follow one another. */
function runOf(lines: readonly DrawnLine[], start: number, kind: DrawnLine["kind"]): readonly DrawnLine[] {
  let end = start;
  while (lines[end]?.kind === kind) end += 1;
  return lines.slice(start, end);
}

function row({ kind, content }: DrawnLine): TemplateResult {
  if (kind === "far") return html`<span class="navi-diff-far">⋯${content}\n</span>`;
  if (kind === "same") return html`<span class="navi-diff-same">  ${content}\n</span>`;
  const label = kind === "added" ? strings.added : strings.removed;
  return html`<span class="navi-diff-${kind}"><span class="navi-hidden">${label}: </span><span aria-hidden="true">${kind === "added" ? "+ " : "− "}</span>${content}\n</span>`;
}

export function diffView(before: string, after: string): TemplateResult {
  // A text that is not there has no empty line either.
  const all = diffLines(before, after).filter(({ kind, text }) => text !== "" || !((kind === "added" && after === "") || (kind === "removed" && before === "")));
  const lines = withoutDistant(all).map((line): DrawnLine => (line ? { kind: line.kind, content: line.text } : { kind: "far", content: "" }));
  return html`<pre class="navi-code navi-diff" data-navi="diff" tabindex="0" role="group" aria-label=${strings.toolCode}>${diffRows(lines)}</pre>`;
}
