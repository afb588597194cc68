/** Where the user writes. The text belongs to the textarea; a draft of it survives a reload. */

import { html, nothing, type TemplateResult } from "lit";
import { readStored, writeStored } from "../connection/storage.js";
import type { ActiveRun } from "../state/model.js";
import { icons } from "./icons.js";
import { strings } from "./strings.js";

export interface ComposerActions {
  send(text: string): void;
  stop(): void;
}

export class Composer {
  readonly #host: HTMLElement;
  readonly #actions: ComposerActions;
  #draftKey = "";

  constructor(host: HTMLElement, actions: ComposerActions) {
    this.#host = host;
    this.#actions = actions;
  }

  get #input(): HTMLTextAreaElement | null {
    return this.#host.querySelector<HTMLTextAreaElement>('[data-navi="input"]');
  }

  get text(): string {
    return this.#input?.value ?? "";
  }

  set text(text: string) {
    const input = this.#input;
    if (!input) return;
    input.value = text;
    this.#changed();
  }

  focus(): void {
    this.#input?.focus();
  }

  /** Call after the first drawing of a session. */
  restoreDraft(session: string): void {
    this.#draftKey = `draft:${session}`;
    this.text = readStored(this.#draftKey) ?? "";
  }

  render(run: ActiveRun | null, disabled: boolean): TemplateResult {
    const stopping = run?.status === "stopping";
    return html`<form class="navi-composer" @submit=${this.#submit}>
      <textarea
        data-navi="input"
        rows="1"
        dir="auto"
        aria-label=${strings.inputLabel}
        title=${strings.sendHint}
        placeholder=${run ? strings.placeholderBusy : strings.placeholder}
        enterkeyhint="send"
        ?disabled=${disabled}
        @beforeinput=${keepFromHost}
        @input=${this.#changed}
        @keydown=${this.#keydown}
      ></textarea>
      ${run
        ? html`<button
            type="button"
            class="navi-stop"
            data-navi="stop"
            aria-label=${stopping ? strings.stopping : strings.stop}
            title=${stopping ? strings.stopping : `${strings.stop} (Escape)`}
            ?disabled=${stopping}
            @click=${() => this.#actions.stop()}
          >
            ${icons.stop}<span>${stopping ? strings.stopping : strings.stop}</span>
          </button>`
        : nothing}
      <button
        type="submit"
        class="navi-send"
        data-navi="send"
        aria-label=${run ? strings.queue : strings.send}
        title=${run ? strings.queue : strings.send}
        disabled
      >
        ${icons.send}
      </button>
    </form>`;
  }

  readonly #submit = (event: Event): void => {
    event.preventDefault();
    const text = this.text.trim();
    if (!text) return;
    this.text = "";
    this.#actions.send(text);
  };

  readonly #changed = (): void => {
    const input = this.#input;
    if (!input) return;
    const send = this.#host.querySelector<HTMLButtonElement>('[data-navi="send"]');
    if (send) send.disabled = input.disabled || input.value.trim() === "";
    input.style.height = "auto";
    if (input.value) input.style.height = `${input.scrollHeight + input.offsetHeight - input.clientHeight}px`;
    if (this.#draftKey) writeStored(this.#draftKey, input.value || null);
  };

  readonly #keydown = (event: KeyboardEvent): void => {
    if (event.isComposing || event.keyCode === 229) return; // an input method is at work; Enter is its own
    if (event.key === "Enter") {
      event.stopPropagation(); // the notebook would run the cell
      if (event.shiftKey || event.altKey) return;
      event.preventDefault();
      (event.currentTarget as HTMLTextAreaElement).form?.requestSubmit();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      this.#actions.stop();
    }
  };
}

/**
 * JupyterLab listens here, behind us, and cancels line breaks and undo of everything inside a cell: it expects its own
 * shortcuts to have been meant.
 */
function keepFromHost(event: Event): void {
  event.stopImmediatePropagation();
}
