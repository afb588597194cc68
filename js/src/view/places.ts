/** The way to a place in the conversation: to an open question, or to what a run said, wherever the user is. */

import { openInterrupts } from "../state/interrupts.js";
import type { ChatState, Item } from "../state/model.js";
import { focusCard, focusRun } from "./lib/scroll.js";
import { strings } from "./lib/strings.js";

export interface PlaceActions {
  state(): ChatState;
  /** Reads what comes before the first item that is known. False: there is no more, or it cannot be read. */
  readEarlier(): Promise<boolean>;
  /** Draws an item that is not in the document; it is there afterwards. */
  reveal(item: Item): Promise<void>;
  problem(text: string): void;
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

  /** Leads to the first message of a run, also of one long ago. */
  async showRun(runId: string): Promise<void> {
    const find = (): Item | undefined => this.#actions.state().items.find((each) => each.runId === runId);
    while (!find() && (await this.#actions.readEarlier()));
    const item = find();
    if (!item) return this.#actions.problem(strings.runNotFound);
    await this.#actions.uncover();
    await this.#actions.reveal(item);
    focusRun(this.#chat, runId);
  }
}
