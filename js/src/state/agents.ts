/** What the log says of the agent program of a session: its options, the plan of a run, what its user should know. */

import { isObject } from "../protocol/frames.js";
import { indexOf } from "./items.js";
import type { AgentCommand, AgentNotice, AgentOffer, AgentOption, ChatState, Item, Plan, PlanEntry } from "./model.js";

type Fields = Readonly<Record<string, unknown>>;

const PLAN = "navi.plan";
const NOTICE = "navi.agent_notice";
/** More is of no use to a reader. */
const MOST_ENTRIES = 200;

/** Model strings of agent programs begin with it. */
const MODEL_PREFIX = "acp:";

/** The name of the agent program that a model is; empty: it is none. */
export function agentOf(model: string): string {
  return model.startsWith(MODEL_PREFIX) ? model.slice(MODEL_PREFIX.length) : "";
}

/** What the agent program that answers now has offered; null: none answers, or it has not been started. */
export function presentAgent({ agent, session }: Pick<ChatState, "agent" | "session">): AgentOffer | null {
  return agent !== null && agentOf(session?.model ?? "") === agent.agent ? agent : null;
}

/** What an agent program offers, as `navi.agent_options` and the session have it; null: nothing that can be read. */
export function offerOf(value: unknown): AgentOffer | null {
  if (!isObject(value) || typeof value["agent"] !== "string") return null;
  const { agent, title, modes, mode, models, model, commands } = value;
  return { agent, title: text(title), modes: optionsOf(modes), mode: text(mode), models: optionsOf(models), model: text(model), commands: commandsOf(commands) };
}

/** What is chosen of it, as the session has it; null: nothing that can be read. */
export function choiceOf(value: unknown): { readonly mode: string | null; readonly model: string | null } | null {
  return isObject(value) ? { mode: text(value["mode"]) || null, model: text(value["model"]) || null } : null;
}

function optionsOf(value: unknown): readonly AgentOption[] {
  return listOf(value).flatMap(({ id, name, description }) => (typeof id === "string" && id ? [{ id, name: text(name) || id, description: text(description) }] : []));
}

function commandsOf(value: unknown): readonly AgentCommand[] {
  return listOf(value).flatMap(({ name, description, hint }) => (typeof name === "string" && name ? [{ name, description: text(description), hint: text(hint) }] : []));
}

function listOf(value: unknown): readonly Fields[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** An activity that belongs to its run, and to no call of it: a plan, or what the user should know; null: neither. */
export function runActivity(id: string, type: string, runId: string | null, content: Fields): Plan | AgentNotice | null {
  const place = { id, runId, subagentId: null };
  if (type === PLAN) return { kind: "plan", ...place, entries: listOf(content["entries"]).slice(0, MOST_ENTRIES).map(entryOf) };
  const { agent, code, message } = content;
  return type === NOTICE ? { kind: "notice", ...place, agent: text(agent), code: text(code), message: text(message) } : null;
}

function entryOf({ content, priority, status }: Fields): PlanEntry {
  return { content: text(content), isImportant: priority === "high", status: status === "completed" || status === "in_progress" ? status : "pending" };
}

/**
 * Puts a plan where the answer of its run begins; one that is there is replaced, a notice comes last. The place of a plan
 * does not depend on when it came: a prelude has the activities of a run behind all its messages.
 */
export function putActivity(items: readonly Item[], item: Plan | AgentNotice): readonly Item[] {
  const known = indexOf(items, item.kind, item.id);
  if (known >= 0) return items.with(known, item);
  let at = item.kind === "plan" ? items.findIndex(({ runId }) => runId === item.runId) : -1;
  if (at < 0) return [...items, item];
  for (let other = items[at]; other?.kind === "message" && other.role === "user" && other.runId === item.runId; other = items[at]) at += 1;
  return items.toSpliced(at, 0, item);
}

/** A plan after a change of its content, as JSON Patch. */
export function patchedPlan(plan: Plan, patched: (content: Fields) => Fields): Plan {
  const entries = plan.entries.map(({ content, isImportant, status }) => ({ content, status, priority: isImportant ? "high" : "medium" }));
  return { ...plan, entries: listOf(patched({ entries })["entries"]).slice(0, MOST_ENTRIES).map(entryOf) };
}
