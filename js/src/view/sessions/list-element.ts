/**
 * `<navi-sessions>`: the sessions of a user, by day, with search over all of them. In the chat's header, in the panel and on
 * the server's own page.
 *
 * Keys: the arrows go from session to session, Enter opens, F2 renames, Delete deletes (with a way back), Escape closes what
 * is open below a session. Emits `navi-session-open` (`detail.session`; `detail.message` and `detail.run`: where something was found) and
 * `navi-session-gone` (`detail.session`: it was deleted). Not responsible for showing a session (`chat-element`).
 */

import { html, LitElement, nothing, type PropertyValues, type TemplateResult } from "lit";
import { repeat } from "lit/directives/repeat.js";
import { readPageConfig } from "../../connection/page-config.js";
import type { Transport } from "../../connection/transport.js";
import { WebSocketTransport } from "../../connection/ws.js";
import type { SessionDetail, SessionInfo } from "../../protocol/generated.js";
import { prepareElement } from "../../style/install.js";
import { icons } from "../lib/icons.js";
import { keepKey } from "../lib/keyboard-guard.js";
import { strings, textOf } from "../lib/strings.js";
import { byDay, merged } from "./days.js";
import { chosenOf } from "./feature.js";
import { SessionRequests, SHOWN, type Format, type Shown } from "./requests.js";
import { sessionRow, type Below, type RowActions } from "./row.js";
import { ShareForm } from "./share.js";

/** How often the list is read again while it is seen. Milliseconds. */
const READ_EVERY = 5_000;
const SEARCH_AFTER = 250;
/** How long what was done can be undone here; a deleted session can be restored for days by its list. Milliseconds. */
const UNDO_FOR = 30_000;
/** So close to its end the list reads on. Pixels. */
const NEAR_END = 400;

interface Undo {
  readonly text: string;
  readonly undo: () => Promise<void>;
}

export class NaviSessions extends LitElement {
  static override properties = {
    session: { type: String, reflect: true },
    transport: { attribute: false },
  };

  /** The session that is shown beside the list. */
  declare session: string | null;
  /** How to reach the server; by default that of the page. */
  declare transport: Transport | null;

