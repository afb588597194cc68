/** Tells screen readers what has been said once it is complete; while it streams the log is silent. */

import type { ChatState, Item } from "../../state/model.js";
import { openAsks } from "../../state/interrupts.js";
import { titleOf } from "../conversation/approvals.js";
import { strings } from "./strings.js";

const LONGEST = 600;

export class Announcer {
  readonly #region: () => Element | null;
  #told = new Set<string>();

  constructor(region: () => Element | null) {
    this.#region = region;
  }

  reset(): void {
    this.#told = new Set();
  }

  announce(before: ChatState, after: ChatState): void {
    if (before.items === after.items) return;
    for (const ask of openAsks(after)) {
      if (this.#told.has(ask.id)) continue;
      this.#told.add(ask.id);
      this.#say(`${titleOf(ask)} ${ask.message}`);
    }
    const streamed = new Set(before.items.filter((item) => item.kind === "message" && item.status === "streaming").map(({ id }) => id));
    for (const item of after.items.slice(-20)) {
      if (!streamed.has(item.id) || !isDone(item) || this.#told.has(item.id)) continue;
      this.#told.add(item.id);
      this.#say(`${strings.name}: ${item.text.slice(0, LONGEST)}`);
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
