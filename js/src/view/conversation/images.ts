/** Attachments as images: fetched once, with the headers that a plain `<img>` cannot send, and shown from memory. */

import type { Transport } from "../../connection/transport.js";
import { readPageConfig } from "../../connection/page-config.js";
import { strings } from "../lib/strings.js";

/** No SVG: it is a document, which could be opened as one. */
const SHOWN = /^image\/(?:png|jpeg|gif|webp)$/;
const MOST = 200;

export function isImage(mediaType: string): boolean {
  return SHOWN.test(mediaType);
}

export class Images {
  readonly #changed: () => void;
  readonly #elements = new Map<string, HTMLElement>();
  readonly #urls = new Map<string, Promise<string | null>>();
  #transport: Transport | null = null;

  /** `changed`: a picture has come, so that the layout is another. */
  constructor(changed: () => void) {
    this.#changed = changed;
  }

  reset(transport: Transport | null): void {
    for (const url of this.#urls.values()) void url.then((made) => made && URL.revokeObjectURL(made));
    this.#urls.clear();
    this.#elements.clear();
    this.#transport = transport;
  }

  /** The element for an attachment at one place; always the same for the same `place`. */
  show(place: string, id: string, alt: string): HTMLElement {
    const key = `${place} ${id}`;
    const known = this.#elements.get(key);
    if (known) return known;
    const frame = document.createElement("span");
    frame.className = "navi-picture";
    frame.dataset["navi"] = "picture";
    frame.dataset["attachmentId"] = id;
    this.#elements.set(key, frame);
    void this.#url(id).then((url) => {
      frame.replaceChildren(url === null ? missing(alt) : image(url, alt, this.#changed));
      this.#changed();
    });
    return frame;
  }

  /** What an image of a text refers to: an attachment, or a file below the folder of `notebook`; null: not here. */
  referred(place: string, reference: string, alt: string, notebook: string): HTMLElement | null {
    if (reference.startsWith("attachment:")) return this.show(place, reference.slice("attachment:".length), alt);
    const base = readPageConfig()?.baseUrl;
    if (!base) return null;
    const path = [...notebook.split("/").slice(0, -1), ...reference.replace(/^\.\//, "").split("/")];
    const element = image(new URL(`files/${path.map(encodeURIComponent).join("/")}`, base).href, alt, this.#changed);
    element.addEventListener("error", () => element.replaceWith(missing(alt)), { once: true });
    return element;
  }

  #url(id: string): Promise<string | null> {
    let url = this.#urls.get(id);
    if (!url) this.#urls.set(id, (url = this.#load(id)));
    if (this.#urls.size > MOST) {
      const [oldest, old] = this.#urls.entries().next().value ?? [];
      if (oldest !== undefined && oldest !== id) {
        this.#urls.delete(oldest);
        for (const [key] of this.#elements) if (key.endsWith(` ${oldest}`)) this.#elements.delete(key);
        void old?.then((made) => made && URL.revokeObjectURL(made));
      }
    }
    return url;
  }

  async #load(id: string): Promise<string | null> {
    try {
      const blob = await this.#transport?.load?.(`attachments/${encodeURIComponent(id)}`);
      return blob && SHOWN.test(blob.type) ? URL.createObjectURL(blob) : null;
    } catch {
      return null;
    }
  }
}

function image(url: string, alt: string, loaded: () => void): HTMLImageElement {
  const element = document.createElement("img");
  element.src = url;
  element.alt = alt;
  element.addEventListener("load", loaded, { once: true });
  return element;
}

function missing(alt: string): HTMLElement {
  const note = document.createElement("span");
  note.className = "navi-remote-image";
  note.textContent = `[${[alt, strings.imageMissing].filter(Boolean).join(": ")}]`;
  return note;
}
