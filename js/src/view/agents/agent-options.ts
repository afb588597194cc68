/** The mode and the model of a session's agent program, as it offers them: chosen here, kept with the session. */

import { html, nothing, type TemplateResult } from "lit";
import { agentOf, presentAgent } from "../../state/agents.js";
import type { AgentOption, ChatState } from "../../state/model.js";
import { strings } from "../lib/strings.js";
import { markedLine, visibleText } from "../lib/visible-text.js";

/** What is chosen; null: as the program starts. */
export interface AgentChoice {
  readonly mode: string | null;
  readonly model: string | null;
}

export function agentOptions(state: ChatState, change: (choice: AgentChoice, undo: () => void) => void): TemplateResult | typeof nothing {
  const { session } = state;
  const name = agentOf(session?.model ?? "");
  if (!session || !name) return nothing;
  const offer = presentAgent(state);
  const chosen = session.agentChoice;
  const isEmpty = offer === null || (!offer.modes.length && !offer.models.length);
  return html`<section class="navi-agent-options" aria-label=${strings.agentSection(name)} data-navi="agent-options">
    <h3>${strings.agentSection(markedLine(offer?.title || name))}</h3>
    ${isEmpty
      ? html`<p class="navi-none">${strings.agentNoOptions}</p>`
      : html`<div class="navi-pickers">
          ${picker("agent-mode", strings.agentMode, offer.modes, chosen.mode, offer.mode, (mode, undo) => change({ ...chosen, mode }, undo))}
          ${picker("agent-model", strings.agentModel, offer.models, chosen.model, offer.model, (model, undo) => change({ ...chosen, model }, undo))}
        </div>`}
  </section>`;
}

/** `now`: what the program says that it uses. */
function picker(name: string, label: string, options: readonly AgentOption[], chosen: string | null, now: string, change: (value: string | null, undo: () => void) => void): TemplateResult | typeof nothing {
  if (!options.length) return nothing;
  const shown = chosen ?? now;
  const current = options.find(({ id }) => id === shown);
  const changed = (event: Event): void => {
    const select = event.currentTarget as HTMLSelectElement;
    change(select.value || null, () => (select.value = shown));
  };
  return html`<div>
    <label class="navi-picker">
      <span>${label}</span>
      <select data-navi=${name} @change=${changed}>
        ${current ? nothing : html`<option value="" selected>${strings.agentAsItStarts}</option>`}
        ${options.map(({ id, name: text }) => html`<option value=${id} ?selected=${id === shown}>${markedLine(text)}</option>`)}
      </select>
    </label>
    ${current?.description ? html`<small dir="auto" lang="">${visibleText(current.description)}</small>` : nothing}
  </div>`;
}
