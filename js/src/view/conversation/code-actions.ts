/** What can be done with a block of code in an answer: the buttons in its bar. Copying is always there; features add theirs. */

import { copyCode } from "../lib/copy.js";

export interface CodeBlock {
  readonly code: string;
  /** As the fence names it, in lower case; empty where it does not. */
  readonly language: string;
}

export interface CodeAction {
  /** Its `data-navi`, unique among these. */
  readonly name: string;
  /** The text of its button. */
  text(): string;
  /** What it does, as the name of its button. */
  label(block: CodeBlock): string;
  applies(block: CodeBlock): boolean;
  run(block: CodeBlock, button: HTMLElement): void;
}

export class CodeActions {
  readonly #changed: () => void;
  readonly #all: CodeAction[] = [];

  /** `changed`: every block has to be drawn anew. */
  constructor(changed: () => void) {
    this.#changed = changed;
  }

  /** Those that are added first stand first; all stand before the copy button. */
  add(action: CodeAction): void {
    this.#all.push(action);
    this.#changed();
  }

  /** What `applies` goes by is another: the host page can do more, or less. */
  refresh(): void {
    this.#changed();
  }

  /** The buttons for a block that is being drawn. */
  readonly buttons = (block: CodeBlock): readonly HTMLButtonElement[] =>
    this.#all
      .filter((action) => action.applies(block))
      .map((action) => {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "navi-copy";
        button.dataset["navi"] = action.name;
        button.dataset["codeAction"] = action.name;
        button.setAttribute("aria-label", action.label(block));
        button.textContent = action.text();
        return button;
      });

  /** Does what was pressed, if that is one of these: the buttons are made of text, and have no listeners of their own. */
  readonly clicked = (event: Event): void => {
    const button = event.target instanceof Element ? event.target.closest<HTMLButtonElement>(".navi-code-bar button") : null;
    if (!button) return;
    if (button.dataset["navi"] === "copy") return void copyCode(button);
    this.#all.find(({ name }) => name === button.dataset["codeAction"])?.run(blockAround(button), button);
  };
}

function blockAround(button: Element): CodeBlock {
  const frame = button.closest(".navi-code-frame");
  return { code: frame?.querySelector("code")?.textContent ?? "", language: frame?.querySelector(".navi-code-bar > span")?.textContent ?? "" };
}
