/**
 * One session as all its views in a page share it: its connection, the state that its log folds to, and what is read
 * beside the log. Twenty chats on one session need one socket.
 *
 * Not responsible for drawing (`chat-element`), or for which session a view shows (`session-controller`).
 */

import { SessionClient, type Status } from "../connection/client.js";
import type { SentCommand } from "../connection/outbox.js";
import { isOk, type Transport } from "../connection/transport.js";
import { isObject } from "../protocol/frames.js";
import type { Away, Envelope, Rejection, TranscriptPage } from "../protocol/generated.js";
import { withEarlier, withoutDistant } from "../state/earlier.js";
import { EMPTY, type ChatState } from "../state/model.js";
import { reduceAll } from "../state/reduce.js";
import { isReader } from "../state/select.js";
import type { EarlierStatus } from "./conversation/log.js";
import { readAround } from "./lib/requests.js";
import { browserZone } from "./lib/zone.js";
import { readAway } from "./recalls/requests.js";

/** When nothing came after opening, there was nothing new, and what is not in the log is read. Milliseconds. */
const QUIET_AFTER = 400;
/** Sources of a session's zone that no user has looked at. */
const GUESSES = ["default", "kernel"];
/** Messages of one page of the conversation. */
const EARLIER_PAGE = 150;
/** On the way to a place that may be far away. */
const LARGE_PAGE = 1000;
/** Items of a state whose users read the end of the conversation: more than that, and the first are dropped until so many stay. */
const MOST_ITEMS = 900;
const KEPT_ITEMS = 300;

export type Command = Parameters<SessionClient["send"]>[0];

/** What a view is told. */
export interface SessionHooks {
  /** New envelopes are in the state; `before` is the state without them. */
  received: (before: ChatState, envelopes: readonly Envelope[], isPrelude: boolean) => void;
  rejected: (command: SentCommand | undefined, rejection: Rejection) => void;
  /** How many runs the server counts as unread. */
  counted: (unread: number) => void;
  problem: (text: string) => void;
  redraw: () => void;
  /** Whether the view shows the end of the conversation, and needs nothing that is far from it. */
  isAtEnd: () => boolean;
}

const shared = new Map<string, SharedSession>();

/** The session for one more view: the one that others have, if they reach it in the same way; else `own`, or a new one. */
export function shareSession(session: string, transport: Transport, own?: SharedSession | null): SharedSession {
  if (transport.shareKey === undefined) return own ?? new SharedSession(session, transport);
  const key = JSON.stringify([transport.shareKey, session]);
  const found = shared.get(key) ?? own ?? new SharedSession(session, transport, () => shared.delete(key));
  shared.set(key, found);
  return found;
}

export class SharedSession {
  readonly transport: Transport;
  readonly #session: string;
  readonly #client: SessionClient;
  readonly #ended: () => void;
  /** The views, those of them that are in a document, and which of them sent a command. */
  readonly #views = new Set<SessionHooks>();
  readonly #shown = new Set<SessionHooks>();
  readonly #senders = new Map<string, SessionHooks>();
  #state: ChatState = EMPTY;
  #wasOpen = false;
  #readTimer: ReturnType<typeof setTimeout> | undefined;
  /** Set when a channel opens or a prelude comes: what is not in the log has to be read. */
  #mustRead = false;
  #earlier: "idle" | "reading" | "failed" = "idle";
  #reading = Promise.resolve(false);
  #away: Away | null = null;
  #hasReadAway = false;
  /** What the last away card showed, so that it is not shown again once it was dismissed. */
  #lastAway = "";

