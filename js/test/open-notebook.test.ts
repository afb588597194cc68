import { describe, expect, it } from "vitest";
import { OpenNotebook, carryId, setText, type Contents, type FileCell, type NotebookContext, type SharedCell } from "../src/lab/open-notebook.js";

/** A page with a notebook, and its file. */
class Desk {
  file: FileCell[];
  modified = 1;
  /** The version that the page has. */
  loaded = 1;
  cells: (SharedCell & { source: string; outputs: readonly unknown[] })[];
  told: number[] = [];
  isCollaborative = false;
  isDirty = false;
  slots: ((sender: unknown, args: unknown) => void)[] = [];
  onSave: (sender: unknown, state: string) => void = () => undefined;
  readonly notebook: OpenNotebook;

  constructor(...cells: FileCell[]) {
    this.file = cells;
    this.cells = cells.map(shared);
    this.notebook = new OpenNotebook(this.context(), this.contents());
  }

  contents(): Contents {
    return {
      get: (_path, { content }) =>
        Promise.resolve({ last_modified: String(this.modified), content: content ? { cells: structuredClone(this.file) } : null }),
    };
  }

  context(): NotebookContext {
    const desk = this;
    return {
      path: "a.ipynb",
      isDisposed: false,
      get contentsModel() {
        return { last_modified: String(desk.loaded) };
      },
      saveState: { connect: (slot) => (this.onSave = slot), disconnect: () => undefined },
      fileChanged: { connect: (slot) => this.slots.push(slot), disconnect: (slot) => (this.slots = this.slots.filter((one) => one !== slot)) },
      model: {
        get collaborative() {
          return desk.isCollaborative;
        },
        get dirty() {
          return desk.isDirty;
        },
        set dirty(is) {
          desk.isDirty = is;
        },
        sharedModel: {
          get cells() {
            return desk.cells;
          },
          insertCell: (index, cell) => desk.cells.splice(index, 0, shared(cell)),
          deleteCell: (index) => desk.cells.splice(index, 1),
          transact: (change) => {
            desk.isDirty = true;
            change();
          },
        },
      },
      _updateContentsModel: ({ last_modified: at }) => {
        this.told.push((this.loaded = Number(at)));
        for (const slot of this.slots) slot(null, null);
      },
    };
  }

  /** The agent saves. */
  async saves(...cells: FileCell[]): Promise<void> {
    this.file = cells;
    this.modified += 1;
    await this.notebook.refresh();
  }

  types(id: string, source: string): void {
    this.cells.find((cell) => cell.getId() === id)?.setSource(source);
    this.isDirty = true;
  }

  /** The user saves, as JupyterLab does it. `meanwhile` happens before the answer is there, `then` right after the file is written. */
  async userSaves(meanwhile: () => void, then: () => void = () => undefined): Promise<void> {
    this.onSave(null, "started");
    this.file = this.cells.map((cell) => ({ id: cell.getId(), cell_type: "code", source: cell.source, outputs: [...cell.outputs] }));
    this.loaded = this.modified += 1;
    meanwhile();
    then();
    this.isDirty = false;
    for (const slot of this.slots) slot(null, null);
    this.onSave(null, "completed");
    await this.notebook.refresh();
  }

  get shown(): Record<string, string> {
    return Object.fromEntries(this.cells.map((cell) => [cell.getId(), cell.source]));
  }
}

function shared({ id = "", source, outputs = [], cell_type }: FileCell): Desk["cells"][number] {
  return {
    cell_type,
    source: String(source),
    outputs,
    getId: () => id,
    getSource() {
      return this.source;
    },
    setSource(text) {
      this.source = text;
    },
    setOutputs(all) {
      this.outputs = all;
    },
  };
}

const code = (id: string, source: string, ...outputs: unknown[]): FileCell => ({ id, cell_type: "code", source, outputs });

