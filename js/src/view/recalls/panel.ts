/** The session's recalls: each with its next time, its state and how it went last, and what can be done about it. */

import { html, nothing, type TemplateResult } from "lit";
import { repeat } from "lit/directives/repeat.js";
import type { Method } from "../../connection/transport.js";
import { isObject } from "../../protocol/frames.js";
import type { Recall } from "../../protocol/generated.js";
import type { ChatState } from "../../state/model.js";
import { isOpen, openRecalls, pastRecalls } from "../../state/select.js";
import { icons } from "../lib/icons.js";
import { Exchange } from "./import-export.js";
import { RecallForm } from "./form.js";
import { recallIcons } from "./icons.js";
import { needed, neededTools, runWithLeave } from "./leave.js";
import { leaveText } from "./leave-choice.js";
import { Ledger } from "./ledger.js";
import { jobText } from "./results.js";
import { ask, isRecall, readSummaries, stopRun, type RequestContext, type RecallSummaries } from "./requests.js";
import { moment, worded } from "./time.js";
import type { RecallDraft } from "../overview/remind.js";
import { strings, textOf } from "../lib/strings.js";
import { scheduleWords } from "../lib/schedule-words.js";
import { clockThere, shortTime } from "../lib/time.js";

/** So many that are over are shown, and each "more" shows as many again. */
const PAST = 20;
const NO_SUMMARIES: RecallSummaries = { last: {}, words: {} };
/** The place of what is not about one recall. */
const BAR = "";
/** The log tells of several changes at once. */
const SETTLE = 250;

export interface PanelActions extends RequestContext {
  /** Leads to a run's messages. */
  showRun(runId: string): void;
}

