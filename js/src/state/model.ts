/** What a chat on the screen is made of. Plain immutable values; `reduce` makes the next one. */

import type { Origin, Recall, Usage } from "../protocol/generated.js";

type Fields = Readonly<Record<string, unknown>>;

/** What goes with a message. */
export interface Attached {
  readonly id: string;
  readonly name: string;
  readonly mediaType: string;
  /** Bytes. */
  readonly size: number;
}

interface Placed {
  readonly id: string;
  readonly runId: string | null;
  /** The subagent that it belongs to; null: the run's own agent, or the user. */
  readonly subagentId: string | null;
}

/** A message of the user or the agent. `queued`: a prompt whose run has not started. `refused`: a prompt that will get no run. */
export interface Message extends Placed {
  readonly kind: "message";
  readonly role: "user" | "assistant";
  readonly origin: Origin;
  readonly ts: string;
  readonly text: string;
  readonly status: "streaming" | "done" | "queued" | "refused";
  readonly attachments: readonly Attached[];
  /** How it waits, when the log says so. */
  readonly mode: string | null;
}

export interface Reasoning extends Placed {
  readonly kind: "reasoning";
  readonly text: string;
  readonly status: "streaming" | "done";
}

/** What a tool shows while it works: `navi.output`, `navi.progress`, `navi.agent_call`. */
export interface Activity {
  readonly id: string;
  readonly type: string;
  readonly content: Fields;
}

/** `stopped`: its run ended before it had a result. */
export interface ToolCall extends Placed {
  readonly kind: "tool";
  readonly name: string;
  readonly args: string;
  readonly result: string | null;
  readonly status: "streaming" | "running" | "done" | "stopped";
  readonly activities: readonly Activity[];
  /** When it began and ended, in milliseconds since 1970; null where it is not known. */
  readonly startedAt: number | null;
  readonly endedAt: number | null;
}

/** A sub-agent. What it says and does are items with its id as `subagentId`. */
export interface Subagent extends Placed {
  readonly kind: "subagent";
  readonly name: string;
  readonly description: string;
  readonly parentToolCallId: string | null;
  readonly status: "running" | "done" | "failed" | "stopped";
  /** Why it failed. */
  readonly problem: string | null;
}

/** One part of what a call would do, as the server describes it. */
export interface CallDetail {
  readonly label: string;
  readonly text: string;
  /** Of `diff`, each line begins with a blank, `+`, `-` or `@`. */
  readonly kind: "text" | "code" | "diff";
  readonly language: string | null;
  /** Words of another program. */
  readonly foreign: boolean;
  /** Characters that are left out at the end. */
  readonly omitted: number;
  /** The cell that the text names; null: none. */
  readonly cell: NamedCell | null;
}

/** A cell of a notebook. */
export interface NamedCell {
  /** Of the notebook, from the server's folder. */
  readonly path: string;
  readonly id: string;
}

/** One of the answers that an agent program offers to its question. */
export interface AskOption {
  readonly id: string;
  /** In the program's own words. */
  readonly name: string;
  readonly kind: "allow_once" | "allow_always" | "reject_once" | "reject_always";
}

/** Something that a run asks the user. */
export interface Interrupt extends Placed {
  readonly kind: "interrupt";
  readonly about: "approval" | "question";
  readonly message: string;
  readonly toolCallId: string | null;
  readonly tool: string | null;
  readonly args: Fields | null;
  /** Whose tool it is, or who asks: `builtin`, `mcp:<server>`, `kernel`, `package:<name>`. */
  readonly source: string | null;
  readonly details: readonly CallDetail[];
  readonly schema: Fields | null;
  /** The answers that an agent program offers; empty: allow or deny. */
  readonly options: readonly AskOption[];
  /** Whether the run pauses for it. */
  readonly durable: boolean;
  readonly expiresAt: string | null;
  readonly status: "open" | "resolved" | "cancelled" | "expired";
  /** What was answered, by whom. */
  readonly payload: unknown;
  readonly answeredBy: string | null;
  readonly answeredAt: string | null;
}

/** What a stop has ended. */
export interface Reached {
  readonly what: string;
  readonly message: string;
}

/** How a run ended, when that is worth saying. `code` is that of `RUN_ERROR` or `navi.notice`, or `cancelled`. */
export interface RunEnd extends Placed {
  readonly kind: "end";
  readonly runId: string;
  readonly code: string;
  readonly message: string;
  readonly reached: readonly Reached[];
}

