import { describe, expect, it } from "vitest";
// @ts-expect-error the playground's server is plain JavaScript
import { prelude as tellJoiner } from "../playground/prelude.mjs";
import type { AnyEvent, Custom, Envelope, McpServerInfo, Run } from "../src/protocol/generated.js";
import { applyPatch } from "../src/state/activity.js";
import { openInterrupts } from "../src/state/interrupts.js";
import { EMPTY, type Interrupt, type ChatState, type ToolCall, type Subagent } from "../src/state/model.js";
import { reduceAll, withRuns, withServers, withSession } from "../src/state/reduce.js";
import { treeOf } from "../src/state/select.js";
import { totalUsage } from "../src/state/usage.js";
import { Log, prelude, USER } from "./log.js";

const after = (log: Log, state: ChatState = EMPTY): ChatState => reduceAll(state, log.envelopes);
const find = <K extends ChatState["items"][number]["kind"]>(state: ChatState, kind: K, id: string) =>
  state.items.find((item): item is Extract<typeof item, { kind: K }> => item.kind === kind && item.id === id);

function call(log: Log, id: string, name: string, args: unknown, runId = "r1", subagentRunId?: string): Log {
  const by = subagentRunId ? { subagentRunId } : {};
  return log
    .add({ type: "TOOL_CALL_START", toolCallId: id, toolCallName: name, ...by }, runId)
    .add({ type: "TOOL_CALL_ARGS", toolCallId: id, delta: JSON.stringify(args), ...by }, runId)
    .add({ type: "TOOL_CALL_END", toolCallId: id, ...by }, runId);
}

const question = (id: string, more: Record<string, unknown> = {}): Custom["value"] => ({
  id, session_id: "s", run_id: "r1", kind: "approval", message: "", tool_call_id: "k1", tool: "run_code", args: { code: "1" },
  response_schema: null, subagent_run_id: null, durable: true, expires_at: null, status: "open", payload: null, answered_by: null, ...more,
});
const interrupt = (log: Log, action: string, value: Custom["value"]): Log => log.custom("navi.interrupt", { action, interrupt: value }, "r1");

describe("a question", () => {
  const asked = (): Log => interrupt(call(new Log().prompt("c1", "go", "r1").started("r1"), "k1", "run_code", { code: "1" }), "opened", question("i1"));

  it("makes its run wait, and leaves its tool call open", () => {
    const state = after(asked().finished("r1", "interrupt"));
    expect(state.run).toMatchObject({ id: "r1", status: "waiting" });
    expect(find(state, "tool", "k1")?.status).toBe("running");
    expect(openInterrupts(state).map(({ id }) => id)).toEqual(["i1"]);
  });

  it("stands behind the call that it is about", () => {
    const log = call(new Log().started("r1"), "k1", "run_code", {});
    interrupt(interrupt(call(log, "k2", "write_file", {}), "opened", question("i1")), "opened", question("i2", { tool_call_id: "k2" }));
    expect(after(log).items.map(({ id }) => id)).toEqual(["k1", "i1", "k2", "i2"]);
  });

  it("that was answered lets the run go on, whoever answered", () => {
    const log = interrupt(asked().finished("r1", "interrupt"), "resolved", question("i1", { payload: { approved: true }, answered_by: "ada" }));
    const state = after(log.started("r1"));
    expect(state.run?.status).toBe("running");
    expect(find(state, "interrupt", "i1")).toMatchObject({ status: "resolved", answeredBy: "ada", payload: { approved: true } });
    expect(state.items.filter(({ kind }) => kind === "end")).toEqual([]);
  });

  it("keeps the run waiting while another is open", () => {
    const log = interrupt(asked(), "opened", question("i2"));
    expect(after(interrupt(log, "resolved", question("i1"))).run?.status).toBe("waiting");
    expect(after(interrupt(log, "expired", question("i2"))).run?.status).toBe("running");
  });

  it("that does not pause its run leaves it running", () => {
    const state = after(interrupt(new Log().started("r1"), "opened", question("i1", { kind: "question", durable: false, tool_call_id: null })));
    expect(state.run?.status).toBe("running");
    expect(openInterrupts(state)).toHaveLength(1);
  });

  it("closes with its run", () => {
    const state = after(asked().finished("r1", "cancelled"));
    expect(find(state, "interrupt", "i1")?.status).toBe("cancelled");
    expect(state.run).toBeNull();
  });

  it("does not undo a stop", () => {
    const log = asked().custom("navi.stop", { action: "requested", run_id: "r1" }, "r1");
    expect(after(interrupt(log, "cancelled", question("i1"))).run?.status).toBe("stopping");
  });

  it("that is none is ignored", () => {
    const state = after(new Log().custom("navi.interrupt", { action: "opened" }).custom("navi.interrupt", { action: "boo", interrupt: question("i1") }));
    expect(state.items).toEqual([]);
  });
});

