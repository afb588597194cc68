/**
 * `<navi-question session="…" interrupt="…">`: one question of a run, below the cell that waits for it: its buttons or its
 * form, then what was decided. Answers over REST, so that no kernel is involved: that of the cell is busy.
 *
 * Not responsible for how a card looks (`conversation/approvals`).
 */

import { html, LitElement, nothing, type PropertyValues, type TemplateResult } from "lit";
import { readPageConfig } from "../connection/page-config.js";
import { isOk, type Transport } from "../connection/transport.js";
import { WebSocketTransport } from "../connection/ws.js";
import { isObject, newCommandId } from "../protocol/frames.js";
import { questionOf } from "../state/interrupts.js";
import type { Interrupt } from "../state/model.js";
import { addStyle, prepareElement } from "../style/install.js";
import { InterruptCards, spoken } from "./conversation/approvals.js";
import type { NotebookHost } from "./host.js";
import { FocusKeeper } from "./lib/focus.js";
import { whenPartsLoad } from "./lib/lazy.js";
import { strings } from "./lib/strings.js";
import { tick } from "./recalls/countdown.js";
import css from "../style/question.css";

addStyle(css);

/** How often an open question is read again while the page is visible: the kernel replaces the output of a cell that waits. */
const READ_EVERY = 3_000;
const RETRY_AFTER = [300, 1_000, 3_000];

export class NaviQuestion extends LitElement {
  static override properties = {
    session: { type: String, reflect: true },
    interrupt: { type: String, reflect: true },
    transport: { attribute: false },
    host: { attribute: false },
  };

  declare session: string | null;
  declare interrupt: string | null;
  /** How to reach the server; by default that of the page. */
  declare transport: Transport | null;
  /** The notebook of the page, which knows the cell that is asked about. */
  declare host: NotebookHost | null;

  #question: Interrupt | null = null;
  /** No such question any more: its session was deleted. */
  #isGone = false;
  #problem = "";
  /** What screen readers say of it at once. */
  #said = "";
  #timers: ReturnType<typeof setInterval>[] = [];
  #ignoreParts: (() => void) | null = null;
  readonly #focus = new FocusKeeper(this);
  readonly #cards = new InterruptCards(
    { answer: ({ id }, status, payload) => void this.#answer(id, status, payload), redraw: () => this.requestUpdate() },
    { place: "cell", host: () => this.host },
  );

  constructor() {
    super();
    this.session = null;
    this.interrupt = null;
    this.transport = null;
    this.host = null;
  }

  override connectedCallback(): void {
    super.connectedCallback();
    prepareElement(this);
    this.dataset["lmSuppressShortcuts"] = "true";
    this.classList.add("navi");
    this.#ignoreParts = whenPartsLoad(() => this.requestUpdate());
    this.#timers = [setInterval(() => tick(this), 1_000), setInterval(() => void this.#readAgain(), READ_EVERY)];
    window.addEventListener("focus", this.#readAgain);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.#ignoreParts?.();
    for (const timer of this.#timers) clearInterval(timer);
    window.removeEventListener("focus", this.#readAgain);
  }

  protected override createRenderRoot(): HTMLElement {
    return this;
  }

  protected override willUpdate(changed: PropertyValues<this>): void {
    this.#focus.hold();
    if (!changed.has("session") && !changed.has("interrupt") && !changed.has("transport")) return;
    this.#question = null;
    this.#isGone = false;
    this.#cards.reset();
    void this.#read();
  }

  protected override updated(): void {
    tick(this);
    this.#focus.follow();
  }

  get #path(): string {
    return `sessions/${encodeURIComponent(this.session ?? "")}`;
  }

  get #way(): Transport | null {
    const config = readPageConfig();
    return (this.transport ??= config ? new WebSocketTransport(config) : null);
  }

  /** The question as the server has it now. Without an answer, the next reading is the next try. */
  async #read(): Promise<void> {
    const { session, interrupt } = this;
    if (!session || !interrupt) return;
    const answer = await this.#way?.request("GET", `${this.#path}/interrupts/${encodeURIComponent(interrupt)}`).catch(() => null);
    if (!answer || session !== this.session || interrupt !== this.interrupt) return;
    this.#isGone = answer.status === 404;
    const question = isOk(answer) && isObject(answer.body) ? questionOf(answer.body) : null;
    if (question) this.#settle(question);
    this.requestUpdate();
  }

  readonly #readAgain = async (): Promise<void> => {
    if (!document.hidden && !this.#isGone && (this.#question === null || this.#question.status === "open")) await this.#read();
  };

  #settle(question: Interrupt): void {
    const wasOpen = this.#question?.status === "open";
    this.#question = question;
    const isOpen = question.status === "open";
    if (isOpen && !wasOpen && !this.#isInChat) this.#said = spoken(question);
    if (isOpen !== wasOpen) this.dispatchEvent(new CustomEvent("navi-asks", { bubbles: true, detail: { open: isOpen ? 1 : 0 } }));
  }

  /** A chat of this session in the page says itself what is asked. */
  get #isInChat(): boolean {
    return [...this.ownerDocument.querySelectorAll("navi-chat")].some((chat) => chat.getAttribute("session") === this.session);
  }

  /** The same command id at each try: only the first one that arrives counts. */
  async #answer(id: string, status: "resolved" | "cancelled", payload: unknown): Promise<void> {
    this.#problem = "";
    const command = { type: "answer", command_id: newCommandId(), interrupt_id: id, status, ...(payload === undefined ? {} : { payload }) };
    for (const pause of [...RETRY_AFTER, null]) {
      const answer = await this.#way?.request("POST", `${this.#path}/commands`, command).catch(() => null);
      if (answer && answer.status < 500) {
        if (!isOk(answer)) {
          const message = isObject(answer.body) ? answer.body["message"] : undefined;
          this.#problem = strings.rejected(typeof message === "string" ? message : `HTTP ${answer.status}`);
          this.#cards.unlock(id);
        }
        break;
      }
      if (pause === null) {
        this.#problem = strings.rejected(strings.noServer);
        this.#cards.unlock(id);
      } else await new Promise((resolve) => setTimeout(resolve, pause));
    }
    await this.#read();
  }

  /** The live region is there before it has something to say: else it is not read out. */
  protected override render(): TemplateResult {
    return html`${this.#content()}
      <div class="navi-hidden" data-navi="announcer" aria-live="assertive">${this.#said}</div>`;
  }

  #content(): TemplateResult {
    if (this.#isGone) return html`<p class="navi-note" data-navi="ask-gone">${strings.askGone}</p>`;
    const question = this.#question;
    if (!question) return html`<p class="navi-note">…</p>`;
    return html`${this.#cards.render(question, "")}
    ${this.#problem && question.status === "open" ? html`<p class="navi-ask-problem" role="alert" data-navi="ask-problem">${this.#problem}</p>` : nothing}`;
  }
}
