/** Below the call that executed a notebook: the way to its result, to the cell that failed, and to what has changed. */

import { html, nothing, type TemplateResult } from "lit";
import { isObject } from "../../protocol/frames.js";
import type { NotebookJob } from "../../protocol/generated.js";
import type { ChatState, ToolCall } from "../../state/model.js";
import { fileLink } from "../lib/files.js";
import { strings } from "../lib/strings.js";
import type { NotebookDraft } from "../overview/remind.js";

/** As the log has it: agents have no tool of this name. */
const TOOL = "run_notebook";
/** What a chat gets that is to show at `place` what has changed to the result of a run; it is empty where that is shown already. */
export const SHOW_CHANGES = "navi-show-changes";

export interface ChangesPlace {
  readonly runId: string;
  readonly place: HTMLElement;
}

/** The notebook that a run has executed; null: it answered a prompt. */
export function jobOf({ items }: ChatState, runId: string | null): NotebookDraft | null {
  const call = items.find((item): item is ToolCall => item.kind === "tool" && item.name === TOOL && item.runId === runId);
  const { path, parameters } = parsed(call?.args ?? "");
  return typeof path === "string" ? { path, ...(isObject(parameters) ? { parameters: parameters as NotebookJob["parameters"] } : {}) } : null;
}

export function jobResult({ name, runId, result }: ToolCall): TemplateResult | typeof nothing {
  if (name !== TOOL || !result?.startsWith("{")) return nothing;
  const { result: path, cell } = parsed(result);
  if (typeof path !== "string") return nothing;
  const change = ({ currentTarget }: Event): void => {
    const button = currentTarget as HTMLElement;
    const place = button.parentElement?.nextElementSibling;
    const isOpen = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(isOpen));
    if (!(place instanceof HTMLElement) || runId === null) return;
    place.hidden = !isOpen;
    if (isOpen) button.dispatchEvent(new CustomEvent<ChangesPlace>(SHOW_CHANGES, { bubbles: true, detail: { runId, place } }));
  };
  return html`<div class="navi-job-result" data-navi="job-result">
      ${fileLink({ path, cell: null }, strings.jobOpen, "result-open")} ${typeof cell === "string" ? fileLink({ path, cell }, strings.jobFailedCell, "result-cell") : nothing}
      <button type="button" class="navi-link" data-navi="result-changes" aria-expanded="false" @click=${change}>${strings.jobChanges}</button>
    </div>
    <div class="navi-job-changes" hidden></div>`;
}

function parsed(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}
