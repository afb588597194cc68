/**
 * The chat as a pure function of its log: `state = reduce(state, envelope)`.
 *
 * Two views that were given the same envelopes are equal, whatever the frames they came in. Not responsible for what
 * was sent but has not come back yet: that is the connection's outbox.
 */

import { isObject, isRecall } from "../protocol/frames.js";
import type { Custom, Envelope, McpServerInfo, McpToolNote, Outcome, Recall, Run } from "../protocol/generated.js";
import { choiceOf, offerOf } from "./agents.js";
import { changeActivity, snapshotActivity } from "./activity.js";
import { applyInterrupt, withWaiting } from "./interrupts.js";
import { append, changeItem, endRun, moveToEnd, place, placeRun, runEnd, without } from "./items.js";
import { EMPTY, type ChatState, type McpServer, type Message, type RunEnd } from "./model.js";
import { foldPrelude, readAttached } from "./snapshot.js";
import { applyUsage, readUsage, settleUsage } from "./usage.js";

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
    const folded = foldPrelude(envelope.event, envelope.ts);
    // What is read from the server, or emitted into all sessions, is no part of a prelude.
    const { session, mcp, spent, agent, rolledBack } = state;
    return { ...EMPTY, ...folded, session, mcp, spent, agent, rolledBack, head: envelope.seq };
  }
  const isOfThisPrelude = state.head === null || envelope.seq === state.head;
  return isOfThisPrelude ? { ...apply(state, envelope), head: envelope.seq } : state;
}

function apply(state: ChatState, envelope: Envelope): ChatState {
  const { event, run_id: runId, ts } = envelope;
  const subagentId = "subagentRunId" in event ? (event.subagentRunId ?? null) : null;
  const at = Date.parse(ts);
  switch (event.type) {
    case "TEXT_MESSAGE_START": {
      const { messageId: id, role, metadata } = event;
      const attachments = readAttached(metadata?.["attachments"]);
      const message = { kind: "message", id, role, runId, subagentId, origin: envelope.origin, ts, text: "", attachments, mode: null } as const;
      if (role === "assistant") return append(state, { ...message, status: "streaming" });
      return place({ ...state, waiting: [...without(state.waiting, id), { ...message, status: "done" }] }, id);
    }
    case "TEXT_MESSAGE_CONTENT":
      return changeItem(state, "message", event.messageId, (item) => ({ ...item, text: item.text + event.delta }));
    case "TEXT_MESSAGE_END":
      return changeItem(state, "message", event.messageId, (item) =>
        item.status === "streaming" ? { ...item, status: "done" } : item,
      );
    case "REASONING_MESSAGE_START":
      return append(state, { kind: "reasoning", id: event.messageId, runId, subagentId, text: "", status: "streaming" });
    case "REASONING_MESSAGE_CONTENT":
      return changeItem(state, "reasoning", event.messageId, (item) => ({ ...item, text: item.text + event.delta }));
    case "REASONING_MESSAGE_END":
      return changeItem(state, "reasoning", event.messageId, (item) => ({ ...item, status: "done" }));
    case "REASONING_START":
    case "REASONING_END":
      return state;
    case "TOOL_CALL_START": {
      const { toolCallId: id, toolCallName: name } = event;
      const call = { kind: "tool", id, name, runId, subagentId, args: "", result: null, activities: [], startedAt: at, endedAt: null } as const;
      return append(state, { ...call, status: "streaming" });
    }
    case "TOOL_CALL_ARGS":
      return changeItem(state, "tool", event.toolCallId, (item) => ({ ...item, args: item.args + event.delta }));
    case "TOOL_CALL_END":
      return changeItem(state, "tool", event.toolCallId, (item) => ({ ...item, status: "running", startedAt: at }));
    case "TOOL_CALL_RESULT": {
      const known = event.content.includes('"server_unavailable"') ? awaitServer(state, runId, false) : state;
      return changeItem(known, "tool", event.toolCallId, (item) => ({ ...item, result: event.content, status: "done", endedAt: at }));
    }
    case "ACTIVITY_SNAPSHOT":
      return snapshotActivity(state, event, runId);
    case "ACTIVITY_DELTA":
      return changeActivity(state, event);
    case "SUBAGENT_STARTED": {
      const { subagentRunId: id, name, parentSubagentRunId: parent, parentToolCallId = null } = event;
      const subagent = { kind: "subagent", id, name, runId, subagentId: parent ?? null, parentToolCallId, problem: null } as const;
      return append(state, { ...subagent, description: event.description ?? "", status: "running" });
    }
    case "SUBAGENT_FINISHED":
      return changeItem(state, "subagent", event.subagentRunId, (item) => ({ ...item, status: "done" }));
    case "SUBAGENT_ERROR":
      return changeItem(state, "subagent", event.subagentRunId, (item) => ({ ...item, status: "failed", problem: event.message }));
    case "RUN_STARTED": {
      const again = state.run?.id === event.runId ? state.run.reached : []; // it had paused
      return placeRun({ ...state, run: { id: event.runId, status: "running", reached: again } }, event.runId);
    }
    case "RUN_FINISHED":
      if (event.outcome.type === "interrupt") return withWaiting(state, event.runId); // not the end: it pauses
      return endRun(settleUsage(state, event.runId, event.usage), event.runId, finish(event.outcome));
    case "RUN_ERROR":
      if (runId === null) return state;
      return endRun(settleUsage(state, runId, event.usage), runId, { code: event.code, message: event.message });
    case "MESSAGES_SNAPSHOT":
      return { ...state, ...foldPrelude(event, ts) };
    case "CUSTOM":
      return applyCustom(state, event, envelope, at);
    default:
      event satisfies never; // a newer server may have more of them
      return state;
  }
}

