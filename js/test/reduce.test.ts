import { describe, expect, it } from "vitest";
import type { AnyEvent, Run } from "../src/protocol/generated.js";
import { EMPTY, type ChatState } from "../src/state/model.js";
import { reduce, reduceAll, withRecalls, withRuns } from "../src/state/reduce.js";
import { firingOf, openRecalls, pastRecalls } from "../src/state/select.js";
import { Log, prelude, recall } from "./log.js";

const after = (log: Log, state: ChatState = EMPTY): ChatState => reduceAll(state, log.envelopes);
const shown = (state: ChatState): string[] =>
  [...state.items, ...state.waiting].map((item) => {
    if (item.kind === "message") return `${item.role}:${item.text}:${item.status}`;
    if (item.kind === "tool") return `tool:${item.name}:${item.status}`;
    if (item.kind === "end") return `end:${item.code}`;
    if (item.kind === "plan") return `plan:${item.entries.map(({ content, status }) => `${content}=${status}`).join()}`;
    if (item.kind === "notice") return `notice:${item.code}`;
    return item.kind === "reasoning" ? `reasoning:${item.text}` : `${item.kind}:${item.id}:${item.status}`;
  });

describe("a run", () => {
  const turn = new Log().prompt("c1", "hi", "r1").started("r1").begin("m1", "Hel", "r1").more("m1", "lo", "r1").done("m1", "r1").finished("r1");

  it("is the prompt and the answer, in order", () => {
    const state = after(turn);
    expect(shown(state)).toEqual(["user:hi:done", "assistant:Hello:done"]);
    expect(state).toMatchObject({ run: null, waiting: [], head: 9 });
  });

  it("is active between its start and its end", () => {
    const state = reduceAll(EMPTY, turn.envelopes.slice(0, -1));
    expect(state.run).toMatchObject({ id: "r1", status: "running" });
  });

  it("keeps the partial text and says so when it was stopped", () => {
    const log = new Log().prompt("c1", "hi", "r1").started("r1").begin("m1", "Hel", "r1");
    const stopping = after(log.custom("navi.stop", { action: "requested", command_id: "c2", run_id: "r1" }, "r1"));
    expect(stopping.run?.status).toBe("stopping");
    expect(shown(after(log.finished("r1", "cancelled")))).toEqual(["user:hi:done", "assistant:Hel:done", "end:cancelled"]);
  });

  it("waits for the user's server until that is ready, cannot be had, or the run is stopped", () => {
    const begun = (): Log => new Log().prompt("c1", "hi", "r1").started("r1").add({ type: "TOOL_CALL_START", toolCallId: "t", toolCallName: "run_code" }, "r1");
    const starting = (): Log => begun().custom("navi.kernel", { status: "server_starting" }, "r1");
    const result = (content: string): AnyEvent => ({ type: "TOOL_CALL_RESULT", toolCallId: "t", messageId: "m", role: "tool", content });
    expect(after(starting()).run?.status).toBe("starting");
    expect(after(starting().add(result("of another call"), "r1")).run?.status).toBe("starting");
    expect(after(starting().custom("navi.kernel", { status: "server_ready" }, "r1")).run?.status).toBe("running");
    expect(after(starting().add(result('{"error":"server_unavailable","message":"no"}'), "r1")).run?.status).toBe("running");
    const stopping = starting().custom("navi.stop", { action: "requested", run_id: "r1" }, "r1");
    expect(after(stopping.custom("navi.kernel", { status: "server_starting" }, "r1")).run?.status).toBe("stopping");
    expect(after(begun().custom("navi.kernel", { status: "server_starting" }, "r0")).run?.status).toBe("running");
    expect(after(starting().finished("r1")).run).toBeNull();
  });

  it("shows its error", () => {
    const state = after(new Log().prompt("c1", "hi", "r1").started("r1").failed("r1", "model_unauthorized", "no key"));
    expect(state.items.at(-1)).toMatchObject({ kind: "end", code: "model_unauthorized", message: "no key" });
    expect(state.run).toBeNull();
  });

  it("has a notice where its answer is not what it should be, live and when it is read later", () => {
    const notice = { code: "answer_cut", message: "The answer is cut off. Ask to go on." };
    const log = new Log().prompt("c1", "hi", "r1").started("r1").begin("m1", "Hel", "r1").done("m1", "r1");
    const state = after(log.custom("navi.notice", { run_id: "r1", ...notice }, "r1").finished("r1"));
    expect(shown(state)).toEqual(["user:hi:done", "assistant:Hel:done", "end:answer_cut"]);
    expect(state.items.at(-1)).toMatchObject(notice);
    expect(state.run).toBeNull();
    const before = after(new Log().prompt("c1", "hi", "r1").started("r1").begin("m1", "Hel", "r1").done("m1", "r1").finished("r1"));
    const run = { id: "r1", status: "completed", error: null, notice, rolled_back: false } as unknown as Run;
    expect(shown(withRuns(before, [run]))).toEqual(["user:hi:done", "assistant:Hel:done", "end:answer_cut"]);
    expect(shown(withRuns(state, [run]))).toEqual(shown(state));
  });

  it("shows its prompt also when it ends without having started", () => {
    expect(shown(after(new Log().prompt("c1", "hi", "r1").failed("r1", "interrupted", "")))).toEqual(["user:hi:done", "end:interrupted"]);
  });

  it("is not ended by a stop of another run", () => {
    const state = after(new Log().started("r2").custom("navi.stop", { action: "requested", run_id: "r1" }, "r1"));
    expect(state.run?.status).toBe("running");
  });
});

