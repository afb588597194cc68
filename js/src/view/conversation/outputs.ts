/**
 * The outputs of a tool as DOM. While they stream, only what is new is made: an output that is the same object as before
 * keeps its element, and text of one stream is written on into one element.
 */

import { isObject } from "../../protocol/frames.js";
import { fillSafely, markdownBlock } from "../lib/markdown.js";
import type { Images } from "./images.js";
import { strings } from "../lib/strings.js";
import { alignNumbers } from "../lib/tables.js";
import { TerminalText } from "./terminal.js";

type Fields = Readonly<Record<string, unknown>>;

/** So many elements are in the document; those before them are dropped. */
const MOST = 60;
const LONGEST_HTML = 200_000;
const EMBEDDED = ["image/png", "image/jpeg", "image/gif", "image/webp"];

interface Block {
  /** `stream:stdout`, `stream:stderr`; null for what is not written on. */
  readonly stream: string | null;
  readonly element: HTMLElement;
  readonly text: TerminalText | null;
}

export class OutputView {
  readonly element = document.createElement("div");
  readonly #pictures: Images;
  readonly #place: string;
  readonly #name: string;
  #outputs: readonly unknown[] = [];
  #blocks: Block[] = [];
  #dropped = 0;
  #note: HTMLElement | null = null;
  #toggle: HTMLButtonElement | null = null;
  #wasAtEnd = true;
  readonly #body = document.createElement("div");

