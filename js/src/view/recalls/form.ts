/** The form of one recall: new, or an existing one to be changed. The meaning of a time is shown before it is saved. */

import { html, nothing, type TemplateResult } from "lit";
import { ref } from "lit/directives/ref.js";
import type { Policy, Preview, Recall } from "../../protocol/generated.js";
import { keepKey } from "../lib/keyboard-guard.js";
import { icons } from "../lib/icons.js";
import { JobForm } from "./job-form.js";
import { LeaveChoice } from "./leave-choice.js";
import { ask, isRecall, meaningOf, notifyTargets, type RequestContext } from "./requests.js";
import { boundsText, moment, worded } from "./time.js";
import { strings } from "../lib/strings.js";
import { language } from "../lib/language.js";
import { scheduleWords } from "../lib/schedule-words.js";
import { fullTime, withoutOwnZone } from "../lib/time.js";
import type { RecallDraft } from "../overview/remind.js";
import css from "../../style/recalls.css";
import { addStyle } from "../../style/install.js";
import "../../style/fields.js";

addStyle(css);

/** After the last key. */
const PAUSE = 300;
const BROWSER = "browser";
/** The most characters of a title that is made here. */
const TITLE = 80;

/** What the time that is written means: not known yet, nothing (with the reason), or this. */
type Meaning = { readonly text: string; readonly found: Preview | string | null };

export class RecallForm {
  readonly #context: RequestContext;
  readonly #done: (recall: Recall | null) => void;
  readonly #allow: LeaveChoice;
  readonly #job: JobForm;
  #recall: Recall | null = null;
  #words = "";
  #isOpen = false;
  #isSaving = false;
  #message = "";
  #when = "";
  #notify: ReadonlySet<string> = new Set();
  #targets: readonly string[] = [];
  #meaning: Meaning = { text: "", found: null };
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Why it was not saved. */
  #refused: string | null = null;
  /** Whether the first field is to have the focus once it is there. */
  #isNew = false;
  /** The first field. */
  #field: HTMLElement | null = null;
  /** Begun with a message: the time has the focus, where Enter makes the recall. */
  #isProposed = false;
  /** What had the focus before. */
  #from: HTMLElement | null = null;

