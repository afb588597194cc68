/** What a call would do, as the server describes it: the whole of it, and where a part is shortened, how much is out of sight. */

import { html, nothing, type TemplateResult } from "lit";
import type { CallDetail } from "../../state/model.js";
import { highlightedCode } from "./code.js";
import { diffRows, type DrawnLine } from "./diff.js";
import { strings, textOf } from "../lib/strings.js";
import { drawn, pieces, visibleText, type Piece } from "../lib/visible-text.js";

/** What has more lines or characters begins with these, and has a button for the rest. */
const LINES = 30;
const CHARACTERS = 4_000;
/** A part that is hardly longer is shown whole: a button would take the same place. */
const LITTLE = 1.25;

/** How much is not shown. */
export interface Hidden {
  readonly lines: number;
  readonly characters: number;
  /** Characters that the server left out: no button shows them. */
  readonly omitted: number;
}

/** What of these parts is out of sight while they are not shown whole. */
export function hiddenOf(details: readonly CallDetail[], isWhole: boolean): Hidden {
  const hidden = { lines: 0, characters: 0, omitted: 0 };
  for (const detail of details) {
    const { lines, characters } = shownOf(detail, isWhole);
    hidden.lines += lines;
    hidden.characters += characters;
    hidden.omitted += detail.omitted;
  }
  return hidden;
}

interface Shown {
  readonly pieces: readonly Piece[];
  /** Of what is left out. */
  readonly lines: number;
  readonly characters: number;
}

/** The beginning of a part that is shown at first, as it is drawn: 200 blank lines are one mark, and hide nothing. */
function shownOf({ kind, text }: CallDetail, isWhole: boolean): Shown {
  const all = pieces(kind === "diff" ? text.replace(BLANK_CHANGES, (found, sign) => `${sign}··· ${strings.blankLines(found.trimEnd().split("\n").length)} ···\n`) : text);
  const whole = { pieces: all, lines: 0, characters: 0 };
  if (isWhole || sizeOf(all).characters <= CHARACTERS * LITTLE && sizeOf(all).lines <= LINES * LITTLE) return whole;
  const shown: Piece[] = [];
  let [lines, characters] = [0, 0];
  for (const [index, piece] of all.entries()) {
    const end = endOf(piece.text, LINES - lines, CHARACTERS - characters);
    if (end < piece.text.length && !piece.mark) {
      const rest = [{ ...piece, text: piece.text.slice(end) }, ...all.slice(index + 1)];
      return { pieces: [...shown, { ...piece, text: piece.text.slice(0, end) }], ...sizeOf(rest) };
    }
    shown.push(piece);
    lines += piece.text.split("\n").length - 1;
    characters += piece.text.length;
  }
  return whole;
}

/** Lines of a difference that are empty, one after the other. */
const BLANK_CHANGES = /^([-+ ])[ \t]*\n(?:\1[ \t]*\n){5,}/gm;

function sizeOf(all: readonly Piece[]): { lines: number; characters: number } {
  const text = all.map((piece) => piece.text).join("");
  return { lines: text === "" ? 0 : text.replace(/^\n/, "").split("\n").length, characters: text.length };
}

/** Where the text ends that has so many lines and characters at most. */
function endOf(text: string, lines: number, characters: number): number {
  let end = -1;
  for (let line = 0; line < lines; line += 1) {
    const next = text.indexOf("\n", end + 1);
    if (next < 0 || next > characters) return Math.max(0, Math.min(text.length, characters));
    end = next;
  }
  return Math.max(0, end);
}

export function detailsView(details: readonly CallDetail[], isWhole: boolean, showAll: () => void): TemplateResult {
  const short = details.filter(isShort);
  return html`
    ${short.length
      ? html`<dl class="navi-args">
          ${short.map(({ label, text }) => html`<div><dt>${visibleText(labelText(label))}</dt><dd><span class="navi-value" dir="auto">${visibleText(text)}</span></dd></div>`)}
        </dl>`
      : nothing}
    ${details.filter((detail) => !isShort(detail)).map((detail) => partView(detail, isWhole, showAll))}
  `;
}

/** In the reader's language, where it is not the name of an argument. */
function labelText(label: string): string {
  return textOf(strings.callParts, label) ?? label;
}

const isShort = ({ kind, text, foreign }: CallDetail): boolean => kind === "text" && !foreign && text.length <= 160 && !text.includes("\n");

function partView(detail: CallDetail, isWhole: boolean, showAll: () => void): TemplateResult {
  const { label, kind, foreign, omitted } = detail;
  const shown = shownOf(detail, isWhole);
  return html`<figure class="navi-detail" data-navi="ask-detail" data-kind=${kind} data-foreign=${foreign ? "true" : nothing}>
    <figcaption>${visibleText(labelText(label))}${foreign ? html` <small>${strings.foreignWords}</small>` : nothing}</figcaption>
    <pre class=${kind === "text" ? "navi-value" : kind === "diff" ? "navi-code navi-diff" : "navi-code"} dir=${kind === "text" ? "auto" : "ltr"} role="group" aria-label=${labelText(label)}>${body(shown.pieces, detail)}</pre>
    ${shown.characters
      ? html`<button type="button" class="navi-link" data-navi="ask-more" @click=${showAll}>${strings.showRest(shown.lines, shown.characters)}</button>`
      : nothing}
    ${omitted ? html`<p class="navi-cut">${strings.askOmitted(omitted)}</p>` : nothing}
  </figure>`;
}

function body(shown: readonly Piece[], { kind, language }: CallDetail): unknown {
  if (kind === "diff") return diffRows(linesOf(shown).map(diffLine));
  // Where there are marks, they count more than colours: the highlighter takes text alone.
  if (kind === "text" || shown.some(({ mark }) => mark)) return drawn(shown);
  return highlightedCode(shown.map(({ text }) => text).join(""), language ?? "");
}

/** The pieces of each line. */
function linesOf(shown: readonly Piece[]): readonly (readonly Piece[])[] {
  const lines: Piece[][] = [[]];
  for (const piece of shown) {
    const [first = "", ...others] = piece.text.split("\n");
    lines.at(-1)?.push({ ...piece, text: first });
    for (const text of others) lines.push([{ ...piece, text }]);
  }
  return lines;
}

const LINE_KINDS: Readonly<Record<string, DrawnLine["kind"]>> = { "+": "added", "-": "removed", "@": "far" };

function diffLine(line: readonly Piece[]): DrawnLine {
  const [sign, ...others] = line;
  const content = drawn([{ mark: false, text: sign?.text.slice(1) ?? "" }, ...others]);
  return { kind: LINE_KINDS[sign?.text[0] ?? ""] ?? "same", content };
}

/** The arguments of a call that the server has not described (a question of an earlier version). */
export function detailsOfArguments(args: Readonly<Record<string, unknown>>): readonly CallDetail[] {
  return Object.entries(args)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([label, value]) => {
      const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
      return { label, text, kind: typeof value === "string" && text.includes("\n") ? ("code" as const) : ("text" as const), language: null, foreign: false, omitted: 0, cell: null };
    });
}
