/**
 * `<navi-panel>`: a chat beside the work, and a bar above it that says of which notebook it is. What it shows is set from
 * outside; what the user wants comes out as events: `navi-pin` (`detail.pinned`), `navi-new`, and `navi-open-session`
 * (`detail.session`), which its list of sessions and lists in the chat emit.
 *
 * Not responsible for which session is shown (`lab/followed-session`).
 */

import { html, LitElement, nothing, type TemplateResult } from "lit";
import { addStyle, prepareElement } from "../../style/install.js";
import type { NaviChat } from "../chat-element.js";
import type { NotebookHost } from "../host.js";
import { strings } from "../lib/strings.js";
import { OPEN_SESSION, SHOW_RUN, type SessionPlace } from "../overview/places.js";
import { loadSessionList, placeOf, type ChosenSession } from "../sessions/feature.js";
import type { NaviSessions } from "../sessions/list-element.js";
import type { NewSession } from "../new-session.js";
import { recallIcons } from "../recalls/icons.js";
import { panelIcons } from "./icons.js";
import css from "../../style/panel.css";

addStyle(css);

export class NaviPanel extends LitElement {
  static override properties = {
    session: { type: String, reflect: true },
    newSession: { attribute: false },
    host: { attribute: false },
    notebook: { type: String, reflect: true },
    isPinned: { attribute: false },
    page: { type: String },
    problem: { attribute: false },
    problemLink: { attribute: false },
    isListing: { state: true },
  };

  declare session: string | null;
  /** Makes the session at the first prompt. Without this and `session` nothing is known yet. */
  declare newSession: NewSession | null;
  /** The notebook that the chat reads and changes; null: none is open here. */
  declare host: NotebookHost | null;
  /** The path of the notebook whose session is shown; null: it is of none. */
  declare notebook: string | null;
  declare isPinned: boolean;
  /** The address of the page with all sessions. */
  declare page: string;
  /** What is wrong, while nothing can be shown. */
  declare problem: string | null;
  /** What can be done about that. */
  declare problemLink: { readonly href: string; readonly text: string } | null;
  /** The list of sessions is shown in the place of the chat. */
  declare isListing: boolean;

  constructor() {
    super();
    this.session = null;
    this.newSession = null;
    this.host = null;
    this.notebook = null;
    this.isPinned = false;
    this.page = "";
    this.problem = null;
    this.problemLink = null;
    this.isListing = false;
  }

  /** The chat; null while nothing is known. */
  get chat(): NaviChat | null {
    return this.querySelector<NaviChat>("navi-chat");
  }

  /** To where the next message is written. */
  override focus(): void {
    this.chat?.focus();
  }

  override connectedCallback(): void {
    super.connectedCallback();
    prepareElement(this);
    this.dataset["lmSuppressShortcuts"] = "true";
    this.classList.add("navi");
  }

  protected override createRenderRoot(): HTMLElement {
    return this;
  }

  protected override render(): TemplateResult {
    const chat = this.session || this.newSession ? this.#conversation() : this.#nothingYet();
    return html`${this.#bar()} ${this.isListing ? this.#list() : nothing} ${chat}`;
  }

  #list(): TemplateResult {
    return html`<navi-sessions .session=${this.session} @navi-session-open=${this.#chosen} @navi-session-gone=${this.#gone} @keydown=${this.#keydown}></navi-sessions>`;
  }

  #toggleList(isListing: boolean): void {
    this.isListing = isListing;
    if (isListing) void this.#focusList();
    else void this.updateComplete.then(() => this.focus());
  }

  /** To the search of the list, when its script is there and it is drawn. */
  async #focusList(): Promise<void> {
    await Promise.all([loadSessionList().catch(() => undefined), this.updateComplete]); // without server there is no list
    const list = this.querySelector<NaviSessions>("navi-sessions");
    await list?.updateComplete;
    list?.focus();
  }

  readonly #chosen = (event: Event): void => {
    const place = placeOf((event as CustomEvent<ChosenSession>).detail);
    this.isListing = false;
    void this.updateComplete.then(async () => {
      if (place.session !== this.session) this.#emit(OPEN_SESSION, place);
      await this.updateComplete;
      // The chat waits until it shows that session, and takes the focus.
      this.chat?.dispatchEvent(new CustomEvent<SessionPlace>(SHOW_RUN, { detail: place }));
    });
  };

  /** The session that is shown was deleted: the host finds another one. */
  readonly #gone = (event: Event): void => {
    if ((event as CustomEvent<{ session: string }>).detail.session === this.session) this.#emit("navi-session-gone");
  };

  readonly #keydown = (event: KeyboardEvent): void => {
    if (event.key === "Escape" && !event.defaultPrevented && !event.isComposing) this.#toggleList(false);
  };

  #conversation(): TemplateResult {
    return html`<navi-chat fill ?hidden=${this.isListing} .session=${this.session} .newSession=${this.newSession} .host=${this.host}></navi-chat>`;
  }

  #nothingYet(): TemplateResult {
    return html`<p class="navi-panel-note" role="status" data-navi="panel-note">${this.problem ?? strings.panelLoading}
      ${this.problemLink ? html`<a class="navi-link" href=${this.problemLink.href} target="_blank" rel="noopener">${this.problemLink.text}</a>` : nothing}
    </p>`;
  }

  #bar(): TemplateResult {
    const { notebook, isPinned, page } = this;
    const name = notebook === null ? strings.panelNoNotebook : (notebook.split("/").at(-1) ?? notebook).replace(/^[^:/]+:/, ""); // a drive's name
    const pin = isPinned ? strings.panelPinned : strings.panelPin;
    return html`<div class="navi-panel-bar" role="group" aria-label=${strings.panelBar} data-navi="panel-bar">
      <button
        type="button"
        class="navi-panel-button"
        data-navi="panel-pin"
        aria-pressed=${isPinned ? "true" : "false"}
        aria-label=${strings.panelPin}
        title=${pin}
        @click=${() => this.#emit("navi-pin", { pinned: !isPinned })}
      >
        ${isPinned ? panelIcons.pinned : panelIcons.pin}
      </button>
      <span class="navi-panel-notebook" data-navi="panel-notebook" dir="auto" title=${notebook === null ? nothing : strings.panelNotebook(notebook)}>${name}</span>
      <button
        type="button"
        class="navi-panel-button"
        data-navi="panel-sessions"
        aria-expanded=${this.isListing ? "true" : "false"}
        aria-label=${strings.sessions}
        title=${strings.sessions}
        @click=${() => this.#toggleList(!this.isListing)}
      >
        ${recallIcons.list}
      </button>
      <button type="button" class="navi-panel-button" data-navi="panel-new" aria-label=${strings.panelNew} title=${strings.panelNew} @click=${() => this.#startNew()}>
        ${panelIcons.plus}
      </button>
      <a class="navi-panel-button" data-navi="panel-page" href=${this.session ? `${page}?session=${encodeURIComponent(this.session)}` : page} target="_blank" rel="noopener" aria-label=${strings.panelPage} title=${strings.panelPage}>
        ${panelIcons.page}
      </a>
    </div>`;
  }

  #startNew(): void {
    this.isListing = false;
    this.#emit("navi-new");
  }

  #emit(type: string, detail: unknown = null): void {
    this.dispatchEvent(new CustomEvent(type, { bubbles: true, detail }));
  }
}
