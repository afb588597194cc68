/** What is around the conversation: the connection's state, notices, and what an empty session shows. */

import { html, nothing, type TemplateResult } from "lit";
import { ref } from "lit/directives/ref.js";
import type { Status } from "../../connection/client.js";
import { statusText } from "../header.js";
import { icons } from "../lib/icons.js";
import { fillSafely } from "../lib/markdown.js";
import { strings } from "../lib/strings.js";

/** Says that the run waits for the user, and leads there. */
export function waitingLine(count: number, show: () => void): TemplateResult | typeof nothing {
  if (!count) return nothing;
  return html`<div class="navi-waiting-line" data-navi="asks-line">
    ${icons.ask}<span><b>${strings.waitingForYou}</b> <span class="navi-count" data-navi="asks-count">${strings.openInterrupts(count)}</span></span>
    <button type="button" class="navi-link" data-navi="asks-jump" @click=${show}>${strings.showAsk}</button>
  </div>`;
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
    state === "closed" && reason !== "gone" && loginUrl ? html` <a href=${loginUrl} target="_blank" rel="noopener">${reason === "off" ? strings.start : strings.logIn}</a>` : nothing;
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

/** `card`: what stands below the suggestions. */
/** `model`: empty where it is not known. */
export function emptyNote(suggest: (text: string) => void, model: string, card: unknown): TemplateResult {
  return html`<div class="navi-empty" data-navi="empty">
    <span class="navi-mark">${icons.navi}</span>
    <p class="navi-empty-title">${strings.emptyTitle}</p>
    <p>${strings.emptyText}</p>
    <div class="navi-suggestions">
      ${(model === "offline" ? strings.suggestionsOffline : strings.suggestions).map((text) => html`<button type="button" @click=${() => suggest(text)}>${text}</button>`)}
    </div>
    ${card}
  </div>`;
}

/** The conversation as it was stored, until the log is there. */
export function storedConversation(stored: string): TemplateResult {
  return html`<div class="navi-snapshot" data-navi="snapshot">
    <p class="navi-none navi-late">${strings.readOnly}</p>
    <div ${ref((element) => element && fillSafely(element, stored, strings.remoteImage))}></div>
  </div>`;
}
