import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { toolLine, type LineStatus } from "../src/view/conversation/tool-line.js";

/** The same examples hold cells and exports. */
const EXAMPLES = JSON.parse(readFileSync(resolve("..", "tests", "kernel", "tool_lines.json"), "utf8")) as [string, unknown, unknown, LineStatus, string][];

describe("a call of a tool", () => {
  it.each(EXAMPLES)("is said in words: %s %j %j %s", (name, args, result, status, words) => {
    expect(toolLine(name, args, result, status)).toBe(words);
  });
});
