/** How a message is sent while a run is active: a small menu beside the send button. */

import { html, type TemplateResult } from "lit";
import type { Prompt } from "../../protocol/generated.js";
import { icons } from "../lib/icons.js";
import { fitAbove } from "../lib/scroll.js";
import { strings } from "../lib/strings.js";

export type Mode = Extract<NonNullable<Prompt["mode"]>, keyof typeof strings.modes>;

const MODES: readonly Mode[] = ["enqueue", "steer", "interrupt", "rollback", "collect"];

export class ModeMenu {
  readonly #host: HTMLElement;
  readonly #changed: () => void;
  readonly #chosen: () => void;
  mode: Mode = "enqueue";
  #isOpen = false;

  /** `changed`: it has to be drawn again. `chosen`: the user goes on writing. */
  constructor(host: HTMLElement, changed: () => void, chosen: () => void) {
    this.#host = host;
    this.#changed = changed;
    this.#chosen = chosen;
  }

  reset(): void {
    this.mode = "enqueue";
    this.#isOpen = false;
  }

  render(): TemplateResult {
    const { name, what } = strings.modes[this.mode];
    return html`<div class="navi-modes" @keydown=${this.#keydown} @focusout=${this.#left}>
      <button
        type="button"
        class="navi-mode-button"
        data-navi="mode"
        data-mode=${this.mode}
        aria-haspopup="menu"
        aria-expanded=${this.#isOpen ? "true" : "false"}
        aria-label="${strings.modeMenu}: ${name}"
        title="${name}: ${what}"
        @click=${() => this.#open(!this.#isOpen)}
      >
        <span>${name}</span>${icons.chevron}
      </button>
      <div class="navi-menu" role="menu" aria-label=${strings.modeMenu} data-navi="mode-menu" ?hidden=${!this.#isOpen}>
        ${MODES.map((mode) => this.#item(mode))}
        <p class="navi-menu-hint" role="none">${strings.modeHint}</p>
      </div>
    </div>`;
  }

  #item(mode: Mode): TemplateResult {
    const { name, what } = strings.modes[mode];
    return html`<button
      type="button"
      role="menuitemradio"
      aria-checked=${mode === this.mode ? "true" : "false"}
      tabindex="-1"
      data-navi="mode-item"
      data-mode=${mode}
      @click=${() => this.#choose(mode)}
    >
      <b>${name}</b><span>${what}</span>
    </button>`;
  }

  #choose(mode: Mode): void {
    this.mode = mode;
    this.#isOpen = false;
    this.#changed();
    this.#chosen();
  }

  #open(isOpen: boolean): void {
    this.#isOpen = isOpen;
    // Drawn at once, so that the focus can go there.
    const menu = this.#host.querySelector<HTMLElement>("[data-navi=mode-menu]");
    if (menu) menu.hidden = !isOpen;
    if (menu && isOpen) fitAbove(menu);
    if (isOpen) this.#items.find(({ dataset }) => dataset["mode"] === this.mode)?.focus();
    this.#changed();
  }

  get #items(): HTMLElement[] {
    return [...this.#host.querySelectorAll<HTMLElement>("[data-navi=mode-item]")];
  }

  readonly #keydown = (event: KeyboardEvent): void => {
    event.stopPropagation();
    if (!this.#isOpen) {
      if (event.key === "ArrowUp" || event.key === "ArrowDown") {
        event.preventDefault();
        this.#open(true);
      }
      return;
    }
    const items = this.#items;
    const at = items.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      items.at(to % items.length)?.focus();
    } else if (event.key === "Escape") {
      this.#open(false);
      this.#chosen();
    }
  };

  readonly #left = ({ currentTarget, relatedTarget }: FocusEvent): void => {
    if (relatedTarget instanceof Node && !(currentTarget as Element).contains(relatedTarget)) this.close();
  };

  /** Something else was pressed, or has the focus now. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#changed();
  }
}
