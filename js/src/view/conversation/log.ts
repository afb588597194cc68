/** The conversation: messages, thoughts, tool calls, and how runs ended. */

import { html, nothing, type TemplateResult } from "lit";
import { guard } from "lit/directives/guard.js";
import { repeat } from "lit/directives/repeat.js";
import type { SentCommand } from "../../connection/outbox.js";
import type { ActiveRun, Interrupt, Attached, ChatState, Item, Message, Reasoning, RunEnd, Subagent } from "../../state/model.js";
import { keyOf } from "../../state/items.js";
import { firingOf, isReader, isRolledBack, treeOf, type Tree } from "../../state/select.js";
import { agentItem, loadCards, type Calls, type Questions } from "./cards.js";
import type { CodeActions } from "./code-actions.js";
import type { MessageActions } from "./message-actions.js";
import { end } from "./run-end.js";
import { icons } from "../lib/icons.js";
import { MarkdownView } from "../lib/markdown.js";
import { sizeText } from "../lib/numbers.js";
import { drawable } from "../lib/plain-text.js";
import { isImage, type Images } from "./images.js";
import { strings } from "../lib/strings.js";
import { LogWindow } from "./window.js";
import { neededTools } from "../recalls/leave.js";
import { fullTime, shortTime } from "../lib/time.js";

export interface LogActions {
  chooseModel(): void;
  runWithLeave(recallId: string, tools: readonly string[]): void;
  /** Draw again: something that is not in the state has changed. */
  redraw(): void;
  /** Reads what comes before the first item that is known. `again`: also where that has failed. */
  readEarlier(again: boolean): void;
}

/** Of what comes before the first item: `none` where nothing does. */
export type EarlierStatus = "none" | "more" | "reading" | "failed";

/** The views that have more than what is in the state. */
export interface LogParts {
  readonly asks: Questions;
  readonly tools: Calls;
  readonly pictures: Images;
  readonly messageActions: MessageActions;
  readonly codeActions: CodeActions;
}

/** Markdown of so many messages that left the state is kept until it is dropped at once. */
const KEPT = 300;

export class LogView {
  readonly #actions: LogActions;
  readonly #parts: LogParts;
  readonly #markdown = new Map<string, MarkdownView>();
  readonly #window = new LogWindow();
  /** The items of the last drawing. */
  #items: readonly Item[] = [];
  /** The path of the session's notebook, beside which images of answers are looked for; empty: it has none. */
  #notebook = "";
  /** Counts up when everything has to be drawn anew. */
  #epoch = 0;

  constructor(actions: LogActions, parts: LogParts) {
    this.#actions = actions;
    this.#parts = parts;
  }

  reset(): void {
    this.#markdown.clear();
    this.#parts.asks.reset();
    this.#parts.tools.reset();
    this.#window.reset();
    this.#items = [];
  }

