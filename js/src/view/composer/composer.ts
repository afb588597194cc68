/** Where the user writes. The text belongs to the textarea; a draft of it survives a reload. */

import { html, nothing, type TemplateResult } from "lit";
import { readStored, writeStored } from "../../connection/storage.js";
import type { Transport } from "../../connection/transport.js";
import type { ActiveRun, Attached } from "../../state/model.js";
import { keepInput } from "../lib/keyboard-guard.js";
import { icons } from "../lib/icons.js";
import { ModeMenu, type Mode } from "./modes.js";
import { strings } from "../lib/strings.js";
import { AttachmentList, type Attachments } from "./attachments.js";
import { dragOf } from "./drops.js";
import { Completion, type Suggestions } from "./completion.js";
import { PromptHistory } from "./history.js";
import { commandOf, mentionsIn, type CommandLine, type Trigger } from "./triggers.js";

/** What is sent. `mode` is null while no run is active. */
export interface Written extends Attachments {
  readonly text: string;
  readonly mode: Mode | null;
  /** What the text names with `@`. */
  readonly mentions?: readonly string[];
  /** A run that has ended, in the place of which it is sent; `again`: its prompt as it was. */
  readonly replaces?: string;
  readonly again?: boolean;
}

/** An earlier message that is being changed. */
export interface Earlier {
  readonly runId: string | null;
  readonly text: string;
  readonly attachments: readonly Attached[];
}

/** What is known outside of the text: what can complete it, what was written before. */
export interface WritingSupport {
  suggestions(trigger: Trigger): Promise<Suggestions>;
  /** Whether a line is for the chat itself, and no prompt. */
  isCommand(line: CommandLine): boolean;
  /** Does it. Answers whether it was possible; if not, the line stays to be changed. */
  run(line: CommandLine): Promise<boolean>;
  /** The prompts of the session, newest first. */
  prompts(): readonly string[];
  /** Whether a run is the last one of the conversation, and over: then its prompt can be replaced. */
  isReplaceable(runId: string): boolean;
}

export interface ComposerActions {
  send(written: Written): void;
  stop(): void;
  /** Closes what lies over the conversation. Whether something did. */
  escape(): boolean;
  transport(): Transport | null;
  problem(text: string): void;
  redraw(): void;
}

/** Whether the textarea grows with its text by itself: measuring it lays out the view with each key. */
const GROWS = typeof CSS !== "undefined" && CSS.supports?.("field-sizing", "content");

/** A text that is longer is attached as a file: a small field is no place to change it, and would be slow. Characters. */
const LONGEST_PASTE = 50_000;

export class Composer {
  readonly #host: HTMLElement;
  readonly #actions: ComposerActions;
  readonly #menu: ModeMenu;
  readonly tray: AttachmentList;
  readonly #completion: Completion;
  readonly #history = new PromptHistory(() => this.#support?.prompts() ?? []);
  #support: WritingSupport | null = null;
  /** The message that is being changed, and what was in the composer before. */
  #editing: { readonly earlier: Earlier; readonly draft: string } | null = null;
  #draftKey = "";
  #isBusy = false;
  #isLocked = false;
  #found: HTMLTextAreaElement | null = null;

