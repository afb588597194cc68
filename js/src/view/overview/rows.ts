/** The rows of the overview: firings that are over or run, and recalls that are still to come; what can be done with each. */

import { html, nothing, type TemplateResult } from "lit";
import type { OverviewFiring, Recall } from "../../protocol/generated.js";
import { fileLink } from "../lib/files.js";
import { icons } from "../lib/icons.js";
import { strings, textOf } from "../lib/strings.js";
import { scheduleWords } from "../lib/schedule-words.js";
import { clockTime, fullTime, shortTime } from "../lib/time.js";
import { needed } from "../recalls/leave.js";
import { details } from "../recalls/ledger.js";
import { recallIcons } from "../recalls/icons.js";
import { jobText } from "../recalls/results.js";
import { moment, worded } from "../recalls/time.js";

export interface RowActions {
  goTo(session: string, runId: string | null): void;
  /** Runs it now; once more where it is over. */
  again(recallId: string, title: string): void;
  /** Runs it again with leave for what its last run lacked. */
  allow(recallId: string, tools: readonly string[]): void;
  stop(session: string, runId: string): void;
  pause(recall: Recall): void;
  resume(recall: Recall): void;
  cancel(recall: Recall): void;
  edit(recall: Recall): void;
  history(recallId: string): void;
  /** The recall whose history, or form, is open. */
  readonly historyOf: string | null;
  readonly formOf: string | null;
  /** What is open below the row of a recall, in one group. */
  below(recallId: string, group: string): unknown;
}

/**
 * `group` names the list, for what is open below a row: the same recall may stand in two. `isOfDay`: the list is of one
 * day, which it names.
 */
export function firingRow(entry: OverviewFiring, group: string, isOfDay: boolean, actions: RowActions): TemplateResult {
  const { firing, title, session_id: session, session_title: sessionTitle, asks, unseen } = entry;
  const { recall_id: id, run_id: runId, status } = firing;
  const at = firing.ended_at ?? firing.started_at ?? firing.slot;
  const state = asks ? strings.overviewAsks : (textOf(strings.firingStatus, status) ?? status);
  const several = entry.ran + entry.failed + entry.missed > 1 ? strings.overviewDay(entry.ran, entry.failed, entry.missed) : null;
  const more = [several, ...details(firing)].filter((part) => part !== null);
  const canShow = runId !== null && sessionTitle !== null;
  const label = asks ? strings.overviewAnswer(title) : strings.overviewShowOf(title, fullTime(new Date(at)));
  return html`<li class="navi-overview-row" data-navi="overview-firing" data-recall-id=${id} data-status=${asks ? "asks" : status} data-unseen=${unseen ? "yes" : "no"}>
    <div class="navi-overview-line">
      <span class="navi-overview-when"><time datetime=${at} title=${fullTime(new Date(at))}>${isOfDay ? clockTime(new Date(at)) : shortTime(new Date(at))}</time></span>
      <span class="navi-overview-what"><b dir="auto" lang="">${title}</b> <span class="navi-firing-status">${state}</span></span>
      <span class="navi-overview-actions">
        ${canShow
          ? html`<button type="button" class="navi-button" data-navi="overview-show" aria-label=${label} title=${label} @click=${() => actions.goTo(session, runId)}>${strings.overviewShow}</button>`
          : nothing}
        ${status === "running" && canShow ? iconButton("overview-stop", strings.recallStop(title), icons.stop, () => actions.stop(session, runId)) : nothing}
        ${asks || status === "running" || sessionTitle === null ? nothing : iconButton("overview-again", strings.overviewAgainOf(title), icons.fire, () => actions.again(id, title))}
        ${historyButton(id, title, actions)}
      </span>
    </div>
    <div class="navi-overview-more">
      ${sessionLink(session, sessionTitle, actions)} ${entry.result ? fileLink({ path: entry.result, cell: null }, strings.jobOpen, "overview-result") : nothing} ${more.length ? html`<span class="navi-text" dir="auto">${more.join(" · ")}</span>` : nothing}
      ${sessionTitle === null ? nothing : needed(firing.reason, (tools) => actions.allow(id, tools))}
    </div>
    ${actions.below(id, group)}
  </li>`;
}

/** `words`: its schedule. */
export function recallRow(recall: Recall, words: string | undefined, sessionTitle: string | undefined, group: string, actions: RowActions): TemplateResult {
  const { id, title, status, next_at: nextAt, session_id: session, schedule } = recall;
  const isPaused = status === "paused";
  const due =
    nextAt !== null && !isPaused
      ? html`${moment(nextAt)} <span class="navi-countdown" data-due=${Date.parse(nextAt)}></span>`
      : html`<span class="navi-recall-status">${isPaused ? strings.recallStatus[status] : strings.recallWaiting}</span>`;
  return html`<li class="navi-overview-row" data-navi="overview-recall" data-recall-id=${id} data-status=${status}>
    <div class="navi-overview-line">
      <span class="navi-overview-when">${due}</span>
      <span class="navi-overview-what"><b dir="auto" lang="" title=${recall.message}>${title}</b></span>
      <span class="navi-overview-actions">
        ${iconButton("overview-run", strings.overviewRun(title), icons.fire, () => actions.again(id, title))}
        ${isPaused
          ? iconButton("overview-resume", strings.recallResume(title), icons.play, () => actions.resume(recall))
          : iconButton("overview-pause", strings.recallPause(title), icons.pause, () => actions.pause(recall))}
        ${iconButton("overview-edit", strings.recallEdit(title), icons.edit, () => actions.edit(recall), actions.formOf === id)} ${historyButton(id, title, actions)}
        ${iconButton("overview-cancel", strings.recallCancel(title), icons.close, () => actions.cancel(recall))}
      </span>
    </div>
    <div class="navi-overview-more">
      ${sessionLink(session, sessionTitle ?? "", actions)} ${jobText(recall)}
      ${schedule.kind === "once" ? nothing : html`<span class="navi-text">${worded(scheduleWords(schedule, words))}</span>`}
    </div>
    ${actions.below(id, group)}
  </li>`;
}

function historyButton(id: string, title: string, actions: RowActions): TemplateResult {
  return iconButton("overview-history", strings.recallHistory(title), recallIcons.list, () => actions.history(id), actions.historyOf === id);
}

function sessionLink(session: string, title: string | null, actions: RowActions): TemplateResult {
  if (title === null) return html`<span class="navi-none">${strings.overviewNoSession}</span>`;
  const name = title || strings.overviewUntitled;
  return html`<button type="button" class="navi-link" data-navi="overview-session" data-session=${session} aria-label=${strings.overviewGoTo(name)} @click=${() => actions.goTo(session, null)}><span dir="auto">${name}</span></button>`;
}

function iconButton(name: string, label: string, icon: TemplateResult, act: () => void, isExpanded?: boolean): TemplateResult {
  return html`<button type="button" class="navi-icon-button" data-navi=${name} aria-label=${label} title=${label} aria-expanded=${isExpanded ?? nothing} @click=${act}>${icon}</button>`;
}
