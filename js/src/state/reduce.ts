/**
 * The chat as a pure function of its log: `state = reduce(state, envelope)`.
 *
 * Two views that were given the same envelopes are equal, whatever the frames they came in. Not responsible for what
 * was sent but has not come back yet: that is the connection's outbox.
 */

import { isObject, isRecall } from "../protocol/frames.js";
import type { Custom, Envelope, Recall, Run } from "../protocol/generated.js";
import { EMPTY, type ChatState, type Item, type Message, type RunEnd } from "./model.js";
import { foldSnapshot } from "./snapshot.js";

export function reduce(state: ChatState, envelope: Envelope): ChatState {
  const isGap = envelope.event.type === "CUSTOM" && envelope.event.name === "navi.gap";
  if (isGap) return { ...state, gap: true }; // it is no event of the log, whatever its seq
  if (envelope.snapshot) return reduceSnapshot(state, envelope);
  if (state.head !== null && envelope.seq <= state.head) return state;
  return { ...apply(state, envelope), head: envelope.seq };
}

export function reduceAll(state: ChatState, envelopes: readonly Envelope[]): ChatState {
  return envelopes.reduce(reduce, state);
}

/** A prelude starts over with `MESSAGES_SNAPSHOT`; its other events follow with the same seq. */
function reduceSnapshot(state: ChatState, envelope: Envelope): ChatState {
  if (envelope.event.type === "MESSAGES_SNAPSHOT") {
    const folded = foldSnapshot(envelope.event.messages, envelope.ts);
    return { ...EMPTY, ...folded, session: state.session, head: envelope.seq };
  }
  const isOfThisPrelude = state.head === null || envelope.seq === state.head;
  return isOfThisPrelude ? { ...apply(state, envelope), head: envelope.seq } : state;
}

function apply(state: ChatState, envelope: Envelope): ChatState {
  const { event, run_id: runId, ts } = envelope;
  switch (event.type) {
    case "TEXT_MESSAGE_START": {
      const { messageId: id, role } = event;
      const message = { kind: "message", id, role, runId, origin: envelope.origin, ts, text: "" } as const;
      if (role === "assistant") return append(state, { ...message, status: "streaming" });
      return place({ ...state, waiting: [...state.waiting, { ...message, status: "done" }] }, id);
    }
    case "TEXT_MESSAGE_CONTENT":
      return changeItem(state, "message", event.messageId, (item) => ({ ...item, text: item.text + event.delta }));
    case "TEXT_MESSAGE_END":
      return changeItem(state, "message", event.messageId, (item) =>
        item.status === "streaming" ? { ...item, status: "done" } : item,
      );
    case "REASONING_MESSAGE_START":
      return append(state, { kind: "reasoning", id: event.messageId, runId, text: "", status: "streaming" });
    case "REASONING_MESSAGE_CONTENT":
      return changeItem(state, "reasoning", event.messageId, (item) => ({ ...item, text: item.text + event.delta }));
    case "REASONING_MESSAGE_END":
      return changeItem(state, "reasoning", event.messageId, (item) => ({ ...item, status: "done" }));
    case "REASONING_START":
    case "REASONING_END":
      return state;
    case "TOOL_CALL_START": {
      const { toolCallId: id, toolCallName: name } = event;
      return append(state, { kind: "tool", id, name, runId, args: "", result: null, status: "streaming" });
    }
    case "TOOL_CALL_ARGS":
      return changeItem(state, "tool", event.toolCallId, (item) => ({ ...item, args: item.args + event.delta }));
    case "TOOL_CALL_END":
      return changeItem(state, "tool", event.toolCallId, (item) => ({ ...item, status: "running" }));
    case "TOOL_CALL_RESULT":
      return changeItem(state, "tool", event.toolCallId, (item) => ({ ...item, result: event.content, status: "done" }));
    case "RUN_STARTED":
      return placeRun({ ...state, run: { id: event.runId, status: "running" } }, event.runId);
    case "RUN_FINISHED":
      return endRun(state, event.runId, event.outcome.type === "success" ? null : { code: event.outcome.type, message: "" });
    case "RUN_ERROR":
      return runId === null ? state : endRun(state, runId, { code: event.code, message: event.message });
    case "MESSAGES_SNAPSHOT":
      return { ...state, ...foldSnapshot(event.messages, ts) };
    case "CUSTOM":
      return applyCustom(state, event, envelope);
    default:
      event satisfies never; // a newer server may have more of them
      return state;
  }
}

function applyCustom(state: ChatState, { name, value }: Custom, { seq, run_id: runId }: Envelope): ChatState {
  switch (name) {
    case "navi.queue":
      return applyQueue(state, value);
    case "navi.stop": {
      const stopped = value["run_id"] ?? runId;
      if (state.run === null || (stopped !== null && stopped !== state.run.id)) return state;
      return { ...state, run: { ...state.run, status: "stopping" } };
    }
    case "navi.recall": {
      const { recall } = value;
      if (!isRecall(recall)) return state;
      return { ...state, recalls: { ...state.recalls, [recall.id]: { recall, seq } } };
    }
    case "navi.session": {
      const { session } = value;
      return isObject(session) ? withSession(state, session) : state;
    }
    case "navi.mcp":
    case "navi.kernel":
    case "navi.gap":
      return state;
  }
}

