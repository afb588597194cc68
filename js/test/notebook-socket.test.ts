import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ChannelListener } from "../src/connection/transport.js";
import { NotebookSocket, type NotebookMessages } from "../src/lab/notebook-socket.js";
import type { NotebookTracker, Panel } from "../src/lab/notebook-types.js";

class Slots {
  readonly #slots: ((sender: unknown, args: unknown) => void)[] = [];
  readonly connect = (slot: (sender: unknown, args: unknown) => void): number => this.#slots.push(slot);
  readonly disconnect = (): void => undefined;
  emit(args?: unknown): void {
    for (const slot of this.#slots) slot(this, args);
  }
}

class Desk {
  readonly panels: Panel[] = [];
  readonly added = new Slots();
  readonly messages = { requested: vi.fn(), changed: vi.fn(), reconnected: vi.fn() } satisfies NotebookMessages;
  readonly sent: unknown[] = [];
  server: ChannelListener | null = null;
  connects = 0;

  constructor() {
    const tracker = { currentWidget: null, widgetAdded: this.added, forEach: (visit: (panel: Panel) => void) => this.panels.forEach(visit) };
    new NotebookSocket((listener) => {
      this.server = listener;
      this.connects += 1;
      return { send: (text) => this.sent.push(JSON.parse(text)), close: () => undefined };
    }, this.messages).follow(tracker as unknown as NotebookTracker);
  }

  async open(path: string): Promise<{ type: () => void; save: () => void; close: () => void; move: (to: string) => void }> {
    const [state, disposed, moved] = [new Slots(), new Slots(), new Slots()];
    const model = { dirty: false, stateChanged: state };
    const context = { path, model, ready: Promise.resolve(), pathChanged: moved };
    const panel = { isDisposed: false, disposed, context, content: { model } };
    this.panels.push(panel as unknown as Panel);
    this.added.emit(panel);
    await vi.advanceTimersByTimeAsync(50);
    const become = (dirty: boolean): void => {
      model.dirty = dirty;
      state.emit();
    };
    return { type: () => become(true), save: () => become(false), close: () => disposed.emit(), move: (to) => ((context.path = to), moved.emit()) };
  }
}

const later = (milliseconds: number): Promise<unknown> => vi.advanceTimersByTimeAsync(milliseconds);

describe("The connection of a page about its notebooks", () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  it("begins with the first notebook, and says which are shown and which of them are not saved", async () => {
    const desk = new Desk();
    await later(100);
    expect(desk.connects).toBe(0);
    const one = await desk.open("RTC:work/a.ipynb");
    const other = await desk.open("b.ipynb");
    expect(desk.connects).toBe(1);
    desk.server?.opened();
    one.type();
    one.type();
    await later(50);
    other.move("c.ipynb");
    one.save();
    await later(50);
    one.close();
    await later(50);
    const list = (...notebooks: [string, boolean][]): object => ({ notebooks: notebooks.map(([path, unsaved]) => ({ path, unsaved })) });
    expect(desk.sent).toEqual([
      list(["work/a.ipynb", false], ["b.ipynb", false]),
      list(["work/a.ipynb", true], ["b.ipynb", false]),
      list(["work/a.ipynb", false], ["c.ipynb", false]),
      list(["c.ipynb", false]),
    ]);
  });

  it("hears what the server asks and reports, and ignores what it does not know", async () => {
    const desk = new Desk();
    await desk.open("a.ipynb");
    desk.server?.opened();
    const say = (message: unknown): void => desk.server?.frame(typeof message === "string" ? message : JSON.stringify(message));
    say({ type: "requested", session_id: "s", request_id: "n", path: "a.ipynb" });
    say({ type: "changed", session_id: "s", path: "a.ipynb" });
    say({ type: "later", session_id: "s", path: "a.ipynb" });
    say("no JSON");
    say([1]);
    expect(desk.messages.requested.mock.calls).toEqual([[{ session: "s", request: "n", path: "a.ipynb" }]]);
    expect(desk.messages.changed.mock.calls).toEqual([["a.ipynb", "s"]]);
  });

  it("connects again with growing pauses, at once when the network is back, and looks at what it has missed", async () => {
    const desk = new Desk();
    await desk.open("a.ipynb");
    desk.server?.opened();
    expect(desk.messages.reconnected).not.toHaveBeenCalled();
    for (const pause of [1_300, 2_600, 5_200]) {
      desk.server?.closed(1006, "");
      await later(pause / 2 - 100);
      const before = desk.connects;
      await later(pause);
      expect(desk.connects).toBe(before + 1);
    }
    desk.server?.closed(1006, "");
    const before = desk.connects;
    window.dispatchEvent(new Event("online"));
    expect(desk.connects).toBe(before + 1);
    desk.server?.opened();
    expect(desk.messages.reconnected).toHaveBeenCalledOnce();
    expect(desk.sent).toHaveLength(2); // the whole list again
  });
});
