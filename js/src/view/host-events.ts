/** What the host page is to know of a chat, as events that bubble: how many questions are open, what became of the notebook. */

import type { Envelope } from "../protocol/generated.js";
import { openInterrupts } from "../state/interrupts.js";
import { isReader } from "../state/select.js";
import type { ChatState, Item } from "../state/model.js";

/** The tools that change notebooks. */
const OF_NOTEBOOKS = ["edit_cell", "insert_cell", "delete_cell", "run_cell"];

export class HostEvents {
  readonly #element: HTMLElement & { readonly session: string | null };
  #openInterrupts = 0;

  constructor(element: HTMLElement & { readonly session: string | null }) {
    this.#element = element;
  }

  /** Call after each drawing. */
  reportInterrupts(state: ChatState): void {
    const length = isReader(state) ? 0 : openInterrupts(state).length;
    if (length === this.#openInterrupts) return;
    this.#openInterrupts = length;
    this.#emit("navi-asks", { open: length });
  }

  reportUnread(count: number): void {
    this.#emit("navi-unread", { count });
  }

  /** A tool has changed a notebook, or a run has begun. `state`: with the envelopes in it. */
  reportNotebookChanges(state: ChatState, envelopes: readonly Envelope[]): void {
    const { session } = this.#element;
    for (const { event, run_id: run, snapshot } of envelopes) if (event.type === "RUN_STARTED" && !snapshot) this.#emit("navi-run", { session, run });
    for (const { event, snapshot } of envelopes) if (!snapshot && event.type === "CUSTOM" && event.name === "navi.notebook") this.#reportSettled(event.value);
    const done = envelopes.flatMap(({ event }) => (event.type === "TOOL_CALL_RESULT" ? [event.toolCallId] : []));
    const isOne = (item: Item): boolean => item.kind === "tool" && done.includes(item.id) && OF_NOTEBOOKS.includes(item.name);
    const changed = done.length ? state.items.findLast(isOne) : undefined;
    if (changed) this.#emit("navi-notebook", { session, run: changed.runId });
  }

  /** Another page has kept or undone changes. */
  #reportSettled({ action, run_id: run }: Readonly<Record<string, unknown>>): void {
    const { session } = this.#element;
    if (action === "kept" || action === "undone") this.#emit("navi-notebook", { session, run });
  }

  #emit(name: string, detail?: object): void {
    this.#element.dispatchEvent(new CustomEvent(name, { bubbles: true, ...(detail ? { detail } : {}) }));
  }
}
