/** What the view asks of the state. */

import type { Recall } from "../protocol/generated.js";
import type { ChatState, Message } from "./model.js";

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

/** What a recall's message was sent for: its title, and the slot, which is the end of its id (`recall:<id>:<slot>`). */
export function firingOf(state: ChatState, message: Message): { title: string | null; slot: Date | null } | null {
  if (message.origin.kind !== "recall") return null;
  const { recall_id: id } = message.origin;
  const title = (id !== null && state.recalls[id]?.recall.title) || null;
  const prefix = `recall:${id}:`;
  const slot = message.id.startsWith(prefix) ? new Date(message.id.slice(prefix.length)) : null;
  return { title, slot: slot && !Number.isNaN(slot.valueOf()) ? slot : null };
}
