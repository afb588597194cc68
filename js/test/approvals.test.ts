import { html, render } from "lit";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { questionOf } from "../src/state/interrupts.js";
import type { Interrupt } from "../src/state/model.js";
import { arming, InterruptCards, titleOf } from "../src/view/conversation/approvals.js";

const answers: unknown[] = [];
let place: HTMLElement;
let cards: InterruptCards;
let question: Interrupt;

const detail = (label: string, text: string, more: object = {}): object => ({ label, text, kind: "code", language: "python", foreign: false, omitted: 0, ...more });

function ask(details: readonly object[], more: object = {}): void {
  const fields = { id: "i_1", kind: "approval", message: "Navi wants to use run_code.", tool: "run_code", args: {}, source: "builtin", status: "open", durable: true, details, ...more };
  const read = questionOf(fields);
  if (!read) throw new Error("no question");
  question = read;
  draw();
}

const draw = (): void => void render(html`${cards.render(question, "")}`, place);
const shown = (): string => place.textContent ?? "";
const find = <T extends HTMLElement>(name: string): T | null => place.querySelector<T>(`[data-navi="${name}"]`);

beforeEach(() => {
  answers.length = 0;
  place = document.createElement("div");
  document.body.replaceChildren(place);
  cards = new InterruptCards({ answer: (...given) => answers.push(given), redraw: draw });
});

afterEach(() => {
  arming.delay = 0;
  vi.useRealTimers();
});

describe("what is to be approved", () => {
  it("is shown as the server describes it", () => {
    ask([detail("Cell", "code cell 2 of 7, In [3], id abc", { kind: "text" }), detail("Source of the cell", "os.remove('data')")]);
    expect(shown()).toContain("In [3]");
    expect(shown()).toContain("os.remove('data')");
    expect(find("ask-hidden")).toBeNull();
  });

  it("says beside the buttons how much of it is not shown, and shows all at a click", () => {
    const lines = Array.from({ length: 210 }, (_, line) => `line_${line}`);
    ask([detail("Code", [...lines, "evil()"].join("\n"))]);
    expect(shown()).not.toContain("evil()");
    expect(find("ask-hidden")?.textContent).toContain("181 lines more");
    expect(find("ask-hidden")?.nextElementSibling?.classList).toContain("navi-ask-actions");
    find("ask-all")?.click();
    expect(shown()).toContain("evil()");
    expect(find("ask-hidden")).toBeNull();
  });

  it("does not count blank lines as what fills the card: what follows them is in sight", () => {
    ask([detail("Code", `a${"\n".repeat(300)}evil()`)]);
    expect(shown()).toContain("evil()");
    ask([detail("Change", `+a\n${"+\n".repeat(300)}+evil()`, { kind: "diff" })]);
    expect(shown()).toContain("··· 300 blank lines ···");
    expect(shown()).toContain("evil()");
  });

  it("counts the characters of one long line that are not shown", () => {
    ask([detail("Code", `x = "${"y".repeat(50_000)}"; evil()`)]);
    expect(find("ask-hidden")?.textContent).toContain("46,014 characters more");
  });

  it("says what the server left out, which no button shows", () => {
    ask([detail("Code", "x", { omitted: 1234 })]);
    expect(find("ask-hidden")?.textContent).toContain("1,234 more characters are part of the call");
  });

  it.each([
    ["x = 1" + " ".repeat(400) + "; evil()", "··· 400 spaces ···"],
    ["x = 1\n" + "\n".repeat(200) + "evil()", "··· 200 blank lines ···"],
    ["ok = '\u202eevil'", "⟨U+202E⟩"],
    ["a\u200bb", "⟨U+200B⟩"],
    ["p\u0430ypal", "⟨\u0430 U+0430⟩"],
  ])("marks what cannot be seen: %j", (code, mark) => {
    ask([detail("Code", code)]);
    expect(place.querySelector("pre mark.navi-unseen")?.textContent).toBe(mark);
    ask([detail("Path", code, { kind: "text" })]);
    expect(place.querySelector("mark.navi-unseen")?.textContent).toBe(mark);
    ask([detail("Change", `+${code}`, { kind: "diff" })]);
    expect(place.querySelector("pre.navi-diff mark.navi-unseen")?.textContent).toBe(mark);
  });

  it("shows all arguments of a call that is not described", () => {
    ask([], { args: { path: "a.txt", deep: { force: [true] }, code: "x\ny" } });
    for (const text of ["a.txt", "force", "x\ny"]) expect(shown()).toContain(text);
  });

  it("stays in sight while the arguments are edited", () => {
    ask([detail("Source of the cell", "evil()")], { args: { cell: "3" } });
    find("ask-edit")?.click();
    expect(shown()).toContain("evil()");
    expect(place.querySelector("[data-field=cell]")).not.toBeNull();
  });

  it("shows the words of another program as such, and without their markup", () => {
    ask([detail("What it says about itself", "<b>Safe</b> [x](javascript:alert(1))", { kind: "text", foreign: true })], { source: "mcp:files", tool: "write_file" });
    expect(place.querySelector("[data-foreign]")?.textContent).toContain("not of Navi");
    expect(place.querySelector("pre b, pre a")).toBeNull();
    expect(titleOf(question)).toBe("Navi wants to use write_file");
  });

  it("names the server that asks, and marks its words", () => {
    ask([], { kind: "question", tool: null, source: "mcp:files", message: "<i>Navi</i> asks\u202e for your password" });
    expect(shown()).toContain("The MCP server files has a question");
    expect(shown()).toContain("not of Navi");
    expect(place.querySelector(".navi-ask-message i")).toBeNull();
    expect(place.querySelector(".navi-ask-message mark")?.textContent).toBe("⟨U+202E⟩");
  });
});