describe("activities", () => {
  const output = (log: Log, outputs: unknown[]): Log =>
    log.add({ type: "ACTIVITY_SNAPSHOT", messageId: "x", activityType: "navi.output", content: { toolCallId: "k1", outputs } }, "r1");

  it("belong to the call that they name, and change by patches", () => {
    const log = output(call(new Log().started("r1"), "k1", "run_code", {}), ["a"]);
    log.add({ type: "ACTIVITY_DELTA", messageId: "x", activityType: "navi.output", patch: [{ op: "add", path: "/outputs/-", value: "b" }] }, "r1");
    expect(find(after(log), "tool", "k1")?.activities).toEqual([{ id: "x", type: "navi.output", content: { toolCallId: "k1", outputs: ["a", "b"] } }]);
  });

  it("of unknown calls, and patches of unknown activities, are left out", () => {
    const log = output(new Log().started("r1"), []);
    log.add({ type: "ACTIVITY_DELTA", messageId: "y", activityType: "navi.output", patch: [] }, "r1");
    expect(after(log).items).toEqual([]);
  });

  it.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ["adds at the end", { op: "add", path: "/list/-", value: 3 }, { list: [1, 2, 3], deep: { a: 1 } }],
    ["adds in the middle", { op: "add", path: "/list/1", value: 3 }, { list: [1, 3, 2], deep: { a: 1 } }],
    ["replaces", { op: "replace", path: "/list/0", value: 3 }, { list: [3, 2], deep: { a: 1 } }],
    ["removes", { op: "remove", path: "/list/0" }, { list: [2], deep: { a: 1 } }],
    ["goes deep", { op: "replace", path: "/deep/a", value: 2 }, { list: [1, 2], deep: { a: 2 } }],
    ["unescapes keys", { op: "add", path: "/a~1b~0", value: 1 }, { list: [1, 2], deep: { a: 1 }, "a/b~": 1 }],
    ["leaves out what does not fit", { op: "replace", path: "/list/9", value: 3 }, { list: [1, 2], deep: { a: 1 } }],
    ["knows no prototypes", { op: "add", path: "/__proto__", value: { evil: 1 } }, { list: [1, 2], deep: { a: 1 } }],
  ])("%s", (_, operation, expected) => {
    const content = Object.freeze({ list: Object.freeze([1, 2]) as unknown, deep: Object.freeze({ a: 1 }) });
    expect(applyPatch(content, [operation])).toEqual(expected);
  });

  it("of ten thousand pieces are folded quickly", () => {
    const log = output(call(new Log().started("r1"), "k1", "run_code", {}), []);
    for (let index = 0; index < 10_000; index += 1) {
      log.add({ type: "ACTIVITY_DELTA", messageId: "x", activityType: "navi.output", patch: [{ op: "add", path: "/outputs/-", value: { text: String(index) } }] }, "r1");
    }
    const start = performance.now();
    const outputs = find(after(log), "tool", "k1")?.activities[0]?.content["outputs"];
    expect(outputs).toHaveLength(10_000);
    expect(performance.now() - start).toBeLessThan(2_000);
  });

  it("of finished runs come as messages of a prelude", () => {
    const messages = [
      { id: "a", role: "assistant", content: "", runId: "r1", toolCalls: [{ id: "k1", function: { name: "run_code", arguments: "{}" } }] },
      { id: "x", role: "activity", activityType: "navi.output", content: { toolCallId: "k1", outputs: [1] } },
    ];
    const state = reduceAll(EMPTY, prelude(5, [{ type: "MESSAGES_SNAPSHOT", messages }]));
    expect(find(state, "tool", "k1")?.activities).toHaveLength(1);
  });
});

