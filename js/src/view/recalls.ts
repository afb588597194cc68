/** The list of a session's recalls, with what can be done to each. */

import { html, nothing, type TemplateResult } from "lit";
import { repeat } from "lit/directives/repeat.js";
import type { Recall } from "../protocol/generated.js";
import type { ChatState } from "../state/model.js";
import { isOpen, openRecalls, pastRecalls } from "../state/select.js";
import { icons } from "./icons.js";
import { durationText } from "./numbers.js";
import { strings } from "./strings.js";
import { countdown, fullTime, scheduleText, shortTime } from "./time.js";

const MOST_PAST = 20;

export type RecallAction = "cancel" | "pause" | "resume" | "fire";

export type OnRecallAction = (recall: Recall, action: RecallAction) => void;

export function recallsPanel(state: ChatState, onAction: OnRecallAction): TemplateResult {
  const open = openRecalls(state);
  const past = pastRecalls(state).slice(0, MOST_PAST);
  return html`
    ${open.length ? list(open, onAction) : html`<p class="navi-none">${strings.noRecalls}</p>`}
    ${past.length
      ? html`<details class="navi-past">
          <summary>${icons.chevron}<span>${strings.pastRecalls} (${past.length})</span></summary>
          ${list(past, onAction)}
        </details>`
      : nothing}
  `;
}

function list(recalls: readonly Recall[], onAction: OnRecallAction): TemplateResult {
  return html`<ul>
    ${repeat(recalls, ({ id }) => id, (recall) => row(recall, onAction))}
  </ul>`;
}

function row(recall: Recall, onAction: OnRecallAction): TemplateResult {
  const { id, status, title } = recall;
  const button = (action: RecallAction, label: string, icon: TemplateResult): TemplateResult =>
    html`<button
      type="button"
      class="navi-icon-button"
      data-navi=${`recall-${action}`}
      aria-label=${label}
      title=${label}
      @click=${() => onAction(recall, action)}
    >
      ${icon}
    </button>`;
  return html`<li data-navi="recall" data-recall-id=${id} data-status=${status} class="navi-recall">
    <span class="navi-recall-title" title=${recall.message} dir="auto">${title}</span>
    <span class="navi-recall-when">${when(recall)}</span>
    ${isOpen(recall)
      ? html`<span class="navi-recall-actions">
          ${button("fire", strings.recallFire(title), icons.fire)}
          ${status === "paused"
            ? button("resume", strings.recallResume(title), icons.play)
            : button("pause", strings.recallPause(title), icons.pause)}
          ${button("cancel", strings.recallCancel(title), icons.close)}
        </span>`
      : nothing}
  </li>`;
}

/** What matters most comes first: a narrow view shows only the beginning. */
function when({ status, schedule, next_at: nextAt, last_at: lastAt }: Recall): TemplateResult {
  const parts: unknown[] = [];
  if (status === "pending" && nextAt !== null) {
    parts.push(html`<span class="navi-countdown" data-due=${Date.parse(nextAt)}></span>`, time(nextAt));
  } else {
    parts.push(html`<span class="navi-recall-status">${strings.recallStatus[status]}</span>`);
    if (lastAt !== null) parts.push(time(lastAt));
  }
  if (schedule.kind !== "once") parts.push(scheduleText(schedule));
  return html`${parts.map((part, index) => html`${index ? " · " : nothing}${part}`)}`;
}

function time(iso: string): TemplateResult {
  const at = new Date(iso);
  return html`<time datetime=${iso} title=${fullTime(at)}>${shortTime(at)}</time>`;
}

/** Writes what is left, or has passed, into every clock below `root`; the templates leave them empty. */
export function tick(root: ParentNode, now = Date.now()): void {
  for (const element of root.querySelectorAll<HTMLElement>(".navi-elapsed")) {
    const seconds = Math.floor((now - Number(element.dataset["since"])) / 1000);
    const text = seconds < 2 ? "" : durationText(seconds * 1000);
    if (element.textContent !== text) element.textContent = text;
  }
  for (const element of root.querySelectorAll<HTMLElement>(".navi-countdown")) {
    const text = countdown(Number(element.dataset["due"]) - now);
    if (element.textContent !== text) element.textContent = text;
  }
}
