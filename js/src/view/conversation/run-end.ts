/** How runs end: quietly when they were stopped, else what went wrong, its code, and what to do. */

import { html, nothing, type TemplateResult } from "lit";
import type { RunEnd } from "../../state/model.js";
import { needed } from "../recalls/leave.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";

/** Where another model helps. */
const OF_THE_MODEL = /^(?:provider_|model_unavailable$|context_too_long$|content_refused$|attachment_unsupported$)/;

export interface EndActions {
  chooseModel(): void;
  /** Runs the recall that this run was of again, with leave for these tools; null for a run of none. */
  readonly allowAgain: ((tools: readonly string[]) => void) | null;
}

export function end({ code, message, runId, reached }: RunEnd, isRolledBack: boolean, { chooseModel, allowAgain }: EndActions): TemplateResult {
  const quiet = code === "cancelled";
  const known = strings.ends[code];
  return html`<div
    class="navi-end ${quiet ? "navi-end-quiet" : "navi-end-error"}"
    data-navi=${quiet ? "run-end" : "error"}
    data-code=${code}
    data-run-id=${runId}
  >
    ${quiet ? nothing : icons.warning}
    <div>
      <strong>${quiet ? strings.endCancelled : (known?.title ?? strings.endFailed)}</strong>
      ${quiet ? nothing : html`<code class="navi-code-name">${code}</code>`}
      ${message && message !== known?.title ? html`<div class="navi-text" dir="auto">${message}</div>` : nothing}
      ${reached.map(({ what, message: how }) => html`<div class="navi-reached" data-navi="reached">${how || strings.reached[what] || what}</div>`)}
      ${allowAgain === null ? nothing : needed(message, allowAgain)}
      ${isRolledBack ? html`<div class="navi-reached" data-navi="rolled-back">${strings.rolledBack}</div>` : nothing}
      ${known?.todo || OF_THE_MODEL.test(code)
        ? html`<div class="navi-todo">
            ${known?.todo}
            ${OF_THE_MODEL.test(code)
              ? html`<button type="button" class="navi-link" data-navi="choose-model" @click=${chooseModel}>${strings.chooseModel}</button>`
              : nothing}
          </div>`
        : nothing}
    </div>
  </div>`;
}
