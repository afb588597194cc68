/** The dated copies that a recall's notebook has made: the way to each, and what it shows that the one before did not. */

import { html, nothing, type TemplateResult } from "lit";
import { isObject } from "../../protocol/frames.js";
import type { CellDiff, Recall, RecallResult, ResultDiff } from "../../protocol/generated.js";
import { diffRows, type DrawnLine } from "../conversation/diff.js";
import { fileLink } from "../lib/files.js";
import { strings } from "../lib/strings.js";
import { shortTime } from "../lib/time.js";
import { tryTo, type RequestContext } from "./requests.js";

/** The most that the server gives at once. */
const PAGE = 1000;

/** "runs report.ipynb", and the way to what it has made last; nothing for other recalls. */
export function jobText({ run, last_result: last }: Recall): TemplateResult | typeof nothing {
  if (run?.kind !== "notebook") return nothing;
  const link = last ? fileLink({ path: last, cell: null }, strings.jobLast, "recall-result") : nothing;
  return html`<span class="navi-job" data-navi="recall-job"><span dir="auto">${strings.jobRuns(run.path)}</span>${last ? html` · ${link}` : nothing}</span>`;
}

/** The results of the recall whose history is shown, by their runs. */
export class JobResults {
  readonly #context: RequestContext;
  #recallId: string | null = null;
  #results: readonly RecallResult[] = [];
  /** The run whose changes are shown, and what they are once that is known. */
  #changes: { readonly of: string; readonly found: Changes } | null = null;

  constructor(context: RequestContext) {
    this.#context = context;
  }

  close(): void {
    this.#recallId = this.#changes = null;
    this.#results = [];
  }

  /** `least`: how many firings are shown. */
  async load(recallId: string, least: number): Promise<void> {
    if (this.#recallId !== recallId) this.close();
    this.#recallId = recallId;
    const { body } = await tryTo(this.#context, "GET", `recalls/${encodeURIComponent(recallId)}/results?limit=${Math.min(least, PAGE)}`);
    if (this.#recallId === recallId && isObject(body) && Array.isArray(body["results"])) this.#results = body["results"] as readonly RecallResult[];
  }

  /** What can be done with the result of a run; nothing where it has none. */
  actions(runId: string | null): TemplateResult | typeof nothing {
    const at = runId === null ? -1 : this.#results.findIndex(({ run_id: of }) => of === runId);
    const result = this.#results[at];
    if (result === undefined) return nothing;
    const isOpen = this.#changes?.of === runId;
    const hasBefore = this.#results.slice(at + 1).some(({ exists }) => exists);
    return html`${result.exists ? fileLink({ path: result.path, cell: null }, strings.jobOpen, "result-open") : html`<span class="navi-none" data-navi="result-gone" title=${result.path}>${strings.jobGone}</span>`}
      ${result.exists && hasBefore
        ? html`<button type="button" class="navi-link" data-navi="result-changes" aria-expanded=${isOpen ? "true" : "false"} @click=${() => void this.#toggle(result.run_id)}>${strings.jobChanges}</button>`
        : nothing}`;
  }

  /** What is open below the row of a run. */
  below(runId: string | null): TemplateResult | typeof nothing {
    return this.#changes !== null && this.#changes.of === runId ? changesView(this.#changes.found) : nothing;
  }

  async #toggle(runId: string): Promise<void> {
    const recallId = this.#recallId;
    if (recallId === null) return;
    const isOpen = this.#changes?.of === runId;
    this.#changes = isOpen ? null : { of: runId, found: null };
    this.#context.redraw();
    if (isOpen) return;
    const found = await readChanges(this.#context, recallId, runId);
    if (this.#changes?.of !== runId) return;
    this.#changes = { of: runId, found };
    this.#context.redraw();
  }
}

/** What has changed, why that is not known, `first` where there is nothing to compare with, or null while it is being read. */
type Changes = ResultDiff | { readonly why: string } | "first" | null;

/** What has changed to the result of a run from the newest one before it whose file is still there. */
export async function readChanges(context: RequestContext, recallId: string, runId: string): Promise<Changes> {
  const path = `recalls/${encodeURIComponent(recallId)}/results`;
  const listed = await tryTo(context, "GET", `${path}?limit=${PAGE}`);
  const results = isObject(listed.body) && Array.isArray(listed.body["results"]) ? (listed.body["results"] as readonly RecallResult[]) : null;
  if (results === null) return { why: strings.failed(listed.why ?? strings.noServer) };
  const at = results.findIndex(({ run_id: of }) => of === runId);
  const old = results.slice(at + 1).find(({ exists }) => exists);
  if (at < 0 || old === undefined) return "first";
  const { body, why } = await tryTo(context, "GET", `${path}/diff?${new URLSearchParams({ new: runId, old: old.run_id }).toString()}`);
  if (why !== null) return { why: strings.failed(why) };
  return isObject(body) && Array.isArray(body["cells"]) ? (body as unknown as ResultDiff) : { why: strings.failed(strings.noServer) };
}

export function changesView(found: Changes): TemplateResult {
  if (found === null) return html`<p class="navi-none navi-late" role="status">${strings.loading}</p>`;
  if (found === "first") return html`<p class="navi-none" role="status" data-navi="result-diff">${strings.jobFirst}</p>`;
  if ("why" in found) return html`<p class="navi-problem" role="alert" dir="auto" data-navi="result-diff">${found.why}</p>`;
  const { cells, old, unchanged } = found;
  const before = shortTime(new Date(old.created_at));
  return html`<div class="navi-result-diff" data-navi="result-diff" role="group" aria-label=${strings.jobChanges}>
    <p class="navi-none">${cells.length ? strings.jobChanged(cells.length, unchanged, before) : strings.jobSame(before)}</p>
    ${cells.map((cell) => cellView(cell, found.new.path))}
  </div>`;
}

function cellView({ cell, number, source, diff, omitted }: CellDiff, path: string): TemplateResult {
  const name = number === null ? strings.jobCellGone : strings.jobCell(number);
  return html`<section>
    <h4>${number === null ? name : fileLink({ path, cell }, name, "result-cell")} <code dir="ltr">${source}</code></h4>
    <pre class="navi-diff" tabindex="0" role="group" aria-label=${name} dir="ltr">${diffRows(drawn(diff))}</pre>
    ${omitted ? html`<p class="navi-none">${strings.jobOmitted(omitted)}</p>` : nothing}
  </section>`;
}

/** The lines of a unified difference, its marks as kinds. What its heads name (source, or output) is said in words. */
function drawn(diff: string): readonly DrawnLine[] {
  const lines = diff.split("\n");
  return lines.flatMap((line, at): DrawnLine[] => {
    if (line === "--- source before" && lines[at + 1] === "+++ source now") return [{ kind: "far", content: ` ${strings.jobDiffSource}` }];
    if (line === "--- output before" && lines[at + 1] === "+++ output now") return [{ kind: "far", content: ` ${strings.jobDiffOutput}` }];
    if (/^\+\+\+ (?:source|output) now$/.test(line) && lines[at - 1]?.startsWith("--- ")) return [];
    if (line.startsWith("@@")) return lines[at - 1]?.startsWith("+++ ") ? [] : [{ kind: "far", content: "" }];
    return [{ kind: line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : "same", content: line.slice(1) }];
  });
}