describe("a worker", () => {
  const delegated = (): Log =>
    call(new Log().prompt("c1", "go", "r1").started("r1"), "k1", "delegate", { task: "look" })
      .add({ type: "SUBAGENT_STARTED", subagentRunId: "w1", name: "analyst", parentToolCallId: "k1" }, "r1")
      .add({ type: "TEXT_MESSAGE_START", messageId: "m1", role: "assistant", subagentRunId: "w1" }, "r1")
      .add({ type: "TEXT_MESSAGE_CONTENT", messageId: "m1", delta: "Hm", subagentRunId: "w1" }, "r1");

  it("holds what it says and does, in the place of the call that started it", () => {
    const log = interrupt(call(delegated(), "k2", "run_code", {}, "r1", "w1"), "opened", question("i1", { tool_call_id: "k2", subagent_run_id: "w1", durable: false }));
    const tree = treeOf(after(log).items);
    expect(tree.top.map(({ id }) => id)).toEqual(["c1", "w1"]);
    expect(tree.inside.get("w1")?.map(({ id }) => id)).toEqual(["m1", "k2", "i1"]);
    expect([...tree.asking]).toEqual(["k2"]);
  });

  it("that a prelude tells of before its call stands in the call's place all the same", () => {
    const events: AnyEvent[] = [
      { type: "MESSAGES_SNAPSHOT", messages: [{ id: "c1", role: "user", content: "go", runId: "r1" }] },
      { type: "RUN_STARTED", threadId: "s", runId: "r1" },
      { type: "SUBAGENT_STARTED", subagentRunId: "w1", name: "analyst", parentToolCallId: "k1" },
      { type: "TEXT_MESSAGE_START", messageId: "m0", role: "assistant" },
      { type: "TOOL_CALL_START", toolCallId: "k1", toolCallName: "delegate" },
    ];
    expect(treeOf(reduceAll(EMPTY, prelude(9, events, "r1")).items).top.map(({ id }) => id)).toEqual(["c1", "m0", "w1"]);
  });

  it("ends well, badly, or with its run", () => {
    const status = (log: Log): Subagent["status"] | undefined => find(after(log), "subagent", "w1")?.status;
    expect(status(delegated())).toBe("running");
    expect(status(delegated().add({ type: "SUBAGENT_FINISHED", subagentRunId: "w1" }, "r1"))).toBe("done");
    expect(status(delegated().add({ type: "SUBAGENT_ERROR", subagentRunId: "w1", message: "no" }, "r1"))).toBe("failed");
    expect(status(delegated().finished("r1", "cancelled"))).toBe("stopped");
  });

  it("of a finished run is known from what it said", () => {
    const messages = [{ id: "m1", role: "assistant", content: "Hm", runId: "r1", subagentRunId: "w1" }];
    const tree = treeOf(reduceAll(EMPTY, prelude(5, [{ type: "MESSAGES_SNAPSHOT", messages }])).items);
    expect(tree.top.map(({ kind, id }) => `${kind}:${id}`)).toEqual(["subagent:w1"]);
    expect(tree.inside.get("w1")).toHaveLength(1);
  });
});

describe("prompts", () => {
  const queued = (): Log => new Log().prompt("c1", "one", "r1").started("r1").prompt("c2", "two", "r2").queued("c2", "r2");

  it("that wait can be changed", () => {
    const state = after(queued().custom("navi.queue", { action: "edited", command_id: "c2", run_id: "r2", text: "three" }, "r2"));
    expect(state.waiting.map(({ text, status }) => [text, status])).toEqual([["three", "queued"]]);
  });

  it("that were steered move to where the run was told of them, wherever they stood", () => {
    const told = prelude(5, [{ type: "MESSAGES_SNAPSHOT", messages: [{ id: "c2", role: "user", content: "two", runId: "r2" }] }, { type: "RUN_STARTED", threadId: "s", runId: "r1" }], "r1");
    const log = new Log(5).begin("m1", "a", "r1").done("m1", "r1").custom("navi.queue", { action: "steered", command_id: "c2", run_id: "r1" }, "r1");
    const { items } = after(log, reduceAll(EMPTY, told));
    expect(items.map(({ id, runId }) => [id, runId])).toEqual([["m1", "r1"], ["c2", "r1"]]);
  });

  it("carry their attachments", () => {
    const attachments = [{ id: "a1", name: "plot.png", media_type: "image/png", size: 7 }];
    const log = new Log().started("r1").add({ type: "TEXT_MESSAGE_START", messageId: "c1", role: "user", metadata: { attachments } }, "r1");
    const expected = [{ id: "a1", name: "plot.png", mediaType: "image/png", size: 7 }];
    expect(find(after(log), "message", "c1")?.attachments).toEqual(expected);
    const told = prelude(3, [{ type: "MESSAGES_SNAPSHOT", messages: [{ id: "c1", role: "user", content: "hi", attachments }] }]);
    expect(find(reduceAll(EMPTY, told), "message", "c1")?.attachments).toEqual(expected);
  });

  it("whose turn was rolled back stay, marked, also for a joiner", () => {
    const log = queued().custom("navi.queue", { action: "rolled_back", command_id: "c2", run_id: "r1" }, "r1").finished("r1", "cancelled");
    expect(after(log).rolledBack).toEqual(["r1"]);
    expect(after(log).items.map(({ id }) => id)).toContain("c1");
    const run = { id: "r1", status: "stopped", rolled_back: true, error: null } as unknown as Run;
    expect(withRuns(EMPTY, [run]).rolledBack).toEqual(["r1"]);
  });
});

