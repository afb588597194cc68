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
    // Content that grew moves the end away without the user having moved: only scrolling up releases the end.
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

/**
 * Scrolls `scroller`, and nothing around it, until `element` is in sight. `scrollIntoView` would scroll every box around
 * it: that of the chat, too, which then stays cut off, and the notebook.
 */
export function bringIntoSight(scroller: Element, element: Element, where: "nearest" | "start"): void {
  const view = scroller.getBoundingClientRect();
  const box = element.getBoundingClientRect();
  const above = box.top - view.top - MARGIN;
  const below = box.bottom - view.bottom + MARGIN;
  if (where === "start" || above < 0) scroller.scrollTop += above;
  else if (below > 0) scroller.scrollTop += Math.min(above, below);
}

/** Pixels that stay free around what was brought into sight. */
const MARGIN = 6;

/** Brings the card of an interrupt into view, opens what it is folded into, and focuses it. */
export function focusCard(chat: Element, interruptId: string): void {
  const cards = [...chat.querySelectorAll<HTMLElement>("[data-navi=ask]")];
  const card = cards.find(({ dataset }) => dataset["interruptId"] === interruptId);
  for (let outer = card?.closest("details"); outer; outer = outer.parentElement?.closest("details")) outer.open = true;
  focusInLog(chat, card, "nearest");
}

/** Brings the first message of a run into view and focuses it. */
export function focusRun(chat: Element, runId: string): void {
  const messages = [...chat.querySelectorAll<HTMLElement>("[data-navi=log] [data-navi=message]")];
  focusInLog(chat, messages.find(({ dataset }) => dataset["runId"] === runId), "start");
}

function focusInLog(chat: Element, element: HTMLElement | undefined, where: "nearest" | "start"): void {
  const log = chat.querySelector("[data-navi=log]");
  if (!element || !log) return;
  bringIntoSight(log, element, where);
  if (!element.hasAttribute("tabindex")) element.tabIndex = -1;
  element.focus({ preventScroll: true });
}
