/** The conversation: messages, thoughts, tool calls, and how runs ended. */

import { html, nothing, type TemplateResult } from "lit";
import { guard } from "lit/directives/guard.js";
import { repeat } from "lit/directives/repeat.js";
import type { SentCommand } from "../connection/outbox.js";
import type { ChatState, Item, Message, Reasoning, RunEnd, ToolCall } from "../state/model.js";
import { firingOf } from "../state/select.js";
import { icons } from "./icons.js";
import { MarkdownView } from "./markdown.js";
import { strings } from "./strings.js";
import { fullTime, shortTime } from "./time.js";

/** How many items are in the document at first, and how many more each "show earlier" adds. */
const WINDOW = 150;
/** Longer results are shown in part: nobody reads megabytes in a card, and the browser should not lay them out. */
const LONGEST_DETAIL = 20_000;

export interface LogActions {
  withdraw(commandId: string): void;
  /** Draw again: something that is not in the state has changed. */
  redraw(): void;
}

export class LogView {
  readonly #actions: LogActions;
  readonly #markdown = new Map<string, MarkdownView>();
  #first = 0;
  /** Counts up when everything has to be drawn anew. */
  #epoch = 0;

  constructor(actions: LogActions) {
    this.#actions = actions;
  }

  reset(): void {
    this.#markdown.clear();
    this.#first = 0;
  }

  invalidate(): void {
    this.#epoch += 1;
    for (const view of this.#markdown.values()) view.invalidate();
  }

  /** `pinned`: the end is in sight, so what scrolled far away may leave the document. */
  render(state: ChatState, outbox: readonly SentCommand[], pinned: boolean): TemplateResult {
    const { items } = state;
    if (pinned || this.#first > items.length) this.#first = Math.max(this.#first, items.length - 2 * WINDOW, 0);
    if (this.#first > items.length) this.#first = Math.max(0, items.length - WINDOW);
    const isKnown = new Set([...items, ...state.waiting].map(({ id }) => id));
    const unsent = outbox.filter((command) => command.type === "prompt" && !isKnown.has(command.command_id));
    return html`
      ${this.#first > 0 ? this.#earlierButton() : nothing}
      ${repeat(
        items.slice(this.#first),
        (item) => `${item.kind}:${item.id}`,
        (item) => guard([item, this.#epoch, recallTitle(state, item)], () => this.#item(state, item)),
      )}
      ${state.run && !isSpeaking(items.at(-1)) ? working(state.run.status) : nothing}
      ${repeat(state.waiting, ({ id }) => id, (message) => this.#user(state, message))}
      ${repeat(unsent, ({ command_id: id }) => id, (command) => unsentPrompt(command))}
    `;
  }

  #earlierButton(): TemplateResult {
    const show = (): void => {
      this.#first = Math.max(0, this.#first - WINDOW);
      this.#actions.redraw();
    };
    return html`<button type="button" class="navi-earlier" data-navi="earlier" @click=${show}>
      ${strings.showEarlier(Math.min(WINDOW, this.#first))}
    </button>`;
  }

  #item(state: ChatState, item: Item): TemplateResult {
    switch (item.kind) {
      case "message":
        return item.role === "user" ? this.#user(state, item) : this.#assistant(item);
      case "reasoning":
        return this.#reasoning(item);
      case "tool":
        return tool(item);
      case "end":
        return end(item);
    }
  }

  #user(state: ChatState, message: Message): TemplateResult {
    const { kind } = message.origin;
    const waits = message.status === "queued";
    return html`<article
      class="navi-message navi-said navi-from-${kind}"
      data-navi="message"
      data-role="user"
      data-message-id=${message.id}
      data-run-id=${message.runId ?? nothing}
      data-origin=${kind}
      data-status=${message.status}
    >
      ${kind === "user" ? html`<h3 class="navi-hidden">${strings.you}</h3>` : badge(state, message)}
      <div class="navi-text" dir="auto" title=${timeOf(message.ts)}>${message.text}</div>
      ${waits || message.status === "refused"
        ? html`<div class="navi-note">
            <span>${waits ? strings.queued : strings.refused}</span>
            ${waits
              ? html`<button type="button" class="navi-link" data-navi="withdraw" @click=${() => this.#actions.withdraw(message.id)}>
                  ${strings.withdraw}
                </button>`
              : nothing}
          </div>`
        : nothing}
    </article>`;
  }

  #assistant(message: Message): TemplateResult {
    const streams = message.status === "streaming";
    return html`<article
      class="navi-message navi-answer ${streams ? "navi-streaming" : ""}"
      data-navi="message"
      data-role="assistant"
      data-message-id=${message.id}
      data-run-id=${message.runId ?? nothing}
      data-origin=${message.origin.kind}
      data-status=${message.status}
      aria-live=${streams ? "off" : nothing}
      aria-busy=${streams ? "true" : nothing}
    >
      <h3 class="navi-hidden">${strings.name}</h3>
      <div class="navi-markdown" dir="auto">${this.#view(message.id).update(message.text, streams)}</div>
    </article>`;
  }

  #reasoning(reasoning: Reasoning): TemplateResult {
    const streams = reasoning.status === "streaming";
    return html`<details class="navi-card navi-reasoning" data-navi="reasoning" data-status=${reasoning.status} aria-live="off">
      <summary>${icons.chevron}${icons.thought}<span>${streams ? strings.thinking : strings.thought}</span></summary>
      <div class="navi-card-body navi-text" dir="auto">${reasoning.text}</div>
    </details>`;
  }

  #view(id: string): MarkdownView {
    let view = this.#markdown.get(id);
    if (!view) this.#markdown.set(id, (view = new MarkdownView(() => this.#actions.redraw())));
    return view;
  }
}