describe("a stop", () => {
  it("says what it has ended", () => {
    const log = new Log().started("r1").custom("navi.stop", { action: "requested", run_id: "r1" }, "r1");
    log.custom("navi.stop", { action: "reached", run_id: "r1", what: "kernel", message: "the cell was interrupted" }, "r1");
    expect(after(log).run?.status).toBe("stopping");
    expect(find(after(log.finished("r1", "cancelled")), "end", "end:r1")?.reached).toEqual([{ what: "kernel", message: "the cell was interrupted" }]);
  });
});

describe("usage", () => {
  const usage = (tokens: number, cost: number | null) => ({ input_tokens: tokens, output_tokens: 1, requests: 1, cost });

  it("grows with the run and becomes the session's when it is over", () => {
    const before = withSession(EMPTY, { usage: usage(100, 0.5) });
    const log = new Log().started("r1").custom("navi.usage", { run_id: "r1", usage: usage(10, 0.1) }, "r1").custom("navi.usage", { run_id: "r1", usage: usage(30, 0.2) }, "r1");
    expect(totalUsage(after(log, before))).toEqual({ input_tokens: 130, output_tokens: 2, requests: 2, cost: 0.7 });
    const over = after(log.finished("r1"), before);
    expect(over.spent).toMatchObject({ session: { input_tokens: 130 }, run: { isOver: true } });
    expect(totalUsage(over)).toEqual(over.spent.session);
  });

  it("is that of the end where nothing was told before", () => {
    const log = new Log().started("r1").add({ type: "RUN_FINISHED", threadId: "s", runId: "r1", outcome: { type: "success" }, usage: [{ inputTokens: 5, outputTokens: 2 }] }, "r1");
    expect(totalUsage(after(log))).toEqual({ input_tokens: 5, output_tokens: 2, requests: 0, cost: null });
  });
});

describe("MCP servers", () => {
  it("are those of the list, then as they are told", () => {
    const listed = withServers(EMPTY, [{ name: "files", status: "configured", why: null } as McpServerInfo]);
    const state = after(new Log().custom("navi.mcp", { server: "files", status: "failed", message: "gone" }), listed);
    expect(state.mcp).toEqual({ files: { name: "files", status: "failed", message: "gone" } });
  });
});

