import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import "../src/navi-chat.js";
import type { NaviChat } from "../src/view/chat-element.js";
import { markdownBlock } from "../src/view/lib/markdown.js";
import { MAX_SIGNS, MarkdownView } from "../src/view/lib/markdown-engine.js";
import { depthOf, toMathML } from "../src/view/lib/math-engine.js";
import { strings } from "../src/view/lib/strings.js";
import { plain } from "../src/view/recalls/time.js";
import { Log, prelude } from "./log.js";
import { FakeTransport } from "./transport.js";

const shared = (name: string): unknown => JSON.parse(readFileSync(resolve("..", "tests", "kernel", name), "utf8")); // run in js/
/** What is a formula, in cells and here. */
const FORMULAS = shared("formulas.json") as [string, [string, boolean][]][];
/** Texts that nest deep or would take long, by name. */
const HEAVY = Object.entries(shared("heavy_markdown.json") as Record<string, [string, number][]>).map(
  ([name, parts]) => [name, parts.map(([part, count]) => part.repeat(count)).join("")] as const,
);

function rendered(text: string): HTMLElement {
  const box = document.createElement("div");
  box.append(...new MarkdownView(() => {}).update(text, false));
  return box;
}

/** Once every block is drawn. */
async function drawnAll(box: HTMLElement): Promise<HTMLElement> {
  await vi.waitFor(() => expect(box.querySelector(".navi-block.navi-plain")).toBeNull(), { timeout: 20_000, interval: 20 });
  return box;
}

/** What of Markdown is read as in cells, by name. */
const FEATURES = Object.entries(shared("markdown_features.json") as Record<string, [string, Record<string, unknown>]>);

const all = (box: ParentNode, selector: string): HTMLElement[] => [...box.querySelectorAll<HTMLElement>(selector)];
const words = (element: Element | null | undefined): string => (element?.textContent ?? "").trim().split(/\s+/).join(" ");

/** What of the features is in the elements of a text: the test of cells makes the same of its HTML. */
function outline(text: string): Record<string, unknown> {
  const box = document.createElement("div");
  const referred = (reference: string): HTMLElement => Object.assign(document.createElement("img"), { alt: encodeURI(reference) });
  box.className = "navi-markdown";
  box.append(...new MarkdownView(() => {}, undefined, referred).update(text, false));
  const aligned = (head: HTMLElement): string => head.getAttribute("align") ?? (head.classList.contains("navi-number") ? "right" : "left");
  return {
    tasks: all(box, ".navi-task").map((task) => [task.getAttribute("aria-label") === strings.taskDone, words(task.nextSibling?.parentElement)]),
    references: all(box, "[data-navi=note-reference]").map((mark) => mark.textContent),
    notes: all(box, "[data-navi=note]").map((note) => words(note).replace(/ \u2191$/, "")),
    columns: all(box, "table").map((table) => all(table, "th").map(aligned)),
    code: all(box, "pre code").map((code) => [code.className.replace("language-", ""), (code.textContent ?? "").trim()]),
    images: all(box, "img").map((image) => image.getAttribute("src") ?? image.getAttribute("alt")),
    bold: all(box, "strong").map(words),
  };
}

describe("what answers are made of", () => {
  it.each(FEATURES)("is read as in cells: %s", (_, [text, expected]) => {
    const found = outline(text);
    expect(Object.fromEntries(Object.keys(expected).map((key) => [key, found[key]]))).toEqual(expected);
  });

  it("has footnotes that lead to their notes and back, in their own message", () => {
    const two = ["a[^1]\n\n[^1]: one", "b[^1]\n\n[^1]: two"].map((text) => {
      const box = document.createElement("div");
      box.className = "navi-markdown";
      box.append(...new MarkdownView(() => {}).update(text, false));
      document.body.append(box);
      return box;
    });
    HTMLElement.prototype.scrollIntoView ??= () => {};
    two[1]?.querySelector<HTMLElement>("[data-navi=note-reference]")?.click();
    expect(document.activeElement?.textContent).toContain("two");
    two[1]?.querySelector<HTMLElement>("[data-navi=note-back]")?.click();
    expect(document.activeElement).toBe(two[1]?.querySelector("[data-navi=note-reference]"));
    expect(document.querySelectorAll("[id]").length).toBe(0);
    document.body.replaceChildren();
  });

  it("makes a reference when the note has come, and keeps what has none", () => {
    const view = new MarkdownView(() => {});
    const [plain, other] = view.update("no note\n\nsee[^1]", false);
    expect(other?.textContent).toBe("see[^1]\n");
    const after = view.update("no note\n\nsee[^1]\n\n[^1]: here", false);
    expect(after[0]).toBe(plain);
    expect(after[1]?.querySelector("[data-navi=note-reference]")).not.toBeNull();
    expect(after[2]?.textContent).toContain("here");
  });
});

