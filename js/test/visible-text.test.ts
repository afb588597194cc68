import { readFileSync } from "node:fs";
import { join } from "node:path";
import { render } from "lit";
import { describe, expect, it } from "vitest";
import { marked, markedLine, visibleText } from "../src/view/lib/visible-text.js";

const examples = JSON.parse(readFileSync(join(import.meta.dirname, "../../tests/support/visible_text.json"), "utf8")) as [string, string][];

describe("what cannot be seen", () => {
  it.each(examples)("is marked as in Python: %j", (text, shown) => {
    expect(marked(text)).toBe(shown);
  });

  it("is an element of its own", () => {
    render(visibleText("a\u202eb"), document.body);
    expect(document.querySelector("mark.navi-unseen")?.textContent).toBe("⟨U+202E⟩");
    expect(document.body.textContent).toBe("a⟨U+202E⟩b");
  });

  it("marks line breaks and tabs on one line", () => {
    expect(markedLine("a\nb\tc")).toBe("a⟨U+000A⟩b⟨U+0009⟩c");
  });

  it.each(["aa1_", "а", "а ", "\u200b ", " \n", "aа", "x = 1; "])("takes time that grows with the length: %j", (unit) => {
    const began = performance.now();
    marked(unit.repeat(200_000 / unit.length));
    expect(performance.now() - began).toBeLessThan(10_000);
  });
});
