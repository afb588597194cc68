/** What the view asks of the state. */

import type { Recall } from "../protocol/generated.js";
import type { ChatState, Item, Message, ToolCall, Subagent } from "./model.js";

/** Recalls that may still fire, the next one first; paused ones after them. */
export function openRecalls(state: ChatState): readonly Recall[] {
  return all(state)
    .filter((recall) => isOpen(recall))
    .sort((one, other) => dueTime(one) - dueTime(other) || (one.created_at < other.created_at ? -1 : 1));
}

/** Recalls that are over, the latest first. */
export function pastRecalls(state: ChatState): readonly Recall[] {
  const when = (recall: Recall): number => Date.parse(recall.last_at ?? recall.created_at);
  return all(state)
    .filter((recall) => !isOpen(recall))
    .sort((one, other) => when(other) - when(one));
}

function all(state: ChatState): Recall[] {
  return Object.values(state.recalls).map(({ recall }) => recall);
}

export function isOpen({ status }: Recall): boolean {
  return status === "pending" || status === "running" || status === "paused";
}

/** When it is due, in milliseconds; infinite when it has no time. */
export function dueTime({ status, next_at: at }: Recall): number {
  return status === "paused" || at === null ? Infinity : Date.parse(at);
}

export interface FiringOf {
  readonly title: string | null;
  readonly slot: Date | null;
  /** It has happened then, and was not due. */
  readonly isEvent: boolean;
}

/** What a recall's message was sent for: its title, and the slot, which is the end of its id (`recall:<id>:<slot>`). */
export function firingOf(state: ChatState, message: Message): FiringOf | null {
  if (message.origin.kind !== "recall") return null;
  const { recall_id: id } = message.origin;
  const recall = id === null ? undefined : state.recalls[id]?.recall;
  const title = recall?.title || null;
  const prefix = `recall:${id}:`;
  const slot = message.id.startsWith(prefix) ? new Date(message.id.slice(prefix.length)) : null;
  return { title, slot: slot && !Number.isNaN(slot.valueOf()) ? slot : null, isEvent: recall?.schedule.kind === "when" };
}

/** Whether the user can only read the session: it is somebody else's. */
export function isReader({ session }: ChatState): boolean {
  return session !== null && session.sharedBy !== null;
}

/** The items as they are nested: what a subagent says and does is inside of it. */
export interface Tree {
  readonly top: readonly Item[];
  readonly inside: ReadonlyMap<string, readonly Item[]>;
  readonly subagents: ReadonlyMap<string, Subagent>;
  readonly calls: ReadonlyMap<string, ToolCall>;
  /** Calls about which a question is open. */
  readonly asking: ReadonlySet<string>;
}

const trees = new WeakMap<readonly Item[], Tree>();

/** A subagent stands in the place of the call that started it: a prelude tells of the subagents before the calls. */
export function treeOf(items: readonly Item[]): Tree {
  const known = trees.get(items);
  if (known) return known;
  const subagents = new Map<string, Subagent>();
  const calls = new Map<string, ToolCall>();
  const asking = new Set<string>();
  for (const item of items) {
    if (item.kind === "tool") calls.set(item.id, item);
    else if (item.kind === "subagent") subagents.set(item.id, item);
    else if (item.kind === "interrupt" && item.status === "open" && item.toolCallId !== null) asking.add(item.toolCallId);
  }
  const delegated = groupByCall(subagents, calls);
  const top: Item[] = [];
  const inside = new Map<string, Item[]>();
  const put = (item: Item): void => {
    const owner = item.subagentId !== null && subagents.has(item.subagentId) ? item.subagentId : null;
    if (owner === null) top.push(item);
    else if (inside.has(owner)) inside.get(owner)?.push(item);
    else inside.set(owner, [item]);
  };
  for (const item of items) {
    const instead = item.kind === "tool" ? delegated.get(item.id) : undefined;
    if (instead) instead.forEach(put);
    else if (item.kind !== "subagent" || item.parentToolCallId === null || !calls.has(item.parentToolCallId)) put(item);
  }
  const tree = { top, inside, subagents, calls, asking };
  trees.set(items, tree);
  return tree;
}

/** The subagents by the call that started them, where that is known. */
function groupByCall(subagents: ReadonlyMap<string, Subagent>, calls: ReadonlyMap<string, ToolCall>): ReadonlyMap<string, readonly Subagent[]> {
  const groups = new Map<string, Subagent[]>();
  for (const subagent of subagents.values()) {
    const { parentToolCallId: id } = subagent;
    if (id !== null && calls.has(id)) groups.set(id, [...(groups.get(id) ?? []), subagent]);
  }
  return groups;
}

const forgotten = new WeakMap<readonly string[], ReadonlySet<string>>();

/** Whether the model does not get a run any more. Asked for each item with each drawing. */
export function isRolledBack({ rolledBack }: ChatState, runId: string | null): boolean {
  if (runId === null || !rolledBack.length) return false;
  let known = forgotten.get(rolledBack);
  if (!known) forgotten.set(rolledBack, (known = new Set(rolledBack)));
  return known.has(runId);
}

/** The text of the prompt that an answer was given to; empty where it is not known here. */
export function promptOf({ items }: ChatState, { runId }: Message): string {
  const prompt = items.find((item) => item.kind === "message" && item.role === "user" && item.runId === runId);
  return prompt?.kind === "message" ? prompt.text : "";
}
