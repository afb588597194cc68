/** The files that will go with the next message: uploaded as soon as they are chosen, shown above the text. */

import { html, nothing, type TemplateResult } from "lit";
import { repeat } from "lit/directives/repeat.js";
import { isOk, type Transport } from "../../connection/transport.js";
import { isObject } from "../../protocol/frames.js";
import type { AttachmentRef } from "../../protocol/generated.js";
import { icons } from "../lib/icons.js";
import { sizeText } from "../lib/numbers.js";
import type { Attached } from "../../state/model.js";
import { isImage } from "../conversation/images.js";
import { strings } from "../lib/strings.js";

/** The servers' default limits. A server may be configured otherwise; it decides. */
const LARGEST = 20 * 1024 * 1024;
/** Through a kernel the content travels in the message itself, which is bounded. */
const LARGEST_INLINE = 256 * 1024;
const MOST = 20;
/** Which of the server's files go as images; the server looks at what is in them. */
const IMAGE_NAME = /\.(?:gif|jpe?g|png|webp)$/i;

interface Entry {
  readonly key: number;
  readonly name: string;
  readonly mediaType: string;
  /** Null where it is not known: of a file on the server. */
  readonly size: number | null;
  /** Of the picture that is shown; null for other files. */
  readonly preview: string | null;
  /** Null while it is on its way. */
  readonly ref: AttachmentRef | null;
}

export interface Attachments {
  readonly images: readonly AttachmentRef[];
  readonly files: readonly AttachmentRef[];
}

export interface AttachmentListActions {
  transport(): Transport | null;
  problem(text: string): void;
  changed(): void;
}

export class AttachmentList {
  readonly #actions: AttachmentListActions;
  #entries: readonly Entry[] = [];
  #count = 0;

  constructor(actions: AttachmentListActions) {
    this.#actions = actions;
  }

  get isEmpty(): boolean {
    return this.#entries.length === 0;
  }

  get isBusy(): boolean {
    return this.#entries.some(({ ref }) => ref === null);
  }

  /** Takes what is there out, for a message. */
  take(): Attachments {
    const [images, files]: [AttachmentRef[], AttachmentRef[]] = [[], []];
    for (const { ref, mediaType } of this.#entries) if (ref) (isImage(mediaType) ? images : files).push(ref);
    this.clear();
    return { images, files };
  }

  clear(): void {
    for (const { preview } of this.#entries) if (preview) URL.revokeObjectURL(preview);
    this.#entries = [];
    this.#actions.changed();
  }

  add(files: Iterable<File>): void {
    for (const file of files) {
      const problem = this.#refusal(file);
      if (problem !== null) this.#actions.problem(problem);
      else void this.#upload(file);
    }
  }

  /** Files that the server has already: those of an earlier message. */
  addStored(attached: readonly Attached[]): void {
    const stored = attached.map(({ id, name, mediaType, size }): Entry => ({ key: (this.#count += 1), name, mediaType, size, preview: null, ref: { id } }));
    this.#entries = [...this.#entries, ...stored];
    this.#actions.changed();
  }

  /** Files on the server, by their paths from its folder: read when the message is sent. */
  addPaths(paths: readonly string[]): void {
    const room = MOST - this.#entries.length;
    if (paths.length > room) this.#actions.problem(strings.tooMany(MOST));
    const entries = paths.slice(0, room).map((path): Entry => ({ key: (this.#count += 1), name: path.slice(path.lastIndexOf("/") + 1), mediaType: IMAGE_NAME.test(path) ? "image/png" : "", size: null, preview: null, ref: { path } }));
    this.#entries = [...this.#entries, ...entries];
    this.#actions.changed();
  }

  render(): TemplateResult | typeof nothing {
    if (this.isEmpty) return nothing;
    return html`<ul class="navi-tray" data-navi="tray" aria-label=${strings.attachments}>
      ${repeat(this.#entries, ({ key }) => key, (entry) => this.#chip(entry))}
    </ul>`;
  }

  #chip(entry: Entry): TemplateResult {
    const { key, name, preview, ref, size } = entry;
    return html`<li class="navi-chip" data-navi="attachment" data-status=${ref ? "ready" : "uploading"} title=${ref?.path ?? name}>
      ${preview ? html`<img src=${preview} alt="" />` : icons.file}
      <span class="navi-chip-name" dir="auto">${name}</span>
      ${ref && size === null ? nothing : html`<span class="navi-chip-size">${ref && size !== null ? sizeText(size) : strings.uploading}</span>`}
      <button
        type="button"
        class="navi-icon-button"
        data-navi="attachment-remove"
        aria-label=${strings.removeAttachment(name)}
        title=${strings.removeAttachment(name)}
        @click=${() => this.#remove(key)}
      >
        ${icons.close}
      </button>
    </li>`;
  }

  get #largest(): number {
    return this.#actions.transport()?.kind === "comm" ? LARGEST_INLINE : LARGEST;
  }

  #refusal({ name, size }: File): string | null {
    if (this.#entries.length >= MOST) return strings.tooMany(MOST);
    if (size === 0) return strings.emptyFile(name); // a folder has no size either
    if (size <= this.#largest) return null;
    const say = this.#largest === LARGEST ? strings.tooLarge : strings.tooLargeForKernel;
    return say(name, sizeText(this.#largest));
  }

  async #upload(file: File): Promise<void> {
    const key = (this.#count += 1);
    const name = file.name || "image.png"; // what is pasted may have no name
    const preview = isImage(file.type) ? URL.createObjectURL(file) : null;
    this.#entries = [...this.#entries, { key, name, mediaType: file.type, size: file.size, preview, ref: null }];
    this.#actions.changed();
    const problem = await this.#store(key, name, file).catch(() => strings.noServer);
    if (problem === null || !this.#entries.some((entry) => entry.key === key)) return;
    this.#remove(key);
    this.#actions.problem(strings.notUploaded(name, problem));
  }

  /** Answers what was wrong, or null. */
  async #store(key: number, name: string, file: File): Promise<string | null> {
    const transport = this.#actions.transport();
    if (!transport) return strings.noServer;
    if (transport.kind === "comm" || !transport.upload) {
      const data = await base64(file);
      this.#set(key, { ref: { data, name, ...(file.type ? { media_type: file.type } : {}) } });
      return null;
    }
    const answer = await transport.upload(`attachments?name=${encodeURIComponent(name)}`, file);
    const { body } = answer;
    if (!isOk(answer) || !isObject(body) || typeof body["id"] !== "string") {
      return isObject(body) && typeof body["message"] === "string" ? body["message"] : `HTTP ${answer.status}`;
    }
    // The server says what it is, by its content.
    const mediaType = typeof body["media_type"] === "string" ? body["media_type"] : file.type;
    this.#set(key, { ref: { id: body["id"] }, mediaType });
    return null;
  }

  #set(key: number, change: Partial<Entry>): void {
    this.#entries = this.#entries.map((entry) => (entry.key === key ? { ...entry, ...change } : entry));
    this.#actions.changed();
  }

  #remove(key: number): void {
    const entry = this.#entries.find((one) => one.key === key);
    if (entry?.preview) URL.revokeObjectURL(entry.preview);
    this.#entries = this.#entries.filter((one) => one.key !== key);
    this.#actions.changed();
  }
}

function base64(file: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).replace(/^[^,]*,/, "")); // a data URL
    reader.onerror = () => reject(reader.error ?? new Error("unreadable"));
    reader.readAsDataURL(file);
  });
}
