/** Announces each complete message to screen readers; while a message streams, nothing is announced. */

import type { ChatState, Item } from "../../state/model.js";
import { openInterrupts } from "../../state/interrupts.js";
import { plain } from "../recalls/time.js";
import { strings } from "./strings.js";

const LONGEST = 600;

export class Announcer {
  readonly #region: () => Element | null;
  #announced = new Set<string>();

  constructor(region: () => Element | null) {
    this.#region = region;
  }

  reset(): void {
    this.#announced = new Set();
  }

  announce(before: ChatState, after: ChatState): void {
    if (before.items === after.items) return;
    for (const interrupt of openInterrupts(after)) {
      if (this.#announced.has(interrupt.id)) continue;
      this.#announced.add(interrupt.id);
      void import("../conversation/card-parts.js").then(({ spoken }) => this.#say(spoken(interrupt)), () => undefined);
    }
    const streamed = new Set(before.items.filter((item) => item.kind === "message" && item.status === "streaming").map(({ id }) => id));
    for (const item of after.items.slice(-20)) {
      if (!streamed.has(item.id) || !isDone(item) || this.#announced.has(item.id)) continue;
      this.#announced.add(item.id);
      this.#say(strings.announced(plain(item.text.slice(0, 4 * LONGEST)).slice(0, LONGEST)));
    }
  }

  #say(text: string): void {
    const region = this.#region();
    if (region) region.textContent = text;
  }
}

function isDone(item: Item): item is Extract<Item, { kind: "message" }> {
  return item.kind === "message" && item.status === "done";
}