  /** `done` gets what was saved; null when the form was left. */
  constructor(context: RequestContext, done: (recall: Recall | null) => void) {
    this.#context = {
      ...context,
      problem: (text) => {
        this.#refused = text;
        context.redraw();
      },
    };
    this.#done = done;
    this.#allow = new LeaveChoice(this.#context);
    this.#job = new JobForm(this.#context);
  }

  /** The recall that is being changed; null for a new one, undefined when there is no form. */
  get of(): string | null | undefined {
    return this.#isOpen ? (this.#recall?.id ?? null) : undefined;
  }

  /** `words`: the schedule as it is. */
  open(recall: Recall | null, words = ""): void {
    clearTimeout(this.#timer);
    if (!this.#isOpen) this.#from = document.activeElement instanceof HTMLElement ? document.activeElement : null;
    this.#isNew = true;
    this.#isProposed = false;
    this.#refused = null;
    this.#recall = recall;
    this.#words = words;
    this.#isOpen = true;
    this.#isSaving = false;
    this.#message = recall?.message ?? "";
    this.#when = "";
    this.#notify = new Set(recall?.policy.notify);
    this.#meaning = { text: "", found: null };
    this.#allow.open(recall?.allow);
    this.#job.open(recall?.run, recall?.policy.timeout);
    void notifyTargets(this.#context).then((targets) => {
      this.#targets = targets;
      this.#context.redraw();
    });
    this.#context.redraw();
  }

  /** A new recall that needs only to be confirmed. */
  propose({ message, when, job }: RecallDraft): void {
    this.open(null);
    if (job) this.#job.choose(job);
    this.#isProposed = true;
    this.#message = message;
    this.#when = when;
    if (when) void this.#understand();
    this.#context.redraw();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#job.close();
    this.#isOpen = false;
    this.#recall = null;
    this.#refused = null;
  }

  /** Back to where the user was; to the panel where that is covered by it. */
  #giveBack(): void {
    const from = this.#from;
    if (from?.isConnected && !from.closest("[inert]")) from.focus();
    else this.#field?.closest(".navi-overlay-body")?.querySelector<HTMLElement>("button")?.focus();
    this.#from = this.#field = null;
  }

  /** The keyboard goes where the form has opened. The element is not in the document yet. */
  readonly #appeared = (element?: Element): void => {
    if (!element || !this.#isNew) return;
    this.#isNew = false;
    this.#field = element as HTMLElement;
    setTimeout(() => this.#field?.focus());
  };

  render(): TemplateResult {
    const recall = this.#recall;
    const label = recall ? strings.recallEdit(recall.title) : strings.recallNew;
    const now = recall ? [this.#words || scheduleWords(recall.schedule), ...boundsText({ ...recall.policy, notify: [] })].join(", ") : "";
    const first = this.#isProposed ? undefined : this.#appeared;
    const hint = recall ? strings.recallWhenKeep(now) : strings.recallWhenHint;
    return html`<form class="navi-recall-form" data-navi="recall-form" aria-label=${label} @submit=${this.#submit} @keydown=${this.#keydown}>
      ${this.#job.render(first)} ${this.#job.isOn ? nothing : this.#messageField(first)}
      <label>
        <span>${strings.recallWhen}</span>
        <input type="text" data-navi="recall-when" maxlength="300" autocomplete="off" dir="auto" placeholder=${hint} ${ref(this.#isProposed ? this.#appeared : undefined)} ?required=${!recall} .value=${this.#when} @input=${this.#timed} />
      </label>
      <div class="navi-meaning" data-navi="recall-meaning" role="status" data-ok=${this.#understood ? "yes" : "no"}>${this.#meaningText()}</div>
      ${this.#job.asks ? this.#allow.render() : html`<p class="navi-none">${strings.jobLeave}</p>`} ${this.#tell()}
      <div role="alert" data-navi="recall-refused">${this.#refused === null ? nothing : html`<span class="navi-problem" dir="auto">${this.#refused}</span>`}</div>
      <div class="navi-form-actions">
        <button type="submit" class="navi-button" data-navi="recall-save" ?disabled=${!this.#canSave}>${recall ? strings.recallSave : strings.recallMake}</button>
        <button type="button" class="navi-link" data-navi="recall-back" @click=${() => this.#leave()}>${strings.back}</button>
      </div>
    </form>`;
  }

  #messageField(first: ((element?: Element) => void) | undefined): TemplateResult {
    return html`<label>
        <span>${strings.recallWhat}</span>
        <textarea data-navi="recall-message" rows="2" maxlength="20000" required dir="auto" ${ref(first)} .value=${this.#message} @input=${this.#wrote}></textarea>
      </label>
      ${this.#job.offer(this.#message)}`;
  }

  #tell(): TemplateResult {
    const names = [...new Set([BROWSER, ...this.#targets, ...this.#notify])];
    return html`<fieldset class="navi-tell">
      <legend>${strings.recallTell}</legend>
      ${names.map(
        (name) => html`<label>
          <input type="checkbox" data-navi="recall-notify" value=${name} .checked=${this.#notify.has(name)} @change=${this.#chose} />
          <span>${name === BROWSER ? strings.recallTellBrowser : name}</span>
        </label>`,
      )}
    </fieldset>`;
  }

  get #understood(): Preview | null {
    const { text, found } = this.#meaning;
    return text === this.#when.trim() && found !== null && typeof found !== "string" ? found : null;
  }

  get #canSave(): boolean {
    if (this.#isSaving || !this.#job.isValid || !(this.#job.isOn || this.#message.trim())) return false;
    return this.#when.trim() ? this.#understood !== null : this.#recall !== null;
  }

  #meaningText(): unknown {
    const { text, found } = this.#meaning;
    if (!this.#when.trim()) return nothing;
    if (found === null || text !== this.#when.trim()) return strings.recallUnderstanding;
    if (typeof found === "string") return html`<span class="navi-problem" data-navi="recall-problem" dir="auto">${found}</span>`;
    const { times, warnings } = found;
    return html`<b>${strings.recallMeaning}:</b> <span data-navi="recall-parsed">${worded(meaningWords(found))}</span>
      ${times.length ? html`<div>${strings.recallNextTimes}: ${times.map((at, index) => html`${index ? ", " : nothing}${moment(at)}`)}</div>` : nothing}
      ${warnings.map((warning) => html`<div class="navi-warning" data-navi="recall-warning">${icons.warning}<span>${worded(warning)}</span></div>`)}`;
  }

  readonly #wrote = (event: Event): void => {
    this.#message = (event.target as HTMLTextAreaElement).value;
    this.#context.redraw();
  };

  readonly #timed = (event: Event): void => {
    this.#when = (event.target as HTMLInputElement).value;
    clearTimeout(this.#timer);
    if (this.#when.trim()) this.#timer = setTimeout(() => void this.#understand(), PAUSE);
    this.#context.redraw();
  };

  async #understand(): Promise<void> {
    const text = this.#when.trim();
    const found = await meaningOf(this.#context, text);
    if (text !== this.#when.trim()) return; // another one is on its way
    this.#meaning = { text, found };
    this.#context.redraw();
  }

  readonly #chose = (event: Event): void => {
    const { value, checked } = event.target as HTMLInputElement;
    const names = new Set(this.#notify);
    if (checked) names.add(value);
    else names.delete(value);
    this.#notify = names;
    this.#context.redraw();
  };

  readonly #keydown = (event: KeyboardEvent): void => {
    keepKey(event);
    if (event.key !== "Escape") return;
    event.preventDefault();
    this.#leave();
  };

  #leave(): void {
    this.#giveBack();
    this.close();
    this.#done(null);
    this.#context.redraw();
  }

  readonly #submit = (event: Event): void => {
    event.preventDefault();
    if (this.#canSave) void this.#save();
  };

  async #save(): Promise<void> {
    const recall = this.#recall;
    const { run, isOn } = this.#job;
    const isOther = run?.kind === "notebook" && !(recall?.run?.kind === "notebook" && recall.run.path === run.path);
    const message = isOther ? `Run ${run.path}` : isOn ? (recall?.message ?? "") : this.#message.trim(); // as the server names one
    // What names a recall until its user names it otherwise.
    const title = recall && run !== null && message !== recall.message && recall.title === recall.message.slice(0, recall.title.length) ? { title: message.slice(0, TITLE) } : {};
    const understood = this.#when.trim() ? this.#understood : null;
    const policy = this.#policy(recall, understood);
    const allow = this.#allow.chosen;
    this.#refused = null;
    this.#isSaving = true;
    this.#context.redraw();
    const saved = recall
      ? await ask(this.#context, "PATCH", `recalls/${encodeURIComponent(recall.id)}`, {
          ...(message === recall.message ? {} : { message, ...title }),
          ...(run === null ? {} : { run }),
          ...(understood ? { schedule: understood.schedule } : {}),
          ...(policy === null ? {} : { policy }),
          ...(allow.join() === (recall.allow ?? []).join() ? {} : { allow }),
        })
      : await ask(this.#context, "POST", "recalls", {
          session_id: this.#context.session(),
          ...(run === null ? { message } : { run }),
          schedule: understood?.schedule,
          policy,
          ...(allow.length && this.#job.asks ? { allow } : {}),
        });
    this.#isSaving = false;
    if (isRecall(saved)) {
      this.#giveBack();
      this.close();
      this.#done(saved);
    }
    this.#context.redraw();
  }

  /** The policy to store: the present one with the bounds of the new time and the notification targets; null when unchanged. */
  #policy(recall: Recall | null, understood: Preview | null): Policy | null {
    const notify = [...this.#notify];
    const { until = null, max_fires = null } = understood?.policy ?? {};
    const bounds = { ...(until === null ? {} : { until }), ...(max_fires === null ? {} : { max_fires }) };
    const base = recall?.policy ?? understood?.policy;
    if (!base) return null;
    const timeout = this.#job.isOn ? this.#job.timeout : (base.timeout ?? null);
    const isSame = notify.join() === (base.notify ?? []).join() && timeout === (base.timeout ?? null) && !Object.keys(bounds).length;
    return recall && isSame ? null : { ...base, ...bounds, timeout, notify };
  }
}

/** What a time means; in English in the server's words. */
function meaningWords({ meaning, schedule, policy }: Preview): string {
  if (language() === "en") return withoutOwnZone(meaning);
  const words = schedule.kind === "once" ? fullTime(new Date(schedule.at)) : scheduleWords(schedule);
  return [words, ...boundsText({ ...policy, notify: [] })].join(" · ");
}
