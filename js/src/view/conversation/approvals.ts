/** Cards of what a run asks the user: may this tool run, and which value is missing. */

import { html, nothing, type TemplateResult } from "lit";
import { isObject } from "../../protocol/frames.js";
import type { Interrupt } from "../../state/model.js";
import { askedCell } from "../notebook/asked-cell.js";
import type { NotebookHost } from "../host.js";
import { detailsOfArguments, detailsView, hiddenOf, type Hidden } from "./call-details.js";
import { focusCard } from "../lib/focus.js";
import { argumentFields, fieldsOf, formFields, freeField, readForm, type Field } from "../lib/schema-form.js";
import { keepKey } from "../lib/keyboard-guard.js";
import { icons } from "../lib/icons.js";
import { english, strings, textOf } from "../lib/strings.js";
import { fullTime, shortTime } from "../lib/time.js";
import { marked, markedLine, visibleText } from "../lib/visible-text.js";
import { allows, chosenName, optionButtons } from "../agents/options.js";
import css from "../../style/asks.css";
import { addStyle, shared } from "../../style/install.js";

addStyle(shared(css));

type Fields = Readonly<Record<string, unknown>>;

export interface InterruptActions {
  answer(interrupt: Interrupt, status: "resolved" | "cancelled", payload?: unknown): void;
  redraw(): void;
}

/** What a card has that is not in the log. */
interface Local {
  readonly isEditing: boolean;
  /** Answered here; what came of it has not come back yet. */
  readonly isSent: boolean;
  /** Nothing of what would happen is out of sight. */
  readonly isWhole: boolean;
  /** It has been on the screen for a moment: a key or click that was meant for something else does not answer it. */
  readonly isArmed: boolean;
}

const IDLE: Local = { isEditing: false, isSent: false, isWhole: false, isArmed: false };

/** Milliseconds from the drawing of a question until its buttons take an answer. A test may have none. */
export const arming = { delay: 500 };
/** What a server that has but one user calls them. */
const ONLY_USER = "local";

/** The source of a question of an agent program; its name follows. */
const OF_AGENT = "acp:";

let count = 0;

/** In a conversation, or below a cell: there "always" is a button of its own, and a heading would belong to the notebook's. */
export interface CardOptions {
  readonly place: "chat" | "cell";
  /** The notebook of the page, which knows cells by the labels that its user sees. */
  readonly host?: () => NotebookHost | null;
}

export class InterruptCards {
  readonly #actions: InterruptActions;
  readonly #options: CardOptions;
  readonly #locals = new Map<string, Local>();
  readonly #arming = new Set<string>();
  /** Ids in the document have to be of this view alone. */
  readonly #prefix = `navi-ask-${(count += 1)}`;

  constructor(actions: InterruptActions, options: CardOptions = { place: "chat" }) {
    this.#actions = actions;
    this.#options = options;
  }

  reset(): void {
    this.#locals.clear();
    this.#arming.clear();
  }

  /** What the drawing of a card depends on besides the question. */
  local(id: string): Local {
    return this.#locals.get(id) ?? IDLE;
  }

  /** The answer was refused: it can be given again. */
  unlock(id: string): void {
    this.#set(id, { isSent: false });
  }

  /** `owner`: who alone can answer, where that is not the user. */
  render(interrupt: Interrupt, asker: string, owner: string | null = null): TemplateResult {
    return interrupt.status === "open" ? this.#open(interrupt, asker, owner) : settled(interrupt);
  }

