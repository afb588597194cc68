/** Where the keyboard focus is, and that it stays there when what has it is drawn away. */

/** What has the focus, if it is in `host`. */
export function focusedIn(host: HTMLElement): HTMLElement | null {
  const root = host.getRootNode();
  const active = root instanceof Document || root instanceof ShadowRoot ? root.activeElement : null;
  return active instanceof HTMLElement && host.contains(active) ? active : null;
}

const CONTROLS = "button:not(:disabled), input:not(:disabled), select:not(:disabled), textarea:not(:disabled), a[href], summary, [tabindex]";

/** What is around these is something else: from there, the focus goes to where one writes. */
const BOUNDS = ".navi-log-frame, .navi-between, .navi-composer, .navi-composer-row";

/** One of the elements around the focus, and what stood beside it there. */
interface Step {
  readonly parent: Element;
  readonly next: Element | null;
  readonly previous: Element | null;
}

/**
 * Keeps the keyboard where it works. When what has the focus is drawn away, the focus goes to what stood beside it (in a
 * list the same button of the next row), else to what is around it. After an answer it goes to the next question, or to
 * what became of this one.
 */
export class FocusKeeper {
  readonly #host: HTMLElement;
  #element: HTMLElement | null = null;
  #interruptId: string | null = null;
  #around: readonly Step[] = [];

  constructor(host: HTMLElement) {
    this.#host = host;
  }

  /** Call before the content changes. */
  hold(): void {
    this.#element = focusedIn(this.#host);
    this.#interruptId = this.#element?.closest<HTMLElement>("[data-navi=ask]")?.dataset["interruptId"] ?? null;
    this.#around = this.#steps();
  }

  /** Call after it has changed. */
  follow(): void {
    const lost = this.#element;
    // A browser takes the focus from what is switched off, and tells none.
    if (lost === null || (lost.isConnected && !lost.matches(":disabled"))) return;
    this.#element = null;
    if (focusedIn(this.#host) !== lost && !isNowhere(this.#host)) return; // something else has taken it, by intent
    const next = this.#question() ?? this.#beside(lost);
    if (!next) return this.#host.focus({ preventScroll: true });
    if (!next.matches(CONTROLS)) next.tabIndex = -1;
    next.focus({ preventScroll: true });
  }

  #steps(): readonly Step[] {
    const steps: Step[] = [];
    for (let at: Element | null = this.#element; at && at !== this.#host && at.parentElement; at = at.parentElement) {
      steps.push({ parent: at.parentElement, next: at.nextElementSibling, previous: at.previousElementSibling });
    }
    return steps;
  }

  #question(): HTMLElement | null {
    const id = this.#interruptId;
    if (id === null) return null;
    const cards = [...this.#host.querySelectorAll<HTMLElement>("[data-navi=ask]")];
    return cards.find(({ dataset }) => dataset["status"] === "open") ?? cards.find(({ dataset }) => dataset["interruptId"] === id) ?? null;
  }

  #beside(lost: HTMLElement): HTMLElement | null {
    const name = lost.dataset["navi"];
    for (const { parent, next, previous } of this.#around) {
      if (parent === this.#host || parent.matches(BOUNDS)) break;
      if (!parent.isConnected) continue;
      for (const place of [next, previous, parent]) {
        const found = place?.isConnected ? controlIn(place, name) : null;
        if (found) return found;
      }
    }
    return null;
  }
}

/** Whether nothing has the focus; a document says that its body has it. */
function isNowhere(host: HTMLElement): boolean {
  const root = host.getRootNode();
  const active = root instanceof Document || root instanceof ShadowRoot ? root.activeElement : null;
  return active === null || active === host.ownerDocument.body;
}

/** The control of that name, else the first one that can have the focus. */
function controlIn(place: Element, name: string | undefined): HTMLElement | null {
  const all = [...(place.matches(CONTROLS) ? [place] : []), ...place.querySelectorAll(CONTROLS)];
  const free = all.filter((each): each is HTMLElement => each instanceof HTMLElement && !each.closest("[hidden], [inert]"));
  return free.find(({ dataset }) => name !== undefined && dataset["navi"] === name) ?? free[0] ?? null;
}

/** A button that is switched off loses the focus without an event: the card that it is in takes it before. */
export function focusCard(): void {
  document.activeElement?.closest<HTMLElement>("[data-navi=ask]")?.focus({ preventScroll: true });
}
