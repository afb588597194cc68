/** How much waits for the user in all sessions: read now and then while the page is visible, and when a chat reports a change. */

import { texts } from "./texts.js";

export interface Waiting {
  readonly unread: number;
  readonly questions: number;
}

/** On the document: recalls have run, wherever their sessions are. */
export const RECALLS_RAN = "navi-recalls-ran";

const READ_EVERY = 20_000;
const REASONS = ["navi-unread", "navi-asks", RECALLS_RAN];
/** A chat that marks its session as read reports it in the same moment as the server. Milliseconds. */
const SOON = 300;

export class AttentionWatch {
  readonly #read: () => Promise<Waiting>;
  readonly #changed: (waiting: Waiting) => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #last = "";

  constructor(read: () => Promise<Waiting>, changed: (waiting: Waiting) => void) {
    this.#read = read;
    this.#changed = changed;
  }

  start(): void {
    for (const type of REASONS) document.addEventListener(type, this.#soon);
    document.addEventListener("visibilitychange", this.#soon);
    this.#plan(SOON);
  }

  stop(): void {
    for (const type of REASONS) document.removeEventListener(type, this.#soon);
    document.removeEventListener("visibilitychange", this.#soon);
    clearTimeout(this.#timer);
  }

  readonly #soon = (): void => this.#plan(SOON);

  #plan(delay: number): void {
    clearTimeout(this.#timer);
    if (!document.hidden) this.#timer = setTimeout(() => void this.#look(), delay);
  }

  async #look(): Promise<void> {
    const waiting = await this.#read().catch(() => null); // no server: what was known stays
    if (waiting) {
      const text = `${waiting.unread} ${waiting.questions}`;
      if (text !== this.#last) this.#changed({ unread: Number(waiting.unread) || 0, questions: Number(waiting.questions) || 0 });
      this.#last = text;
    }
    this.#plan(READ_EVERY);
  }
}

/** What an icon says. */
export function attentionText({ unread, questions }: Waiting): string {
  const parts = [...(questions ? [texts.labQuestions(questions)] : []), ...(unread ? [texts.labUnread(unread)] : [])];
  return parts.length ? texts.labWaiting(parts) : texts.labPanel;
}

/** The number on an icon; empty for none. */
export function attentionCount({ unread, questions }: Waiting): string {
  const count = unread + questions;
  return count > 99 ? "99+" : count ? String(count) : "";
}
