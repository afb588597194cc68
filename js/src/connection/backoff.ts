/** Exponential backoff with full jitter: many views of a server that comes back do not come back at once. */

const FIRST = 250;
const LONGEST = 30_000;

export class Backoff {
  #attempt = 0;

  /** Milliseconds to wait before the next attempt. */
  next(): number {
    const ceiling = Math.min(LONGEST, FIRST * 2 ** this.#attempt);
    this.#attempt += 1;
    return Math.random() * ceiling;
  }

  reset(): void {
    this.#attempt = 0;
  }
}
