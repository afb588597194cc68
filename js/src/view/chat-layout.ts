/** Where the parts of a chat are on the screen: the bar, the conversation with the overlays above it, the composer. */

import { html, nothing, type TemplateResult } from "lit";
import type { StatusParts } from "./conversation/activity-frame.js";
import { notice, statusLine, waitingLine } from "./conversation/activity-frame.js";
import { header, type HeaderParts } from "./header.js";
import { icons } from "./lib/icons.js";
import { strings } from "./lib/strings.js";

export interface ChatParts {
  readonly header: HeaderParts;
  /** The overlays, drawn; and whether one is open. */
  readonly overlays: TemplateResult;
  readonly isCovered: boolean;
  /** Cards between the bar and the conversation. */
  readonly cards: readonly unknown[];
  readonly status: StatusParts;
  /** What is in the scrolling log. */
  readonly log: unknown;
  /** Null while the end is in sight. */
  readonly jump: (() => void) | null;
  readonly notice: string | null;
  readonly dismissNotice: () => void;
  /** Open questions, and the way to the oldest. */
  readonly asks: number;
  readonly showAsk: () => void;
  /** What stands between the conversation and the composer, from top to bottom. */
  readonly aboveComposer: readonly unknown[];
  /** Goes to the composer: the first thing that the keyboard reaches, so that nothing has to be passed. */
  readonly write: () => void;
  readonly composer: TemplateResult;
}

export function chatLayout(parts: ChatParts): TemplateResult {
  return html`
    <button type="button" class="navi-skip" data-navi="skip" @click=${parts.write}>${strings.skip}</button>
    ${header(parts.header)} ${parts.cards}
    <div class="navi-log-frame">
      ${statusLine(parts.status)}
      <div class="navi-log" data-navi="log" role="log" aria-live="off" aria-label=${strings.log} tabindex="0" ?inert=${parts.isCovered}>${parts.log}</div>
      <button
        type="button"
        class="navi-jump"
        data-navi="jump"
        ?hidden=${parts.jump === null || parts.isCovered}
        @click=${() => parts.jump?.()}
        aria-label=${strings.jumpToLatest}
        title=${strings.jumpToLatest}
      >
        ${icons.down}
      </button>
      ${parts.overlays}
    </div>
    <div class="navi-between">
      ${notice(parts.notice, parts.dismissNotice)} ${waitingLine(parts.asks, parts.showAsk)}
      ${parts.aboveComposer.length ? parts.aboveComposer : nothing}
    </div>
    ${parts.composer}
    <div class="navi-hidden" data-navi="announcer" aria-live="polite"></div>
    <div class="navi-hidden" data-navi="announcer" aria-live="assertive"></div>
  `;
}