function finish({ type }: Outcome): { code: string; message: string } | null {
  return type === "cancelled" ? { code: type, message: "" } : null;
}

function applyCustom(state: ChatState, { name, value }: Custom, { seq, run_id: runId }: Envelope, at: number): ChatState {
  switch (name) {
    case "navi.queue":
      return applyQueue(state, value);
    case "navi.stop":
      return applyStop(state, value, runId);
    case "navi.interrupt":
      return applyInterrupt(state, value, at);
    case "navi.usage":
      return applyUsage(state, value["run_id"] ?? runId, value["usage"]);
    case "navi.recall": {
      const { recall } = value;
      if (!isRecall(recall)) return state;
      return { ...state, recalls: { ...state.recalls, [recall.id]: { recall, seq } } };
    }
    case "navi.session": {
      const { session } = value;
      return isObject(session) ? withSession(state, session) : state;
    }
    case "navi.mcp": {
      const { server, status, message, notes } = value;
      if (typeof server !== "string") return state;
      return withServer(state, { name: server, status: String(status), message: typeof message === "string" ? message : toolNotes(notes) });
    }
    case "navi.notice": {
      const { run_id: about, code, message } = value;
      if (typeof about !== "string" || typeof code !== "string") return state;
      return append(state, runEnd(about, { code, message: typeof message === "string" ? message : "" }));
    }
    case "navi.agent_options":
      return { ...state, agent: offerOf(value) };
    case "navi.kernel":
      return awaitServer(state, runId, value["status"] === "server_starting");
    case "navi.notebook": // for the page around the chat: see host-events
    case "navi.tool":
    case "navi.gap":
      return state;
    default:
      name satisfies never; // of a newer server
      return state;
  }
}

/** A stop, or a question of the run, counts more. */
function awaitServer(state: ChatState, runId: string | null, awaits: boolean): ChatState {
  const { run } = state;
  if (run === null || run.id !== runId || run.status !== (awaits ? "running" : "starting")) return state;
  return { ...state, run: { ...run, status: awaits ? "starting" : "running" } };
}

function applyStop(state: ChatState, value: Custom["value"], runId: string | null): ChatState {
  const stopped = value["run_id"] ?? runId;
  const { run } = state;
  if (run === null || (stopped !== null && stopped !== run.id)) return state;
  if (value["action"] !== "reached") return { ...state, run: { ...run, status: "stopping" } };
  const { what, message } = value;
  const reached = { what: typeof what === "string" ? what : "", message: typeof message === "string" ? message : "" };
  return { ...state, run: { ...run, reached: [...run.reached, reached] } };
}

