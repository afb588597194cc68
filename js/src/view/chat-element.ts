/**
 * `<navi-chat session="…">`: one session on the screen. The same element in JupyterLab, Notebook, every anywidget host
 * and our own page. In light DOM, so that a notebook's keyboard rules see `data-lm-suppress-shortcuts` on it.
 *
 * Owns the views and when they are drawn. The session behind them is a `SessionController`.
 */

import { html, LitElement, nothing, type PropertyValues, type TemplateResult } from "lit";
import type { Status } from "../connection/client.js";
import type { SentCommand } from "../connection/outbox.js";
import { readPageConfig } from "../connection/page-config.js";
import { readStored, writeStored } from "../connection/storage.js";
import type { Transport } from "../connection/transport.js";
import { WebSocketTransport } from "../connection/ws.js";
import type { Envelope, Rejection } from "../protocol/generated.js";
import { openInterrupts } from "../state/interrupts.js";
import type { ChatState, Item } from "../state/model.js";
import { openRecalls } from "../state/select.js";
import { totalUsage } from "../state/usage.js";
import { installStyle } from "../style/install.js";
import { Announcer } from "./lib/announcer.js";
import { InterruptCards } from "./conversation/approvals.js";
import { Composer, type Written } from "./composer/composer.js";
import { copyCode } from "./lib/copy.js";
import { emptyNote, header, notice, statusLine, storedConversation, waitingLine } from "./conversation/activity-frame.js";
import { icons } from "./lib/icons.js";
import { LogView } from "./conversation/log.js";
import { whenMathLoads } from "./lib/math.js";
import { Images } from "./conversation/images.js";
import { QueuePanel, splitWaiting } from "./composer/queue.js";
import { BrowserNotices } from "./panels/notifications.js";
import { notifySetting } from "./panels/notify-setting.js";
import { awayCard } from "./recalls/missed.js";
import { runWithLeave } from "./recalls/leave.js";
import { RecallsPanel } from "./recalls/panel.js";
import { tick } from "./recalls/countdown.js";
import { focusCard, focusRun, StickToEnd } from "./lib/scroll.js";
import { SessionController } from "./session-controller.js";
import { SettingsPanel } from "./panels/settings.js";
import { strings } from "./lib/strings.js";
import { ToolCards } from "./conversation/tools.js";
import { Unread } from "./panels/unread.js";
import { asker } from "./lib/zone.js";

