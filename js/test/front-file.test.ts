import { describe, expect, it, vi } from "vitest";
import { FrontFile, type FileTracker, type FileWidget } from "../src/lab/front-file.js";
import type { ClientNotebook } from "../src/protocol/generated.js";
import type { NotebookHost } from "../src/view/host.js";

const NOTEBOOK = { path: "a.ipynb", cells: [], active: null, selection: null, error: null, unsaved: false } satisfies ClientNotebook;

function notebookHost(): NotebookHost {
  return {
    path: "a.ipynb",
    canEdit: true,
    context: vi.fn(() => NOTEBOOK),
    summary: () => ({ path: "a.ipynb", cell: "In [1]", hasSelection: false, error: null, unsaved: false }),
    subscribe: () => () => undefined,
    cellLabel: () => "In [1]",
    revealCell: () => true,
    mentions: () => [],
    canRun: () => true,
    insertBelow: vi.fn(),
    replaceCell: vi.fn(),
    runCode: vi.fn(),
  };
}

function desk(selected: [number, number]): { front: FrontFile; shell: { currentWidget: unknown }; file: FileWidget } {
  const source = "def f():\n    return 1\n";
  const editor = { getSelection: () => ({ start: { line: 0, column: selected[0] }, end: { line: 0, column: selected[1] } }), getOffsetAt: ({ column }: { column: number }) => column };
  const context = { path: "RTC:src/model.py", model: { dirty: true, sharedModel: { getSource: () => source } } };
  const file = { node: document.createElement("div"), isDisposed: false, context, content: { editor } } as unknown as FileWidget;
  const signal = { connect: () => undefined, disconnect: () => undefined };
  const tracker = { currentWidget: file, widgetAdded: signal, forEach: (visit) => visit(file) } satisfies FileTracker;
  const shell = { currentWidget: file as unknown };
  return { front: new FrontFile(tracker, shell), shell, file };
}

describe("A file in front of the page", () => {
  it("goes along with its path and what is selected, in the place of the notebook behind it", () => {
    const { front, shell } = desk([8, 4]);
    const notebook = notebookHost();
    const host = front.host(notebook);
    expect(host.summary()).toEqual({ path: "src/model.py", cell: null, hasSelection: true, error: null, unsaved: true });
    expect(host.context()).toEqual({ path: "src/model.py", cells: null, active: null, selection: { cell: null, text: "f():" }, error: null, unsaved: true });
    expect(host.context("c1")).toBe(NOTEBOOK); // a question about a cell is one
    host.insertBelow("1", "python");
    expect(notebook.insertBelow).toHaveBeenCalledWith("1", "python");
    shell.currentWidget = null;
    expect(host.context()).toBe(NOTEBOOK);
  });

  it("is all that goes along where no notebook is open, and no code of an answer goes anywhere", () => {
    const { front, shell } = desk([0, 0]);
    const host = front.host(null);
    expect(host.context()).toMatchObject({ path: "src/model.py", selection: null });
    expect([host.canEdit, host.canRun("python"), host.path]).toEqual([false, false, ""]);
    shell.currentWidget = {};
    expect([host.context(), host.summary()]).toEqual([null, null]);
  });

  it("tells a chat when what is selected may be another", async () => {
    vi.useFakeTimers();
    const { front, file } = desk([0, 3]);
    const changed = vi.fn();
    const end = front.host(null).subscribe(changed);
    file.node.dispatchEvent(new Event("keyup"));
    file.node.dispatchEvent(new Event("pointerup"));
    await vi.advanceTimersByTimeAsync(200);
    expect(changed).toHaveBeenCalledOnce();
    end();
    file.node.dispatchEvent(new Event("keyup"));
    await vi.advanceTimersByTimeAsync(200);
    expect(changed).toHaveBeenCalledOnce();
    vi.useRealTimers();
  });
});
