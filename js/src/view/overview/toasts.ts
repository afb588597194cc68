/** `<navi-toasts>`: recalls that have just run in a session that is not in view. One for a page; JupyterLab shows its own. */

import { html, LitElement, nothing, type TemplateResult } from "lit";
import { repeat } from "lit/directives/repeat.js";
import { addStyle, prepareElement } from "../../style/install.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";
import type { RecallNews } from "./news.js";
import { newsText } from "./news-text.js";
import css from "../../style/toasts.css";

addStyle(css);

/** What went well goes away by itself, unless it is pointed at. Milliseconds. */
const SHOWN_FOR = 20_000;
const MOST = 4;

export class NaviToasts extends LitElement {
  /** What had the focus before it came here. */
  #from: HTMLElement | null = null;
  readonly #toasts = new Map<string, { readonly news: RecallNews; readonly goTo: (news: RecallNews) => void }>();

  override connectedCallback(): void {
    super.connectedCallback();
    prepareElement(this);
    this.classList.add("navi");
    this.addEventListener("focusin", this.#entered);
  }

  show(news: RecallNews, goTo: (news: RecallNews) => void): void {
    this.#toasts.set(news.id, { news, goTo });
    for (const id of [...this.#toasts.keys()].slice(0, -MOST)) this.#toasts.delete(id);
    if (news.kind === "done") this.#expire(news.id);
    this.requestUpdate();
  }

  #expire(id: string): void {
    setTimeout(() => (this.matches(":hover, :focus-within") ? this.#expire(id) : this.#dismiss(id)), SHOWN_FOR);
  }

  #dismiss(id: string): void {
    if (!this.#toasts.delete(id)) return;
    const hadFocus = this.querySelector(`[data-id="${CSS.escape(id)}"]`)?.matches(":focus-within") === true;
    this.requestUpdate();
    if (hadFocus) void this.updateComplete.then(() => this.#leave());
  }

  /** The focus goes to the next toast; from the last one back to where it came from. */
  #leave(): void {
    const next = this.querySelector<HTMLElement>("[data-navi=toast-dismiss]");
    if (next) next.focus();
    else if (this.#from?.isConnected) this.#from.focus({ preventScroll: true });
  }

  readonly #entered = ({ relatedTarget }: FocusEvent): void => {
    if (relatedTarget instanceof HTMLElement && !this.contains(relatedTarget)) this.#from = relatedTarget;
  };

  protected override createRenderRoot(): HTMLElement {
    return this;
  }

  /** The region is there before it has something to say: else it is not read out. */
  protected override render(): TemplateResult {
    return html`<div role="status" aria-label=${strings.toasts} data-navi="toasts">
      ${repeat(this.#toasts, ([id]) => id, ([, { news, goTo }]) => this.#toast(news, goTo))}
    </div>`;
  }

  #toast(news: RecallNews, goTo: (news: RecallNews) => void): TemplateResult {
    const text = newsText(news, strings);
    const show = (): void => {
      this.#dismiss(news.id);
      goTo(news);
    };
    return html`<div class="navi-toast" data-navi="toast" data-id=${news.id} data-kind=${news.kind} @keydown=${(event: KeyboardEvent) => event.key === "Escape" && this.#dismiss(news.id)}>
      ${news.kind === "done" ? icons.clock : icons.warning}
      <span class="navi-toast-text"><b dir="auto">${text}</b> <small dir="auto">${news.reason ?? strings.toastIn(news.sessionTitle || strings.overviewUntitled)}</small></span>
      ${news.sessionTitle === null ? nothing : html`<button type="button" class="navi-button" data-navi="toast-show" @click=${show}>${strings.toastShow}</button>`}
      <button type="button" class="navi-icon-button" data-navi="toast-dismiss" aria-label=${strings.toastDismiss(text)} @click=${() => this.#dismiss(news.id)}>${icons.close}</button>
    </div>`;
  }
}

let region: NaviToasts | null = null;

/** The page's region, made at first use; put back where the page has taken it away. */
export function toastRegion(): NaviToasts {
  if (!customElements.get("navi-toasts")) customElements.define("navi-toasts", NaviToasts);
  region ??= document.createElement("navi-toasts") as NaviToasts;
  if (!region.isConnected) document.body.append(region);
  return region;
}
