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
import type { Transport } from "../connection/transport.js";
import { WebSocketTransport } from "../connection/ws.js";
import type { ClientNotebook, Envelope, Rejection } from "../protocol/generated.js";
import { openInterrupts } from "../state/interrupts.js";
import type { ChatState, Item } from "../state/model.js";
import { isReader } from "../state/select.js";
import { prepareElement } from "../style/install.js";
import { chatLayout } from "./chat-layout.js";
import { Composer, type Written } from "./composer/composer.js";
import { DRAGS } from "./composer/drops.js";
import { QueuePanel, splitWaiting } from "./composer/queue.js";
import { emptyNote, storedConversation } from "./conversation/activity-frame.js";
import { Calls, Questions } from "./conversation/cards.js";
import { CodeActions } from "./conversation/code-actions.js";
import { Images } from "./conversation/images.js";
import { LogFocus } from "./conversation/log-focus.js";
import { LogView } from "./conversation/log.js";
import { MessageActions } from "./conversation/message-actions.js";
import { features, type ChatContext, type ChatFeature } from "./features.js";
import type { HeaderButton } from "./header.js";
import type { NotebookHost } from "./host.js";
import { HostEvents } from "./host-events.js";
import { Announcer } from "./lib/announcer.js";
import { FocusKeeper } from "./lib/focus.js";
import { Lazy, whenPartsLoad } from "./lib/lazy.js";
import { LogScroll } from "./lib/scroll.js";
import { strings } from "./lib/strings.js";
import { promptClient } from "./lib/zone.js";
import { lazyOverlay, Overlays, type Overlay } from "./overlays.js";
import { Unread } from "./panels/unread.js";
import { Places } from "./places.js";
import { tick } from "./recalls/countdown.js";
import { runWithLeave } from "./recalls/leave.js";
import { SessionStart, type NewSession } from "./new-session.js";
import { SessionController, type Command } from "./session-controller.js";

/** A notebook moves its outputs about; only an element that stays out of the document this long is gone. Milliseconds. */
const GONE_AFTER = 2_000;

export class NaviChat extends LitElement {
  static override properties = {
    session: { type: String, reflect: true },
    transport: { attribute: false },
    snapshot: { attribute: false },
    host: { attribute: false },
    newSession: { attribute: false },
  };

  declare session: string | null;
  /** How to reach the session; by default the server of the page. */
  declare transport: Transport | null;
  /** HTML of the conversation as it was, shown while there is no connection. */
  declare snapshot: string | null;
  /** The notebook of the page; null: the page has none. */
  declare host: NotebookHost | null;
  /** Makes the session when it is needed for the first time; null: the view cannot. */
  declare newSession: NewSession | null;

