/** Footnotes of Markdown: their definitions, taken out of a text, and the way from a reference to its note and back. */

import type { MarkedExtension, RendererExtension, TokenizerExtension, Tokens } from "marked";
import { strings } from "./strings.js";

/** Of one text; definitions behind these are text. */
const MOST = 200;
const DEFINITION = /^ {0,3}\[\^([^\s[\]\\^]{1,100})\]:[ \t]+(?=\S)/;
const REFERENCE = /^\[\^([^\s[\]\\^]{1,100})\]/;
const FENCE = /^ {0,3}(?:(`{3,})[^`]*|(~{3,}).*)$/;
const FENCE_END = /^ {0,3}(`{3,}|~{3,})[ \t]*$/;
const INDENT = /^(?: {1,4}|\t)/;

/** The definitions by name, in their order. */
export type Notes = ReadonlyMap<string, string>;

export const NO_NOTES: Notes = new Map();

/** A text without the definitions of its footnotes, as cells have them (`split_notes` in `markdown_text.py`). */
export function splitNotes(text: string): { readonly body: string; readonly notes: Notes } {
  if (!text.includes("[^")) return { body: text, notes: NO_NOTES };
  const notes = new Map<string, string>();
  const body: string[] = [];
  const lines = text.replaceAll("\r\n", "\n").replaceAll("\r", "\n").split("\n");
  let fence = "";
  for (let at = 0; at < lines.length; ) {
    const line = lines[at] ?? "";
    at += 1;
    const opens = fence ? null : FENCE.exec(line);
    const found = fence || opens ? null : DEFINITION.exec(line);
    if (fence) {
      if (FENCE_END.exec(line)?.[1]?.startsWith(fence)) fence = "";
    } else if (opens) {
      fence = opens[1] ?? opens[2] ?? "";
    } else if (found?.[1] !== undefined && !notes.has(found[1]) && notes.size < MOST) {
      const end = endOfNote(lines, at);
      const more = lines.slice(at, end).map((one) => one.replace(INDENT, ""));
      notes.set(found[1], [line.slice(found[0].length), ...more].join("\n").trimEnd());
      at = end;
      continue;
    }
    body.push(line);
  }
  return { body: body.join("\n"), notes };
}

/** Where the indented lines end; blank ones count where an indented one follows. */
function endOfNote(lines: readonly string[], start: number): number {
  let end = start;
  for (let at = start; at < lines.length; at += 1) {
    const line = lines[at] ?? "";
    if (!line.trim()) continue;
    if (!INDENT.test(line) || DEFINITION.test(line)) break;
    end = at + 1;
  }
  return end;
}

/** References among the words of a paragraph. `known`: the notes of the text that is being read. */
export function noteReferences(known: () => Notes): MarkedExtension {
  const reference: TokenizerExtension & RendererExtension = {
    name: "note",
    level: "inline",
    start: (source) => {
      const at = source.indexOf("[^");
      return at < 0 ? undefined : at;
    },
    tokenizer(source) {
      const found = REFERENCE.exec(source);
      const number = found ? [...known().keys()].indexOf(found[1] ?? "") + 1 : 0;
      return found && number > 0 ? ({ type: "note", raw: found[0], number } as Tokens.Generic) : undefined;
    },
    renderer: (token) => `<sup class="navi-note-reference">${Number(token["number"])}</sup>`,
  };
  return { extensions: [reference] };
}

/** Makes a button of a reference. Where it leads is found when it is pressed: ids would be the page's. */
export function linkReference(mark: HTMLElement): void {
  const number = mark.textContent ?? "";
  if (/^\d{1,3}$/.test(number)) mark.replaceWith(jump("note-reference", number, number, strings.footnote(number), ".navi-notes li"));
}

/** The notes below a text. `fill` draws the Markdown of one. */
export function notesElement(notes: Notes, fill: (place: HTMLElement, text: string) => void): HTMLElement {
  const section = document.createElement("section");
  section.className = "navi-block navi-notes";
  section.dataset["navi"] = "notes";
  section.setAttribute("aria-label", strings.footnotes);
  const list = document.createElement("ol");
  for (const [index, text] of [...notes.values()].entries()) {
    const item = document.createElement("li");
    item.dataset["navi"] = "note";
    item.dataset["note"] = String(index + 1);
    item.tabIndex = -1;
    fill(item, text);
    (item.lastElementChild?.matches("p") ? item.lastElementChild : item).append(" ", jump("note-back", "\u2191", String(index + 1), strings.footnoteBack, "button.navi-note-reference"));
    list.append(item);
  }
  section.append(list);
  return section;
}

function jump(name: string, text: string, number: string, label: string, target: string): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.className = `navi-${name}`;
  button.dataset["navi"] = name;
  button.dataset["note"] = number;
  button.textContent = text;
  button.setAttribute("aria-label", label);
  button.addEventListener("click", () => {
    const found = button.closest(".navi-markdown")?.querySelector<HTMLElement>(`${target}[data-note="${number}"]`);
    found?.scrollIntoView({ block: "nearest" });
    found?.focus({ preventScroll: true });
  });
  return button;
}
