import { beforeEach, describe, expect, it } from "vitest";
import { PromptHistory } from "../src/view/composer/history.js";
import { commandOf, completed, fits, mentionsIn, triggerAt } from "../src/view/composer/triggers.js";

describe("what can be completed", () => {
  const at = (marked: string): unknown => {
    const caret = marked.indexOf("|");
    const found = triggerAt(marked.replace("|", ""), caret);
    return found && [found.kind, found.query];
  };

  it.each([
    ["@|", ["mention", ""]],
    ["plot @sa|", ["mention", "sa"]],
    ["plot (@sa|)", ["mention", "sa"]],
    ["plot @cell:In[3|", ["mention", "cell:In[3"]],
    ['read @"my da|', ["mention", "my da"]],
    ["read @data/sa| and", ["mention", "data/sa"]],
    ["two\nlines @x|", ["mention", "x"]],
    ["/|", ["command", ""]],
    ["/fi|x", ["command", "fi"]],
    ["/model |", ["argument", ""]],
    ["/export ip|", ["argument", "ip"]],
    ["/fix @d|", ["mention", "d"]],
  ])("%s", (marked, expected) => expect(at(marked)).toEqual(expected));

  it.each(["me@home|", "x @ y|", 'read @"my data" |', "see a/b|", " /fix|", "say /fix|", "/fix it|", "/model a b|", "@|x".replace("@|", "|@"), "a @b c|"])(
    "%s: nothing",
    (marked) => expect(at(marked)).toBeNull(),
  );

  it("takes the place of what was typed, with a blank behind it", () => {
    const trigger = triggerAt("plot @sa please", 8);
    expect(trigger && completed("plot @sa please", trigger, "@sales.csv")).toEqual({ text: "plot @sales.csv please", caret: 16 });
    const end = triggerAt("/fi", 3);
    expect(end && completed("/fi", end, "/fix")).toEqual({ text: "/fix ", caret: 5 });
  });

  it("fits letters in their order", () => {
    expect(fits("dsal", "@data/sales.csv")).toBe(true);
    expect(fits("salesd", "@data/sales.csv")).toBe(false);
  });
});

describe("what a text names", () => {
  it.each([
    ["compare @df and @data/sales.csv.", ["@df", "@data/sales.csv"]],
    ['read @"my data.csv", @cell:In[3] (@error)', ['@"my data.csv"', "@cell:In[3]", "@error"]],
    ['like @session:"Why is the loss flat?"', ['@session:"Why is the loss flat?"']],
    ["@df @df", ["@df"]],
    ["mail me@example.com, a/@b, @", []],
    ["`@df` and ```\n@app.route\n```", []],
    ["@property\ndef x(self): ...", []],
    ['@app.route("/x")\n@cached\nasync def x(): ...', []],
    [Array.from({ length: 30 }, (_, n) => `@v${n}`).join(" "), Array.from({ length: 20 }, (_, n) => `@v${n}`)],
  ])("%s", (text, tokens) => expect(mentionsIn(text)).toEqual(tokens));
});

describe("a command", () => {
  it.each([
    ["/recall in 10m look", { name: "recall", words: "in 10m look" }],
    ["/new", { name: "new", words: "" }],
    ["/weekly two\nlines", { name: "weekly", words: "two\nlines" }],
    ["/etc/passwd", null],
    ["what /new is", null],
    ["/", null],
  ])("%s", (text, line) => expect(commandOf(text)).toEqual(line));
});

describe("earlier prompts", () => {
  let own: string[];
  let history: PromptHistory;

  beforeEach(() => {
    localStorage.clear();
    own = ["second", "first"];
    history = new PromptHistory(() => own);
  });

  it("are those of the session, then those of the browser, each once", () => {
    new PromptHistory(() => []).add("elsewhere");
    new PromptHistory(() => []).add("first");
    expect(history.older("")).toBe("second");
    expect(history.older("second")).toBe("first");
    expect(history.older("first")).toBe("elsewhere");
    expect(history.older("elsewhere")).toBeNull();
    expect(history.newer("elsewhere")).toBe("first");
    expect(history.newer("first")).toBe("second");
    expect(history.newer("second")).toBe("");
    expect(history.newer("")).toBeNull();
  });

  it("do not take the place of a text of the user's own", () => {
    expect(history.older("my draft")).toBeNull();
    expect(history.older("")).toBe("second");
    expect(history.older("second, changed")).toBeNull();
    expect(history.newer("second, changed")).toBeNull();
  });

  it("stay the same while they are walked through", () => {
    expect(history.older("")).toBe("second");
    own.unshift("third");
    expect(history.older("second")).toBe("first");
    history.reset();
    expect(history.older("")).toBe("third");
  });

  it("are bounded in the browser, and what is stored there need not be ours", () => {
    for (let n = 0; n < 150; n += 1) history.add(`prompt ${n}`);
    history.add("x".repeat(5_000));
    expect((JSON.parse(localStorage.getItem("navi:prompts") ?? "[]") as unknown[]).length).toBe(100);
    localStorage.setItem("navi:prompts", '{"a":1}');
    own = [];
    expect(history.older("")).toBeNull();
    localStorage.setItem("navi:prompts", "[1, \"fine\"]");
    expect(history.older("")).toBe("fine");
  });
});