  /** `ended`: no view is left. */
  constructor(session: string, transport: Transport, ended = (): void => {}) {
    this.transport = transport;
    this.#session = session;
    this.#ended = ended;
    this.#client = new SessionClient(transport, session, {
      envelopes: (envelopes) => this.#receive(envelopes),
      changed: () => this.#connectionChanged(),
      rejected: (command, rejection) => this.#rejected(command, rejection),
      head: () => this.#state.head,
      isRunning: () => this.#state.run !== null,
    });
  }

  get state(): ChatState {
    return this.#state;
  }

  get status(): Status {
    return this.#client.status;
  }

  get outbox(): readonly SentCommand[] {
    return this.#client.outbox;
  }

  /** Whether there is more before the first item of the state, and whether it is being read. */
  get earlier(): EarlierStatus {
    if (this.#state.earlier === null) return "none";
    return this.#earlier === "idle" ? "more" : this.#earlier;
  }

  /** What happened while the user was away; null when that was nothing, or was dismissed. */
  get away(): Away | null {
    return this.#away;
  }

  // --- the views -----------------------------------------------------------------------------------------------------

  join(view: SessionHooks): void {
    if (this.#views.has(view)) return;
    this.#views.add(view);
    // What others were told when it came; how much is unread is among what is read.
    if (this.#state.head !== null) void this.#read();
  }

  leave(view: SessionHooks): void {
    this.hide(view);
    if (this.#views.delete(view) && !this.#views.size) this.#ended();
  }

  /** The view is in a document: the session has a connection. */
  show(view: SessionHooks): void {
    this.#shown.add(view);
    this.#client.start();
  }

  hide(view: SessionHooks): void {
    if (this.#shown.delete(view) && !this.#shown.size) this.#client.stop();
  }

  #tell(what: (view: SessionHooks) => void): void {
    for (const view of [...this.#views]) what(view);
  }

  #redraw(): void {
    this.#tell((view) => view.redraw());
  }

  // --- what views ask for --------------------------------------------------------------------------------------------

  reconnect(): void {
    this.#client.reconnect();
  }

  send(command: Command, view: SessionHooks): SentCommand {
    const sent = this.#client.send(command);
    this.#senders.set(sent.command_id, view);
    return sent;
  }

  /**
   * Reads the page before the first item of the state; whether it is there. `again`: also where that has failed; `many`: a
   * large page. Never rejects.
   */
  readEarlier(again: boolean, many = false): Promise<boolean> {
    const cursor = this.#state.earlier?.cursor;
    if (this.#earlier === "reading") return this.#reading;
    if (cursor === undefined || (this.#earlier === "failed" && !again)) return Promise.resolve(false);
    this.#earlier = "reading";
    this.#redraw();
    return (this.#reading = this.#readPage(cursor, many ? LARGE_PAGE : EARLIER_PAGE));
  }

  async #readPage(cursor: string, limit: number): Promise<boolean> {
    const path = `sessions/${encodeURIComponent(this.#session)}/transcript?before=${encodeURIComponent(cursor)}&limit=${limit}`;
    const answer = await this.transport.request("GET", path).catch(() => null);
    const page = answer && isOk(answer) && isObject(answer.body) ? (answer.body as unknown as TranscriptPage) : null;
    this.#earlier = page === null ? "failed" : "idle";
    if (page !== null) this.#state = withEarlier(this.#state, page, cursor);
    this.#redraw();
    return page !== null;
  }

  dismissAway(): void {
    this.#away = null;
    this.#redraw();
  }

  /** Reads what happened while the user was away; shows it if it `isWorth` a card and differs from the last one. */
  async lookBack(isWorth: (away: Away) => boolean): Promise<void> {
    const problem = (text: string): void => this.#tell((view) => view.problem(text));
    const requests = { transport: () => this.transport, session: () => this.#session, problem, redraw: () => this.#redraw() };
    const away = await readAway(requests, this.#session);
    if (away === null) return;
    const content = JSON.stringify([away.runs.map(({ run_id: id, status }) => [id, status]), away.not_run]);
    if (content === this.#lastAway || !isWorth(away)) return;
    this.#lastAway = content;
    this.#away = away;
    this.#redraw();
  }

  // --- what comes ----------------------------------------------------------------------------------------------------

  #receive(envelopes: readonly Envelope[]): void {
    const before = this.#state;
    this.#state = reduceAll(before, envelopes);
    if (this.#state.items.length > MOST_ITEMS && [...this.#views].every((view) => view.isAtEnd())) {
      this.#state = withoutDistant(this.#state, KEPT_ITEMS);
    }
    const isPrelude = envelopes.some(({ snapshot, event }) => snapshot && event.type === "MESSAGES_SNAPSHOT");
    if (isPrelude || this.#mustRead) void this.#read();
    this.#tell((view) => view.received(before, envelopes, isPrelude));
    this.#redraw();
  }

  #rejected(command: SentCommand | undefined, rejection: Rejection): void {
    const sender = command && this.#senders.get(command.command_id);
    if (command) this.#senders.delete(command.command_id);
    if (sender && this.#views.has(sender)) sender.rejected(command, rejection);
    else this.#tell((view) => view.rejected(command, rejection));
  }

  /** A session that has only a guess of a machine somewhere gets the zone of the browser that its user looks at. */
  async #nameZone(): Promise<void> {
    const zone = browserZone();
    if (zone === null || isReader(this.#state) || !GUESSES.includes(this.#state.session?.zoneSource ?? "")) return;
    // Where it cannot be named, it goes along with each prompt all the same.
    const path = `sessions/${encodeURIComponent(this.#session)}`;
    await this.transport.request("PATCH", path, { timezone: zone, timezone_source: "browser" }).catch(() => null);
  }

  #connectionChanged(): void {
    const isOpen = this.status.state === "open";
    if (isOpen && !this.#wasOpen) {
      this.#mustRead = true;
      if (this.#earlier === "failed") this.#earlier = "idle";
      this.#hasReadAway = false; // the server may have been off
      clearTimeout(this.#readTimer);
      this.#readTimer = setTimeout(() => this.#mustRead && void this.#read(), QUIET_AFTER);
    }
    this.#wasOpen = isOpen;
    this.#redraw();
  }

  /** Reads what is not in the log: the title, recalls that are over, how finished runs ended. */
  async #read(): Promise<void> {
    this.#mustRead = false;
    const merge = await readAround(this.transport, this.#session, this.#state.head ?? 0);
    if (!this.#views.size) return;
    this.#state = merge(this.#state);
    this.#redraw();
    void this.#nameZone();
    const { unread } = merge;
    if (unread === null) return;
    // Asked before it is marked as seen: the server answers with what came after that.
    if (unread || !this.#hasReadAway) await this.lookBack(({ missed }) => unread > 0 || missed > 0);
    this.#hasReadAway = true;
    this.#tell((view) => view.counted(unread));
    this.#redraw();
  }
}
