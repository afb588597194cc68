/** Cards of tool calls: what was asked, what is shown meanwhile, and what came of it. */

import { html, nothing, type TemplateResult } from "lit";
import { isObject } from "../../protocol/frames.js";
import type { ToolCall } from "../../state/model.js";
import { AGENT_CALL, callIcon, callParts, otherArguments, presentCall } from "../agents/call.js";
import { codeView, partsOf } from "./code.js";
import { diffView } from "./diff.js";
import { jobResult } from "./job-result.js";
import { icons } from "../lib/icons.js";
import { durationText } from "../lib/numbers.js";
import { OutputView } from "./outputs.js";
import type { Images } from "./images.js";
import { strings } from "../lib/strings.js";
import { visibleText } from "../lib/visible-text.js";
import { agentTitle, hasVerb, isOfAgent, toolLine, type LineStatus } from "./tool-line.js";
import css from "../../style/tools.css";
import { addStyle, shared } from "../../style/install.js";

addStyle(shared(css));

/** Longer results are shown in part: laying out megabytes would block the browser. */
const LONGEST_DETAIL = 20_000;
/** Quicker calls do not say how long they took. */
const WORTH_SAYING = 500;

/** Codes of results of calls that were not made. */
const DENIED = ["not_approved", "not_allowed", "tool_denied"];

export class ToolCards {
  readonly #pictures: Images;
  readonly #outputs = new Map<string, OutputView>();

  constructor(pictures: Images) {
    this.#pictures = pictures;
  }

  reset(): void {
    this.#outputs.clear();
  }

  /** `asks`: a question about this call is open. */
  render(call: ToolCall, asks: boolean): TemplateResult {
    const status = shownStatus(call, asks);
    // While its question is open, that says all of it.
    return html`<div class="navi-card navi-tool-card" data-status=${status} ?hidden=${status === "asking" && !call.activities.some(({ type }) => type !== AGENT_CALL)}>
      <details
        class="navi-tool"
        data-navi="tool"
        data-tool-call-id=${call.id}
        data-tool-name=${call.name}
        data-status=${status === "asking" ? call.status : status}
        data-run-id=${call.runId ?? nothing}
        aria-live="off"
      >
        <summary>
          ${icons.chevron}${callIcon(presentCall(call, null).name)}<span class="navi-tool-line" data-navi="tool-line">${lineOf(call, status)}</span>
          <span class="navi-gist" dir="auto">${visibleText(gist(call))}</span>
          <span class="navi-tool-status">${took(call)}${toolMark(status)}</span>
        </summary>
        <div class="navi-card-body">${isOfAgent(call.name) ? nothing : html`<p class="navi-tool-name">${strings.toolName} <code>${visibleText(call.name)}</code></p>`}${callDetail(call)} ${resultDetail(call)}</div>
      </details>
      ${call.activities.map((activity) => {
        if (activity.type === "navi.progress") return call.status === "running" ? progress(call, activity.content) : nothing;
        if (activity.type === "navi.output") return this.#output(call, activity.id, activity.content["outputs"]);
        return nothing;
      })}
      ${jobResult(call)}
    </div>`;
  }

  #output(call: ToolCall, id: string, outputs: unknown): HTMLElement | typeof nothing {
    if (!Array.isArray(outputs)) return nothing;
    const key = `${call.id} ${id}`;
    let view = this.#outputs.get(key);
    if (!view) this.#outputs.set(key, (view = new OutputView(key, call.name, this.#pictures)));
    return view.update(outputs);
  }
}

function shownStatus(call: ToolCall, asks: boolean): LineStatus {
  if (asks && call.status !== "done" && call.status !== "stopped") return "asking";
  if (call.status !== "done") return call.status;
  const error = errorOf(call);
  if (error !== null) return DENIED.includes(String(error["error"])) ? "denied" : "failed";
  return call.activities.some(({ content }) => raised(content["outputs"])) ? "failed" : "done";
}

/** The call in words; long arguments are not read while they come. */
function lineOf(call: ToolCall, status: LineStatus): string {
  const read = (text: string | null): unknown => (text === null || text.length > LONGEST_DETAIL ? undefined : parsed(text));
  const { name, args } = presentCall(call, read(call.args));
  return toolLine(name, args, read(call.result), status);
}

/** Whether code ended with an exception. */
function raised(outputs: unknown): boolean {
  return Array.isArray(outputs) && outputs.some((output) => isObject(output) && output["output_type"] === "error");
}

/** The result, when it says that something is wrong. */
function errorOf({ result }: ToolCall): Readonly<Record<string, unknown>> | null {
  if (result === null || !result.startsWith("{")) return null;
  const value = parsed(result);
  return isObject(value) && typeof value["error"] === "string" ? value : null;
}

/** The failure's message; a denial has its own line beside it. */
function problemOf(call: ToolCall): string | null {
  const error = errorOf(call);
  if (error === null || DENIED.includes(String(error["error"]))) return null;
  return String(typeof error["message"] === "string" ? error["message"] : error["error"]);
}

