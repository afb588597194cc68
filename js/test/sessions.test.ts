/** The list of sessions: its order, its groups, and what a second look at the server changes. */

import { describe, expect, it } from "vitest";
import type { SessionInfo } from "../src/protocol/generated.js";
import { byDay, merged } from "../src/view/sessions/days.js";

const NOW = new Date(2026, 11, 1, 12);

function session(id: string, at: Date): SessionInfo {
  return { id, updated_at: at.toISOString(), title: id } as SessionInfo;
}

const at = (day: number, hour = 9): Date => new Date(2026, 11, day, hour);
const ids = (sessions: readonly SessionInfo[]): string[] => sessions.map(({ id }) => id);

describe("the days of a list", () => {
  it("are named as people name them, in the reader's zone", () => {
    const days = byDay([session("a", at(1)), session("b", at(1, 0)), session("c", at(0, 23)), session("d", at(-1)), session("e", new Date(2025, 0, 2))], NOW);
    expect(days.map(({ name, sessions }) => [name, ids(sessions)])).toEqual([
      ["Today", ["a", "b"]],
      ["Yesterday", ["c"]],
      ["Sunday, November 29", ["d"]],
      ["January 2, 2025", ["e"]],
    ]);
  });
});

describe("a list that is read again", () => {
  const known = [session("a", at(5)), session("b", at(4)), session("c", at(3)), session("d", at(2)), session("e", at(1))];

  it("has what is new and what has moved first, and keeps what was read on", () => {
    const first = [session("d", at(7)), session("n", at(6)), session("a", at(5))];
    expect(ids(merged(known, first, false))).toEqual(["d", "n", "a", "b", "c", "e"]);
  });

  it("lacks what the first page would have and has not", () => {
    expect(ids(merged(known, [session("a", at(5)), session("c", at(3))], false))).toEqual(["a", "c", "d", "e"]);
    expect(ids(merged(known, [session("a", at(5))], true))).toEqual(["a"]);
    expect(ids(merged(known, [], true))).toEqual([]);
  });
});
