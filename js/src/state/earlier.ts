/**
 * The conversation goes back further than what is in the state: pages of it are put before, and dropped again.
 *
 * Not responsible for when: views read a page when their user comes near the first item.
 */

import type { TranscriptPage } from "../protocol/generated.js";
import { withQuestions } from "./interrupts.js";
import { keyOf } from "./items.js";
import type { ChatState } from "./model.js";
import { withRuns } from "./reduce.js";
import { foldSnapshot } from "./snapshot.js";

/** Puts a page before the conversation. `cursor`: what it was read with; a prelude that came meanwhile has another one. */
export function withEarlier(state: ChatState, page: TranscriptPage, cursor: string): ChatState {
  const { earlier } = state;
  if (earlier === null || earlier.cursor !== cursor) return state;
  const { items, loose } = foldSnapshot([...page.messages, ...earlier.loose], "");
  const added = new Set(items.map(keyOf));
  // A subagent whose messages are in both pages stands where it began.
  const next = { ...state, items: [...items, ...state.items.filter((item) => !added.has(keyOf(item)))], earlier: page.earlier === null ? null : { cursor: page.earlier, loose } };
  return withQuestions(withRuns(next, page.runs), page.questions);
}

/** Drops what is far from the end, up to the beginning of a run: it can be read again. At least `keep` items stay. */
export function withoutDistant(state: ChatState, keep: number): ChatState {
  const { items } = state;
  const seen = new Set<string | null>([null]);
  let cut = 0;
  for (const [index, { runId }] of items.slice(0, Math.max(0, items.length - keep + 1)).entries()) {
    if (seen.has(runId)) continue;
    seen.add(runId);
    cut = index;
  }
  const first = items[cut]?.runId ?? null;
  const dropped = new Set(items.slice(0, cut).map(({ runId }) => runId));
  const isApart = items.slice(cut).every(({ runId }) => runId === null || !dropped.has(runId));
  return cut > 0 && first !== null && isApart ? { ...state, items: items.slice(cut), earlier: { cursor: first, loose: [] } } : state;
}