/** What an agent wants to do in a run, step by step; it changes as the work goes on. */
export interface Plan extends Placed {
  readonly kind: "plan";
  readonly entries: readonly PlanEntry[];
}

export interface PlanEntry {
  readonly content: string;
  readonly isImportant: boolean;
  readonly status: "pending" | "in_progress" | "completed";
}

/** Something about the agent program of a run that its user should know. `code` is that of `navi.agent_notice`. */
export interface AgentNotice extends Placed {
  readonly kind: "notice";
  readonly agent: string;
  readonly code: string;
  readonly message: string;
}

export type Item = Message | Reasoning | ToolCall | Subagent | Interrupt | RunEnd | Plan | AgentNotice;

export interface ActiveRun {
  readonly id: string;
  /** `stopping` from the moment a stop is in the log until the run has ended; `waiting` while it waits for an answer, `starting` for the user's server. */
  readonly status: "running" | "stopping" | "waiting" | "starting";
  readonly reached: readonly Reached[];
}

export interface KnownRecall {
  readonly recall: Recall;
  /** The seq of its last event; a list that was fetched at an older head does not replace it. */
  readonly seq: number;
}

export interface SessionInfo {
  readonly title: string;
  readonly model: string;
  readonly profile: string;
  /** Whose clock counts for times that name no zone; empty where the server does not say. */
  readonly timezone: string;
  readonly zoneSource: string;
  /** Its owner, where it is shared with the user, who can only read it; null: it is the user's own. */
  readonly sharedBy: string | null;
  /** The path of its notebook; empty: it has none. */
  readonly notebook: string;
  /** What is chosen of what its agent program offers; null each: as the program starts. */
  readonly agentChoice: { readonly mode: string | null; readonly model: string | null };
}

export interface McpServer {
  readonly name: string;
  readonly status: string;
  readonly message: string;
}

/** A mode or a model of an agent program, in its own words. */
export interface AgentOption {
  readonly id: string;
  readonly name: string;
  readonly description: string;
}

/** A slash command of an agent program: it is sent as text. */
export interface AgentCommand {
  /** Without the slash. */
  readonly name: string;
  readonly description: string;
  /** What may follow the name; empty: nothing that is known. */
  readonly hint: string;
}

/** What the agent program of a session has offered last. */
export interface AgentOffer {
  /** Its name in the model string `acp:<name>`. */
  readonly agent: string;
  /** Its name and version as it reports them; empty where it does not. */
  readonly title: string;
  readonly modes: readonly AgentOption[];
  /** The mode that it is in; empty where that is not known. */
  readonly mode: string;
  readonly models: readonly AgentOption[];
  readonly model: string;
  readonly commands: readonly AgentCommand[];
}

/** What was used up. */
export interface Spent {
  /** By the runs of the session that are over; null before the server was asked. */
  readonly session: Usage | null;
  /** By the run in progress, or the last one, as far as it is known. */
  readonly run: { readonly id: string; readonly usage: Usage; readonly isOver: boolean } | null;
}

/** That there is more of the conversation than what is in the state. */
export interface Earlier {
  /** Of the page before the first item, for the server. */
  readonly cursor: string;
  /** Results and activities whose calls are in that page, as messages of a snapshot. */
  readonly loose: readonly Fields[];
}

export interface ChatState {
  /** The highest seq that is in here, which is where to go on after a reconnect; null before anything came. */
  readonly head: number | null;
  /** The conversation in its order, without prompts that wait for their run. */
  readonly items: readonly Item[];
  /** What comes before the first item; null where it is the first of the session. */
  readonly earlier: Earlier | null;
  /** Prompts that wait for their run, oldest first. */
  readonly waiting: readonly Message[];
  readonly run: ActiveRun | null;
  readonly recalls: Readonly<Record<string, KnownRecall>>;
  readonly session: SessionInfo | null;
  readonly mcp: Readonly<Record<string, McpServer>>;
  readonly spent: Spent;
  /** Null where no agent program has answered in the session. */
  readonly agent: AgentOffer | null;
  /** Runs that were rolled back: the model does not get them any more. */
  readonly rolledBack: readonly string[];
  /** True between a `navi.gap` and the prelude that repairs it. */
  readonly gap: boolean;
}

export const EMPTY: ChatState = {
  head: null,
  items: [],
  earlier: null,
  waiting: [],
  run: null,
  recalls: {},
  session: null,
  mcp: {},
  spent: { session: null, run: null },
  agent: null,
  rolledBack: [],
  gap: false,
};
