/**
 * The recalls of all sessions in one view: what needs the user, what runs, what comes next, what ran today and in the
 * days before, and the coming two weeks.
 *
 * Not responsible for where it is shown, nor for going to a session: the chat does.
 */

import { html, nothing, type TemplateResult } from "lit";
import { repeat } from "lit/directives/repeat.js";
import { isOk, type Method } from "../../connection/transport.js";
import { isObject } from "../../protocol/frames.js";
import type { OverviewFiring, Recall, RecallsOverview } from "../../protocol/generated.js";
import { strings } from "../lib/strings.js";
import { scheduleWords } from "../lib/schedule-words.js";
import { RecallForm } from "../recalls/form.js";
import { runWithLeave } from "../recalls/leave.js";
import { Ledger } from "../recalls/ledger.js";
import { ask, isRecall, stopRun, tryTo, type RequestContext } from "../recalls/requests.js";
import { Calendar } from "./calendar.js";
import { pastDay } from "./days.js";
import { isEmpty } from "./today.js";
import type { OverviewFeed } from "./feed.js";
import { firingRow, recallRow, type RowActions } from "./rows.js";
import css from "../../style/overview.css";
import { addStyle } from "../../style/install.js";

addStyle(css);

/** So many recalls to come are listed at first, and each "more" lists as many again. */
const LISTED = 8;

export interface OverviewActions extends RequestContext {
  /** Shows a session; with a run, its answer. */
  goTo(session: string, runId: string | null): void;
  /** What is shown; null where there is no server. */
  feed(): OverviewFeed | null;
}

export class RecallsOverviewView {
  readonly #actions: OverviewActions;
  readonly #calendar: Calendar;
  readonly #form: RecallForm;
  readonly #ledger: Ledger;
  #listed = LISTED;
  /** The recall that something was done with, and the list in which: its form, or its history, is open there. */
  #open: { readonly recall: Recall; readonly group: string } | null = null;
  #message: string | null = null;
  #problem: string | null = null;

  constructor(actions: OverviewActions) {
    this.#actions = actions;
    const context: RequestContext = {
      ...actions,
      session: () => this.#open?.recall.session_id ?? null,
      problem: (text) => this.#notify(null, text),
    };
    this.#calendar = new Calendar({ goTo: (session) => actions.goTo(session, null), redraw: actions.redraw });
    this.#form = new RecallForm(context, () => this.#actions.feed()?.refresh(0));
    this.#ledger = new Ledger(context, (runId) => actions.goTo(this.#open?.recall.session_id ?? "", runId));
  }

  close(): void {
    this.#form.close();
    this.#ledger.close();
    this.#calendar.reset();
    this.#open = this.#message = this.#problem = null;
    this.#listed = LISTED;
  }

