import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import "../src/navi-chat.js";
import type { NaviChat } from "../src/view/chat-element.js";
import { BrowserNotices, newsOf } from "../src/view/panels/notifications.js";
import { EMPTY } from "../src/state/model.js";
import type { Envelope, Origin } from "../src/protocol/generated.js";
import { Log, prelude, recall } from "./log.js";
import { FakeTransport } from "./transport.js";

const OF_RECALL: Origin = { kind: "recall", recall_id: "a" };

let chat: NaviChat;
let transport: FakeTransport;
let visibility: DocumentVisibilityState;
let hasFocus: boolean;

const find = (name: string): HTMLElement | null => chat.querySelector(`[data-navi="${name}"]`);
const marks = (): unknown[] => transport.requests.filter(({ path }) => path === "sessions/s/read").map(({ body }) => body);

/** The log of a recall's run. */
function ran(after: number, runId: string, origin = OF_RECALL): readonly Envelope[] {
  const log = new Log(after);
  log.add({ type: "RUN_STARTED", threadId: "s", runId }, runId, origin);
  log.add({ type: "RUN_FINISHED", threadId: "s", runId, outcome: { type: "success" } }, runId, origin);
  return log.envelopes;
}

/** A recall's run, and what the recall says of it. */
function fired(after: number, runId: string): readonly Envelope[] {
  const log = new Log(after + 2);
  log.add({ type: "CUSTOM", name: "navi.recall", value: { action: "fired", status: "fired", recall: recall("a", "fired", null) } }, null, OF_RECALL);
  return [...ran(after, runId), ...log.envelopes];
}

async function pass(milliseconds: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
  await chat.updateComplete;
}

async function look(isVisible: boolean, isFocused = isVisible): Promise<void> {
  visibility = isVisible ? "visible" : "hidden";
  hasFocus = isFocused;
  document.dispatchEvent(new Event("visibilitychange"));
  window.dispatchEvent(new Event(isFocused ? "focus" : "blur"));
  await pass(0);
}

beforeEach(async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "requestAnimationFrame", "cancelAnimationFrame", "Date"] });
  sessionStorage.clear();
  localStorage.clear();
  visibility = "hidden";
  hasFocus = false;
  vi.spyOn(document, "visibilityState", "get").mockImplementation(() => visibility);
  vi.spyOn(document, "hasFocus").mockImplementation(() => hasFocus);
  transport = new FakeTransport();
  transport.answers["sessions/s/read"] = { status: 200, body: { seq: 9, unread: 0 } };
  chat = document.createElement("navi-chat") as NaviChat;
  chat.transport = transport;
  chat.session = "s";
  document.body.replaceChildren(chat);
  await pass(50);
  transport.last.open().envelopes(prelude(3, [{ type: "MESSAGES_SNAPSHOT", messages: [] }]));
  await pass(50);
});

afterEach(() => {
  chat.remove();
  vi.useRealTimers();
});

describe("a view", () => {
  it("is never marked as seen while it is hidden", async () => {
    transport.last.envelopes(ran(3, "r1"));
    await pass(60_000);
    expect(chat.unread).toBe(1);
    expect(marks()).toEqual([]);
  });

  it("is not marked as seen while it has no focus", async () => {
    await look(true, false);
    transport.last.envelopes(ran(3, "r1"));
    await pass(60_000);
    expect(marks()).toEqual([]);
  });

  it("is marked as seen, up to what is drawn, when it is looked at for more than a second", async () => {
    transport.last.envelopes(ran(3, "r1"));
    await look(true);
    await pass(990);
    expect(marks()).toEqual([]);
    await pass(20);
    expect(marks()).toEqual([{ seq: 5 }]);
    expect(chat.unread).toBe(0);
    await pass(60_000);
    expect(marks()).toHaveLength(1);
  });

  it("is not marked as seen by glances that are too short", async () => {
    for (let glance = 0; glance < 5; glance += 1) {
      await look(true);
      await pass(900);
      await look(false);
    }
    expect(marks()).toEqual([]);
  });

  it("is marked again when something comes while it is looked at, not for what the user asked", async () => {
    await look(true);
    await pass(1100);
    expect(marks()).toEqual([{ seq: 3 }]);
    transport.last.envelopes(ran(3, "r1", { kind: "user", recall_id: null }));
    await pass(1100);
    expect(marks()).toHaveLength(1);
    transport.last.envelopes(ran(5, "r2"));
    await pass(1100);
    expect(marks()).toEqual([{ seq: 3 }, { seq: 7 }]);
  });

  it("tries again later when the server did not take it, without a storm", async () => {
    transport.answers["sessions/s/read"] = null;
    transport.last.envelopes(ran(3, "r1"));
    await look(true);
    await pass(60_000);
    expect(marks()).toHaveLength(1);
    expect(chat.unread).toBe(1);
    transport.answers["sessions/s/read"] = { status: 200, body: { seq: 5, unread: 0 } };
    await look(true);
    await pass(1100);
    expect(marks()).toHaveLength(2);
    expect(chat.unread).toBe(0);
  });

  it("follows what another view has shown, and tells its host", async () => {
    const told: number[] = [];
    chat.addEventListener("navi-unread", (event) => told.push((event as CustomEvent<{ count: number }>).detail.count));
    transport.last.envelopes(ran(3, "r1"));
    transport.last.envelopes(new Log(5).custom("navi.session", { changed: ["read"], read: { seq: 5, unread: 0 } }).envelopes);
    expect(told).toEqual([1, 0]);
  });

  it("does not count a pause for an answer as an end", async () => {
    transport.last.envelopes(new Log(3).add({ type: "RUN_FINISHED", threadId: "s", runId: "r", outcome: { type: "interrupt" } }, "r", OF_RECALL).envelopes);
    expect(chat.unread).toBe(0);
  });
});

