/**
 * The keyboard in the conversation: it is one stop of the Tab key, and the arrow keys go from item to item. What can be
 * pressed in an item is a stop while the focus is in that item; an open question always is.
 */

import { bringIntoSight } from "../lib/scroll.js";
import { plain } from "../recalls/time.js";
import { strings } from "../lib/strings.js";

const CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex]";
const OPEN_QUESTION = "[data-navi=ask]:is([data-status=open], [data-status=sending])";
/** Keys that mean something to what they are pressed in. */
const OWN_KEYS = "input, textarea, select, [contenteditable]";
/** Characters of an item that are its name for screen readers. */
const NAME = 300;

export class LogFocus {
  readonly #log: HTMLElement;
  readonly #leave: () => void;
  /** The `tabindex` of a control before it was taken out of the order: null where it had none. */
  readonly #own = new WeakMap<Element, string | null>();
  readonly #observer: MutationObserver;
  #current: HTMLElement | null = null;

  /** `leave`: the user goes on writing. */
  constructor(log: HTMLElement, leave: () => void) {
    this.#log = log;
    this.#leave = leave;
    this.#observer = new MutationObserver((records) => this.#changed(records));
    this.#observer.observe(log, { childList: true, subtree: true });
    log.addEventListener("focusin", this.#focused);
    log.addEventListener("keydown", this.#pressed);
    for (const item of this.#items) this.#adopt(item);
    this.#settle();
  }

  get #items(): HTMLElement[] {
    return [...this.#log.children].filter((child): child is HTMLElement => child instanceof HTMLElement && !child.matches(".navi-earlier, .navi-working, .navi-empty"));
  }

  #itemOf(element: Element): HTMLElement | null {
    for (let at: Element | null = element; at; at = at.parentElement) {
      if (at.parentElement === this.#log) return at instanceof HTMLElement && !at.matches(".navi-earlier, .navi-working, .navi-empty") ? at : null;
    }
    return null;
  }

  #changed(records: readonly MutationRecord[]): void {
    for (const { addedNodes } of records) for (const node of addedNodes) if (node instanceof HTMLElement) this.#adopt(node);
    this.#settle();
  }

  /** Takes what can be pressed out of the order, unless it is in the item that has the focus, or in an open question. */
  #adopt(element: HTMLElement): void {
    const item = this.#itemOf(element);
    if (item === null || item === this.#current) return;
    if (element === item) item.tabIndex = -1;
    const controls = element.matches(CONTROLS) && element !== item ? [element] : [];
    for (const control of [...controls, ...element.querySelectorAll<HTMLElement>(CONTROLS)]) this.#takeOut(control);
  }

  #takeOut(control: HTMLElement): void {
    if (control.closest(OPEN_QUESTION) || this.#own.has(control) || control.getAttribute("tabindex") === "-1") return;
    this.#own.set(control, control.getAttribute("tabindex"));
    control.tabIndex = -1;
  }

  #putBack(item: HTMLElement): void {
    for (const control of item.querySelectorAll<HTMLElement>(CONTROLS)) {
      const own = this.#own.get(control);
      if (own === undefined) continue;
      this.#own.delete(control);
      if (own === null) control.removeAttribute("tabindex");
      else control.setAttribute("tabindex", own);
    }
  }

  /** The stop is where the focus is; else at the end. */
  #settle(): void {
    const root = this.#log.getRootNode() as Document | ShadowRoot;
    const isInside = root.activeElement !== null && this.#log.contains(root.activeElement);
    if (isInside && this.#current?.isConnected) return;
    this.#move(this.#items.at(-1) ?? null);
  }

  #move(item: HTMLElement | null): void {
    const old = this.#current;
    if (item === old) return;
    this.#current = item;
    if (old?.isConnected) this.#adopt(old);
    if (item) {
      this.#putBack(item);
      item.tabIndex = 0;
    }
    this.#log.tabIndex = item ? -1 : 0;
  }

  readonly #focused = ({ target }: FocusEvent): void => {
    const item = target instanceof Element ? this.#itemOf(target) : null;
    if (item === null) return;
    this.#move(item);
    if (item === target) nameItem(item);
  };

  readonly #pressed = (event: KeyboardEvent): void => {
    const { target, key } = event;
    if (!(target instanceof HTMLElement) || event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    const item = this.#itemOf(target);
    if (item === null) return;
    if (key === "Escape" && !event.isComposing) {
      if (target === item) this.#leave();
      else item.focus({ preventScroll: true });
      event.stopPropagation();
      return;
    }
    if (target !== item || target.matches(OWN_KEYS)) return;
    const items = this.#items;
    const at = items.indexOf(item);
    const to = { ArrowUp: items[at - 1], ArrowDown: items[at + 1], Home: items[0], End: items.at(-1) }[key];
    if (key === "Enter") {
      const inside = [...item.querySelectorAll<HTMLElement>(CONTROLS)].find((control) => control.tabIndex >= 0);
      inside?.focus();
      if (inside) event.preventDefault();
    } else if (to && !this.#goesOn(item, key)) {
      event.preventDefault();
      event.stopPropagation();
      bringIntoSight(this.#log, to, key === "ArrowUp" ? "end" : "nearest");
      to.focus({ preventScroll: true });
    }
  };

  /** Whether an item that is longer than the view has more to show in that direction: then the key scrolls. */
  #goesOn(item: HTMLElement, key: string): boolean {
    const view = this.#log.getBoundingClientRect();
    const box = item.getBoundingClientRect();
    return (key === "ArrowDown" && box.bottom > view.bottom + 1) || (key === "ArrowUp" && box.top < view.top - 1);
  }
}

/** Screen readers name what has the focus; an article has no name of its own. */
function nameItem(item: HTMLElement): void {
  if (item.hasAttribute("aria-labelledby")) return;
  if (item.tagName === "DIV" && !item.hasAttribute("role")) item.setAttribute("role", "group");
  const text = plain((item.textContent ?? "").slice(0, 4 * NAME));
  item.setAttribute("aria-label", text.slice(0, NAME) || strings.name);
}
