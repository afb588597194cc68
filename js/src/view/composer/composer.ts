/** Where the user writes. The text belongs to the textarea; a draft of it survives a reload. */

import { html, nothing, type TemplateResult } from "lit";
import { readStored, writeStored } from "../../connection/storage.js";
import type { Transport } from "../../connection/transport.js";
import type { ActiveRun } from "../../state/model.js";
import { keepInput } from "../lib/keyboard-guard.js";
import { icons } from "../lib/icons.js";
import { ModeMenu, type Mode } from "./modes.js";
import { strings } from "../lib/strings.js";
import { AttachmentList, type Attachments } from "./attachments.js";

/** What is sent. `mode` is null while no run is active. */
export interface Written extends Attachments {
  readonly text: string;
  readonly mode: Mode | null;
}

export interface ComposerActions {
  send(written: Written): void;
  stop(): void;
  transport(): Transport | null;
  problem(text: string): void;
  redraw(): void;
}

export class Composer {
  readonly #host: HTMLElement;
  readonly #actions: ComposerActions;
  readonly #menu: ModeMenu;
  readonly tray: AttachmentList;
  #draftKey = "";
  #isBusy = false;

  constructor(host: HTMLElement, actions: ComposerActions) {
    this.#host = host;
    this.#actions = actions;
    this.#menu = new ModeMenu(host, () => actions.redraw(), () => this.focus());
    this.tray = new AttachmentList({
      transport: () => actions.transport(),
      problem: (text) => actions.problem(text),
      changed: () => {
        this.#enable();
        actions.redraw();
      },
    });
  }

  get #input(): HTMLTextAreaElement | null {
    return this.#host.querySelector<HTMLTextAreaElement>('[data-navi="input"]');
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

  /** Another session: what was attached for the old one is not for this. */
  reset(): void {
    this.#menu.reset();
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

  render(run: ActiveRun | null, disabled: boolean): TemplateResult {
    this.#isBusy = run !== null;
    if (!run) this.#menu.reset();
    const placeholder = run === null ? strings.placeholder : run.status === "waiting" ? strings.placeholderWaiting : strings.placeholderBusy;
    const label = run ? strings.sendAs(strings.modes[this.#menu.mode].name) : strings.send;
    return html`<form class="navi-composer" @submit=${this.#submit}>
      ${this.tray.render()}
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
          ?disabled=${disabled}
          @beforeinput=${keepInput}
          @input=${this.#changed}
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
    this.text = "";
    this.#menu.mode = "enqueue"; // what stops or forgets something is chosen each time
    this.#actions.send({ text, mode: this.#isBusy ? mode : null, ...this.tray.take() });
  }

  #enable(): void {
    const input = this.#input;
    const send = this.#host.querySelector<HTMLButtonElement>('[data-navi="send"]');
    if (input && send) send.disabled = input.disabled || this.tray.isBusy || input.value.trim() === "";
  }

  readonly #changed = (): void => {
    const input = this.#input;
    if (!input) return;
    this.#enable();
    input.style.height = "auto";
    if (input.value) input.style.height = `${input.scrollHeight + input.offsetHeight - input.clientHeight}px`;
    if (this.#draftKey) writeStored(this.#draftKey, input.value || null);
  };

  readonly #keydown = (event: KeyboardEvent): void => {
    if (event.isComposing || event.keyCode === 229) return; // an input method is at work; Enter is its own
    if (event.key === "Enter") {
      event.stopPropagation(); // the notebook would run the cell
      if (event.shiftKey || event.altKey) return;
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) this.#send("steer");
      else (event.currentTarget as HTMLTextAreaElement).form?.requestSubmit();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      this.#actions.stop();
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
    const files = event.clipboardData?.files;
    if (!files?.length) return;
    event.stopPropagation();
    // Office programs put a picture of copied text beside the text: the text is what is meant.
    if (event.clipboardData?.getData("text/plain")) return;
    event.preventDefault();
    this.tray.add(files);
  };

  /** Files are over the view, were dropped on it, or went away again. */
  readonly dragged = (event: DragEvent): void => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
    const isOver = event.type === "dragover" || event.type === "dragenter";
    const isStill = event.relatedTarget instanceof Node && this.#host.contains(event.relatedTarget);
    this.#host.classList.toggle("navi-dropping", isOver || (event.type === "dragleave" && isStill));
    if (event.type !== "drop") return;
    this.tray.add(event.dataTransfer.files);
    this.focus();
  };
}
