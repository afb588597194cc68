/**
 * `<navi-chat session="…">`: one session on the screen. The same element in JupyterLab, Notebook, every anywidget host
 * and our own page. In light DOM, so that a notebook's keyboard rules see `data-lm-suppress-shortcuts` on it.
 *
 * Owns the life of the connection and of the drawing; what is drawn is in the modules beside this one.
 */

import { html, LitElement, nothing, type PropertyValues, type TemplateResult } from "lit";
import { SessionClient, type Status } from "../connection/client.js";
import type { SentCommand } from "../connection/outbox.js";
import { readPageConfig } from "../connection/page-config.js";
import { readStored, writeStored } from "../connection/storage.js";
import type { Transport } from "../connection/transport.js";
import { WebSocketTransport } from "../connection/ws.js";
import type { Away, Envelope, Rejection } from "../protocol/generated.js";
import { openAsks } from "../state/interrupts.js";
import { EMPTY, type ChatState, type Item } from "../state/model.js";
import { reduceAll } from "../state/reduce.js";
import { openRecalls } from "../state/select.js";
import { totalUsage } from "../state/usage.js";
import { installStyle } from "../style/install.js";
import { Announcer } from "./lib/announcer.js";
import { AskCards } from "./conversation/approvals.js";
import { Composer, type Written } from "./composer/composer.js";
import { copyCode } from "./lib/copy.js";
import { emptyNote, header, notice, statusLine, waitingLine } from "./conversation/activity-frame.js";
import { icons } from "./lib/icons.js";
import { LogView } from "./conversation/log.js";
import { whenMathLoads } from "./lib/math.js";
import { Pictures } from "./conversation/images.js";
import { QueuePanel, splitWaiting } from "./composer/queue.js";
import { BrowserNotices } from "./panels/notifications.js";
import { notifySetting } from "./panels/notify-setting.js";
import { awayCard } from "./recalls/missed.js";
import { RecallsPanel } from "./recalls/panel.js";
import { readAway } from "./recalls/requests.js";
import { readAround } from "./lib/requests.js";
import { tick } from "./recalls/countdown.js";
import { sanitize } from "./lib/sanitize.js";
import { StickToEnd } from "./lib/scroll.js";
import { SettingsPanel } from "./panels/settings.js";
import { strings } from "./lib/strings.js";
import { ToolCards } from "./conversation/tools.js";
import { Unread } from "./panels/unread.js";

/** A notebook moves its outputs about; only an element that stays away this long is gone. */
const GONE_AFTER = 2_000;
/** When nothing came after opening, there was nothing new, and what is not in the log is read. */
const QUIET_AFTER = 400;

/** The tools that change notebooks. */
const OF_NOTEBOOKS = ["edit_cell", "insert_cell", "delete_cell", "run_cell"];

const DRAGS = ["dragenter", "dragover", "dragleave", "drop"] as const;

export class NaviChat extends LitElement {
  static override properties = {
    session: { type: String, reflect: true },
    transport: { attribute: false },
    snapshot: { attribute: false },
  };

  declare session: string | null;
  /** How to reach the session; by default the server of the page. */
  declare transport: Transport | null;
  /** HTML of the conversation as it was, shown while there is no connection. */
  declare snapshot: string | null;

