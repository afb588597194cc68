/** The overlay of the settings: model, profile and zone, what was used up, the MCP servers, and what is remembered. */

import { html, nothing, type TemplateResult } from "lit";
import { isOk, type Answer, type Method, type Transport } from "../../connection/transport.js";
import { isObject } from "../../protocol/frames.js";
import type { ModelInfo, ProfileInfo, Usage } from "../../protocol/generated.js";
import type { ChatState, McpServer } from "../../state/model.js";
import { totalUsage } from "../../state/usage.js";
import { isAgent } from "../agents/agent-list.js";
import { agentOptions } from "../agents/agent-options.js";
import { MemoryList } from "./memory.js";
import { ModelSetup } from "./model-setup.js";
import { costText, tokensText, usageDetail } from "../lib/numbers.js";
import { strings, textOf } from "../lib/strings.js";
import type { Overlay } from "../overlays.js";
import { ZoneSetting } from "./zone.js";
import css from "../../style/settings.css";
import { addStyle, shared } from "../../style/install.js";

addStyle(shared(css));

export interface SettingsActions {
  transport(): Transport | null;
  session(): string | null;
  problem(text: string): void;
  redraw(): void;
}

type Choice = Pick<ModelInfo, "name" | "available" | "why">;

/** Of the select: a name that is typed. No model is called so. */
const OTHER = "\u0000";

export class SettingsPanel implements Overlay {
  readonly #actions: SettingsActions;
  readonly #memory: MemoryList;
  /** How a model is set up; an empty conversation shows it, too. */
  readonly #setup: ModelSetup;
  readonly #zone = new ZoneSetting((fields, undo) => void this.#change(fields, undo));
  #models: readonly Choice[] | null = null;
  #profiles: readonly Choice[] | null = null;
  #isTyping = false;
  readonly name = "settings";

  constructor(actions: SettingsActions) {
    this.#actions = actions;
    this.#setup = new ModelSetup(actions);
    this.#memory = new MemoryList({ request: (method, path, body) => this.#request(method, path, body), session: actions.session, redraw: actions.redraw });
  }

  reset(): void {
    this.#isTyping = false;
    this.#models = this.#profiles = null;
    this.#memory.reset();
    this.#setup.reset();
  }

  label(): string {
    return strings.settings;
  }

  /** Each time it is opened: keys and files may have come since. */
  opened(): void {
    void this.#load();
  }

  render(state: ChatState): TemplateResult {
    const { session, spent } = state;
    const total = totalUsage(state);
    return html`
      <div class="navi-pickers">
        ${this.#picker("model", strings.modelLabel, session?.model ?? "", this.#models, true)}
        ${this.#picker("profile", strings.profileLabel, session?.profile ?? "", this.#profiles, false)}
      </div>
      ${agentOptions(state, (choice, undo) => void this.#change({ agent_options: choice }, undo))} ${this.#setup.section(session?.model ?? "")} ${this.#zone.render(session)}
      <section aria-label=${strings.usage} data-navi="usage">
        <h3>${strings.usage}</h3>
        <dl class="navi-usage">
          ${usageRow(strings.usageSession, total)}
          ${spent.run ? usageRow(spent.run.isOver ? strings.usageLastRun : strings.usageRun, spent.run.usage) : nothing}
        </dl>
      </section>
      <section aria-label=${strings.mcpServers} data-navi="mcp">
        <h3>${strings.mcpServers}</h3>
        ${serverList(Object.values(state.mcp))}
      </section>
      ${this.#memory.render()}
    `;
  }

