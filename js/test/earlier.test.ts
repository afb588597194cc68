import { describe, expect, it } from "vitest";
import { withEarlier, withoutDistant } from "../src/state/earlier.js";
import { keyOf } from "../src/state/items.js";
import { EMPTY, type ChatState, type Item } from "../src/state/model.js";
import { reduceAll } from "../src/state/reduce.js";
import { LogWindow } from "../src/view/conversation/window.js";
import { Log, prelude } from "./log.js";

type Fields = Record<string, unknown>;

const user = (id: string, runId: string): Fields => ({ id, role: "user", content: `text ${id}`, runId });
const calls = (id: string, runId: string, call: string): Fields => ({
  id, role: "assistant", content: `text ${id}`, runId, toolCalls: [{ id: call, type: "function", function: { name: "now", arguments: "{}" } }],
});
const result = (call: string, runId: string): Fields => ({ id: `t_${call}`, role: "tool", toolCallId: call, content: "noon", runId });

/** Random runs: prompts, answers, calls, results that come later. */
function conversation(dice: () => number, runs: number): Fields[] {
  const messages: Fields[] = [];
  for (let run = 0; run < runs; run += 1) {
    messages.push(user(`c${run}`, `r${run}`));
    const open: string[] = [];
    for (let step = 0; step < dice() * 6; step += 1) {
      const id = `m${run}_${step}`;
      if (dice() < 0.5) messages.push({ id, role: "assistant", content: `text ${id}`, runId: `r${run}` });
      else messages.push(calls(id, `r${run}`, `k${run}_${open.push(id)}`));
      if (dice() < 0.5 && open.length) messages.push(result(`k${run}_${open.length}`, `r${run}`));
    }
  }
  return messages;
}

function random(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 1_103_515_245 + 12_345) % 2_147_483_648) / 2_147_483_648;
}

const whole = (messages: readonly Fields[], earlier?: string): ChatState =>
  reduceAll(EMPTY, prelude(5, [{ type: "MESSAGES_SNAPSHOT", messages: messages as never, ...(earlier ? { earlier } : {}) } as never]));

describe("a conversation that is read by pages", () => {
  it("is the one that comes at once, wherever it is cut", () => {
    for (let seed = 1; seed <= 60; seed += 1) {
      const dice = random(seed);
      const messages = conversation(dice, 8);
      let end = Math.floor(dice() * messages.length);
      let state = whole(messages.slice(end), String(end));
      while (state.earlier) {
        const start = Math.max(0, end - 1 - Math.floor(dice() * 5));
        const page = { messages: messages.slice(start, end), runs: [], earlier: start > 0 ? String(start) : null };
        state = withEarlier(state, page as never, state.earlier.cursor);
        end = start;
        if (start === 0) break;
      }
      const plain = (items: readonly Item[]): unknown[] => items.map((item) => ({ ...item, ts: "" }));
      expect(plain(state.items), `seed ${seed}`).toEqual(plain(whole(messages).items));
      expect(state.earlier).toBeNull();
    }
  });

  it("takes no page that was asked for before another prelude came", () => {
    const state = whole([user("c9", "r9")], "9");
    const page = { messages: [user("c8", "r8")], runs: [], earlier: null };
    expect(withEarlier(state, page as never, "7")).toBe(state);
    expect(withEarlier(whole([user("c9", "r9")]), page as never, "9").items).toHaveLength(1);
  });

  it("says of the runs of a page how they ended", () => {
    const state = whole([user("c9", "r9")], "9");
    const run = { id: "r8", status: "failed", error: { code: "provider_auth", message: "no key" }, notice: null, rolled_back: true };
    const next = withEarlier(state, { messages: [user("c8", "r8")], runs: [run], earlier: null } as never, "9");
    expect(next.items.map(keyOf)).toEqual(["message:c8", "end:end:r8", "message:c9"]);
    expect(next.rolledBack).toEqual(["r8"]);
  });

  it("goes on live behind what was read, as if it had been there", () => {
    const messages = [user("c1", "r1"), user("c2", "r2")];
    const paged = withEarlier(whole(messages.slice(1), "1"), { messages: messages.slice(0, 1), runs: [], earlier: null } as never, "1");
    const log = new Log(5).prompt("c3", "more", "r3").started("r3").begin("m3", "yes", "r3").done("m3", "r3").finished("r3");
    const plain = (state: ChatState): unknown[] => state.items.map((item) => ({ ...item, ts: "" }));
    expect(plain(reduceAll(paged, log.envelopes))).toEqual(plain(reduceAll(whole(messages), log.envelopes)));
  });
});

