/**
 * Text as terminals show it: colours, and lines that are written over (progress bars). Takes pieces as they come, in
 * time that grows with the piece alone; keeps the end of what it was given.
 */

import { countText } from "../lib/numbers.js";
import { strings } from "../lib/strings.js";

/** At most so many characters are in the document; what came before is dropped. */
const LONGEST = 50_000;

// eslint-disable-next-line no-control-regex
const PART = /\u001b\[([0-9;:]*)([A-Za-z])|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b[()][A-Z0-9]|\u001b.|\r\n?|\n|[^\u001b\r\n]+/g;
/** The beginning of an escape sequence whose end has not come yet. */
const UNFINISHED = /\u001b(?:\[[0-9;:]*|\][^\u0007\u001b]{0,200})?$/;

const COLOURS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

export class TerminalText {
  readonly element: HTMLElement;
  #line: HTMLElement;
  #size = 0;
  #dropped = 0;
  #note: HTMLElement | null = null;
  #held = "";
  /** A carriage return came: what comes next is written over the line. */
  #over = false;
  #colour = "";
  #bold = false;

  constructor(className: string, label: string) {
    this.element = document.createElement("pre");
    this.element.className = className;
    this.element.tabIndex = 0;
    this.element.setAttribute("aria-label", label);
    this.element.setAttribute("role", "group");
    this.#line = this.#newLine();
  }

  write(piece: string): void {
    // Of a piece that is much too long, the beginning would be dropped at once.
    const cut = Math.max(0, piece.length - 2 * LONGEST);
    this.#dropped += cut;
    const text = this.#held + piece.slice(cut);
    const unfinished = UNFINISHED.exec(text);
    this.#held = unfinished && unfinished[0].length < 256 ? unfinished[0] : "";
    for (const [part, codes, command] of text.slice(0, text.length - this.#held.length).matchAll(PART)) {
      if (part === "\n" || part === "\r\n") this.#break();
      else if (part === "\r") this.#over = true;
      else if (command === "m") this.#style(codes ?? "");
      else if (!part.startsWith("\u001b")) this.#put(part);
    }
    this.#drop();
  }

  #newLine(): HTMLElement {
    const line = document.createElement("span");
    this.element.append(line);
    return line;
  }

  #break(): void {
    this.#line.append("\n");
    this.#size += 1;
    this.#over = false;
    this.#line = this.#newLine();
  }

  #put(text: string): void {
    if (this.#over) {
      this.#size -= this.#line.textContent?.length ?? 0;
      this.#line.textContent = "";
      this.#over = false;
    }
    this.#size += text.length;
    if (!this.#colour && !this.#bold) return this.#line.append(text);
    const span = document.createElement("span");
    span.className = [this.#colour && `navi-ansi-${this.#colour}`, this.#bold && "navi-ansi-bold"].filter(Boolean).join(" ");
    span.textContent = text;
    this.#line.append(span);
  }

  #style(codes: string): void {
    const numbers = codes.split(/[;:]/).map(Number);
    for (let at = 0; at < numbers.length; at += 1) {
      const code = numbers[at] ?? 0;
      if (code === 0) [this.#colour, this.#bold] = ["", false];
      else if (code === 1) this.#bold = true;
      else if (code === 22) this.#bold = false;
      else if (code === 39) this.#colour = "";
      else if (code >= 30 && code <= 37) this.#colour = COLOURS[code - 30] ?? "";
      else if (code >= 90 && code <= 97) this.#colour = COLOURS[code - 90] ?? "";
      else if (code === 38 || code === 48) {
        const isIndexed = numbers[at + 1] === 5;
        if (code === 38) this.#colour = isIndexed && (numbers[at + 2] ?? 99) < 16 ? (COLOURS[(numbers[at + 2] ?? 0) % 8] ?? "") : "";
        at += isIndexed ? 2 : 4;
      }
    }
  }

  #drop(): void {
    const { element } = this;
    while (this.#size > LONGEST) {
      const first = this.#note ? this.#note.nextSibling : element.firstChild;
      if (!first || first === this.#line) break;
      this.#forget(first.textContent?.length ?? 0);
      first.remove();
    }
    if (this.#size > LONGEST) {
      const text = this.#line.textContent ?? "";
      this.#line.textContent = text.slice(-LONGEST);
      this.#forget(text.length - LONGEST);
    }
    if (this.#dropped === 0) return;
    if (!this.#note) {
      this.#note = document.createElement("span");
      this.#note.className = "navi-cut";
      element.prepend(this.#note);
    }
    this.#note.textContent = `${strings.outputCut(countText(this.#dropped))}\n`;
  }

  #forget(characters: number): void {
    this.#size -= characters;
    this.#dropped += characters;
  }
}