describe("what happened while nobody looked", () => {
  const AWAY = {
    since: "2026-11-22T09:00:00+00:00",
    runs: [{ run_id: "r1", at: "2026-11-22T10:00:00+00:00", status: "completed", origin: OF_RECALL, prompt: "check", answer: "all is <b>well</b>", error: null }],
    not_run: [{ recall_id: "a", title: "daily", slot: "2026-11-22T11:00:00+00:00", status: "missed", reason: "the server was off", coalesced: 2 }],
    missed: 3,
    failed: 0,
  };

  async function reopen(unread: number, away: unknown): Promise<void> {
    transport.answers["sessions/s/away"] = { status: 200, body: away };
    transport.answers["sessions/s"] = { status: 200, body: { title: "t", model: "m", profile: "p", unread } };
    transport.answers = { "sessions/s/read": { status: 200, body: { seq: 9, unread: 0 } }, ...transport.answers };
    chat.session = null;
    await pass(50);
    chat.session = "s";
    await pass(50);
    transport.last.open().envelopes(prelude(3, [{ type: "MESSAGES_SNAPSHOT", messages: [] }]));
    await pass(500);
  }

  it("is one card, until it is put away", async () => {
    await reopen(1, AWAY);
    expect(chat.unread).toBe(1);
    expect(find("away-summary")?.textContent).toBe("1 run · 3 times nothing ran");
    expect(find("away-run")?.textContent).toContain("all is <b>well</b>");
    expect(find("away-slot")?.textContent).toMatch(/daily.*missed.*the server was off.*2 more/s);
    find("away-dismiss")?.click();
    await pass(50);
    expect(find("away")).toBeNull();
  });

  it("is not shown when there was nothing but what the user asked for", async () => {
    await reopen(0, { ...AWAY, not_run: [], missed: 0 });
    expect(find("away")).toBeNull();
  });

  it("is told to who comes back to a view that was open all the time, once", async () => {
    await reopen(0, { ...AWAY, runs: [], not_run: [], missed: 0 });
    expect(find("away")).toBeNull();
    transport.answers["sessions/s/away"] = { status: 200, body: AWAY };
    transport.last.envelopes([...ran(3, "r1"), ...ran(5, "r2")]);
    await pass(5000);
    expect(find("away")).toBeNull();
    await look(true);
    await pass(1100);
    expect(find("away-summary")?.textContent).toContain("3 times nothing ran");
    expect(chat.unread).toBe(0);
    find("away-dismiss")?.click();
    await look(false);
    transport.last.envelopes(ran(7, "r3"));
    await look(true);
    await pass(1100);
    expect(chat.unread).toBe(0);
    expect(find("away")).toBeNull();
  });

  it("is asked again when the connection was lost: the server may have been off", async () => {
    await reopen(0, { ...AWAY, runs: [], not_run: [], missed: 0 });
    transport.answers["sessions/s/away"] = { status: 200, body: { ...AWAY, runs: [] } };
    transport.last.fail();
    await pass(10_000);
    transport.last.open();
    await pass(1000);
    expect(find("away-summary")?.textContent).toBe("3 times nothing ran");
  });

  it("is asked for before it is marked as seen", async () => {
    await look(true);
    await reopen(2, AWAY);
    await pass(2000);
    const paths = transport.requests.map(({ path }) => path);
    expect(paths.lastIndexOf("sessions/s/read")).toBeGreaterThan(paths.findIndex((path) => path.startsWith("sessions/s/away")));
  });
});

