/** The recalls that are offered under an answer: when Navi is to come back to what it was about. */

import { html, render } from "lit";
import type { NotebookJob } from "../../protocol/generated.js";
import { keepKey } from "../lib/keyboard-guard.js";
import { strings } from "../lib/strings.js";
import { clockTime } from "../lib/time.js";
import css from "../../style/remind.css";
import { addStyle } from "../../style/install.js";

addStyle(css);

/** What the form of a new recall begins with. */
export interface RecallDraft {
  readonly message: string;
  /** Words that the server reads, so English in every language of the page; empty: to be written. */
  readonly when: string;
  /** The notebook that is to be run instead of the message. */
  readonly job?: NotebookDraft;
}

/** What a job begins with. */
export interface NotebookDraft {
  readonly path: string;
  readonly parameters?: NotebookJob["parameters"];
}

const LONGEST = 1_000;

interface Choice {
  readonly name: string;
  readonly label: string;
  readonly when: string;
}

/** What can be chosen, as of `now`. */
export function choices(now: Date): readonly Choice[] {
  const two = (value: number): string => String(value).padStart(2, "0");
  return [
    { name: "soon", label: strings.remindSoon, when: "in 10 minutes" },
    { name: "hour", label: strings.remindHour, when: "in 1 hour" },
    { name: "tomorrow", label: strings.remindTomorrow, when: "tomorrow at 9:00" },
    { name: "daily", label: strings.remindDaily(clockTime(now)), when: `every day at ${two(now.getHours())}:${two(now.getMinutes())}` },
    { name: "cell", label: strings.remindCell, when: "when the cell is done" },
    { name: "custom", label: strings.remindCustom, when: "" },
  ];
}

/** The message of a recall from the prompt that an answer was given to. */
export function againMessage(prompt: string): string {
  const text = prompt.trim();
  const known = strings.remindMessage("");
  return (text.startsWith(known) ? text : strings.remindMessage(text)).slice(0, LONGEST);
}

/**
 * Opens the menu beside a button, or closes it there. `choose` gets what the form is to begin with. The menu is no part
 * of the conversation's templates: an answer that is complete is not drawn again.
 */
export function toggleRemindMenu(button: HTMLElement, prompt: string, choose: (draft: RecallDraft) => void): void {
  if (button.getAttribute("aria-expanded") === "true") open?.close(false);
  else open = new RemindMenu(button, prompt, choose);
}

let open: RemindMenu | null = null;

class RemindMenu {
  readonly #button: HTMLElement;
  readonly #menu = document.createElement("div");
  readonly #choose: (draft: RecallDraft) => void;

  constructor(button: HTMLElement, prompt: string, choose: (draft: RecallDraft) => void) {
    open?.close(false);
    this.#button = button;
    this.#choose = choose;
    const menu = this.#menu;
    menu.className = "navi-remind-menu";
    menu.dataset["navi"] = "remind-menu";
    menu.setAttribute("role", "menu");
    menu.setAttribute("aria-label", strings.remindMenu);
    const message = againMessage(prompt);
    render(
      choices(new Date()).map(({ name, label, when }) => html`<button type="button" role="menuitem" tabindex="-1" data-navi="remind-item" data-when=${name} @click=${() => this.#pick({ message, when })}>${label}</button>`),
      menu,
    );
    menu.addEventListener("keydown", this.#keydown);
    menu.addEventListener("focusout", this.#left);
    button.setAttribute("aria-haspopup", "menu");
    button.setAttribute("aria-expanded", "true");
    // Below all buttons of the answer: nothing is covered, however narrow the view.
    (button.parentElement ?? button).append(menu);
    document.addEventListener("pointerdown", this.#pressed, true);
    this.#items[0]?.focus({ preventScroll: true });
    menu.scrollIntoView?.({ block: "nearest" });
  }

  close(giveBack: boolean): void {
    document.removeEventListener("pointerdown", this.#pressed, true);
    this.#menu.removeEventListener("focusout", this.#left);
    this.#menu.remove();
    this.#button.setAttribute("aria-expanded", "false");
    if (giveBack) this.#button.focus({ preventScroll: true });
    if (open === this) open = null;
  }

  get #items(): HTMLElement[] {
    return [...this.#menu.querySelectorAll<HTMLElement>("[role=menuitem]")];
  }

  #pick(draft: RecallDraft): void {
    this.close(true); // the form gives the focus back to where it was
    this.#choose(draft);
  }

  readonly #pressed = ({ target }: Event): void => {
    if (target instanceof Node && !this.#menu.contains(target) && !this.#button.contains(target)) this.close(false);
  };

  readonly #left = ({ relatedTarget }: FocusEvent): void => {
    if (relatedTarget instanceof Node && !this.#menu.contains(relatedTarget) && relatedTarget !== this.#button) this.close(false);
  };

  readonly #keydown = (event: KeyboardEvent): void => {
    keepKey(event);
    const items = this.#items;
    const at = items.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (to !== undefined) items.at(to % items.length)?.focus();
    else if (event.key === "Escape") this.close(true);
    else return;
    event.preventDefault();
  };
}
