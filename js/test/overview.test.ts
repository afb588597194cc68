import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { OverviewFiring, RecallsOverview } from "../src/protocol/generated.js";
import { OverviewFeed, readerOf } from "../src/view/overview/feed.js";
import { newsSince } from "../src/view/overview/news.js";
import { againMessage, choices } from "../src/view/overview/remind.js";

const NOW = "2026-12-01T09:00:00+00:00";

function entry(id: string, more: Partial<OverviewFiring["firing"]> = {}, asks = false): OverviewFiring {
  return {
    firing: {
      id, recall_id: "rec", slot: NOW, kind: "auto", status: "succeeded", reason: null, run_id: "r", attempt: 0, coalesced: 0, not_before: NOW, started_at: NOW,
      ended_at: asks ? null : "2026-12-01T09:00:05+00:00", lateness_ms: 0, delivery: "none", delivery_error: null, attempts: [], ...more,
    },
    title: "loss", session_id: "s", session_title: "Training", unseen: true, asks, ran: 1, failed: 0, missed: 0, result: null,
  };
}

function overview(firings: readonly OverviewFiring[] = [], more: Partial<RecallsOverview> = {}): RecallsOverview {
  return {
    now: NOW, timezone: "UTC", open: 1, paused: 0, next: null, needs: [], active: [], past: [{ date: "2026-12-01", ran: firings.length, failed: 0, missed: 0, firings }],
    recalls: [], words: {}, sessions: {}, coming: [], complete: true, ...more,
  };
}

describe("news", () => {
  it("is what ended since the reading before, once, and nothing of what was there at first", () => {
    expect(newsSince(null, overview([entry("a")]))).toEqual([]);
    const before = overview([entry("a")]);
    const news = newsSince(before, overview([entry("b", { status: "failed", reason: "boom" }), entry("a")]));
    expect(news.map(({ id, kind, reason }) => [id, kind, reason])).toEqual([["b:failed", "failed", "boom"]]);
  });

  it("is no news when it had ended before the page knew of recalls, or was only skipped", () => {
    const before = overview();
    expect(newsSince(before, overview([entry("old", { ended_at: "2026-12-01T08:00:00+00:00" })]))).toEqual([]);
    expect(newsSince(before, overview([entry("skipped", { status: "skipped" })]))).toEqual([]);
  });

  it("tells of a question once for each attempt", () => {
    const asking = overview([], { active: [entry("a", { status: "running" }, true)] });
    expect(newsSince(overview(), asking).map(({ kind }) => kind)).toEqual(["asks"]);
    expect(newsSince(asking, asking)).toEqual([]);
  });
});

describe("the feed of a page", () => {
  let visible = true;
  beforeEach(() => {
    vi.useFakeTimers();
    vi.spyOn(document, "hidden", "get").mockImplementation(() => !visible);
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
    visible = true;
  });

  function feedWith(answers: RecallsOverview[]): { feed: OverviewFeed; reads: boolean[] } {
    const reads: boolean[] = [];
    const feed = new OverviewFeed((isBrief) => {
      reads.push(isBrief);
      return Promise.resolve(answers[Math.min(reads.length, answers.length) - 1] ?? null);
    });
    return { feed, reads };
  }

  it("reads once for all views, in full only while one shows it", async () => {
    const { feed, reads } = feedWith([overview()]);
    let isShown = false;
    const one = vi.fn();
    const leave = [feed.subscribe({ changed: one, wantsAll: () => isShown }), feed.subscribe({ changed: vi.fn(), wantsAll: () => false })];
    await vi.advanceTimersByTimeAsync(500);
    expect(reads).toEqual([true]);
    expect(one).toHaveBeenCalledTimes(1);
    isShown = true;
    feed.refresh(0);
    await vi.advanceTimersByTimeAsync(10);
    expect(reads).toEqual([true, false]);
    expect(feed.isWhole).toBe(true);
    for (const each of leave) each();
    await vi.advanceTimersByTimeAsync(120_000);
    expect(reads, "without a view nothing is read").toHaveLength(2);
  });

  it("looks every 30 seconds, soon after a recall is due, and more often while one runs", async () => {
    const soon = overview([], { next: { recall_id: "r", title: "t", session_id: "s", session_title: "s", at: "2026-12-01T09:00:10+00:00", times: 1 } });
    const running = overview([], { active: [entry("a", { status: "running", ended_at: null })] });
    const { feed, reads } = feedWith([soon, running, overview()]);
    feed.subscribe({ changed: vi.fn(), wantsAll: () => false });
    await vi.advanceTimersByTimeAsync(500);
    expect(reads).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(11_000);
    expect(reads, "it was due after 10 s").toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(reads).toHaveLength(2);
    await vi.advanceTimersByTimeAsync(4_000);
    expect(reads).toHaveLength(3);
    await vi.advanceTimersByTimeAsync(29_000);
    expect(reads).toHaveLength(3);
    await vi.advanceTimersByTimeAsync(3_000);
    expect(reads).toHaveLength(4);
  });

  it("reads nothing while the page is hidden, and at once when it is seen again", async () => {
    const { feed, reads } = feedWith([overview()]);
    feed.subscribe({ changed: vi.fn(), wantsAll: () => false });
    await vi.advanceTimersByTimeAsync(500);
    visible = false;
    document.dispatchEvent(new Event("visibilitychange"));
    await vi.advanceTimersByTimeAsync(300_000);
    expect(reads).toHaveLength(1);
    visible = true;
    document.dispatchEvent(new Event("visibilitychange"));
    await vi.advanceTimersByTimeAsync(10);
    expect(reads).toHaveLength(2);
  });

  it("takes what a server that does not know it answers for nothing", async () => {
    const answer = { status: 404, body: { code: "recall_not_found" } };
    expect(await readerOf({ request: () => Promise.resolve(answer) })(true)).toBeNull();
  });
});

describe("a recall from an answer", () => {
  it("has a message from the prompt, which is not made longer when it is made again", () => {
    expect(againMessage(" is the loss flat? ")).toBe("Again: is the loss flat?");
    expect(againMessage("Again: is the loss flat?")).toBe("Again: is the loss flat?");
    expect(againMessage("x".repeat(5000))).toHaveLength(1000);
  });

  it("is offered at times that the server reads, whatever the language of the page", () => {
    const now = new Date(2026, 11, 1, 8, 5);
    expect(choices(now).map(({ when }) => when)).toEqual(["in 10 minutes", "in 1 hour", "tomorrow at 9:00", "every day at 08:05", "when the cell is done", ""]);
  });
});
