/** Small steps on the list of items, each of which makes a new state. */

import type { Interrupt, ChatState, Item, Message, Reached, RunEnd } from "./model.js";

export type OfKind<K extends Item["kind"]> = Extract<Item, { kind: K }>;

/** Puts an item at the end; one that is there already (a prelude opens it again) is replaced where it is. */
export function append(state: ChatState, item: Item): ChatState {
  const index = indexOf(state.items, item.kind, item.id);
  return { ...state, items: index < 0 ? [...state.items, item] : state.items.with(index, item) };
}

/** Puts an item behind the tool call that it is about, and what is there of it already; else at the end. */
export function appendAfterCall(state: ChatState, item: Interrupt): ChatState {
  const call = item.toolCallId === null ? -1 : indexOf(state.items, "tool", item.toolCallId);
  if (call < 0 || indexOf(state.items, "interrupt", item.id) >= 0) return append(state, item);
  let at = call + 1;
  for (let next = state.items[at]; next?.kind === "interrupt" && next.toolCallId === item.toolCallId; next = state.items[at]) at += 1;
  return { ...state, items: state.items.toSpliced(at, 0, item) };
}

/** Of an item, unique in a conversation. */
export function keyOf({ kind, id }: Item): string {
  return `${kind}:${id}`;
}

export function indexOf(items: readonly Item[], kind: Item["kind"], id: string): number {
  return items.findLastIndex((item) => item.kind === kind && item.id === id); // what changes is nearly always at the end
}

export function changeItem<K extends Item["kind"]>(
  state: ChatState,
  kind: K,
  id: string,
  change: (item: OfKind<K>) => OfKind<K>,
): ChatState {
  const index = indexOf(state.items, kind, id);
  const item = state.items[index];
  if (item) return { ...state, items: state.items.with(index, change(item as OfKind<K>)) };
  const isIt = (waiting: Message): boolean => kind === "message" && waiting.id === id;
  if (!state.waiting.some(isIt)) return state;
  return {
    ...state,
    waiting: state.waiting.map((message) => (isIt(message) ? (change(message as OfKind<K>) as Message) : message)),
  };
}

/** Puts a waiting prompt into the conversation when its run is the present one (or `anyway`). */
export function place(state: ChatState, messageId: string, anyway = false): ChatState {
  const message = state.waiting.find((waiting) => waiting.id === messageId);
  if (!message || !(anyway || (message.runId !== null && message.runId === state.run?.id))) return state;
  return move(state, [message]);
}

/** Puts the prompts of a run that starts (or ends without having started) into the conversation. */
export function placeRun(state: ChatState, runId: string): ChatState {
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

/** A message that is in the conversation already belongs here, into this run. */
export function moveToEnd(state: ChatState, messageId: string, runId: string): ChatState {
  const index = indexOf(state.items, "message", messageId);
  const message = state.items[index];
  if (message?.kind !== "message" || index === state.items.length - 1) return state;
  return { ...state, items: [...state.items.toSpliced(index, 1), { ...message, runId }] };
}

export function endRun(state: ChatState, runId: string, why: { code: string; message: string } | null): ChatState {
  const placed = placeRun(state, runId);
  const closed = placed.items.map((item) => (item.runId === runId ? close(item) : item));
  const isPresent = placed.run?.id === runId;
  const reached = isPresent ? (placed.run?.reached ?? []) : [];
  return { ...placed, run: isPresent ? null : placed.run, items: why ? [...closed, runEnd(runId, why, reached)] : closed };
}

/** What nothing will be added to any more. */
function close(item: Item): Item {
  switch (item.kind) {
    case "message":
    case "reasoning":
      return item.status === "streaming" ? { ...item, status: "done" } : item;
    case "tool":
      return item.status === "done" ? item : { ...item, status: "stopped" };
    case "subagent":
      return item.status === "running" ? { ...item, status: "stopped" } : item;
    case "interrupt":
      return item.status === "open" ? { ...item, status: "cancelled" } : item;
    case "end":
    case "plan":
    case "notice":
      return item;
  }
}

export function runEnd(runId: string, why: { code: string; message: string }, reached: readonly Reached[] = []): RunEnd {
  return { kind: "end", id: `end:${runId}`, runId, subagentId: null, ...why, reached };
}

export function without<T extends Item>(items: readonly T[], id: string): readonly T[] {
  return items.some((item) => item.id === id) ? items.filter((item) => item.id !== id) : items;
}