/** A notebook moves its outputs about; only an element that stays out of the document this long is gone. Milliseconds. */
const GONE_AFTER = 2_000;
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

  #notice: string | null = null;
  #showRecalls: boolean | null = null;
  #scroll: StickToEnd | null = null;
  #frame = 0;
  #leaving: ReturnType<typeof setTimeout> | undefined;
  #ticking: ReturnType<typeof setInterval> | undefined;
  readonly #controller = new SessionController({
    received: (before, envelopes, isPrelude) => this.#received(before, envelopes, isPrelude),
    rejected: (command, rejection) => this.#rejected(command, rejection),
    counted: (unread) => this.#unread.counted(unread),
    problem: (text) => this.#notify(text),
    redraw: () => this.#redraw(),
  });
  readonly #announcer = new Announcer(() => this.querySelector("[data-navi=announcer]"));
  /** How the prompts that were sent here wait: the log need not say. */
  readonly #modes = new Map<string, string>();
  #openInterrupts = 0;
  readonly #pictures = new Images(() => this.#redraw());
  readonly #asks = new InterruptCards({
    answer: ({ id }, status, payload) =>
      this.#controller.send({ type: "answer", interrupt_id: id, status, ...(payload === undefined ? {} : { payload }) }),
    redraw: () => this.#redraw(),
  });
  readonly #log = new LogView(
    { chooseModel: () => this.#settings.toggle(true), runWithLeave: (id, tools) => void runWithLeave(this.#requests, id, tools), redraw: () => this.#redraw() },
    { asks: this.#asks, tools: new ToolCards(this.#pictures), pictures: this.#pictures },
  );
  readonly #queue = new QueuePanel({
    withdraw: (target) => this.#controller.send({ type: "unqueue", target }),
    edit: (target, text) => this.#controller.send({ type: "edit", target, text }),
    redraw: () => this.#redraw(),
  });
  readonly #requests = {
    transport: () => this.#controller.transport,
    session: () => this.session,
    problem: (text: string) => this.#notify(text),
    redraw: () => this.#redraw(),
  };
  readonly #settings = new SettingsPanel(this.#requests);
  readonly #recalls = new RecallsPanel({ ...this.#requests, showRun: (runId) => void this.#showRun(runId) });
  readonly #unread = new Unread(this, {
    ...this.#requests,
    lookBack: () => this.#controller.lookBack(({ runs, missed }) => this.#controller.away !== null || runs.length > 1 || missed > 0),
    head: () => this.#controller.state.head,
    changed: (count) => {
      this.dispatchEvent(new CustomEvent("navi-unread", { bubbles: true, detail: { count } }));
      this.#redraw();
    },
  });
  readonly #notices = new BrowserNotices({
    session: () => this.session,
    state: () => this.#controller.state,
    isSeen: () => this.#unread.isSeen,
    focus: () => {
      this.scrollIntoView({ block: "nearest" });
      this.focus();
    },
  });
  readonly #composer = new Composer(this, {
    send: (written) => this.#send(written),
    stop: () => this.stop(),
    transport: () => this.#controller.transport,
    problem: (text) => this.#notify(text),
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
    return this.#controller.state;
  }

  get status(): Status {
    return this.#controller.status;
  }

  /** Runs that ended and were not seen. */
  get unread(): number {
    return this.#unread.count;
  }

  send(text: string): SentCommand | undefined {
    return this.#send({ text, mode: null, images: [], files: [] });
  }

  #send({ text, mode, images, files }: Written): SentCommand | undefined {
    this.#notice = null;
    const sent = this.#controller.send({
      type: "prompt",
      text,
      ...asker(),
      ...(mode && mode !== "enqueue" ? { mode } : {}),
      ...(images.length ? { images } : {}),
      ...(files.length ? { files } : {}),
    });
    if (sent && mode) this.#modes.set(sent.command_id, mode);
    this.#scroll?.jump();
    return sent;
  }

  stop(): void {
    const { run } = this.#controller.state;
    if (run && run.status !== "stopping") this.#controller.send({ type: "stop", run_id: run.id });
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
    this.#controller.start();
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
      this.#controller.stop();
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
    this.setAttribute("aria-label", `${strings.name}: ${this.#controller.state.session?.title || strings.name}`);
    this.#scroll?.follow();
    tick(this);
    this.#reportInterrupts();
  }

  /** Hosts show that there are questions; the event says how many. */
  #reportInterrupts(): void {
    const { length } = openInterrupts(this.#controller.state);
    if (length === this.#openInterrupts) return;
    this.#openInterrupts = length;
    this.dispatchEvent(new CustomEvent("navi-asks", { bubbles: true, detail: { open: length } }));
  }

  /** Begins with another session: nothing of the old one stays. */
  #enter(): void {
    this.#log.reset();
    this.#queue.reset();
    this.#settings.reset();
    this.#recalls.reset();
    this.#unread.reset();
    this.#composer.reset();
    this.#modes.clear();
    this.#announcer.reset();
    const config = readPageConfig();
    const transport = this.transport ?? (config ? new WebSocketTransport(config) : null);
    this.#pictures.reset(transport);
    this.#controller.enter(this.session, transport);
    const stored = this.session && transport ? readStored(`recalls:${this.session}`) : null;
    this.#showRecalls = stored === null ? null : stored === "open";
    if (this.isConnected) this.#controller.start();
  }

  #received(before: ChatState, envelopes: readonly Envelope[], isPrelude: boolean): void {
    if (before.gap && isPrelude) this.#notice = strings.restored;
    if (isPrelude) this.#log.invalidate();
    else this.#announcer.announce(before, this.state);
    this.#reportNotebookChanges(envelopes);
    this.#unread.receive(envelopes);
    this.#notices.receive(envelopes);
  }

  /** Hosts show what became of the notebook: an event says that a tool has changed it. */
  #reportNotebookChanges(envelopes: readonly Envelope[]): void {
    const done = envelopes.flatMap(({ event }) => (event.type === "TOOL_CALL_RESULT" ? [event.toolCallId] : []));
    const isOne = (item: Item): boolean => item.kind === "tool" && done.includes(item.id) && OF_NOTEBOOKS.includes(item.name);
    if (done.length && this.#controller.state.items.some(isOne)) this.dispatchEvent(new CustomEvent("navi-notebook", { bubbles: true }));
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

  protected override render(): TemplateResult {
    const state = this.#controller.state;
    const recalls = openRecalls(state);
    const showRecalls = this.#showRecalls ?? recalls.length > 0;
    const outbox = this.#controller.outbox;
    const { panel, inLog, unsent } = splitWaiting(state, outbox, this.#modes);
    const isEmpty = !state.items.length && !state.waiting.length && !outbox.length;
    return html`
      ${header({
        title: state.session?.title || strings.name,
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
        kind: this.#controller.transport?.kind ?? null,
      })}
      ${this.#settings.render(state)}
      <div class="navi-recalls" role="group" data-navi="recalls" aria-label=${strings.recalls} ?hidden=${!showRecalls}>
        ${this.#recalls.render(state, showRecalls)} ${showRecalls ? notifySetting(this.#notices, () => this.#redraw()) : nothing}
      </div>
      ${awayCard(this.#controller.away, { showRun: (runId) => void this.#showRun(runId), dismiss: () => this.#controller.dismissAway() })}
      <div class="navi-log-frame">
        ${statusLine({
          status: this.status,
          unsent: outbox.length,
          loginUrl: this.#controller.transport?.loginUrl ?? "",
          retry: () => this.#controller.reconnect(),
        })}
        <div class="navi-log" data-navi="log" role="log" aria-live="polite" aria-label=${strings.log} tabindex="0">
          ${this.snapshot && state.head === null ? storedConversation(this.snapshot) : nothing}
          ${isEmpty && state.head !== null ? emptyNote((text) => this.#composer.suggest(text)) : nothing}
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
      ${notice(this.#notice, () => this.#notify(null))}
      ${waitingLine(openInterrupts(state).length, () => void this.#showAsk())} ${this.#queue.render(panel)}
      ${this.#composer.render(state.run, !this.#controller.canSend)}
      <div class="navi-hidden" data-navi="announcer" aria-live="polite"></div>
    `;
  }

  /** Leads to the oldest open question. */
  async #showAsk(): Promise<void> {
    const [interrupt] = openInterrupts(this.#controller.state);
    if (!interrupt) return;
    await this.#reveal(interrupt);
    focusCard(this, interrupt.id);
  }

  /** Leads to the first message of a run. */
  async #showRun(runId: string): Promise<void> {
    const item = this.#controller.state.items.find((each) => each.runId === runId);
    if (!item) return;
    await this.#reveal(item);
    focusRun(this, runId);
  }

  /** Draws an item of the log that is folded away. */
  async #reveal(item: Item): Promise<void> {
    this.#scroll?.release();
    if (!this.#log.reveal(this.#controller.state, item)) return;
    this.requestUpdate();
    await this.updateComplete;
  }

  #notify(text: string | null): void {
    this.#notice = text;
    this.#redraw();
  }

  #toggleRecalls(show: boolean): void {
    this.#showRecalls = show;
    if (this.session) writeStored(`recalls:${this.session}`, show ? "open" : "closed");
    this.#redraw();
  }

  readonly #pressed = (event: Event): void => {
    if (!(event.target instanceof Element && event.target.closest(".navi-modes"))) this.#composer.closeMenu();
  };

  readonly #clicked = (event: Event): void => {
    const button = event.target instanceof Element ? event.target.closest<HTMLButtonElement>("[data-navi=copy]") : null;
    if (button) void copyCode(button);
  };
}