function applyQueue(state: ChatState, value: Custom["value"]): ChatState {
  const { action, command_id: commandId, run_id: answeredBy } = value;
  if (typeof commandId !== "string") return state;
  const rewrite = (change: (message: Message) => Message): ChatState => ({
    ...state,
    waiting: state.waiting.map((message) => (message.id === commandId ? change(message) : message)),
  });
  switch (action) {
    case "queued":
      return rewrite((message) => ({ ...message, status: "queued" }));
    case "cancelled":
      return { ...state, waiting: without(state.waiting, commandId), items: without(state.items, commandId) };
    case "rejected":
      return place(rewrite((message) => ({ ...message, status: "refused" })), commandId, true);
    case "steered":
    case "collected":
      // Answered by another run than its own from here on.
      return place(
        typeof answeredBy === "string" ? rewrite((message) => ({ ...message, runId: answeredBy })) : state,
        commandId,
      );
    default: // "started": RUN_STARTED follows and says the same
      return state;
  }
}

// --- what is fetched, not followed -----------------------------------------------------------------------------------

/** The recalls as `GET recalls` listed them when the log was at `head`. */
export function withRecalls(state: ChatState, listed: readonly Recall[], head: number): ChatState {
  const recalls = { ...state.recalls };
  for (const recall of listed) {
    const known = recalls[recall.id];
    if (!known || known.seq <= head) recalls[recall.id] = { recall, seq: head };
  }
  return { ...state, recalls };
}

/** How finished runs ended as `GET runs` listed it: a prelude does not say. */
export function withRuns(state: ChatState, listed: readonly Run[]): ChatState {
  return listed.reduce((next, run) => {
    const end = endOf(run);
    if (end === null || run.id === next.run?.id) return next;
    const last = next.items.findLastIndex((item) => item.runId === run.id);
    const isKnown = next.items.some((item) => item.kind === "end" && item.runId === run.id);
    return last < 0 || isKnown ? next : { ...next, items: next.items.toSpliced(last + 1, 0, end) };
  }, state);
}

export function withSession(state: ChatState, { title, model, profile }: Readonly<Record<string, unknown>>): ChatState {
  const text = (value: unknown, old: string | undefined): string => (typeof value === "string" ? value : (old ?? ""));
  const old = state.session;
  return {
    ...state,
    session: { title: text(title, old?.title), model: text(model, old?.model), profile: text(profile, old?.profile) },
  };
}

function endOf(run: Run): RunEnd | null {
  const code = run.status === "stopped" ? "cancelled" : run.status;
  if (code !== "cancelled" && code !== "failed" && code !== "timed_out" && code !== "interrupted") return null;
  const why = code === "cancelled" ? { code, message: "" } : { code: run.error?.code ?? code, message: run.error?.message ?? "" };
  return runEnd(run.id, why);
}

// --- steps -----------------------------------------------------------------------------------------------------------

function append(state: ChatState, item: Item): ChatState {
  // A prelude may open again what was there already.
  const known = state.items.some((other) => other.kind === item.kind && other.id === item.id);
  return { ...state, items: known ? state.items.map((other) => (isSame(other, item) ? item : other)) : [...state.items, item] };
}

function isSame(one: Item, other: Item): boolean {
  return one.kind === other.kind && one.id === other.id;
}

/** Puts a waiting prompt into the conversation when its run is the present one (or `anyway`). */
function place(state: ChatState, messageId: string, anyway = false): ChatState {
  const message = state.waiting.find((waiting) => waiting.id === messageId);
  if (!message || !(anyway || (message.runId !== null && message.runId === state.run?.id))) return state;
  return move(state, [message]);
}

/** Puts the prompts of a run that starts (or ends without having started) into the conversation. */
function placeRun(state: ChatState, runId: string): ChatState {
  const started = state.waiting.filter((message) => message.runId === runId);
  return started.length ? move(state, started) : state;
}

function move(state: ChatState, messages: readonly Message[]): ChatState {
  const settled = messages.map((message): Message => (message.status === "queued" ? { ...message, status: "done" } : message));
  return {
    ...state,
    waiting: state.waiting.filter((message) => !messages.includes(message)),
    items: [...state.items, ...settled],
  };
}

function endRun(state: ChatState, runId: string, why: { code: string; message: string } | null): ChatState {
  const placed = placeRun(state, runId);
  const closed = placed.items.map((item) => (item.runId === runId ? close(item) : item));
  const run = placed.run?.id === runId ? null : placed.run;
  return { ...placed, run, items: why ? [...closed, runEnd(runId, why)] : closed };
}

function close(item: Item): Item {
  switch (item.kind) {
    case "message":
    case "reasoning":
      return item.status === "streaming" ? { ...item, status: "done" } : item;
    case "tool":
      return item.status === "done" ? item : { ...item, status: "stopped" };
    case "end":
      return item;
  }
}

function runEnd(runId: string, why: { code: string; message: string }): RunEnd {
  return { kind: "end", id: `end:${runId}`, runId, ...why };
}

function without<T extends Item>(items: readonly T[], id: string): readonly T[] {
  return items.some((item) => item.id === id) ? items.filter((item) => item.id !== id) : items;
}

type OfKind<K extends Item["kind"]> = Extract<Item, { kind: K }>;

function changeItem<K extends Item["kind"]>(
  state: ChatState,
  kind: K,
  id: string,
  change: (item: OfKind<K>) => OfKind<K>,
): ChatState {
  const isIt = (item: Item): boolean => item.kind === kind && item.id === id;
  const index = state.items.findLastIndex(isIt); // what changes is nearly always at the end
  const item = state.items[index];
  if (item) return { ...state, items: state.items.with(index, change(item as OfKind<K>)) };
  const waits = state.waiting.some(isIt);
  if (!waits) return state;
  return {
    ...state,
    waiting: state.waiting.map((message) => (isIt(message) ? (change(message as OfKind<K>) as Message) : message)),
  };
}
