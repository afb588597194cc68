/** The way to a place in the conversation: to an open question, or to what a run said, wherever the user is. */

import { openInterrupts } from "../state/interrupts.js";
import type { ChatState, Item } from "../state/model.js";
import { focusCard, focusRun } from "./lib/scroll.js";

export interface PlaceActions {
  state(): ChatState;
  /** Draws an item that is not in the document; it is there afterwards. */
  reveal(item: Item): Promise<void>;
  /** What lies over the conversation goes away. */
  uncover(): Promise<void>;
}

export class Places {
  readonly #chat: Element;
  readonly #actions: PlaceActions;

  constructor(chat: Element, actions: PlaceActions) {
    this.#chat = chat;
    this.#actions = actions;
  }

  /** Leads to the oldest open question. */
  async showAsk(): Promise<void> {
    const [interrupt] = openInterrupts(this.#actions.state());
    if (!interrupt) return;
    await this.#actions.uncover();
    await this.#actions.reveal(interrupt);
    focusCard(this.#chat, interrupt.id);
  }

  /** Leads to the first message of a run. */
  async showRun(runId: string): Promise<void> {
    const item = this.#actions.state().items.find((each) => each.runId === runId);
    if (!item) return;
    await this.#actions.uncover();
    await this.#actions.reveal(item);
    focusRun(this.#chat, runId);
  }
}
