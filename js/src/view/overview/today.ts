/** The line above a chat that says in a few words what the recalls of all sessions did today, and when the next one comes. */

import { html, nothing, type TemplateResult } from "lit";
import type { RecallsOverview } from "../../protocol/generated.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";
import { shortTime } from "../lib/time.js";

/** Whether there is nothing to say: then there is no line. */
export function isEmpty({ open, active, past }: RecallsOverview): boolean {
  return !open && !active.length && !past.some(({ firings }) => firings.length);
}

/** It opens and closes the view of them all. */
export function todayLine(overview: RecallsOverview | null, isOpen: boolean, toggle: () => void): TemplateResult | typeof nothing {
  if (overview === null || (isEmpty(overview) && !isOpen)) return nothing;
  const { past, next, needs } = overview;
  const today = past[0] ?? { ran: 0, failed: 0, missed: 0 };
  const text = strings.todayLine(today.ran, today.failed, today.missed, next === null ? null : shortTime(new Date(next.at)));
  return html`<button type="button" class="navi-today" data-navi="today" aria-expanded=${isOpen ? "true" : "false"} title=${strings.todayOpen} @click=${toggle}>
    ${icons.clock}<span class="navi-today-text" data-navi="today-text">${text}</span>
    ${needs.length ? html`<span class="navi-today-needs" data-navi="today-needs">${strings.todayNeeds(needs.length)}</span>` : nothing}
    <span class="navi-today-open" aria-hidden="true">${icons.chevron}</span>
  </button>`;
}