/** A message's badge shows its recall's title, which may come later than the message. */
function recallTitle(state: ChatState, item: Item): string | null {
  return item.kind === "message" && item.origin.kind === "recall" ? (firingOf(state, item)?.title ?? null) : null;
}

function isSpeaking(item: Item | undefined): boolean {
  return item?.kind === "message" && item.status === "streaming" && item.text !== "";
}

function badge(state: ChatState, message: Message): TemplateResult {
  const firing = firingOf(state, message);
  if (!firing) return html`<h3 class="navi-badge">${icons.navi}<span>${strings.system}</span></h3>`;
  const slot = firing.slot ?? new Date(message.ts);
  return html`<h3 class="navi-badge" data-navi="badge">
    ${icons.clock}<span>${strings.recall}${firing.title ? html`: <b dir="auto">${firing.title}</b>` : nothing}</span>
    <time datetime=${slot.toISOString()} title=${fullTime(slot)}>${strings.slot(shortTime(slot))}</time>
  </h3>`;
}

function unsentPrompt(command: SentCommand): TemplateResult {
  const text = command.type === "prompt" ? (command.display ?? command.text) : "";
  return html`<article
    class="navi-message navi-said navi-from-user"
    data-navi="message"
    data-role="user"
    data-message-id=${command.command_id}
    data-origin="user"
    data-status="sending"
  >
    <h3 class="navi-hidden">${strings.you}</h3>
    <div class="navi-text" dir="auto">${text}</div>
    <div class="navi-note navi-late"><span>${strings.sending}</span></div>
  </article>`;
}

function tool(call: ToolCall): TemplateResult {
  const args = prettyJson(call.args);
  const result = call.result === null ? null : prettyJson(call.result);
  return html`<details
    class="navi-card navi-tool"
    data-navi="tool"
    data-tool-call-id=${call.id}
    data-tool-name=${call.name}
    data-status=${call.status}
    data-run-id=${call.runId ?? nothing}
    aria-live="off"
  >
    <summary>
      ${icons.chevron}${icons.tool}<code>${call.name}</code>
      <span class="navi-gist">${gist(call.args)}</span>
      <span class="navi-tool-status">${toolMark(call)}<span>${strings.toolStatus[call.status]}</span></span>
    </summary>
    <div class="navi-card-body">
      ${args ? detail(strings.toolArguments, args) : nothing} ${result ? detail(strings.toolResult, result) : nothing}
    </div>
  </details>`;
}

function detail(title: string, text: string): TemplateResult {
  const shown = text.length > LONGEST_DETAIL ? `${text.slice(0, LONGEST_DETAIL)}…` : text;
  return html`<h4>${title}</h4>
    <pre tabindex="0" aria-label=${title}>${shown}</pre>`;
}

function toolMark({ status }: ToolCall): TemplateResult {
  if (status === "done") return icons.check;
  if (status === "stopped") return icons.close;
  return html`<span class="navi-spinner" aria-hidden="true"></span>`;
}

function end({ code, message, runId }: RunEnd): TemplateResult {
  const quiet = code === "cancelled" || code === "interrupt";
  const title: Partial<Record<string, string>> = {
    cancelled: strings.endCancelled,
    interrupt: strings.endInterrupt,
    interrupted: strings.endInterrupted,
    timed_out: strings.endTimedOut,
  };
  return html`<div
    class="navi-end ${quiet ? "navi-end-quiet" : "navi-end-error"}"
    data-navi=${quiet ? "run-end" : "error"}
    data-code=${code}
    data-run-id=${runId}
  >
    ${quiet ? nothing : icons.warning}
    <div>
      <strong>${title[code] ?? strings.endFailed}</strong>
      ${message ? html`<div class="navi-text" dir="auto">${message}</div>` : nothing}
    </div>
  </div>`;
}

function working(status: "running" | "stopping"): TemplateResult {
  return html`<div class="navi-working" data-navi="working" aria-hidden="true">
    <span class="navi-dots"><i></i><i></i><i></i></span>${status === "stopping" ? strings.stopping : nothing}
  </div>`;
}

function timeOf(ts: string): string {
  const at = new Date(ts);
  return Number.isNaN(at.valueOf()) ? "" : fullTime(at);
}

function prettyJson(text: string): string {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "string" ? value : JSON.stringify(value, null, 2);
  } catch {
    return text;
  }
}

/** The arguments in one line, for the closed card. */
function gist(args: string): string {
  try {
    const value: unknown = JSON.parse(args);
    if (typeof value !== "object" || value === null) return args.slice(0, 120);
    return Object.values(value)
      .map((part) => (typeof part === "string" ? part : JSON.stringify(part)))
      .join(" · ")
      .slice(0, 120);
  } catch {
    return args.slice(0, 120);
  }
}