  invalidate(): void {
    this.#epoch += 1;
    for (const view of this.#markdown.values()) view.invalidate();
  }

  /** `pinned`: the end is in sight. `waiting`, `unsent`: those to be shown here. `earlier`: of what is not in the state. */
  render(state: ChatState, waiting: readonly Message[], unsent: readonly SentCommand[], pinned: boolean, earlier: EarlierStatus): TemplateResult {
    this.#notebook = state.session?.notebook ?? "";
    const tree = treeOf(state.items);
    const items = (this.#items = tree.top);
    const shown = this.#window.of(items, pinned);
    this.#forget(state);
    if (state.run) loadCards();
    const before = this.#window.hasBefore ? "more" : earlier;
    const isAtEnd = this.#window.isAtEnd(items);
    // One template for both: another one would make all nodes anew, and take the focus and the place from the user.
    return html`
      ${this.#earlierRow(before)} ${this.#draw(state, tree, shown)}
      ${isAtEnd && state.run && state.run.status !== "waiting" && !isSpeaking(items.at(-1)) ? working(state.run.status) : nothing}
      ${repeat(isAtEnd ? waiting : [], ({ id }) => id, (message) => this.#user(state, message))}
      ${repeat(isAtEnd ? unsent : [], ({ command_id: id }) => id, (command) => unsentPrompt(command))}
    `;
  }

  /** Shows an item even if it has scrolled far away. Answers whether it has to be drawn first. */
  reveal(state: ChatState, item: Item): boolean {
    const { top } = treeOf(state.items);
    const index = top.findIndex((other) => other === item || other.id === item.subagentId);
    return index >= 0 && this.#window.reveal(top, index);
  }

  /** The user comes near the first item that is in the document. */
  nearStart(isAsked = false): void {
    if (this.#window.extendUp(this.#items)) this.#actions.redraw();
    else this.#actions.readEarlier(isAsked);
  }

  /** The user comes near the last one. True: there are more. */
  nearEnd(): boolean {
    const isMore = this.#window.extendDown(this.#items);
    if (isMore) this.#actions.redraw();
    return isMore;
  }

  /** The Markdown of messages that are in the state no more. */
  #forget({ items }: ChatState): void {
    if (this.#markdown.size <= items.length + KEPT) return;
    const known = new Set(items.map(({ id }) => id));
    for (const id of this.#markdown.keys()) if (!known.has(id)) this.#markdown.delete(id);
  }

  #draw(state: ChatState, tree: Tree, items: readonly Item[]): unknown {
    return repeat(
      items,
      keyOf,
      (item) => guard(this.#dependencies(state, tree, item), () => this.#item(state, tree, item)),
    );
  }

  /** An item is drawn again when one of these is another. */
  #dependencies(state: ChatState, tree: Tree, item: Item): unknown[] {
    const own = [item, this.#epoch, isRolledBack(state, item.runId)];
    switch (item.kind) {
      case "message":
        return [...own, recallTitle(state, item), this.#parts.messageActions.key(item, state)];
      case "tool":
        return [...own, tree.asking.has(item.id)];
      case "interrupt":
        return [...own, ownerOf(state), this.#parts.asks.local(item.id), tree.subagents.get(item.subagentId ?? "")?.name];
      case "subagent":
        return [...own, ...this.#inside(tree, item).flatMap((inner) => this.#dependencies(state, tree, inner))];
      case "end":
        return [...own, isReader(state), recallLacking(state, item), this.#parts.messageActions.retryOf(item.runId, state) === null];
      default:
        return own;
    }
  }

  #inside(tree: Tree, subagent: Subagent): readonly Item[] {
    return tree.inside.get(subagent.id) ?? [];
  }

  /** More comes by itself as the user scrolls; the button is for where that does not work. */
  #earlierRow(status: EarlierStatus): TemplateResult | typeof nothing {
    if (status === "none") return nothing;
    const text = status === "reading" ? strings.earlierReading : status === "failed" ? strings.earlierFailed : strings.earlierShow;
    return html`<button type="button" class="navi-earlier" data-navi="earlier" data-status=${status} ?disabled=${status === "reading"} @click=${() => this.nearStart(true)}>
      ${text}
    </button>`;
  }

  /** One item that cannot be drawn is shown as text: an error in the middle of a list would leave it drawn twice. */
  #item(state: ChatState, tree: Tree, item: Item): unknown {
    let drawn: TemplateResult | typeof nothing;
    try {
      drawn = this.#drawn(state, tree, item);
    } catch (problem) {
      console.error("navi: an item could not be drawn", item.id, problem);
      drawn = notDrawn(item);
    }
    return isRolledBack(state, item.runId) && item.kind !== "end" ? html`<div class="navi-forgotten" title=${strings.rolledBack}>${drawn}</div>` : drawn;
  }

  #drawn(state: ChatState, tree: Tree, item: Item): TemplateResult | typeof nothing {
    switch (item.kind) {
      case "plan":
      case "notice":
        return agentItem(item);
      case "message":
        return item.role === "user" ? this.#user(state, item) : this.#assistant(state, item);
      case "reasoning":
        return this.#reasoning(item);
      case "tool":
        return this.#parts.tools.render(item, tree.asking.has(item.id));
      case "subagent":
        return this.#subagent(state, tree, item);
      case "interrupt":
        return this.#parts.asks.render(item, askerOf(tree, item), ownerOf(state));
      case "end": {
        const recallId = isReader(state) ? null : recallLacking(state, item);
        const chooseModel = isReader(state) ? null : (): void => this.#actions.chooseModel();
        return end(item, isRolledBack(state, item.runId), { chooseModel, allowAgain: recallId === null ? null : (tools) => this.#actions.runWithLeave(recallId, tools), retry: this.#parts.messageActions.retryOf(item.runId, state) });
      }
    }
  }

  #subagent(state: ChatState, tree: Tree, subagent: Subagent): TemplateResult {
    const inside = this.#inside(tree, subagent);
    const { status, problem, description } = subagent;
    const isLive = status === "running";
    return html`<details
      class="navi-card navi-worker"
      data-navi="worker"
      data-subagent-run-id=${subagent.id}
      data-status=${status}
      aria-live="off"
      ?open=${isLive}
    >
      <summary>
        ${icons.chevron}${icons.subagent}<b>${subagent.name || strings.subagent}</b>
        <span class="navi-gist" dir="auto">${problem ?? (description || taskOf(tree, subagent))}</span>
        <span class="navi-tool-status">
          ${isLive ? html`<span class="navi-spinner" aria-hidden="true"></span>` : status === "done" ? icons.check : status === "failed" ? icons.warning : icons.close}
          <span>${strings.workerStatus[status]}</span>
        </span>
      </summary>
      <div class="navi-worker-body">
        ${this.#draw(state, tree, inside)} ${problem ? html`<p class="navi-worker-problem navi-text" dir="auto" lang="">${problem}</p>` : nothing}
      </div>
    </details>`;
  }

  #user(state: ChatState, message: Message): TemplateResult {
    const { kind, kernel_id: kernel } = message.origin;
    const title = [timeOf(message.ts), ...(kernel ? [strings.fromKernel] : [])].join(", ");
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
      ${message.attachments.length && kind === "user" ? this.#attachments(message) : nothing}
      <div class="navi-text" dir="auto" lang="" title=${title}>${drawable(message.text)}</div>
      ${message.attachments.length && kind !== "user" ? this.#attachments(message) : nothing}
      ${message.status === "refused" ? html`<div class="navi-note"><span>${strings.refused}</span></div>` : nothing}
      ${this.#parts.messageActions.render(message, state)}
    </article>`;
  }

  #attachments({ id, attachments }: Message): TemplateResult {
    const one = (attached: Attached): TemplateResult =>
      isImage(attached.mediaType)
        ? html`<li class="navi-thumbnail" data-navi="attached" title=${attached.name}>${this.#parts.pictures.show(id, attached.id, attached.name)}</li>`
        : html`<li class="navi-chip" data-navi="attached" title=${attached.name}>
            ${icons.file}<span class="navi-chip-name" dir="auto">${attached.name}</span><span class="navi-chip-size">${sizeText(attached.size)}</span>
          </li>`;
    return html`<ul class="navi-attached" aria-label=${strings.attachments}>
      ${attachments.map(one)}
    </ul>`;
  }

  #assistant(state: ChatState, message: Message): TemplateResult {
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
      <div class="navi-markdown" lang="">${this.#view(message.id).update(message.text, streams)}</div>
      ${this.#parts.messageActions.render(message, state)}
    </article>`;
  }

  #reasoning(reasoning: Reasoning): TemplateResult {
    const streams = reasoning.status === "streaming";
    return html`<details class="navi-card navi-reasoning" data-navi="reasoning" data-status=${reasoning.status} aria-live="off">
      <summary>${icons.chevron}${icons.thought}<span>${streams ? strings.thinking : strings.thought}</span></summary>
      <div class="navi-card-body navi-text" dir="auto" lang="">${drawable(reasoning.text)}</div>
    </details>`;
  }

  #view(id: string): MarkdownView {
    let view = this.#markdown.get(id);
    if (!view) this.#markdown.set(id, (view = new MarkdownView(() => this.#actions.redraw(), this.#parts.codeActions.buttons, (reference, alt) => this.#parts.pictures.referred(id, reference, alt, this.#notebook))));
    return view;
  }
}

/** The text of an item, and that it is no more than that. */
function notDrawn(item: Item): TemplateResult {
  const text = "text" in item ? item.text : "args" in item ? String(item.args) : "";
  return html`<article class="navi-message navi-answer" data-navi="message" data-message-id=${item.id}>
    <div class="navi-text" dir="auto" lang="">${drawable(text)}</div>
    <div class="navi-note"><span>${strings.notShown}</span></div>
  </article>`;
}

/** Who alone can answer questions of the session, where the user can only read it. */
function ownerOf({ session }: ChatState): string | null {
  return session?.sharedBy ?? null;
}

/** The subagent that asks, by name. */
function askerOf(tree: Tree, interrupt: Interrupt): string {
  return interrupt.subagentId === null ? "" : tree.subagents.get(interrupt.subagentId)?.name || strings.subagent;
}

/** The task of a subagent, from the call that started it. */
function taskOf({ calls }: Tree, { parentToolCallId: id }: Subagent): string {
  try {
    const args: unknown = JSON.parse((id !== null && calls.get(id)?.args) || "{}");
    return String((args as { task?: unknown }).task ?? "").slice(0, 200);
  } catch {
    return "";
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
    ${icons.clock}<span>${strings.recall}${firing.title ? html`: <b dir="auto" lang="">${firing.title}</b>` : nothing}</span>
    <time datetime=${slot.toISOString()} title=${fullTime(slot)}>${firing.isEvent ? strings.happened(shortTime(slot)) : strings.slot(shortTime(slot))}</time>
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
    <div class="navi-text" dir="auto" lang="">${text}</div>
    <div class="navi-note navi-late"><span>${strings.sending}</span></div>
  </article>`;
}

function working(status: ActiveRun["status"]): TemplateResult {
  return html`<div class="navi-working" data-navi="working" aria-hidden="true">
    <span class="navi-dots"><i></i><i></i><i></i></span>${status === "stopping" || status === "starting" ? strings[status] : nothing}
  </div>`;
}

function timeOf(ts: string): string {
  const at = new Date(ts);
  return Number.isNaN(at.valueOf()) ? "" : fullTime(at);
}

/** The recall whose last run this was, where it lacked leave. Once it runs again, that is what counts. */
function recallLacking(state: ChatState, { runId, message }: RunEnd): string | null {
  if (!neededTools(message).length) return null;
  const prompts = state.items.filter((item): item is Message => item.kind === "message" && item.role === "user");
  const recallId = prompts.find((prompt) => prompt.runId === runId)?.origin.recall_id ?? null;
  const last = prompts.findLast(({ origin }) => origin.recall_id === recallId);
  return last?.runId === runId ? recallId : null;
}