  constructor(host: HTMLElement, actions: ComposerActions) {
    this.#host = host;
    this.#actions = actions;
    this.#menu = new ModeMenu(host, () => actions.redraw(), () => this.focus());
    this.#completion = new Completion({
      suggestions: (trigger) => this.#support?.suggestions(trigger) ?? Promise.resolve({ options: [], notes: [] }),
      changed: () => this.#changed(),
      redraw: () => actions.redraw(),
    });
    this.tray = new AttachmentList({
      transport: () => actions.transport(),
      problem: (text) => actions.problem(text),
      changed: () => {
        this.#enable();
        actions.redraw();
      },
    });
  }

  /** Looked for once: it stands behind the whole conversation, and is needed with each key. */
  get #input(): HTMLTextAreaElement | null {
    if (!this.#found?.isConnected) this.#found = this.#host.querySelector<HTMLTextAreaElement>('[data-navi="input"]');
    return this.#found;
  }

  get text(): string {
    return this.#input?.value ?? "";
  }

  set text(text: string) {
    const input = this.#input;
    if (!input) return;
    input.value = text;
    this.#changed();
  }

  focus(): void {
    this.#input?.focus();
  }

  /** Puts a text into the composer, to be sent or changed. */
  suggest(text: string): void {
    this.text = text;
    this.focus();
  }

  /** Called once, when the rest of the chat is there. */
  use(support: WritingSupport): void {
    this.#support = support;
  }

  /** Puts an earlier message into the composer, to be changed and sent again. */
  edit(earlier: Earlier): void {
    this.#editing = { earlier, draft: this.#editing?.draft ?? this.text };
    this.tray.clear();
    // What it mentions is read anew.
    this.tray.addStored(earlier.attachments.filter(({ name }) => !name.startsWith("@")));
    this.suggest(earlier.text);
    const input = this.#input;
    input?.setSelectionRange(input.value.length, input.value.length);
    this.#actions.redraw();
  }

  /** Another session: what was attached for the old one is not for this. */
  reset(): void {
    this.#menu.reset();
    this.#completion.close();
    this.#history.reset();
    this.#editing = null;
    this.tray.clear();
  }

  /** Something else of the view was pressed. */
  closeMenu(): void {
    this.#menu.close();
  }

  /** Call after the drawings of a session, or of a view that has none yet: puts its draft into the composer, once. */
  restoreDraft(session: string): void {
    if (this.#draftKey === `draft:${session}`) return;
    this.#draftKey = `draft:${session}`;
    this.text = readStored(this.#draftKey) ?? "";
  }

  /** `lock`: nothing can be written; `reader`: as the user can only read the session. */
  render(active: ActiveRun | null, lock: "none" | "closed" | "reader"): TemplateResult {
    const disabled = lock !== "none";
    const run = lock === "reader" ? null : active; // nor can it be stopped
    this.#isBusy = run !== null;
    this.#isLocked = disabled;
    if (!run) this.#menu.reset();
    const waits = run?.status === "waiting" ? strings.placeholderWaiting : strings.placeholderBusy;
    const placeholder = lock === "reader" ? strings.placeholderReader : run === null ? strings.placeholder : waits;
    const label = run ? strings.sendAs(strings.modes[this.#menu.mode].name) : strings.send;
    return html`<form class="navi-composer" @submit=${this.#submit} @focusout=${this.#left}>
      ${this.#completion.render()} ${this.#editing ? this.#editBar(this.#editing.earlier) : nothing} ${this.tray.render()}
      <div class="navi-composer-row">
        <button
          type="button"
          class="navi-icon-button navi-attach"
          data-navi="attach"
          aria-label=${strings.attach}
          title=${strings.attach}
          ?disabled=${disabled}
          @click=${() => this.#host.querySelector<HTMLInputElement>("[data-navi=file-input]")?.click()}
        >
          ${icons.attach}
        </button>
        <input type="file" data-navi="file-input" multiple hidden aria-label=${strings.attach} @change=${this.#picked} />
        <textarea
          data-navi="input"
          rows="1"
          dir="auto"
          aria-label=${strings.inputLabel}
          title=${strings.sendHint}
          placeholder=${placeholder}
          enterkeyhint="send"
          aria-autocomplete="list"
          aria-haspopup="listbox"
          aria-controls=${this.#completion.listId ?? nothing}
          aria-activedescendant=${this.#completion.activeId ?? nothing}
          ?disabled=${disabled}
          @beforeinput=${keepInput}
          @input=${this.#written}
          @click=${this.#moved}
          @keyup=${this.#moved}
          @keydown=${this.#keydown}
          @paste=${this.#pasted}
        ></textarea>
        ${run ? this.#stop(run) : nothing} ${run ? this.#menu.render() : nothing}
        <button type="submit" class="navi-send" data-navi="send" aria-label=${label} title=${label} disabled>${icons.send}</button>
      </div>
    </form>`;
  }

  #stop(run: ActiveRun): TemplateResult {
    const stopping = run.status === "stopping";
    return html`<button
      type="button"
      class="navi-stop"
      data-navi="stop"
      aria-label=${stopping ? strings.stopping : strings.stop}
      title=${stopping ? strings.stopping : `${strings.stop} (Escape)`}
      ?disabled=${stopping}
      @click=${() => this.#actions.stop()}
    >
      ${icons.stop}<span>${stopping ? strings.stopping : strings.stop}</span>
    </button>`;
  }

  readonly #submit = (event: Event): void => {
    event.preventDefault();
    this.#send(this.#menu.mode);
  };

  #send(mode: Mode): void {
    const text = this.text.trim();
    if (!text || this.tray.isBusy) return;
    const line = commandOf(text);
    if (line && this.#support?.isCommand(line)) return void this.#run(line, text);
    this.text = "";
    this.#history.add(text);
    this.#menu.mode = "enqueue"; // what stops or forgets something is chosen each time
    const runId = this.#editing?.earlier.runId ?? null;
    const replaces = runId !== null && this.#support?.isReplaceable(runId) ? { replaces: runId } : {};
    this.#editing = null;
    this.#actions.send({ text, mode: this.#isBusy ? mode : null, ...this.tray.take(), mentions: mentionsIn(text), ...replaces });
  }

  /** A line that is for the chat itself. */
  async #run(line: CommandLine, text: string): Promise<void> {
    this.text = "";
    this.#history.add(text);
    if (!(await this.#support?.run(line)) && this.text === "") this.text = text;
  }

  #editBar({ runId }: Earlier): TemplateResult {
    const isReplaced = runId !== null && this.#support?.isReplaceable(runId);
    return html`<div class="navi-edit-bar" data-navi="edit-bar" role="status">
      ${icons.edit}
      <span>${strings.editing}. <span class="navi-edit-what">${isReplaced ? strings.editingReplaces : strings.editingAnew}</span></span>
      <button type="button" class="navi-icon-button" data-navi="edit-cancel" aria-label=${strings.editingCancel} title=${strings.editingCancel} @click=${() => this.#endEdit()}>
        ${icons.close}
      </button>
    </div>`;
  }

  /** Gives back what was in the composer before. */
  #endEdit(): void {
    const { draft } = this.#editing ?? { draft: "" };
    this.#editing = null;
    this.tray.clear();
    this.suggest(draft);
    this.#actions.redraw();
  }

  /** An earlier prompt in the place of the text, by the arrow keys in its first or last line. */
  #recalled(event: KeyboardEvent): boolean {
    if (event.shiftKey || event.altKey || event.ctrlKey || event.metaKey || this.#editing) return false;
    const input = event.currentTarget as HTMLTextAreaElement;
    const { value, selectionStart: from, selectionEnd: to } = input;
    if (from !== to) return false;
    const isUp = event.key === "ArrowUp";
    if (isUp ? value.slice(0, from).includes("\n") : value.slice(to).includes("\n")) return false;
    const text = isUp ? this.#history.older(value) : this.#history.newer(value);
    if (text === null) return false;
    event.preventDefault();
    this.text = text;
    // At the end of the first line, so that the next key goes on from there.
    const caret = isUp ? text.split("\n", 1)[0]?.length ?? 0 : text.length;
    input.setSelectionRange(caret, caret);
    return true;
  }

  #enable(): void {
    const input = this.#input;
    const send = input?.form?.querySelector<HTMLButtonElement>('[data-navi="send"]');
    if (input && send) send.disabled = input.disabled || this.tray.isBusy || input.value.trim() === "";
  }

  readonly #changed = (): void => {
    const input = this.#input;
    if (!input) return;
    this.#enable();
    if (!GROWS) input.style.height = "auto";
    if (!GROWS && input.value) input.style.height = `${input.scrollHeight + input.offsetHeight - input.clientHeight}px`;
    if (this.#draftKey) writeStored(this.#draftKey, input.value || null);
  };

  readonly #written = (): void => {
    this.#changed();
    this.#moved();
  };

  /** The caret may be elsewhere. */
  readonly #moved = (): void => {
    if (this.#input) this.#completion.update(this.#input);
  };

  readonly #left = ({ currentTarget, relatedTarget }: FocusEvent): void => {
    if (!(relatedTarget instanceof Node && (currentTarget as Element).contains(relatedTarget))) this.#completion.close();
  };

  readonly #keydown = (event: KeyboardEvent): void => {
    if (event.isComposing || event.keyCode === 229) return; // an input method is at work; Enter is its own
    if (this.#completion.keydown(event)) return;
    if (event.key === "Enter") {
      event.stopPropagation(); // the notebook would run the cell
      if (event.shiftKey || event.altKey) return;
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) this.#send("steer");
      else (event.currentTarget as HTMLTextAreaElement).form?.requestSubmit();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      if (this.#actions.escape()) return;
      if (this.#editing) this.#endEdit();
      else this.#actions.stop();
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      if (this.#recalled(event)) event.stopPropagation();
    }
  };

  // --- files ---------------------------------------------------------------------------------------------------------

  readonly #picked = (event: Event): void => {
    const input = event.currentTarget as HTMLInputElement;
    this.tray.add(input.files ?? []);
    input.value = "";
    this.focus();
  };

  readonly #pasted = (event: ClipboardEvent): void => {
    const text = event.clipboardData?.getData("text/plain") ?? "";
    const isLong = text.length > LONGEST_PASTE;
    const files = isLong ? [new File([text], "pasted.txt", { type: "text/plain" })] : event.clipboardData?.files;
    if (!files?.length) return;
    event.stopPropagation();
    // Office programs put a picture of copied text beside the text: the text is what is meant.
    if (text && !isLong) return;
    event.preventDefault();
    this.tray.add(files);
  };

  /** Files are over the view, were dropped on it, or went away again. */
  readonly dragged = (event: Event): void => {
    const drag = dragOf(event);
    if (!drag) return;
    event.preventDefault();
    event.stopPropagation();
    if (this.#isLocked) return;
    const isStill = drag.relatedTarget instanceof Node && this.#host.contains(drag.relatedTarget);
    this.#host.classList.toggle("navi-dropping", drag.action === "over" || (drag.action === "leave" && isStill));
    if (drag.action !== "drop") return;
    this.tray.add(drag.files);
    this.tray.addPaths(drag.paths);
    this.focus();
  };
}