  /** The buttons take answers from a moment after the first drawing on. */
  #arm(id: string): void {
    if (this.#arming.has(id)) return;
    this.#arming.add(id);
    if (arming.delay === 0) this.#locals.set(id, { ...this.local(id), isArmed: true });
    else setTimeout(() => this.#set(id, { isArmed: true }), arming.delay);
  }

  #open(interrupt: Interrupt, asker: string, owner: string | null): TemplateResult {
    this.#arm(interrupt.id);
    const { isSent } = this.local(interrupt.id);
    const title = titleOf(interrupt);
    const id = `${this.#prefix}-${interrupt.id}`;
    return html`<section
      class="navi-ask"
      data-navi="ask"
      data-kind=${interrupt.about}
      data-interrupt-id=${interrupt.id}
      data-status=${isSent ? "sending" : "open"}
      role="group"
      aria-labelledby=${id}
      tabindex="-1"
    >
      <header class="navi-ask-header">
        ${icons.ask}${this.#options.place === "cell" ? html`<strong id=${id}>${title}</strong>` : html`<h3 id=${id}>${title}</h3>`}
        ${askedCell(interrupt, this.#options.host?.() ?? null)}
        ${asker ? html`<span class="navi-ask-asker">${strings.asksOf(markedLine(asker))}</span>` : nothing}
        ${interrupt.expiresAt && !isSent
          ? html`<span class="navi-ask-expiry" data-navi="ask-expiry">${strings.expiresIn} <span class="navi-countdown" data-due=${Date.parse(interrupt.expiresAt)}></span></span>`
          : nothing}
      </header>
      ${owner !== null ? this.#shown(interrupt, owner) : interrupt.about === "approval" ? this.#approval(interrupt, id) : this.#question(interrupt, id)}
    </section>`;
  }

