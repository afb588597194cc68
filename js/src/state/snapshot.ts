/** Folds the messages of a prelude's `MESSAGES_SNAPSHOT` into items. */

import { isObject } from "../protocol/frames.js";
import type { MessagesSnapshot, Origin } from "../protocol/generated.js";
import type { ChatState, Item, Message, Reasoning, ToolCall } from "./model.js";

type Fields = Readonly<Record<string, unknown>>;

export function foldSnapshot(messages: MessagesSnapshot["messages"], ts: string): Pick<ChatState, "items" | "waiting"> {
  const items: Item[] = [];
  const waiting: Message[] = [];
  for (const fields of messages) {
    const id = textOf(fields["id"]);
    const runId = typeof fields["runId"] === "string" ? fields["runId"] : null;
    switch (fields["role"]) {
      case "user": {
        const message = said("user", fields, id, runId, ts);
        if (fields["queued"] === true) waiting.push({ ...message, status: "queued" });
        else items.push(message);
        break;
      }
      case "assistant":
        if (textOf(fields["reasoning"])) items.push(thought(`${id}:reasoning`, runId, textOf(fields["reasoning"])));
        if (textOf(fields["content"])) items.push(said("assistant", fields, id, runId, ts));
        items.push(...toolCalls(fields, runId));
        break;
      case "reasoning":
        items.push(thought(id, runId, textOf(fields["content"])));
        break;
      case "tool":
        addResult(items, textOf(fields["toolCallId"]), textOf(fields["content"]));
        break;
    }
  }
  return { items, waiting };
}

function said(role: Message["role"], fields: Fields, id: string, runId: string | null, ts: string): Message {
  const at = textOf(fields["timestamp"]) || ts;
  return { kind: "message", id, role, runId, origin: originOf(fields), ts: at, text: textOf(fields["content"]), status: "done" };
}

function thought(id: string, runId: string | null, text: string): Reasoning {
  return { kind: "reasoning", id, runId, text, status: "done" };
}

function toolCalls(fields: Fields, runId: string | null): ToolCall[] {
  const calls = Array.isArray(fields["toolCalls"]) ? fields["toolCalls"].filter(isObject) : [];
  return calls.map((call) => {
    const called = isObject(call["function"]) ? call["function"] : {};
    return {
      kind: "tool",
      id: textOf(call["id"]),
      name: textOf(called["name"]),
      runId,
      args: textOf(called["arguments"]),
      result: null,
      status: "stopped", // until its result comes
    };
  });
}

function addResult(items: Item[], toolCallId: string, result: string): void {
  const index = items.findLastIndex((item) => item.kind === "tool" && item.id === toolCallId);
  const call = items[index];
  if (call?.kind === "tool") items[index] = { ...call, result, status: "done" };
}

function originOf(fields: Fields): Origin {
  const origin = fields["origin"];
  if (!isObject(origin)) return { kind: "user", recall_id: null };
  const kind = origin["kind"];
  return {
    kind: kind === "recall" || kind === "system" ? kind : "user",
    recall_id: typeof origin["recall_id"] === "string" ? origin["recall_id"] : null,
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
