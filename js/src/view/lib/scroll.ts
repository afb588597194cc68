/** Keeps the end of a scrolling element in sight while the user is there; else what the user reads stays where it is. */

const NEAR = 32;
/** So near one end of what is in the document, pixels, more is asked for. */
const SOON = 800;

export interface ScrollActions {
  /** `pinned` is another. */
  changed(): void;
  /** The user comes near the beginning. */
  nearStart(): void;
  /** The user comes near the end of what is in the document. True: there is more behind it. */
  nearEnd(): boolean;
}

export class LogScroll {
  readonly #element: HTMLElement;
  readonly #actions: ScrollActions;
  readonly #resized = new ResizeObserver(() => this.follow());
  #pinned = true;
  #lastTop = 0;
  /** What the user reads, and how far below the upper edge it is. */
  #held: { readonly element: Element; readonly top: number } | null = null;

  constructor(element: HTMLElement, actions: ScrollActions) {
    this.#element = element;
    this.#actions = actions;
    element.addEventListener("scroll", this.#scrolled, { passive: true });
    this.#resized.observe(element);
  }

  /** Whether the end is, and is to be kept, in sight. */
  get pinned(): boolean {
    return this.#pinned;
  }

  /** Call before the content changes. */
  hold(): void {
    this.#held = this.#pinned ? null : this.#inSight();
  }

  /** Call after the content has changed. */
  follow(): void {
    const { scrollHeight, clientHeight } = this.#element;
    if (this.#pinned) {
      this.#element.scrollTop = scrollHeight;
      this.#lastTop = this.#element.scrollTop;
    } else if (this.#held?.element.isConnected) {
      const moved = this.#offset(this.#held.element) - this.#held.top;
      if (moved) this.#lastTop = this.#element.scrollTop += moved;
    }
    this.#held = null;
    // What has come may not be enough; and what does not overflow cannot be scrolled.
    if (scrollHeight <= clientHeight || (!this.#pinned && this.#element.scrollTop < SOON)) this.#actions.nearStart();
    if (!this.#pinned && this.#left < SOON) this.#actions.nearEnd();
  }

  get #left(): number {
    const { scrollTop, scrollHeight, clientHeight } = this.#element;
    return scrollHeight - scrollTop - clientHeight;
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
    const { scrollTop } = this.#element;
    const left = this.#left;
    const isUp = scrollTop < this.#lastTop;
    this.#lastTop = scrollTop;
    if (scrollTop < SOON && isUp) this.#actions.nearStart();
    if (left < SOON && !this.#pinned && this.#actions.nearEnd()) return;
    // Content that grew moves the end away without the user having moved: only scrolling up releases the end.
    if (left < NEAR) this.#set(true);
    else if (isUp) this.#set(false);
  };

  #set(pinned: boolean): void {
    if (pinned === this.#pinned) return;
    this.#pinned = pinned;
    // Where the end is kept in sight, the browser must not keep something else in its place.
    this.#element.style.overflowAnchor = pinned ? "none" : "auto";
    this.#actions.changed();
  }

  /** The first child that is in sight. */
  #inSight(): { readonly element: Element; readonly top: number } | null {
    const { children } = this.#element;
    let [low, high] = [0, children.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      const box = (children[middle] as Element).getBoundingClientRect();
      if (box.bottom > this.#element.getBoundingClientRect().top) high = middle;
      else low = middle + 1;
    }
    // The button above the first item stays at the top, whatever comes below it.
    const found = children[low];
    const element = found?.matches(".navi-earlier") ? found.nextElementSibling : found;
    return element ? { element, top: this.#offset(element) } : null;
  }

  #offset(element: Element): number {
    return element.getBoundingClientRect().top - this.#element.getBoundingClientRect().top;
  }
}

/**
 * Scrolls `scroller`, and nothing around it, until `element` is in sight. `scrollIntoView` would scroll every box around
 * it: that of the chat, too, which then stays cut off, and the notebook.
 */
export function bringIntoSight(scroller: Element, element: Element, where: "nearest" | "start" | "end"): void {
  const view = scroller.getBoundingClientRect();
  const box = element.getBoundingClientRect();
  const above = box.top - view.top - MARGIN;
  const below = box.bottom - view.bottom + MARGIN;
  if (where === "end" && box.height > view.height) scroller.scrollTop += below;
  else if (where === "start" || above < 0) scroller.scrollTop += above;
  else if (below > 0) scroller.scrollTop += Math.min(above, below);
}

/** What opens upwards is no higher than there is room for above it: the view around it is clipped, and it scrolls. */
export function fitAbove(opened: Element | undefined): void {
  const view = opened?.closest("navi-chat");
  if (!(opened instanceof HTMLElement) || !view) return;
  const room = opened.getBoundingClientRect().bottom - view.getBoundingClientRect().top - MARGIN;
  opened.style.setProperty("--navi-room", `${Math.max(LEAST, Math.floor(room))}px`);
}

/** Pixels that something which scrolls has at least. */
const LEAST = 48;
/** Pixels that stay free around what was brought into sight. */
const MARGIN = 6;

/** Brings the card of an interrupt into view, opens what it is folded into, and focuses it. */
export function focusCard(chat: Element, interruptId: string): void {
  const cards = [...chat.querySelectorAll<HTMLElement>("[data-navi=ask]")];
  const card = cards.find(({ dataset }) => dataset["interruptId"] === interruptId);
  openAround(card);
  focusInLog(chat, card, "nearest");
}

/** Brings the first message of a run into view and focuses it. */
export function focusRun(chat: Element, runId: string): void {
  focusInLog(chat, messagesIn(chat).find(({ dataset }) => dataset["runId"] === runId), "start");
}

/** Brings a message into view, opens what it is folded into, and focuses it if `takesFocus`. Answers its element, if it is there. */
export function bringMessage(chat: Element, messageId: string, takesFocus: boolean): HTMLElement | null {
  const message = messagesIn(chat).find(({ dataset }) => dataset["messageId"] === messageId);
  openAround(message);
  if (takesFocus) focusInLog(chat, message, "start");
  else {
    const log = chat.querySelector("[data-navi=log]");
    if (log && message) bringIntoSight(log, message, "start");
  }
  return message ?? null;
}

function messagesIn(chat: Element): HTMLElement[] {
  return [...chat.querySelectorAll<HTMLElement>("[data-navi=log] [data-navi=message]")];
}

function openAround(element: Element | undefined): void {
  for (let outer = element?.closest("details"); outer; outer = outer.parentElement?.closest("details")) outer.open = true;
}

function focusInLog(chat: Element, element: HTMLElement | undefined, where: "nearest" | "start"): void {
  const log = chat.querySelector("[data-navi=log]");
  if (!element || !log) return;
  bringIntoSight(log, element, where);
  if (!element.hasAttribute("tabindex")) element.tabIndex = -1;
  element.focus({ preventScroll: true });
}
