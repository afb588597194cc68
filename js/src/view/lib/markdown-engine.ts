/**
 * Markdown of one message as DOM, block by block: while a message streams, only the blocks that changed (nearly always
 * the last one) are made anew, so the rest keeps its nodes, its selection and its scroll positions.
 */

import { Lexer, Marked, type Token, type TokensList, type Tokens } from "marked";
import { escapeHtml, highlight } from "./highlight.js";
import { frameParts, type CodeButtons, type Drawn, type Pictures } from "./block-frames.js";
import { NO_NOTES, noteReferences, notesElement, splitNotes, type Notes } from "./footnotes.js";
import { mathExtension } from "./math.js";
import { drawable, fillPlain } from "./plain-text.js";
import { sanitize } from "./sanitize.js";
import { strings } from "./strings.js";
import css from "../../style/markdown.css";
import { addStyle, shared } from "../../style/install.js";
import "../../style/code.js";

addStyle(shared(css));

/** Characters that are read as Markdown at once: a longer text is read in sections, one after the other. */
const SECTION = 5_000;
/** A section that has no better end ends with a line; one that is within a table, which has its head once, much later. */
const MAX_SECTION = 10_000;
const MAX_TABLE = 50_000;
/** Signs of Markdown in one paragraph: what a parser does for them grows with their square. Also in cells. */
export const MAX_SIGNS = 1_000;
/** The same for a whole text: the sum of the squares of these counts. */
const MAX_SQUARES = 4_000_000;
/** How deep quotes, lists and emphasis nest. */
export const MAX_DEPTH = 24;
/** Characters of one address, and of all in a text: a definition can be used often. */
const MAX_URL = 2_000;
const MAX_URLS = 1_000 * MAX_URL;
/** Cells of one table. */
const MAX_CELLS = 10_000;
/** Characters of one block that is no code: laying out one paragraph of more is felt. */
const MAX_BLOCK = 100_000;
/** Tokens of one block: items of a list, say. */
const MAX_TOKENS = 6_000;
/** Tags of raw HTML in one block. */
const MAX_TAGS = 2_000;

