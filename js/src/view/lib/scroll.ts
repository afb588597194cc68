/** Keeps the end of a scrolling element in sight while the user is there, and leaves it alone while not. */

const NEAR = 32;

export class StickToEnd {
  readonly #element: HTMLElement;
  readonly #changed: () => void;
  readonly #resized = new ResizeObserver(() => this.follow());
  #pinned = true;
  #lastTop = 0;

  constructor(element: HTMLElement, changed: () => void) {
    this.#element = element;
    this.#changed = changed;
    element.addEventListener("scroll", this.#scrolled, { passive: true });
    this.#resized.observe(element);
  }

  /** Whether the end is, and is to be kept, in sight. */
  get pinned(): boolean {
    return this.#pinned;
  }

  /** Call after the content has changed. */
  follow(): void {
    if (!this.#pinned) return;
    this.#element.scrollTop = this.#element.scrollHeight;
    this.#lastTop = this.#element.scrollTop;
  }

  jump(): void {
    this.#set(true);
    this.follow();
  }

  /** Something else than the end is to be in sight. */
  release(): void {
    this.#set(false);
  }

  dispose(): void {
    this.#resized.disconnect();
    this.#element.removeEventListener("scroll", this.#scrolled);
  }

  readonly #scrolled = (): void => {
    const { scrollTop, scrollHeight, clientHeight } = this.#element;
    const atEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    // Content that grew moves the end away without the user having moved: only going up lets go.
    if (atEnd) this.#set(true);
    else if (scrollTop < this.#lastTop) this.#set(false);
    this.#lastTop = scrollTop;
  };

  #set(pinned: boolean): void {
    if (pinned === this.#pinned) return;
    this.#pinned = pinned;
    this.#changed();
  }
}