  #sessions: readonly SessionInfo[] | null = null;
  #next: string | null = null;
  #isComplete = true;
  #isReadingOn = false;
  #query = "";
  #show: Shown = "active";
  /** Grows with each question to the server, so that an answer that comes late is dropped. */
  #asked = 0;
  #focused: string | null = null;
  #open: { readonly id: string; readonly below: Below } | null = null;
  #undo: Undo | null = null;
  #problem = "";
  #said = "";
  #timer: ReturnType<typeof setInterval> | undefined;
  #searchTimer: ReturnType<typeof setTimeout> | undefined;
  #undoTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #requests = new SessionRequests(
    () => this.#way,
    (text) => this.#report(text),
  );
  readonly #share = new ShareForm(
    this.#requests,
    () => this.requestUpdate(),
    () => this.#toggle(null, null),
  );
  readonly #actions: RowActions = {
    open: (session) => this.#choose(session),
    toggle: (session, below) => this.#toggle(session, below),
    rename: (session, title) => void this.#rename(session, title),
    archive: (session) => void this.#archive(session),
    unarchive: (session) => void this.#change(session, () => this.#requests.do(session.id, "unarchive")),
    fork: (session) => void this.#fork(session),
    remove: (session) => void this.#remove(session),
    restore: (session) => void this.#restore(session),
    save: (session, format: Format) => void this.#requests.export(session, format),
  };

  constructor() {
    super();
    this.session = null;
    this.transport = null;
  }

  /** Where the keyboard begins: the search. */
  override focus(options?: FocusOptions): void {
    this.querySelector<HTMLElement>("[data-navi=sessions-search]")?.focus(options);
  }

  override connectedCallback(): void {
    super.connectedCallback();
    prepareElement(this);
    this.dataset["lmSuppressShortcuts"] = "true";
    this.classList.add("navi");
    this.#timer = setInterval(() => void this.#readAgain(), READ_EVERY);
    window.addEventListener("focus", this.#readAgain);
    void this.#read();
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    clearInterval(this.#timer);
    clearTimeout(this.#searchTimer);
    clearTimeout(this.#undoTimer);
    this.#undo = null;
    window.removeEventListener("focus", this.#readAgain);
  }

  protected override createRenderRoot(): HTMLElement {
    return this;
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has("transport") && changed.get("transport") !== undefined) void this.#read();
  }

  get #way(): Transport | null {
    const config = this.transport ? null : readPageConfig();
    return (this.transport ??= config ? new WebSocketTransport(config) : null);
  }

  // --- what is known -------------------------------------------------------------------------------------------------

  /** The first page, in place of everything. */
  async #read(): Promise<void> {
    const asked = ++this.#asked;
    const page = await this.#requests.list(this.#query, this.#show, null);
    if (asked !== this.#asked || !page) return;
    this.#sessions = page.sessions;
    this.#next = page.next;
    this.#isComplete = page.complete;
    this.#problem = "";
    this.requestUpdate();
  }

  /** What has changed meanwhile. Not while somebody searches: a list that moves under the eyes cannot be read. */
  readonly #readAgain = async (): Promise<void> => {
    if (document.hidden || !this.isConnected || this.#query !== "" || this.#sessions === null || this.offsetParent === null) return;
    const asked = ++this.#asked;
    const page = await this.#requests.list("", this.#show, null, true);
    if (asked !== this.#asked || !page) return;
    this.#sessions = merged(this.#sessions, page.sessions, page.next === null);
    if (page.next === null || this.#sessions.length <= page.sessions.length) this.#next = page.next;
    // An element that moves to another day is drawn anew, and would lose the focus.
    const held = this.ownerDocument.activeElement?.closest<HTMLElement>("[data-session-id]")?.dataset["sessionId"] ?? null;
    this.requestUpdate();
    await this.updateComplete;
    if (held && this.contains(this.querySelector(`[data-session-id="${CSS.escape(held)}"]`)) && !this.contains(this.ownerDocument.activeElement)) await this.#focusRow(held);
  };

  async #readOn(): Promise<void> {
    if (this.#isReadingOn || this.#next === null) return;
    this.#isReadingOn = true;
    const asked = this.#asked;
    const page = await this.#requests.list(this.#query, this.#show, this.#next);
    this.#isReadingOn = false;
    if (asked !== this.#asked || !page) return;
    const known = new Set(this.#sessions?.map(({ id }) => id));
    this.#sessions = [...(this.#sessions ?? []), ...page.sessions.filter(({ id }) => !known.has(id))];
    this.#next = page.next;
    this.requestUpdate();
  }

  // --- what is done --------------------------------------------------------------------------------------------------

  async #rename(session: SessionInfo, title: string): Promise<void> {
    await this.#change(session, () => this.#requests.rename(session.id, title));
  }

  async #archive(session: SessionInfo): Promise<void> {
    const done = await this.#change(session, () => this.#requests.do(session.id, "archive"));
    if (done) this.#offerUndo(strings.sessionArchived(session.title), session, "unarchive");
  }

  async #remove(session: SessionInfo): Promise<void> {
    const done = await this.#change(session, () => this.#requests.delete(session.id));
    if (!done) return;
    this.#offerUndo(strings.sessionDeleted(session.title), session, "restore");
    this.dispatchEvent(new CustomEvent("navi-session-gone", { bubbles: true, detail: { session: session.id } }));
  }

  async #restore(session: SessionInfo): Promise<void> {
    const done = await this.#change(session, () => this.#requests.do(session.id, "restore"));
    if (done) this.#say(strings.sessionUndone(session.title));
  }

  async #fork(session: SessionInfo): Promise<void> {
    await this.#enter(await this.#requests.fork(session.id));
  }

  async #create(): Promise<void> {
    await this.#enter(await this.#requests.create());
  }

  /** One that was made. */
  async #enter(made: SessionDetail | null): Promise<void> {
    if (!made) return;
    this.#open = null;
    await this.#read();
    this.#choose(made);
  }

  /** Does it, reads the list again, and keeps the focus in the list. Whether it was done. */
  async #change(session: SessionInfo, act: () => Promise<unknown>): Promise<boolean> {
    const neighbour = this.#neighbour(session.id, 1) ?? this.#neighbour(session.id, -1);
    const done = (await act()) !== null;
    if (!done) return false;
    this.#open = null;
    await this.#read();
    const stays = this.#sessions?.some(({ id }) => id === session.id);
    await this.#focusRow(stays ? session.id : neighbour);
    return true;
  }

  #offerUndo(text: string, session: SessionInfo, way: "restore" | "unarchive"): void {
    clearTimeout(this.#undoTimer);
    const undo = async (): Promise<void> => {
      this.#undo = null;
      const done = await this.#change(session, () => this.#requests.do(session.id, way));
      if (!done) return;
      this.#say(strings.sessionUndone(session.title));
      await this.#focusRow(session.id);
    };
    this.#undo = { text, undo };
    this.#undoTimer = setTimeout(() => {
      this.#undo = null;
      this.requestUpdate();
    }, UNDO_FOR);
    this.requestUpdate();
  }

  #report(text: string): void {
    this.#problem = text;
    this.requestUpdate();
  }

  #say(text: string): void {
    this.#said = text;
    this.requestUpdate();
  }

  #choose(session: SessionInfo | SessionDetail): void {
    this.dispatchEvent(new CustomEvent("navi-session-open", { bubbles: true, cancelable: true, detail: chosenOf(session) }));
  }

  #toggle(session: SessionInfo | null, below: Below | null): void {
    const before = this.#open?.id;
    this.#open = session && below ? { id: session.id, below } : null;
    if (session && below === "share") this.#share.open(session);
    this.requestUpdate();
    void this.updateComplete.then(() => {
      if (below === "rename") this.querySelector<HTMLInputElement>("[data-navi=session-title-input]")?.select();
      else if (below === "share") this.querySelector<HTMLElement>("[data-navi=session-reader]")?.focus();
      else if (below === "actions") this.querySelector<HTMLElement>(".navi-session-below button")?.focus();
      else if (before) void this.#focusRow(before);
    });
  }

  // --- keys ----------------------------------------------------------------------------------------------------------

  readonly #keydown = (event: KeyboardEvent): void => {
    keepKey(event);
    const target = event.target as HTMLElement;
    const row = target.closest<HTMLElement>("[data-navi=session-row]");
    const session = this.#sessions?.find(({ id }) => id === row?.dataset["sessionId"]);
    if (event.key === "Escape" && this.#open) {
      event.stopPropagation();
      return this.#toggle(null, null);
    }
    const isTyping = target.closest("input, select, .navi-session-below") !== null;
    if (event.key === "ArrowDown" && target.dataset["navi"] === "sessions-search") return this.#go(event, this.#sessions?.[0]?.id ?? null);
    if (!session || isTyping) return;
    const own = session.access === "owner" && session.deleted_at === null;
    if (event.key === "ArrowDown") this.#go(event, this.#neighbour(session.id, 1));
    else if (event.key === "ArrowUp") this.#go(event, this.#neighbour(session.id, -1));
    else if (event.key === "Home") this.#go(event, this.#sessions?.[0]?.id ?? null);
    else if (event.key === "End") this.#go(event, this.#sessions?.at(-1)?.id ?? null);
    else if (event.key === "F2" && own) this.#act(event, () => this.#toggle(session, "rename"));
    else if (event.key === "Delete" && own) this.#act(event, () => void this.#remove(session));
  };

  #go(event: KeyboardEvent, id: string | null): void {
    if (id) this.#act(event, () => void this.#focusRow(id));
  }

  #act(event: KeyboardEvent, act: () => void): void {
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  #neighbour(id: string, step: number): string | null {
    const all = this.#sessions ?? [];
    return all[all.findIndex((session) => session.id === id) + step]?.id ?? null;
  }

  async #focusRow(id: string | null): Promise<void> {
    this.#focused = id;
    this.requestUpdate();
    await this.updateComplete;
    const row = id ? this.querySelector<HTMLElement>(`[data-session-id="${CSS.escape(id)}"] [data-navi=session-open]:not(:disabled)`) : null;
    (row ?? this.querySelector<HTMLElement>(id ? `[data-session-id="${CSS.escape(id)}"] [data-navi=session-actions]` : "[data-navi=sessions-search]"))?.focus();
  }

  // --- drawing -------------------------------------------------------------------------------------------------------

  protected override render(): TemplateResult {
    return html`<section class="navi-sessions" data-navi="session-list" aria-label=${strings.sessions} @keydown=${this.#keydown}>
      ${this.#bar()}
      ${this.#problem ? html`<p class="navi-problem" role="alert" data-navi="sessions-problem">${this.#problem}</p>` : nothing}
      <div class="navi-sessions-list" data-navi="sessions-list" @scroll=${this.#scrolled}>${this.#list()}</div>
      <div class="navi-sessions-undo" role="status" data-navi="sessions-undo" ?hidden=${this.#undo === null}>
        ${this.#undo
          ? html`<span dir="auto">${this.#undo.text}</span>
              <button type="button" class="navi-button" data-navi="session-undo" @click=${() => void this.#undo?.undo()}>${strings.sessionUndo}</button>`
          : nothing}
      </div>
      <div class="navi-hidden" aria-live="polite">${this.#said}</div>
    </section>`;
  }

  #bar(): TemplateResult {
    return html`<div class="navi-sessions-bar">
      <input
        type="search"
        data-navi="sessions-search"
        autocomplete="off"
        dir="auto"
        maxlength="400"
        aria-label=${strings.sessionsSearch}
        placeholder=${strings.sessionsSearch}
        title=${strings.sessionsSearchHint}
        @input=${this.#typed}
      />
      <select data-navi="sessions-show" aria-label=${strings.sessionsShow} @change=${this.#chosen} ?disabled=${this.#query !== ""}>
        ${SHOWN.map((show) => html`<option value=${show} ?selected=${show === this.#show}>${textOf(strings.sessionsShown, show) ?? show}</option>`)}
      </select>
      <button type="button" class="navi-icon-button" data-navi="session-new" aria-label=${strings.sessionsNew} title=${strings.sessionsNew} @click=${() => void this.#create()}>${icons.plus}</button>
    </div>`;
  }

  #list(): TemplateResult {
    const sessions = this.#sessions;
    if (sessions === null) return html`<p class="navi-none navi-late">${strings.sessionsLoading}</p>`;
    const isSearch = this.#query !== "";
    const stop = sessions.some(({ id }) => id === this.#focused) ? this.#focused : (sessions[0]?.id ?? null);
    const row = (session: SessionInfo): TemplateResult => {
      const below = this.#open?.id === session.id ? this.#open.below : null;
      const share = below === "share" ? this.#share.render() : nothing;
      return sessionRow(
        session,
        { isCurrent: session.id === this.session, isTabStop: session.id === stop, isByDay: !isSearch, below, share, canExport: this.#requests.canExport },
        this.#actions,
      );
    };
    const list = (some: readonly SessionInfo[], label: string): TemplateResult => html`<ul aria-label=${label}>${repeat(some, ({ id }) => id, row)}</ul>`;
    return html`
      ${sessions.length === 0 ? html`<p class="navi-none" data-navi="sessions-none">${isSearch ? strings.sessionsNotFound : (textOf(strings.sessionsNone, this.#show) ?? "")}</p>` : nothing}
      ${isSearch
        ? list(sessions, strings.sessionsSearch)
        : repeat(byDay(sessions), ({ key }) => key, ({ name, sessions: some }) => html`<h2 data-navi="sessions-day">${name}</h2>${list(some, name)}`)}
      ${isSearch && !this.#isComplete ? html`<p class="navi-none" data-navi="sessions-incomplete">${strings.sessionsIncomplete}</p>` : nothing}
      ${this.#next !== null ? html`<button type="button" class="navi-link" data-navi="sessions-more" @click=${() => void this.#readOn()}>${strings.sessionsMore}</button>` : nothing}
    `;
  }

  readonly #typed = (event: Event): void => {
    const query = (event.currentTarget as HTMLInputElement).value;
    clearTimeout(this.#searchTimer);
    this.#searchTimer = setTimeout(() => {
      this.#query = query.trim() === "" ? "" : query;
      this.#open = null;
      void this.#read();
    }, SEARCH_AFTER);
  };

  readonly #chosen = (event: Event): void => {
    this.#show = (event.currentTarget as HTMLSelectElement).value as Shown;
    this.#open = null;
    this.#sessions = null;
    this.requestUpdate();
    void this.#read();
  };

  readonly #scrolled = (event: Event): void => {
    const list = event.currentTarget as HTMLElement;
    if (list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_END) void this.#readOn();
  };
}

if (!customElements.get("navi-sessions")) customElements.define("navi-sessions", NaviSessions);