describe("the queue", () => {
  const busy = new Log().prompt("c1", "one", "r1").started("r1").begin("m1", "a", "r1").prompt("c2", "two", "r2").queued("c2", "r2");

  it("shows a waiting prompt after what is in progress", () => {
    const log = new Log().prompt("c1", "one", "r1").started("r1").prompt("c2", "two", "r2").queued("c2", "r2").begin("m1", "a", "r1");
    expect(shown(after(log))).toEqual(["user:one:done", "assistant:a:streaming", "user:two:queued"]);
  });

  it("puts a prompt in its place when its run starts", () => {
    const log = new Log(20)
      .done("m1", "r1")
      .finished("r1")
      .custom("navi.queue", { action: "started", command_id: "c2", run_id: "r2" }, "r2")
      .started("r2")
      .begin("m2", "b", "r2");
    expect(shown(after(log, after(busy)))).toEqual(["user:one:done", "assistant:a:done", "user:two:done", "assistant:b:streaming"]);
  });

  it("forgets a withdrawn prompt", () => {
    const log = new Log(20).custom("navi.queue", { action: "cancelled", command_id: "c2" });
    expect(shown(after(log, after(busy)))).toEqual(["user:one:done", "assistant:a:streaming"]);
  });

  it("puts a steered prompt into the run that it steers", () => {
    const log = new Log(20).custom("navi.queue", { action: "steered", command_id: "c2", run_id: "r1" }, "r1").begin("m2", "b", "r1");
    expect(shown(after(log, after(busy)))).toEqual(["user:one:done", "assistant:a:streaming", "user:two:done", "assistant:b:streaming"]);
  });

  it("keeps a collected prompt waiting for the run that collects it", () => {
    const log = new Log(20).custom("navi.queue", { action: "collected", command_id: "c2", run_id: "r3" }, "r3");
    const state = after(log, after(busy));
    expect(shown(state).at(-1)).toBe("user:two:queued");
    expect(shown(after(new Log(30).finished("r1").started("r3"), state)).at(-1)).toBe("user:two:done");
  });

  it("says that a rejected prompt is not run", () => {
    const log = new Log(20).custom("navi.queue", { action: "rejected", command_id: "c2" });
    expect(shown(after(log, after(busy))).at(-1)).toBe("user:two:refused");
  });
});

describe("tool calls and thoughts", () => {
  const call = new Log()
    .started("r1")
    .add({ type: "REASONING_MESSAGE_START", messageId: "t1", role: "reasoning" }, "r1")
    .add({ type: "REASONING_MESSAGE_CONTENT", messageId: "t1", delta: "hm" }, "r1")
    .add({ type: "TOOL_CALL_START", toolCallId: "k1", toolCallName: "now" }, "r1")
    .add({ type: "TOOL_CALL_ARGS", toolCallId: "k1", delta: '{"a":' }, "r1")
    .add({ type: "TOOL_CALL_ARGS", toolCallId: "k1", delta: "1}" }, "r1")
    .add({ type: "TOOL_CALL_END", toolCallId: "k1" }, "r1");

  it("collects arguments and result", () => {
    expect(shown(after(call))).toEqual(["reasoning:hm", "tool:now:running"]);
    const done = after(new Log(20).add({ type: "TOOL_CALL_RESULT", messageId: "x", toolCallId: "k1", content: "12:00", role: "tool" }, "r1"), after(call));
    expect(done.items.at(-1)).toMatchObject({ kind: "tool", args: '{"a":1}', result: "12:00", status: "done" });
  });

  it("marks a call without result as stopped when the run ends", () => {
    expect(shown(after(new Log(20).finished("r1", "cancelled"), after(call)))).toContain("tool:now:stopped");
  });
});

