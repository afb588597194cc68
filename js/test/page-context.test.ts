import { beforeEach, describe, expect, it, vi } from "vitest";
import type { CellModel, CellWidget, NotebookWidget, Output, Panel, Signal } from "../src/lab/notebook-types.js";
import { make } from "../src/lab/notebook-requests.js";
import { PageNotebook } from "../src/lab/page-context.js";

class Emitter implements Signal<never, never> {
  readonly slots: ((sender: never, args: never) => void)[] = [];
  connect(slot: (sender: never, args: never) => void): void {
    this.slots.push(slot);
  }
  disconnect(): void {}
  emit(): void {
    for (const slot of this.slots) (slot as () => void)();
  }
}

const error = (ename: string, evalue: string, traceback = [`\u001b[31m${ename}\u001b[0m: ${evalue}`]): Output => ({ output_type: "error", ename, evalue, traceback });

class FakeCell implements CellWidget {
  readonly node = document.createElement("div");
  readonly isDisposed = false;
  readonly model: CellModel;
  source: string;
  selected: readonly [number, number] = [0, 0];

  constructor(id: string, source: string, { type = "code", count = null, outputs = [] }: { type?: string; count?: number | null; outputs?: readonly Output[] } = {}) {
    this.source = source;
    this.model = {
      id,
      type,
      executionCount: count,
      contentChanged: new Emitter(),
      sharedModel: { getSource: () => this.source, setSource: (text) => (this.source = text) },
      outputs: {
        length: outputs.length,
        changed: new Emitter(),
        get: (index) => ({ type: String(outputs[index]?.["output_type"]), toJSON: () => outputs[index] ?? {} }),
      },
    };
  }

  readonly editor = {
    getSelection: () => ({ start: { line: 0, column: this.selected[0] }, end: { line: 0, column: this.selected[1] } }),
    getOffsetAt: ({ column }: { column: number }) => column,
  };
}

class Desk {
  readonly cells: FakeCell[];
  readonly changed = new Emitter();
  readonly activated = new Emitter();
  #active = 0;
  ran: string[] = [];
  isReadOnly = false;
  language = "python";
  readonly notebook: PageNotebook;

  constructor(...cells: FakeCell[]) {
    this.cells = cells;
    this.notebook = new PageNotebook(this.panel(), () =>
      Promise.resolve({
        run: ({ activeCell }: NotebookWidget) => {
          this.ran.push(activeCell?.model.sharedModel.getSource() ?? "");
          return Promise.resolve(true);
        },
      }),
    );
  }

