/** The part of a recall's form that says what is run: Navi with a message, or a notebook with its parameters. */

import { html, nothing, type TemplateResult } from "lit";
import { ref } from "lit/directives/ref.js";
import { repeat } from "lit/directives/repeat.js";
import { isObject } from "../../protocol/frames.js";
import type { NotebookJob, NotebookJobInput, NotebookPage, NotebookToRun, PromptJob, Recall } from "../../protocol/generated.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";
import type { NotebookDraft } from "../overview/remind.js";
import { readLines, readParameters, written, writtenLines } from "./parameters.js";
import { tryTo, type RequestContext } from "./requests.js";
import "../../style/fields.js";

/** After the last key. Milliseconds. */
const PAUSE = 250;
const OFFERED = 30;
/** A message that asks for what a notebook job does. */
const ASKS_FOR_ONE = /^\s*(?:please\s+)?(?:re-?run|run|execute)\s+(?:the\s+|my\s+)?(?:notebook\s+)?["'`]?(\S[^"'`\n]*?\.ipynb)["'`]?\s*\.?\s*$/i;

type Text = "path" | "output" | "then" | "timeout" | "free";
const EMPTY: Readonly<Record<Text, string>> = { path: "", output: "", then: "", timeout: "", free: "" };

let forms = 0;

export class JobForm {
  readonly #context: RequestContext;
  /** Of the list of paths: a page may have many forms. */
  readonly #listId = `navi-job-paths-${(forms += 1)}`;
  /** What is stored; null: a prompt. */
  #job: NotebookJob | null = null;
  #isOn = false;
  #texts: Record<Text, string> = { ...EMPTY };
  #kernel = "";
  /** Parameters as they are written, by name. */
  #given: Readonly<Record<string, string>> = {};
  /** The notebook at the path, why there is none, or null while it is not known. */
  #found: NotebookToRun | string | null = null;
  #offered: readonly string[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(context: RequestContext) {
    this.#context = context;
  }

  open(run: Recall["run"] | undefined, timeout: string | null | undefined): void {
    clearTimeout(this.#timer);
    this.#job = run?.kind === "notebook" ? run : null;
    this.#isOn = this.#job !== null;
    this.#texts = { ...EMPTY, path: this.#job?.path ?? "", output: this.#job?.output ?? "", then: this.#job?.then ?? "", timeout: timeout ?? "" };
    this.#kernel = this.#job?.kernel ?? "";
    this.#give(this.#job?.parameters ?? {});
    this.#found = null;
    if (this.#isOn) void this.#look();
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #give(parameters: NotebookJob["parameters"]): void {
    this.#given = Object.fromEntries(Object.entries(parameters).map(([name, value]) => [name, written(value)]));
    this.#texts.free = writtenLines(parameters);
  }

  /** A notebook instead of a message. */
  choose({ path, parameters = {} }: NotebookDraft): void {
    this.#isOn = true;
    this.#texts.path = path;
    this.#give(parameters);
    this.#found = null;
    void this.#look();
    this.#context.redraw();
  }

  /** Whether a notebook is run, and no message is needed. */
  get isOn(): boolean {
    return this.#isOn;
  }

  /** Whether the agent works, too: then what it may do counts. */
  get asks(): boolean {
    return !this.#isOn || this.#texts.then.trim() !== "";
  }

  /** How long it may take, as it is written; null: no bound. */
  get timeout(): string | null {
    return this.#texts.timeout.trim() || null;
  }

  get isValid(): boolean {
    return !this.#isOn || (typeof this.#found !== "string" && /\.ipynb$/i.test(this.#path) && typeof this.#parameters === "object");
  }

  /** What is to be stored; null: it stays as it is. */
  get run(): NotebookJobInput | PromptJob | null {
    if (!this.#isOn) return this.#job === null ? null : { kind: "prompt" };
    const parameters = this.#parameters;
    const run = {
      kind: "notebook",
      path: this.#path,
      parameters: typeof parameters === "string" ? {} : parameters,
      output: this.#texts.output.trim() || null,
      kernel: this.#kernel || null,
      then: this.#texts.then.trim() || null,
    } as const;
    const old = this.#job;
    const isSame = old !== null && Object.entries(run).every(([name, value]) => JSON.stringify(old[name as keyof NotebookJob]) === JSON.stringify(value));
    return isSame ? null : run;
  }

  get #path(): string {
    return this.#texts.path.trim();
  }

  /** The names are known: each has its field. */
  get #hasFields(): boolean {
    return this.#found === null || typeof this.#found === "string" || this.#found.parameters !== null;
  }

  /** The values; or what of them is not understood. */
  get #parameters(): NotebookJob["parameters"] | string {
    const given = this.#hasFields ? this.#given : readLines(this.#texts.free);
    return typeof given === "string" ? given : readParameters(given);
  }

  /** `first`: gets the first field. */
  render(first: ((element?: Element) => void) | undefined): TemplateResult {
    const kind = (value: string, label: string, isOn: boolean): TemplateResult =>
      html`<label><input type="radio" name="navi-recall-kind" data-navi="recall-kind" value=${value} .checked=${this.#isOn === isOn} @change=${() => this.#switch(isOn)} /> <span>${label}</span></label>`;
    return html`<fieldset class="navi-tell">
        <legend>${strings.jobKind}</legend>
        ${kind("prompt", strings.jobPrompt, false)} ${kind("notebook", strings.jobNotebook, true)}
      </fieldset>
      ${this.#isOn ? this.#fields(first) : nothing}`;
  }

  /** The way from a message that asks for it to a notebook. */
  offer(message: string): TemplateResult | typeof nothing {
    const path = ASKS_FOR_ONE.exec(message)?.[1];
    if (path === undefined) return nothing;
    return html`<p class="navi-none" data-navi="job-offer">${strings.jobOffer} <button type="button" class="navi-link" @click=${() => this.choose({ path })}>${strings.jobOfferYes(path)}</button></p>`;
  }

  #switch(isOn: boolean): void {
    this.#isOn = isOn;
    if (isOn) void this.#look();
    this.#context.redraw();
  }

  #fields(first: ((element?: Element) => void) | undefined): TemplateResult {
    const problem = typeof this.#found === "string" && this.#path ? this.#found : null;
    return html`<label>
        <span>${strings.jobPath}</span>
        <input type="text" data-navi="job-path" list=${this.#listId} maxlength="1000" required autocomplete="off" spellcheck="false" dir="ltr" placeholder="reports/weekly.ipynb" aria-invalid=${problem === null ? "false" : "true"} ${ref(first)} .value=${this.#texts.path} @input=${this.#pathWritten} />
      </label>
      <datalist id=${this.#listId}>${this.#offered.map((path) => html`<option value=${path}></option>`)}</datalist>
      <div role="status" data-navi="job-problem">${problem === null ? nothing : html`<span class="navi-problem" dir="auto">${problem}</span>`}</div>
      ${this.#parameterFields()}
      ${this.#text("then", strings.jobThen, "", true)}
      <details class="navi-allow-tools" data-navi="job-more" ?open=${Boolean(this.#job?.kernel ?? this.#job?.output)}>
        <summary>${icons.chevron}<span>${strings.jobMore}</span></summary>
        ${this.#kernelField()} ${this.#text("output", strings.jobOutput, this.#defaultOutput)} ${this.#text("timeout", strings.jobTimeout, "30m")}
      </details>`;
  }

  get #defaultOutput(): string {
    return this.#path.replace(/\.ipynb$/i, "").replace(/^.*\//, "") + "-results";
  }

  #text(name: Text, label: string, placeholder: string, isLong = false): TemplateResult {
    const write = (event: Event): void => {
      this.#texts[name] = (event.target as HTMLInputElement | HTMLTextAreaElement).value;
      this.#context.redraw();
    };
    return html`<label>
      <span>${label}</span>
      ${isLong
        ? html`<textarea data-navi=${`job-${name}`} rows="2" maxlength="20000" dir="auto" .value=${this.#texts[name]} @input=${write}></textarea>`
        : html`<input type="text" data-navi=${`job-${name}`} maxlength="1000" autocomplete="off" spellcheck="false" dir="ltr" placeholder=${placeholder} .value=${this.#texts[name]} @input=${write} />`}
    </label>`;
  }

  #parameterFields(): TemplateResult | typeof nothing {
    const known = this.#found === null || typeof this.#found === "string" ? [] : (this.#found.parameters ?? []);
    const others = Object.keys(this.#given).filter((name) => !known.some((one) => one.name === name));
    const wrong = this.#parameters;
    const problem = typeof wrong === "string" ? strings.jobParameterWrong(wrong) : null;
    const said = html`<div role="status" data-navi="job-parameter-problem">${problem === null ? nothing : html`<span class="navi-problem" dir="auto">${problem}</span>`}</div>`;
    if (!this.#hasFields) return html`${this.#text("free", strings.jobParametersFree, "", true)} <p class="navi-none">${strings.jobNoTag}</p> ${said}`;
    const rows = [...known, ...others.map((name) => ({ name, default: "" }))];
    if (!rows.length) return nothing;
    return html`<fieldset class="navi-allow" data-navi="job-parameters">
      <legend>${strings.jobParameters}</legend>
      <div class="navi-job-parameters">
        ${repeat(rows, ({ name }) => name, (one) => html`<label>
          <code dir="ltr">${one.name}</code>
          <input type="text" data-navi="job-parameter" data-name=${one.name} maxlength="20000" autocomplete="off" spellcheck="false" dir="ltr" placeholder=${one.default} .value=${this.#given[one.name] ?? ""} @input=${this.#parameterWritten} />
        </label>`)}
      </div>
      ${said}
    </fieldset>`;
  }

  #kernelField(): TemplateResult | typeof nothing {
    const found = this.#found;
    if (found === null || typeof found === "string") return nothing;
    const own = found.kernels.find(({ name }) => name === found.kernel)?.title ?? found.kernel;
    const choose = (event: Event): void => {
      this.#kernel = (event.target as HTMLSelectElement).value;
      this.#context.redraw();
    };
    const others = this.#kernel && !found.kernels.some(({ name }) => name === this.#kernel) ? [{ name: this.#kernel, title: this.#kernel }] : [];
    return html`<label>
      <span>${strings.jobKernel}</span>
      <select data-navi="job-kernel" @change=${choose}>
        <option value="" ?selected=${!this.#kernel}>${own === null ? strings.jobKernelDefault : strings.jobKernelOwn(own)}</option>
        ${[...found.kernels, ...others].map(({ name, title }) => html`<option value=${name} ?selected=${name === this.#kernel}>${title}</option>`)}
      </select>
    </label>`;
  }

  readonly #pathWritten = (event: Event): void => {
    this.#texts.path = (event.target as HTMLInputElement).value;
    this.#found = null;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#look(), PAUSE);
    this.#context.redraw();
  };

  readonly #parameterWritten = (event: Event): void => {
    const { dataset, value } = event.target as HTMLInputElement;
    this.#given = { ...this.#given, [dataset["name"] ?? ""]: value };
    this.#context.redraw();
  };

  /** Which notebooks there are, and what the one at the path takes. */
  async #look(): Promise<void> {
    const path = this.#path;
    const isOne = /\.ipynb$/i.test(path);
    const [listed, described] = await Promise.all([
      tryTo(this.#context, "GET", `recalls/notebooks?${new URLSearchParams({ query: path, limit: String(OFFERED) }).toString()}`),
      isOne ? tryTo(this.#context, "GET", `recalls/notebook?${new URLSearchParams({ path }).toString()}`) : null,
    ]);
    if (path !== this.#path) return; // another one is on its way
    if (isObject(listed.body) && Array.isArray(listed.body["notebooks"])) this.#offered = (listed.body as unknown as NotebookPage).notebooks.map((one) => one.path);
    if (described) this.#found = described.why ?? (isObject(described.body) && Array.isArray(described.body["kernels"]) ? (described.body as unknown as NotebookToRun) : null);
    this.#context.redraw();
  }
}