  render(): TemplateResult {
    const overview = this.#actions.feed()?.overview;
    return html`<div class="navi-overview-content" data-navi="overview-content">
      <div role="status" class="navi-overview-message" data-navi="overview-message">${this.#message ?? nothing}</div>
      <div role="alert" data-navi="overview-problem">${this.#problem === null ? nothing : html`<span class="navi-problem" dir="auto">${this.#problem}</span>`}</div>
      ${!overview || !this.#actions.feed()?.isWhole ? html`<p class="navi-none navi-late">${strings.loading}</p>` : isEmpty(overview) ? html`<p class="navi-none" data-navi="overview-none">${strings.overviewNone}</p>` : this.#content(overview)}
    </div>`;
  }

  #content(overview: RecallsOverview): TemplateResult {
    const { needs, active, past, recalls, coming, complete } = overview;
    const shown = new Set(needs.map(({ firing }) => firing.id));
    const running = active.filter(({ firing }) => !shown.has(firing.id));
    const soon = recalls.filter(({ next_at: at, status }) => at !== null && status !== "paused");
    const waiting = recalls.filter((recall) => !soon.includes(recall));
    return html`<div class="navi-overview-lists">
        ${this.#firings("needs", strings.overviewNeeds, needs)} ${this.#firings("active", strings.overviewActive, running)}
        ${this.#recalls("next", strings.overviewNext, soon, overview)}
        ${past.map((day, index) => {
          const rest = day.firings.filter(({ firing }) => !shown.has(firing.id));
          return this.#firings(`past-${index}`, pastDay(day.date, index), rest, strings.overviewDay(day.ran, day.failed, day.missed));
        })}
        ${this.#recalls("waiting", strings.overviewWaiting, waiting, overview)}
      </div>
      ${this.#calendar.render(coming, complete)}`;
  }

  #firings(group: string, title: string, entries: readonly OverviewFiring[], summary = ""): TemplateResult | typeof nothing {
    if (!entries.length) return nothing;
    return html`<section data-navi="overview-group" data-group=${group}>
      <h3>${title} ${summary ? html`<small>${summary}</small>` : nothing}</h3>
      <ul>${repeat(entries, ({ firing }) => firing.id, (entry) => firingRow(entry, group, summary !== "", this.#rowActions(group)))}</ul>
    </section>`;
  }

  #recalls(group: string, title: string, recalls: readonly Recall[], { words, sessions }: RecallsOverview): TemplateResult | typeof nothing {
    if (!recalls.length) return nothing;
    const rest = recalls.length - this.#listed;
    const more = (): void => {
      this.#listed += LISTED;
      this.#actions.redraw();
    };
    return html`<section data-navi="overview-group" data-group=${group}>
      <h3>${title}</h3>
      <ul>${repeat(recalls.slice(0, this.#listed), ({ id }) => id, (recall) => recallRow(recall, words[recall.id], sessions[recall.session_id], group, this.#rowActions(group)))}</ul>
      ${rest > 0 ? html`<button type="button" class="navi-link" data-navi="overview-more" @click=${more}>${strings.overviewMore(rest)}</button>` : nothing}
    </section>`;
  }

  #rowActions(group: string): RowActions {
    const isHere = (id: string | null | undefined): string | null => (id && this.#open?.group === group && this.#open.recall.id === id ? id : null);
    return {
      goTo: (session, runId) => this.#actions.goTo(session, runId),
      again: (id, title) => void this.#again(id, title),
      allow: (id, tools) => void runWithLeave(this.#actions, id, tools).then(() => this.#actions.feed()?.reload()),
      stop: (session, runId) => void stopRun({ ...this.#actions, problem: (text) => this.#notify(null, text) }, session, runId).then(() => this.#actions.feed()?.reload()),
      pause: ({ id }) => void this.#change("POST", `recalls/${encodeURIComponent(id)}/pause`),
      resume: ({ id }) => void this.#change("POST", `recalls/${encodeURIComponent(id)}/resume`),
      cancel: ({ id }) => void this.#change("DELETE", `recalls/${encodeURIComponent(id)}`),
      edit: (recall) => this.#edit(recall, group),
      history: (id) => void this.#history(id, group),
      historyOf: isHere(this.#ledger.of),
      formOf: isHere(this.#form.of),
      below: (id, place) => (this.#open?.recall.id === id && this.#open.group === place ? this.#below(this.#open.recall) : nothing),
    };
  }

  #below(recall: Recall): unknown {
    if (this.#form.of === recall.id) return this.#form.render();
    return this.#ledger.of === recall.id ? this.#ledger.render(recall, this.#words(recall)) : nothing;
  }

  #words({ id, schedule }: Recall): string {
    const words = this.#actions.feed()?.overview?.words[id];
    return scheduleWords(schedule, words);
  }

  #edit(recall: Recall, group: string): void {
    this.#notify(null, null);
    this.#ledger.close();
    this.#open = { recall, group };
    this.#form.open(recall, this.#words(recall));
  }

  async #history(id: string, group: string): Promise<void> {
    const isOpen = this.#ledger.of === id && this.#open?.group === group;
    this.#ledger.close();
    this.#form.close();
    this.#open = null;
    this.#notify(null, null);
    if (isOpen) return;
    const known = this.#actions.feed()?.overview?.recalls.find((recall) => recall.id === id);
    const recall = known ?? (await ask({ ...this.#actions, problem: (text) => this.#notify(null, text) }, "GET", `recalls/${encodeURIComponent(id)}`));
    if (!isRecall(recall)) return;
    this.#open = { recall, group };
    await this.#ledger.open(recall);
  }

  async #change(method: Method, path: string): Promise<void> {
    const { why } = await tryTo(this.#actions, method, path);
    this.#notify(null, why === null ? null : strings.failed(why));
    await this.#actions.feed()?.reload();
  }

  /** A recall that is over is run by a copy of it that is due at once. */
  async #again(id: string, title: string): Promise<void> {
    const transport = this.#actions.transport();
    const path = `recalls/${encodeURIComponent(id)}`;
    const fired = await transport?.request("POST", `${path}/fire`, {}).catch(() => null);
    const isOver = fired && isObject(fired.body) && fired.body["code"] === "recall_over";
    const done = isOver ? await transport?.request("POST", `${path}/clone`, { schedule: { kind: "once", in: "1s" } }).catch(() => null) : fired;
    const message = done && isObject(done.body) && typeof done.body["message"] === "string" ? done.body["message"] : strings.noServer;
    if (done && isOk(done)) this.#notify(strings.overviewStarted(title), null);
    else this.#notify(null, strings.failed(message));
    await this.#actions.feed()?.reload();
  }

  #notify(message: string | null, problem: string | null): void {
    this.#message = message;
    this.#problem = problem;
    this.#actions.redraw();
  }
}