  /** What is asked, to be read. */
  #shown(interrupt: Interrupt, owner: string): TemplateResult {
    const { isWhole } = this.local(interrupt.id);
    const details = interrupt.details.length ? interrupt.details : detailsOfArguments(interrupt.args ?? {});
    const showAll = (): void => this.#set(interrupt.id, { isWhole: true });
    return html`<div class="navi-ask-form">
      ${isForeign(interrupt) ? html`<p class="navi-foreign">${strings.foreignAsks}</p>` : nothing}
      ${interrupt.message && !saysNoMore(interrupt) ? html`<p class="navi-ask-message navi-text" dir="auto">${visibleText(interrupt.message)}</p>` : nothing}
      ${interrupt.about === "approval" && details.length ? detailsView(details, isWhole, showAll) : nothing}
      ${hiddenNote(hiddenOf(details, isWhole), showAll)}
      <p class="navi-note" data-navi="ask-of-owner">${strings.askOfOwner(owner)}</p>
    </div>`;
  }

  /** An agent program asks, and offers its own answers. */
  #offered(interrupt: Interrupt): TemplateResult {
    const { isSent, isWhole, isArmed } = this.local(interrupt.id);
    const details = interrupt.details.length ? interrupt.details : detailsOfArguments(interrupt.args ?? {});
    const showAll = (): void => this.#set(interrupt.id, { isWhole: true });
    return html`<form class="navi-ask-form" @submit=${(event: Event) => event.preventDefault()} @keydown=${keepKey}>
      ${interrupt.message && !saysNoMore(interrupt) ? html`<p class="navi-ask-message navi-text" dir="auto" lang="">${visibleText(interrupt.message)}</p>` : nothing}
      ${details.length ? detailsView(details, isWhole, showAll) : html`<p class="navi-none">${strings.noArguments}</p>`} ${hiddenNote(hiddenOf(details, isWhole), showAll)}
      ${optionButtons(
        interrupt,
        isSent || !isArmed,
        (option) => this.#send(interrupt, "resolved", { approved: allows(option), option: option.id }),
        () => this.#send(interrupt, "resolved", { approved: false }),
      )}
      ${isSent ? html`<p class="navi-note navi-late">${strings.answering}</p>` : nothing}
    </form>`;
  }

  #approval(interrupt: Interrupt, id: string): TemplateResult {
    if (interrupt.options.length) return this.#offered(interrupt);
    const { isEditing, isSent, isWhole, isArmed } = this.local(interrupt.id);
    const isOff = isSent || !isArmed;
    const args = interrupt.args ?? {};
    const details = interrupt.details.length ? interrupt.details : detailsOfArguments(args);
    const showAll = (): void => this.#set(interrupt.id, { isWhole: true });
    const fields = isEditing ? argumentFields(args) : [];
    const tool = interrupt.tool ?? "";
    // A question in the call's own words (leave for a recall) is about this call: no other one is allowed with it.
    const mayAlways = tool !== "" && interrupt.message === `${strings.askTitle(tool)}.`;
    const submit = (event: SubmitEvent): void => {
      event.preventDefault();
      const form = event.currentTarget as HTMLFormElement;
      const edited = isEditing ? readForm(form, fields) : {};
      if (edited === null) return;
      const isAlwaysButton = event.submitter?.dataset["navi"] === "ask-always";
      const always = isAlwaysButton || form.querySelector<HTMLInputElement>("input[data-navi=ask-always]")?.checked === true;
      this.#send(interrupt, "resolved", { approved: true, ...(isEditing ? { args: { ...args, ...edited } } : {}), ...(always ? { always: "session" } : {}) });
    };
    const deny = (event: Event): void => {
      const reason = (event.currentTarget as HTMLElement).closest("form")?.querySelector<HTMLInputElement>("[data-navi=ask-reason]");
      const message = reason?.value.trim() ?? "";
      this.#send(interrupt, "resolved", { approved: false, ...(message ? { message } : {}) });
    };
    return html`<form class="navi-ask-form" @submit=${submit} @keydown=${keepKey} novalidate>
      ${interrupt.message && !saysNoMore(interrupt) ? html`<p class="navi-ask-message navi-text" dir="auto" lang="">${visibleText(interrupt.message)}</p>` : nothing}
      ${details.length ? detailsView(details, isWhole, showAll) : html`<p class="navi-none">${strings.noArguments}</p>`}
      ${isEditing ? html`<div class="navi-fields" data-navi="ask-edit-fields">${formFields(fields, id)}</div>` : nothing}
      ${hiddenNote(hiddenOf(details, isWhole), showAll)}
      <div class="navi-ask-actions">
        <button type="submit" class="navi-button navi-primary" data-navi="ask-approve" ?disabled=${isOff}>
          ${isEditing ? strings.approveEdited : strings.approve}
        </button>
        ${mayAlways && this.#options.place === "cell"
          ? html`<button type="submit" class="navi-button" data-navi="ask-always" title=${strings.always(tool)} ?disabled=${isOff}>${strings.alwaysButton}</button>`
          : nothing}
        <button type="button" class="navi-button" data-navi="ask-deny" ?disabled=${isOff} @click=${deny}>${strings.deny}</button>
        ${Object.keys(args).length
          ? html`<button
              type="button"
              class="navi-button navi-quiet"
              data-navi="ask-edit"
              aria-expanded=${isEditing ? "true" : "false"}
              ?disabled=${isSent}
              @click=${() => this.#set(interrupt.id, { isEditing: !isEditing })}
            >
              ${isEditing ? strings.back : strings.edit}
            </button>`
          : nothing}
        <input
          class="navi-ask-reason"
          data-navi="ask-reason"
          type="text"
          maxlength="2000"
          autocomplete="off"
          aria-label=${strings.denyReason}
          placeholder=${strings.denyReason}
          ?disabled=${isSent}
          @keydown=${(event: KeyboardEvent) => {
            if (event.key !== "Enter" || event.isComposing) return;
            event.preventDefault(); // a reason is one against it
            deny(event);
          }}
        />
      </div>
      ${mayAlways && this.#options.place === "chat"
        ? html`<label class="navi-ask-always"><input type="checkbox" data-navi="ask-always" ?disabled=${isSent} />${strings.always(tool)}</label>`
        : nothing}
      ${isSent ? html`<p class="navi-note navi-late">${strings.answering}</p>` : nothing}
    </form>`;
  }

  #question(interrupt: Interrupt, id: string): TemplateResult {
    const { isSent, isArmed } = this.local(interrupt.id);
    const isOff = isSent || !isArmed;
    const known = fieldsOf(interrupt.schema);
    const takesNothing = interrupt.schema !== null && known === null && isEmptySchema(interrupt.schema);
    const fields: readonly Field[] = takesNothing ? [] : (known ?? [freeField(interrupt.schema)]);
    const submit = (event: SubmitEvent): void => {
      event.preventDefault();
      const values = readForm(event.currentTarget as HTMLFormElement, fields);
      if (values !== null) this.#send(interrupt, "resolved", known || takesNothing ? values : values[""]);
    };
    const single = choicesAtOnce(fields);
    const choose = (value: string | number): void => this.#send(interrupt, "resolved", { [single?.name ?? ""]: value });
    return html`<form class="navi-ask-form" @submit=${submit} @keydown=${keepKey} novalidate>
      ${isForeign(interrupt) ? html`<p class="navi-foreign">${strings.foreignAsks}</p>` : nothing}
      <p class="navi-ask-message navi-text" dir="auto" lang="">${visibleText(interrupt.message)}</p>
      ${fields.length && !single ? html`<div class="navi-fields">${formFields(fields, id)}</div>` : nothing}
      <div class="navi-ask-actions">
        ${single
          ? single.choices.map(
              ([value, name]) =>
                html`<button type="button" class="navi-button navi-choice" data-navi="ask-choice" dir="auto" ?disabled=${isOff} @click=${() => choose(value)}>${visibleText(name)}</button>`,
            )
          : html`<button type="submit" class="navi-button navi-primary" data-navi="ask-answer" ?disabled=${isOff}>${strings.answer}</button>`}
        <button type="button" class="navi-button" data-navi="ask-decline" ?disabled=${isOff} @click=${() => this.#send(interrupt, "cancelled")}>
          ${strings.decline}
        </button>
      </div>
      ${isSent ? html`<p class="navi-note navi-late">${strings.answering}</p>` : nothing}
    </form>`;
  }

  #send(interrupt: Interrupt, status: "resolved" | "cancelled", payload?: unknown): void {
    if (this.local(interrupt.id).isSent) return;
    focusCard(); // its buttons are switched off now
    this.#set(interrupt.id, { isSent: true });
    this.#actions.answer(interrupt, status, payload);
  }

  #set(id: string, change: Partial<Local>): void {
    this.#locals.set(id, { ...this.local(id), ...change });
    this.#actions.redraw();
  }
}

