/** What is around the conversation: the bar above, the connection's state, notices, and what an empty session shows. */

import { html, nothing, type TemplateResult } from "lit";
import type { Status } from "../../connection/client.js";
import type { Transport } from "../../connection/transport.js";
import type { Recall, Usage } from "../../protocol/generated.js";
import type { McpServer } from "../../state/model.js";
import { dueTime } from "../../state/select.js";
import { icons } from "../lib/icons.js";
import { costText, tokensText, usageDetail } from "../lib/numbers.js";
import { sanitize } from "../lib/sanitize.js";
import { strings } from "../lib/strings.js";

export interface HeaderParts {
  readonly title: string;
  readonly model: string;
  readonly profile: string;
  readonly usage: Usage | null;
  readonly servers: readonly McpServer[];
  readonly showSettings: boolean;
  readonly toggleSettings: () => void;
  readonly unread: number;
  readonly recalls: readonly Recall[];
  readonly showRecalls: boolean;
  readonly toggleRecalls: () => void;
  readonly status: Status;
  readonly kind: Transport["kind"] | null;
}

export function header(parts: HeaderParts): TemplateResult {
  const { title, recalls, showRecalls, toggleRecalls, status, kind } = parts;
  const next = recalls[0];
  const due = next ? dueTime(next) : Infinity;
  const text = statusText(status, kind);
  return html`<div class="navi-header">
    <span class="navi-mark">${icons.navi}</span>
    <h2 class="navi-title" dir="auto">${title}</h2>
    ${parts.unread ? html`<span class="navi-unread" data-navi="unread">${strings.unread(parts.unread)}</span>` : nothing}
    ${settingsButton(parts)} ${serverMark(parts)}
    <button
      type="button"
      class="navi-recalls-toggle"
      data-navi="recalls-toggle"
      aria-expanded=${showRecalls ? "true" : "false"}
      @click=${toggleRecalls}
    >
      ${icons.clock}<span>${recalls.length ? strings.recallsOpen(recalls.length) : strings.recalls}</span>
      ${Number.isFinite(due) ? html`<span aria-hidden="true">·</span><span class="navi-countdown" data-due=${due} aria-hidden="true"></span>` : nothing}
    </button>
    <span class="navi-status" role="status" data-navi="status" data-state=${status.state} data-reason=${status.reason ?? nothing} title=${text}>
      <span class="navi-status-dot" aria-hidden="true"></span><span class="navi-status-text">${text}</span>
    </span>
  </div>`;
}

function settingsButton({ model, profile, usage, showSettings, toggleSettings }: HeaderParts): TemplateResult {
  const spent = usage && usage.input_tokens + usage.output_tokens > 0 ? (costText(usage) ?? tokensText(usage)) : "";
  const shown = profile && profile !== "assistant" ? profile : "";
  return html`<button
    type="button"
    class="navi-settings-toggle"
    data-navi="settings-toggle"
    aria-expanded=${showSettings ? "true" : "false"}
    aria-label="${strings.settings}: ${[model, shown, spent].filter(Boolean).join(" ")}"
    title=${[strings.settings, usage ? `${tokensText(usage)}: ${usageDetail(usage)}` : ""].filter(Boolean).join("\n")}
    @click=${toggleSettings}
  >
    ${icons.sliders}<span class="navi-model" data-navi="model">${model}</span>
    ${shown ? html`<span class="navi-profile">${shown}</span>` : nothing}
    ${spent ? html`<span class="navi-spent" data-navi="spent">${spent}</span>` : nothing}
  </button>`;
}

/** Only where there are any. */
function serverMark({ servers, showSettings, toggleSettings }: HeaderParts): TemplateResult | typeof nothing {
  const used = servers.filter(({ status }) => status !== "disabled");
  if (!used.length) return nothing;
  const ready = used.filter(({ status }) => status === "ready").length;
  const worst = used.some(({ status }) => status === "failed") ? "failed" : used.some(({ status }) => status === "starting") ? "starting" : ready ? "ready" : "idle";
  const text = strings.mcpTitle(ready, used.length);
  return html`<button
    type="button"
    class="navi-icon-button navi-mcp"
    data-navi="mcp-toggle"
    data-status=${worst}
    aria-expanded=${showSettings ? "true" : "false"}
    aria-label=${text}
    title=${[text, ...used.map(({ name, status }) => `${name}: ${status}`)].join("\n")}
    @click=${toggleSettings}
  >
    ${icons.plug}<span class="navi-status-dot" aria-hidden="true"></span>
  </button>`;
}

/** Says that the run waits for the user, and leads there. */
export function waitingLine(count: number, show: () => void): TemplateResult | typeof nothing {
  if (!count) return nothing;
  return html`<div class="navi-waiting-line" data-navi="asks-line">
    ${icons.ask}<span><b>${strings.waitingForYou}</b> <span class="navi-count" data-navi="asks-count">${strings.openInterrupts(count)}</span></span>
    <button type="button" class="navi-link" data-navi="asks-jump" @click=${show}>${strings.showAsk}</button>
  </div>`;
}

function statusText({ state, reason }: Status, kind: Transport["kind"] | null): string {
  if (reason) return strings[reason];
  if (state === "closed") return strings.readOnly;
  return state === "open" && kind === "comm" ? strings.openThroughKernel : strings[state];
}

export interface StatusParts {
  readonly status: Status;
  readonly unsent: number;
  readonly loginUrl: string;
  readonly retry: () => void;
}

/** A line below the bar while there is something that the user can do about the connection, or should know. */
export function statusLine({ status, unsent, loginUrl, retry }: StatusParts): TemplateResult | typeof nothing {
  const { state, reason } = status;
  if (state === "open" || state === "connecting") return nothing;
  const waiting = unsent && state !== "closed" ? html` <span>${strings.waitingToSend(unsent)}</span>` : nothing;
  const logIn =
    reason === "auth" && loginUrl ? html` <a href=${loginUrl} target="_blank" rel="noopener">${strings.logIn}</a>` : nothing;
  const again =
    reason !== undefined || state !== "closed"
      ? html` <button type="button" class="navi-link" data-navi="retry" @click=${retry}>${strings.retry}</button>`
      : nothing;
  return html`<div class="navi-status-line" data-state=${state}>
    <span>${statusText(status, null)}</span>${waiting}${logIn}${again}
  </div>`;
}

export function notice(text: string | null, dismiss: () => void): TemplateResult {
  return html`<div class="navi-notice-frame" role="alert">
    ${text === null
      ? nothing
      : html`<div class="navi-notice" data-navi="notice">
          ${icons.warning}<span>${text}</span>
          <button type="button" class="navi-icon-button" aria-label=${strings.dismiss} @click=${dismiss}>${icons.close}</button>
        </div>`}
  </div>`;
}

export function emptyNote(suggest: (text: string) => void): TemplateResult {
  return html`<div class="navi-empty" data-navi="empty">
    <span class="navi-mark">${icons.navi}</span>
    <p class="navi-empty-title">${strings.emptyTitle}</p>
    <p>${strings.emptyText}</p>
    <div class="navi-suggestions">
      ${strings.suggestions.map((text) => html`<button type="button" @click=${() => suggest(text)}>${text}</button>`)}
    </div>
  </div>`;
}

/** The conversation as it was stored, until the log is there. */
export function storedConversation(stored: string): TemplateResult {
  return html`<div class="navi-snapshot" data-navi="snapshot">
    <p class="navi-none navi-late">${strings.readOnly}</p>
    ${sanitize(stored, strings.remoteImage)}
  </div>`;
}