export class RecallsPanel {
  readonly #actions: PanelActions;
  readonly #ledger: Ledger;
  readonly #form: RecallForm;
  readonly #exchange: Exchange;
  #summaries: RecallSummaries = NO_SUMMARIES;
  #past = PAST;
  /** What did not work, and for which recall: it is shown where it was tried. */
  #refused: { readonly at: string; readonly text: string } | null = null;
  #message: string | null = null;
  /** The form was opened from an answer. */
  #isProposed = false;
  /** The zone that the user chose: what they wrote is on its clock. Empty: the browser's. */
  #zone = "";
  /** The recalls that `#summaries` was read for. */
  #read: ChatState["recalls"] | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(actions: PanelActions) {
    this.#actions = actions;
    this.#ledger = new Ledger(this.#at(() => this.#ledger.of ?? BAR), (runId) => actions.showRun(runId));
    this.#form = new RecallForm(actions, (recall) => {
      if (!recall) return;
      this.#read = null;
      if (this.#isProposed) this.#message = recall.next_at === null ? strings.recallMade : strings.recallMadeFor(shortTime(new Date(recall.next_at)));
      this.#isProposed = false;
    });
    this.#exchange = new Exchange(this.#at(() => BAR), (text) => {
      this.#refused = null;
      this.#message = text;
    });
  }

  reset(): void {
    clearTimeout(this.#timer);
    this.#ledger.close();
    this.#form.close();
    this.#exchange.close();
    this.#summaries = NO_SUMMARIES;
    this.#past = PAST;
    this.#message = this.#read = this.#refused = null;
  }

  /** Opens the form of a new recall with what it is to begin with. */
  propose(draft: RecallDraft): void {
    this.#refused = this.#message = null;
    this.#form.propose(draft);
    this.#isProposed = true;
  }

  /** Requests made at one place of the panel: their problems are shown there. */
  #at(place: () => string): RequestContext {
    return {
      ...this.#actions,
      problem: (text) => {
        this.#refused = { at: place(), text };
        this.#actions.redraw();
      },
    };
  }

  async #ask(recallId: string, method: Method, path: string, body?: unknown): Promise<unknown> {
    this.#begin();
    return ask(this.#at(() => recallId), method, path, body);
  }

  /** Something else is tried: what went wrong before is no longer shown. */
  #begin(): void {
    if (this.#refused !== null) this.#actions.redraw();
    this.#refused = this.#message = null;
  }

  render(state: ChatState, isShown: boolean): TemplateResult {
    if (isShown) this.#keepUp(state);
    this.#zone = state.session?.zoneSource === "chosen" ? state.session.timezone : "";
    const open = openRecalls(state);
    const past = pastRecalls(state);
    return html`
      ${this.#bar(open)} ${this.#problem(BAR)} ${this.#exchange.render()} ${this.#form.of === null ? this.#form.render() : nothing}
      ${open.length ? this.#list(open) : html`<p class="navi-none">${past.length ? strings.recallNoneOpen : strings.noRecalls}</p>`}
      ${past.length
        ? html`<details class="navi-past" ?open=${past.some(({ id }) => id === this.#form.of)}>
            <summary>${icons.chevron}<span>${strings.pastRecalls} (${past.length})</span></summary>
            ${this.#list(past.slice(0, this.#past))}
            ${past.length > this.#past
              ? html`<button type="button" class="navi-link" data-navi="past-more" @click=${this.#morePast}>${strings.recallMorePast(past.length - this.#past)}</button>`
              : nothing}
          </details>`
        : nothing}
    `;
  }

  #problem(place: string): TemplateResult {
    const { at, text } = this.#refused ?? { at: null, text: "" };
    return html`<div role="alert" data-navi="recalls-problem">${at === place ? html`<span class="navi-problem" dir="auto">${text}</span>` : nothing}</div>`;
  }

  readonly #morePast = (): void => {
    this.#past *= 2;
    this.#actions.redraw();
  };

  /** Reads the recalls' last firings when the log has a change. */
  #keepUp({ recalls, head }: ChatState): void {
    if (this.#read === recalls || head === null || !Object.keys(recalls).length) return;
    this.#read = recalls;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#load(), SETTLE);
  }

  async #load(): Promise<void> {
    const session = this.#actions.session();
    const [summaries] = await Promise.all([readSummaries(this.#actions), this.#ledger.refresh()]);
    if (summaries === null || session !== this.#actions.session()) return;
    this.#summaries = summaries;
    this.#actions.redraw();
  }

  #bar(open: readonly Recall[]): TemplateResult {
    const isPaused = open.length > 0 && open.every(({ status }) => status === "paused");
    return html`<div class="navi-recalls-bar">
      <button type="button" class="navi-link" data-navi="recall-new" @click=${() => this.#open(null)}>${strings.recallNew}</button>
      ${open.length > 1
        ? html`<button type="button" class="navi-link" data-navi=${isPaused ? "recall-resume-all" : "recall-pause-all"} @click=${() => void this.#all(isPaused ? "resume" : "pause")}>
            ${isPaused ? strings.recallResumeAll : strings.recallPauseAll}
          </button>`
        : nothing}
      ${this.#exchange.buttons(open.length > 0)}
      <span role="status" class="navi-late" data-navi="recalls-said">${this.#message ?? nothing}</span>
    </div>`;
  }

  async #all(action: "pause" | "resume"): Promise<void> {
    const session = encodeURIComponent(this.#actions.session() ?? "");
    const answer = await this.#ask(BAR, "POST", `recalls/${action}?session_id=${session}`);
    if (!isObject(answer)) return;
    const count = Number(answer["changed"] ?? 0);
    this.#message = action === "pause" ? strings.recallPausedAll(count) : strings.recallResumedAll(count);
    this.#actions.redraw();
  }

  #list(recalls: readonly Recall[]): TemplateResult {
    return html`<ul>
      ${repeat(recalls, ({ id }) => id, (recall) => this.#row(recall))}
    </ul>`;
  }

  #row(recall: Recall): TemplateResult {
    const { id, status, title, message } = recall;
    return html`<li data-navi="recall" data-recall-id=${id} data-status=${status} class="navi-recall-item">
      <div class="navi-recall" data-status=${status}>
        <span class="navi-recall-title" title=${message} dir="auto">${title}</span>
        <span class="navi-recall-when">${this.#when(recall)}</span>
        <span class="navi-recall-actions">${this.#buttons(recall)}</span>
      </div>
      ${jobText(recall)} ${leaveText(recall.allow)} ${this.#lacking(recall)} ${this.#problem(id)} ${this.#form.of === id ? this.#form.render() : nothing}
      ${this.#ledger.of === id ? this.#ledger.render(recall, this.#words(recall)) : nothing}
    </li>`;
  }

  /** That its last run needed leave that it did not have. */
  #lacking({ id }: Recall): TemplateResult | typeof nothing {
    const last = this.#summaries.last[id];
    if (!last || last.status !== "failed" || !neededTools(last.reason).length) return nothing;
    const again = (tools: readonly string[]): void => {
      this.#begin();
      void runWithLeave(this.#at(() => id), id, tools);
    };
    return html`<div class="navi-lacking" data-navi="recall-lacking">${icons.warning}<span dir="auto">${strings.recallLast(last.reason ?? "")}</span> ${needed(last.reason, again)}</div>`;
  }

  #buttons(recall: Recall): unknown {
    const { id, status, title } = recall;
    const path = `recalls/${encodeURIComponent(id)}`;
    const post = (action: string) => (): void => void this.#ask(id, "POST", `${path}/${action}`);
    const button = (name: string, label: string, icon: TemplateResult, act: () => void, isExpanded?: boolean): TemplateResult =>
      html`<button type="button" class="navi-icon-button" data-navi=${`recall-${name}`} aria-label=${label} title=${label} aria-expanded=${isExpanded ?? nothing} @click=${act}>${icon}</button>`;
    const always = [
      button("clone", strings.recallClone(title), recallIcons.copy, () => void this.#clone(recall)),
      button("history", strings.recallHistory(title), recallIcons.list, () => this.#toggleLedger(recall), this.#ledger.of === id),
    ];
    if (!isOpen(recall)) return always;
    const last = this.#summaries.last[id];
    const stop = (): void => void (last?.run_id && stopRun(this.#at(() => id), recall.session_id, last.run_id));
    return [
      ...(status === "running" && last?.run_id && last.status === "running" ? [button("stop", strings.recallStop(title), icons.stop, stop)] : []),
      button("fire", strings.recallFire(title), icons.fire, post("fire")),
      status === "paused"
        ? button("resume", strings.recallResume(title), icons.play, post("resume"))
        : button("pause", strings.recallPause(title), icons.pause, post("pause")),
      ...(recall.allow?.length ? [button("revoke", strings.leaveRevoke(title), recallIcons.revoke, () => void this.#ask(id, "PATCH", path, { allow: [] }))] : []),
      button("edit", strings.recallEdit(title), icons.edit, () => this.#open(recall), this.#form.of === id),
      ...always,
      button("cancel", strings.recallCancel(title), icons.close, () => void this.#ask(id, "DELETE", path)),
    ];
  }

  #open(recall: Recall | null, words = recall ? this.#words(recall) : ""): void {
    this.#refused = this.#message = null;
    this.#form.open(recall, words);
  }

  #toggleLedger(recall: Recall): void {
    if (this.#ledger.of === recall.id) {
      this.#ledger.close();
      this.#actions.redraw();
    } else {
      void this.#ledger.open(recall);
    }
  }

  /** The copy is opened to be changed. */
  async #clone(recall: Recall): Promise<void> {
    const { id } = recall;
    const copy = await this.#ask(id, "POST", `recalls/${encodeURIComponent(id)}/clone`);
    if (isRecall(copy)) this.#open(copy, this.#words(recall));
  }

  /** The schedule in words; as it is stored until the server has answered with the words. */
  #words({ id, schedule }: Recall): string {
    const known = this.#summaries.words[id];
    return scheduleWords(schedule, known?.of === JSON.stringify(schedule) ? known.text : undefined);
  }

  /** What matters most comes first: a narrow view shows only the beginning. */
  #when(recall: Recall): unknown {
    const { id, status, schedule, next_at: nextAt, last_at: lastAt } = recall;
    const parts: unknown[] = [];
    if (status === "pending" && nextAt !== null) {
      parts.push(html`<span class="navi-countdown" data-due=${Date.parse(nextAt)}></span>`, moment(nextAt));
    } else {
      const isWaiting = status === "pending" && schedule.kind === "when";
      parts.push(html`<span class="navi-recall-status">${isWaiting ? strings.recallWaiting : strings.recallStatus[status]}</span>`);
      if (schedule.kind === "once" && status === "paused") parts.push(moment(schedule.at));
      else if (lastAt !== null && status !== "paused" && !isWaiting) parts.push(moment(lastAt));
    }
    if (schedule.kind !== "once") parts.push(worded(this.#words(recall)));
    else if (status === "pending" || status === "paused") parts.push(...[clockThere(new Date(schedule.at), this.#zone)].filter(Boolean));
    const last = this.#summaries.last[id];
    if (last && schedule.kind !== "once" && !neededTools(last.reason).length) {
      const how = [textOf(strings.firingStatus, last.status) ?? last.status, last.reason].filter(Boolean).join(", ");
      parts.push(html`<span data-navi="recall-last" data-status=${last.status} dir="auto">${strings.recallLast(how)}</span>`);
    }
    return parts.map((part, index) => html`${index ? " · " : nothing}${part}`);
  }
}
