/** Prompts and answers as the conversation has them. Pure. */

import type { ChatState, Item, Message } from "../../state/model.js";
import { isRolledBack } from "../../state/select.js";

/** The texts of the user's own prompts, newest first. */
export function prompts(state: ChatState): readonly string[] {
  const isOwn = (item: Item): item is Message => item.kind === "message" && item.role === "user" && item.origin.kind === "user" && item.subagentId === null;
  return [...state.items, ...state.waiting].filter(isOwn).map(({ text }) => text).reverse();
}

/** The last run of the conversation that the model still reads; null: there is none. */
export function lastRun(state: ChatState): string | null {
  const last = state.items.findLast(({ runId }) => runId !== null && !isRolledBack(state, runId));
  return last?.runId ?? null;
}

const ends = new WeakMap<readonly Item[], ReadonlySet<Message>>();

/** The last message of each answer, without those inside of subagents. Asked for each message with each drawing: found once for a list. */
export function endsOfAnswers({ items }: ChatState): ReadonlySet<Message> {
  const known = ends.get(items);
  if (known) return known;
  const found = new Set<Message>();
  let last: Message | null = null;
  const settle = (): void => {
    if (last?.role === "assistant") found.add(last);
  };
  for (const item of items) {
    if (item.kind !== "message" || item.subagentId !== null) continue;
    if (last !== null && last.runId !== item.runId) settle();
    last = item;
  }
  settle();
  ends.set(items, found);
  return found;
}

/** The prompt of a run: the first of those that it answers. Looked for from the end: asked for the latest run. */
export function promptOf(state: ChatState, runId: string): Message | null {
  let found: Message | null = null;
  for (let at = state.items.length - 1; at >= 0; at -= 1) {
    const item = state.items[at];
    if (item?.kind === "message" && item.role === "user" && item.runId === runId) found = item;
    else if (found !== null && item?.runId !== runId) break;
  }
  return found;
}

/** The whole answer of a message's run, as Markdown. */
export function answerOf(state: ChatState, { runId, text }: Message): string {
  if (runId === null) return text;
  const isPart = (item: Item): item is Message => item.kind === "message" && item.role === "assistant" && item.runId === runId && item.subagentId === null;
  return state.items
    .filter(isPart)
    .map((part) => part.text.trim())
    .filter(Boolean)
    .join("\n\n");
}