describe("browser notifications", () => {
  class Shown {
    static permission: NotificationPermission = "default";
    static all: Shown[] = [];
    static requestPermission = vi.fn(async () => (Shown.permission = "granted"));
    onclick: (() => void) | null = null;
    onclose: (() => void) | null = null;
    isClosed = false;
    constructor(readonly title: string, readonly options: NotificationOptions) {
      Shown.all.push(this);
    }
    close(): void {
      this.isClosed = true;
    }
  }

  /** Tabs hear each other, as in a browser; not themselves. */
  class Channel extends EventTarget {
    static all = new Set<Channel>();
    constructor(readonly name: string) {
      super();
      Channel.all.add(this);
    }
    postMessage(data: unknown): void {
      for (const other of Channel.all) if (other !== this) queueMicrotask(() => other.dispatchEvent(new MessageEvent("message", { data })));
    }
    close(): void {
      Channel.all.delete(this);
    }
  }

  const tabs: BrowserNotices[] = [];
  const focused = vi.fn();

  function tab(isSeen = false, notify: readonly string[] = []): BrowserNotices {
    const known = { ...recall("a"), policy: { ...recall("a").policy, notify: [...notify] } };
    const notices = new BrowserNotices({ session: () => "s", state: () => ({ ...EMPTY, recalls: { a: { recall: known, seq: 1 } } }), isSeen: () => isSeen, focus: focused });
    notices.start();
    tabs.push(notices);
    return notices;
  }

  beforeEach(() => {
    Shown.all = [];
    Shown.permission = "default";
    vi.stubGlobal("Notification", Shown);
    vi.stubGlobal("BroadcastChannel", Channel);
    vi.stubGlobal("isSecureContext", true);
  });

  afterEach(() => {
    for (const each of tabs.splice(0)) each.stop();
    vi.unstubAllGlobals();
  });

  it("are asked for by the user's button alone", async () => {
    expect(Shown.requestPermission).not.toHaveBeenCalled();
    const notices = tab();
    notices.receive(fired(3, "r1"));
    await pass(1000);
    expect(Shown.requestPermission).not.toHaveBeenCalled();
    expect(Shown.all).toEqual([]);
    expect(await notices.allow()).toBe("on");
  });

  it("tell once of each event, however many tabs are hidden", async () => {
    Shown.permission = "granted";
    const three = [tab(), tab(), tab()];
    for (const each of three) each.receive(fired(3, "r1"));
    await pass(1000);
    expect(Shown.all.map(({ title }) => title)).toEqual(["title of a: done"]);
    for (const each of three) each.receive(fired(5, "r2"));
    await pass(1000);
    expect(Shown.all).toHaveLength(2);
  });

  it("are not shown while a tab of the session is looked at, or this one is", async () => {
    Shown.permission = "granted";
    const hidden = tab();
    tab(true);
    hidden.receive(fired(3, "r1"));
    await pass(1000);
    expect(Shown.all).toEqual([]);
    visibility = "visible";
    hasFocus = true;
    hidden.receive(fired(5, "r2"));
    await pass(1000);
    expect(Shown.all).toEqual([]);
  });

  it("are shown by a page that is in sight but has no focus", async () => {
    Shown.permission = "granted";
    visibility = "visible";
    tab().receive(fired(3, "r1"));
    await pass(1000);
    expect(Shown.all).toHaveLength(1);
  });

  it("lead to the session when they are clicked", async () => {
    Shown.permission = "granted";
    vi.spyOn(window, "focus").mockImplementation(() => undefined);
    tab().receive(fired(3, "r1"));
    await pass(1000);
    Shown.all[0]?.onclick?.();
    expect(focused).toHaveBeenCalled();
    expect(window.focus).toHaveBeenCalled();
    expect(Shown.all[0]?.isClosed).toBe(true);
  });

  it("are shown with the setting off only for recalls that ask for them", async () => {
    Shown.permission = "granted";
    const plain = tab();
    plain.turnOff();
    plain.receive(fired(3, "r1"));
    await pass(1000);
    expect(Shown.all).toEqual([]);
    tab(false, ["browser"]).receive(fired(5, "r2"));
    await pass(1000);
    expect(Shown.all).toHaveLength(1);
  });

  it("tell of ends, failures and questions of recalls, and of nothing else", () => {
    const end = (event: Envelope["event"], origin = OF_RECALL): string | undefined => newsOf({ seq: 1, session_id: "s", run_id: "r", ts: "", origin, event })?.what;
    const said = (action: string): Envelope["event"] => ({ type: "CUSTOM", name: "navi.recall", value: { action } });
    expect(end(said("fired"))).toBe("done");
    expect(end(said("failed"))).toBe("failed");
    expect(["created", "started", "deferred", "cancelled", "paused", "toString"].map((action) => end(said(action)))).toEqual(Array(6).fill(undefined));
    expect(end({ type: "RUN_FINISHED", threadId: "s", runId: "r", outcome: { type: "success" } })).toBeUndefined();
    expect(end({ type: "RUN_FINISHED", threadId: "s", runId: "r", outcome: { type: "interrupt" } })).toBe("asks");
    expect(end({ type: "RUN_ERROR", message: "m", code: "c" })).toBeUndefined(); // it may be tried again
    const own: Origin = { kind: "system", recall_id: null };
    expect(end({ type: "RUN_ERROR", message: "m", code: "c" }, own)).toBe("failed");
    expect(end({ type: "RUN_FINISHED", threadId: "s", runId: "r", outcome: { type: "success" } }, own)).toBe("done");
    expect(end({ type: "RUN_FINISHED", threadId: "s", runId: "r", outcome: { type: "cancelled" } })).toBeUndefined();
    expect(end({ type: "RUN_FINISHED", threadId: "s", runId: "r", outcome: { type: "success" } }, { kind: "user", recall_id: null })).toBeUndefined();
    expect(end({ type: "RUN_STARTED", threadId: "s", runId: "r" })).toBeUndefined();
  });
});