  /** The user goes to a cell; what was selected in the one before is forgotten by the notebook. */
  go(index: number): void {
    const before = this.cells[this.#active];
    this.#active = index;
    this.activated.emit();
    if (before && before !== this.cells[index]) before.selected = [0, 0];
  }

  get sources(): readonly string[] {
    return this.cells.map(({ source, model }) => (model.type === "code" ? source : `${model.type}: ${source}`));
  }

  get active(): string {
    return this.cells[this.#active]?.source ?? "";
  }

  panel(): Panel {
    const desk = this;
    const content: NotebookWidget = {
      node: document.createElement("div"),
      isDisposed: false,
      get widgets() {
        return desk.cells;
      },
      get activeCell() {
        return desk.cells[desk.#active] ?? null;
      },
      get activeCellIndex() {
        return desk.#active;
      },
      set activeCellIndex(index) {
        desk.go(index);
      },
      activeCellChanged: this.activated,
      model: {
        cells: { changed: this.changed },
        contentChanged: this.changed,
        sharedModel: null as never,
        dirty: true,
        get readOnly() {
          return desk.isReadOnly;
        },
      },
      deselectAll: () => undefined,
      scrollToItem: () => Promise.resolve(),
    };
    const sharedModel = {
      cells: [],
      insertCell: (index: number, { cell_type: type, source }: { cell_type: string; source: string | readonly string[] }) => desk.cells.splice(index, 0, new FakeCell(`new${desk.cells.length}`, String(source), { type })),
      deleteCell: (index: number) => desk.cells.splice(index, 1),
      transact: (change: () => void) => change(),
      getMetadata: (key: string) => (key === "kernelspec" ? { language: desk.language } : undefined),
    };
    const context = { path: "work/a.ipynb", isDisposed: false, model: { sharedModel, dirty: true }, contentsModel: null, fileChanged: new Emitter(), saveState: new Emitter(), pathChanged: new Emitter(), ready: Promise.resolve() };
    return { node: content.node, content, context, sessionContext: {}, isDisposed: false, disposed: new Emitter() } as unknown as Panel;
  }
}

let desk: Desk;
beforeEach(() => {
  desk = new Desk(new FakeCell("a", "x = 1", { count: 1 }), new FakeCell("b", "y = 2\nz = 3", { count: 2 }), new FakeCell("m", "# Title", { type: "markdown" }));
});

describe("What goes along with a prompt", () => {
  it("is the cells as they are on the page, the active one, and what is selected in it", () => {
    desk.go(1);
    desk.cells[1]!.selected = [6, 11];
    desk.cells[0]!.source = "x = 'not saved'";
    const context = desk.notebook.host(null).context();
    expect(context).toMatchObject({ path: "work/a.ipynb", active: "b", unsaved: true, error: null, selection: { cell: "b", text: "z = 3" } });
    expect(context?.cells?.map(({ id, type, source, execution_count: count }) => [id, type, source, count])).toEqual([
      ["a", "code", "x = 'not saved'", 1],
      ["b", "code", "y = 2\nz = 3", 2],
      ["m", "markdown", "# Title", null],
    ]);
  });

  it("has the text of outputs without colours, shortened, and the error that came last", () => {
    const long = Array.from({ length: 500 }, (_, line) => `line ${line}`).join("\n");
    const trace = ["\u001b[0;31m---\u001b[0m", "\u001b[0;31mNameError\u001b[0m: name 'q' is not defined"];
    desk = new Desk(
      new FakeCell("a", "old", { count: 3, outputs: [error("ValueError", "old")] }),
      new FakeCell("b", "q", { count: 7, outputs: [{ output_type: "stream", text: ["a\n", long] }, error("NameError", "name 'q' is not defined", trace)] }),
      new FakeCell("c", "plot", { count: 8, outputs: [{ output_type: "display_data", data: { "image/png": "AAAA", "text/plain": "" } }] }),
    );
    const { cells, error: last } = desk.notebook.host(null).context()!;
    expect(last).toEqual({ cell: "b", ename: "NameError", evalue: "name 'q' is not defined", traceback: "---\nNameError: name 'q' is not defined" });
    expect(cells?.[1]?.output?.length).toBeLessThan(2_100);
    expect(cells?.[1]?.output).toMatch(/^a\nline 0[^]*\n\[…\]\n[^]*NameError: name 'q' is not defined$/);
    expect(cells?.map((cell) => cell.error)).toEqual(["ValueError: old", "NameError: name 'q' is not defined", null]);
    expect(cells?.[2]?.output).toBe("[image/png]");
  });

  it("has the error of the cell that it is about, which is the active one then", () => {
    desk = new Desk(new FakeCell("a", "1", { count: 1, outputs: [error("ValueError", "one")] }), new FakeCell("b", "2", { count: 2, outputs: [error("KeyError", "two")] }));
    expect(desk.notebook.host(null).context("a")).toMatchObject({ active: "a", error: { cell: "a", ename: "ValueError" } });
  });

  it("is bounded: sources far from the active cell are left out, and no cell is", () => {
    desk = new Desk(...Array.from({ length: 100 }, (_, index) => new FakeCell(`c${index}`, `${index}:`.padEnd(30_000, "x"))));
    desk.go(50);
    const cells = desk.notebook.host(null).context()!.cells!;
    expect(cells).toHaveLength(100);
    const whole = cells.filter(({ source }) => source !== null).map(({ id }) => id);
    expect(whole).toEqual(["c47", "c48", "c49", "c50", "c51", "c52"].filter((id) => whole.includes(id)));
    expect(whole).toContain("c50");
    expect(JSON.stringify(cells).length).toBeLessThan(300_000);
    desk = new Desk(...Array.from({ length: 2_001 }, (_, index) => new FakeCell(`c${index}`, "1")));
    expect(desk.notebook.host(null).context()?.cells).toBeNull();
  });
});

describe("A chat in an output", () => {
  it("means the cell in which the user was before, with what was selected there", () => {
    const output = document.createElement("div");
    desk.cells[0]!.node.append(output);
    const host = desk.notebook.host(output);
    expect(host.context()?.active).toBeNull();
    desk.go(1);
    desk.cells[1]!.selected = [0, 5];
    desk.go(0); // a press into the chat makes its cell the active one
    expect(host.context()).toMatchObject({ active: "b", selection: { cell: "b", text: "y = 2" } });
    expect(host.summary()).toMatchObject({ cell: "In [2]", hasSelection: true });
    host.insertBelow("new");
    expect(desk.sources).toEqual(["x = 1", "y = 2\nz = 3", "new", "markdown: # Title"]);
  });

  it("does not put code in its own cell's place", () => {
    const output = document.createElement("div");
    desk.cells[0]!.node.append(output);
    const host = desk.notebook.host(output);
    host.replaceCell("gone");
    expect(desk.sources[0]).toBe("x = 1");
    host.insertBelow("new");
    expect(desk.sources[1]).toBe("new");
  });
});

describe("Code of an answer", () => {
  it("goes below the active cell, and is active then", () => {
    const host = desk.notebook.host(null);
    host.insertBelow("one\n", "python");
    host.insertBelow("# Two", "markdown");
    expect(desk.sources).toEqual(["x = 1", "one", "markdown: # Two", "y = 2\nz = 3", "markdown: # Title"]);
    expect(desk.active).toBe("# Two");
  });

  it("takes the place of the active cell, whose kind it may change", () => {
    const host = desk.notebook.host(null);
    host.replaceCell("one");
    expect(desk.sources[0]).toBe("one");
    host.replaceCell("# One", "markdown");
    expect(desk.sources).toEqual(["markdown: # One", "y = 2\nz = 3", "markdown: # Title"]);
  });

  it("runs where it was put, although the user goes on", async () => {
    desk.notebook.host(null).runCode("one");
    desk.go(3);
    await vi.waitFor(() => expect(desk.ran).toEqual(["one"]));
  });

  it("changes nothing in a notebook that is read-only", () => {
    desk.isReadOnly = true;
    const host = desk.notebook.host(null);
    expect(host.canEdit).toBe(false);
    host.insertBelow("one");
    host.replaceCell("one");
    host.runCode("one");
    expect(desk.sources).toHaveLength(3);
    expect(desk.sources[0]).toBe("x = 1");
  });
});

describe("Cells by name", () => {
  it("have the labels that the page shows; tools name them by id or index", () => {
    const host = desk.notebook.host(null);
    expect(["a", "1", "m", "gone", "9"].map((name) => host.cellLabel(name))).toEqual(["In [1]", "In [2]", "cell 3", null, null]);
    expect(host.revealCell("2")).toBe(true);
    expect(desk.active).toBe("# Title");
    expect(host.revealCell("gone")).toBe(false);
  });

  it("are found for mentions by label, text and error", () => {
    desk = new Desk(new FakeCell("a", "import pandas", { count: 1 }), new FakeCell("b", "q", { count: 2, outputs: [error("NameError", "no q")] }));
    const found = (query: string): readonly string[] => desk.notebook.host(null).mentions(query).map(({ kind, cell, label }) => `${kind} ${cell} ${label}`);
    expect(found("")).toEqual(["cell a In [1]", "error b In [2]", "cell b In [2]"]);
    expect(found("in[2")).toEqual(["error b In [2]", "cell b In [2]"]);
    expect(found("pandas")).toEqual(["cell a In [1]"]);
    expect(found("error")).toEqual(["error b In [2]"]);
    expect(found("xyz")).toEqual([]);
  });
});

describe("A chat", () => {
  it("hears once of many changes, and no more after it has left", async () => {
    vi.useFakeTimers();
    const changed = vi.fn();
    const stop = desk.notebook.subscribe(changed);
    for (let index = 0; index < 10; index += 1) desk.changed.emit();
    await vi.advanceTimersByTimeAsync(500);
    expect(changed).toHaveBeenCalledTimes(1);
    stop();
    desk.changed.emit();
    await vi.advanceTimersByTimeAsync(500);
    expect(changed).toHaveBeenCalledTimes(1);
    vi.useRealTimers();
  });
});

describe("A change that the server asks the page to make", () => {
  const change = (action: string, more: object = {}): Parameters<typeof make>[1] => ({ action, cell: null, source: "", expected: null, after: null, newCell: null, ...more });
  const newCell = { id: "n", cell_type: "code", source: "new" };

  it("is made in what the page shows, and the cell is reported", () => {
    desk.cells[0]!.source = "not saved";
    expect(make(desk.panel(), change("edit", { cell: "b", source: "two", expected: "y = 2\nz = 3" }))).toEqual({ id: "b", index: 1, type: "code", source: "two" });
    expect(make(desk.panel(), change("insert", { newCell }))).toMatchObject({ index: 3, source: "new" });
    expect(make(desk.panel(), change("insert", { newCell, after: "start" }))).toMatchObject({ index: 0 });
    expect(make(desk.panel(), change("delete", { cell: "2" }))).toEqual({ id: "b", index: 2, type: "code", source: "two" });
    expect(desk.sources).toEqual(["new", "not saved", "markdown: # Title", "new"]);
    expect(make(desk.panel(), change("save"))).toBeNull();
  });

  it("is refused where the user has changed the cell, or it is not there", () => {
    expect(make(desk.panel(), change("edit", { cell: "a", source: "1", expected: "0" }))).toBe("changed");
    expect(make(desk.panel(), change("delete", { cell: "gone" }))).toBe("not_found");
    expect(make(desk.panel(), change("insert", { newCell, after: "gone" }))).toBe("not_found");
    expect(desk.sources).toHaveLength(3);
  });
});
