/**
 * The list of suggestions above the composer: what is being written at the caret can be completed from it, by keyboard or
 * mouse, without the focus leaving the text.
 */

import { html, nothing, type TemplateResult } from "lit";
import { ref } from "lit/directives/ref.js";
import { repeat } from "lit/directives/repeat.js";
import { fitAbove } from "../lib/scroll.js";
import { strings } from "../lib/strings.js";
import { completed, fits, triggerAt, type Trigger } from "./triggers.js";

export interface Suggestion {
  /** What stands in the text then. */
  readonly token: string;
  readonly label: string;
  readonly detail: string;
  /** What it is, in a word. */
  readonly kind: string;
}

export interface Suggestions {
  readonly options: readonly Suggestion[];
  /** What could not be looked at, and why. */
  readonly notes: readonly string[];
}

export interface CompletionActions {
  suggestions(trigger: Trigger): Promise<Suggestions>;
  /** The text of the input is another. */
  changed(): void;
  redraw(): void;
}

/** After the last key, before the server is asked. Milliseconds. */
const PAUSE = 90;
const NONE: Suggestions = { options: [], notes: [] };

let lists = 0;

export class Completion {
  readonly #actions: CompletionActions;
  readonly #id = `navi-completion-${(lists += 1)}`;
  #trigger: Trigger | null = null;
  #found: Suggestions = NONE;
  #isLoading = false;
  #active = 0;
  /** Where the token begins for which the list was closed; -1: for none. */
  #dismissed = -1;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(actions: CompletionActions) {
    this.#actions = actions;
  }

  get isOpen(): boolean {
    return this.#trigger !== null && this.#found.options.length > 0;
  }

  /** The id of the list, while it is there; of the option that Enter takes. */
  get listId(): string | null {
    return this.isOpen ? this.#id : null;
  }

  get activeId(): string | null {
    return this.isOpen ? `${this.#id}-${this.#active}` : null;
  }

  /** The text or the caret is another. */
  update(input: HTMLTextAreaElement): void {
    const isCaret = input.selectionStart === input.selectionEnd;
    const trigger = isCaret ? triggerAt(input.value, input.selectionStart) : null;
    if (trigger === null || trigger.start !== this.#dismissed) this.#dismissed = -1;
    if (trigger === null || this.#dismissed >= 0) return this.close();
    const before = this.#trigger;
    if (before && before.kind === trigger.kind && before.start === trigger.start && before.query === trigger.query) return;
    const isSame = before?.kind === trigger.kind && before.start === trigger.start;
    // What was found for less of it, as far as it still fits: Enter must not take what no longer does.
    this.#found = isSame ? { ...this.#found, options: this.#found.options.filter(({ token }) => fits(trigger.query, token)) } : NONE;
    this.#active = 0;
    this.#trigger = trigger;
    this.#isLoading = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#look(trigger), PAUSE);
    this.#actions.redraw();
  }

  close(): void {
    clearTimeout(this.#timer);
    if (this.#trigger === null) return;
    this.#trigger = null;
    this.#found = NONE;
    this.#isLoading = false;
    this.#actions.redraw();
  }

  /** Whether the key was for the list. */
  keydown(event: KeyboardEvent): boolean {
    if (!this.isOpen || this.#trigger === null) return false;
    const input = event.currentTarget as HTMLTextAreaElement;
    const { length } = this.#found.options;
    switch (event.key) {
      case "ArrowDown":
      case "ArrowUp":
        if (event.shiftKey || event.altKey || event.ctrlKey || event.metaKey) return false;
        this.#activate((this.#active + (event.key === "ArrowDown" ? 1 : length - 1)) % length);
        break;
      case "Enter":
      case "Tab":
        if (event.shiftKey || event.altKey || event.ctrlKey || event.metaKey) return false;
        if (event.key === "Enter" && this.#isWritten()) {
          this.close();
          return false; // it is sent
        }
        this.#choose(this.#active, input);
        break;
      case "Escape":
        this.#dismissed = this.#trigger.start;
        this.close();
        break;
      default:
        return false;
    }
    event.preventDefault();
    event.stopPropagation();
    return true;
  }

  render(): TemplateResult {
    const { options, notes } = this.#found;
    const isShown = this.#trigger !== null && (options.length > 0 || notes.length > 0);
    // It scrolls, so that it can have the focus: the key Tab takes a suggestion, and does not lead there.
    return html`<div class="navi-completion" data-navi="suggestions" tabindex="0" ?hidden=${!isShown} ${ref(isShown ? fitAbove : undefined)}>
        <ul role="listbox" id=${this.#id} aria-label=${strings.suggestionList} ?hidden=${!options.length}>
          ${repeat(options, ({ token, kind }) => `${kind} ${token}`, (option, index) => this.#option(option, index))}
        </ul>
        ${isShown ? notes.map((note) => html`<p class="navi-suggestion-note" dir="auto">${note}</p>`) : nothing}
      </div>
      <div class="navi-hidden" role="status" data-navi="suggestion-count">${this.#spoken()}</div>`;
  }

  #option({ label, detail, kind }: Suggestion, index: number): TemplateResult {
    return html`<li
      role="option"
      id=${`${this.#id}-${index}`}
      data-navi="suggestion"
      aria-selected=${index === this.#active ? "true" : "false"}
      @pointerdown=${keepFocus}
      @click=${this.#clicked}
    >
      <span class="navi-suggestion-label" dir="auto">${label}</span>
      <span class="navi-suggestion-detail" dir="auto">${detail}</span>
      <span class="navi-suggestion-kind">${kind}</span>
    </li>`;
  }

  /** For screen readers: the list is not where the focus is. */
  #spoken(): string {
    if (this.#trigger === null) return "";
    if (this.#found.options.length) return strings.suggestionCount(this.#found.options.length);
    return this.#isLoading ? strings.suggestionsLoading : strings.suggestionsNone;
  }

  /** Whether what the option would write stands there already. */
  #isWritten(): boolean {
    const option = this.#found.options[this.#active];
    const { kind, query } = this.#trigger ?? { kind: "mention", query: "" };
    return kind !== "mention" && option !== undefined && option.token.replace(/^\//, "") === query;
  }

  async #look(trigger: Trigger): Promise<void> {
    const found = await this.#actions.suggestions(trigger).catch(() => NONE);
    if (this.#trigger !== trigger) return;
    this.#isLoading = false;
    this.#found = found;
    this.#active = 0;
    this.#actions.redraw();
  }

  #activate(index: number): void {
    this.#active = index;
    this.#actions.redraw();
    // The list scrolls by itself and nothing around it does.
    const option = document.getElementById(`${this.#id}-${index}`);
    const list = option?.closest<HTMLElement>(".navi-completion");
    if (!option || !list) return;
    if (option.offsetTop < list.scrollTop) list.scrollTop = option.offsetTop;
    const bottom = option.offsetTop + option.offsetHeight - list.clientHeight;
    if (bottom > list.scrollTop) list.scrollTop = bottom;
  }

  readonly #clicked = (event: Event): void => {
    const option = event.currentTarget as HTMLElement;
    const input = option.closest("form")?.querySelector<HTMLTextAreaElement>('[data-navi="input"]');
    if (input) this.#choose(Number(option.id.split("-").at(-1)), input);
  };

  #choose(index: number, input: HTMLTextAreaElement): void {
    const option = this.#found.options[index];
    if (!option || this.#trigger === null) return;
    const { text, caret } = completed(input.value, this.#trigger, option.token);
    this.close();
    input.value = text;
    input.setSelectionRange(caret, caret);
    input.focus();
    this.#actions.changed();
    this.update(input); // a command may have choices
  }
}

function keepFocus(event: Event): void {
  event.preventDefault();
}
