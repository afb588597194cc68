/** The plan of a run as a short list with states, and lines about its agent program. Drawn anew in place as they change. */

import { html, nothing, type TemplateResult } from "lit";
import type { AgentNotice, Plan, PlanEntry } from "../../state/model.js";
import { icons } from "../lib/icons.js";
import { strings, textOf } from "../lib/strings.js";
import { visibleText } from "../lib/visible-text.js";
import css from "../../style/agents.css";
import { addStyle, shared } from "../../style/install.js";

addStyle(shared(css));

export function planCard({ entries, runId }: Plan): TemplateResult | typeof nothing {
  if (!entries.length) return nothing;
  const done = entries.filter(({ status }) => status === "completed").length;
  return html`<section class="navi-card navi-plan" data-navi="plan" data-run-id=${runId ?? nothing} aria-label=${strings.planTitle}>
    <header><b>${strings.planTitle}</b> <span data-navi="plan-done">${strings.planDone(done, entries.length)}</span></header>
    <ol>
      ${entries.map(planEntry)}
    </ol>
  </section>`;
}

function planEntry({ content, status, isImportant }: PlanEntry): TemplateResult {
  return html`<li data-navi="plan-entry" data-status=${status}>
    ${planMark(status)}<span class="navi-plan-text"
      ><span class="navi-hidden">${strings.planStates[status]}: </span><span dir="auto" lang="">${visibleText(content)}</span>${isImportant && status !== "completed" ? html` <small>${strings.planImportant}</small>` : nothing}</span
    >
  </li>`;
}

function planMark(status: PlanEntry["status"]): TemplateResult {
  if (status === "completed") return icons.check;
  return status === "in_progress" ? html`<span class="navi-plan-mark navi-plan-now" aria-hidden="true"></span>` : html`<span class="navi-plan-mark" aria-hidden="true"></span>`;
}

/** What is known here is said in the reader's language. */
export function agentNotice({ code, message, runId }: AgentNotice): TemplateResult | typeof nothing {
  const words = textOf(strings.agentNotices, code) ?? message;
  if (!words) return nothing;
  return html`<div class="navi-agent-notice" data-navi="agent-notice" data-code=${code} data-run-id=${runId ?? nothing} role="note">${icons.plug}<span>${visibleText(words)}</span></div>`;
}
