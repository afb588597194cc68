/**
 * Marks in a message what a search has found there: the message by an attribute, the words by the browser's own
 * highlights, which change nothing of what is in the document. A browser without these shows the message alone.
 */

const NAME = "navi-found";
const FOUND = "data-found";

/** What is marked now, of all chats of the page: one search at a time. */
let shown: FoundWords | null = null;

export class FoundWords {
  #message: HTMLElement | null = null;
  #words: readonly string[] = [];
  /** A message may be drawn again: when its code is coloured, or its formulas are there. */
  readonly #observer = new MutationObserver(() => this.#mark());

  show(message: HTMLElement, words: readonly string[]): void {
    shown?.clear();
    shown = this;
    this.#message = message;
    this.#words = words;
    message.setAttribute(FOUND, "");
    this.#observer.observe(message, { childList: true, characterData: true, subtree: true });
    this.#mark();
  }

  clear(): void {
    if (shown !== this) return;
    shown = null;
    this.#observer.disconnect();
    this.#message?.removeAttribute(FOUND);
    this.#message = null;
    if (typeof Highlight !== "undefined") CSS.highlights.delete(NAME);
  }

  #mark(): void {
    if (this.#message === null || typeof Highlight === "undefined") return;
    CSS.highlights.set(NAME, new Highlight(...rangesOf(this.#message, this.#words)));
  }
}

/** Where the words stand in the text of an element, whatever their letters' case; a word may be part of another one. */
export function rangesOf(element: Element, words: readonly string[]): readonly Range[] {
  const wanted = [...new Set(words.map((word) => word.toLowerCase()).filter((word) => word.trim() !== ""))];
  const ranges: Range[] = [];
  const walker = element.ownerDocument.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.parentElement?.closest("button, .navi-hidden")) continue;
    const text = (node.nodeValue ?? "").toLowerCase();
    // Where lower case has another length (as of the Turkish İ), places in it are not those of the text.
    if (text.length !== node.nodeValue?.length) continue;
    for (const word of wanted) {
      for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
        const range = new Range();
        range.setStart(node, at);
        range.setEnd(node, at + word.length);
        ranges.push(range);
      }
    }
  }
  return ranges;
}
