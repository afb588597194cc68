/**
 * "When this cell is done": a recall for one cell, from the cell's menu, the command palette, and a button at a cell that
 * has run for some seconds.
 *
 * Not responsible for noticing that it is done: the server does, with every page closed.
 */

import { texts } from "./texts.js";

/** A cell that has run for so long gets a button. Milliseconds. */
const LONG = 5_000;
const LOOK_EVERY = 1_000;
const LONGEST_LINE = 80;

/** What we use of a cell of JupyterLab's. */
export interface NotebookCell {
  readonly node: HTMLElement;
  readonly model: {
    readonly id: string;
    readonly type: string;
    /** "running" from the moment that it is sent to the kernel; older versions have none. */
    readonly executionState?: string;
    readonly executionCount?: number | null;
    readonly sharedModel: { getSource(): string };
  };
}

/** What we use of an open notebook. */
export interface CellsPanel {
  readonly isDisposed: boolean;
  readonly context: { readonly path: string };
  readonly content: { readonly widgets: readonly NotebookCell[]; readonly activeCell: NotebookCell | null };
  readonly sessionContext?: { readonly session: { readonly kernel: { readonly id: string } | null } | null };
}

export interface CellRecallServer {
  /** The session of the notebook at a path; made where it has none. */
  session(path: string): Promise<string>;
  /** Makes a recall; the answer is its id. Rejects with what was wrong. */
  create(recall: object): Promise<string>;
  cancel(recallId: string): Promise<void>;
}

export interface Notices {
  success(text: string, undo: () => void): void;
  error(text: string): void;
}

/** Since when each cell of a notebook is seen to run, in milliseconds. */
type Running = Map<NotebookCell, number>;

export class CellRecalls {
  readonly #server: CellRecallServer;
  readonly #notices: Notices;
  readonly #running = new WeakMap<CellsPanel, Running>();
  readonly #buttons = new WeakMap<NotebookCell, HTMLElement>();
  /** The cells that a recall waits for, until they are done. */
  readonly #awaited = new WeakSet<NotebookCell>();

  constructor(server: CellRecallServer, notices: Notices) {
    this.#server = server;
    this.#notices = notices;
  }

  /** Looks at the notebook in front now and then. */
  watch(current: () => CellsPanel | null): void {
    setInterval(() => {
      const panel = document.hidden ? null : current();
      if (panel && !panel.isDisposed) this.look(panel, performance.now());
    }, LOOK_EVERY);
  }

  /** Gives a button to each cell that runs for long, and takes it from those that do not run any more. */
  look(panel: CellsPanel, now: number): void {
    const running = this.#running.get(panel) ?? new Map<NotebookCell, number>();
    this.#running.set(panel, running);
    const cells = panel.content.widgets.filter(isRunning);
    for (const cell of [...running.keys()].filter((each) => !cells.includes(each))) {
      running.delete(cell);
      this.#awaited.delete(cell);
      this.#buttons.get(cell)?.remove();
      this.#buttons.delete(cell);
    }
    for (const cell of cells) {
      const since = running.get(cell);
      if (since === undefined) running.set(cell, now);
      else if (now - since >= LONG && !this.#buttons.get(cell)?.isConnected) this.#addButton(panel, cell);
    }
  }

  async create(panel: CellsPanel, cell: NotebookCell): Promise<void> {
    const label = labelOf(cell);
    const line = firstLine(cell);
    try {
      const session = await this.#server.session(panel.context.path);
      const id = await this.#server.create({
        session_id: session,
        title: texts.cellTitle(label, line),
        message: texts.cellMessage(label, line),
        schedule: this.#schedule(panel, cell),
      });
      this.#awaited.add(cell);
      this.#mark(cell);
      const undo = (): void => {
        this.#awaited.delete(cell);
        this.#mark(cell);
        this.#server.cancel(id).catch((problem: unknown) => this.#notices.error(texts.cellProblem(why(problem))));
      };
      this.#notices.success(texts.cellWaits(label), undo);
    } catch (problem) {
      this.#notices.error(texts.cellProblem(why(problem)));
    }
  }

  /** A cell that runs is the one that the kernel executes, if no other has waited for longer: what runs has no name there. */
  #schedule(panel: CellsPanel, cell: NotebookCell): object {
    const [first] = this.#running.get(panel)?.keys() ?? [];
    const isFirst = first === undefined ? panel.content.widgets.find(isRunning) === cell : first === cell;
    const kernel = panel.sessionContext?.session?.kernel?.id;
    return {
      kind: "when",
      event: "cell_done",
      cell: isRunning(cell) && isFirst ? "running" : cell.model.id,
      ...(kernel === undefined ? {} : { kernel_id: kernel }),
    };
  }

  #addButton(panel: CellsPanel, cell: NotebookCell): void {
    const bar = document.createElement("div");
    bar.className = "navi-cell-recall";
    const button = document.createElement("button");
    button.type = "button";
    button.dataset["navi"] = "cell-when-done";
    button.addEventListener("click", () => void this.create(panel, cell));
    bar.append(button);
    cell.node.append(bar);
    this.#buttons.set(cell, bar);
    this.#mark(cell);
  }

  /** What the button of a cell says. */
  #mark(cell: NotebookCell): void {
    const button = this.#buttons.get(cell)?.querySelector("button");
    if (!button) return;
    const isAwaited = this.#awaited.has(cell);
    button.textContent = isAwaited ? texts.cellWaits(labelOf(cell)) : texts.cellWhenDoneShort;
    button.disabled = isAwaited;
  }
}

function isRunning({ model, node }: NotebookCell): boolean {
  if (model.type !== "code") return false;
  if (model.executionState !== undefined) return model.executionState === "running";
  return node.querySelector(".jp-InputArea-prompt")?.textContent?.includes("*") ?? false;
}

/** "In [3]"; a cell that runs has no number yet. */
function labelOf({ model }: NotebookCell): string {
  const count = model.executionCount;
  return typeof count === "number" ? texts.cellNumber(count) : texts.cellThis;
}

/** What the cell does, by its first line that does something. */
function firstLine({ model }: NotebookCell): string {
  const lines = model.sharedModel.getSource().split("\n").filter((each) => each.trim() && !each.trim().startsWith("#"));
  const line = lines.find((each) => !/^\s*(?:import|from)\s/.test(each)) ?? lines[0] ?? "";
  return line.trim().slice(0, LONGEST_LINE);
}

function why(problem: unknown): string {
  return problem instanceof Error ? problem.message : String(problem);
}
