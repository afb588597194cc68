/**
 * Markdown of messages and outputs, and HTML of outputs. The engine is a part of its own, which is loaded when the
 * first text is shown: until it is there, text is shown as it is written, and HTML not at all.
 */

import { Lazy, whenPartsLoad } from "./lazy.js";
import type { CodeButtons, MarkdownView as EngineView, Pictures } from "./markdown-engine.js";
import { fillPlain } from "./plain-text.js";

const engine = new Lazy(() => import("./markdown-engine.js"));

/** Begins to load the engine: for what knows before that it will be needed. */
export function loadMarkdown(): void {
  engine.get();
}

/** One message. */
export class MarkdownView {
  readonly #redraw: () => void;
  readonly #buttons: CodeButtons | undefined;
  readonly #pictures: Pictures | undefined;
  #view: EngineView | null = null;
  #plain: HTMLElement | null = null;

  constructor(redraw: () => void, buttons?: CodeButtons, pictures?: Pictures) {
    this.#redraw = redraw;
    this.#buttons = buttons;
    this.#pictures = pictures;
  }

  /** The elements that show `text`, in order. The same elements as before where the source is the same. */
  update(text: string, streams: boolean): readonly HTMLElement[] {
    const loaded = this.#view === null ? engine.get() : null;
    if (loaded) this.#view = new loaded.MarkdownView(this.#redraw, this.#buttons, this.#pictures);
    if (this.#view) return this.#view.update(text, streams);
    this.#plain ??= document.createElement("div");
    this.#plain.className = "navi-block navi-plain";
    this.#plain.dir = "auto";
    fillPlain(this.#plain, text);
    return [this.#plain];
  }

  /** Everything is made anew at the next update (link definitions and formulas may have arrived since). */
  invalidate(): void {
    this.#view?.invalidate();
  }
}

/** A text that does not change, as one element. */
export function markdownBlock(text: string): HTMLElement {
  const element = document.createElement("div");
  element.className = "navi-markdown";
  const view = new MarkdownView(() => {});
  const fill = (): void => element.replaceChildren(...view.update(text, false));
  fill();
  const ignore = whenPartsLoad(() => {
    view.invalidate();
    fill();
    if (engine.get() && !element.isConnected) ignore();
  });
  return element;
}

/** Fills `element` with HTML of others, made safe, as soon as that can be done; `filled` is called then. */
export function fillSafely(element: Element, markup: string, note: string, filled = (): void => {}): void {
  const ignore = whenPartsLoad(() => fill());
  const fill = (): void => {
    const loaded = engine.get();
    if (!loaded) return;
    ignore();
    element.replaceChildren(loaded.sanitize(markup, note));
    filled();
  };
  fill();
}
