/**
 * Browser notifications: a recall's run has ended, failed or asks, and the user is not on this page, nor is a page that
 * shows the session looked at.
 * Only where the user has allowed it with a button; one for each event, however many tabs are open.
 */

import { isObject } from "../../protocol/frames.js";
import type { Envelope } from "../../protocol/generated.js";
import type { ChatState } from "../../state/model.js";
import { claim, readShared, writeShared } from "../lib/claims.js";
import { strings } from "../lib/strings.js";
import { subject } from "../overview/news-text.js";
import { endsRun } from "./unread.js";

const SETTING = "navi:notify";
const CHANNEL = "navi-notify";
/** How long a tab that is looked at has to say so. */
const ANSWER = 250;

export interface BrowserNoticeActions {
  session(): string | null;
  state(): ChatState;
  /** Whether this view is looked at. */
  isSeen(): boolean;
  /** Brings the session to the front. */
  focus(): void;
}

export type Permission = "on" | "off" | "ask" | "denied" | "missing";

/** What there is to tell about an event; null for most. A recall says itself what came of it: a run that failed may be tried again. */
export interface News {
  readonly id: string;
  readonly recallId: string | null;
  readonly what: "done" | "failed" | "asks";
}

export function newsOf({ event, origin, seq, session_id: session, snapshot }: Envelope): News | null {
  if (snapshot || origin.kind === "user") return null;
  const { recall_id: recallId } = origin;
  const id = `${session}:${seq}`;
  if (event.type === "RUN_FINISHED" && event.outcome?.type === "interrupt") return { id, recallId, what: "asks" };
  if (origin.kind === "recall") {
    const what = event.type === "CUSTOM" && event.name === "navi.recall" ? ENDS.get(event.value["action"]) : undefined;
    return what ? { id, recallId, what } : null;
  }
  if (event.type === "RUN_ERROR") return { id, recallId, what: "failed" };
  return endsRun(event) && !(event.type === "RUN_FINISHED" && event.outcome?.type === "cancelled") ? { id, recallId, what: "done" } : null;
}

const ENDS: ReadonlyMap<unknown, News["what"]> = new Map([["fired", "done"], ["failed", "failed"]]);

export class BrowserNotices {
  readonly #actions: BrowserNoticeActions;
  #channel: BroadcastChannel | null = null;
  readonly #shown = new Set<Notification>();

  constructor(actions: BrowserNoticeActions) {
    this.#actions = actions;
  }

  start(): void {
    if (this.#channel !== null || typeof BroadcastChannel === "undefined") return;
    this.#channel = new BroadcastChannel(CHANNEL);
    this.#channel.addEventListener("message", this.#asked);
  }

  stop(): void {
    this.#channel?.close();
    this.#channel = null;
    for (const shown of this.#shown) shown.onclick = null;
    this.#shown.clear();
  }

  get permission(): Permission {
    if (typeof Notification === "undefined" || !window.isSecureContext) return "missing";
    if (Notification.permission === "denied") return "denied";
    if (Notification.permission !== "granted") return "ask";
    return readShared(SETTING) === "off" ? "off" : "on";
  }

  /** Only ever by the user's press of a button. */
  async allow(): Promise<Permission> {
    if (this.permission === "ask") await Notification.requestPermission();
    if (this.permission === "off" || this.permission === "on") writeShared(SETTING, "on");
    return this.permission;
  }

  turnOff(): void {
    writeShared(SETTING, "off");
  }

  receive(envelopes: readonly Envelope[]): void {
    // A window without the focus may be behind another, or be watched: two notifications are better than none.
    if (document.visibilityState === "visible" && document.hasFocus()) return;
    for (const envelope of envelopes) {
      const news = newsOf(envelope);
      if (news && this.#isWanted(news)) void this.#tell(news);
    }
  }

  /** By the setting of this browser, or because the recall says so. */
  #isWanted({ recallId }: News): boolean {
    const { permission } = this;
    if (permission === "on") return true;
    const recall = recallId === null ? undefined : this.#actions.state().recalls[recallId]?.recall;
    return permission === "off" && (recall?.policy.notify?.includes("browser") ?? false);
  }

  async #tell(news: News): Promise<void> {
    if (await this.#isSeenElsewhere()) return;
    // Where it cannot be loaded, a title may not be what it looks like: then there is none.
    const mark = await import("../conversation/card-parts.js").then(({ markedLine }) => markedLine, () => () => "");
    if (await claim(news.id)) this.#show(news, mark);
  }

  /** Asks the other tabs whether one of them shows this session to its user now. */
  #isSeenElsewhere(): Promise<boolean> {
    const channel = this.#channel;
    const session = this.#actions.session();
    if (!channel || session === null) return Promise.resolve(false);
    const question = crypto.randomUUID();
    return new Promise((resolve) => {
      const settle = (isSeen: boolean): void => {
        channel.removeEventListener("message", listen);
        resolve(isSeen);
      };
      const listen = ({ data }: MessageEvent<unknown>): void => {
        if (isObject(data) && data["answer"] === question) settle(true);
      };
      channel.addEventListener("message", listen);
      setTimeout(() => settle(false), ANSWER);
      channel.postMessage({ question, session });
    });
  }

  readonly #asked = ({ data }: MessageEvent<unknown>): void => {
    if (!isObject(data) || typeof data["question"] !== "string" || data["session"] !== this.#actions.session()) return;
    if (this.#actions.isSeen()) this.#channel?.postMessage({ answer: data["question"] });
  };

  #show({ id, recallId, what }: News, mark: (text: string) => string): void {
    const state = this.#actions.state();
    const recall = recallId === null ? undefined : state.recalls[recallId]?.recall;
    const title = mark(recall?.title ?? state.session?.title ?? "") || strings.name;
    const name = subject(title);
    const text = what === "done" ? strings.toldDone(name) : what === "failed" ? strings.toldFailed(name) : strings.toldAsks(name);
    const shown = new Notification(text, { body: mark(state.session?.title ?? ""), tag: `navi:${id}` });
    this.#shown.add(shown);
    shown.onclose = () => this.#shown.delete(shown);
    shown.onclick = () => {
      window.focus();
      this.#actions.focus();
      shown.close();
    };
  }
}
