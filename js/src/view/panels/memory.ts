/** What is remembered about the user: listed, added, changed, forgotten. */

import { html, nothing, type TemplateResult } from "lit";
import { repeat } from "lit/directives/repeat.js";
import type { Method } from "../../connection/transport.js";
import { isObject } from "../../protocol/frames.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";

interface Fact {
  readonly id: string;
  readonly text: string;
  readonly source: string;
}

export interface MemoryActions {
  /** The body of the answer; null when the request failed; the failure is shown. */
  request(method: Method, path: string, body?: unknown): Promise<unknown>;
  session(): string | null;
  redraw(): void;
}

const PAGE = 50;

export class MemoryList {
  readonly #actions: MemoryActions;
  #facts: readonly Fact[] | null = null;
  #next: string | null = null;
  #editing: string | null = null;

  constructor(actions: MemoryActions) {
    this.#actions = actions;
  }

  reset(): void {
    this.#facts = this.#next = this.#editing = null;
  }

  async load(more = false): Promise<void> {
    const cursor = more && this.#next ? `&cursor=${encodeURIComponent(this.#next)}` : "";
    const page = await this.#actions.request("GET", `memory?limit=${PAGE}${cursor}`);
    if (!isObject(page) || !Array.isArray(page["memory"])) return;
    const facts = page["memory"].filter(isObject).map(({ id, text, source }) => ({ id: String(id), text: String(text), source: String(source) }));
    this.#facts = more ? [...(this.#facts ?? []), ...facts] : facts;
    this.#next = typeof page["next"] === "string" ? page["next"] : null;
    this.#actions.redraw();
  }

  render(): TemplateResult {
    const facts = this.#facts;
    return html`<section aria-label=${strings.memory} data-navi="memory">
      <h3>${strings.memory} <small>${strings.memoryHint}</small></h3>
      ${facts === null
        ? html`<p class="navi-none navi-late">${strings.loading}</p>`
        : facts.length
          ? html`<ul class="navi-facts">${repeat(facts, ({ id }) => id, (fact) => this.#row(fact))}</ul>`
          : html`<p class="navi-none">${strings.memoryNone}</p>`}
      ${this.#next ? html`<button type="button" class="navi-link" @click=${() => void this.load(true)}>${strings.more}</button>` : nothing}
      ${form("memory-new", strings.memoryNew, "", strings.memoryAdd, (text) => this.#add(text))}
    </section>`;
  }

  #row(fact: Fact): TemplateResult {
    const { id, text, source } = fact;
    if (this.#editing === id) {
      return html`<li data-navi="fact" data-fact-id=${id}>${form("fact-input", strings.memoryEdit(text), text, strings.save, (changed) => this.#change(fact, changed))}</li>`;
    }
    const button = (name: string, label: string, icon: TemplateResult, act: () => void): TemplateResult =>
      html`<button type="button" class="navi-icon-button" data-navi=${name} aria-label=${label} title=${label} @click=${act}>${icon}</button>`;
    return html`<li data-navi="fact" data-fact-id=${id}>
      <span class="navi-text" dir="auto" lang="">${text}</span>
      ${source === "agent" ? html`<small>${strings.memoryByAgent}</small>` : nothing}
      ${button("fact-edit", strings.memoryEdit(text), icons.edit, () => this.#edit(id))}
      ${button("fact-forget", strings.memoryForget(text), icons.close, () => void this.#forget(id))}
    </li>`;
  }

  async #add(text: string): Promise<boolean> {
    const session = this.#actions.session();
    const done = await this.#actions.request("POST", "memory", { text, ...(session ? { session_id: session } : {}) });
    if (done !== null) await this.load();
    return done !== null;
  }

  async #change({ id, text: old }: Fact, text: string): Promise<boolean> {
    this.#edit(null);
    if (text === old) return true;
    const done = await this.#actions.request("PATCH", `memory/${encodeURIComponent(id)}`, { text });
    if (done !== null) await this.load();
    return done !== null;
  }

  async #forget(id: string): Promise<void> {
    if ((await this.#actions.request("DELETE", `memory/${encodeURIComponent(id)}`)) === null) return;
    this.#facts = this.#facts?.filter((fact) => fact.id !== id) ?? null;
    this.#actions.redraw();
  }

  #edit(id: string | null): void {
    this.#editing = id;
    this.#actions.redraw();
  }
}

function form(name: string, label: string, text: string, action: string, act: (text: string) => Promise<boolean>): TemplateResult {
  const submit = (event: Event): void => {
    event.preventDefault();
    const input = (event.currentTarget as HTMLFormElement).querySelector("input");
    const value = input?.value.trim() ?? "";
    if (!value) return;
    void act(value).then((isDone) => {
      if (isDone && input && text === "") input.value = "";
    });
  };
  return html`<form class="navi-typed" @submit=${submit}>
    <input type="text" data-navi=${name} maxlength="4000" autocomplete="off" dir="auto" aria-label=${label} placeholder=${label} .value=${text} />
    <button type="submit" class="navi-button">${action}</button>
  </form>`;
}
