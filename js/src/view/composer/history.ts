/**
 * The prompts that were written before, to be called up again: those of this session, then those of this browser. Pure but
 * for where the browser's are kept.
 */

const KEY = "navi:prompts";
/** How many prompts a browser keeps, and how long a text may be to be kept. */
const MOST = 100;
const LONGEST = 4_000;

export class PromptHistory {
  readonly #own: () => readonly string[];
  #entries: readonly string[] = [];
  /** The entry that is shown; -1: none. */
  #at = -1;

  /** `own`: the prompts of the session, newest first. */
  constructor(own: () => readonly string[]) {
    this.#own = own;
  }

  /** The entry before the one that is shown; null when the text is somebody's own, or there is none. */
  older(text: string): string | null {
    if (!this.#isUnmodified(text)) return null;
    if (this.#at < 0) this.#entries = distinct([...this.#own(), ...readBrowser()]);
    const entry = this.#entries[this.#at + 1];
    if (entry === undefined) return null;
    this.#at += 1;
    return entry;
  }

  /** The entry after the one that is shown, at last the empty text from which it began; null: none is shown. */
  newer(text: string): string | null {
    if (this.#at < 0 || !this.#isUnmodified(text)) return null;
    this.#at -= 1;
    return this.#entries[this.#at] ?? "";
  }

  /** The text is the user's own again. */
  reset(): void {
    this.#at = -1;
    this.#entries = [];
  }

  /** A prompt was sent. */
  add(text: string): void {
    this.reset();
    if (text.length <= LONGEST) writeBrowser(distinct([text, ...readBrowser()]).slice(0, MOST));
  }

  #isUnmodified(text: string): boolean {
    return this.#at < 0 ? text === "" : text === this.#entries[this.#at];
  }
}

function distinct(texts: readonly string[]): readonly string[] {
  return [...new Set(texts.filter((text) => text.trim() !== ""))];
}

function readBrowser(): readonly string[] {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(stored) ? stored.filter((text) => typeof text === "string") : [];
  } catch {
    return []; // no storage, or not ours
  }
}

function writeBrowser(texts: readonly string[]): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(texts));
  } catch {
    // a full or missing storage costs a convenience
  }
}