function callDetail(call: ToolCall): TemplateResult | typeof nothing {
  const { name, args } = call;
  const value = parsed(args);
  if (isOfAgent(name)) {
    const others = isObject(value) ? otherArguments(value) : {};
    const hasOthers = Object.keys(others).length > 0;
    const { title } = (presentCall(call, value).args ?? {}) as { title?: unknown };
    // Its own words in full: the line has the beginning. Its arguments, where it gives some, say the same and more.
    return html`${!hasOthers && typeof title === "string" && title ? detail(strings.callWords, title) : nothing} ${callParts(call, isObject(value) ? value : {})}
    ${hasOthers ? detail(strings.toolArguments, JSON.stringify(others, null, 2)) : nothing}`;
  }
  if (!isObject(value)) return args ? detail(strings.toolArguments, args) : nothing;
  const { code, change, others } = partsOf(name, value);
  return html`
    ${change ? html`<h4>${strings.toolCode}</h4>${diffView(change.before, change.after)}` : nothing}
    ${code.map((part) => html`<h4>${strings.toolCode}</h4>${codeView(part.text, part.language)}`)}
    ${others.length ? detail(strings.toolArguments, JSON.stringify(Object.fromEntries(others), null, 2)) : nothing}
  `;
}

function resultDetail({ name, result, activities }: ToolCall): TemplateResult | typeof nothing {
  // What a command of an agent program has printed is its result, and stands below as its output.
  if (!result || (isOfAgent(name) && activities.some(({ type }) => type === "navi.output"))) return nothing;
  const value = parsed(result);
  return detail(strings.toolResult, value === undefined || typeof value === "string" ? (value ?? result) : JSON.stringify(value, null, 2));
}

function detail(title: string, text: string): TemplateResult {
  const shown = text.length > LONGEST_DETAIL ? `${text.slice(0, LONGEST_DETAIL)}…` : text;
  return html`<h4>${title}</h4>
    <pre tabindex="0" role="group" aria-label=${title}>${shown}</pre>`;
}

function toolMark(status: LineStatus): TemplateResult {
  if (status === "done") return icons.check;
  if (status === "failed") return icons.warning;
  if (status === "stopped" || status === "denied") return icons.close;
  if (status === "asking") return icons.ask;
  return html`<span class="navi-spinner" aria-hidden="true"></span>`;
}

/** How long it took, or takes. */
function took({ startedAt, endedAt, status }: ToolCall): TemplateResult | typeof nothing {
  if (startedAt === null) return nothing;
  if (status === "running") return html`<span class="navi-elapsed" data-since=${startedAt}></span>`;
  const duration = endedAt === null ? 0 : endedAt - startedAt;
  return duration < WORTH_SAYING ? nothing : html`<span class="navi-duration" data-navi="duration">${durationText(duration)}</span>`;
}

function progress(call: ToolCall, content: Readonly<Record<string, unknown>>): TemplateResult {
  const { progress: done, total, message } = content;
  const value = typeof done === "number" ? done : 0;
  const most = typeof total === "number" && total > 0 ? total : null;
  const percent = most === null ? null : Math.min(100, Math.max(0, (value / most) * 100));
  const text = typeof message === "string" ? message : "";
  return html`<div class="navi-progress" data-navi="progress">
    <div
      class="navi-bar ${percent === null ? "navi-bar-unknown" : ""}"
      role="progressbar"
      aria-label=${strings.progress(call.name)}
      aria-valuemin="0"
      aria-valuemax="100"
      aria-valuenow=${percent === null ? nothing : Math.round(percent)}
    >
      <span style=${percent === null ? nothing : `width:${percent}%`}></span>
    </div>
    <span class="navi-progress-text" dir="auto">${[text, percent === null ? (text ? "" : String(value)) : `${Math.round(percent)} %`].filter(Boolean).join(" · ")}</span>
  </div>`;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** Beside the line of words, in the closed card: what went wrong; else the code, or what a tool without words got. */
function gist(call: ToolCall): string {
  const problem = call.status === "done" ? problemOf(call) : null;
  if (problem !== null) return problem.slice(0, 200);
  const value = parsed(call.args.length > LONGEST_DETAIL ? "" : call.args);
  if (isOfAgent(call.name)) {
    const { name, args } = presentCall(call, value);
    return firstLine(agentTitle(name, isObject(args) ? args : {})).slice(0, 120);
  }
  if (hasVerb(call.name)) return call.name === "run_code" && isObject(value) && typeof value["code"] === "string" ? firstLine(value["code"]).slice(0, 120) : "";
  if (!isObject(value)) return call.args.slice(0, 120);
  return Object.entries(value)
    .filter(([, part]) => part !== null)
    .map(([, part]) => (typeof part === "string" ? firstLine(part) : JSON.stringify(part)))
    .join(" · ")
    .slice(0, 120);
}

function firstLine(text: string): string {
  const [first = "", ...rest] = text.trim().split("\n");
  return rest.length ? `${first} …` : first;
}