/** How many choices have a button each; more are a list to choose from. */
const MOST_BUTTONS = 8;

/** The one field of a form that is a choice among few: a button each answers at once. */
function choicesAtOnce(fields: readonly Field[]): Field | null {
  const [field] = fields;
  if (fields.length !== 1 || field?.kind !== "choice" || !field.required || field.initial !== undefined) return null;
  return field.choices.length <= MOST_BUTTONS ? field : null;
}

/** A settled question in the user's eyes: what was answered, by value where it is one, else by name. */
function answerText({ about, status, payload }: Interrupt): string {
  if (about !== "question" || status !== "resolved" || !isObject(payload)) return "";
  const given = Object.entries(payload).filter(([, value]) => value !== "" && value !== null);
  const [only] = given;
  const text = given.length === 1 && only ? String(only[1]) : given.map(([name, value]) => `${name}: ${String(value)}`).join(", ");
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

/** Whether the message is what the title says already. */
function saysNoMore(interrupt: Interrupt): boolean {
  const message = interrupt.message.replace(/\.$/, ""); // in English, as all that the server says
  return message === titleOf(interrupt) || message === english.askTitle(interrupt.tool ?? "") || message === textOf(english.askTitles, interrupt.tool ?? "");
}

export function titleOf(interrupt: Interrupt): string {
  const source = interrupt.source ?? "";
  if (interrupt.about === "question") return isForeign(interrupt) ? strings.questionOf(markedLine(source.slice(source.indexOf(":") + 1))) : strings.questionTitle;
  const tool = interrupt.tool ?? "";
  // Another program may name its tool as one of ours.
  if (source.startsWith(OF_AGENT)) return strings.agentAsks(markedLine(source.slice(OF_AGENT.length)));
  const own = source === "" || source === "builtin" ? textOf(strings.askTitles, tool) : undefined;
  return own ?? strings.askTitle(markedLine(tool));
}

/** What screen readers say of a question that has come. */
export function spoken(interrupt: Interrupt): string {
  return saysNoMore(interrupt) ? titleOf(interrupt) : `${titleOf(interrupt)} ${marked(interrupt.message)}`;
}

/** Whether another program asks. */
function isForeign({ source }: Interrupt): boolean {
  return source?.startsWith("mcp:") === true;
}

/** Beside the buttons: what of it has not been on the screen. */
function hiddenNote(hidden: Hidden, showAll: () => void): TemplateResult | typeof nothing {
  if (!hidden.characters && !hidden.omitted) return nothing;
  return html`<p class="navi-ask-hidden" data-navi="ask-hidden" role="note">
    ${hidden.characters ? html`${strings.askHidden(hidden.lines, hidden.characters)} <button type="button" class="navi-link" data-navi="ask-all" @click=${showAll}>${strings.showAll}</button>` : nothing}
    ${hidden.omitted ? strings.askOmitted(hidden.omitted) : nothing}
  </p>`;
}

/** One line: what was answered, by whom, when. */
function settled(interrupt: Interrupt): TemplateResult {
  const [mark, plain] = outcome(interrupt);
  const chosen = chosenName(interrupt);
  const text = chosen ? strings.choseOption(plain, chosen) : plain;
  const { payload, about, answeredAt } = interrupt;
  const given = answerText(interrupt);
  const why = about === "approval" && isObject(payload) && typeof payload["message"] === "string" ? payload["message"] : "";
  return html`<div
    class="navi-ask-settled"
    data-navi="ask"
    data-kind=${about}
    data-interrupt-id=${interrupt.id}
    data-status=${interrupt.status}
    data-approved=${about === "approval" && interrupt.status === "resolved" ? String(isApproved(interrupt)) : nothing}
  >
    ${mark}<span title=${answeredAt === null ? nothing : fullTime(new Date(answeredAt))}
      >${answeredAt === null ? text.replace(/[,，]\s*$/, "") : text}${why ? html`: <q dir="auto" lang="">${visibleText(why)}</q>` : nothing}${given
        ? html`: <span class="navi-ask-question" dir="auto" lang="">${visibleText(interrupt.message)}</span> <q data-navi="ask-given" dir="auto" lang="">${visibleText(given)}</q>`
        : nothing}</span
    >
  </div>`;
}

function isApproved({ payload }: Interrupt): boolean {
  return !isObject(payload) || payload["approved"] !== false;
}

function outcome(interrupt: Interrupt): [TemplateResult, string] {
  const { status, about, answeredBy } = interrupt;
  if (status === "expired") return [icons.clock, strings.askExpired];
  if (status === "cancelled" && !(answeredBy && about === "question")) return [icons.close, strings.askCancelled];
  const who = answeredBy === null ? "" : answeredBy.startsWith("kernel:") ? strings.byCell : answeredBy === ONLY_USER ? strings.byYou : strings.byName(markedLine(answeredBy));
  const when = interrupt.answeredAt === null ? "" : shortTime(new Date(interrupt.answeredAt));
  if (status === "cancelled") return [icons.close, strings.declinedBy(who, when)];
  if (about === "question") return [icons.check, strings.answeredBy(who, when)];
  if (!isApproved(interrupt)) return [icons.close, strings.deniedBy(who, when)];
  const payload = isObject(interrupt.payload) ? interrupt.payload : {};
  if (payload["always"] === "session") return [icons.check, strings.allowedAlwaysBy(who, when)];
  return [icons.check, isObject(payload["args"]) ? strings.allowedChangedBy(who, when) : strings.allowedBy(who, when)];
}

function isEmptySchema({ type, properties }: Fields): boolean {
  return type === "object" && (properties === undefined || (isObject(properties) && !Object.keys(properties).length));
}
