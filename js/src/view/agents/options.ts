/**
 * The answers that an agent program offers to its question, as buttons: allowing once first, refusing always in sight.
 *
 * The names are the program's words, so what each means is shown beside it in ours.
 */

import { html, nothing, type TemplateResult } from "lit";
import type { AskOption, Interrupt } from "../../state/model.js";
import { isObject } from "../../protocol/frames.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";
import { markedLine, visibleText } from "../lib/visible-text.js";

const ORDER: readonly AskOption["kind"][] = ["allow_once", "allow_always", "reject_once", "reject_always"];

export function allows({ kind }: AskOption): boolean {
  return kind === "allow_once" || kind === "allow_always";
}

export function isAlways({ kind }: AskOption): boolean {
  return kind === "allow_always" || kind === "reject_always";
}

/** `deny`: says no where the program offers no answer for it. */
export function optionButtons({ options }: Interrupt, isOff: boolean, choose: (option: AskOption) => void, deny: () => void): TemplateResult {
  const sorted = [...options].sort((one, other) => ORDER.indexOf(one.kind) - ORDER.indexOf(other.kind));
  return html`<div class="navi-ask-actions" data-navi="ask-options">
      ${sorted.map((option) => optionButton(option, isOff, choose))}
      ${options.every(allows) ? html`<button type="button" class="navi-button" data-navi="ask-deny" ?disabled=${isOff} @click=${deny}>${strings.deny}</button>` : nothing}
    </div>
    <p class="navi-note" data-navi="ask-options-note">${strings.agentWords} ${options.some(isAlways) ? strings.alwaysIsTheirs : nothing}</p>`;
}

function optionButton(option: AskOption, isOff: boolean, choose: (option: AskOption) => void): TemplateResult {
  const { id, name, kind } = option;
  const meaning = strings.optionKinds[kind];
  return html`<button
    type="button"
    class="navi-button navi-option ${kind === "allow_once" ? "navi-primary" : ""}"
    data-navi="ask-option"
    data-option=${id}
    data-kind=${kind}
    title=${meaning}
    ?disabled=${isOff}
    @click=${() => choose(option)}
  >
    ${allows(option) ? icons.check : icons.close}<span dir="auto" lang="">${visibleText(name)}</span><small class=${isAlways(option) ? "" : "navi-hidden"}>${meaning}</small>
  </button>`;
}

/** The name of the answer that was chosen; empty: there was none to choose. */
export function chosenName({ options, payload }: Interrupt): string {
  const chosen = isObject(payload) ? options.find(({ id }) => id === payload["option"]) : undefined;
  return chosen ? markedLine(chosen.name) : "";
}
