/**
 * The session that a view shows: which one it is, and what the view does with it. The session itself is shared with the
 * other views of the page.
 */

import type { Status } from "../connection/client.js";
import type { SentCommand } from "../connection/outbox.js";
import type { Transport } from "../connection/transport.js";
import type { Away } from "../protocol/generated.js";
import { EMPTY, type ChatState } from "../state/model.js";
import type { EarlierStatus } from "./conversation/log.js";
import { shareSession, type Command, type SessionHooks, type SharedSession } from "./shared-session.js";

export type { Command, SessionHooks } from "./shared-session.js";

export class SessionController {
  readonly #hooks: SessionHooks;
  #session: string | null = null;
  #transport: Transport | null = null;
  #shared: SharedSession | null = null;

  constructor(hooks: SessionHooks) {
    this.#hooks = hooks;
  }

  get state(): ChatState {
    return this.#shared?.state ?? EMPTY;
  }

  get status(): Status {
    return this.#shared?.status ?? { state: "closed" };
  }

  /** The way to the present session, or to the server where there is none yet; null where there is no server. */
  get transport(): Transport | null {
    return this.#shared?.transport ?? this.#transport;
  }

  get outbox(): readonly SentCommand[] {
    return this.#shared?.outbox ?? [];
  }

  /** Whether prompts have somewhere to go: false without a connection, and once the session is gone. */
  get canSend(): boolean {
    return this.#shared !== null && this.status.reason !== "gone";
  }

  /** Whether there is more before the first item of the state. */
  get earlier(): EarlierStatus {
    return this.#shared?.earlier ?? "none";
  }

  /** What happened while the user was away; null when that was nothing, or was dismissed. */
  get away(): Away | null {
    return this.#shared?.away ?? null;
  }

  /** Leaves the present session, of which nothing stays, and goes to another one (if there is one to go to). */
  enter(session: string | null, transport: Transport | null): void {
    this.#shared?.leave(this.#hooks);
    this.#session = session;
    this.#transport = transport;
    this.#shared = session && transport ? shareSession(session, transport) : null;
    this.#shared?.join(this.#hooks);
  }

  /** The view is in a document. It goes on where it was, or with what other views have. */
  start(): void {
    if (this.#shared === null || this.#session === null) return;
    this.#shared = shareSession(this.#session, this.#shared.transport, this.#shared);
    this.#shared.join(this.#hooks);
    this.#shared.show(this.#hooks);
  }

  /** It has left, for good as it seems. */
  stop(): void {
    this.#shared?.leave(this.#hooks);
  }

  reconnect(): void {
    this.#shared?.reconnect();
  }

  send(command: Command): SentCommand | undefined {
    return this.#shared?.send(command, this.#hooks);
  }

  /** Whether more of the conversation is known now. `many`: on the way to something far away. Never rejects. */
  async readEarlier(again = false, many = false): Promise<boolean> {
    return (await this.#shared?.readEarlier(again, many)) ?? false;
  }

  dismissAway(): void {
    this.#shared?.dismissAway();
  }

  /** Reads what happened while the user was away; shows it if it `isWorth` a card and differs from the last one. */
  async lookBack(isWorth: (away: Away) => boolean): Promise<void> {
    await this.#shared?.lookBack(isWorth);
  }
}