  #state: ChatState = EMPTY;
  #client: SessionClient | null = null;
  /** The transport of the present client. */
  #reached: Transport | null = null;
  #wasOpen = false;
  #notice: string | null = null;
  #showRecalls: boolean | null = null;
  #scroll: StickToEnd | null = null;
  #frame = 0;
  #leaving: ReturnType<typeof setTimeout> | undefined;
  #ticking: ReturnType<typeof setInterval> | undefined;
  #readTimer: ReturnType<typeof setTimeout> | undefined;
  /** Set when a channel opens or a prelude comes: what is not in the log has to be read. */
  #mustRead = false;
  readonly #announcer = new Announcer(() => this.querySelector("[data-navi=announcer]"));
  /** How the prompts that were sent here wait: the log need not say. */
  readonly #modes = new Map<string, string>();
  #openAsks = 0;
  readonly #pictures = new Pictures(() => this.#redraw());
  readonly #asks = new AskCards({
    answer: ({ id }, status, payload) =>
      this.#client?.send({ type: "answer", interrupt_id: id, status, ...(payload === undefined ? {} : { payload }) }),
    redraw: () => this.#redraw(),
  });
  readonly #log = new LogView(
    { chooseModel: () => this.#settings.toggle(true), redraw: () => this.#redraw() },
    { asks: this.#asks, tools: new ToolCards(this.#pictures), pictures: this.#pictures },
  );
  readonly #queue = new QueuePanel({
    withdraw: (target) => this.#client?.send({ type: "unqueue", target }),
    edit: (target, text) => this.#client?.send({ type: "edit", target, text }),
    redraw: () => this.#redraw(),
  });
  readonly #settings = new SettingsPanel({
    transport: () => this.#reached,
    session: () => this.session,
    problem: (text) => this.#tell(text),
    redraw: () => this.#redraw(),
  });
  readonly #desk = {
    transport: () => this.#reached,
    session: () => this.session,
    problem: (text: string) => this.#tell(text),
    redraw: () => this.#redraw(),
  };
  readonly #recalls = new RecallsPanel({ ...this.#desk, showRun: (runId) => void this.#showRun(runId) });
  /** What happened while nobody looked; null when that was nothing, or was put away. */
  #away: Away | null = null;
  #hasLookedBack = false;
  /** What the last card told, so that it is not told again once it is put away. */
  #lookedBackAt = "";
  readonly #unread = new Unread(this, {
    ...this.#desk,
    lookBack: () => this.#lookBack(({ runs, missed }) => this.#away !== null || runs.length > 1 || missed > 0),
    head: () => this.#state.head,
    changed: (count) => {
      this.dispatchEvent(new CustomEvent("navi-unread", { bubbles: true, detail: { count } }));
      this.#redraw();
    },
  });
  readonly #notices = new BrowserNotices({
    session: () => this.session,
    state: () => this.#state,
    isSeen: () => this.#unread.isSeen,
    focus: () => {
      this.scrollIntoView({ block: "nearest" });
      this.focus();
    },
  });
  readonly #composer = new Composer(this, {
    send: (written) => this.#send(written),
    stop: () => this.stop(),
    transport: () => this.#reached,
    problem: (text) => this.#tell(text),
    redraw: () => this.#redraw(),
  });

  constructor() {
    super();
    this.session = null;
    this.transport = null;
    this.snapshot = null;
    whenMathLoads(() => {
      this.#log.invalidate();
      this.#redraw();
    });
  }

  /** The conversation as this view knows it. */
  get state(): ChatState {
    return this.#state;
  }

  get status(): Status {
    return this.#client?.status ?? { state: "closed" };
  }

  /** Runs that ended and that nobody has seen. */
  get unread(): number {
    return this.#unread.count;
  }

  send(text: string): SentCommand | undefined {
    return this.#send({ text, mode: null, images: [], files: [] });
  }

  #send({ text, mode, images, files }: Written): SentCommand | undefined {
    this.#notice = null;
    const sent = this.#client?.send({
      type: "prompt",
      text,
      ...(mode && mode !== "enqueue" ? { mode } : {}),
      ...(images.length ? { images } : {}),
      ...(files.length ? { files } : {}),
    });
    if (sent && mode) this.#modes.set(sent.command_id, mode);
    this.#scroll?.jump();
    return sent;
  }

  stop(): void {
    const { run } = this.#state;
    if (run && run.status !== "stopping") this.#client?.send({ type: "stop", run_id: run.id });
  }

  override focus(): void {
    this.#composer.focus();
  }

  // --- life ----------------------------------------------------------------------------------------------------------

  override connectedCallback(): void {
    super.connectedCallback();
    installStyle(this);
    this.dataset["lmSuppressShortcuts"] = "true";
    this.classList.add("navi");
    this.setAttribute("role", "group"); // no landmark: a notebook may have many
    clearTimeout(this.#leaving);
    this.#client?.start();
    this.#unread.start();
    this.#notices.start();
    this.#ticking ??= setInterval(() => tick(this), 1000);
    this.addEventListener("click", this.#clicked);
    this.addEventListener("pointerdown", this.#pressed);
    for (const type of DRAGS) this.addEventListener(type, this.#composer.dragged);
    this.#redraw();
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    clearInterval(this.#ticking);
    this.#ticking = undefined;
    this.removeEventListener("click", this.#clicked);
    this.removeEventListener("pointerdown", this.#pressed);
    for (const type of DRAGS) this.removeEventListener(type, this.#composer.dragged);
    this.#unread.stop();
    this.#leaving = setTimeout(() => {
      this.#client?.stop();
      this.#notices.stop();
    }, GONE_AFTER);
  }

  protected override createRenderRoot(): HTMLElement {
    return this;
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has("session") || changed.has("transport")) this.#enter();
  }

  protected override firstUpdated(): void {
    const log = this.querySelector<HTMLElement>("[data-navi=log]");
    if (log) this.#scroll = new StickToEnd(log, () => this.#redraw());
  }

  protected override updated(changed: PropertyValues<this>): void {
    if (changed.has("session") && this.session) this.#composer.restoreDraft(this.session);
    this.setAttribute("aria-label", `${strings.name}: ${this.#title}`);
    this.#scroll?.follow();
    tick(this);
    this.#tellOfAsks();
  }

  /** Hosts show that there are questions; the event says how many. */
  #tellOfAsks(): void {
    const { length } = openAsks(this.#state);
    if (length === this.#openAsks) return;
    this.#openAsks = length;
    this.dispatchEvent(new CustomEvent("navi-asks", { bubbles: true, detail: { open: length } }));
  }

  /** Begins with another session: nothing of the old one stays. */
  #enter(): void {
    this.#client?.stop();
    this.#client = null;
    this.#reached = null;
    this.#wasOpen = false;
    this.#state = EMPTY;
    this.#log.reset();
    this.#queue.reset();
    this.#settings.reset();
    this.#recalls.reset();
    this.#unread.reset();
    this.#away = null;
    this.#hasLookedBack = false;
    this.#lookedBackAt = "";
    this.#composer.reset();
    this.#modes.clear();
    this.#announcer.reset();
    this.#showRecalls = null;
    const config = readPageConfig();
    const transport = this.transport ?? (config ? new WebSocketTransport(config) : null);
    this.#pictures.reset(transport);
    if (!this.session || !transport) return;
    const stored = readStored(`recalls:${this.session}`);
    this.#showRecalls = stored === null ? null : stored === "open";
    this.#client = new SessionClient(transport, this.session, {
      envelopes: (envelopes) => this.#receive(envelopes),
      changed: () => this.#connectionChanged(),
      rejected: (command, rejection) => this.#rejected(command, rejection),
      head: () => this.#state.head,
      isRunning: () => this.#state.run !== null,
    });
    this.#reached = transport;
    if (this.isConnected) this.#client.start();
  }

  #receive(envelopes: readonly Envelope[]): void {
    const before = this.#state;
    this.#state = reduceAll(before, envelopes);
    const isPrelude = envelopes.some(({ snapshot, event }) => snapshot && event.type === "MESSAGES_SNAPSHOT");
    if (before.gap && isPrelude) this.#notice = strings.restored;
    if (isPrelude) this.#log.invalidate();
    else this.#announcer.announce(before, this.#state);
    if (isPrelude || this.#mustRead) void this.#read();
    this.#tellOfNotebooks(envelopes);
    this.#unread.receive(envelopes);
    this.#notices.receive(envelopes);
    this.#redraw();
  }

  /** Hosts show what became of the notebook. */
  #tellOfNotebooks(envelopes: readonly Envelope[]): void {
    const done = envelopes.flatMap(({ event }) => (event.type === "TOOL_CALL_RESULT" ? [event.toolCallId] : []));
    const isOne = (item: Item): boolean => item.kind === "tool" && done.includes(item.id) && OF_NOTEBOOKS.includes(item.name);
    if (done.length && this.#state.items.some(isOne)) this.dispatchEvent(new CustomEvent("navi-notebook", { bubbles: true }));
  }

  #connectionChanged(): void {
    const isOpen = this.status.state === "open";
    if (isOpen && !this.#wasOpen) {
      this.#mustRead = true;
      this.#hasLookedBack = false; // the server may have been off
      clearTimeout(this.#readTimer);
      this.#readTimer = setTimeout(() => this.#mustRead && void this.#read(), QUIET_AFTER);
    }
    this.#wasOpen = isOpen;
    this.#redraw();
  }

  /** Reads what the log does not tell: the title, recalls that are over, how finished runs ended. */
  async #read(): Promise<void> {
    this.#mustRead = false;
    const { session } = this;
    const transport = this.#reached;
    if (!session || !transport) return;
    const merge = await readAround(transport, session, this.#state.head ?? 0);
    if (session !== this.session) return;
    this.#state = merge(this.#state);
    this.#redraw();
    const { unread } = merge;
    if (unread === null) return;
    // Asked before it is marked as seen: the server answers with what came after that.
    if (unread || !this.#hasLookedBack) await this.#lookBack(({ missed }) => unread > 0 || missed > 0);
    if (session !== this.session) return;
    this.#hasLookedBack = true;
    this.#unread.counted(unread);
    this.#redraw();
  }

  /** Shows what happened while nobody looked, if it `isWorth` a card and is not what the last one told. */
  async #lookBack(isWorth: (away: Away) => boolean): Promise<void> {
    const { session } = this;
    const away = session ? await readAway(this.#desk, session) : null;
    if (away === null || session !== this.session) return;
    const told = JSON.stringify([away.runs.map(({ run_id: id, status }) => [id, status]), away.not_run]);
    if (told === this.#lookedBackAt || !isWorth(away)) return;
    this.#lookedBackAt = told;
    this.#away = away;
    this.#redraw();
  }

  #rejected(command: SentCommand | undefined, rejection: Rejection): void {
    this.#notice = strings.rejected(rejection.message);
    if (command?.type === "answer") this.#asks.unlock(command.interrupt_id);
    if (command?.type === "prompt" && this.#composer.text === "") this.#composer.text = command.text;
  }

  // --- drawing -------------------------------------------------------------------------------------------------------

  /** At most once per frame; a hidden page has no frames. */
  #redraw(): void {
    if (this.#frame) return;
    const draw = (): void => {
      this.#frame = 0;
      this.requestUpdate();
    };
    this.#frame = document.hidden ? window.setTimeout(draw, 250) : requestAnimationFrame(draw);
  }

  get #title(): string {
    return this.#state.session?.title || strings.name;
  }

  protected override render(): TemplateResult {
    const state = this.#state;
    const recalls = openRecalls(state);
    const showRecalls = this.#showRecalls ?? recalls.length > 0;
    const outbox = this.#client?.outbox ?? [];
    const { panel, inLog, unsent } = splitWaiting(state, outbox, this.#modes);
    const isEmpty = !state.items.length && !state.waiting.length && !outbox.length;
    return html`
      ${header({
        title: this.#title,
        model: state.session?.model ?? "",
        profile: state.session?.profile ?? "",
        usage: totalUsage(state),
        servers: Object.values(state.mcp),
        showSettings: this.#settings.isOpen,
        toggleSettings: () => this.#settings.toggle(),
        unread: this.#unread.count,
        recalls,
        showRecalls,
        toggleRecalls: () => this.#toggleRecalls(!showRecalls),
        status: this.status,
        kind: this.#reached?.kind ?? null,
      })}
      ${this.#settings.render(state)}
      <div class="navi-recalls" role="group" data-navi="recalls" aria-label=${strings.recalls} ?hidden=${!showRecalls}>
        ${this.#recalls.render(state, showRecalls)} ${showRecalls ? notifySetting(this.#notices, () => this.#redraw()) : nothing}
      </div>
      ${awayCard(this.#away, this.#awayActions)}
      <div class="navi-log-frame">
        ${statusLine({
          status: this.status,
          unsent: outbox.length,
          loginUrl: this.#reached?.loginUrl ?? "",
          retry: () => this.#client?.reconnect(),
        })}
        <div class="navi-log" data-navi="log" role="log" aria-live="polite" aria-label=${strings.log} tabindex="0">
          ${this.#snapshotNodes()} ${isEmpty && state.head !== null ? emptyNote((text) => this.#suggest(text)) : nothing}
          ${this.#log.render(state, inLog, unsent, this.#scroll?.pinned ?? true)}
        </div>
        <button
          type="button"
          class="navi-jump"
          data-navi="jump"
          ?hidden=${this.#scroll?.pinned ?? true}
          @click=${() => this.#scroll?.jump()}
          aria-label=${strings.jumpToLatest}
          title=${strings.jumpToLatest}
        >
          ${icons.down}
        </button>
      </div>
      ${notice(this.#notice, () => {
        this.#notice = null;
        this.#redraw();
      })}
      ${waitingLine(openAsks(state).length, () => void this.#showAsk())} ${this.#queue.render(panel)}
      ${this.#composer.render(state.run, !this.#client || this.status.reason === "gone")}
      <div class="navi-hidden" data-navi="announcer" aria-live="polite"></div>
    `;
  }

  /** Leads to the oldest open question. */
  async #showAsk(): Promise<void> {
    const [ask] = openAsks(this.#state);
    if (!ask) return;
    this.#scroll?.release();
    if (this.#log.reveal(this.#state, ask)) {
      this.requestUpdate();
      await this.updateComplete;
    }
    const card = [...this.querySelectorAll<HTMLElement>("[data-navi=ask]")].find(({ dataset }) => dataset["interruptId"] === ask.id);
    for (let outer = card?.closest("details"); outer; outer = outer.parentElement?.closest("details")) outer.open = true;
    card?.scrollIntoView({ block: "nearest" });
    card?.focus({ preventScroll: true });
  }

  #tell(text: string): void {
    this.#notice = text;
    this.#redraw();
  }

  /** What was said before, until the log is there. */
  #snapshotNodes(): TemplateResult | typeof nothing {
    if (!this.snapshot || this.#state.head !== null) return nothing;
    return html`<div class="navi-snapshot" data-navi="snapshot">
      <p class="navi-none navi-late">${strings.readOnly}</p>
      ${sanitize(this.snapshot, strings.remoteImage)}
    </div>`;
  }

  #suggest(text: string): void {
    this.#composer.text = text;
    this.#composer.focus();
  }

  #toggleRecalls(show: boolean): void {
    this.#showRecalls = show;
    if (this.session) writeStored(`recalls:${this.session}`, show ? "open" : "closed");
    this.#redraw();
  }

  readonly #awayActions = {
    showRun: (runId: string): void => void this.#showRun(runId),
    dismiss: (): void => {
      this.#away = null;
      this.#redraw();
    },
  };

  /** Leads to the beginning of what a run said. */
  async #showRun(runId: string): Promise<void> {
    const item = this.#state.items.find((each) => each.runId === runId);
    if (!item) return;
    this.#scroll?.release();
    if (this.#log.reveal(this.#state, item)) {
      this.requestUpdate();
      await this.updateComplete;
    }
    const messages = this.querySelectorAll<HTMLElement>("[data-navi=log] [data-navi=message]");
    const shown = [...messages].find(({ dataset }) => dataset["runId"] === runId);
    shown?.scrollIntoView({ block: "start" });
    if (shown && !shown.hasAttribute("tabindex")) shown.tabIndex = -1;
    shown?.focus({ preventScroll: true });
  }

  readonly #pressed = (event: Event): void => {
    if (!(event.target instanceof Element && event.target.closest(".navi-modes"))) this.#composer.closeMenu();
  };

  readonly #clicked = (event: Event): void => {
    const button = event.target instanceof Element ? event.target.closest<HTMLButtonElement>("[data-navi=copy]") : null;
    if (button) void copyCode(button);
  };
}
