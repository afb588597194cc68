/** What the host page is to know of a chat, as events that bubble: how many questions are open, what became of the notebook. */

import type { Envelope } from "../protocol/generated.js";
import { openInterrupts } from "../state/interrupts.js";
import type { ChatState, Item } from "../state/model.js";

/** The tools that change notebooks. */
const OF_NOTEBOOKS = ["edit_cell", "insert_cell", "delete_cell", "run_cell"];

export class HostEvents {
  readonly #element: Element;
  #openInterrupts = 0;

  constructor(element: Element) {
    this.#element = element;
  }

  /** Call after each drawing. */
  reportInterrupts(state: ChatState): void {
    const { length } = openInterrupts(state);
    if (length === this.#openInterrupts) return;
    this.#openInterrupts = length;
    this.#emit("navi-asks", { open: length });
  }

  reportUnread(count: number): void {
    this.#emit("navi-unread", { count });
  }

  /** A tool has changed a notebook. `state`: with the envelopes in it. */
  reportNotebookChanges(state: ChatState, envelopes: readonly Envelope[]): void {
    const done = envelopes.flatMap(({ event }) => (event.type === "TOOL_CALL_RESULT" ? [event.toolCallId] : []));
    const isOne = (item: Item): boolean => item.kind === "tool" && done.includes(item.id) && OF_NOTEBOOKS.includes(item.name);
    if (done.length && state.items.some(isOne)) this.#emit("navi-notebook");
  }

  #emit(name: string, detail?: object): void {
    this.#element.dispatchEvent(new CustomEvent(name, { bubbles: true, ...(detail ? { detail } : {}) }));
  }
}
