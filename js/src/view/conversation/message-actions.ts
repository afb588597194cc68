/** What can be done with one message: the buttons under answers and prompts. Features add theirs. */

import { html, nothing, type TemplateResult } from "lit";
import { repeat } from "lit/directives/repeat.js";
import type { ChatState, Message } from "../../state/model.js";
import { isReader } from "../../state/select.js";
import { strings } from "../lib/strings.js";

export interface MessageAction {
  /** Its `data-navi`, unique among these. */
  readonly name: string;
  readonly icon: TemplateResult;
  /** It changes nothing: it is offered to readers of a shared session, too. */
  readonly isHarmless?: boolean;
  /** What it does, as the name of its button. */
  label(message: Message): string;
  /** Whether it is offered. Asked often: it must be quick, and depend on nothing but these two. */
  applies(message: Message, state: ChatState): boolean;
  /** `button`: what was pressed, where a menu can be put. */
  run(message: Message, button: HTMLElement): void;
}

/** How a run that failed is tried again. */
export interface RetryAction {
  /** As that of a message's action. */
  applies(runId: string, state: ChatState): boolean;
  run(runId: string): void;
}

export class MessageActions {
  readonly #all: MessageAction[] = [];
  /** Set by the feature that has it. */
  retry: RetryAction | null = null;

  /** Those that are added first stand first. */
  add(action: MessageAction): void {
    this.#all.push(action);
  }

  /** Tries a run again; null where that is not offered. */
  retryOf(runId: string, state: ChatState): (() => void) | null {
    const { retry } = this;
    return !isReader(state) && retry?.applies(runId, state) ? () => retry.run(runId) : null;
  }

  /** A message's buttons are drawn again when this is another. */
  key(message: Message, state: ChatState): string {
    return this.#offered(message, state)
      .map(({ name }) => name)
      .join(" ");
  }

  render(message: Message, state: ChatState): TemplateResult | typeof nothing {
    const offered = this.#offered(message, state);
    if (!offered.length) return nothing;
    return html`<div class="navi-actions" data-navi="message-actions" role="group" aria-label=${strings.messageActions}>
      ${repeat(offered, ({ name }) => name, (action) => button(action, message))}
    </div>`;
  }

  #offered(message: Message, state: ChatState): readonly MessageAction[] {
    if (message.status !== "done" || message.subagentId !== null) return [];
    return this.#all.filter((action) => (action.isHarmless || !isReader(state)) && action.applies(message, state));
  }
}

function button(action: MessageAction, message: Message): TemplateResult {
  const label = action.label(message);
  const press = (event: Event): void => action.run(message, event.currentTarget as HTMLElement);
  return html`<button type="button" class="navi-icon-button" data-navi=${action.name} aria-label=${label} title=${label} @click=${press}>${action.icon}</button>`;
}
