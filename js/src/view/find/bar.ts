/**
 * The bar of the search in one session: what is looked for, where it was found, and the way from place to place. The
 * server searches the whole conversation; what is not in the page is read on the way there.
 *
 * Keys in its field: Enter goes to the place before, Shift+Enter to the one after, Escape closes.
 */

import { html, nothing, type TemplateResult } from "lit";
import { ref } from "lit/directives/ref.js";
import { isObject } from "../../protocol/frames.js";
import type { HitPage, SearchHit } from "../../protocol/generated.js";
import type { ChatContext } from "../features.js";
import { icons } from "../lib/icons.js";
import { keepKey } from "../lib/keyboard-guard.js";
import { countText } from "../lib/numbers.js";
import { strings } from "../lib/strings.js";
import { ask } from "../recalls/requests.js";
import css from "../../style/find.css";
import { addStyle } from "../../style/install.js";

addStyle(css);

/** After the last key, before the server is asked. Milliseconds. */
const PAUSE = 250;
const PAGE = 100;

export class FindBar {
  readonly #chat: ChatContext;
  readonly #leave: () => void;
  #query = "";
  /** The newest first; null: not known yet. */
  #hits: readonly SearchHit[] | null = null;
  #next: string | null = null;
  #isComplete = true;
  #at = 0;
  /** Grows with each question to the server, so that an answer that comes late is dropped. */
  #asked = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #input: HTMLInputElement | null = null;

  constructor(chat: ChatContext, leave: () => void) {
    this.#chat = chat;
    this.#leave = leave;
  }

  focus(): void {
    this.#input?.select();
    this.#input?.focus();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#asked += 1;
    this.#query = "";
    this.#hits = this.#next = this.#input = null;
    this.#chat.places.forget();
  }

  render(): TemplateResult {
    const { length } = this.#hits ?? [];
    const button = (name: string, icon: TemplateResult, label: string, isOff: boolean, press: () => void): TemplateResult =>
      html`<button type="button" class="navi-icon-button" data-navi=${name} aria-label=${label} title=${label} ?disabled=${isOff} @click=${press}>${icon}</button>`;
    return html`<div class="navi-find" role="search" aria-label=${strings.find} data-navi="find" @keydown=${this.#keydown}>
      <input type="search" data-navi="find-input" maxlength="400" autocomplete="off" dir="auto" aria-label=${strings.find} placeholder=${strings.find} ${ref(this.#appeared)} @input=${this.#typed} />
      <span class="navi-find-place" role="status" data-navi="find-place">${this.#place()}</span>
      ${button("find-older", icons.up, strings.findOlder, !length || this.#at >= length - 1, () => void this.#go(1))}
      ${button("find-newer", icons.down, strings.findNewer, !length || this.#at === 0, () => void this.#go(-1))}
      ${button("find-close", icons.close, strings.findClose, false, this.#leave)}
      ${this.#isComplete || !this.#query ? nothing : html`<p class="navi-find-note">${strings.sessionsIncomplete}</p>`}
    </div>`;
  }

  #place(): string {
    if (this.#query === "") return "";
    if (this.#hits === null) return strings.findLooking;
    const { length } = this.#hits;
    if (length === 0) return strings.findNone;
    const [at, count] = [countText(this.#at + 1), countText(length)];
    return this.#next === null ? strings.findPlace(at, count) : strings.findPlaceOfMore(at, count);
  }

  /** The keyboard goes where the bar has opened. The element is not in the document yet. */
  readonly #appeared = (element?: Element): void => {
    if (!(element instanceof HTMLInputElement) || element === this.#input) return;
    this.#input = element;
    setTimeout(() => this.#input?.focus());
  };

  readonly #typed = (event: Event): void => {
    const query = (event.currentTarget as HTMLInputElement).value;
    this.#asked += 1;
    this.#query = query.trim() === "" ? "" : query;
    this.#hits = this.#next = null;
    clearTimeout(this.#timer);
    if (this.#query) this.#timer = setTimeout(() => void this.#search(), PAUSE);
    else this.#chat.places.forget();
    this.#chat.redraw();
  };

  readonly #keydown = (event: KeyboardEvent): void => {
    keepKey(event);
    if (event.isComposing) return;
    if (event.key === "Escape") this.#leave();
    else if (event.key === "Enter" && event.target === this.#input) void this.#go(event.shiftKey ? -1 : 1);
    else return;
    event.preventDefault();
  };

  async #search(): Promise<void> {
    const asked = ++this.#asked;
    const page = await this.#read(null);
    if (asked !== this.#asked || page === null) return;
    this.#hits = page.hits.filter(({ message_id: id }) => id !== null);
    this.#next = page.next;
    this.#isComplete = page.complete;
    this.#at = 0;
    this.#chat.redraw();
    if (this.#hits.length) await this.#show();
    else this.#chat.places.forget();
  }

  async #read(cursor: string | null): Promise<HitPage | null> {
    const parameters = new URLSearchParams({ query: this.#query, limit: String(PAGE), ...(cursor ? { cursor } : {}) });
    const page = await ask(this.#chat, "GET", `sessions/${encodeURIComponent(this.#chat.session() ?? "")}/search?${parameters}`);
    return isObject(page) && Array.isArray(page["hits"]) ? (page as unknown as HitPage) : null;
  }

  /** To a place that is older, or newer by a negative number. */
  async #go(steps: number): Promise<void> {
    if (this.#hits === null) return;
    const at = this.#at + steps;
    if (at < 0 || at >= this.#hits.length) return;
    this.#at = at;
    this.#chat.redraw();
    // The next ones are known before they are asked for.
    if (at >= this.#hits.length - 2 && this.#next !== null) void this.#readOn(this.#next);
    await this.#show();
  }

  async #readOn(cursor: string): Promise<void> {
    const asked = this.#asked;
    this.#next = null;
    const page = await this.#read(cursor);
    if (asked !== this.#asked || page === null || this.#hits === null) return;
    this.#hits = [...this.#hits, ...page.hits.filter(({ message_id: id }) => id !== null)];
    this.#next = page.next;
    this.#chat.redraw();
  }

  async #show(): Promise<void> {
    const hit = this.#hits?.[this.#at];
    if (!hit) return;
    const words = hit.snippet.filter(({ match }) => match).map(({ text }) => text);
    await this.#chat.places.showMessage({ runId: hit.run_id, messageId: hit.message_id, words }, false);
  }
}