describe("A notebook that is open without collaboration", () => {
  it("shows what the agent changed, and is as saved as it was", async () => {
    const desk = new Desk(code("a", "1"), code("b", "2"), code("c", "3"));
    await desk.saves(code("a", "1", { output_type: "stream", text: "x" }), code("new", "n"), code("b", "two"));
    expect(desk.shown).toEqual({ a: "1", new: "n", b: "two" });
    expect(desk.cells[0]?.outputs).toHaveLength(1);
    expect(desk.told).toEqual([2]);
    expect(desk.isDirty).toBe(false);
  });

  it("keeps what the user has not saved", async () => {
    const desk = new Desk(code("a", "1"), code("b", "2"));
    await desk.notebook.refresh();
    desk.types("a", "mine");
    await desk.saves(code("a", "1"), code("b", "two"));
    expect(desk.shown).toEqual({ a: "mine", b: "two" });
    expect(desk.told).toEqual([2]);
    expect(desk.isDirty).toBe(true);
  });

  it("leaves a cell alone that both have changed, and lets JupyterLab ask", async () => {
    const desk = new Desk(code("a", "1"), code("b", "2"));
    await desk.notebook.refresh();
    desk.types("a", "mine");
    await desk.saves(code("a", "theirs"), code("b", "two"));
    expect(desk.shown).toEqual({ a: "mine", b: "two" });
    expect(desk.told).toEqual([]);
  });

  it("takes for unsaved what is written while a save is under way", async () => {
    const desk = new Desk(code("a", "1"), code("b", "2"));
    await desk.notebook.refresh();
    await desk.userSaves(() => desk.types("a", "while it was saved"));
    expect(desk.isDirty).toBe(true);
    await desk.saves(code("a", "theirs"), code("b", "2"));
    expect(desk.shown).toEqual({ a: "while it was saved", b: "2" });
    desk.cells[0]?.setSource("1");
    await desk.userSaves(() => undefined);
    expect(desk.isDirty).toBe(false);
  });

  it("brings over what is changed between a save and the answer to it", async () => {
    const desk = new Desk(code("a", "1"), code("b", "2"));
    await desk.notebook.refresh();
    desk.types("b", "mine");
    const theirs = (): void => {
      desk.file = [code("a", "theirs"), code("b", "mine")];
      desk.modified += 1;
    };
    await desk.userSaves(() => undefined, theirs);
    expect(desk.shown).toEqual({ a: "theirs", b: "mine" });
    expect(desk.isDirty).toBe(false);
  });

  it("does not delete what the user is writing on, and does not bring back what they deleted", async () => {
    const desk = new Desk(code("a", "1"), code("b", "2"));
    await desk.notebook.refresh();
    desk.types("a", "mine");
    desk.cells.splice(1, 1);
    await desk.saves(code("b", "2"));
    expect(desk.shown).toEqual({ a: "mine" });
    expect(desk.told).toEqual([]);
  });

  it("changes nothing where cells have no ids, or where collaboration does it", async () => {
    const old = new Desk({ cell_type: "code", source: "1" });
    await old.saves({ id: "x", cell_type: "code", source: "2" });
    expect(old.cells.map(({ source }) => source)).toEqual(["1"]);
    const together = new Desk(code("a", "1"));
    together.isCollaborative = true;
    await together.saves(code("a", "2"));
    expect(together.shown).toEqual({ a: "1" });
  });

  it("knows the file anew after it was saved", async () => {
    const desk = new Desk(code("a", "1"));
    await desk.notebook.refresh();
    desk.types("a", "mine");
    desk.file = [code("a", "mine")];
    desk.modified = desk.loaded = 2;
    for (const slot of desk.slots) slot(null, null);
    await desk.notebook.refresh();
    await desk.saves(code("a", "theirs"));
    expect(desk.shown).toEqual({ a: "theirs" });
  });

  it("takes what was saved before it could look for what the page does not have", async () => {
    const desk = new Desk(code("a", "1"));
    desk.file = [code("a", "theirs")];
    desk.modified = 2; // and the page has 1 still
    for (const slot of desk.slots) slot(null, null);
    await desk.saves(code("a", "theirs"), code("b", "2"));
    expect(desk.shown).toEqual({ a: "1" });
    expect(desk.told).toEqual([]);
  });
});

describe("the id of the session", () => {
  function page(navi: unknown, isCollaborative = false): { context: NotebookContext; set: unknown[] } {
    const set: unknown[] = [];
    const context = new Desk().context();
    Object.assign(context.model.sharedModel, {
      getMetadata: () => navi,
      setMetadata: (key: string, value: unknown) => set.push([key, value]),
    });
    return { context: isCollaborative ? { ...context, model: { ...context.model, collaborative: true, dirty: false } } : context, set };
  }

  it("goes into the page, beside what is there", async () => {
    const { context, set } = page({ note: "kept", session_id: "s_original" });
    await carryId(context, () => Promise.resolve("s_1"));
    expect(set).toEqual([["navi", { note: "kept", session_id: "s_1" }]]);
  });

  it("changes nothing where it is there, where there is none, and in a shared document", async () => {
    for (const [navi, id, isCollaborative] of [[{ session_id: "s_1" }, "s_1", false], [undefined, null, false], [undefined, "s_1", true]] as const) {
      const { context, set } = page(navi, isCollaborative);
      await carryId(context, () => Promise.resolve(id));
      expect(set).toEqual([]);
    }
  });
});

describe("A cell that both have changed", () => {
  it("is a conflict still when the file is looked at again: JupyterLab asks before one is written over", async () => {
    const desk = new Desk(code("a", "1"), code("b", "2"));
    await desk.notebook.refresh();
    desk.types("a", "mine");
    await desk.saves(code("a", "theirs"), code("b", "two"));
    await desk.notebook.refresh();
    expect(desk.shown).toEqual({ a: "mine", b: "two" });
    expect(desk.told).toEqual([]);
  });

  it("is said to whoever asks whether the page has all of the file", async () => {
    const desk = new Desk(code("a", "1"), code("b", "2"));
    expect(await desk.notebook.refresh()).toBe(true);
    desk.types("b", "mine");
    desk.file = [code("a", "theirs"), code("b", "2")];
    desk.modified += 1;
    expect(await desk.notebook.refresh()).toBe(true);
    desk.file = [code("a", "theirs"), code("b", "theirs")];
    desk.modified += 1;
    expect(await desk.notebook.refresh()).toBe(false);
    expect(await desk.notebook.refresh()).toBe(false);
  });
});

describe("A source that is another now", () => {
  it.each([
    ["x = 1\ny = 2", "x = 1\ny = 20", [11, 11, "0"]],
    ["abc", "ac", [1, 2, ""]],
    ["aaa", "aa", [2, 3, ""]],
    ["", "new", [0, 0, "new"]],
    ["a😀b", "a😁b", [1, 3, "😁"]],
    ["same", "same", null],
  ])("is changed where it is different alone: %j, %j", (before, after, expected) => {
    let text = before;
    const done: unknown[] = [];
    const updateSource = (start: number, end: number, middle: string): void => {
      done.push([start, end, middle]);
      text = text.slice(0, start) + middle + text.slice(end);
    };
    setText({ getSource: () => text, setSource: () => done.push("all"), updateSource }, after);
    expect(text).toBe(after);
    expect(done).toEqual(expected === null ? [] : [expected]);
  });
});