  #notice: string | null = null;
  #scroll: LogScroll | null = null;
  #frame = 0;
  #ignoreParts: (() => void) | null = null;
  #leaving: ReturnType<typeof setTimeout> | undefined;
  #ticking: ReturnType<typeof setInterval> | undefined;
  readonly #controller = new SessionController({
    received: (before, envelopes, isPrelude) => this.#received(before, envelopes, isPrelude),
    rejected: (command, rejection) => this.#rejected(command, rejection),
    counted: (unread) => this.#unread.counted(unread),
    problem: (text) => this.#notify(text),
    redraw: () => this.#redraw(),
    isAtEnd: () => this.#scroll?.pinned ?? true,
  });
  readonly #announcer = new Announcer((urgency) => this.querySelector(`[data-navi=announcer][aria-live=${urgency}]`));
  /** How the prompts that were sent here wait: the log need not say. */
  readonly #modes = new Map<string, string>();
  readonly #hostEvents = new HostEvents(this);
  readonly #focus = new FocusKeeper(this);
  readonly #overlays = new Overlays(this, () => this.#redraw(), () => this.#start.prepare());
  readonly #headerButtons: HeaderButton[] = [];
  readonly #messageActions = new MessageActions();
  readonly #codeActions = new CodeActions(() => {
    this.#log.invalidate();
    this.#redraw();
  });
  readonly #pictures = new Images(() => this.#redraw());
  readonly #asks = new Questions(
    {
      answer: ({ id }, status, payload) =>
        this.#controller.send({ type: "answer", interrupt_id: id, status, ...(payload === undefined ? {} : { payload }) }),
      redraw: () => this.#redraw(),
    },
    { place: "chat", host: () => this.host },
  );
  readonly #log = new LogView(
    { chooseModel: () => this.#overlays.toggle("settings", true), runWithLeave: (id, tools) => void runWithLeave(this.#requests, id, tools), redraw: () => this.#redraw(), readEarlier: (again) => void this.#controller.readEarlier(again) },
    { asks: this.#asks, tools: new Calls(this.#pictures), pictures: this.#pictures, messageActions: this.#messageActions, codeActions: this.#codeActions },
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
  readonly #places = new Places(this, {
    state: () => this.#controller.state,
    readEarlier: () => this.#controller.readEarlier(false, true),
    problem: (text) => this.#notify(text),
    reveal: (item) => this.#reveal(item),
    uncover: async () => {
      this.#overlays.close(false);
      this.requestUpdate();
      await this.updateComplete;
    },
  });
  readonly #unread = new Unread(this, {
    ...this.#requests,
    lookBack: () => this.#controller.lookBack(({ runs, missed }) => this.#controller.away !== null || runs.length > 1 || missed > 0),
    head: () => (isReader(this.#controller.state) ? null : this.#controller.state.head), // nothing is theirs to be marked
    changed: (count) => {
      this.#hostEvents.reportUnread(count);
      this.#redraw();
    },
  });
  readonly #composer = new Composer(this, {
    send: (written) => this.#send(written),
    stop: () => this.stop(), escape: () => this.#overlays.escape(),
    transport: () => this.#controller.transport,
    problem: (text) => this.#notify(text),
    redraw: () => this.#redraw(),
  });

  readonly #start = new SessionStart(this, this.#composer, { ...this.#requests, send: (command) => void this.#controller.send(command) });

  readonly #features: readonly ChatFeature[];

  readonly #setup = new Lazy(async () => new (await import("./panels/model-setup.js")).ModelSetup(this.#requests));

  constructor() {
    super();
    this.session = null;
    this.transport = null;
    this.snapshot = null;
    this.host = null;
    this.newSession = null;
    const settings = async (): Promise<Overlay> => new (await import("./panels/settings.js")).SettingsPanel(this.#requests);
    this.#overlays.add(lazyOverlay("settings", () => strings.settings, settings, () => this.#redraw()));
    const context: ChatContext = {
      ...this.#requests,
      element: this,
      composer: this.#composer,
      overlays: this.#overlays,
      headerButtons: this.#headerButtons,
      messageActions: this.#messageActions,
      codeActions: this.#codeActions,
      controller: this.#controller,
      state: () => this.#controller.state,
      isSeen: () => this.#unread.isSeen,
      command: (command) => this.#controller.send(command),
      prompt: (written) => this.#send(written),
      places: this.#places,
    };
    this.#features = features.map((make) => make(context));
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

  /** `notebook`: what goes along; by default what the page shows now. */
  send(text: string, notebook?: ClientNotebook | null): SentCommand | undefined {
    return this.#send({ text, mode: null, images: [], files: [] }, notebook);
  }

  #send({ text, mode, images, files, mentions = [], replaces, again }: Written, notebook = this.#shownNotebook()): SentCommand | undefined {
    this.#notice = null;
    const command: Command = {
      type: "prompt",
      text,
      ...promptClient(notebook),
      ...(mode && mode !== "enqueue" ? { mode } : {}),
      ...(images.length ? { images } : {}),
      ...(files.length ? { files } : {}),
      ...(mentions.length ? { mentions } : {}),
      ...(replaces === undefined ? {} : { replaces, ...(again ? { again } : {}) }),
    };
    if (this.#start.wanted) return void this.#start.send(command);
    const sent = this.#controller.send(command);
    if (sent && mode) this.#modes.set(sent.command_id, mode);
    this.#scroll?.jump();
    return sent;
  }

  #shownNotebook(): ClientNotebook | null {
    return this.#features.reduce<ClientNotebook | null>((found, feature) => feature.notebook?.() ?? found, null);
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
    prepareElement(this);
    this.dataset["lmSuppressShortcuts"] = "true";
    this.classList.add("navi");
    this.setAttribute("role", "group"); // no landmark: a notebook may have many
    clearTimeout(this.#leaving);
    this.#ignoreParts ??= whenPartsLoad(() => this.#codeActions.refresh());
    this.#controller.start();
    this.#unread.start();
    this.#ticking ??= setInterval(() => tick(this), 1000);
    this.addEventListener("click", this.#codeActions.clicked);
    this.addEventListener("pointerdown", this.#pressed);
    for (const type of DRAGS) this.addEventListener(type, this.#composer.dragged);
    for (const feature of this.#features) feature.connected?.();
    this.#redraw();
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    clearInterval(this.#ticking);
    this.#ticking = undefined;
    this.removeEventListener("click", this.#codeActions.clicked);
    this.removeEventListener("pointerdown", this.#pressed);
    for (const type of DRAGS) this.removeEventListener(type, this.#composer.dragged);
    this.#unread.stop();
    for (const feature of this.#features) feature.disconnected?.();
    this.#leaving = setTimeout(() => {
      this.#controller.stop();
      this.#ignoreParts?.();
      this.#ignoreParts = null;
      for (const feature of this.#features) feature.gone?.();
    }, GONE_AFTER);
  }

  protected override createRenderRoot(): HTMLElement {
    return this;
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has("session") || changed.has("transport")) this.#enter();
    this.#scroll?.hold();
    this.#focus.hold();
  }

  protected override firstUpdated(): void {
    const log = this.querySelector<HTMLElement>("[data-navi=log]");
    if (!log) return;
    new LogFocus(log, () => this.focus());
    this.#scroll = new LogScroll(log, {
      changed: () => this.#redraw(),
      nearStart: () => this.#log.nearStart(),
      nearEnd: () => this.#log.nearEnd(),
    });
  }

  protected override updated(): void {
    if (this.session || this.newSession) this.#composer.restoreDraft(this.session ?? `new:${this.newSession?.key}`);
    this.setAttribute("aria-label", `${strings.name}: ${this.#controller.state.session?.title || strings.name}`);
    this.#scroll?.follow();
    tick(this);
    this.#focus.follow();
    this.#overlays.drawn();
    this.#hostEvents.reportInterrupts(this.#controller.state);
  }

  /** Begins with another session: nothing of the old one stays. */
  #enter(): void {
    this.#log.reset();
    this.#queue.reset();
    this.#overlays.reset();
    this.#unread.reset();
    this.#composer.reset();
    this.#places.forget();
    this.#setup.peek()?.reset();
    this.#modes.clear();
    this.#announcer.reset();
    const config = readPageConfig();
    const transport = this.transport ?? (config ? new WebSocketTransport(config) : null);
    this.#pictures.reset(transport);
    this.#controller.enter(this.session, transport);
    for (const feature of this.#features) feature.reset?.();
    if (this.isConnected) this.#controller.start();
  }

  #received(before: ChatState, envelopes: readonly Envelope[], isPrelude: boolean): void {
    if (before.gap && isPrelude) this.#notice = strings.restored;
    if (isPrelude) this.#log.invalidate();
    else this.#announcer.announce(before, this.state);
    this.#hostEvents.reportNotebookChanges(this.state, envelopes);
    this.#unread.receive(envelopes);
    for (const feature of this.#features) feature.received?.(before, envelopes, isPrelude);
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
    const outbox = this.#controller.outbox;
    const { panel, inLog, unsent } = splitWaiting(state, outbox, this.#modes);
    const isEmpty = !state.items.length && !state.waiting.length && !outbox.length;
    const kind = this.#controller.transport?.kind ?? null;
    const isPinned = this.#scroll?.pinned ?? true;
    const isNew = this.#start.wanted !== null; // connected, as far as can be known
    const status: Status = isNew ? { state: "open" } : this.status;
    return chatLayout({
      header: { state, overlays: this.#overlays, buttons: this.#headerButtons, unread: this.#unread.count, status, kind },
      overlays: this.#overlays.render(state),
      isCovered: this.#overlays.open !== null,
      cards: this.#features.map((feature) => feature.card?.(state) ?? nothing),
      status: {
        status,
        unsent: outbox.length,
        loginUrl: this.#controller.transport?.loginUrl ?? "",
        retry: () => this.#controller.reconnect(),
      },
      log: html`${this.snapshot && state.head === null ? storedConversation(this.snapshot) : nothing}
      ${isEmpty && !isReader(state) && (isNew || state.head !== null) ? emptyNote((text) => this.#composer.suggest(text), state.session?.model ?? (isNew ? this.#setup.get()?.modelOfNew : null) ?? "", this.#setupCard(isNew ? null : (state.session?.model ?? ""))) : nothing} ${this.#log.render(state, inLog, unsent, isPinned, this.#controller.earlier)}`,
      jump: isPinned ? null : () => this.#scroll?.jump(),
      notice: this.#notice,
      dismissNotice: () => this.#notify(null),
      asks: isReader(state) ? 0 : openInterrupts(state).length,
      showAsk: () => void this.#places.showAsk(),
      aboveComposer: [...this.#features.map((feature) => feature.aboveComposer?.(state) ?? nothing), this.#queue.render(panel)],
      write: () => this.focus(),
      composer: this.#composer.render(state.run, isReader(state) ? "reader" : isNew || this.#controller.canSend ? "none" : "closed"),
    });
  }

  /** Draws an item of the log that is folded away. */
  async #reveal(item: Item): Promise<void> {
    this.#scroll?.release();
    if (!this.#log.reveal(this.#controller.state, item)) return;
    this.requestUpdate();
    await this.updateComplete;
  }

  /** How a model is set up, where an empty conversation has none. */
  #setupCard(model: string | null): unknown {
    const setup = model === null || model === "offline" ? this.#setup.get() : this.#setup.peek(); // how it went stays
    return setup?.card(model);
  }

  #notify(text: string | null): void {
    this.#notice = text;
    this.#redraw();
  }

  readonly #pressed = (event: Event): void => {
    if (!(event.target instanceof Element && event.target.closest(".navi-modes"))) this.#composer.closeMenu();
  };
}
