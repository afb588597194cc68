/** The coming two weeks: a grid of two rows of days where there is room, else a list of the days that have something. */

import { html, nothing, type TemplateResult } from "lit";
import { repeat } from "lit/directives/repeat.js";
import type { CalendarDay, ComingTimes } from "../../protocol/generated.js";
import { keepKey } from "../lib/keyboard-guard.js";
import { strings } from "../lib/strings.js";
import { clockTime } from "../lib/time.js";
import { dayName, dayNumber, fullDay, weekday } from "./days.js";

const WEEK = 7;
/** So many of a day stand in its cell. */
const IN_CELL = 3;

export interface CalendarActions {
  goTo(session: string): void;
  redraw(): void;
}

export class Calendar {
  readonly #actions: CalendarActions;
  /** The day that the keyboard is on, and the one whose recalls are shown below; as dates. */
  #at: string | null = null;
  #shown: string | null = null;

  constructor(actions: CalendarActions) {
    this.#actions = actions;
  }

  reset(): void {
    this.#at = this.#shown = null;
  }

  render(days: readonly CalendarDay[], isComplete: boolean): TemplateResult | typeof nothing {
    if (!days.length) return nothing;
    const isEmpty = days.every(({ count }) => count === 0);
    return html`<section class="navi-calendar" data-navi="calendar" aria-labelledby="navi-calendar-title">
      <h3 id="navi-calendar-title">${strings.overviewCalendar}</h3>
      ${isEmpty ? html`<p class="navi-none">${strings.calendarNone}</p>` : html`${this.#grid(days)} ${this.#agenda(days)}`}
      ${isComplete ? nothing : html`<p class="navi-none" data-navi="calendar-incomplete">${strings.calendarIncomplete}</p>`}
    </section>`;
  }

  #grid(days: readonly CalendarDay[]): TemplateResult {
    const weeks = [days.slice(0, WEEK), days.slice(WEEK)];
    const at = days.some(({ date }) => date === this.#at) ? this.#at : days[0]?.date;
    const shown = days.find(({ date }) => date === this.#shown);
    return html`<div class="navi-calendar-grid" data-navi="calendar-grid" @keydown=${(event: KeyboardEvent) => this.#keydown(event, days)}>
      <table role="grid" aria-label=${strings.overviewCalendar} aria-describedby="navi-calendar-hint">
        <thead>
          <tr>${weeks[0]?.map(({ date }) => html`<th scope="col" abbr=${dayName(date)}>${weekday(date)}</th>`)}</tr>
        </thead>
        <tbody>
          ${weeks.map((week) => html`<tr>${week.map((day) => this.#cell(day, day === days[0], day.date === at))}</tr>`)}
        </tbody>
      </table>
      <p id="navi-calendar-hint" class="navi-hidden">${strings.calendarHint}</p>
      <div data-navi="calendar-shown" role="region" aria-live="polite" aria-label=${shown ? fullDay(shown.date) : strings.overviewCalendar} ?hidden=${!shown}>
        ${shown ? html`<h4>${fullDay(shown.date)}</h4>${this.#list(shown)}` : nothing}
      </div>
    </div>`;
  }

  #cell(day: CalendarDay, isToday: boolean, isCurrent: boolean): TemplateResult {
    const { date, count, coming, more } = day;
    const label = strings.calendarDay(isToday ? strings.calendarToday(fullDay(date)) : fullDay(date), count);
    const rest = coming.length - IN_CELL + more;
    const show = (): void => this.#show(date);
    return html`<td
      role="gridcell"
      data-navi="calendar-day"
      data-date=${date}
      data-count=${count}
      aria-current=${isToday ? "date" : nothing}
      aria-selected=${this.#shown === date ? "true" : "false"}
      tabindex=${isCurrent ? "0" : "-1"}
      @click=${show}
    >
      <span class="navi-hidden">${label}</span>
      <span class="navi-calendar-number" aria-hidden="true">${dayNumber(date, isToday)}</span>
      <span aria-hidden="true">
        ${coming.slice(0, IN_CELL).map((one) => html`<span class="navi-calendar-entry" title=${one.title}>${when(one)} <span dir="auto">${one.title}</span></span>`)}
        ${rest > 0 ? html`<span class="navi-calendar-entry navi-calendar-rest">${strings.overviewMore(rest)}</span>` : nothing}
      </span>
    </td>`;
  }

  /** For narrow views. */
  #agenda(days: readonly CalendarDay[]): TemplateResult {
    return html`<ol class="navi-agenda" data-navi="agenda">
      ${days
        .filter(({ count }) => count > 0)
        .map((day) => html`<li data-navi="agenda-day" data-date=${day.date} aria-current=${day === days[0] ? "date" : nothing}><h4>${day === days[0] ? strings.calendarToday(fullDay(day.date)) : fullDay(day.date)}</h4>${this.#list(day)}</li>`)}
    </ol>`;
  }

  #list({ coming, more }: CalendarDay): TemplateResult {
    return html`<ul>
        ${repeat(coming, (one) => one.recall_id, (one) => html`<li class="navi-agenda-entry" data-navi="calendar-recall" data-recall-id=${one.recall_id}>
          <span class="navi-agenda-time">${when(one)}</span> <b dir="auto" lang="">${one.title}</b>
          ${one.session_title === null
            ? nothing
            : html`<button type="button" class="navi-link" @click=${() => this.#actions.goTo(one.session_id)}><span dir="auto">${one.session_title || strings.overviewUntitled}</span></button>`}
        </li>`)}
      </ul>
      ${more ? html`<p class="navi-none">${strings.overviewMore(more)}</p>` : nothing}`;
  }

  #show(date: string): void {
    this.#at = date;
    this.#shown = this.#shown === date ? null : date;
    this.#actions.redraw();
  }

  #keydown(event: KeyboardEvent, days: readonly CalendarDay[]): void {
    const cell = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-navi=calendar-day]") : null;
    if (!cell) return;
    const index = days.findIndex(({ date }) => date === cell.dataset["date"]);
    const row = index - (index % WEEK);
    const isRtl = getComputedStyle(cell).direction === "rtl";
    const to: Readonly<Record<string, number>> = {
      ArrowLeft: index + (isRtl ? 1 : -1),
      ArrowRight: index + (isRtl ? -1 : 1),
      ArrowUp: index - WEEK,
      ArrowDown: index + WEEK,
      Home: event.ctrlKey ? 0 : row,
      End: event.ctrlKey ? days.length - 1 : row + WEEK - 1,
    };
    if (event.key === "Enter" || event.key === " ") this.#show(cell.dataset["date"] ?? "");
    else if (event.key in to) this.#focus(cell, days[to[event.key] ?? -1]?.date);
    else return;
    event.preventDefault();
    keepKey(event);
  }

  #focus(cell: HTMLElement, date: string | undefined): void {
    if (date === undefined) return;
    this.#at = date;
    this.#actions.redraw();
    cell.closest("table")?.querySelector<HTMLElement>(`[data-date="${date}"]`)?.focus();
  }
}

/** "09:00", and how many more there are on that day. */
function when({ at, times }: ComingTimes): TemplateResult {
  return html`<time datetime=${at}>${clockTime(new Date(at))}</time>${times > 1 ? html` <span class="navi-none">${strings.overviewTimes(times)}</span>` : nothing}`;
}