describe("formulas", () => {
  it.each(FORMULAS)("are told from money, variables and brackets: %j", (text, formulas) => {
    const found = [...rendered(text).querySelectorAll("code.navi-math, code.navi-math-display")];
    expect(found.map((code) => [code.textContent, code.className === "navi-math-display"])).toEqual(formulas);
  });

  it("are drawn as MathML", () => {
    expect(toMathML("\\frac{1}{2}", false)).toContain("<mfrac>");
    expect(toMathML("x", true)).toContain('display="block"');
  });

  it.each([
    ["nested fractions", `${"\\frac{".repeat(5000)}1${"}{2}".repeat(5000)}`],
    ["open fractions", "\\frac{".repeat(5000)],
    ["roots", `${"\\sqrt".repeat(2000)}x`],
    ["superscripts", `${"x^{".repeat(2000)}y${"}".repeat(2000)}`],
    ["fences", `${"\\left(".repeat(3000)}x${"\\right)".repeat(3000)}`],
    ["macros", "\\def\\a{xx}\\def\\b{\\a\\a}\\b"],
    ["a macro that calls itself", "\\edef\\a{\\a\\a}\\a"],
    ["a new command", "\\newcommand{\\a}{xx}\\a"],
    ["a long one", "x+".repeat(5000)],
    ["many commands", "\\alpha".repeat(600)],
  ])("that are too deep or too long are refused by the engine: %s", (_, tex) => {
    expect(() => toMathML(tex, false)).toThrow(RangeError);
  });

  it.each(["\\definecolor", "\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}", "\\left( \\frac{a}{b} \\right)", "\\{x \\in A\\}", "x_{i_{j}}"])(
    "of common depth are not: %s",
    (tex) => {
      expect(depthOf(tex)).toBeLessThan(10);
      expect(() => toMathML(tex, false)).not.toThrow();
    },
  );

  it("draw no rule that covers the page", () => {
    expect(toMathML("\\rule{100000em}{100000em}", false)).not.toContain("100000");
  });
});

describe("a text that nests deep or would take long", () => {
  it.each(HEAVY)("is drawn, as text where it exceeds a bound: %s", async (name, text) => {
    const box = await drawnAll(rendered(text));
    if (/[a-z\p{Extended_Pictographic}]/iu.test(text) && name !== "definitions") expect(box.textContent?.trim()).not.toBe("");
    let depth = 0;
    for (let node: Element | null = box; node; node = node.lastElementChild) depth += 1;
    expect(depth).toBeLessThan(600);
  });

  it("does not affect the blocks beside it", async () => {
    const box = await drawnAll(rendered(`*one*\n\n${"*a ".repeat(MAX_SIGNS + 1)}\n\n**two**`));
    expect(box.querySelector("em")?.textContent).toBe("one");
    expect(box.querySelector("strong")?.textContent).toBe("two");
    expect(box.querySelectorAll("small")).toHaveLength(1);
    expect(box.textContent).toContain(strings.shownAsText);
    expect(box.textContent).toContain("*a *a *a");
  });

  it("keeps its quotes down to the bound", async () => {
    const box = await drawnAll(rendered(`${"> ".repeat(3000)}deep`));
    expect(box.querySelectorAll("blockquote").length).toBeGreaterThan(10);
    expect(box.querySelectorAll("blockquote").length).toBeLessThan(40);
    expect(box.textContent).toContain("deep");
  });

  it("is drawn in several turns, its blocks as plain text before", async () => {
    await new Promise((done) => setTimeout(done, 50)); // a turn of an example before has begun by the real clock
    const step = vi.spyOn(performance, "now");
    let clock = 0;
    step.mockImplementation(() => (clock += 10)); // each look at the clock takes ten milliseconds
    const box = document.createElement("div");
    const redraw = vi.fn();
    box.append(...new MarkdownView(redraw).update("*word* ".repeat(50).concat("\n\n").repeat(30), false));
    expect(box.querySelector(".navi-plain")?.textContent).toContain("*word*");
    await drawnAll(box);
    expect(box.querySelectorAll("em")).toHaveLength(30 * 50);
    expect(redraw).toHaveBeenCalled();
  });

  it("has no link with an endless address, but its words", () => {
    const box = rendered(`[a]: ${"x".repeat(50_000)}\n\n[word][a]`);
    expect(box.querySelector("a")).toBeNull();
    expect(box.textContent).toContain("word");
  });

  it("is read in sections, which end between blocks and never within code or a table", async () => {
    const table = `| a | b |\n|---|---|\n${"| 1 | 2 |\n".repeat(1500)}`;
    const code = `\`\`\`py\n${"x = 1\n\n".repeat(3000)}\`\`\``;
    const box = await drawnAll(rendered(`${"word word\n\n".repeat(1200)}${table}\n${code}\n\n*end*`));
    expect(box.querySelectorAll("table")).toHaveLength(1);
    expect(box.querySelectorAll("tr")).toHaveLength(1501);
    expect(box.querySelectorAll("pre")).toHaveLength(1);
    expect(box.querySelector("code")?.textContent.trimEnd()).toBe("x = 1\n\n".repeat(3000).trimEnd());
    expect(box.querySelectorAll("p")).toHaveLength(1201);
    expect(box.querySelector("em")?.textContent).toBe("end");
  });

  it("keeps every character of long text and code", async () => {
    const line = "\u{1F1E6}b".repeat(60_000);
    expect((await drawnAll(rendered(line))).querySelector(".navi-plain")?.textContent).toBe(line);
    const code = "def f(x): return x\n".repeat(5000);
    expect((await drawnAll(rendered(`\`\`\`python\n${code}\`\`\``))).querySelector("code")?.textContent).toBe(code.trimEnd());
  });

  it("has no more marks on a letter than a browser can lay out", () => {
    expect(rendered(`a${"\u0301".repeat(50_000)}b`).textContent?.length).toBeLessThan(100);
    expect(rendered("e\u0301\u0323").textContent).toContain("e\u0301\u0323");
  });

  it("is no more than text in an output, too", () => {
    expect(markdownBlock(`${">".repeat(3000)}a`).textContent).toContain("a");
  });
});

