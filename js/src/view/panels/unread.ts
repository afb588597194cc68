/**
 * How much of a session its user has not seen, and when a view may say that it is seen: it is visible, has the focus
 * and is in the part of the page that is shown, for more than a second; never while it is hidden.
 */

import { isOk, type Transport } from "../../connection/transport.js";
import { isObject } from "../../protocol/frames.js";
import type { Envelope } from "../../protocol/generated.js";

export const SEEN_AFTER = 1_000;

export interface UnreadActions {
  transport(): Transport | null;
  session(): string | null;
  /** The seq of the last event that is drawn. */
  head(): number | null;
  changed(count: number): void;
  /** The user is back and there is something unread: what it is can be asked until this has settled. Never rejects. */
  lookBack(): Promise<void>;
}

export class Unread {
  readonly #actions: UnreadActions;
  readonly #element: Element;
  #count = 0;
  /** Whether something came that is not marked as seen; true at first, so that a look is known to the server. */
  #isNew = true;
  #isOnScreen = typeof IntersectionObserver === "undefined";
  #observer: IntersectionObserver | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(element: Element, actions: UnreadActions) {
    this.#element = element;
    this.#actions = actions;
  }

  get count(): number {
    return this.#count;
  }

  start(): void {
    if (typeof IntersectionObserver !== "undefined" && this.#observer === null) {
      this.#observer = new IntersectionObserver((entries) => {
        this.#isOnScreen = entries.at(-1)?.isIntersecting ?? false;
        this.#look();
      });
      this.#observer.observe(this.#element);
    }
    document.addEventListener("visibilitychange", this.#look);
    window.addEventListener("focus", this.#look);
    window.addEventListener("blur", this.#look);
    this.#look();
  }

  stop(): void {
    this.#observer?.disconnect();
    this.#observer = null;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    document.removeEventListener("visibilitychange", this.#look);
    window.removeEventListener("focus", this.#look);
    window.removeEventListener("blur", this.#look);
  }

  /** Begins with another session. */
  reset(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#isNew = true;
    this.#set(0);
  }

  /** What the server counted. */
  counted(count: number): void {
    if (count > 0) this.#isNew = true;
    this.#set(count);
    this.#look();
  }

  /** Counts what came live, as the server does. */
  receive(envelopes: readonly Envelope[]): void {
    for (const { event, origin, snapshot } of envelopes) {
      if (snapshot) continue;
      if (event.type === "CUSTOM" && event.name === "navi.session" && isObject(event.value["read"])) this.#set(Number(event.value["read"]["unread"]) || 0);
      if (endsRun(event) && origin.kind !== "user") {
        this.#isNew = true;
        this.#set(this.#count + 1);
      }
    }
    this.#look();
  }

  get isSeen(): boolean {
    return document.visibilityState === "visible" && document.hasFocus() && this.#isOnScreen;
  }

  readonly #look = (): void => {
    if (!this.isSeen || !this.#isNew || this.#actions.head() === null) {
      if (!this.isSeen) {
        clearTimeout(this.#timer);
        this.#timer = undefined;
      }
      return;
    }
    this.#timer ??= setTimeout(() => void this.#mark(), SEEN_AFTER);
  };

  async #mark(): Promise<void> {
    const session = this.#actions.session();
    if (this.#count > 0) await this.#actions.lookBack();
    if (session !== this.#actions.session()) return;
    this.#timer = undefined;
    const transport = this.#actions.transport();
    const seq = this.#actions.head();
    if (!this.isSeen || !session || !transport || seq === null) return;
    this.#isNew = false;
    const answer = await transport.request("POST", `sessions/${encodeURIComponent(session)}/read`, { seq }).catch(() => null);
    if (session !== this.#actions.session()) return;
    if (!answer || !isOk(answer)) {
      this.#isNew = true; // announced when the next event comes or the view gets the focus
      return;
    }
    const left = isObject(answer.body) ? Number(answer.body["unread"]) || 0 : 0;
    // What came while the answer was on its way is counted already and not in it.
    this.#set(this.#isNew ? Math.max(left, 1) : left);
    this.#look();
  }

  #set(count: number): void {
    if (count === this.#count) return;
    this.#count = count;
    this.#actions.changed(count);
  }
}

/** Not a pause for the user's answer: the run goes on. */
export function endsRun(event: Envelope["event"]): boolean {
  return event.type === "RUN_ERROR" || (event.type === "RUN_FINISHED" && event.outcome?.type !== "interrupt");
}
