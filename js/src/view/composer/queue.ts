/** The prompts that wait while a run is active: each can be changed or withdrawn. */

import { html, nothing, type TemplateResult } from "lit";
import { ref } from "lit/directives/ref.js";
import { repeat } from "lit/directives/repeat.js";
import type { SentCommand } from "../../connection/outbox.js";
import type { Attached, ChatState, Message } from "../../state/model.js";
import { isReader } from "../../state/select.js";
import { keepInput, keepKey } from "../lib/keyboard-guard.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";

export interface Waiting {
  readonly id: string;
  readonly text: string;
  readonly mode: string;
  readonly attachments: readonly Attached[];
  readonly runId: string | null;
  readonly origin: string;
  /** `sending`: the server has not acknowledged it. */
  readonly status: "sending" | "queued";
  /** Whether it can be changed and withdrawn. */
  readonly isOwn: boolean;
}

/** Where what waits is shown. */
export interface Split {
  /** Above the composer. */
  readonly panel: readonly Waiting[];
  /** At the end of the log: their run is about to start. */
  readonly inLog: readonly Message[];
  readonly unsent: readonly SentCommand[];
}

/** `modes`: those of the prompts that were sent from here, by command id. */
export function splitWaiting(state: ChatState, outbox: readonly SentCommand[], modes: ReadonlyMap<string, string>): Split {
  const { items, waiting, run } = state;
  const isKnown = new Set([...items.slice(-100), ...waiting].map(({ id }) => id));
  const unsent = outbox.filter((command) => command.type === "prompt" && !isKnown.has(command.command_id));
  const isQueued = (message: Message): boolean => message.status === "queued" || (run !== null && message.status === "done");
  const queued = waiting.filter(isQueued).map((message): Waiting => {
    const mode = modes.get(message.id) ?? message.mode ?? "enqueue";
    return { ...message, status: "queued", origin: message.origin.kind, mode, isOwn: !isReader(state) };
  });
  if (run === null) return { panel: queued, inLog: waiting.filter((message) => !isQueued(message)), unsent };
  return { panel: [...queued, ...unsent.map((command) => sending(command, modes))], inLog: [], unsent: [] };
}

function sending(command: SentCommand, modes: ReadonlyMap<string, string>): Waiting {
  const { command_id: id } = command;
  const text = command.type === "prompt" ? (command.display ?? command.text) : "";
  return { id, text, mode: modes.get(id) ?? "enqueue", attachments: [], runId: null, origin: "user", status: "sending", isOwn: true };
}

export interface QueueActions {
  withdraw(commandId: string): void;
  edit(commandId: string, text: string): void;
  redraw(): void;
}

export class QueuePanel {
  readonly #actions: QueueActions;
  #editing: string | null = null;

  constructor(actions: QueueActions) {
    this.#actions = actions;
  }

  reset(): void {
    this.#editing = null;
  }

  render(waiting: readonly Waiting[]): TemplateResult | typeof nothing {
    if (!waiting.length) return nothing;
    return html`<div class="navi-queue" data-navi="queue" role="group" aria-label=${strings.queueTitle(waiting.length)}>
      ${repeat(waiting, ({ id }) => id, (one) => this.#row(one))}
    </div>`;
  }

  #row(one: Waiting): TemplateResult {
    const { id, text, status } = one;
    const isEditing = this.#editing === id && status === "queued" && one.isOwn;
    const mode = strings.modes[one.mode as keyof typeof strings.modes] ?? null;
    return html`<article
      class="navi-waiting"
      data-navi="message"
      data-role="user"
      data-message-id=${id}
      data-run-id=${one.runId ?? nothing}
      data-origin=${one.origin}
      data-mode=${one.mode || nothing}
      data-status=${status}
    >
      <h3 class="navi-hidden">${status === "queued" ? strings.queued : strings.sending}</h3>
      ${mode ? html`<span class="navi-mode-chip" title=${mode.what}>${mode.name}</span>` : nothing}
      ${isEditing
        ? this.#editor(one)
        : html`<div class="navi-text" dir="auto" lang="" title=${text}>${text}</div>
            ${one.attachments.length ? html`<span class="navi-waiting-files" title=${one.attachments.map(({ name }) => name).join(", ")}>${icons.attach}${one.attachments.length}</span>` : nothing}
            ${status === "queued" && !one.isOwn
              ? nothing
              : status === "queued"
              ? html`<span class="navi-waiting-actions">
                  <button type="button" class="navi-icon-button" data-navi="queue-edit" aria-label=${strings.editQueued} title=${strings.editQueued} @click=${() => this.#edit(id)}>
                    ${icons.edit}
                  </button>
                  <button type="button" class="navi-icon-button" data-navi="withdraw" aria-label=${strings.withdraw} title=${strings.withdraw} @click=${() => this.#actions.withdraw(id)}>
                    ${icons.close}
                  </button>
                </span>`
              : html`<span class="navi-note navi-late">${strings.sending}</span>`}`}
    </article>`;
  }

  #editor({ id, text }: Waiting): TemplateResult {
    const submit = (event: Event): void => {
      event.preventDefault();
      const changed = (event.currentTarget as HTMLFormElement).querySelector("textarea")?.value.trim() ?? "";
      if (changed && changed !== text) this.#actions.edit(id, changed);
      this.#edit(null);
    };
    const keydown = (event: KeyboardEvent): void => {
      keepKey(event);
      if (event.isComposing) return;
      if (event.key === "Escape") this.#edit(null);
      if (event.key !== "Enter" || event.shiftKey) return;
      event.preventDefault();
      (event.currentTarget as HTMLTextAreaElement).form?.requestSubmit();
    };
    return html`<form class="navi-waiting-form" @submit=${submit}>
      <textarea
        ${ref(this.#focus)}
        data-navi="queue-input"
        rows=${Math.min(6, text.split("\n").length)}
        dir="auto"
        aria-label=${strings.editQueued}
        .value=${text}
        @keydown=${keydown}
        @beforeinput=${keepInput}
      ></textarea>
      <button type="submit" class="navi-link" data-navi="queue-save">${strings.save}</button>
      <button type="button" class="navi-link" data-navi="queue-back" @click=${() => this.#edit(null)}>${strings.back}</button>
    </form>`;
  }

  /** The same function each time, so that it is called once per editor. */
  readonly #focus = (area?: Element): void => {
    if (area instanceof HTMLTextAreaElement) queueMicrotask(() => area.focus()); // it is not in the document yet
  };

  #edit(id: string | null): void {
    this.#editing = id;
    this.#actions.redraw();
  }
}
