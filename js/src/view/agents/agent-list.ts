/**
 * The agent programs of this server's machine, which are chosen like models: usable, or what is missing and the command
 * that mends it. Not responsible for choosing (`settings`, `model-setup`).
 */

import { html, nothing, type TemplateResult } from "lit";
import type { ModelInfo } from "../../protocol/generated.js";
import { agentOf } from "../../state/agents.js";
import { icons } from "../lib/icons.js";
import { writeClipboard } from "../lib/copy.js";
import { strings } from "../lib/strings.js";
import { markedLine, visibleText } from "../lib/visible-text.js";
import css from "../../style/agent-list.css";
import { addStyle, shared } from "../../style/install.js";

addStyle(shared(css));

/** How long a button says that it has copied. Milliseconds. */
const SAID = 1_500;

/** A row of `GET models`. */
type Row = Pick<ModelInfo, "name" | "available" | "why"> & Partial<Pick<ModelInfo, "command" | "provider">>;

export function isAgent({ name }: Pick<ModelInfo, "name">): boolean {
  return agentOf(name) !== "";
}

/** `current`: the model of the session. `choose`: makes an agent the session's. */
export function agentList(models: readonly Row[], current: string, isBusy: boolean, choose: (model: string) => void): TemplateResult | typeof nothing {
  const agents = models.filter(isAgent);
  if (!agents.length) return nothing;
  const missing = agents.filter(({ available }) => !available);
  return html`<div class="navi-agents" data-navi="agents" role="group" aria-label=${strings.agents}>
    <h4>${strings.agents}</h4>
    <p>${strings.agentsText}</p>
    <div class="navi-setup-row">
      ${agents
        .filter(({ available }) => available)
        .map((one) =>
          one.name === current
            ? html`<span class="navi-agent-now" data-navi="agent" data-model=${one.name}>${icons.check}<span lang="">${titleOf(one)}</span> <small>${strings.agentInUse}</small></span>`
            : html`<button type="button" class="navi-button" data-navi="agent-use" data-model=${one.name} ?disabled=${isBusy} @click=${() => choose(one.name)}>${strings.useAgent(titleOf(one))}</button>`,
        )}
    </div>
    ${missing.length
      ? html`<details class="navi-agents-missing" ?open=${missing.length === agents.length}>
          <summary>${icons.chevron}<span>${strings.agentNotUsable}: <span lang="">${missing.map(titleOf).join(", ")}</span></span></summary>
          <ul>
            ${alike(missing).map(missingRow)}
          </ul>
        </details>`
      : nothing}
  </div>`;
}

function titleOf({ name, provider }: Row): string {
  return markedLine(provider || agentOf(name));
}

/** Those that lack the same are said once. */
function alike(missing: readonly Row[]): readonly (readonly Row[])[] {
  const groups = new Map<string, Row[]>();
  for (const row of missing) {
    const key = `${row.why} ${row.command}`;
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  return [...groups.values()];
}

function missingRow(rows: readonly Row[]): TemplateResult | typeof nothing {
  const [row] = rows;
  if (!row) return nothing;
  const command = row.command ?? "";
  const why = row.why ?? strings.notUsable;
  const end = ` Run: ${command}`; // the command is beside it
  return html`<li data-navi="agent-missing" data-model=${row.name}>
    <b lang="">${rows.map(titleOf).join(", ")}</b> <span class="navi-text" dir="auto" lang="">${visibleText(command && why.endsWith(end) ? why.slice(0, -end.length) : why)}</span>
    ${command ? html`<span class="navi-agent-command"><code>${visibleText(command)}</code>${copyButton(command)}</span>` : nothing}
  </li>`;
}

function copyButton(command: string): TemplateResult {
  const copy = async ({ currentTarget }: Event): Promise<void> => {
    const button = currentTarget as HTMLButtonElement;
    await writeClipboard(command);
    button.textContent = strings.copied;
    setTimeout(() => (button.textContent = strings.copy), SAID);
  };
  return html`<button type="button" class="navi-link" data-navi="agent-copy" aria-label=${strings.copyCommand(command)} @click=${(event: Event) => void copy(event)}>${strings.copy}</button>`;
}
