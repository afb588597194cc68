import { render } from "lit";
import { describe, expect, it } from "vitest";
import { diffLines, withoutDistant } from "../src/view/conversation/diff.js";
import { fieldsOf, formFields } from "../src/view/lib/schema-form.js";
import { TerminalText } from "../src/view/conversation/terminal.js";

function written(...pieces: string[]): HTMLElement {
  const text = new TerminalText("out", "Output");
  for (const piece of pieces) text.write(piece);
  return text.element;
}

describe("text of a terminal", () => {
  it.each<[string, string[], string]>([
    ["keeps lines", ["a\nb", "c\n"], "a\nbc\n"],
    ["writes over a line after a carriage return", ["10 %\r", "20 %\r100 %\n"], "100 %\n"],
    ["takes carriage return and line feed for one line end", ["a\r\nb"], "a\nb"],
    ["leaves out what is no text", ["\u001b]0;title\u0007\u001b[2Ka\u001b[1A"], "a"],
    ["is no HTML", ["<b>a</b>"], "<b>a</b>"],
    ["joins an escape that was cut", ["a\u001b[3", "1mb\u001b[0", "mc"], "abc"],
  ])("%s", (_, pieces, expected) => {
    expect(written(...pieces).textContent).toBe(expected);
  });

  it("is coloured, over pieces", () => {
    const element = written("\u001b[1;31ma", "b\u001b[0mc");
    expect(element.querySelectorAll(".navi-ansi-red.navi-ansi-bold")).toHaveLength(2);
    expect(element.querySelector(".navi-ansi-red")?.nextSibling?.textContent).toBe("b");
  });

  it("is bounded, however it comes", () => {
    for (const element of [written("x".repeat(1_000_000)), written(...Array.from({ length: 20_000 }, (_, index) => `line ${index}\n`))]) {
      expect(element.textContent?.length).toBeLessThan(60_000);
      expect(element.textContent).toContain("characters before this are not shown");
    }
  });
});

describe("a diff", () => {
  const shown = (before: string, after: string): string[] => diffLines(before, after).map(({ kind, text }) => `${{ same: " ", added: "+", removed: "-" }[kind]}${text}`);

  it("has what changed, in order", () => {
    expect(shown("a\nb\nc", "a\nB\nc\nd")).toEqual([" a", "-b", "+B", " c", "+d"]);
    expect(shown("", "a")).toEqual(["-", "+a"]);
    expect(shown("a\nb", "a\nb")).toEqual([" a", " b"]);
  });

  it("rebuilds both sides", () => {
    const [before, after] = ["a\nx\nb\ny\nc\nb", "b\nx\na\ny\nb\nc"];
    const lines = diffLines(before, after);
    const side = (other: string): string => lines.filter(({ kind }) => kind !== other).map(({ text }) => text).join("\n");
    expect([side("added"), side("removed")]).toEqual([before, after]);
  });

  it("leaves out what is far from every change", () => {
    const many = Array.from({ length: 50 }, (_, index) => `line ${index}`);
    const near = withoutDistant(diffLines(many.join("\n"), many.with(25, "other").join("\n")));
    expect(near[0]).toBeNull();
    expect(near.length).toBe(10);
  });
});

describe("a schema", () => {
  it("that is flat is a form", () => {
    const fields = fieldsOf({ type: "object", properties: { a: { anyOf: [{ type: "integer", minimum: 1 }, { type: "null" }], default: null }, b: { oneOf: [{ const: 1, title: "one" }] } }, required: ["b"] });
    expect(fields?.map(({ name, kind, required, choices }) => ({ name, kind, required, choices }))).toEqual([
      { name: "a", kind: "integer", required: false, choices: [] },
      { name: "b", kind: "choice", required: true, choices: [[1, "one"]] },
    ]);
  });

  it("has no pattern in the browser: the server matches it", () => {
    const [field] = fieldsOf({ type: "object", properties: { a: { type: "string", pattern: "^(a+)+$", maxLength: 50 } } }) ?? [];
    expect(field?.rules).toEqual({ type: "text", minlength: undefined, maxlength: 50 });
    const place = document.createElement("form");
    render(formFields(field ? [field] : [], "p"), place);
    expect(place.querySelector("input")?.hasAttribute("pattern")).toBe(false);
  });

  it("that nests, or is no object, is none", () => {
    expect(fieldsOf({ type: "object", properties: { a: { type: "object" } } })).toBeNull();
    expect(fieldsOf({ type: "string" })).toBeNull();
    expect(fieldsOf(null)).toBeNull();
  });
});
