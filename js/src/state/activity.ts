/** What tools show while they work: `ACTIVITY_SNAPSHOT` and `ACTIVITY_DELTA`, which belong to the call that they name. */

import { isObject } from "../protocol/frames.js";
import type { ActivityDelta, ActivitySnapshot } from "../protocol/generated.js";
import { patchedPlan, putActivity, runActivity } from "./agents.js";
import { changeItem, indexOf } from "./items.js";
import type { Activity, ChatState, ToolCall } from "./model.js";

type Fields = Readonly<Record<string, unknown>>;

/** `runId`: of the run that it is a part of. */
export function snapshotActivity(state: ChatState, { messageId: id, activityType: type, content }: ActivitySnapshot, runId: string | null): ChatState {
  const own = runActivity(id, type, runId, content);
  if (own) return { ...state, items: putActivity(state.items, own) };
  const { toolCallId } = content;
  if (typeof toolCallId !== "string") return state;
  return changeItem(state, "tool", toolCallId, (call) => withActivity(call, { id, type, content }));
}

export function changeActivity(state: ChatState, { messageId: id, patch }: ActivityDelta): ChatState {
  const plan = state.items[indexOf(state.items, "plan", id)];
  if (plan?.kind === "plan") return { ...state, items: putActivity(state.items, patchedPlan(plan, (content) => applyPatch(content, patch))) };
  const index = state.items.findLastIndex((item) => item.kind === "tool" && item.activities.some((activity) => activity.id === id));
  const call = state.items[index];
  if (call?.kind !== "tool") return state;
  const activities = call.activities.map((activity) =>
    activity.id === id ? { ...activity, content: applyPatch(activity.content, patch) } : activity,
  );
  return { ...state, items: state.items.with(index, { ...call, activities }) };
}

function withActivity(call: ToolCall, activity: Activity): ToolCall {
  const index = call.activities.findIndex(({ id }) => id === activity.id);
  return { ...call, activities: index < 0 ? [...call.activities, activity] : call.activities.with(index, activity) };
}

/** JSON Patch (RFC 6902) of the operations that servers send: add, replace, remove. What does not fit is left out. */
export function applyPatch(content: Fields, patch: readonly Fields[]): Fields {
  return patch.reduce((value, { op, path, value: to }) => {
    if (typeof path !== "string" || !path.startsWith("/")) return value;
    const keys = path.slice(1).split("/").map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
    const changed = change(value, keys, String(op), to);
    return isObject(changed) ? changed : value;
  }, content);
}

function change(target: unknown, [key = "", ...rest]: readonly string[], op: string, to: unknown): unknown {
  if (Array.isArray(target)) return changeList(target as readonly unknown[], key, rest, op, to);
  if (!isObject(target)) return target;
  if (rest.length) return key in target ? { ...target, [key]: change(target[key], rest, op, to) } : target;
  if (op !== "remove") return key === "__proto__" ? target : { ...target, [key]: to };
  const { [key]: _, ...others } = target;
  return others;
}

function changeList(list: readonly unknown[], key: string, rest: readonly string[], op: string, to: unknown): readonly unknown[] {
  const at = key === "-" ? list.length : Number(key);
  if (!Number.isInteger(at) || at < 0 || at > list.length) return list;
  if (op === "add" && !rest.length) return at === list.length ? [...list, to] : list.toSpliced(at, 0, to);
  if (at === list.length) return list;
  if (rest.length) return list.with(at, change(list[at], rest, op, to));
  return op === "remove" ? list.toSpliced(at, 1) : list.with(at, to);
}
