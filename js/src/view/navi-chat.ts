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
import type { Envelope, Rejection } from "../protocol/generated.js";
import { EMPTY, type ChatState } from "../state/model.js";
import { reduceAll } from "../state/reduce.js";
import { openRecalls } from "../state/select.js";
import { installStyle } from "../style/install.js";
import { Announcer } from "./announcer.js";
import { Composer } from "./composer.js";
import { copyCode } from "./copy.js";
import { emptyNote, header, notice, statusLine } from "./frame.js";
import { icons } from "./icons.js";
import { LogView } from "./log.js";
import { whenMathLoads } from "./math.js";
import { actOnRecall, readAround } from "./requests.js";
import { recallsPanel, tick, type OnRecallAction } from "./recalls.js";
import { sanitize } from "./sanitize.js";
import { StickToEnd } from "./scroll.js";
import { strings } from "./strings.js";

/** A notebook moves its outputs about; only an element that stays away this long is gone. */
const GONE_AFTER = 2_000;
/** When nothing came after opening, there was nothing new, and what is not in the log is read. */
const QUIET_AFTER = 400;

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
  readonly #log = new LogView({
    withdraw: (target) => this.#client?.send({ type: "unqueue", target }),
    redraw: () => this.#redraw(),
  });
  readonly #composer = new Composer(this, { send: (text) => this.send(text), stop: () => this.stop() });

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

  send(text: string): SentCommand | undefined {
    this.#notice = null;
    const sent = this.#client?.send({ type: "prompt", text });
    this.#scroll?.jump();
    return sent;
  }

  stop(): void {
    const { run } = this.#state;
    if (run?.status === "running") this.#client?.send({ type: "stop", run_id: run.id });
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
    this.#ticking ??= setInterval(() => tick(this), 1000);
    this.addEventListener("click", this.#clicked);
    this.#redraw();
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    clearInterval(this.#ticking);
    this.#ticking = undefined;
    this.removeEventListener("click", this.#clicked);
    this.#leaving = setTimeout(() => this.#client?.stop(), GONE_AFTER);
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
  }

  /** Begins with another session: nothing of the old one stays. */
  #enter(): void {
    this.#client?.stop();
    this.#client = null;
    this.#reached = null;
    this.#wasOpen = false;
    this.#state = EMPTY;
    this.#log.reset();
    this.#announcer.reset();
    this.#showRecalls = null;
    const config = readPageConfig();
    const transport = this.transport ?? (config ? new WebSocketTransport(config) : null);
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
    this.#redraw();
  }

  #connectionChanged(): void {
    const isOpen = this.status.state === "open";
    if (isOpen && !this.#wasOpen) {
      this.#mustRead = true;
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
  }

  #rejected(command: SentCommand | undefined, rejection: Rejection): void {
    this.#notice = strings.rejected(rejection.message);
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
    const isEmpty = !state.items.length && !state.waiting.length && !this.#client?.outbox.length;
    return html`
      ${header({
        title: this.#title,
        model: state.session?.model ?? "",
        recalls,
        showRecalls,
        toggleRecalls: () => this.#toggleRecalls(!showRecalls),
        status: this.status,
        kind: this.#reached?.kind ?? null,
      })}
      <div class="navi-recalls" role="group" data-navi="recalls" aria-label=${strings.recalls} ?hidden=${!showRecalls}>
        ${recallsPanel(state, this.#onRecall)}
      </div>
      <div class="navi-log-frame">
        ${statusLine({
          status: this.status,
          unsent: this.#client?.outbox.length ?? 0,
          loginUrl: this.#reached?.loginUrl ?? "",
          retry: () => this.#client?.reconnect(),
        })}
        <div class="navi-log" data-navi="log" role="log" aria-live="polite" aria-label=${strings.log} tabindex="0">
          ${this.#snapshotNodes()} ${isEmpty && state.head !== null ? emptyNote((text) => this.#suggest(text)) : nothing}
          ${this.#log.render(state, this.#client?.outbox ?? [], this.#scroll?.pinned ?? true)}
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
      ${this.#composer.render(state.run, !this.#client || this.status.reason === "gone")}
      <div class="navi-hidden" data-navi="announcer" aria-live="polite"></div>
    `;
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

  readonly #onRecall: OnRecallAction = (recall, action) => {
    if (!this.#reached) return;
    void actOnRecall(this.#reached, recall, action).then((problem) => {
      if (problem === null) return;
      this.#notice = strings.recallFailed(problem);
      this.#redraw();
    });
  };

  readonly #clicked = (event: Event): void => {
    const button = event.target instanceof Element ? event.target.closest<HTMLButtonElement>("[data-navi=copy]") : null;
    if (button) void copyCode(button);
  };
}
