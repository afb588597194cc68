/** Keeps the keyboard focus with a question that is drawn anew: its card goes when it is answered, and the focus with it. */

/** What has the focus, if it is in `host`. */
export function focusedIn(host: HTMLElement): HTMLElement | null {
  const root = host.getRootNode();
  const active = root instanceof Document || root instanceof ShadowRoot ? root.activeElement : null;
  return active instanceof HTMLElement && host.contains(active) ? active : null;
}

export class FocusKeeper {
  readonly #host: HTMLElement;
  #element: HTMLElement | null = null;
  #interruptId: string | null = null;

  constructor(host: HTMLElement) {
    this.#host = host;
  }

  /** Call before the content changes. */
  hold(): void {
    this.#element = focusedIn(this.#host);
    this.#interruptId = this.#element?.closest<HTMLElement>("[data-navi=ask]")?.dataset["interruptId"] ?? null;
  }

  /** Call after it has changed: goes to the next question, or to what became of this one. */
  follow(): void {
    const id = this.#interruptId;
    if (id === null || this.#element?.isConnected) return;
    this.#interruptId = null;
    const cards = [...this.#host.querySelectorAll<HTMLElement>("[data-navi=ask]")];
    const next = cards.find(({ dataset }) => dataset["status"] === "open") ?? cards.find(({ dataset }) => dataset["interruptId"] === id);
    if (!next) return;
    if (!next.hasAttribute("tabindex")) next.tabIndex = -1;
    next.focus({ preventScroll: true });
  }
}

/** A button that is switched off loses the focus, and says so to nobody: the card that it is in takes it before. */
export function focusCard(): void {
  document.activeElement?.closest<HTMLElement>("[data-navi=ask]")?.focus({ preventScroll: true });
}