describe("following", () => {
  const log = new Log().prompt("c1", "hi", "r1").started("r1").begin("m1", "Hel", "r1").more("m1", "lo", "r1");

  it("ignores what it has seen", () => {
    const once = after(log);
    expect(after(log, once)).toBe(once);
  });

  it("gives the same whatever the frames were", () => {
    expect(log.envelopes.reduce(reduce, EMPTY)).toEqual(reduceAll(reduceAll(EMPTY, log.envelopes.slice(0, 3)), log.envelopes.slice(2)));
  });

  it("never changes a state that it was given", () => {
    const frozen = Object.freeze(after(log));
    const items = [...frozen.items];
    after(new Log(20).more("m1", "!", "r1").finished("r1"), frozen);
    expect(frozen.items).toEqual(items);
  });

  it("begins with a prelude and goes on from its head", () => {
    const state = reduceAll(EMPTY, [
      ...prelude(50, [
        {
          type: "MESSAGES_SNAPSHOT",
          messages: [
            { id: "c0", role: "user", content: "before", runId: "r0", origin: { kind: "user", recall_id: null } },
            { id: "m0", role: "assistant", content: "yes", runId: "r0", toolCalls: [{ id: "k0", type: "function", function: { name: "now", arguments: "{}" } }] },
            { id: "x0", role: "tool", toolCallId: "k0", content: "12:00", runId: "r0" },
            { id: "c1", role: "user", content: "hi", runId: "r1" },
            { id: "c2", role: "user", content: "later", runId: "r2", queued: true },
          ],
        },
      ]),
      ...prelude(50, [
        { type: "RUN_STARTED", threadId: "s", runId: "r1" },
        { type: "TEXT_MESSAGE_START", messageId: "m1", role: "assistant" },
        { type: "TEXT_MESSAGE_CONTENT", messageId: "m1", delta: "Hel" },
      ], "r1"),
      ...new Log(50).more("m1", "lo", "r1").done("m1", "r1").envelopes,
    ]);
    expect(shown(state)).toEqual([
      "user:before:done", "assistant:yes:done", "tool:now:done", "user:hi:done", "assistant:Hello:done", "user:later:queued",
    ]);
    expect(state.head).toBe(52);
  });

  it("starts over with the prelude after a gap", () => {
    const gap = new Log(99).custom("navi.gap", { since: 4, min_seq: 90, head_seq: 100 }).envelopes;
    const inGap = reduceAll(after(log), gap);
    expect(inGap).toMatchObject({ gap: true, head: 7 });
    const state = reduceAll(inGap, prelude(100, [{ type: "MESSAGES_SNAPSHOT", messages: [{ id: "c9", role: "user", content: "new" }] }]));
    expect(state).toMatchObject({ gap: false, head: 100, run: null });
    expect(shown(state)).toEqual(["user:new:done"]);
  });

  it("ignores a stray piece of another prelude", () => {
    const state = after(log);
    expect(reduceAll(state, prelude(3, [{ type: "RUN_STARTED", threadId: "s", runId: "old" }]))).toBe(state);
  });

  it("is not disturbed by events that it does not know", () => {
    const strange = { type: "STATE_DELTA", delta: [] } as never;
    const state = after(new Log().prompt("c1", "hi", "r1").add(strange).add({ type: "CUSTOM", name: "navi.new" as never, value: {} }));
    expect(state.head).toBe(5);
  });
});

describe("recalls", () => {
  it("are those of the log, the next first, paused last", () => {
    const state = after(
      new Log()
        .recall(recall("b", "pending", "2026-11-23T10:00:00+00:00"))
        .recall(recall("c", "paused"))
        .recall(recall("a", "pending", "2026-11-23T08:00:00+00:00"))
        .recall(recall("d"))
        .recall(recall("d", "cancelled", null), "cancelled"),
    );
    expect(openRecalls(state).map(({ id }) => id)).toEqual(["a", "b", "c"]);
    expect(pastRecalls(state).map(({ id }) => id)).toEqual(["d"]);
  });

  it("that were listed do not replace what the log said later", () => {
    const state = after(new Log(9).recall(recall("a", "paused"), "paused"));
    const merged = withRecalls(state, [recall("a"), recall("b", "fired", null)], 5);
    expect(openRecalls(merged).map(({ status }) => status)).toEqual(["paused"]);
    expect(pastRecalls(merged).map(({ id }) => id)).toEqual(["b"]);
  });

  it("give their messages a title and a slot", () => {
    const origin = { kind: "recall", recall_id: "a" } as const;
    const state = after(new Log().recall(recall("a")).prompt("recall:a:2026-11-23T09:00:00+00:00", "check", "r1", origin).started("r1"));
    const message = state.items[0];
    expect(message?.kind === "message" && firingOf(state, message)).toEqual({ title: "title of a", slot: new Date("2026-11-23T09:00:00Z"), isEvent: false });
  });
});

describe("finished runs that were listed", () => {
  const run = (id: string, status: Run["status"]): Run =>
    ({ id, status, error: status === "failed" ? { code: "oops", message: "broken" } : null }) as Run;

  it("give a joiner the ends that a prelude does not tell", () => {
    const joined = reduceAll(EMPTY, prelude(9, [{ type: "MESSAGES_SNAPSHOT", messages: [
      { id: "c1", role: "user", content: "one", runId: "r1" },
      { id: "c2", role: "user", content: "two", runId: "r2" },
      { id: "c3", role: "user", content: "three", runId: "r3" },
    ] }]));
    const state = withRuns(joined, [run("r3", "completed"), run("r2", "stopped"), run("r1", "failed"), run("r0", "failed")]);
    expect(shown(state)).toEqual(["user:one:done", "end:oops", "user:two:done", "end:cancelled", "user:three:done"]);
    expect(withRuns(state, [run("r1", "failed")])).toEqual(state);
  });
});
