/** What runs have used up: `navi.usage`, and the sums that the server knows. */

import { isObject } from "../protocol/frames.js";
import type { TokenUsage, Usage } from "../protocol/generated.js";
import type { ChatState } from "./model.js";

const NOTHING: Usage = { input_tokens: 0, output_tokens: 0, requests: 0, cost: null };

export function readUsage(value: unknown): Usage | null {
  if (!isObject(value)) return null;
  const count = (name: string): number => (typeof value[name] === "number" ? value[name] : 0);
  const cost = typeof value["cost"] === "number" ? value["cost"] : null;
  return { input_tokens: count("input_tokens"), output_tokens: count("output_tokens"), requests: count("requests"), cost };
}

export function addUsage(one: Usage | null, other: Usage | null): Usage {
  const [a, b] = [one ?? NOTHING, other ?? NOTHING];
  return {
    input_tokens: a.input_tokens + b.input_tokens,
    output_tokens: a.output_tokens + b.output_tokens,
    requests: a.requests + b.requests,
    cost: a.cost === null ? b.cost : a.cost + (b.cost ?? 0),
  };
}

export function applyUsage(state: ChatState, runId: unknown, value: unknown): ChatState {
  const usage = readUsage(value);
  if (usage === null || typeof runId !== "string") return state;
  return { ...state, spent: { ...state.spent, run: { id: runId, usage, isOver: false } } };
}

/** The run is over: what it used up is the session's from now on. */
export function settleUsage(state: ChatState, runId: string, reported: readonly TokenUsage[] | null | undefined): ChatState {
  const { session, run } = state.spent;
  const known = run?.id === runId ? run : null;
  if (known?.isOver) return state;
  const usage = known?.usage ?? (reported?.length ? sum(reported) : null);
  if (usage === null) return state;
  return { ...state, spent: { session: addUsage(session, usage), run: { id: runId, usage, isOver: true } } };
}

/** The sum over everything; null while nothing is known. */
export function totalUsage({ spent: { session, run } }: ChatState): Usage | null {
  if (run === null || run.isOver) return session;
  return addUsage(session, run.usage);
}

function sum(parts: readonly TokenUsage[]): Usage {
  return parts.reduce<Usage>(
    (total, { inputTokens, outputTokens }) =>
      addUsage(total, { ...NOTHING, input_tokens: inputTokens ?? 0, output_tokens: outputTokens ?? 0 }),
    NOTHING,
  );
}
