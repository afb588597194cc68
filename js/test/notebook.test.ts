import { html, render } from "lit";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { loadElement } from "../src/navi-chat.js";
import { questionOf } from "../src/state/interrupts.js";
import { InterruptCards } from "../src/view/conversation/approvals.js";
import { diffView } from "../src/view/conversation/diff.js";
import type { NaviChat } from "../src/view/chat-element.js";
import type { ClientNotebook } from "../src/protocol/generated.js";
import type { ContextSummary, NotebookHost } from "../src/view/host.js";
import type { CellChange, NaviCellEdit } from "../src/view/notebook/cell-edit-element.js";
import { Log, prelude } from "./log.js";
import { FakeTransport } from "./transport.js";

await loadElement("navi-cell-edit");

const SHOWN: ClientNotebook = { path: "work/a.ipynb", cells: [], active: "c1", selection: null, error: null, unsaved: true };

class FakeHost implements NotebookHost {
  path = "work/a.ipynb";
  canEdit = true;
  summaryNow: ContextSummary = { path: this.path, cell: "In [3]", hasSelection: false, error: null, unsaved: true };
  readonly done: (readonly [string, string, string])[] = [];
  readonly listeners = new Set<() => void>();
  readonly shown: string[] = [];

  context = (): ClientNotebook => SHOWN;
  summary = (): ContextSummary => this.summaryNow;
  subscribe(changed: () => void): () => void {
    this.listeners.add(changed);
    return () => this.listeners.delete(changed);
  }
  cellLabel = (cell: string): string | null => (cell === "gone" ? null : `In [${cell}]`);
  revealCell = (cell: string): boolean => this.shown.push(cell) > 0;
  mentions = (): readonly [] => [];
  canRun = (language: string): boolean => language !== "json";
  insertBelow = (code: string, language = ""): unknown => this.done.push(["insert", code, language]);
  replaceCell = (code: string, language = ""): unknown => this.done.push(["replace", code, language]);
  runCode = (code: string, language = ""): unknown => this.done.push(["run", code, language]);
}

let chat: NaviChat;
let transport: FakeTransport;
let host: FakeHost;

const find = (name: string): HTMLElement | null => chat.querySelector(`[data-navi="${name}"]`);

async function drawn(): Promise<void> {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  await chat.updateComplete;
}

async function say(text: string): Promise<Record<string, unknown>> {
  const input = find("input") as HTMLTextAreaElement;
  input.value = text;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  input.form?.requestSubmit();
  await drawn();
  return transport.last.sent.at(-1) ?? {};
}

beforeEach(async () => {
  sessionStorage.clear();
  transport = new FakeTransport();
  host = new FakeHost();
  chat = document.createElement("navi-chat") as NaviChat;
  chat.transport = transport;
  chat.session = "s";
  chat.host = host;
  document.body.replaceChildren(chat);
  await drawn();
  transport.last.open().envelopes(prelude(0, [{ type: "MESSAGES_SNAPSHOT", messages: [] }]));
  await drawn();
});

afterEach(() => chat.remove());

describe("The line above the composer", () => {
  it("names what goes along with the next prompt, and follows the page", async () => {
    expect(find("context-toggle")?.textContent?.trim()).toBe("a.ipynb · In [3]");
    host.summaryNow = { ...host.summaryNow, cell: "In [4]", hasSelection: true, error: "In [2]" };
    for (const listener of host.listeners) listener();
    await drawn();
    expect(find("context-toggle")?.textContent?.trim()).toBe("a.ipynb · In [4] · selection · error of In [2]");
    expect((await say("hi"))["client"]).toMatchObject({ notebook: SHOWN });
  });

  it("leaves it out of one prompt", async () => {
    find("context-toggle")?.click();
    await drawn();
    expect(find("context")?.dataset["sent"]).toBe("false");
    expect((await say("without"))["client"]).not.toHaveProperty("notebook");
    expect(find("context")?.dataset["sent"]).toBe("true");
    expect((await say("with"))["client"]).toMatchObject({ notebook: SHOWN });
  });

  it("is not there where the page has no notebook, and no listener is added", async () => {
    expect(host.listeners.size).toBe(1);
    chat.host = null;
    await drawn();
    expect(find("context")).toBeNull();
    expect(host.listeners.size).toBe(0);
    expect((await say("hi"))["client"]).not.toHaveProperty("notebook");
    chat.host = host;
    await drawn();
    chat.remove();
    expect(host.listeners.size).toBe(0);
  });

  it("is not asked for a prompt that brings its own notebook", () => {
    const own = { ...SHOWN, active: "c9" };
    chat.send("explain", own);
    expect(transport.last.sent.at(-1)?.["client"]).toMatchObject({ notebook: own });
  });
});

describe("A code block of an answer", () => {
  async function answered(text: string): Promise<void> {
    transport.last.envelopes(new Log().prompt("c1", "hi", "r1").started("r1").begin("m1", text, "r1").done("m1", "r1").finished("r1").envelopes);
    await drawn();
  }

  it("goes into the notebook at one press", async () => {
    await answered("```Python\nprint(1)\n```");
    for (const name of ["insert-below", "replace-cell", "run-code"]) find(name)?.click();
    await vi.waitFor(() => expect(host.done).toHaveLength(3)); // what is run is looked at first
    expect(host.done).toEqual([
      ["insert", "print(1)", "python"],
      ["replace", "print(1)", "python"],
      ["run", "print(1)", "python"],
    ]);
  });

  it("has no button that does nothing: only Copy in a notebook that cannot be changed, no Run for what the kernel cannot run", async () => {
    await answered("```json\n{}\n```");
    expect([...chat.querySelectorAll(".navi-code-bar button")].map((button) => (button as HTMLElement).dataset["navi"])).toEqual(["insert-below", "replace-cell", "copy"]);
    chat.host = Object.assign(new FakeHost(), { canEdit: false });
    await drawn();
    await drawn();
    expect([...chat.querySelectorAll(".navi-code-bar button")].map((button) => (button as HTMLElement).dataset["navi"])).toEqual(["copy"]);
  });

  it("is put there and not run where it is not what it looks like", async () => {
    await answered("```python\nprint('a')\u202E#\n```");
    find("run-code")?.click();
    await drawn();
    expect(host.done.map(([what]) => what)).toEqual(["insert"]);
    expect(find("notice")?.textContent).toContain("was not run");
  });
});

