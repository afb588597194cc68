/** Recalls of a session as a TOML file: saved, and taken in after a look at what would be made. */

import { html, nothing, type TemplateResult } from "lit";
import { repeat } from "lit/directives/repeat.js";
import { isObject } from "../../protocol/frames.js";
import type { Imported, Recall } from "../../protocol/generated.js";
import { leaveText } from "./leave-choice.js";
import { ask, type RequestContext } from "./requests.js";
import { moment, worded } from "./time.js";
import { strings } from "../lib/strings.js";
import { scheduleWords } from "../lib/schedule-words.js";

/** What a file would make. */
interface Offer {
  readonly name: string;
  readonly toml: string;
  readonly recalls: readonly Recall[];
  /** Their schedules, by their ids. */
  readonly words: Readonly<Record<string, string>>;
}

export class Exchange {
  readonly #context: RequestContext;
  readonly #report: (text: string | null) => void;
  #offer: Offer | null = null;
  #isBusy = false;

  /** `report` gets what was done; null when an operation begins. */
  constructor(context: RequestContext, report: (text: string | null) => void) {
    this.#context = context;
    this.#report = report;
  }

  close(): void {
    this.#offer = null;
    this.#isBusy = false;
  }

  /** Part of the bar. `hasAny`: there is something to save. */
  buttons(hasAny: boolean): TemplateResult {
    const canSave = hasAny && this.#context.transport()?.load !== undefined;
    return html`${canSave
        ? html`<button type="button" class="navi-link" data-navi="recall-export" title=${strings.recallExportTitle} @click=${() => void this.#save()}>${strings.recallExport}</button>`
        : nothing}
      <button type="button" class="navi-link" data-navi="recall-import" title=${strings.recallImportTitle} @click=${this.#choose}>${strings.recallImport}</button>
      <input type="file" data-navi="recall-file" accept=".toml,text/toml,application/toml" hidden @change=${this.#chosen} />`;
  }

  render(): TemplateResult | typeof nothing {
    const offer = this.#offer;
    if (offer === null) return nothing;
    const { name, recalls, words } = offer;
    return html`<section class="navi-recall-form" data-navi="recall-offer" role="group" aria-label=${strings.recallImport}>
      <p>${recalls.length ? strings.recallImportCheck(name, recalls.length) : strings.recallImportNone(name)}</p>
      <ul class="navi-recall-offer">
        ${repeat(recalls, (_, index) => index, (recall) => html`<li><b dir="auto" lang="">${recall.title}</b> <span class="navi-recall-when">${when(recall, words[recall.id])}</span></li>`)}
      </ul>
      <div class="navi-form-actions">
        <button type="button" class="navi-button" data-navi="recall-import-make" ?disabled=${!recalls.length || this.#isBusy} @click=${() => void this.#make(offer)}>
          ${strings.recallImportMake(recalls.length)}
        </button>
        <button type="button" class="navi-link" data-navi="recall-import-back" @click=${this.#leave}>${strings.back}</button>
      </div>
    </section>`;
  }

  async #save(): Promise<void> {
    this.#report(null);
    const session = encodeURIComponent(this.#context.session() ?? "");
    const file = await this.#context.transport()?.load?.(`recalls/export?session_id=${session}`).catch(() => null);
    if (!file) return this.#context.problem(strings.failed(strings.noServer));
    const url = URL.createObjectURL(file);
    const link = Object.assign(document.createElement("a"), { href: url, download: "recalls.toml" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000); // the browser reads it after the click
  }

  readonly #choose = (event: Event): void => {
    (event.currentTarget as HTMLElement).parentElement?.querySelector<HTMLInputElement>("[data-navi=recall-file]")?.click();
  };

  readonly #chosen = (event: Event): void => {
    const input = event.target as HTMLInputElement;
    const file = input.files?.[0];
    if (file) void file.text().then((toml) => this.#look(file.name, toml));
    input.value = ""; // so that the same file can be chosen again once it is mended
  };

  readonly #leave = (): void => {
    this.close();
    this.#context.redraw();
  };

  async #look(name: string, toml: string): Promise<void> {
    this.close();
    const found = await this.#send(toml, true);
    if (found) this.#offer = { name, toml, recalls: found.recalls, words: found.words ?? {} };
    this.#context.redraw();
  }

  async #make({ toml }: Offer): Promise<void> {
    this.#isBusy = true;
    this.#context.redraw();
    const made = await this.#send(toml, false);
    this.#isBusy = false;
    if (made) {
      this.close();
      this.#report(strings.recallImported(made.recalls.length));
    }
    this.#context.redraw();
  }

  async #send(toml: string, isDry: boolean): Promise<Imported | null> {
    this.#report(null);
    const session = encodeURIComponent(this.#context.session() ?? "");
    const body = await ask(this.#context, "POST", `recalls/import?session_id=${session}${isDry ? "&dry_run=true" : ""}`, { toml });
    return isObject(body) && Array.isArray(body["recalls"]) ? (body as unknown as Imported) : null;
  }
}

function when({ schedule, next_at: nextAt, allow }: Recall, words?: string): TemplateResult {
  return html`${worded(scheduleWords(schedule, words))}${nextAt === null ? nothing : html` · ${moment(nextAt)}`}${allow?.length ? html` · ${leaveText(allow)}` : nothing}`;
}
