/** What is around the parts of a block of Markdown: the bar of a block of code, the frame of a table, names for tasks, pictures. */

import { linkReference } from "./footnotes.js";
import { fillPlain } from "./plain-text.js";
import { isReferred } from "./sanitize.js";
import { strings } from "./strings.js";
import { alignNumbers } from "./tables.js";

/** The buttons for a block of code, beside the copy button. */
export type CodeButtons = (block: { readonly code: string; readonly language: string }) => readonly HTMLButtonElement[];
/** The element for an image that a text refers to (`attachment:<id>`, a file beside the notebook); null: there is none. */
export type Pictures = (reference: string, alt: string) => HTMLElement | null;

/** What a text is drawn with. */
export interface Drawn {
  readonly buttons: CodeButtons;
  readonly pictures: Pictures;
}

/** Completes a block that was made safe. */
export function frameParts(fragment: ParentNode, { buttons, pictures }: Drawn): void {
  // One search for all: there are texts of thousands of blocks.
  for (const part of fragment.querySelectorAll<HTMLElement>("pre, table, .navi-task, .navi-referred, sup.navi-note-reference")) {
    if (part instanceof HTMLPreElement) frameCode(part, buttons);
    else if (part instanceof HTMLTableElement) frameTable(part);
    else if (part.classList.contains("navi-task")) nameTask(part);
    else if (part.classList.contains("navi-referred")) showReferred(part, pictures);
    else linkReference(part);
  }
}

function showReferred(place: HTMLElement, pictures: Pictures): void {
  const { title } = place;
  place.removeAttribute("title");
  const alt = place.textContent ?? "";
  const shown = isReferred(title) ? pictures(title, alt) : null; // HTML of an agent may have such an element, too
  if (shown) {
    place.replaceChildren(shown);
    return;
  }
  place.className = "navi-remote-image";
  place.textContent = `[${[alt, strings.remoteImage].filter(Boolean).join(": ")}]`;
}

/** Puts the language and the buttons above a code block. */
function frameCode(pre: HTMLPreElement, buttons: CodeButtons): void {
  const code = pre.querySelector("code");
  if (code && !code.firstElementChild) fillPlain(code, code.textContent);
  const language = [...(code?.classList ?? [])].find((name) => name.startsWith("language-"))?.slice(9) ?? "";
  const frame = wrap(pre, "navi-code-frame");
  // What the buttons are about, where an answer has several blocks.
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", strings.codeBlock(firstLine(code?.textContent ?? "")));
  const bar = document.createElement("div");
  bar.className = "navi-code-bar";
  const label = document.createElement("span");
  label.textContent = language;
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "navi-copy";
  copy.dataset["navi"] = "copy";
  copy.setAttribute("aria-label", strings.copyCode);
  copy.textContent = strings.copy;
  bar.append(label, ...buttons({ code: code?.textContent ?? "", language }), copy);
  frame.prepend(bar);
  pre.dir = "ltr";
  pre.tabIndex = 0; // wide code scrolls, by keyboard too
}

/** The first line that says something, shortened. */
function firstLine(code: string): string {
  return (/\S.*/.exec(code.slice(0, 1_000))?.[0] ?? "").slice(0, 80);
}

/** A wide table is scrolled in its frame, by keyboard too. */
function frameTable(table: HTMLTableElement): void {
  alignNumbers(table);
  const frame = wrap(table, "navi-table");
  frame.tabIndex = 0;
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", strings.table);
}

function nameTask(task: Element): void {
  task.setAttribute("role", "img");
  task.setAttribute("aria-label", task.classList.contains("navi-task-done") ? strings.taskDone : strings.taskOpen);
}

function wrap(element: Element, className: string): HTMLElement {
  const frame = document.createElement("div");
  frame.className = className;
  element.replaceWith(frame);
  frame.append(element);
  return frame;
}
