/**
 * *Explain* and *Fix* below the error of a cell, in every open notebook: for cells that fail later, and for those that
 * show an error when they are opened. One press opens the chat and sends a prompt, with the error as its context.
 */

import type { NaviChat } from "../view/chat-element.js";
import type { CellWidget, NotebookTracker, OutputsModel, Panel } from "./notebook-types.js";
import { hasError } from "./output-text.js";
import { pageNotebook } from "./page-context.js";
import { texts } from "./texts.js";

/** Opens the chat of a notebook, and puts the focus there. Null: it could not be opened. */
export type OpenChat = (panel: Panel) => Promise<NaviChat | null>;

/** Milliseconds after a change of a cell's outputs; a cell may print without end. */
const PAUSE = 100;

export function drawErrorActions(tracker: NotebookTracker, open: OpenChat): void {
  const draw = (panel: Panel): void => void new ErrorActions(panel, open);
  tracker.forEach(draw);
  tracker.widgetAdded.connect((_, panel) => draw(panel));
}

class ErrorActions {
  readonly #panel: Panel;
  readonly #open: OpenChat;
  readonly #followed = new WeakSet<OutputsModel>();
  readonly #bars = new Map<string, HTMLElement>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(panel: Panel, open: OpenChat) {
    this.#panel = panel;
    this.#open = open;
    void panel.context.ready.then(() => {
      if (panel.isDisposed) return;
      panel.content.model?.cells.changed.connect(this.#changed);
      this.#draw();
    });
    panel.disposed.connect(() => clearTimeout(this.#timer));
  }

  readonly #changed = (): void => {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#draw();
    }, PAUSE);
  };

  #draw(): void {
    if (this.#panel.isDisposed) return;
    const failed = new Set<string>();
    for (const cell of this.#panel.content.widgets) {
      this.#follow(cell);
      if (!cell.outputArea || !hasError(cell.model)) continue;
      failed.add(cell.model.id);
      let bar = this.#bars.get(cell.model.id);
      if (!bar) this.#bars.set(cell.model.id, (bar = this.#bar(cell.model.id)));
      // At the end: the host puts a new output before the node that stands in its place.
      if (bar.parentElement !== cell.outputArea.node || bar.nextSibling) cell.outputArea.node.append(bar);
    }
    for (const [id, bar] of this.#bars) {
      if (failed.has(id)) continue;
      bar.remove();
      this.#bars.delete(id);
    }
  }

  #follow({ model: { outputs } }: CellWidget): void {
    if (!outputs || this.#followed.has(outputs)) return;
    this.#followed.add(outputs);
    outputs.changed.connect(this.#changed);
  }

  #bar(cellId: string): HTMLElement {
    const bar = document.createElement("div");
    bar.className = "navi-error-actions";
    bar.dataset["navi"] = "error-actions";
    bar.dataset["lmSuppressShortcuts"] = "true"; // Enter presses a button, and does not enter the cell
    bar.setAttribute("role", "group");
    bar.setAttribute("aria-label", texts.errorActions);
    bar.append(
      this.#button("explain", texts.explain, texts.explainTitle, () => this.#ask(cellId, texts.explainPrompt)),
      this.#button("fix", texts.fix, texts.fixTitle, () => this.#ask(cellId, texts.fixPrompt)),
    );
    return bar;
  }

  #button(name: string, text: string, title: string, press: () => Promise<void>): HTMLButtonElement {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset["navi"] = name;
    button.textContent = text;
    button.title = title;
    button.addEventListener("click", () => {
      if (button.disabled) return;
      button.disabled = true; // a second press while the chat opens is no second question
      void press()
        .catch((problem: unknown) => console.error("navi:", problem))
        .finally(() => (button.disabled = false));
    });
    return button;
  }

  async #ask(cellId: string, prompt: (cell: string) => string): Promise<void> {
    // Read at once: the page goes on. The chat may be that of another notebook, if it is pinned.
    const host = pageNotebook(this.#panel).host(null);
    const [text, notebook] = [prompt(host.cellLabel(cellId) ?? ""), host.context(cellId)];
    const chat = await this.#open(this.#panel);
    if (!chat) throw new Error(texts.noChat);
    chat.send(text, notebook);
  }
}
