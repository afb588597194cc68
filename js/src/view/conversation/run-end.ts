/** How runs end: quietly when they were stopped, with a notice about the answer, or with what went wrong; and what to do. */

import { html, nothing, type TemplateResult } from "lit";
import type { RunEnd } from "../../state/model.js";
import { needed } from "../recalls/leave.js";
import { icons } from "../lib/icons.js";
import { english, strings, textOf } from "../lib/strings.js";

/** Where another model helps. */
const OF_THE_MODEL = /^(?:provider_|model_unavailable$|context_too_long$|content_refused$|attachment_unsupported$)/;

/** The run completed, and its answer is not what it should be. */
const OF_THE_ANSWER = /^answer_(?:cut|filtered|empty)$/;

export interface EndActions {
  /** Null where the user cannot. */
  readonly chooseModel: (() => void) | null;
  /** Runs the recall that this run was of again, with leave for these tools; null for a run of none. */
  readonly allowAgain: ((tools: readonly string[]) => void) | null;
  /** Sends its prompt once more; null where that cannot be. */
  readonly retry: (() => void) | null;
}

export function end({ code, message, runId, reached }: RunEnd, isRolledBack: boolean, { chooseModel, allowAgain, retry }: EndActions): TemplateResult {
  const quiet = code === "cancelled";
  const known = textOf(strings.ends, code);
  const canChoose = OF_THE_MODEL.test(code) && chooseModel !== null;
  const look = quiet ? "quiet" : OF_THE_ANSWER.test(code) ? "notice" : "error";
  return html`<div
    class="navi-end navi-end-${look}"
    data-navi=${quiet ? "run-end" : look}
    role=${look === "notice" ? "note" : nothing}
    data-code=${code}
    data-run-id=${runId}
  >
    ${quiet ? nothing : icons.warning}
    <div>
      <strong>${quiet ? strings.endCancelled : (known?.title ?? strings.endFailed)}</strong>
      ${quiet ? nothing : html`<code class="navi-code-name">${code}</code>`}
      ${message && message !== textOf(english.ends, code)?.title ? html`<div class="navi-text" dir="auto" lang="">${message}</div>` : nothing}
      ${reached.map(({ what, message: how }) => html`<div class="navi-reached" data-navi="reached">${how || textOf(strings.reached, what) || what}</div>`)}
      ${allowAgain === null ? nothing : needed(message, allowAgain)}
      ${isRolledBack ? html`<div class="navi-reached" data-navi="rolled-back">${strings.rolledBack}</div>` : nothing}
      ${known?.todo || canChoose || retry
        ? html`<div class="navi-todo">
            ${known?.todo} ${retry ? html`<button type="button" class="navi-link" data-navi="retry" @click=${retry}>${strings.retryRun}</button>` : nothing}
            ${canChoose
              ? html`<button type="button" class="navi-link" data-navi="choose-model" @click=${chooseModel}>${strings.chooseModel}</button>`
              : nothing}
          </div>`
        : nothing}
    </div>
  </div>`;
}
