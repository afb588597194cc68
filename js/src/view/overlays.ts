/**
 * The panels that open over the conversation, of which one is open at a time: settings, recalls, and those that features
 * add. They take no room from the conversation or the composer, however small the view is. Escape closes, and the focus
 * goes back to what had it.
 */

import { html, nothing, type TemplateResult } from "lit";
import type { ChatState } from "../state/model.js";
import { focusedIn } from "./lib/focus.js";
import { icons } from "./lib/icons.js";
import { keepKey } from "./lib/keyboard-guard.js";
import { bringIntoSight } from "./lib/scroll.js";
import { strings } from "./lib/strings.js";

export interface Overlay {
  /** Its `data-navi`, unique in the view. */
  readonly name: string;
  /** What has the focus when it opens, as a selector; where there is none, the first thing that can have it. */
  readonly first?: string;
  /** What it is called, for its bar and for screen readers. */
  label(): string;
  /** What is in it. Called only while it is open. */
  render(state: ChatState): unknown;
  /** It was opened: what it shows can be read from the server. */
  opened?(): void;
  closed?(): void;
  /** Another session is shown: nothing of the old one stays. */
  reset?(): void;
}

/** An overlay whose content is a part of the bundle that is loaded when it is first opened. */
export function lazyOverlay(name: string, label: () => string, load: () => Promise<Pick<Overlay, "render" | "opened" | "closed" | "reset">>, redraw: () => void): Overlay {
  let part: Pick<Overlay, "render" | "opened" | "closed" | "reset"> | null = null;
  let problem = false;
  const open = async (): Promise<void> => {
    problem = false;
    try {
      part ??= await load();
    } catch {
      problem = true; // the next opening tries again
    }
    part?.opened?.();
    redraw();
  };
  return {
    name,
    label,
    render: (state) => part?.render(state) ?? html`<p class="navi-none" role="status">${problem ? strings.notLoaded(strings.noServer) : strings.loading}</p>`,
    opened: () => void open(),
    closed: () => part?.closed?.(),
    reset: () => part?.reset?.(),
  };
}

const FOCUSABLE = "button:not(:disabled), input:not(:disabled), select, textarea, a[href], summary, [tabindex='0']";

export class Overlays {
  readonly #host: HTMLElement;
  readonly #redraw: () => void;
  readonly #prepare: () => Promise<boolean> | null;
  readonly #all: Overlay[] = [];
  #open: Overlay | null = null;
  /** What had the focus when it was opened. */
  #opener: HTMLElement | null = null;
  /** Opened, and not in the document yet. */
  #mustFocus = false;

  /** `prepare`: what has to be done before one can be opened, and whether it was; null: nothing. */
  constructor(host: HTMLElement, redraw: () => void, prepare: () => Promise<boolean> | null = () => null) {
    this.#host = host;
    this.#redraw = redraw;
    this.#prepare = prepare;
    // Wherever in the view the focus is, unless something there has had the key.
    host.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && !event.isComposing && this.escape()) event.stopPropagation();
    });
  }

  add(overlay: Overlay): void {
    this.#all.push(overlay);
  }

  /** The name of the one that is open. */
  get open(): string | null {
    return this.#open?.name ?? null;
  }

  toggle(name: string, isOpen = this.open !== name): void {
    const overlay = this.#all.find((each) => each.name === name) ?? null;
    if (overlay === null || isOpen === (this.#open === overlay)) return;
    if (!isOpen) return this.close();
    const prepared = this.#prepare();
    if (prepared) return void prepared.then((isReady) => isReady && this.toggle(name, true));
    const from = focusedIn(this.#host);
    if (this.#open === null || !this.#element(this.#open.name)?.contains(from)) this.#opener = from;
    this.#open?.closed?.();
    this.#open = overlay;
    this.#mustFocus = true;
    overlay.opened?.();
    this.#redraw();
  }

  /** `returns`: the focus goes back to where it was, unless it has gone elsewhere by itself. */
  close(returns = true): void {
    const closed = this.#open;
    if (closed === null) return;
    const element = this.#element(closed.name);
    const hadFocus = element?.contains(focusedIn(this.#host)) === true;
    this.#open = null;
    this.#mustFocus = false;
    closed.closed?.();
    const opener = this.#opener;
    this.#opener = null;
    if (returns && hadFocus && opener?.isConnected) opener.focus();
    this.#redraw();
  }

  /** The key Escape where nothing nearer takes it. Whether an overlay was closed. */
  escape(): boolean {
    if (this.#open === null) return false;
    this.close();
    return true;
  }

  /** Another session is shown. */
  reset(): void {
    this.#open?.closed?.();
    this.#open = this.#opener = null;
    this.#mustFocus = false;
    for (const overlay of this.#all) overlay.reset?.();
  }

  render(state: ChatState): TemplateResult {
    return html`<div class="navi-scrim" ?hidden=${this.#open === null} @click=${() => this.close()}></div>
      ${this.#all.map((overlay) => this.#panel(overlay, state))}`;
  }

  /** Call after each drawing. */
  drawn(): void {
    if (!this.#mustFocus || this.#open === null) return;
    const panel = this.#element(this.#open.name);
    const body = panel?.querySelector(".navi-overlay-body") ?? null;
    const own = this.#open.first === undefined ? null : body?.querySelector<HTMLElement>(this.#open.first);
    const first = own ?? body?.querySelector<HTMLElement>(FOCUSABLE) ?? null;
    const now = focusedIn(this.#host);
    // What is still being loaded is focused when it is there, unless the user has gone elsewhere.
    this.#mustFocus = first === null && (now === panel || now === this.#opener);
    (first ?? panel)?.focus({ preventScroll: true });
    if (body && first) bringIntoSight(body, first, "nearest");
  }

  #panel(overlay: Overlay, state: ChatState): TemplateResult {
    const isOpen = overlay === this.#open;
    return html`<section
      class="navi-overlay navi-${overlay.name}"
      role="dialog"
      data-navi=${overlay.name}
      aria-label=${overlay.label()}
      tabindex="-1"
      ?hidden=${!isOpen}
      @keydown=${this.#keydown}
    >
      ${isOpen
        ? html`<div class="navi-overlay-bar">
              <h3>${overlay.label()}</h3>
              <button type="button" class="navi-icon-button" data-navi="overlay-close" aria-label=${strings.closePanel} title=${strings.closePanel} @click=${() => this.close()}>
                ${icons.close}
              </button>
            </div>
            <div class="navi-overlay-body">${overlay.render(state)}</div>`
        : nothing}
    </section>`;
  }

  #element(name: string): HTMLElement | null {
    return this.#host.querySelector<HTMLElement>(`.navi-overlay[data-navi="${name}"]`);
  }

  readonly #keydown = (event: KeyboardEvent): void => {
    keepKey(event);
    if (event.key === "Escape" && !event.defaultPrevented && !event.isComposing) this.close();
  };
}
