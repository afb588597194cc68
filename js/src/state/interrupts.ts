/** Questions of runs: `navi.interrupt`. */

import { isObject } from "../protocol/frames.js";
import type { SettledQuestion } from "../protocol/generated.js";
import { appendAfterCall, changeItem, indexOf } from "./items.js";
import type { AskOption, CallDetail, ChatState, Interrupt } from "./model.js";

type Fields = Readonly<Record<string, unknown>>;

/** `at`: when it was emitted, in milliseconds since 1970. */
export function applyInterrupt(state: ChatState, { action, interrupt: fields }: Fields, at: number): ChatState {
  const interrupt = readInterrupt(fields, action, at);
  if (!interrupt) return state;
  const isKnown = indexOf(state.items, "interrupt", interrupt.id) >= 0;
  const next = isKnown ? changeItem(state, "interrupt", interrupt.id, () => interrupt) : appendAfterCall(state, interrupt);
  return withWaiting(interrupt.about === "approval" && interrupt.status === "resolved" ? asApproved(next, interrupt, at) : next, interrupt.runId);
}

/** The call is made as it was approved, from now on: how long the user thought about it is not its time. */
function asApproved(state: ChatState, { toolCallId, payload }: Interrupt, at: number): ChatState {
  if (toolCallId === null) return state;
  const args = isObject(payload) && isObject(payload["args"]) ? JSON.stringify(payload["args"]) : null;
  return changeItem(state, "tool", toolCallId, (call) => (call.status === "running" ? { ...call, args: args ?? call.args, startedAt: at } : call));
}

/** A run waits while a question is open that it pauses for; being stopped goes before. */
export function withWaiting(state: ChatState, runId: string | null): ChatState {
  if (state.run === null || state.run.id !== runId || state.run.status === "stopping") return state;
  const waits = state.items.some((item) => item.kind === "interrupt" && item.status === "open" && item.durable && item.runId === runId);
  return { ...state, run: { ...state.run, status: waits ? "waiting" : "running" } };
}

/** Settled questions as they are listed beside their runs: a prelude has none of runs that are over. Those without their call are not shown. */
export function withQuestions(state: ChatState, listed: readonly SettledQuestion[] = []): ChatState {
  return listed.reduce<ChatState>((next, fields) => {
    const question = questionOf({ ...fields });
    if (question === null || question.status === "open" || indexOf(next.items, "interrupt", question.id) >= 0) return next;
    if (question.toolCallId !== null && indexOf(next.items, "tool", question.toolCallId) >= 0) return appendAfterCall(next, question);
    // A question that is about no call (of an MCP server) stands behind what is there of its run.
    const last = question.about === "question" ? next.items.findLastIndex(({ runId, kind }) => runId === question.runId && kind !== "end") : -1;
    return last < 0 ? next : { ...next, items: next.items.toSpliced(last + 1, 0, question) };
  }, state);
}

/** The questions that are open, oldest first. */
export function openInterrupts(state: ChatState): readonly Interrupt[] {
  return state.items.filter((item): item is Interrupt => item.kind === "interrupt" && item.status === "open");
}

/** A question as the REST API has it. */
export function questionOf(fields: Fields): Interrupt | null {
  return readInterrupt(fields, fields["status"] === "open" ? "opened" : fields["status"]);
}

function readDetail({ label, text, kind, language, foreign, omitted, cell }: Fields): CallDetail {
  return {
    label: String(label ?? ""),
    text: String(text ?? ""),
    kind: kind === "code" || kind === "diff" ? kind : "text",
    language: typeof language === "string" ? language : null,
    foreign: foreign === true,
    omitted: typeof omitted === "number" ? omitted : 0,
    cell: isObject(cell) && typeof cell["path"] === "string" && typeof cell["id"] === "string" ? { path: cell["path"], id: cell["id"] } : null,
  };
}

const OPTION_KINDS: readonly string[] = ["allow_once", "allow_always", "reject_once", "reject_always"] satisfies readonly AskOption["kind"][];

function readOption({ id, name, kind }: Fields): readonly AskOption[] {
  if (typeof id !== "string" || typeof kind !== "string" || !OPTION_KINDS.includes(kind)) return [];
  return [{ id, name: typeof name === "string" && name.trim() ? name : id, kind: kind as AskOption["kind"] }];
}

const STATUS = { opened: "open", resolved: "resolved", cancelled: "cancelled", expired: "expired" } as const;

function readInterrupt(interrupt: unknown, action: unknown, at = NaN): Interrupt | null {
  if (!isObject(interrupt) || typeof interrupt["id"] !== "string") return null;
  const status = STATUS[action as keyof typeof STATUS];
  if (!status) return null;
  const text = (name: string): string | null => (typeof interrupt[name] === "string" ? interrupt[name] : null);
  const fields = (name: string): Fields | null => (isObject(interrupt[name]) ? interrupt[name] : null);
  return {
    kind: "interrupt",
    id: interrupt["id"],
    runId: text("run_id"),
    subagentId: text("subagent_run_id"),
    about: interrupt["kind"] === "question" ? "question" : "approval",
    message: text("message") ?? "",
    toolCallId: text("tool_call_id"),
    tool: text("tool"),
    args: fields("args"),
    source: text("source"),
    details: Array.isArray(interrupt["details"]) ? interrupt["details"].filter(isObject).map(readDetail) : [],
    schema: fields("response_schema"),
    options: Array.isArray(interrupt["options"]) ? interrupt["options"].filter(isObject).flatMap(readOption) : [],
    durable: interrupt["durable"] !== false,
    expiresAt: text("expires_at"),
    status,
    payload: interrupt["payload"] ?? null,
    answeredBy: text("answered_by"),
    answeredAt: text("answered_at") ?? (status === "open" || Number.isNaN(at) ? null : new Date(at).toISOString()),
  };
}
