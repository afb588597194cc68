/**
 * "While you were away": one card of what ran, and what did not and why. Above the conversation, not in it: that is
 * scrolled to its end.
 */

import { html, nothing, type TemplateResult } from "lit";
import type { Away, AwayRun, AwaySlot } from "../../protocol/generated.js";
import { icons } from "../lib/icons.js";
import { moment, plain } from "./time.js";
import { strings, textOf } from "../lib/strings.js";
import { shortTime } from "../lib/time.js";

export interface AwayActions {
  showRun(runId: string): void;
  dismiss(): void;
}

/** Nothing is shown when nothing happened. */
export function awayCard(away: Away | null, actions: AwayActions): TemplateResult | typeof nothing {
  if (away === null || (!away.runs.length && !away.missed)) return nothing;
  const { runs, not_run: slots, missed, failed, since } = away;
  const summary = [runs.length ? strings.awayRuns(runs.length, failed) : "", missed ? strings.awayMissed(missed) : ""].filter(Boolean).join(" · ");
  return html`<section class="navi-away" data-navi="away" aria-label=${strings.away}>
    <div class="navi-away-header">
      ${icons.clock}<b>${strings.away}</b> <small>${strings.awaySince(shortTime(new Date(since)))}</small>
      <span class="navi-away-summary" data-navi="away-summary">${summary}</span>
      <button type="button" class="navi-icon-button" data-navi="away-dismiss" aria-label=${strings.dismiss} title=${strings.dismiss} @click=${() => actions.dismiss()}>${icons.close}</button>
    </div>
    <ul tabindex="0" aria-label=${summary}>
      ${runs.map((run) => runRow(run, actions))} ${slots.map(slotRow)}
    </ul>
  </section>`;
}

function runRow({ run_id: id, at, status, prompt, answer, error }: AwayRun, { showRun }: AwayActions): TemplateResult {
  return html`<li data-navi="away-run" data-status=${status}>
    ${moment(at)} <b dir="auto" lang="">${prompt}</b> <span class="navi-text" dir="auto">${error === null ? plain(answer) : (textOf(strings.ends, error)?.title ?? error)}</span>
    <button type="button" class="navi-link" data-run-id=${id} aria-label=${strings.recallShowRunAt(shortTime(new Date(at)))} @click=${() => showRun(id)}>${strings.recallShowRun}</button>
  </li>`;
}

function slotRow({ title, slot, status, reason, coalesced }: AwaySlot): TemplateResult {
  const parts = [textOf(strings.firingStatus, status) ?? status, reason, coalesced ? strings.recallCoalesced(coalesced) : null].filter(Boolean);
  return html`<li data-navi="away-slot" data-status=${status}>${moment(slot)} <b dir="auto" lang="">${title}</b> <span class="navi-text" dir="auto">${parts.join(" · ")}</span></li>`;
}
