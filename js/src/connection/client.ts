/**
 * Keeps one view connected to its session: opens, follows by cursor, reconnects after every kind of close, and sends
 * what is in the outbox until it is known to have arrived. Not responsible for what the events mean.
 */

import { isObject, newCommandId, readFrame } from "../protocol/frames.js";
import type { Command, Envelope, Rejection } from "../protocol/generated.js";
import { Backoff } from "./backoff.js";
import { Outbox, type SentCommand } from "./outbox.js";
import { OFF, type Channel, type Transport } from "./transport.js";

export type ConnectionState = "connecting" | "open" | "reconnecting" | "offline" | "closed";

export interface Status {
  readonly state: ConnectionState;
  /** Why it is closed: `gone` is final, the others are tried again when the user comes back from the login or the start. */
  readonly reason?: "gone" | "auth" | "off";
}

export interface ClientListener {
  envelopes(envelopes: readonly Envelope[]): void;
  /** The status or the outbox is another. */
  changed(): void;
  rejected(command: SentCommand | undefined, rejection: Rejection): void;
  /** The highest seq that the view has. */
  head(): number | null;
  isRunning(): boolean;
}

/** A channel that lived this long was a success: the next reconnect starts with a short wait again. */
const STABLE = 5_000;
/** No frame for so long while a run is active: the connection is taken for dead (pings are invisible here). */
const SILENCE = 45_000;
const WATCH_EVERY = 5_000;
const PROBE_PATIENCE = 3_000;
const AUTH_RETRY = 30_000;

export class SessionClient {
  readonly #transport: Transport;
  readonly #session: string;
  readonly #listener: ClientListener;
  readonly #backoff = new Backoff();
  readonly #outbox: Outbox;
  /** command_id -> seq of its acceptance, until the log has been seen up to there. */
  readonly #accepted = new Map<string, number>();
  #channel: Channel | null = null;
  /** When the present channel opened; null while it has not. */
  #openedAt: number | null = null;
  #lastFrameAt = 0;
  #lastWatchAt = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;
  /** Aborted by `stop`; its listeners on window and document go with it. */
  #life: AbortController | null = null;
  #status: Status = { state: "connecting" };

  constructor(transport: Transport, session: string, listener: ClientListener) {
    this.#transport = transport;
    this.#session = session;
    this.#listener = listener;
    this.#outbox = new Outbox(session);
  }

  get status(): Status {
    return this.#status;
  }

  get outbox(): readonly SentCommand[] {
    return this.#outbox.commands;
  }

