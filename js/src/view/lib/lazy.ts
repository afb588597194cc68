/** Parts of the bundle that are loaded when they are first needed, and what is drawn again then. */

/** From a part that could not be loaded to the next try, if it is still needed. Milliseconds. */
const AGAIN_AFTER = 2_000;

const listeners = new Set<() => void>();

/** Calls `listener` each time that a part is there which something was drawn without. The answer ends that. */
export function whenPartsLoad(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export class Lazy<T> {
  readonly #load: () => Promise<T>;
  #part: T | null = null;
  #isLoading = false;

  constructor(load: () => Promise<T>) {
    this.#load = load;
  }

  /** The part if it is there; nothing is loaded. */
  peek(): T | null {
    return this.#part;
  }

  /** The part; null until it has been loaded, which begins now. Where it cannot be loaded, it is tried again a while later. */
  get(): T | null {
    if (this.#part === null && !this.#isLoading) {
      this.#isLoading = true;
      this.#load().then(
        (part) => {
          this.#part = part;
          for (const listener of listeners) listener();
        },
        () => setTimeout(() => this.#failed(), AGAIN_AFTER),
      );
    }
    return this.#part;
  }

  /** Draws again what needs the part, which asks for it. */
  #failed(): void {
    this.#isLoading = false;
    for (const listener of listeners) listener();
  }
}
