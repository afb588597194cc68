/** What a chat on the screen is made of. Plain immutable values; `reduce` makes the next one. */

import type { Origin, Recall } from "../protocol/generated.js";

/** What somebody said. `queued`: a prompt whose run has not started. `refused`: a prompt that will get no run. */
export interface Message {
  readonly kind: "message";
  readonly id: string;
  readonly role: "user" | "assistant";
  readonly runId: string | null;
  readonly origin: Origin;
  readonly ts: string;
  readonly text: string;
  readonly status: "streaming" | "done" | "queued" | "refused";
}

export interface Reasoning {
  readonly kind: "reasoning";
  readonly id: string;
  readonly runId: string | null;
  readonly text: string;
  readonly status: "streaming" | "done";
}

/** `stopped`: its run ended before it had a result. */
export interface ToolCall {
  readonly kind: "tool";
  readonly id: string;
  readonly name: string;
  readonly runId: string | null;
  readonly args: string;
  readonly result: string | null;
  readonly status: "streaming" | "running" | "done" | "stopped";
}

/** How a run ended, when that is worth saying. `code` is that of `RUN_ERROR`, or `cancelled` or `interrupt`. */
export interface RunEnd {
  readonly kind: "end";
  readonly id: string;
  readonly runId: string;
  readonly code: string;
  readonly message: string;
}

export type Item = Message | Reasoning | ToolCall | RunEnd;

export interface ActiveRun {
  readonly id: string;
  /** `stopping` from the moment a stop is in the log until the run has ended. */
  readonly status: "running" | "stopping";
}

export interface KnownRecall {
  readonly recall: Recall;
  /** The seq of the event that told of it; a list that was fetched at an older head does not replace it. */
  readonly seq: number;
}

export interface SessionInfo {
  readonly title: string;
  readonly model: string;
  readonly profile: string;
}

export interface ChatState {
  /** The highest seq that is in here, which is where to go on after a reconnect; null before anything came. */
  readonly head: number | null;
  /** The conversation in its order, without prompts that wait for their run. */
  readonly items: readonly Item[];
  /** Prompts that wait for their run, oldest first. */
  readonly waiting: readonly Message[];
  readonly run: ActiveRun | null;
  readonly recalls: Readonly<Record<string, KnownRecall>>;
  readonly session: SessionInfo | null;
  /** True between a `navi.gap` and the prelude that repairs it. */
  readonly gap: boolean;
}

export const EMPTY: ChatState = {
  head: null,
  items: [],
  waiting: [],
  run: null,
  recalls: {},
  session: null,
  gap: false,
};