describe("A question about a cell", () => {
  const ask = (tool: string, args: object, more: object = {}): HTMLElement => {
    const cell = { path: "work/a.ipynb", id: Object.values(args)[0] as string, index: 1, execution_count: 3 };
    const details = [{ label: "Notebook", text: "work/a.ipynb" }, { label: "Cell", text: "In [3]", cell }];
    const question = questionOf({ id: "i", kind: "approval", message: "", tool, args, source: "builtin", status: "open", durable: true, details, ...more });
    const place = document.createElement("div");
    const cards = new InterruptCards({ answer: vi.fn(), redraw: vi.fn() }, { place: "chat", host: () => host });
    if (question) render(html`${cards.render(question, "")}`, place);
    return place;
  };
  const label = (place: HTMLElement): string | undefined => place.querySelector("[data-navi=ask-cell]")?.textContent?.trim();

  it("names it as the page does, and leads there", () => {
    const place = ask("edit_cell", { cell: "3", source: "1" });
    expect(label(place)).toBe("In [3]");
    place.querySelector<HTMLElement>("[data-navi=ask-cell]")?.click();
    expect(host.shown).toEqual(["3"]);
    expect(label(ask("insert_cell", { after: "4", source: "1" }))).toBe("below In [4]");
  });

  it("says nothing about a cell of another notebook, of another program's tool, or that is not there", () => {
    const other = [{ label: "Cell", text: "In [3]", cell: { path: "other.ipynb", id: "3", index: 1 } }];
    expect(label(ask("edit_cell", { cell: "3" }, { details: other }))).toBeUndefined();
    expect(label(ask("edit_cell", { cell: "3" }, { source: "mcp:evil" }))).toBeUndefined();
    expect(label(ask("edit_cell", { cell: "gone" }))).toBeUndefined();
    expect(label(ask("run_code", { cell: "3" }, { details: [{ label: "Code", text: "1" }] }))).toBeUndefined();
  });
});

describe("A difference", () => {
  it("has lines that replace others beside them, and the others alone", () => {
    const place = document.createElement("div");
    render(diffView("a\nb\nc\nd\ne", "a\nB\nB2\nc\ne\nf"), place);
    const pairs = [...place.querySelectorAll(".navi-diff-pair")];
    expect(pairs).toHaveLength(1);
    expect(pairs[0]?.querySelector(".navi-diff-old")?.textContent).toBe("removed: − b\n");
    expect(pairs[0]?.querySelector(".navi-diff-new")?.textContent).toBe("added: + B\nadded: + B2\n");
    const alone = [...place.querySelectorAll("pre > .navi-diff-removed, pre > .navi-diff-added")].map(({ textContent }) => textContent);
    expect(alone).toEqual(["removed: − d\n", "added: + f\n"]);
  });
});

describe("What a run did to a cell", () => {
  async function shown(change: CellChange, current: string, count = 1): Promise<NaviCellEdit> {
    const element = document.createElement("navi-cell-edit") as NaviCellEdit;
    Object.assign(element, { change, current, count });
    document.body.append(element);
    await element.updateComplete;
    return element;
  }
  const names = (element: Element): readonly (string | undefined)[] => [...element.querySelectorAll("button")].map(({ dataset }) => dataset["navi"]);

  it("is shown with its difference, to be kept or undone", async () => {
    const pressed: string[] = [];
    const element = await shown({ cell: "c", kind: "edited", before: "x = 1", after: "x = 2" }, "x = 2");
    for (const name of ["keep", "undo"]) element.addEventListener(`navi-${name}`, () => pressed.push(name));
    expect(element.textContent).toContain("Navi changed this cell");
    expect(element.querySelector(".navi-diff-removed")?.textContent).toContain("x = 1");
    expect(names(element)).toEqual(["edit-keep", "edit-undo"]);
    for (const button of element.querySelectorAll("button")) button.click();
    expect(pressed).toEqual(["keep", "undo"]);
  });

  it("says that the user has changed it since, and what a run did to several is undone by one press", async () => {
    const element = await shown({ cell: "c", kind: "edited", before: "x = 1", after: "x = 2" }, "x = 3", 3);
    expect(element.textContent).toContain("changed since");
    expect(element.querySelector(".navi-diff-added")?.textContent).toContain("x = 3");
    expect(names(element)).toEqual(["edit-keep", "edit-undo", "edit-keep-all", "edit-undo-all"]);
  });

  it("shows the whole of a deleted cell, and of a new one only that it is new", async () => {
    const deleted = await shown({ cell: "c", kind: "deleted", before: "gone()", after: "" }, "");
    expect(deleted.querySelector(".navi-diff-removed")?.textContent).toContain("gone()");
    const inserted = await shown({ cell: "c", kind: "inserted", before: "", after: "new()" }, "new()");
    expect(inserted.querySelector(".navi-diff")).toBeNull();
  });
});