describe("who joins at any point", () => {
  const text = (log: Log, id: string, parts: readonly string[], subagentRunId?: string): Log => {
    const by = subagentRunId ? { subagentRunId } : {};
    log.add({ type: "TEXT_MESSAGE_START", messageId: id, role: "assistant", ...by }, "r1");
    for (const delta of parts) log.add({ type: "TEXT_MESSAGE_CONTENT", messageId: id, delta, ...by }, "r1");
    return log.add({ type: "TEXT_MESSAGE_END", messageId: id, ...by }, "r1");
  };
  const patch = (messageId: string, operation: Record<string, unknown>): AnyEvent => ({ type: "ACTIVITY_DELTA", messageId, activityType: "navi.output", patch: [operation] });

  function everything(): readonly Envelope[] {
    const log = new Log().prompt("c0", "before", "r0").started("r0").begin("m0", "old", "r0").done("m0", "r0").finished("r0").prompt("c1", "go", "r1").started("r1");
    text(log, "m1", ["Let ", "me ", "see"]);
    call(log, "k1", "run_code", { code: "print(1)" });
    log.add({ type: "ACTIVITY_SNAPSHOT", messageId: "x1", activityType: "navi.output", content: { toolCallId: "k1", outputs: [] } }, "r1");
    log.add(patch("x1", { op: "add", path: "/outputs/-", value: { output_type: "stream", text: "1" } }), "r1");
    log.add({ type: "ACTIVITY_SNAPSHOT", messageId: "x2", activityType: "navi.progress", content: { toolCallId: "k1", progress: 0 } }, "r1");
    log.add(patch("x2", { op: "replace", path: "/progress", value: 3 }), "r1");
    log.prompt("c2", "steer this", "r2").custom("navi.queue", { action: "queued", command_id: "c2", run_id: "r2" }, "r2");
    log.add(patch("x1", { op: "add", path: "/outputs/-", value: { output_type: "stream", text: "2" } }), "r1");
    log.add({ type: "TOOL_CALL_RESULT", messageId: "t1", toolCallId: "k1", content: "1", role: "tool" }, "r1");
    log.custom("navi.queue", { action: "steered", command_id: "c2", run_id: "r1", text: "steer this" }, "r1");
    call(log, "k2", "delegate", { task: "t" }).add({ type: "SUBAGENT_STARTED", subagentRunId: "w1", name: "analyst", parentToolCallId: "k2" }, "r1");
    text(log, "m2", ["a ", "worker"], "w1");
    call(log, "k3", "list_variables", {}, "r1", "w1").add({ type: "TOOL_CALL_RESULT", messageId: "t3", toolCallId: "k3", content: "[]", role: "tool", subagentRunId: "w1" }, "r1");
    log.add({ type: "SUBAGENT_FINISHED", subagentRunId: "w1", result: "done" }, "r1");
    log.prompt("c3", "later", "r3").queued("c3", "r3");
    call(log, "k4", "write_file", { path: "a" });
    interrupt(interrupt(log, "opened", question("i1", { tool_call_id: "k4", tool: "write_file" })), "opened", question("i2", { kind: "question", tool_call_id: null, tool: null }));
    return log.finished("r1", "interrupt").envelopes;
  }

  /** The frames of a joiner when the log was at `head`, as the playground's server makes them. */
  function joiner(log: readonly Envelope[], head: number): Envelope[] {
    const so = log.slice(0, head);
    const run = so.filter(({ event }) => event.type === "RUN_STARTED").at(-1)?.run_id ?? null;
    const isOver = so.some(({ event, run_id: id }) => id === run && event.type === "RUN_FINISHED" && event.outcome.type !== "interrupt");
    const told = (action: string): string[] => so.flatMap(({ event }) => (event.type === "CUSTOM" && event.value["action"] === action ? [String(event.value["command_id"])] : []));
    const queued = new Set(told("queued"));
    for (const id of told("steered")) queued.delete(id);
    const asks = so.flatMap(({ event }) => (event.type === "CUSTOM" && event.name === "navi.interrupt" ? [event.value["interrupt"]] : []));
    const live = isOver ? null : run;
    const events = tellJoiner({ log: so, run: live, sessionId: "s", queued, recalls: [], asks }) as AnyEvent[];
    return events.map((event) => ({ seq: head, session_id: "s", run_id: live, ts: "2026-11-22T22:13:00.123Z", origin: USER, event, snapshot: true }));
  }

  const shown = ({ items, waiting, run }: ChatState) => ({
    items: items.map((item) => (item.kind === "tool" ? ({ ...item, startedAt: 0, endedAt: 0 } satisfies ToolCall) : item)),
    waiting,
    run,
  });

  it("sees in the end what everybody sees", () => {
    const log = everything();
    const expected = shown(reduceAll(EMPTY, log));
    expect(expected.run?.status).toBe("waiting");
    expect(expected.items.filter((item): item is Interrupt => item.kind === "interrupt")).toHaveLength(2);
    // Not in the middle of a prompt: those three events are one transaction.
    const between = log.flatMap(({ event }, index) => {
      const isInPrompt = event.type.startsWith("TEXT_MESSAGE") && "messageId" in event && event.messageId.startsWith("c") ;
      return isInPrompt ? [] : [index + 1];
    });
    for (const head of between) {
      const state = reduceAll(EMPTY, [...joiner(log, head), ...log.slice(head)]);
      expect(shown(state), `joined at ${head}`).toEqual(expected);
    }
  });
});