  #picker(field: "model" | "profile", label: string, current: string, choices: readonly Choice[] | null, isFree: boolean): TemplateResult {
    const known = choices ?? [];
    const isListed = known.some(({ name }) => name === current);
    const change = (event: Event): void => {
      const select = event.currentTarget as HTMLSelectElement;
      if (select.value !== OTHER) return void this.#change({ [field]: select.value }, () => (select.value = current));
      select.value = current;
      this.#isTyping = true;
      this.#actions.redraw();
    };
    return html`<label class="navi-picker">
        <span>${label}</span>
        <select data-navi=${`${field}-picker`} @change=${change}>
          ${isListed ? nothing : html`<option value=${current} selected>${current}</option>`}
          ${usable(known.filter((choice) => !isAgent(choice)), current)}
          ${known.some((choice) => isAgent(choice) && (choice.available || choice.name === current)) ? html`<optgroup label=${strings.agents}>${usable(known.filter(isAgent), current)}</optgroup>` : nothing}
          ${unusable(known, current).map(
            ([why, names]) => html`<optgroup label=${why}>${names.map((name) => html`<option value=${name} disabled>${name}</option>`)}</optgroup>`,
          )}
          ${isFree ? html`<option value=${OTHER}>${strings.otherModel}</option>` : nothing}
        </select>
      </label>
      ${isFree && this.#isTyping ? this.#typed() : nothing}`;
  }

  #typed(): TemplateResult {
    const submit = (event: Event): void => {
      event.preventDefault();
      const name = (event.currentTarget as HTMLFormElement).querySelector("input")?.value.trim() ?? "";
      this.#isTyping = false;
      if (name) void this.#change({ model: name }, () => {});
      this.#actions.redraw();
    };
    return html`<form class="navi-typed" @submit=${submit}>
      <input type="text" data-navi="model-name" maxlength="200" autocomplete="off" aria-label=${strings.otherModelName} placeholder=${strings.otherModelName} />
      <button type="submit" class="navi-button">${strings.use}</button>
    </form>`;
  }

  async #load(): Promise<void> {
    const [models, profiles] = await Promise.all([this.#request("GET", "models"), this.#request("GET", "profiles"), this.#memory.load()]);
    if (isObject(models) && Array.isArray(models["models"])) this.#models = models["models"] as readonly ModelInfo[];
    if (isObject(profiles) && Array.isArray(profiles["profiles"])) this.#profiles = profiles["profiles"] as readonly ProfileInfo[];
    this.#actions.redraw();
  }

  /** The log tells every view of the change, this one too. */
  async #change(fields: Readonly<Record<string, unknown>>, undo: () => void): Promise<void> {
    const session = this.#actions.session();
    if (session === null) return;
    if ((await this.#request("PATCH", `sessions/${encodeURIComponent(session)}`, fields)) === null) undo();
  }

  /** The body of the answer; null when the request failed; the failure is shown. */
  async #request(method: Method, path: string, body?: unknown): Promise<unknown> {
    const answer: Answer | null = (await this.#actions.transport()?.request(method, path, body).catch(() => null)) ?? null;
    if (answer && isOk(answer)) return answer.body ?? {};
    const why = answer && isObject(answer.body) && typeof answer.body["message"] === "string" ? answer.body["message"] : null;
    this.#actions.problem(strings.failed(why ?? (answer ? `HTTP ${answer.status}` : strings.noServer)));
    return null;
  }
}

function usable(choices: readonly Choice[], current: string): readonly TemplateResult[] {
  return choices.filter(({ name, available }) => available || name === current).map(({ name }) => html`<option value=${name} ?selected=${name === current}>${name}</option>`);
}

/** What cannot be used, by the reason: it is said once for all that it holds for. */
function unusable(choices: readonly Choice[], current: string): readonly (readonly [string, readonly string[]])[] {
  const groups = new Map<string, string[]>();
  for (const choice of choices) {
    const { name, available, why } = choice;
    if (available || name === current || isAgent(choice)) continue; // what an agent lacks is beside it, with the command
    const reason = why ?? strings.notUsable;
    groups.set(reason, [...(groups.get(reason) ?? []), name]);
  }
  return [...groups];
}

function usageRow(label: string, usage: Usage | null): TemplateResult {
  if (usage === null || usage.requests + usage.input_tokens + usage.output_tokens === 0) return html`<div><dt>${label}</dt><dd>${strings.usageNone}</dd></div>`;
  return html`<div>
    <dt>${label}</dt>
    <dd><b>${tokensText(usage)}</b> · ${costText(usage) ?? strings.costUnknown} <small>${usageDetail(usage)}</small></dd>
  </div>`;
}

function serverList(servers: readonly McpServer[]): TemplateResult {
  if (!servers.length) return html`<p class="navi-none">${strings.mcpNone}</p>`;
  return html`<ul class="navi-servers">
    ${servers.map(
      ({ name, status, message }) =>
        html`<li data-navi="mcp-server" data-server=${name} data-status=${status}>
          <span class="navi-status-dot" aria-hidden="true"></span><b>${name}</b> <span>${textOf(strings.mcpStatus, status) ?? status}</span>
          ${message ? html`<small class="navi-text" dir="auto">${message}</small>` : nothing}
        </li>`,
    )}
  </ul>`;
}
