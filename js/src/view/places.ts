/** The way to a place in the conversation: to an open question, to what a run said, to a message, wherever the user is. */

import { openInterrupts } from "../state/interrupts.js";
import type { ChatState, Item } from "../state/model.js";
import { FoundWords } from "./lib/found-words.js";
import { bringMessage, focusCard, focusRun } from "./lib/scroll.js";
import { strings } from "./lib/strings.js";

/** A message, or the first one of a run where that is not there; and what was searched for, which is marked in it. */
export interface MessagePlace {
  readonly runId: string | null;
  readonly messageId: string | null;
  readonly words: readonly string[];
}

export interface PlaceActions {
  state(): ChatState;
  /** Reads what comes before the first item that is known, many at once. False: there is no more, or it cannot be read. */
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
  readonly #found = new FoundWords();
  /** Grows with each place that is asked for: a way that is long ends when another one begins. */
  #asked = 0;

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
    const item = await this.#find((items) => items.find((each) => each.runId === runId));
    if (item === undefined) return;
    if (item === null) return this.#actions.problem(strings.runNotFound);
    await this.#actions.uncover();
    await this.#actions.reveal(item);
    focusRun(this.#chat, runId);
  }

  /** Leads to a message, also to one of long ago. The focus goes there if `takesFocus`. */
  async showMessage({ runId, messageId, words }: MessagePlace, takesFocus = true): Promise<void> {
    const isIt = ({ id, kind }: Item): boolean => kind === "message" && id === messageId;
    const isOfRun = (item: Item): boolean => runId !== null && item.kind === "message" && item.runId === runId;
    const item = await this.#find((items) => items.find(isIt) ?? items.find(isOfRun));
    if (item === undefined) return;
    if (item === null) return this.#actions.problem(strings.runNotFound);
    await this.#actions.uncover();
    await this.#actions.reveal(item);
    const message = bringMessage(this.#chat, item.id, takesFocus);
    if (message) this.#found.show(message, words);
  }

  /** Nothing is marked any more, and no way goes on. */
  forget(): void {
    this.#asked += 1;
    this.#found.clear();
  }

  /** The item, read from the server if need be; null: there is none; undefined: something else is wanted by now. */
  async #find(look: (items: readonly Item[]) => Item | undefined): Promise<Item | null | undefined> {
    const asked = ++this.#asked;
    let item: Item | undefined;
    while (!(item = look(this.#actions.state().items)) && (await this.#actions.readEarlier())) {
      if (asked !== this.#asked) return undefined;
    }
    return asked === this.#asked ? (item ?? null) : undefined;
  }
}
