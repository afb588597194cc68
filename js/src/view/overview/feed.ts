/**
 * The recalls of all sessions, as the server last described them: read now and then while the page is visible, when one
 * is due, while one runs, and when a session reports a change. One feed serves all views of a page.
 *
 * Not responsible for drawing. Without Lit: JupyterLab's extension has a feed of its own.
 */

import { readPageConfig } from "../../connection/page-config.js";
import { isOk, type Transport } from "../../connection/transport.js";
import { WebSocketTransport } from "../../connection/ws.js";
import { isObject } from "../../protocol/frames.js";
import type { RecallsOverview } from "../../protocol/generated.js";
import { browserZone } from "../lib/zone.js";

/** How often it is read while nothing is expected. Milliseconds. */
const EVERY = 30_000;
/** While a recall runs. */
const WHILE_ACTIVE = 4_000;
/** From the time that a recall is due to its start. */
const AFTER_DUE = 1_500;
/** Several changes are reported at once. */
const SETTLE = 400;
/** A page that becomes visible again shows what is not older than this. */
const FRESH = 5_000;

/** Asks the server; null when no answer came. `isBrief`: today and the next time alone. */
export type OverviewReader = (isBrief: boolean) => Promise<RecallsOverview | null>;

export interface OverviewSubscriber {
  changed(): void;
  /** Whether all of it is shown: then all of it is read. */
  wantsAll(): boolean;
}

export class OverviewFeed {
  readonly #read: OverviewReader;
  readonly #subscribers = new Set<OverviewSubscriber>();
  #overview: RecallsOverview | null = null;
  /** What was read before this. */
  #before: RecallsOverview | null = null;
  #isWhole = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #readAt = -Infinity;
  #reading: Promise<void> | null = null;
  #again = false;

  constructor(read: OverviewReader) {
    this.#read = read;
  }

  /** Null: not known. */
  get overview(): RecallsOverview | null {
    return this.#overview;
  }

  get before(): RecallsOverview | null {
    return this.#before;
  }

  /** Whether `overview` has everything, and not only today. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  /** The answer ends it. */
  subscribe(subscriber: OverviewSubscriber): () => void {
    this.#subscribers.add(subscriber);
    if (this.#subscribers.size === 1) document.addEventListener("visibilitychange", this.#visible);
    if (this.#overview === null || this.#isStale) this.refresh();
    return () => {
      this.#subscribers.delete(subscriber);
      if (this.#subscribers.size) return;
      document.removeEventListener("visibilitychange", this.#visible);
      clearTimeout(this.#timer);
    };
  }

  /** Something has changed, or more is shown now. */
  refresh(delay = SETTLE): void {
    this.#plan(delay);
  }

  /** Reads at once, and is done when that is shown. Never rejects. */
  async reload(): Promise<void> {
    if (this.#reading) this.#again = true;
    else this.#reading = this.#load();
    await this.#reading;
  }

  get #isStale(): boolean {
    return performance.now() - this.#readAt > FRESH;
  }

  readonly #visible = (): void => {
    if (!document.hidden) this.#plan(this.#isStale ? 0 : EVERY);
    else clearTimeout(this.#timer);
  };

  #plan(delay: number): void {
    clearTimeout(this.#timer);
    if (!document.hidden && this.#subscribers.size) this.#timer = setTimeout(() => void this.reload(), delay);
  }

  async #load(): Promise<void> {
    do {
      this.#again = false;
      const wantsAll = [...this.#subscribers].some((each) => each.wantsAll());
      const found = await this.#read(!wantsAll).catch(() => null);
      this.#readAt = performance.now();
      if (found === null) continue; // what was known stays
      this.#before = this.#overview;
      this.#overview = found;
      this.#isWhole = wantsAll;
      for (const each of [...this.#subscribers]) each.changed();
    } while (this.#again);
    this.#reading = null;
    this.#plan(this.#pause());
  }

  /** By the server's clock: that of this machine may be another. */
  #pause(): number {
    const { now, next, active = [] } = this.#overview ?? {};
    if (active.length) return WHILE_ACTIVE;
    const left = now && next ? Date.parse(next.at) - Date.parse(now) : Infinity;
    return Math.min(EVERY, Math.max(left, 0) + AFTER_DUE);
  }
}

const ofPage = new Map<string, OverviewFeed>();
const ofTransport = new WeakMap<Transport, OverviewFeed>();

/** The feed of a view: that of the page's server where there is one, else the one through its kernel. */
export function feedOf(transport: Transport): OverviewFeed {
  const config = readPageConfig();
  if (config) return feedOfPage(config.baseUrl.href, () => new WebSocketTransport(config));
  let feed = ofTransport.get(transport);
  if (!feed) ofTransport.set(transport, (feed = new OverviewFeed(readerOf(transport))));
  return feed;
}

function feedOfPage(server: string, connect: () => Transport): OverviewFeed {
  let feed = ofPage.get(server);
  if (!feed) ofPage.set(server, (feed = new OverviewFeed(readerOf(connect()))));
  return feed;
}

export function readerOf(transport: Pick<Transport, "request">): OverviewReader {
  return async (isBrief) => {
    const zone = browserZone();
    const query = new URLSearchParams({ ...(zone === null ? {} : { tz: zone }), brief: String(isBrief) });
    const answer = await transport.request("GET", `recalls/overview?${query.toString()}`);
    // A server that is older than this page answers with a recall that it does not have.
    return isOk(answer) && isObject(answer.body) && Array.isArray(answer.body["past"]) ? (answer.body as unknown as RecallsOverview) : null;
  };
}