describe("a conversation with a text that cannot be drawn", () => {
  let chat: NaviChat;
  let transport: FakeTransport;
  const drawn = async (): Promise<void> => {
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    await chat.updateComplete;
  };

  beforeEach(async () => {
    sessionStorage.clear();
    transport = new FakeTransport();
    chat = document.createElement("navi-chat") as NaviChat;
    chat.transport = transport;
    chat.session = "s";
    document.body.replaceChildren(chat);
    await drawn();
    transport.last.open().envelopes(prelude(0, [{ type: "MESSAGES_SNAPSHOT", messages: [] }]));
    await drawn();
  });
  afterEach(() => chat.remove());

  const ids = (): (string | undefined)[] => [...chat.querySelectorAll<HTMLElement>('[data-navi="message"]')].map(({ dataset }) => dataset["messageId"]);

  it.each(HEAVY.filter((_, index) => index % 3 === 0 || index < 3))("is drawn once: %s", async (_, text) => {
    const log = new Log().prompt("c1", "one", "r1").started("r1").begin("m1", "first **answer**", "r1").prompt("c2", "two", "r2").started("r2").begin("m2", text, "r2");
    transport.last.envelopes(log.envelopes);
    await drawn();
    const more = new Log(log.envelopes.length).prompt("c3", "three", "r3");
    transport.last.envelopes(more.envelopes);
    await drawn();
    expect(ids().filter((id) => id !== "c3")).toEqual(["c1", "m1", "c2", "m2"]);
    expect(chat.querySelector("strong")?.textContent).toBe("answer");
  });

  it("is drawn once, and the text as text, where the view of a message throws", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    const update = MarkdownView.prototype.update;
    vi.spyOn(MarkdownView.prototype, "update").mockImplementation(function (this: MarkdownView, text, streams) {
      if (text.includes("hostile")) throw new RangeError("Maximum call stack size exceeded");
      return update.call(this, text, streams);
    });
    const log = new Log().prompt("c1", "one", "r1").started("r1").begin("m1", "hostile text", "r1").prompt("c2", "two", "r2").started("r2").begin("m2", "**fine**", "r2");
    for (const envelope of log.envelopes) {
      transport.last.envelopes([envelope]);
      await drawn();
    }
    expect(ids()).toEqual(["c1", "m1", "c2", "m2"]);
    expect(chat.querySelector('[data-message-id="m1"]')?.textContent).toContain("hostile text");
    expect(chat.querySelector('[data-message-id="m1"]')?.textContent).toContain(strings.notShown);
    expect(chat.querySelector("strong")?.textContent).toBe("fine");
  });
});

describe("an answer in one line", () => {
  it.each(["OPENAI_API_KEY", "__init__", "2*3*4", "a~b", "<T>", "snake_case and other_name", "*args and **kwargs", "a * b", "_private"])(
    "keeps the characters of names: %s",
    (text) => expect(plain(text)).toBe(text),
  );

  it.each([
    ["**bold**, _it_ and ~~gone~~", "bold, it and gone"],
    ["`OPENAI_API_KEY` is **MY_KEY**", "OPENAI_API_KEY is MY_KEY"],
    ["# Head\n\n- [a](http://b)", "Head a"],
    ["```py\nx_1\n```", "x_1"],
  ])("loses the marks: %s", (text, words) => expect(plain(text)).toBe(words));
});
