/** A view without session: the first thing that needs one makes it. */

import { isOk, type Transport } from "../connection/transport.js";
import type { NaviChat } from "./chat-element.js";
import type { Composer } from "./composer/composer.js";
import { strings } from "./lib/strings.js";
import type { Command } from "./session-controller.js";

/** How a view without session gets one; set by the page around it. */
export interface NewSession {
  /** Under which the draft of the first prompt is kept. */
  readonly key: string;
  /** Makes the session; the answer is its id. Rejects with a reason that can be shown. */
  create(): Promise<string>;
}

export interface NewSessionActions {
  transport(): Transport | null;
  problem(text: string): void;
  /** Sends a command to the session that the view shows. */
  send(command: Command): void;
}

export class SessionStart {
  readonly #chat: NaviChat;
  readonly #composer: Composer;
  readonly #actions: NewSessionActions;
  #work: Promise<string> | null = null;

  constructor(chat: NaviChat, composer: Composer, actions: NewSessionActions) {
    this.#chat = chat;
    this.#composer = composer;
    this.#actions = actions;
  }

  /** How the view gets a session; null: it has one, or cannot get one. */
  get wanted(): NewSession | null {
    return this.#chat.session === null ? this.#chat.newSession : null;
  }

  /** Makes the session and shows it; answers whether the view shows it then. Null: there is nothing to be made. */
  prepare(): Promise<boolean> | null {
    if (!this.wanted) return null;
    return this.#begin(null).then((session) => session !== null && session === this.#chat.session);
  }

  /** Makes the session and sends it a command: also when the view was made to show another one meanwhile. */
  async send(command: Command): Promise<void> {
    const session = await this.#begin(command);
    if (session === null) return;
    if (session === this.#chat.session) {
      this.#actions.send(command);
      return;
    }
    const path = `sessions/${encodeURIComponent(session)}/commands`;
    const answer = await this.#actions.transport()?.request("POST", path, command).catch(() => null);
    if (!answer || !isOk(answer)) this.#failed("", command);
  }

  /** The session that was made; null: it was not. `command`: what it is made for. */
  async #begin(command: Command | null): Promise<string | null> {
    const { wanted } = this;
    if (!wanted) return null;
    // Two things that need the session at once get the same, one after the other.
    const work = (this.#work ??= this.#make(wanted));
    try {
      return await work;
    } catch (problem) {
      this.#failed(problem instanceof Error ? problem.message : "", command);
      return null;
    } finally {
      if (this.#work === work) this.#work = null;
    }
  }

  async #make(wanted: NewSession): Promise<string> {
    const id = await wanted.create();
    if (this.wanted?.key !== wanted.key) return id;
    const { text } = this.#composer; // written meanwhile: it stays
    this.#composer.text = "";
    this.#chat.session = id;
    await this.#chat.updateComplete;
    if (text) this.#composer.text = text;
    return id;
  }

  #failed(reason: string, command: Command | null): void {
    this.#actions.problem(strings.notBegun(reason));
    if (command?.type === "prompt") this.#composer.text = [command.text, this.#composer.text].filter(Boolean).join("\n\n");
  }
}
