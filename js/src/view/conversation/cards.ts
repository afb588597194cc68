/**
 * The cards of a conversation: questions, and calls of tools. What draws them is a part of the bundle, which is loaded
 * when the first one is there, or a run begins: then one may come any moment. Until it is there, its place says so.
 */

import { html, type nothing, type TemplateResult } from "lit";
import type { AgentNotice, Interrupt, Plan, ToolCall } from "../../state/model.js";
import { Lazy } from "../lib/lazy.js";
import { strings } from "../lib/strings.js";
import type { CardOptions, InterruptActions, InterruptCards } from "./approvals.js";
import type { Images } from "./images.js";
import type { ToolCards } from "./tools.js";

const cards = new Lazy(() => import("./card-parts.js"));

/** Begins to load them. */
export function loadCards(): void {
  cards.get();
}

/** The questions of a view: see `InterruptCards`. */
export class Questions {
  readonly #make: (part: typeof import("./card-parts.js")) => InterruptCards;
  #cards: InterruptCards | null = null;

  constructor(actions: InterruptActions, options: CardOptions) {
    this.#make = (part) => new part.InterruptCards(actions, options);
  }

  reset(): void {
    this.#cards?.reset();
  }

  /** What the drawing of a card depends on besides the question. */
  local(id: string): unknown {
    return this.#cards?.local(id);
  }

  /** The answer was refused: it can be given again. */
  unlock(id: string): void {
    this.#cards?.unlock(id);
  }

  /** `owner`: who alone can answer, where that is not the user. */
  render(interrupt: Interrupt, asker: string, owner: string | null): TemplateResult {
    const part = this.#cards ? null : cards.get();
    if (part) this.#cards = this.#make(part);
    return this.#cards?.render(interrupt, asker, owner) ?? onItsWay();
  }
}

/** The calls of a view: see `ToolCards`. */
export class Calls {
  readonly #pictures: Images;
  #cards: ToolCards | null = null;

  constructor(pictures: Images) {
    this.#pictures = pictures;
  }

  reset(): void {
    this.#cards?.reset();
  }

  render(call: ToolCall, asks: boolean): TemplateResult {
    const part = this.#cards ? null : cards.get();
    if (part) this.#cards = new part.ToolCards(this.#pictures);
    return this.#cards?.render(call, asks) ?? onItsWay();
  }
}

/** What an agent program wants to do, and lines about it. */
export function agentItem(item: Plan | AgentNotice): TemplateResult | typeof nothing {
  const parts = cards.get();
  if (!parts) return onItsWay();
  return item.kind === "plan" ? parts.planCard(item) : parts.agentNotice(item);
}

function onItsWay(): TemplateResult {
  return html`<p class="navi-card navi-card-body navi-late" role="status">${strings.loading}</p>`;
}
