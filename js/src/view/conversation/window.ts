/**
 * Which of the items of a conversation are in the document: those around what the user reads, at most a few hundred,
 * however long the conversation is. It follows the end while that is in sight, and moves as the user scrolls.
 */

import { keyOf } from "../../state/items.js";
import type { Item } from "../../state/model.js";

/** Items in the document at first; at most twice as many. */
const SIZE = 150;
/** How many come when the user scrolls near one end. */
const STEP = 50;

export class LogWindow {
  /** The first item and the last one, by their keys: what is put before them does not change them. Null: as far as there are. */
  #first: string | null = null;
  #last: string | null = null;
  #start = 0;
  #end = 0;

  reset(): void {
    this.#first = this.#last = null;
    this.#start = this.#end = 0;
  }

  /** The items to draw. `pinned`: the end is in sight, and is kept there. */
  of(items: readonly Item[], pinned: boolean): readonly Item[] {
    const { length } = items;
    if (pinned) this.#last = null;
    this.#end = this.#last === null ? length : indexOf(items, this.#last) + 1 || length;
    const known = this.#first === null ? -1 : indexOf(items, this.#first);
    this.#start = known >= 0 && known < this.#end ? known : Math.max(0, this.#end - SIZE);
    if (this.#end - this.#start > 2 * SIZE) {
      // What is read stays; where the end is in sight, that is what is read.
      if (pinned) this.#start = this.#end - SIZE;
      else this.#end = this.#start + 2 * SIZE;
    }
    this.#keep(items);
    return items.slice(this.#start, this.#end);
  }

  /** Whether there are items before the first that is drawn, and behind the last. */
  get hasBefore(): boolean {
    return this.#start > 0;
  }

  isAtEnd(items: readonly Item[]): boolean {
    return this.#end >= items.length;
  }

  /** The user comes near the first item: more before it, fewer behind. False: there are none. */
  extendUp(items: readonly Item[]): boolean {
    if (this.#start === 0) return false;
    this.#start = Math.max(0, this.#start - STEP);
    this.#end = Math.min(this.#end, this.#start + 2 * SIZE);
    this.#keep(items);
    return true;
  }

  /** The user comes near the last item that is drawn. */
  extendDown(items: readonly Item[]): boolean {
    if (this.#end >= items.length) return false;
    this.#end = Math.min(items.length, this.#end + STEP);
    this.#start = Math.max(this.#start, this.#end - 2 * SIZE);
    this.#keep(items);
    return true;
  }

  /** Puts an item into the document. False: it is there. */
  reveal(items: readonly Item[], index: number): boolean {
    if (index >= this.#start && index < this.#end) return false;
    this.#start = Math.max(0, index - STEP);
    this.#end = Math.min(items.length, this.#start + SIZE);
    this.#keep(items);
    return true;
  }

  #keep(items: readonly Item[]): void {
    const first = items[this.#start];
    const last = items[this.#end - 1];
    this.#first = first ? keyOf(first) : null;
    this.#last = last && this.#end < items.length ? keyOf(last) : null;
  }
}

function indexOf(items: readonly Item[], key: string): number {
  return items.findIndex((item) => keyOf(item) === key);
}
