/** What became of each slot of one recall: the ledger, newest first. */

import { html, nothing, type TemplateResult } from "lit";
import { repeat } from "lit/directives/repeat.js";
import type { Firing, Recall } from "../../protocol/generated.js";
import { needed, runWithLeave } from "./leave.js";
import { JobResults } from "./results.js";
import { history, type RequestContext } from "./requests.js";
import { boundsText, lateness, moment, worded } from "./time.js";
import { strings, textOf } from "../lib/strings.js";
import { fullTime } from "../lib/time.js";

export class Ledger {
  readonly #context: RequestContext;
  readonly #show: (runId: string) => void;
  readonly #results: JobResults;
  #recallId: string | null = null;
  #isJob = false;
  #firings: readonly Firing[] | null = null;
  #next: string | null = null;
  #reading: Promise<void> = Promise.resolve();

  constructor(context: RequestContext, show: (runId: string) => void) {
    this.#context = context;
    this.#show = show;
    this.#results = new JobResults(context);
  }

  get of(): string | null {
    return this.#recallId;
  }

  close(): void {
    this.#recallId = this.#firings = this.#next = null;
    this.#results.close();
  }

  async open({ id, run }: Recall): Promise<void> {
    if (this.#recallId !== id) this.close();
    this.#recallId = id;
    this.#isJob = run?.kind === "notebook";
    this.#context.redraw();
    await this.refresh();
  }

  /** Reads again what is shown, as far as it was shown. */
  refresh(): Promise<void> {
    return this.#inTurn(() => this.#load(null));
  }

  /** As many again as there are: a long history is soon there. */
  #more(): Promise<void> {
    return this.#inTurn(() => (this.#next === null ? Promise.resolve() : this.#load(this.#next)));
  }

  /** One after the other: rows that came in between would leave a gap before the page that is added. */
  #inTurn(read: () => Promise<void>): Promise<void> {
    return (this.#reading = this.#reading.then(read));
  }

  async #load(cursor: string | null): Promise<void> {
    const recallId = this.#recallId;
    if (recallId === null) return;
    const page = await history(this.#context, recallId, cursor, this.#firings?.length);
    if (page === null || recallId !== this.#recallId) return;
    this.#firings = cursor === null ? page.firings : [...(this.#firings ?? []), ...page.firings];
    this.#next = page.next;
    // A firing may have had several runs, and each a result.
    if (this.#isJob) await this.#results.load(recallId, 2 * this.#firings.length + 10);
    this.#context.redraw();
  }

  /** `words`: the schedule. */
  render(recall: Recall, words: string): TemplateResult {
    const firings = this.#firings;
    const facts = [words, ...boundsText(recall.policy)].filter(Boolean);
    return html`<div class="navi-ledger" data-navi="ledger" role="group" tabindex="0" aria-label=${strings.recallHistory(recall.title)}>
      ${recall.message === recall.title ? nothing : html`<div class="navi-text navi-recall-message" data-navi="recall-whole" dir="auto" lang="">${recall.message}</div>`}
      <p class="navi-none">${worded(facts.join(" · "))} · <code>${recall.id.slice(-4)}</code></p>
      ${firings === null
        ? html`<p class="navi-none navi-late">${strings.loading}</p>`
        : firings.length
          ? html`<ul>${repeat(firings, ({ id }) => id, (firing) => this.#row(firing))}</ul>`
          : html`<p class="navi-none">${strings.recallNoHistory}</p>`}
      ${this.#next === null
        ? nothing
        : html`<button type="button" class="navi-link" data-navi="ledger-more" @click=${() => void this.#more()}>${strings.more}</button>`}
    </div>`;
  }

  #row(firing: Firing): TemplateResult {
    const { slot, status, run_id: runId } = firing;
    const show = runId === null
      ? nothing
      : html`<button type="button" class="navi-link" data-navi="ledger-run" data-run-id=${runId} aria-label=${strings.recallShowRunAt(fullTime(new Date(slot)))} @click=${() => this.#show(runId)}>
          ${strings.recallShowRun}
        </button>`;
    return html`<li data-navi="firing" data-status=${status}>
      ${moment(slot)} <b class="navi-firing-status">${textOf(strings.firingStatus, status) ?? status}</b>
      <span class="navi-text" dir="auto">${details(firing).join(" · ")}</span>
      ${firing === this.#firings?.[0] ? needed(firing.reason, (tools) => void runWithLeave(this.#context, firing.recall_id, tools)) : nothing} ${show} ${this.#results.actions(runId)}
      ${this.#results.below(runId)}
    </li>`;
  }
}

/** What is worth saying about a firing besides its slot and status. */
export function details(firing: Firing): string[] {
  const { kind, reason, lateness_ms: late, attempts, coalesced, delivery, delivery_error: undelivered } = firing;
  const delivered = textOf(strings.recallDelivery, delivery) ?? "";
  return [
    kind === "manual" ? strings.recallManual : kind === "event" ? strings.recallEvent : null,
    reason,
    lateness(late),
    attempts.length > 1 ? strings.recallAttempt(attempts.length) : null,
    coalesced > 0 ? strings.recallCoalesced(coalesced) : null,
    delivered && undelivered ? `${delivered}: ${undelivered}` : delivered,
  ].filter((part): part is string => Boolean(part));
}
