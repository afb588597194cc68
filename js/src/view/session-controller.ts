/**
 * One session behind a view: its connection, the state that its log folds to, and what is read beside the log.
 *
 * Not responsible for drawing (`chat-element`).
 */

import { SessionClient, type Status } from "../connection/client.js";
import type { SentCommand } from "../connection/outbox.js";
import type { Transport } from "../connection/transport.js";
import type { Away, Envelope, Rejection } from "../protocol/generated.js";
import { EMPTY, type ChatState } from "../state/model.js";
import { reduceAll } from "../state/reduce.js";
import { readAround } from "./lib/requests.js";
import { browserZone } from "./lib/zone.js";
import { readAway } from "./recalls/requests.js";

/** When nothing came after opening, there was nothing new, and what is not in the log is read. Milliseconds. */
const QUIET_AFTER = 400;
/** Sources of a session's zone that no user has looked at. */
const GUESSES = ["default", "kernel"];

export type Command = Parameters<SessionClient["send"]>[0];

export interface SessionHooks {
  /** New envelopes are in the state; `before` is the state without them. */
  received: (before: ChatState, envelopes: readonly Envelope[], isPrelude: boolean) => void;
  rejected: (command: SentCommand | undefined, rejection: Rejection) => void;
  /** How many runs the server counts as unread. */
  counted: (unread: number) => void;
  problem: (text: string) => void;
  redraw: () => void;
}

export class SessionController {
  readonly #hooks: SessionHooks;
  #session: string | null = null;
  #transport: Transport | null = null;
  #client: SessionClient | null = null;
  #state: ChatState = EMPTY;
  #wasOpen = false;
  #readTimer: ReturnType<typeof setTimeout> | undefined;
  /** Set when a channel opens or a prelude comes: what is not in the log has to be read. */
  #mustRead = false;
  #away: Away | null = null;
  #hasReadAway = false;
  /** What the last away card showed, so that it is not shown again once it was dismissed. */
  #lastAway = "";

  constructor(hooks: SessionHooks) {
    this.#hooks = hooks;
  }

  get state(): ChatState {
    return this.#state;
  }

  get status(): Status {
    return this.#client?.status ?? { state: "closed" };
  }

  /** The transport of the present client; null where there is no session or no server. */
  get transport(): Transport | null {
    return this.#transport;
  }

  get outbox(): readonly SentCommand[] {
    return this.#client?.outbox ?? [];
  }

  /** Whether prompts have somewhere to go: false without a client, and once the session is gone. */
  get canSend(): boolean {
    return this.#client !== null && this.status.reason !== "gone";
  }

  /** What happened while the view was away; null when that was nothing, or was dismissed. */
  get away(): Away | null {
    return this.#away;
  }

  /** Leaves the present session, of which nothing stays, and connects to another one (if there is one to connect to). */
  enter(session: string | null, transport: Transport | null): void {
    this.#client?.stop();
    this.#client = null;
    this.#transport = null;
    this.#session = session;
    this.#state = EMPTY;
    this.#wasOpen = false;
    this.#away = null;
    this.#hasReadAway = false;
    this.#lastAway = "";
    if (!session || !transport) return;
    this.#transport = transport;
    this.#client = new SessionClient(transport, session, {
      envelopes: (envelopes) => this.#receive(envelopes),
      changed: () => this.#connectionChanged(),
      rejected: (command, rejection) => this.#hooks.rejected(command, rejection),
      head: () => this.#state.head,
      isRunning: () => this.#state.run !== null,
    });
  }

  start(): void {
    this.#client?.start();
  }

  stop(): void {
    this.#client?.stop();
  }

  reconnect(): void {
    this.#client?.reconnect();
  }

  send(command: Command): SentCommand | undefined {
    return this.#client?.send(command);
  }

  dismissAway(): void {
    this.#away = null;
    this.#hooks.redraw();
  }

  /** Reads what happened while the view was away; shows it if it `isWorth` a card and differs from the last one. */
  async lookBack(isWorth: (away: Away) => boolean): Promise<void> {
    const session = this.#session;
    const requests = { transport: () => this.#transport, session: () => session, problem: this.#hooks.problem, redraw: this.#hooks.redraw };
    const away = session ? await readAway(requests, session) : null;
    if (away === null || session !== this.#session) return;
    const content = JSON.stringify([away.runs.map(({ run_id: id, status }) => [id, status]), away.not_run]);
    if (content === this.#lastAway || !isWorth(away)) return;
    this.#lastAway = content;
    this.#away = away;
    this.#hooks.redraw();
  }

  #receive(envelopes: readonly Envelope[]): void {
    const before = this.#state;
    this.#state = reduceAll(before, envelopes);
    const isPrelude = envelopes.some(({ snapshot, event }) => snapshot && event.type === "MESSAGES_SNAPSHOT");
    if (isPrelude || this.#mustRead) void this.#read();
    this.#hooks.received(before, envelopes, isPrelude);
    this.#hooks.redraw();
  }

  /** A session that has only a guess of a machine somewhere gets the zone of the browser that its user looks at. */
  async #nameZone(transport: Transport, session: string): Promise<void> {
    const zone = browserZone();
    if (zone === null || !GUESSES.includes(this.#state.session?.zoneSource ?? "")) return;
    // Where it cannot be named, it goes along with each prompt all the same.
    await transport.request("PATCH", `sessions/${encodeURIComponent(session)}`, { timezone: zone, timezone_source: "browser" }).catch(() => null);
  }

  #connectionChanged(): void {
    const isOpen = this.status.state === "open";
    if (isOpen && !this.#wasOpen) {
      this.#mustRead = true;
      this.#hasReadAway = false; // the server may have been off
      clearTimeout(this.#readTimer);
      this.#readTimer = setTimeout(() => this.#mustRead && void this.#read(), QUIET_AFTER);
    }
    this.#wasOpen = isOpen;
    this.#hooks.redraw();
  }

  /** Reads what is not in the log: the title, recalls that are over, how finished runs ended. */
  async #read(): Promise<void> {
    this.#mustRead = false;
    const session = this.#session;
    const transport = this.#transport;
    if (!session || !transport) return;
    const merge = await readAround(transport, session, this.#state.head ?? 0);
    if (session !== this.#session) return;
    this.#state = merge(this.#state);
    this.#hooks.redraw();
    void this.#nameZone(transport, session);
    const { unread } = merge;
    if (unread === null) return;
    // Asked before it is marked as seen: the server answers with what came after that.
    if (unread || !this.#hasReadAway) await this.lookBack(({ missed }) => unread > 0 || missed > 0);
    if (session !== this.#session) return;
    this.#hasReadAway = true;
    this.#hooks.counted(unread);
    this.#hooks.redraw();
  }
}
