/** Questions of runs: `navi.interrupt`. */

import { isObject } from "../protocol/frames.js";
import { appendAfterCall, changeItem, indexOf } from "./items.js";
import type { Ask, ChatState } from "./model.js";

type Fields = Readonly<Record<string, unknown>>;

/** `at`: when it was said, in milliseconds since 1970. */
export function applyInterrupt(state: ChatState, { action, interrupt }: Fields, at: number): ChatState {
  const ask = readAsk(interrupt, action);
  if (!ask) return state;
  const isKnown = indexOf(state.items, "ask", ask.id) >= 0;
  const next = isKnown ? changeItem(state, "ask", ask.id, () => ask) : appendAfterCall(state, ask);
  return withWaiting(ask.about === "approval" && ask.status === "resolved" ? asApproved(next, ask, at) : next, ask.runId);
}

/** The call is made as it was approved, from now on: how long the user thought about it is not its time. */
function asApproved(state: ChatState, { toolCallId, payload }: Ask, at: number): ChatState {
  if (toolCallId === null) return state;
  const args = isObject(payload) && isObject(payload["args"]) ? JSON.stringify(payload["args"]) : null;
  return changeItem(state, "tool", toolCallId, (call) => (call.status === "running" ? { ...call, args: args ?? call.args, startedAt: at } : call));
}

/** A run waits while a question is open that it pauses for; being stopped goes before. */
export function withWaiting(state: ChatState, runId: string | null): ChatState {
  if (state.run === null || state.run.id !== runId || state.run.status === "stopping") return state;
  const waits = state.items.some((item) => item.kind === "ask" && item.status === "open" && item.durable && item.runId === runId);
  return { ...state, run: { ...state.run, status: waits ? "waiting" : "running" } };
}

/** The questions that are open, oldest first. */
export function openAsks(state: ChatState): readonly Ask[] {
  return state.items.filter((item): item is Ask => item.kind === "ask" && item.status === "open");
}

const STATUS = { opened: "open", resolved: "resolved", cancelled: "cancelled", expired: "expired" } as const;

function readAsk(interrupt: unknown, action: unknown): Ask | null {
  if (!isObject(interrupt) || typeof interrupt["id"] !== "string") return null;
  const status = STATUS[action as keyof typeof STATUS];
  if (!status) return null;
  const text = (name: string): string | null => (typeof interrupt[name] === "string" ? interrupt[name] : null);
  const fields = (name: string): Fields | null => (isObject(interrupt[name]) ? interrupt[name] : null);
  return {
    kind: "ask",
    id: interrupt["id"],
    runId: text("run_id"),
    workerId: text("subagent_run_id"),
    about: interrupt["kind"] === "question" ? "question" : "approval",
    message: text("message") ?? "",
    toolCallId: text("tool_call_id"),
    tool: text("tool"),
    args: fields("args"),
    schema: fields("response_schema"),
    durable: interrupt["durable"] !== false,
    expiresAt: text("expires_at"),
    status,
    payload: interrupt["payload"] ?? null,
    answeredBy: text("answered_by"),
  };
}