function applyQueue(state: ChatState, value: Custom["value"]): ChatState {
  const { action, command_id: commandId, run_id: answeredBy, text, mode } = value;
  if (action === "rolled_back" && typeof answeredBy === "string") return withRolledBack(state, [answeredBy]);
  if (typeof commandId !== "string") return state;
  const rewrite = (change: (message: Message) => Message): ChatState => ({
    ...state,
    waiting: state.waiting.map((message) => (message.id === commandId ? change(message) : message)),
  });
  switch (action) {
    case "queued":
      return rewrite((message) => ({ ...message, status: "queued", mode: typeof mode === "string" ? mode : message.mode }));
    case "edited":
      return typeof text === "string" ? rewrite((message) => ({ ...message, text })) : state;
    case "cancelled":
      return { ...state, waiting: without(state.waiting, commandId), items: without(state.items, commandId) };
    case "rejected":
      return place(rewrite((message) => ({ ...message, status: "refused" })), commandId, true);
    case "steered":
    case "collected": {
      // Answered by another run than its own from here on.
      const next = typeof answeredBy === "string" ? rewrite((message) => ({ ...message, runId: answeredBy })) : state;
      return action === "steered" && typeof answeredBy === "string" ? moveToEnd(place(next, commandId), commandId, answeredBy) : place(next, commandId);
    }
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
  const rolledBack = listed.filter((run) => run.rolled_back).map(({ id }) => id);
  return listed.reduce((next, run) => {
    const end = endOf(run);
    if (end === null || run.id === next.run?.id) return next;
    const last = next.items.findLastIndex((item) => item.runId === run.id);
    const isKnown = next.items.some((item) => item.kind === "end" && item.runId === run.id);
    return last < 0 || isKnown ? next : { ...next, items: next.items.toSpliced(last + 1, 0, end) };
  }, withRolledBack(state, rolledBack));
}

export function withSession(state: ChatState, fields: Readonly<Record<string, unknown>>): ChatState {
  const text = (name: string, old: string | undefined): string => {
    const value = fields[name];
    return typeof value === "string" ? value : (old ?? "");
  };
  const old = state.session;
  const session = {
    title: text("title", old?.title),
    model: text("model", old?.model),
    profile: text("profile", old?.profile),
    timezone: text("timezone", old?.timezone),
    zoneSource: text("timezone_source", old?.zoneSource),
    // An event of the log says nothing of it.
    sharedBy: fields["access"] === "reader" ? text("owner", "") : fields["access"] === "owner" ? null : (old?.sharedBy ?? null),
    notebook: text("notebook_path", old?.notebook),
    agentChoice: choiceOf(fields["agent_options"]) ?? old?.agentChoice ?? { mode: null, model: null },
  };
  const usage = readUsage(fields["usage"]);
  const agent = offerOf(fields["agent_offer"]) ?? state.agent;
  return { ...state, session, agent, spent: usage ? { ...state.spent, session: usage } : state.spent };
}

/** The MCP servers as `GET mcp` listed them; those that it does not name are gone. */
export function withServers(state: ChatState, listed: readonly McpServerInfo[]): ChatState {
  const mcp = Object.fromEntries(listed.map(({ name, status, why, notes }) => [name, { name, status, message: why ?? toolNotes(notes) }]));
  return { ...state, mcp };
}

/** What is to be known of a server's tools, one a line. */
function toolNotes(notes: unknown): string {
  const known = Array.isArray(notes) ? notes.filter((note): note is McpToolNote => typeof note?.tool === "string" && typeof note?.why === "string") : [];
  return known.map(({ tool, why }) => `${tool}: ${why}`).join("\n");
}

function withServer(state: ChatState, server: McpServer): ChatState {
  return { ...state, mcp: { ...state.mcp, [server.name]: server } };
}

function withRolledBack(state: ChatState, runIds: readonly string[]): ChatState {
  const more = runIds.filter((id) => !state.rolledBack.includes(id));
  return more.length ? { ...state, rolledBack: [...state.rolledBack, ...more] } : state;
}

function endOf(run: Run): RunEnd | null {
  if (run.notice) return runEnd(run.id, run.notice);
  const code = run.status === "stopped" ? "cancelled" : run.status;
  if (code !== "cancelled" && code !== "failed" && code !== "timed_out" && code !== "interrupted") return null;
  const why = code === "cancelled" ? { code, message: "" } : { code: run.error?.code ?? code, message: run.error?.message ?? "" };
  return runEnd(run.id, why);
}
