/**
 * Text in which everything can be seen: what is invisible, or looks like something else, replaced by marks.
 *
 * The rule of navi_jupyter/visible_text.py, by its table and tested with its examples.
 */

import { html, type TemplateResult } from "lit";
import { ALIKE, CYRILLIC, DOUBLES, FOREIGN, GREEK, LATIN, LONGEST_BLANKS, MOST_BLANK_LINES, MOST_STACKED, MOST_TABS, OVERLAYS, RARE, UNSEEN } from "./visible-table.js";

type Ranges = readonly (readonly [number, number])[];

/** A part of a text: as it is, or a mark in the place of what would not be seen. */
export interface Piece {
  readonly text: string;
  readonly mark: boolean;
}

const NEIGHBOURHOOD = 64;

const characters = (ranges: Ranges): string => ranges.map(([first, last]) => `\\u{${first.toString(16)}}-\\u{${last.toString(16)}}`).join("");
const WORD = `0-9_${characters(LATIN)}${characters(FOREIGN)}`;
const PATTERN = new RegExp(
  [
    `(?<lines>(?:(?<=\\n)|(?<![^]))(?:[ \\t]*\\n){${MOST_BLANK_LINES + 1},})`,
    `(?<blanks>[ \\t]{${LONGEST_BLANKS + 1},}|\\t{${MOST_TABS + 1},})`,
    `(?<unseen>([${characters(UNSEEN)}${characters(OVERLAYS)}])\\4*)`,
    `(?<stack>[\\p{Mn}\\p{Me}]{${MOST_STACKED + 1},})`,
    `(?<double>[${characters(DOUBLES)}])`,
    `(?<word>(?:(?![${characters(DOUBLES)}\\p{Mn}\\p{Me}])[${WORD}])+)`,
  ].join("|"),
  "gu",
);
const LATIN_LETTER = new RegExp(`[${characters(LATIN)}]`, "u");
const FOREIGN_LETTER = new RegExp(`[${characters(FOREIGN)}]`, "u");
const BEFORE = new RegExp(`[${WORD}]+(?= $)`, "u");
const AFTER = new RegExp(`(?<=^ )[${WORD}]+`, "u");
const PLAIN = /^[\x21-\x7e]*$/;
const ALIKE_LETTER = new RegExp(`[${ALIKE}${characters(RARE)}]`, "u");
const GREEK_LETTER = new RegExp(`[${characters(GREEK)}]`, "u");
const CYRILLIC_LETTER = new RegExp(`[${characters(CYRILLIC)}]`, "u");

const isForeign = (letter: string): boolean => FOREIGN_LETTER.test(letter);

export function pieces(text: string): readonly Piece[] {
  if (PLAIN.test(text)) return text ? [{ text, mark: false }] : [];
  const found: Piece[] = [];
  let end = 0;
  for (const match of text.matchAll(PATTERN)) {
    const shown = marksOf(match, text);
    if (!shown) continue;
    found.push({ text: text.slice(end, match.index), mark: false });
    for (const piece of shown) found.push(piece); // a word may have more letters than a call takes arguments
    end = match.index + match[0].length;
  }
  found.push({ text: text.slice(end), mark: false });
  return found.filter((piece) => piece.text);
}

/** With the marks in the text, for places that take no elements. */
export function marked(text: string): string {
  return pieces(text)
    .map((piece) => piece.text)
    .join("");
}

/** The same on one line: line breaks and tabs are marked, too. */
export function markedLine(text: string): string {
  return marked(text).replaceAll("\n", "⟨U+000A⟩").replaceAll("\t", "⟨U+0009⟩");
}

/** Marks as elements of their own, so that they are not taken for the text; those side by side as one. */
export function visibleText(text: string): readonly (string | TemplateResult)[] {
  return drawn(pieces(text));
}

export function drawn(all: readonly Piece[]): readonly (string | TemplateResult)[] {
  const joined: { text: string; readonly mark: boolean }[] = [];
  for (const piece of all) {
    const last = joined.at(-1);
    if (last?.mark === piece.mark) last.text += piece.text;
    else joined.push({ ...piece });
  }
  return joined.map((piece) => (piece.mark ? html`<mark class="navi-unseen" dir="ltr">${piece.text}</mark>` : piece.text));
}

const mark = (text: string): Piece => ({ text, mark: true });
const codeOf = (character: string): string => `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;

function marksOf(match: RegExpExecArray, text: string): readonly Piece[] | null {
  const found = match[0];
  const { lines, blanks, stack, double, word } = match.groups ?? {};
  if (lines !== undefined) return [mark(`··· ${found.split("\n").length - 1} blank lines ···`), { text: "\n", mark: false }];
  if (blanks !== undefined) return [mark(`··· ${blankWords(found)} ···`)];
  if (word !== undefined) return wordMarks(found, match.index, text);
  if (stack !== undefined) return [mark(`⟨${[...found].length} marks on one letter⟩`)];
  if (double !== undefined) return [mark(`⟨${found} ${codeOf(found)}⟩`)];
  const { length } = [...found];
  return [mark(`⟨${codeOf(found)}${length > 1 ? ` ×${length}` : ""}⟩`)];
}

function blankWords(found: string): string {
  const tabs = found.split("\t").length - 1;
  const spaces = found.length - tabs;
  return [spaces ? `${spaces} spaces` : "", tabs ? `${tabs} tabs` : ""].filter(Boolean).join(", ");
}

function wordMarks(word: string, start: number, text: string): readonly Piece[] | null {
  if (PLAIN.test(word) || !FOREIGN_LETTER.test(word)) return null;
  if (!LATIN_LETTER.test(word) && !isMixed(lettersOf(word))) {
    if (!lettersOf(word).every((letter) => ALIKE_LETTER.test(letter))) return null;
    const end = start + word.length;
    const others = [BEFORE.exec(text.slice(Math.max(0, start - NEIGHBOURHOOD), start)), AFTER.exec(text.slice(end, end + NEIGHBOURHOOD))];
    if (others.some((other) => other !== null && isOfAnotherScript(other[0]))) return null;
  }
  return [...word].map((letter) => (isForeign(letter) ? mark(`⟨${letter} ${codeOf(letter)}⟩`) : { text: letter, mark: false }));
}

const lettersOf = (word: string): readonly string[] => [...word].filter(isForeign);

/** Whether letters are of more than one script. */
function isMixed(letters: readonly string[]): boolean {
  return new Set(letters.map((letter) => (GREEK_LETTER.test(letter) ? "greek" : CYRILLIC_LETTER.test(letter) ? "cyrillic" : ""))).size > 1;
}

/** Beyond doubt. */
function isOfAnotherScript(word: string): boolean {
  return !LATIN_LETTER.test(word) && lettersOf(word).some((letter) => !ALIKE_LETTER.test(letter));
}
