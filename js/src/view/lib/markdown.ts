/**
 * Markdown of one message as DOM, block by block: while a message streams, only the blocks that changed (nearly always
 * the last one) are made anew, so the rest keeps its nodes, its selection and its scroll positions.
 */

import { Marked, type Token, type Tokens } from "marked";
import { escapeHtml, highlight } from "./highlight.js";
import { mathExtension } from "./math.js";
import { sanitize } from "./sanitize.js";
import { strings } from "./strings.js";

const marked = new Marked({ gfm: true, breaks: false }, mathExtension, {
  renderer: {
    code({ text, lang }: Tokens.Code) {
      const language = lang?.split(/\s/)[0]?.toLowerCase() ?? "";
      const name = language ? ` class="language-${escapeHtml(language)}"` : "";
      return `<pre class="navi-code"><code${name}>${highlight(text, language)}</code></pre>`;
    },
    checkbox: ({ checked }: Tokens.Checkbox) => `<span class="navi-task">${checked ? "☑" : "☐"}</span> `,
  },
});

interface Block {
  readonly raw: string;
  readonly element: HTMLElement;
}

/** When reading a streaming text took this many milliseconds, it is read less often. */
const COSTLY = 8;

export class MarkdownView {
  readonly #redraw: () => void;
  #text: string | null = null;
  #blocks: readonly Block[] = [];
  /** What the last reading took, and when it was done. */
  #cost = 0;
  #doneAt = 0;
  #later: ReturnType<typeof setTimeout> | undefined;

  constructor(redraw: () => void) {
    this.#redraw = redraw;
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
    this.#blocks = marked
      .lexer(text)
      .filter((token) => token.type !== "space" && token.type !== "def")
      .map((token, index) => {
        const old = this.#blocks[index];
        return old?.raw === token.raw ? old : { raw: token.raw, element: render(token) };
      });
  }

  /** Everything is made anew at the next update (link definitions and formulas may have arrived since). */
  invalidate(): void {
    this.#text = null;
    this.#blocks = [];
  }
}

function render(token: Token): HTMLElement {
  const element = document.createElement("div");
  element.className = "navi-block";
  element.append(sanitize(marked.parser([token]), strings.remoteImage));
  for (const pre of element.querySelectorAll<HTMLPreElement>("pre")) frameCode(pre);
  for (const table of element.querySelectorAll("table")) wrap(table, "navi-table");
  return element;
}

/** Puts the language and a copy button above a code block. */
function frameCode(pre: HTMLPreElement): void {
  const code = pre.querySelector("code");
  const language = [...(code?.classList ?? [])].find((name) => name.startsWith("language-"))?.slice(9) ?? "";
  const frame = wrap(pre, "navi-code-frame");
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
  bar.append(label, copy);
  frame.prepend(bar);
  pre.tabIndex = 0; // wide code scrolls, by keyboard too
}

function wrap(element: Element, className: string): HTMLElement {
  const frame = document.createElement("div");
  frame.className = className;
  element.replaceWith(frame);
  frame.append(element);
  return frame;
}

/** A text that does not change, as one element. */
export function markdownBlock(text: string): HTMLElement {
  const element = document.createElement("div");
  element.className = "navi-markdown";
  element.append(...new MarkdownView(() => {}).update(text, false));
  return element;
}
