/** The notebook of the page in a chat: what of it goes along with a prompt, and what can be done with code of an answer. */

import { html, nothing, type TemplateResult } from "lit";
import type { CodeAction, CodeBlock } from "../conversation/code-actions.js";
import type { ChatContext, ChatFeature } from "../features.js";
import type { ClientNotebook } from "../../protocol/generated.js";
import type { ContextSummary, NotebookHost } from "../host.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";
import { isReader } from "../../state/select.js";

/** Milliseconds for which what the page has is not read again, unless it says that it has changed. */
const FRESH = 500;

export class NotebookFeature implements ChatFeature {
  readonly #chat: ChatContext;
  /** The host that the chat had at its last drawing. */
  #host: NotebookHost | null = null;
  #unsubscribe: (() => void) | null = null;
  /** Nothing of the page goes along with the next prompt. */
  #isOff = false;
  /** What the page had a moment ago: an answer that streams is drawn many times a second, and a notebook may be long. */
  #read: { readonly host: NotebookHost; readonly at: number; readonly summary: ContextSummary | null } | null = null;

  constructor(chat: ChatContext) {
    this.#chat = chat;
    for (const action of this.#actions()) chat.codeActions.add(action);
  }

  reset(): void {
    this.#isOff = false;
  }

  connected(): void {
    this.#follow();
  }

  disconnected(): void {
    this.#unsubscribe?.();
    this.#unsubscribe = null;
  }

  aboveComposer(): TemplateResult | typeof nothing {
    const { host } = this.#chat.element;
    if (host !== this.#host) {
      this.#host = host;
      this.#follow();
      // Not in the middle of a drawing.
      queueMicrotask(() => this.#chat.codeActions.refresh());
    }
    const summary = host && !isReader(this.#chat.state()) ? this.#summaryOf(host) : null;
    return summary ? this.#line(summary) : nothing;
  }

  #summaryOf(host: NotebookHost): ContextSummary | null {
    const now = performance.now();
    if (this.#read?.host !== host || now - this.#read.at > FRESH) this.#read = { host, at: now, summary: host.summary() };
    return this.#read.summary;
  }

  /** What goes along with a prompt that is being sent. */
  notebook(): ClientNotebook | null {
    const isOff = this.#isOff;
    this.#isOff = false;
    return isOff ? null : (this.#chat.element.host?.context() ?? null);
  }

  #follow(): void {
    this.#unsubscribe?.();
    const changed = (): void => {
      this.#read = null;
      this.#chat.redraw();
    };
    this.#unsubscribe = this.#chat.element.isConnected ? (this.#host?.subscribe(changed) ?? null) : null;
  }

  #line(summary: ContextSummary): TemplateResult {
    const parts = partsOf(summary).join(" · ");
    const isOff = this.#isOff;
    const label = isOff ? strings.contextKept(parts) : strings.contextSent(parts);
    const toggle = (): void => {
      this.#isOff = !this.#isOff;
      this.#chat.redraw();
    };
    return html`<div class="navi-context" data-navi="context" data-sent=${isOff ? "false" : "true"}>
      <button
        type="button"
        class="navi-context-toggle"
        data-navi="context-toggle"
        aria-pressed=${isOff ? "false" : "true"}
        aria-label=${label}
        title=${summary.unsaved ? `${label}\n${strings.contextUnsaved}` : label}
        @click=${toggle}
      >
        ${isOff ? icons.close : icons.check}<span class="navi-context-parts" dir="auto">${parts}</span>${isOff ? html`<small>${strings.contextOff}</small>` : nothing}
      </button>
    </div>`;
  }

  /** The order is that of the buttons. */
  #actions(): readonly CodeAction[] {
    const action = (name: string, text: "insertBelow" | "replaceCell" | "runCode", run: (host: NotebookHost, block: CodeBlock) => void): CodeAction => ({
      name,
      text: () => strings[text],
      label: () => strings[`${text}Title`],
      applies: ({ language }) => this.#host?.canEdit === true && (text !== "runCode" || this.#host.canRun(language)),
      run: (block) => {
        const { host } = this.#chat.element;
        if (host) run(host, block);
      },
    });
    return [
      action("insert-below", "insertBelow", (host, { code, language }) => host.insertBelow(code, language)),
      action("replace-cell", "replaceCell", (host, { code, language }) => host.replaceCell(code, language)),
      action("run-code", "runCode", (host, block) => void this.#run(host, block)),
    ];
  }

  /** Code that is not what it looks like is not run at a single press. */
  async #run(host: NotebookHost, { code, language }: CodeBlock): Promise<void> {
    const visible = await import("../conversation/card-parts.js").catch(() => null);
    if (visible?.marked(code) === code) host.runCode(code, language);
    else {
      host.insertBelow(code, language);
      this.#chat.problem(strings.runHeld);
    }
  }
}

/** "report.ipynb", "In [3]", "selection". */
function partsOf({ path, cell, hasSelection, error }: ContextSummary): readonly string[] {
  return [
    path.split("/").at(-1) ?? path,
    ...(cell === null ? [] : [cell]),
    ...(hasSelection ? [strings.contextSelection] : []),
    ...(error === null ? [] : [error === cell ? strings.contextOwnError : strings.contextError(error)]),
  ];
}