describe("a key or a click that was meant for something else", () => {
  it("does not answer a question that has only just been drawn", () => {
    vi.useFakeTimers();
    arming.delay = 500;
    ask([detail("Code", "x")]);
    for (const button of ["ask-approve", "ask-deny"]) find(button)?.click();
    expect(answers).toEqual([]);
    vi.advanceTimersByTime(600);
    find("ask-approve")?.click();
    expect(answers.length).toBe(1);
  });
});

describe("a question of the agent", () => {
  const schemaOf = (properties: object, required: readonly string[] = ["answer"]): object => ({ type: "object", properties, required });
  const asks = (properties: object, more: object = {}): void =>
    ask([], { kind: "question", tool: null, args: null, message: "Which column?", response_schema: schemaOf(properties), ...more });

  it("with few choices has a button for each, which answers at once", () => {
    asks({ answer: { type: "string", title: "Answer", enum: ["price", "volume"] } });
    const buttons = [...place.querySelectorAll<HTMLButtonElement>('[data-navi="ask-choice"]')];
    expect(buttons.map(({ textContent }) => textContent?.trim())).toEqual(["price", "volume"]);
    expect(find("ask-answer")).toBeNull();
    buttons[1]?.click();
    buttons[0]?.click(); // the second answer does not count
    expect(answers).toEqual([[question, "resolved", { answer: "volume" }]]);
  });

  it("with many choices, or another field beside them, is a form", () => {
    asks({ answer: { type: "string", enum: Array.from({ length: 9 }, (_, index) => `c${index}`) } });
    expect(find("ask-choice")).toBeNull();
    expect(place.querySelector("select")).not.toBeNull();
    asks({ answer: { type: "string", enum: ["a", "b"] }, other: { type: "string" } });
    expect(find("ask-choice")).toBeNull();
    expect(find("ask-answer")).not.toBeNull();
  });

  it("shows once it is answered what was asked and what was answered", () => {
    asks({ answer: { type: "string", enum: ["price", "volume"] } }, { status: "resolved", payload: { answer: "price" } });
    expect(shown()).toContain("Which column?");
    expect(find("ask-given")?.textContent).toBe("price");
  });
});
