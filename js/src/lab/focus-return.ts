/** The way back from a chat to where the user came from: a cell in the mode that it was in, or another place of the page. */

import type { OpenPanel } from "./jupyterlab.js";

export class FocusReturn {
  readonly #panelAt: (element: Element) => OpenPanel | null;
  #element: HTMLElement | null = null;
  #panel: OpenPanel | null = null;
  #mode: "edit" | "command" = "command";
  /** The focus was asked for and has not come yet. */
  #isOnItsWay = false;

  /** `panelAt`: the notebook that an element is in. */
  constructor(panelAt: (element: Element) => OpenPanel | null) {
    this.#panelAt = panelAt;
  }

  /** Remembers where the focus comes from when it comes to `place`. */
  watch(place: HTMLElement): void {
    place.addEventListener("focusin", ({ relatedTarget }) => {
      if (!this.#isOnItsWay) this.#remember(relatedTarget, place);
      this.#isOnItsWay = false;
    });
  }

  /** Remembers what has the focus now: until what is opened is ready for it, the host may have moved it. */
  remember(place: HTMLElement): void {
    this.#isOnItsWay = !place.contains(document.activeElement);
    this.#remember(document.activeElement, place);
  }

  #remember(element: EventTarget | null, place: HTMLElement): void {
    if (!(element instanceof HTMLElement) || element === document.body || place.contains(element)) return;
    this.#element = element;
    this.#panel = this.#panelAt(element);
    // A notebook that loses the focus is in command mode already: whether it was typed into is seen from where.
    this.#mode = element.closest(".jp-InputArea-editor") ? "edit" : "command";
  }

  /** Gives the focus back; to `fallback` in command mode where nothing is remembered. `activate` brings a panel to the front. */
  back(fallback: OpenPanel | null, activate: (panel: OpenPanel) => void): void {
    const panel = this.#panel && !this.#panel.isDisposed ? this.#panel : this.#element?.isConnected ? null : fallback;
    if (!panel) {
      this.#element?.focus();
      return;
    }
    const mode = panel === this.#panel ? this.#mode : "command";
    activate(panel);
    // The host activates a panel with the next frame, and a notebook that gets the focus is in command mode.
    if (mode === "edit") requestAnimationFrame(() => (panel.content.mode = mode));
  }
}
