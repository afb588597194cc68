/**
 * Says to screen readers what happens in the conversation, once and as plain text: what is complete, how a run ended,
 * and, before everything else, what a run asks. The conversation itself is no live region: that would be read in pieces,
 * with the marks of Markdown and the names of buttons.
 */

import type { ChatState, Item } from "../../state/model.js";
import { openInterrupts } from "../../state/interrupts.js";
import { firingOf } from "../../state/select.js";
import { plain } from "../recalls/time.js";
import { english, strings, textOf } from "./strings.js";

const LONGEST = 600;
/** Items at the end that can be new at once. */
const NEWEST = 20;

export class Announcer {
  readonly #region: (urgency: "polite" | "assertive") => Element | null;
  #announced = new Set<string>();

  /** `region` answers the live region of the view. */
  constructor(region: (urgency: "polite" | "assertive") => Element | null) {
    this.#region = region;
  }

  reset(): void {
    this.#announced = new Set();
  }

  announce(before: ChatState, after: ChatState): void {
    const status = after.run?.status;
    const works = before.run === null && status ? [strings.working] : status === "starting" && before.run?.status !== status ? [strings.starting] : [];
    if (before.items === after.items && !works.length) return;
    const asked = openInterrupts(after).filter(({ id }) => this.#isNew(id));
    if (asked.length) void import("../conversation/card-parts.js").then(({ spoken }) => this.#say("assertive", asked.map(spoken)), () => undefined);
    const known = new Set(before.items.slice(-2 * NEWEST).filter(isWhole).map(({ id }) => id));
    const said = after.items.slice(-NEWEST).flatMap((item) => {
      if (known.has(item.id) || !isWhole(item) || !this.#isNew(item.id)) return [];
      return [wordsOf(after, item)].filter((text) => text !== "");
    });
    // That work begins is worth a word only while nothing has come of it.
    this.#say("polite", said.length || asked.length ? said : works);
  }

  #isNew(id: string): boolean {
    if (this.#announced.has(id)) return false;
    this.#announced.add(id);
    return true;
  }

  /** Each text is an element of its own: the same words twice are said twice. */
  #say(urgency: "polite" | "assertive", texts: readonly string[]): void {
    if (!texts.length) return;
    const paragraphs = texts.map((text) => {
      const paragraph = document.createElement("p");
      paragraph.dir = "auto";
      paragraph.textContent = text;
      return paragraph;
    });
    this.#region(urgency)?.replaceChildren(...paragraphs);
  }
}

function isWhole(item: Item): boolean {
  return item.kind === "end" || (item.kind === "message" && item.status === "done");
}

/** What is said of an item; empty: nothing. */
function wordsOf(state: ChatState, item: Item): string {
  if (item.kind === "end") {
    const title = item.code === "cancelled" ? strings.endCancelled : (textOf(strings.ends, item.code)?.title ?? strings.endFailed);
    return [title, item.message === textOf(english.ends, item.code)?.title ? "" : item.message].filter(Boolean).join(". ");
  }
  if (item.kind !== "message" || item.subagentId !== null) return "";
  if (item.role === "assistant") return item.text === "" ? "" : strings.announced(shortened(item.text));
  return item.origin.kind === "recall" ? strings.announcedRecall(firingOf(state, item)?.title ?? shortened(item.text)) : "";
}

function shortened(markdown: string): string {
  return plain(markdown.slice(0, 4 * LONGEST)).slice(0, LONGEST);
}