  constructor(place: string, name: string, pictures: Images) {
    this.#place = place;
    this.#name = name;
    this.#pictures = pictures;
    this.element.className = "navi-outputs";
    this.element.dataset["navi"] = "outputs";
    this.#body.className = "navi-outputs-body";
    this.element.append(this.#body);
    this.#body.addEventListener("scroll", () => (this.#wasAtEnd = isAtEnd(this.#body)), { passive: true });
    this.#body.addEventListener("load", () => this.#settle(), true); // of its pictures
  }

  update(outputs: readonly unknown[]): HTMLElement {
    if (outputs === this.#outputs) return this.element;
    const same = outputs.length >= this.#outputs.length && this.#outputs.every((output, index) => output === outputs[index]);
    if (!same) this.#clear();
    for (const output of outputs.slice(this.#outputs.length)) this.#add(output);
    this.#outputs = outputs;
    this.#bound();
    this.element.hidden = this.#blocks.length === 0;
    queueMicrotask(() => this.#settle());
    return this.element;
  }

  #clear(): void {
    this.#outputs = [];
    this.#blocks = [];
    this.#dropped = 0;
    this.#note = null;
    this.#body.replaceChildren();
  }

  #add(output: unknown): void {
    if (!isObject(output)) return;
    if (output["output_type"] === "stream") {
      const stream = `stream:${output["name"] === "stderr" ? "stderr" : "stdout"}`;
      this.#stream(stream).write(joined(output["text"]));
      return;
    }
    const element = output["output_type"] === "error" ? this.#error(output) : this.#data(output);
    if (element) this.#append({ stream: null, element, text: null });
  }

  #stream(stream: string): TerminalText {
    const last = this.#blocks.at(-1);
    if (last?.stream === stream && last.text) return last.text;
    const text = new TerminalText(stream === "stream:stderr" ? "navi-stderr" : "navi-stdout", strings.toolOutput(this.#name));
    this.#append({ stream, element: text.element, text });
    return text;
  }

  #append(block: Block): void {
    this.#blocks.push(block);
    this.#body.append(block.element);
  }

  #error(output: Fields): HTMLElement {
    const text = new TerminalText("navi-stderr navi-traceback", strings.toolOutput(this.#name));
    const { traceback } = output;
    const summary = `${joined(output["ename"])}: ${joined(output["evalue"])}`;
    const lines = Array.isArray(traceback) ? traceback.map(joined).join("\n") : "";
    text.write(lines || summary);
    return text.element;
  }

  #data(output: Fields): HTMLElement | null {
    const data = isObject(output["data"]) ? output["data"] : {};
    for (const type of EMBEDDED) if (type in data) return this.#image(type, data[type], joined(data["text/plain"]));
    if ("text/html" in data) return rich(joined(data["text/html"]).slice(0, LONGEST_HTML));
    if ("text/markdown" in data) return markdownBlock(joined(data["text/markdown"]));
    const svg = data["image/svg+xml"];
    if (svg !== undefined && !("text/plain" in data)) return this.#image("image/svg+xml", svg, "");
    const shown = "text/plain" in data ? joined(data["text/plain"]) : "application/json" in data ? JSON.stringify(data["application/json"], null, 2) : null;
    if (shown === null) return null;
    const text = new TerminalText("navi-stdout", strings.toolOutput(this.#name));
    text.write(shown);
    return text.element;
  }

  #image(type: string, value: unknown, alt: string): HTMLElement {
    const name = alt.slice(0, 100) || strings.image;
    const frame = document.createElement("div");
    frame.className = "navi-output-image";
    if (isObject(value) && typeof value["attachment"] === "string") {
      frame.append(this.#pictures.show(this.#place, value["attachment"], name));
    } else if (type !== "image/svg+xml" && /^[A-Za-z0-9+/=\s]+$/.test(joined(value))) {
      const image = document.createElement("img");
      image.src = `data:${type};base64,${joined(value).replaceAll(/\s/g, "")}`;
      image.alt = name;
      frame.append(image);
    } else {
      frame.textContent = `[${name}]`;
    }
    return frame;
  }

  #bound(): void {
    const extra = this.#blocks.length - MOST;
    if (extra <= 0) return;
    for (const { element } of this.#blocks.splice(0, extra)) element.remove();
    this.#dropped += extra;
    if (!this.#note) {
      this.#note = document.createElement("p");
      this.#note.className = "navi-cut";
      this.#body.prepend(this.#note);
    }
    this.#note.textContent = strings.outputsCut(this.#dropped);
  }

  /** After drawing: keeps the end in sight, and offers to show all of what does not fit. */
  #settle(): void {
    const body = this.#body;
    const isOpen = this.element.classList.contains("navi-outputs-open");
    if (this.#wasAtEnd && !isOpen) body.scrollTop = body.scrollHeight;
    // Beside a figure, which is whole, a long text has the bound that else the body has.
    const isCut = [body, ...body.children].some(({ scrollHeight, clientHeight }) => scrollHeight > clientHeight + 4);
    const overflows = isOpen || isCut || hasShrunk(body);
    if (overflows && !this.#toggle) this.element.append((this.#toggle = this.#newToggle()));
    if (this.#toggle) this.#toggle.hidden = !overflows;
  }

  #newToggle(): HTMLButtonElement {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "navi-link navi-more";
    button.dataset["navi"] = "outputs-toggle";
    const say = (isOpen: boolean): void => {
      button.textContent = isOpen ? strings.showLess : strings.showAll;
      button.setAttribute("aria-expanded", String(isOpen));
    };
    say(false);
    button.addEventListener("click", () => say(this.element.classList.toggle("navi-outputs-open")));
    return button;
  }
}

function isAtEnd({ scrollTop, scrollHeight, clientHeight }: HTMLElement): boolean {
  return scrollHeight - scrollTop - clientHeight < 24;
}

/** Whether a picture is shown smaller than there would be room for. */
function hasShrunk(body: HTMLElement): boolean {
  return [...body.querySelectorAll("img")].some((image) => image.clientWidth > 0 && image.clientWidth + 4 < Math.min(image.naturalWidth, body.clientWidth));
}

function rich(markup: string): HTMLElement {
  const frame = document.createElement("div");
  frame.className = "navi-markdown navi-output-html";
  frame.tabIndex = 0;
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", strings.toolResult);
  fillSafely(frame, markup, strings.remoteImage, () => {
    for (const header of frame.querySelectorAll("th:empty")) header.replaceWith(document.createElement("td")); // pandas' corner
    for (const table of frame.querySelectorAll("table")) alignNumbers(table);
  });
  return frame;
}

/** nbformat's multi-line strings. */
function joined(text: unknown): string {
  if (typeof text === "string") return text;
  return Array.isArray(text) ? text.map((part) => (typeof part === "string" ? part : "")).join("") : "";
}