describe("what is far from the end", () => {
  const long = (runs: number): ChatState => whole(Array.from({ length: runs }, (_, run) => [user(`c${run}`, `r${run}`), { id: `m${run}`, role: "assistant", content: "yes", runId: `r${run}` }]).flat());

  it("is dropped at the beginning of a run, and can be read again from there", () => {
    const state = withoutDistant(long(100), 31);
    expect(state.items).toHaveLength(32);
    expect(state.items[0]?.runId).toBe("r84");
    expect(state.earlier?.cursor).toBe("r84");
    const page = { messages: [user("c83", "r83")], runs: [], earlier: null };
    expect(withEarlier(state, page as never, "r84").items).toHaveLength(33);
  });

  it("stays where no run begins", () => {
    const one = whole(Array.from({ length: 50 }, (_, index) => user(`c${index}`, "r1")));
    expect(withoutDistant(one, 10)).toBe(one);
    const short = long(3);
    expect(withoutDistant(short, 30)).toBe(short);
  });

  it("is not dropped in the middle of a run that is in progress", () => {
    const log = new Log(5).prompt("c", "go", "live").started("live");
    for (let index = 0; index < 40; index += 1) log.begin(`a${index}`, "x", "live").done(`a${index}`, "live");
    const state = withoutDistant(reduceAll(long(10), log.envelopes), 10);
    expect(state.items[0]).toMatchObject({ id: "c", runId: "live" });
    expect(state.items).toHaveLength(41);
    expect(state.run?.id).toBe("live");
  });
});

describe("the part of a conversation that is in the document", () => {
  const items = (from: number, to: number): Item[] => Array.from({ length: to - from }, (_, index) => ({ kind: "message", id: String(from + index) }) as Item);
  const ids = (shown: readonly Item[]): [string, string, number] => [shown[0]?.id ?? "", shown.at(-1)?.id ?? "", shown.length];

  it("is its end, and follows it", () => {
    const window = new LogWindow();
    expect(ids(window.of(items(0, 1000), true))).toEqual(["850", "999", 150]);
    expect(ids(window.of(items(0, 1100), true))).toEqual(["850", "1099", 250]);
    expect(ids(window.of(items(0, 1200), true))).toEqual(["1050", "1199", 150]);
  });

  it("moves up and down with the user, and stays bounded", () => {
    const window = new LogWindow();
    const all = items(0, 1000);
    window.of(all, true);
    for (let step = 0; step < 10; step += 1) {
      expect(window.extendUp(all)).toBe(true);
      expect(window.of(all, false).length).toBeLessThanOrEqual(300);
    }
    expect(ids(window.of(all, false))).toEqual(["350", "649", 300]);
    expect(window.isAtEnd(all)).toBe(false);
    while (window.extendDown(all)) window.of(all, false);
    expect(ids(window.of(all, false))).toEqual(["700", "999", 300]);
    expect(window.isAtEnd(all)).toBe(true);
  });

  it("keeps what is read when items are put before it or come behind it", () => {
    const window = new LogWindow();
    window.of(items(500, 600), true);
    window.extendUp(items(500, 600));
    expect(ids(window.of(items(400, 600), false))[0]).toBe("500");
    const more = window.of(items(400, 2000), false);
    expect(ids(more)).toEqual(["500", "799", 300]);
  });

  it("goes to an item that is asked for, and back to the end", () => {
    const window = new LogWindow();
    const all = items(0, 1000);
    window.of(all, true);
    expect(window.reveal(all, 900)).toBe(false);
    expect(window.reveal(all, 100)).toBe(true);
    expect(window.of(all, false).some(({ id }) => id === "100")).toBe(true);
    expect(ids(window.of(all, true))).toEqual(["850", "999", 150]);
  });
});
