/** The leave of a recall: what its runs may do without asking. Its words, and its choice in the form. */

import { html, nothing, type TemplateResult } from "lit";
import { isObject } from "../../protocol/frames.js";
import type { Effect, ToolInfo } from "../../protocol/generated.js";
import { icons } from "../lib/icons.js";
import { strings, textOf } from "../lib/strings.js";
import { tryTo, type RequestContext } from "./requests.js";

/** What tools do that ask as a rule. */
const ASKING: readonly Effect[] = ["run", "write", "outside"];
const OF_EFFECT = "effect:";

/** `run_code` and what tools of an effect do, in words. */
function worded(name: string): string | TemplateResult {
  const effect = name.startsWith(OF_EFFECT) ? textOf(strings.leaveEffect, name.slice(OF_EFFECT.length)) : undefined;
  return effect ?? html`<code dir="ltr">${name}</code>`;
}

/** "may run code, insert_cell without asking"; nothing for a recall that asks. */
export function leaveText(allow: readonly string[] | undefined): TemplateResult | typeof nothing {
  if (!allow?.length) return nothing;
  const names = allow.map((name, index) => html`${index ? ", " : nothing}${worded(name)}`);
  return html`<span class="navi-leave" data-navi="recall-leave">${icons.ask}<span>${strings.leaveMay} ${names} ${strings.leaveWithout}</span></span>`;
}

/** The part of the form in which leave is given. */
export class LeaveChoice {
  readonly #context: RequestContext;
  #chosen: ReadonlySet<string> = new Set();
  /** Those that would ask; null until the server has said which these are. */
  #tools: readonly ToolInfo[] | null = null;
  /** Whether single tools are shown at first: those that are chosen are. */
  #hasSingle = false;

  constructor(context: RequestContext) {
    this.#context = context;
  }

  open(allow: readonly string[] = []): void {
    this.#chosen = new Set(allow);
    this.#tools = null;
    this.#hasSingle = allow.some((name) => !name.startsWith(OF_EFFECT));
    void this.#load();
  }

  get chosen(): readonly string[] {
    return [...this.#chosen];
  }

  async #load(): Promise<void> {
    const session = this.#context.session() ?? "";
    const { body } = await tryTo(this.#context, "GET", `tools?session_id=${encodeURIComponent(session)}`);
    if (session !== (this.#context.session() ?? "") || !isObject(body) || !Array.isArray(body["tools"])) return;
    // Those that are denied stay so, whatever a recall may.
    this.#tools = (body["tools"] as readonly ToolInfo[]).filter(({ permission, available }) => available && permission === "ask");
    this.#context.redraw();
  }

  render(): TemplateResult {
    const tools = this.#tools;
    const effects = tools === null ? ASKING : ASKING.filter((effect) => tools.some((tool) => tool.effect === effect));
    const offered = [...effects.map((effect) => OF_EFFECT + effect), ...this.chosen.filter((name) => name.startsWith(OF_EFFECT))];
    const single = [...new Set([...(tools ?? []).map(({ name }) => name), ...this.chosen.filter((name) => !name.startsWith(OF_EFFECT))])];
    return html`<fieldset class="navi-allow" data-navi="recall-allow">
      <legend>${strings.leaveAsk}</legend>
      <div class="navi-tell">${[...new Set(offered)].map((name) => this.#box(name, textOf(strings.leaveBox, name.slice(OF_EFFECT.length)) ?? name))}</div>
      ${single.length
        ? html`<details class="navi-allow-tools" data-navi="recall-allow-tools" ?open=${this.#hasSingle}>
            <summary>${icons.chevron}<span>${strings.leaveTools}</span></summary>
            <div class="navi-tell">${single.map((name) => this.#box(name, html`<code dir="ltr">${name}</code>`))}</div>
          </details>`
        : nothing}
      <p class="navi-none">${this.#chosen.size ? strings.leaveGiven : strings.leaveNone}</p>
    </fieldset>`;
  }

  #box(name: string, label: string | TemplateResult): TemplateResult {
    const toggle = (event: Event): void => {
      const names = new Set(this.#chosen);
      if ((event.target as HTMLInputElement).checked) names.add(name);
      else names.delete(name);
      this.#chosen = names;
      this.#context.redraw();
    };
    return html`<label><input type="checkbox" data-navi="recall-may" value=${name} .checked=${this.#chosen.has(name)} @change=${toggle} /> <span>${label}</span></label>`;
  }
}
