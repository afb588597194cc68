/** Folds the messages of a prelude's `MESSAGES_SNAPSHOT` into items. */

import { isObject } from "../protocol/frames.js";
import type { MessagesSnapshot, Origin } from "../protocol/generated.js";
import { putActivity, runActivity } from "./agents.js";
import type { Activity, Attached, ChatState, Item, Message, Reasoning, ToolCall } from "./model.js";

type Fields = Readonly<Record<string, unknown>>;

export interface Folded extends Pick<ChatState, "items" | "waiting"> {
  /** Results and activities whose calls are not among the messages: they come with an earlier page. */
  readonly loose: readonly Fields[];
}

export function foldSnapshot(messages: readonly Fields[], ts: string): Folded {
  const items: Item[] = [];
  const loose: Fields[] = [];
  const waiting: Message[] = [];
  const subagents = new Set<string>();
  for (const fields of messages) {
    const id = textOf(fields["id"]);
    const runId = typeof fields["runId"] === "string" ? fields["runId"] : null;
    const subagentId = typeof fields["subagentRunId"] === "string" ? fields["subagentRunId"] : null;
    if (subagentId !== null && !subagents.has(subagentId)) {
      subagents.add(subagentId);
      items.push(pastSubagent(subagentId, runId));
    }
    const owner = { runId, subagentId };
    switch (fields["role"]) {
      case "user": {
        const message = messageOf("user", fields, id, owner, ts);
        if (fields["queued"] === true) waiting.push({ ...message, status: "queued" });
        else items.push(message);
        break;
      }
      case "assistant":
        if (textOf(fields["reasoning"])) items.push(thought(`${id}:reasoning`, owner, textOf(fields["reasoning"])));
        if (textOf(fields["content"])) items.push(messageOf("assistant", fields, id, owner, ts));
        items.push(...toolCalls(fields, owner));
        break;
      case "reasoning":
        items.push(thought(id, owner, textOf(fields["content"])));
        break;
      case "tool":
        if (!addResult(items, textOf(fields["toolCallId"]), textOf(fields["content"]))) loose.push(fields);
        break;
      case "activity": { // AG-UI's message of an activity
        if (!isObject(fields["content"])) break;
        const own = runActivity(id, textOf(fields["activityType"]), runId, fields["content"]);
        if (own) items.splice(0, items.length, ...putActivity(items, own));
        else if (!addActivity(items, { id, type: textOf(fields["activityType"]), content: fields["content"] })) loose.push(fields);
        break;
      }
    }
  }
  return { items, waiting, loose };
}

/** A prelude's snapshot: the end of the conversation, with where to read what comes before. */
export function foldPrelude({ messages, earlier }: MessagesSnapshot, ts: string): Pick<ChatState, "items" | "waiting" | "earlier"> {
  const { items, waiting, loose } = foldSnapshot(messages, ts);
  return { items, waiting, earlier: typeof earlier === "string" ? { cursor: earlier, loose } : null };
}

type Owner = Pick<Message, "runId" | "subagentId">;

function messageOf(role: Message["role"], fields: Fields, id: string, owner: Owner, ts: string): Message {
  const at = textOf(fields["timestamp"]) || ts;
  const attachments = readAttached(fields["attachments"]);
  return { kind: "message", id, role, ...owner, origin: originOf(fields), ts: at, text: textOf(fields["content"]), status: "done", attachments, mode: null };
}

function thought(id: string, owner: Owner, text: string): Reasoning {
  return { kind: "reasoning", id, ...owner, text, status: "done" };
}

/** A subagent of a run that is over: the snapshot has its messages, not its name. */
function pastSubagent(id: string, runId: string | null): Item {
  return { kind: "subagent", id, runId, subagentId: null, name: "", description: "", parentToolCallId: null, status: "done", problem: null };
}

export function readAttached(value: unknown): readonly Attached[] {
  if (!Array.isArray(value)) return [];
  return value.filter(isObject).map(({ id, name, media_type: type, size }) => ({
    id: textOf(id),
    name: textOf(name),
    mediaType: textOf(type),
    size: typeof size === "number" ? size : 0,
  }));
}

function toolCalls(fields: Fields, owner: Owner): ToolCall[] {
  const calls = Array.isArray(fields["toolCalls"]) ? fields["toolCalls"].filter(isObject) : [];
  return calls.map((call) => {
    const called = isObject(call["function"]) ? call["function"] : {};
    return {
      kind: "tool",
      id: textOf(call["id"]),
      name: textOf(called["name"]),
      ...owner,
      args: textOf(called["arguments"]),
      result: null,
      status: "stopped", // until its result comes
      activities: [],
      startedAt: null,
      endedAt: null,
    };
  });
}

/** Whether the call is there. */
function addActivity(items: Item[], activity: Activity): boolean {
  const { toolCallId } = activity.content;
  const index = items.findLastIndex((item) => item.kind === "tool" && item.id === toolCallId);
  const call = items[index];
  if (call?.kind === "tool") items[index] = { ...call, activities: [...call.activities, activity] };
  return call?.kind === "tool";
}

function addResult(items: Item[], toolCallId: string, result: string): boolean {
  const index = items.findLastIndex((item) => item.kind === "tool" && item.id === toolCallId);
  const call = items[index];
  if (call?.kind === "tool") items[index] = { ...call, result, status: "done" };
  return call?.kind === "tool";
}

function originOf(fields: Fields): Origin {
  const origin = fields["origin"];
  if (!isObject(origin)) return { kind: "user", recall_id: null };
  const kind = origin["kind"];
  return {
    kind: kind === "recall" || kind === "system" ? kind : "user",
    recall_id: typeof origin["recall_id"] === "string" ? origin["recall_id"] : null,
    ...(typeof origin["kernel_id"] === "string" ? { kernel_id: origin["kernel_id"] } : {}),
  };
}

/** The text of a message's content, which AG-UI allows to be a list of parts. */
function textOf(content: unknown): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content
    .filter(isObject)
    .map((part) => (typeof part["text"] === "string" ? part["text"] : ""))
    .join("");
}
