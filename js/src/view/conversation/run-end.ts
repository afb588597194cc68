/** How runs end: quietly when they were stopped, with a notice about the answer, or with what went wrong; and what to do. */

import { html, nothing, type TemplateResult } from "lit";
import type { RunEnd } from "../../state/model.js";
import { needed } from "../recalls/leave.js";
import { writeClipboard } from "../lib/copy.js";
import { icons } from "../lib/icons.js";
import { english, strings, textOf } from "../lib/strings.js";

/** Where another model helps. */
const OF_THE_MODEL = /^(?:provider_|agent_|model_unavailable$|context_too_long$|content_refused$|attachment_unsupported$)/;

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

/** What the server says is the line itself: which cell, which model. */
const SAYS_IT_ITSELF = /^(?:notebook_|model_unavailable$|answer_)/;
/** The command that the server names, and not one in the words of the agent program. */
const LOGIN = /Log in with: `([^`\n]+)`$/;
/** A line has as many characters of it. */
const LONGEST_LINE = 240;

/** One line, with what helps beside it; the rest is folded away. */
export function end({ code, message, runId, reached }: RunEnd, isRolledBack: boolean, { chooseModel, allowAgain, retry }: EndActions): TemplateResult {
  const quiet = code === "cancelled";
  const known = textOf(strings.ends, code);
  const canChoose = OF_THE_MODEL.test(code) && chooseModel !== null;
  const look = quiet ? "quiet" : OF_THE_ANSWER.test(code) ? "notice" : "error";
  const [first = ""] = message.trim().split("\n");
  const line = quiet ? strings.endCancelled : message && (known === undefined || SAYS_IT_ITSELF.test(code)) ? first.slice(0, LONGEST_LINE) : (known?.title ?? strings.endFailed);
  const rest = message.trim() === line || message === textOf(english.ends, code)?.title ? "" : message;
  const todo = known?.todo ?? "";
  const login = code === "agent_login_needed" ? LOGIN.exec(message)?.[1] : undefined;
  return html`<div
    class="navi-end navi-end-${look}"
    data-navi=${quiet ? "run-end" : look}
    role=${look === "notice" ? "note" : nothing}
    data-code=${code}
    data-run-id=${runId}
  >
    ${quiet ? nothing : icons.warning}
    <div>
      <span class="navi-end-line"
        ><strong dir="auto" lang=${line === first ? "" : nothing}>${line}</strong>
        ${retry ? html`<button type="button" class="navi-link" data-navi="retry" @click=${retry}>${strings.retryRun}</button>` : nothing}
        ${canChoose && code === "provider_auth" ? html`<button type="button" class="navi-link" data-navi="check-key" @click=${chooseModel}>${strings.checkKey}</button>` : nothing}
        ${canChoose ? html`<button type="button" class="navi-link" data-navi="choose-model" @click=${chooseModel}>${strings.switchModel}</button>` : nothing}</span
      >
      ${login ? html`<div class="navi-end-line" data-navi="login-command"><code class="navi-code-name">${login}</code> <button type="button" class="navi-link" data-navi="login-copy" aria-label=${strings.copyCommand(login)} @click=${() => void writeClipboard(login)}>${strings.copy}</button></div>` : nothing}
      ${quiet ? reached.map(reachedLine) : nothing} ${allowAgain === null ? nothing : needed(message, allowAgain)}
      ${isRolledBack ? html`<div class="navi-reached" data-navi="rolled-back">${strings.rolledBack}</div>` : nothing}
      ${quiet || !(rest || todo || reached.length || known === undefined)
        ? nothing
        : html`<details class="navi-end-details" data-navi="end-details">
            <summary>${icons.chevron}${strings.endDetails}</summary>
            ${todo ? html`<div class="navi-todo">${todo}</div>` : nothing}${rest ? html`<div class="navi-text" dir="auto" lang="">${rest}</div>` : nothing}
            ${reached.map(reachedLine)}
            <div class="navi-reached">${strings.endCode} <code class="navi-code-name">${code}</code></div>
          </details>`}
    </div>
  </div>`;
}

function reachedLine({ what, message }: RunEnd["reached"][number]): TemplateResult {
  return html`<div class="navi-reached" data-navi="reached">${message || textOf(strings.reached, what) || what}</div>`;
}