const SIGNS = /[*_`[\]<>~$\\!&]/g;

/** marked's lexer within the bounds. What exceeds one becomes a token `bounded`, which is shown as text. */
class BoundedLexer extends Lexer {
  #depth = 0;
  #inlineDepth = 0;
  #squares = 0;

  override blockTokens(src: string, tokens?: Token[], lastParagraphClipped?: boolean): Token[];
  override blockTokens(src: string, tokens?: TokensList, lastParagraphClipped?: boolean): TokensList;
  override blockTokens(src: string, tokens: Token[] = [], lastParagraphClipped = false): Token[] {
    if (this.#depth > MAX_DEPTH) {
      tokens.push(bounded(src));
      return tokens;
    }
    this.#depth += 1;
    try {
      return super.blockTokens(src, tokens, lastParagraphClipped);
    } finally {
      this.#depth -= 1;
    }
  }

  override inlineTokens(src: string, tokens: Token[] = []): Token[] {
    if (this.#inlineDepth === 0) {
      const signs = src.match(SIGNS)?.length ?? 0;
      this.#squares += signs * signs;
      if (signs > MAX_SIGNS || this.#squares > MAX_SQUARES) {
        tokens.push(bounded(src));
        return tokens;
      }
    }
    if (this.#inlineDepth > MAX_DEPTH) {
      tokens.push({ type: "text", raw: src, text: src, escaped: false });
      return tokens;
    }
    this.#inlineDepth += 1;
    try {
      return super.inlineTokens(src, tokens);
    } finally {
      this.#inlineDepth -= 1;
    }
  }
}

function bounded(raw: string): Tokens.Generic {
  return { type: "bounded", raw, text: raw };
}

/** Of the text that is being read. */
let present: Notes = NO_NOTES;

const marked = new Marked({ gfm: true, breaks: false }, mathExtension, noteReferences(() => present), {
  extensions: [{ name: "bounded", renderer: ({ raw }) => `${escapeHtml(raw)} <small>(${escapeHtml(strings.shownAsText)})</small>` }],
  renderer: {
    code({ text, lang }: Tokens.Code) {
      const language = lang?.split(/\s/)[0]?.toLowerCase() ?? "";
      const name = language ? ` class="language-${escapeHtml(language)}"` : "";
      return `<pre class="navi-code"><code${name}>${highlight(text, language)}</code></pre>`;
    },
    checkbox: ({ checked }: Tokens.Checkbox) => `<span class="navi-task${checked ? " navi-task-done" : ""}"></span> `,
  },
});

/** The blocks of a text, or its sections where it is long; what cannot be read is one block. */
function blocksOf(text: string, notes: Notes): Token[] {
  const sections = sectionsOf(text);
  return sections.length > 1 ? sections.map((raw) => ({ type: "section", raw }) as Tokens.Generic) : blocksIn(text, notes);
}

function blocksIn(section: string, notes: Notes): Token[] {
  if (section.length > MAX_BLOCK && !FENCE.test(section)) return [bounded(section)];
  present = notes;
  try {
    return limited(new BoundedLexer(marked.defaults).lex(section)).filter(({ type }) => type !== "space" && type !== "def");
  } catch {
    return [bounded(section)];
  } finally {
    present = NO_NOTES;
  }
}

const FENCE = /^ {0,3}(`{3,}(?=[^`\n]*(?:\n|$))|~{3,})/;

/** Cuts a long text between its blocks, never within code. */
function sectionsOf(text: string): string[] {
  if (text.length <= MAX_SECTION) return [text];
  const sections: string[] = [];
  let start = 0;
  let at = 0;
  let fence = "";
  let isAfterBlank = false;
  const cut = (): void => {
    if (at > start) sections.push(text.slice(start, at));
    start = at;
  };
  while (at < text.length) {
    const newline = text.indexOf("\n", at);
    const end = newline < 0 ? text.length : newline + 1;
    const line = text.slice(at, Math.min(end, at + 200));
    const mark = FENCE.exec(line)?.[1] ?? "";
    const size = at - start;
    if (fence) {
      at = end;
      if (mark.startsWith(fence) && line.trim() === mark) {
        fence = "";
        if (at - start > SECTION) cut();
      }
      continue;
    }
    if ((size > SECTION && ((isAfterBlank && /^\S/.test(line)) || mark)) || size > (line.startsWith("|") ? MAX_TABLE : MAX_SECTION)) cut();
    fence = mark;
    isAfterBlank = line.trim() === "";
    at = end;
  }
  cut();
  return sections;
}

/** Blocks of a size that can be drawn; the others as text. */
function limited(blocks: Token[]): Token[] {
  let urls = 0;
  const isLarge = (token: Token): boolean => {
    if (token.type === "table") return (token as Tokens.Table).header.length * ((token as Tokens.Table).rows.length + 1) > MAX_CELLS;
    return token.type !== "code" && (token.raw.length > MAX_BLOCK || (token.raw.match(/<[A-Za-z/]/g)?.length ?? 0) > MAX_TAGS);
  };
  return blocks.map((block) => {
    if (isLarge(block)) return bounded(block.raw);
    let count = 0;
    marked.walkTokens([block], (token) => {
      count += 1;
      if (token.type !== "link" && token.type !== "image") return;
      const link = token as Tokens.Link;
      const embedded = token.type === "image" && link.href.startsWith("data:");
      if (!embedded) urls += link.href.length;
      if (!embedded && (link.href.length > MAX_URL || urls > MAX_URLS)) token.type = "text"; // of which its words stay
    });
    return count > MAX_TOKENS ? bounded(block.raw) : block;
  });
}

interface Block {
  readonly raw: string;
  readonly element: HTMLElement;
}

/** When reading a streaming text took this many milliseconds, it is read less often. */
const COSTLY = 8;

export class MarkdownView {
  readonly #redraw: () => void;
  readonly #with: Drawn;
  #notes: Notes = NO_NOTES;
  #text: string | null = null;
  /** What is still drawn at once of the text that is being read. */
  #free = 0;
  #elements: ReadonlySet<HTMLElement> = new Set();
  #blocks: readonly Block[] = [];
  /** What the last reading took, and when it was done. */
  #cost = 0;
  #doneAt = 0;
  #later: ReturnType<typeof setTimeout> | undefined;

  constructor(redraw: () => void, buttons: CodeButtons = () => [], pictures: Pictures = () => null) {
    this.#redraw = redraw;
    this.#with = { buttons, pictures };
  }

  /** The elements that show `text`, in order. The same elements as before where the source is the same. */
  update(text: string, streams: boolean): readonly HTMLElement[] {
    const wait = this.#doneAt + 8 * this.#cost - performance.now();
    if (streams && this.#cost > COSTLY && wait > 0) {
      clearTimeout(this.#later);
      this.#later = setTimeout(this.#redraw, wait);
    } else if (text !== this.#text) {
      const start = performance.now();
      this.#read(text);
      this.#doneAt = performance.now();
      this.#cost = this.#doneAt - start;
    }
    return this.#blocks.map(({ element }) => element);
  }

  #read(text: string): void {
    this.#text = text;
    this.#free = FREE_SIZE;
    const { body, notes } = splitNotes(drawable(text));
    const before = this.#notes;
    this.#notes = notes;
    // A block with references is another one when the notes are: which of them there are is known only at the end.
    const isSame = before.size === notes.size && [...notes.keys()].every((name, index) => [...before.keys()][index] === name);
    const kept = (raw: string, old: Block | undefined): old is Block => old?.raw === raw && (isSame || !raw.includes("[^"));
    const blocks = blocksOf(body, notes).map((token, index) => {
      const old = this.#blocks[index];
      return kept(token.raw, old) ? old : { raw: token.raw, element: this.#element(token) };
    });
    const words = [...notes.values()].join("\n\0");
    const last = this.#blocks.at(-1);
    if (notes.size) blocks.push(isSame && last?.raw === words ? last : { raw: words, element: notesElement(notes, (place, note) => this.#fill(place, note)) });
    this.#blocks = blocks;
    this.#elements = new Set(this.#blocks.map(({ element }) => element));
  }

  #element(token: Token): HTMLElement {
    const element = document.createElement("div");
    element.className = "navi-block";
    element.dir = "auto"; // a paragraph of another direction than the first one's
    this.#free -= token.raw.length + BLOCK_SIZE;
    const block = { element, token, notes: this.#notes, isWanted: () => this.#elements.has(element), drawn: this.#redraw, with: this.#with };
    if (this.#free >= 0 && token.type !== "section") draw(element, token, this.#with);
    else drawing.add(block);
    return element;
  }

  /** The blocks of a footnote. */
  #fill(place: HTMLElement, text: string): void {
    for (const token of blocksIn(text, this.#notes)) {
      const element = document.createElement("div");
      draw(element, token, this.#with);
      place.append(...element.childNodes);
    }
  }

  /** Everything is made anew at the next update (link definitions and formulas may have arrived since). */
  invalidate(): void {
    this.#text = null;
    this.#blocks = [];
  }
}

interface Waiting {
  readonly element: HTMLElement;
  readonly token: Token;
  readonly notes: Notes;
  readonly with: Drawn;
  isWanted(): boolean;
  drawn(): void;
}

/** Milliseconds of one turn of the event loop that go into blocks; what is left waits as plain text. */
const TURN_TIME = 30;
/** What of each text is drawn at once, in characters: what a common answer looks like does not hang on the clock. */
const FREE_SIZE = 5_000;
/** What a block costs beside its characters. */
const BLOCK_SIZE = 100;

/** Draws blocks, of all messages together, so that the page answers in between. */
class Drawing {
  #began = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #waiting: Waiting[] = [];

  add(block: Waiting): void {
    if (this.#waiting.length === 0 && this.#mayDraw()) {
      this.#draw(block);
      return;
    }
    fillPlain(block.element, block.token.raw);
    block.element.classList.add("navi-plain");
    this.#waiting.push(block);
    this.#plan();
  }

  #plan(): void {
    this.#timer ??= setTimeout(() => this.#nextTurn(), 0);
  }

  #mayDraw(): boolean {
    if (this.#timer === undefined) {
      this.#began = performance.now();
      this.#plan();
    }
    return performance.now() - this.#began < TURN_TIME;
  }

  #nextTurn(): void {
    this.#timer = undefined;
    const waiting = this.#waiting;
    this.#waiting = [];
    const drawn = new Set<() => void>();
    let next = 0;
    for (; next < waiting.length; next += 1) {
      const block = waiting[next] as Waiting;
      if (!block.isWanted()) continue;
      if (drawn.size > 0 && !this.#mayDraw()) break;
      block.element.classList.remove("navi-plain");
      this.#draw(block); // a section puts its blocks into the queue, before what comes behind it
      drawn.add(block.drawn);
    }
    this.#waiting = [...this.#waiting, ...waiting.slice(next)];
    if (this.#waiting.length) this.#plan();
    for (const redraw of drawn) redraw();
  }

  #draw(block: Waiting): void {
    if (block.token.type === "section") this.#drawSection(block);
    else draw(block.element, block.token, block.with);
  }

  #drawSection({ element, token, notes, isWanted, drawn, with: drawnWith }: Waiting): void {
    element.className = "navi-block navi-section";
    element.removeAttribute("dir");
    const blocks = blocksIn(token.raw, notes).map((block) => {
      const inner = document.createElement("div");
      inner.className = "navi-block";
      inner.dir = "auto";
      this.add({ element: inner, token: block, notes, isWanted, drawn, with: drawnWith });
      return inner;
    });
    element.replaceChildren(...blocks);
  }
}

const drawing = new Drawing();

/** Fills the element of a block. One that cannot be drawn is shown as text, and no other is affected. */
function draw(element: HTMLElement, token: Token, drawnWith: Drawn): void {
  try {
    if (token.type === "bounded") throw new RangeError("too large");
    const fragment = sanitize(marked.parser([token]), strings.remoteImage);
    frameParts(fragment, drawnWith);
    element.replaceChildren(fragment);
  } catch {
    const text = document.createElement("div");
    text.className = "navi-plain";
    fillPlain(text, token.raw);
    const note = document.createElement("small");
    note.textContent = `(${strings.shownAsText})`;
    element.replaceChildren(text, note);
  }
}

export { sanitize };
export type { CodeButtons, Pictures };
