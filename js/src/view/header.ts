/** The bar above the conversation: title, what is unread, buttons, and the state of the connection. */

import { html, nothing, type TemplateResult } from "lit";
import type { Status } from "../connection/client.js";
import type { Transport } from "../connection/transport.js";
import { agentOf, presentAgent } from "../state/agents.js";
import type { ChatState } from "../state/model.js";
import { dueTime, isReader, openRecalls } from "../state/select.js";
import { totalUsage } from "../state/usage.js";
import { icons } from "./lib/icons.js";
import { costText, tokensText, usageDetail } from "./lib/numbers.js";
import { strings } from "./lib/strings.js";
import type { Overlays } from "./overlays.js";

/** What a feature adds to the bar, between the settings and the recalls. */
export interface HeaderButton {
  /** Drawn with each change of the state. */
  render(state: ChatState): unknown;
}

export interface HeaderParts {
  readonly state: ChatState;
  readonly overlays: Overlays;
  readonly buttons: readonly HeaderButton[];
  readonly unread: number;
  readonly status: Status;
  readonly kind: Transport["kind"] | null;
}

export function header(parts: HeaderParts): TemplateResult {
  const { state, overlays, buttons, unread, status, kind } = parts;
  const text = statusText(status, kind);
  return html`<div class="navi-header" role="group" aria-label=${strings.headerLabel}>
    <span class="navi-mark">${icons.navi}</span>
    <h2 class="navi-title" dir="auto" lang="">${state.session?.title || strings.name}</h2>
    ${unread ? html`<span class="navi-unread" data-navi="unread">${strings.unread(unread)}</span>` : nothing}
    ${isReader(state) ? nothing : html`${settingsButton(state, overlays)} ${serverMark(state, overlays)} ${recallsButton(state, overlays)}`} ${buttons.map((button) => button.render(state))}
    <span class="navi-status" role="status" data-navi="status" data-state=${status.state} data-reason=${status.reason ?? nothing} title=${text}>
      <span class="navi-status-dot" aria-hidden="true"></span><span class="navi-status-text">${text}</span>
    </span>
  </div>`;
}

/** A button with a picture that opens an overlay and closes it again; for features. */
export function overlayButton(overlays: Overlays, name: string, icon: TemplateResult, label: string): TemplateResult {
  return html`<button
    type="button"
    class="navi-icon-button navi-overlay-toggle"
    data-navi="${name}-toggle"
    aria-expanded=${expanded(overlays, name)}
    aria-label=${label}
    title=${label}
    @click=${() => overlays.toggle(name)}
  >
    ${icon}
  </button>`;
}

function expanded(overlays: Overlays, name: string): "true" | "false" {
  return overlays.open === name ? "true" : "false";
}

function recallsButton(state: ChatState, overlays: Overlays): TemplateResult {
  const recalls = openRecalls(state);
  const due = recalls[0] ? dueTime(recalls[0]) : Infinity;
  return html`<button type="button" class="navi-recalls-toggle" data-navi="recalls-toggle" aria-expanded=${expanded(overlays, "recalls")} @click=${() => overlays.toggle("recalls")}>
    ${icons.clock}<span>${recalls.length ? strings.recallsOpen(recalls.length) : strings.recalls}</span>
    ${Number.isFinite(due) ? html`<span aria-hidden="true">·</span><span class="navi-countdown" data-due=${due} aria-hidden="true"></span>` : nothing}
  </button>`;
}

function settingsButton(state: ChatState, overlays: Overlays): TemplateResult {
  const { model = "", profile = "" } = state.session ?? {};
  const usage = totalUsage(state);
  const spent = usage && usage.input_tokens + usage.output_tokens > 0 ? (costText(usage) ?? tokensText(usage)) : "";
  const shown = profile && profile !== "assistant" ? profile : "";
  const agent = agentOf(model);
  const offer = presentAgent(state);
  const mode = offer?.modes.find(({ id }) => id === (state.session?.agentChoice.mode ?? offer.mode))?.name ?? "";
  return html`<button
    type="button"
    class="navi-settings-toggle"
    data-navi="settings-toggle"
    aria-expanded=${expanded(overlays, "settings")}
    aria-label="${strings.settings}: ${[agent || model, mode, shown, spent].filter(Boolean).join(" ")}"
    title=${[strings.settings, agent ? strings.answeredByAgent(agent) : "", usage ? `${tokensText(usage)}: ${usageDetail(usage)}` : ""].filter(Boolean).join("\n")}
    @click=${() => overlays.toggle("settings")}
  >
    ${agent ? icons.subagent : icons.sliders}<span class="navi-model" data-navi="model" data-agent=${agent || nothing} data-model=${model}>${agent || model}</span>
    ${mode ? html`<span class="navi-profile navi-agent-mode" data-navi="agent-mode-name" dir="auto">${mode}</span>` : nothing}
    ${shown ? html`<span class="navi-profile">${shown}</span>` : nothing}
    ${spent ? html`<span class="navi-spent" data-navi="spent">${spent}</span>` : nothing}
  </button>`;
}

/** Only where there are any. */
function serverMark(state: ChatState, overlays: Overlays): TemplateResult | typeof nothing {
  const used = Object.values(state.mcp).filter(({ status }) => status !== "disabled");
  if (!used.length) return nothing;
  const ready = used.filter(({ status }) => status === "ready").length;
  const worst = used.some(({ status }) => status === "failed") ? "failed" : used.some(({ status }) => status === "starting") ? "starting" : ready ? "ready" : "idle";
  const text = strings.mcpTitle(ready, used.length);
  return html`<button
    type="button"
    class="navi-icon-button navi-mcp"
    data-navi="mcp-toggle"
    data-status=${worst}
    aria-expanded=${expanded(overlays, "settings")}
    aria-label=${text}
    title=${[text, ...used.map(({ name, status }) => `${name}: ${status}`)].join("\n")}
    @click=${() => overlays.toggle("settings")}
  >
    ${icons.plug}<span class="navi-status-dot" aria-hidden="true"></span>
  </button>`;
}

/** The state of the connection in words. */
export function statusText({ state, reason }: Status, kind: Transport["kind"] | null): string {
  if (reason) return strings[reason];
  if (state === "closed") return strings.readOnly;
  return state === "open" && kind === "comm" ? strings.openThroughKernel : strings[state];
}