  start(): void {
    if (this.#life) return;
    this.#life = new AbortController();
    const { signal } = this.#life;
    window.addEventListener("online", () => this.#status.reason !== "gone" && this.reconnect(), { signal });
    window.addEventListener("offline", () => void this.#probe(), { signal });
    window.addEventListener("pageshow", ({ persisted }) => persisted && this.reconnect(), { signal });
    document.addEventListener("visibilitychange", () => !document.hidden && this.#wake(), { signal });
    this.#lastWatchAt = Date.now();
    this.#watch = setInterval(() => this.#checkLiveness(), WATCH_EVERY);
    this.#connect();
  }

  stop(): void {
    this.#life?.abort();
    this.#life = null;
    clearInterval(this.#watch);
    this.#drop();
  }

  /** Sends a command as soon as it can be sent, as often as it takes. */
  send(command: Command): SentCommand {
    const sent: SentCommand = { ...command, command_id: command.command_id ?? newCommandId() };
    this.#outbox.add(sent);
    if (this.#openedAt !== null) this.#channel?.send(JSON.stringify(sent));
    this.#listener.changed();
    return sent;
  }

  /** Gives up on a command. */
  forget(commandId: string): void {
    if (this.#outbox.take(commandId)) this.#listener.changed();
  }

  /** A new channel now, whatever there is; the cursor makes that cheap. */
  reconnect(): void {
    if (!this.#life) return;
    this.#backoff.reset();
    this.#drop();
    this.#connect();
  }

  // --- the channel ---------------------------------------------------------------------------------------------------

  #connect(): void {
    clearTimeout(this.#retry);
    this.#setWaiting();
    this.#channel = this.#transport.open(this.#session, this.#listener.head(), {
      opened: () => this.#opened(),
      frame: (text) => this.#receive(text),
      closed: (code) => void this.#closed(code),
    });
  }

  #drop(): void {
    clearTimeout(this.#retry);
    this.#channel?.close();
    this.#channel = null;
    this.#openedAt = null;
  }

  #opened(): void {
    this.#openedAt = this.#lastFrameAt = Date.now();
    this.#setStatus({ state: "open" });
    for (const command of this.#outbox.commands) this.#channel?.send(JSON.stringify(command));
  }

  async #closed(code: number): Promise<void> {
    const opened = this.#openedAt;
    this.#drop();
    if (opened !== null && Date.now() - opened >= STABLE) this.#backoff.reset();
    const channelLife = this.#life;
    this.#setWaiting();
    this.#retry = setTimeout(() => this.#connect(), this.#backoff.next());
    // Refused before it opened, or closed by policy: the browser does not learn why, so the server is asked.
    if (opened === null || code === 1008) {
      const status = await this.#sessionStatus();
      if (this.#life !== channelLife || this.#channel !== null) return;
      this.#judge(status);
    }
  }

  #judge(status: number | null): void {
    if (status === 404) {
      clearTimeout(this.#retry);
      this.#setStatus({ state: "closed", reason: "gone" });
    } else if (status === 401 || status === 403 || status === OFF) {
      clearTimeout(this.#retry);
      this.#retry = setTimeout(() => this.#connect(), AUTH_RETRY);
      this.#setStatus({ state: "closed", reason: status === OFF ? "off" : "auth" });
    } else if (this.#status.reason) {
      this.#status = { state: "connecting" };
      this.#setWaiting();
    }
  }

  async #sessionStatus(): Promise<number | null> {
    try {
      return (await this.#transport.request("GET", `sessions/${encodeURIComponent(this.#session)}`)).status;
    } catch {
      return null; // no server: the retry that is already planned is right
    }
  }

  #receive(text: string): void {
    this.#lastFrameAt = Date.now();
    const frame = readFrame(text);
    switch (frame.kind) {
      case "envelopes":
        this.#listener.envelopes(frame.envelopes);
        this.#settle(frame.envelopes);
        return;
      case "accepted":
        this.#accepted.set(frame.accepted.command_id, frame.accepted.seq);
        this.#settle([]);
        return;
      case "rejected": {
        const { command_id: id } = frame.rejected;
        this.#listener.rejected(id === null ? undefined : this.#outbox.take(id), frame.rejected);
        this.#listener.changed();
        return;
      }
      case "unknown":
        return;
    }
  }

  /**
   * Takes out of the outbox what has arrived. An accepted prompt stays until the log has been seen up to its
   * acceptance, so that it does not vanish from the screen in between.
   */
  #settle(envelopes: readonly Envelope[]): void {
    if (!this.#outbox.commands.length) return;
    const head = this.#listener.head() ?? -1;
    const arrived = envelopes.flatMap(commandIdsIn);
    for (const [id, seq] of this.#accepted) if (seq <= head) arrived.push(id);
    for (const { command_id: id, type } of this.#outbox.commands) {
      if (type !== "prompt" && this.#accepted.has(id)) arrived.push(id);
    }
    for (const id of arrived) this.#accepted.delete(id);
    if (arrived.filter((id) => this.#outbox.take(id)).length) this.#listener.changed();
  }

  // --- liveness ------------------------------------------------------------------------------------------------------

  #checkLiveness(): void {
    const now = Date.now();
    const slept = !document.hidden && now - this.#lastWatchAt > SILENCE;
    this.#lastWatchAt = now;
    if (this.#openedAt === null) return;
    const silent = this.#listener.isRunning() && now - this.#lastFrameAt > SILENCE;
    if (slept || silent) this.reconnect();
  }

  #wake(): void {
    if (this.#openedAt !== null) this.#checkLiveness();
    else if (this.#status.reason !== "gone") this.reconnect();
  }

  /** The browser says it is offline; a server on this machine may be reachable all the same. */
  async #probe(): Promise<void> {
    const channel = this.#channel;
    const late = new Promise<never>((_, reject) => setTimeout(() => reject(new Error("late")), PROBE_PATIENCE));
    try {
      await Promise.race([this.#transport.request("GET", "health"), late]);
    } catch {
      if (!this.#life || this.#channel !== channel) return;
      this.#drop();
      this.#setWaiting();
      this.#retry = setTimeout(() => this.#connect(), this.#backoff.next());
    }
  }

  #setWaiting(): void {
    if (this.#status.reason) return; // that is what the user has to know until it is otherwise
    const state = this.#listener.head() === null ? "connecting" : "reconnecting";
    this.#setStatus({ state: navigator.onLine ? state : "offline" });
  }

  #setStatus(status: Status): void {
    if (status.state === this.#status.state && status.reason === this.#status.reason) return;
    this.#status = status;
    this.#listener.changed();
  }
}

function commandIdsIn({ event }: Envelope): string[] {
  switch (event.type) {
    case "TEXT_MESSAGE_END":
      return [event.messageId]; // a prompt's message has its command's id
    case "MESSAGES_SNAPSHOT":
      return event.messages.map(({ id }) => String(id));
    case "CUSTOM": {
      const { command_id: id } = event.value;
      return isObject(event.value) && typeof id === "string" ? [id] : [];
    }
    default:
      return [];
  }
}
