/**
 * A model to begin with: what can be used already, servers of models on this machine, a key to paste, and a test.
 *
 * Keys go to the server in one request and are kept nowhere here. Not responsible for the session's present model
 * (`settings`).
 */

import { html, nothing, type TemplateResult } from "lit";
import { readStored, writeStored } from "../../connection/storage.js";
import { isObject } from "../../protocol/frames.js";
import type { LocalServer, ModelInfo, ModelPage, ModelPreference, ModelTestResult, ProviderInfo, ProviderPage } from "../../protocol/generated.js";
import { agentList, isAgent } from "../agents/agent-list.js";
import { icons } from "../lib/icons.js";
import { keepInput, keepKey } from "../lib/keyboard-guard.js";
import { strings } from "../lib/strings.js";
import { tryTo, type RequestContext } from "../recalls/requests.js";
import css from "../../style/setup.css";
import { addStyle } from "../../style/install.js";

addStyle(css);

const OFFLINE = "offline";
/** Offered first where no key is set; the others follow in the server's order. */
const USUAL = ["anthropic", "openai-chat", "google", "openrouter", "mistral"];
const DISMISSED = "model-setup";
/** Models of one place that are offered; the others are in the picker. */
const MOST_OFFERED = 6;

/** Where the server does not say: an older one, or one that cannot be reached. */
const NOTHING_KNOWN: ProviderPage = { providers: [], local: [], may_store: false, file: null, next: null };

type Outcome = { readonly kind: "busy" | "good" | "bad"; readonly text: string };

export class ModelSetup {
  readonly #context: RequestContext;
  #providers: ProviderPage | null = null;
  #models: readonly ModelInfo[] = [];
  /** What new sessions get; null: the server does not say. */
  #preference: ModelPreference | null = null;
  #isLoading = false;
  #chosen = "";
  #outcome: Outcome | null = null;
  /** The session that all of this is of. */
  #session: string | null = null;

  constructor(context: RequestContext) {
    this.#context = context;
  }

  reset(): void {
    this.#providers = null;
    this.#models = [];
    this.#preference = null;
    this.#outcome = null;
  }

  /** The model of a session that is not made yet; empty where it is not known. */
  get modelOfNew(): string {
    return this.#preference?.model ?? "";
  }

  /** Whether the card is to be shown in an empty conversation: there is no language model, and it was not dismissed. */
  wants(model: string): boolean {
    return (model === OFFLINE || this.#outcome !== null) && this.#context.transport()?.kind === "ws" && readStored(DISMISSED, "browser") === null;
  }

  /**
   * The card of an empty conversation. Loads what it needs when it is drawn first. `known`: the model of the session; null
   * while there is no session: it will have the one that is chosen for new ones.
   */
  card(known: string | null): TemplateResult | typeof nothing {
    if (this.#session !== this.#context.session()) this.reset();
    this.#session = this.#context.session();
    if (known === null && this.#providers === null && this.wants(OFFLINE)) {
      void this.#load();
      return nothing;
    }
    const model = known ?? this.modelOfNew;
    if (!this.wants(model)) return nothing;
    return html`<div class="navi-setup navi-setup-card" role="group" data-navi="model-setup" aria-label=${strings.setupTitle}>
      <div class="navi-setup-title">
        <h3>${strings.setupTitle}</h3>
        <button type="button" class="navi-icon-button" data-navi="setup-dismiss" aria-label=${strings.setupDismiss} title=${strings.setupDismiss} @click=${() => this.#dismiss()}>${icons.close}</button>
      </div>
      ${this.#preference?.why && this.#outcome === null ? html`<p data-navi="setup-why">${this.#preference.why}</p>` : nothing}
      <p>${strings.setupText}</p>
      ${this.#content(model)}
    </div>`;
  }

  /** The same in the settings, with the keys that are stored. */
  section(model: string): TemplateResult | typeof nothing {
    if (this.#context.transport()?.kind !== "ws") return nothing;
    return html`<div class="navi-setup" role="group" data-navi="model-setup" aria-label=${strings.setupSection}>
      <h3>${strings.setupSection}</h3>
      ${this.#content(model)} ${this.#stored()}
    </div>`;
  }

  #content(model: string): TemplateResult {
    if (this.#providers === null) {
      void this.#load();
      return html`<p class="navi-none navi-late">${strings.loading}</p>`;
    }
    const usable = this.#models.filter((one) => one.available && one.name !== OFFLINE && one.name !== model && !isAgent(one));
    return html`
      ${usable.length ? this.#usable(usable) : nothing} ${this.#providers.local.map((server) => this.#local(server))}
      ${agentList(this.#models, model, this.#isBusy, (name) => void this.#give(name))}
      ${this.#outcome?.kind === "good" ? nothing : this.#providers.may_store ? this.#keyForm(this.#providers) : html`<p class="navi-none">${strings.setupForbidden}</p>`}
      <p class="navi-setup-outcome" data-navi="setup-outcome" data-kind=${this.#outcome?.kind ?? nothing} role="status">${this.#outcome?.text ?? ""}</p>
    `;
  }

  #usable(models: readonly ModelInfo[]): TemplateResult {
    return html`<div class="navi-setup-row" data-navi="setup-usable">
      <span>${strings.setupUsable}</span>
      ${models.slice(0, MOST_OFFERED).map(
        ({ name }) => html`<button type="button" class="navi-button" data-navi="setup-use" data-model=${name} ?disabled=${this.#isBusy} @click=${() => void this.#use(name)}>${name}</button>`,
      )}
    </div>`;
  }

  #local(server: LocalServer): TemplateResult {
    const choose = async (model: string): Promise<void> => {
      if (await this.#store(server.name, server.url)) await this.#use(`${server.name}:${model}`);
    };
    return html`<div class="navi-setup-row" data-navi="setup-local" data-server=${server.name}>
      <span>${strings.setupLocal(server.label)}</span>
      ${server.models.slice(0, MOST_OFFERED).map(
        (model) => html`<button type="button" class="navi-button" data-navi="setup-use" data-model=${`${server.name}:${model}`} ?disabled=${this.#isBusy} @click=${() => void choose(model)}>${model}</button>`,
      )}
    </div>`;
  }

  #keyForm({ providers }: ProviderPage): TemplateResult {
    const offered = providers.filter(({ source, installed }) => source !== "environment" && installed);
    const sorted = [...offered].sort((one, other) => rank(one.name) - rank(other.name));
    const chosen = sorted.find(({ name }) => name === this.#chosen) ?? sorted[0];
    // The server knows how packages are installed where it runs.
    const missing = [...providers].sort((one, other) => rank(one.name) - rank(other.name)).find(({ installed }) => !installed);
    if (!chosen) return html`<p class="navi-none" data-navi="setup-missing">${missing?.why ?? strings.setupNothing}</p>`;
    const isKey = chosen.kind === "key";
    const submit = (event: SubmitEvent): void => {
      event.preventDefault();
      const input = (event.currentTarget as HTMLFormElement).querySelector<HTMLInputElement>("[data-navi=setup-value]");
      const value = input?.value.trim() ?? "";
      if (!input || !value) return;
      input.value = ""; // it is kept on the server, and nowhere else
      void this.#tryKey(chosen, value);
    };
    return html`<form class="navi-setup-form" data-navi="setup-form" @submit=${submit} @keydown=${keepKey}>
      <select data-navi="setup-provider" aria-label=${strings.setupProvider} ?disabled=${this.#isBusy} @change=${(event: Event) => this.#choose((event.currentTarget as HTMLSelectElement).value)}>
        ${sorted.map(({ name, label }) => html`<option value=${name} .selected=${name === chosen.name}>${label}</option>`)}
      </select>
      <input
        data-navi="setup-value"
        type=${isKey ? "password" : "url"}
        autocomplete="off"
        spellcheck="false"
        maxlength="4000"
        aria-label=${isKey ? strings.setupKey(chosen.label) : strings.setupAddress(chosen.label)}
        placeholder=${isKey ? strings.setupKey(chosen.label) : strings.setupAddress(chosen.label)}
        ?disabled=${this.#isBusy}
        @beforeinput=${keepInput}
        @input=${(event: Event) => this.#recognise((event.currentTarget as HTMLInputElement).value, sorted, chosen)}
      />
      <button type="submit" class="navi-button navi-primary" data-navi="setup-save" ?disabled=${this.#isBusy}>${strings.setupSave}</button>
      <small>${strings.setupWhere}</small>
    </form>`;
  }

  #stored(): TemplateResult | typeof nothing {
    const stored = this.#providers?.providers.filter(({ source }) => source === "stored") ?? [];
    if (!stored.length) return nothing;
    return html`<ul class="navi-facts" aria-label=${strings.setupStored}>
      ${stored.map(
        ({ name, label }) =>
          html`<li data-navi="setup-stored" data-provider=${name}>
            <span>${label}</span>
            <button type="button" class="navi-button navi-quiet" data-navi="setup-forget" aria-label=${strings.setupForget(label)} @click=${() => void this.#forget(name)}>${strings.setupRemove}</button>
          </li>`,
      )}
    </ul>`;
  }

  get #isBusy(): boolean {
    return this.#outcome?.kind === "busy";
  }

  /** A key that only another provider's can be: that one is chosen, so that it is sent to no other. */
  #recognise(value: string, offered: readonly ProviderInfo[], chosen: ProviderInfo): void {
    const key = value.trim();
    const owner = offered.find(({ prefixes }) => prefixes.some((beginning) => key.startsWith(beginning)));
    if (owner && owner.name !== chosen.name) this.#choose(owner.name);
  }

  #choose(name: string): void {
    this.#chosen = name;
    this.#context.redraw();
  }

  #dismiss(): void {
    writeStored(DISMISSED, "dismissed", "browser");
    this.#outcome = null;
    this.#context.redraw();
  }

  #report(kind: Outcome["kind"], text: string): void {
    this.#outcome = { kind, text };
    this.#context.redraw();
  }

  async #load(): Promise<void> {
    if (this.#isLoading) return;
    this.#isLoading = true;
    try {
      const paths = ["providers?local=1", "models", "models/preferred"];
      const [providers, models, preferred] = await Promise.all(paths.map((path) => tryTo(this.#context, "GET", path)));
      this.#providers = isProviderPage(providers?.body) ? providers.body : NOTHING_KNOWN;
      this.#models = isObject(models?.body) && Array.isArray(models.body["models"]) ? (models.body as unknown as ModelPage).models : [];
      this.#preference = isObject(preferred?.body) && typeof preferred.body["model"] === "string" ? (preferred.body as unknown as ModelPreference) : null;
    } finally {
      this.#isLoading = false;
      this.#context.redraw();
    }
  }

  /** Stores a key, and has a model of its provider answer once; a key that is refused is not kept. */
  async #tryKey(provider: ProviderInfo, value: string): Promise<void> {
    if (!(await this.#store(provider.name, value))) return;
    await this.#load();
    const model = this.#models.find(({ name, available }) => available && name.startsWith(`${provider.name}:`))?.name;
    if (model === undefined) return this.#report("good", strings.setupSaved(provider.label));
    if (await this.#use(model)) return;
    const why = this.#outcome?.text ?? "";
    await tryTo(this.#context, "DELETE", `providers/${encodeURIComponent(provider.name)}`);
    await this.#load();
    this.#report("bad", strings.setupRefused(why));
  }

  async #store(name: string, value: string): Promise<boolean> {
    this.#report("busy", strings.setupSaving);
    const { why } = await tryTo(this.#context, "PUT", `providers/${encodeURIComponent(name)}`, { value });
    if (why !== null) this.#report("bad", why);
    return why === null;
  }

  /** Tries a model, and makes it the session's when it answers; that of new sessions where there is none yet. */
  async #use(model: string): Promise<boolean> {
    this.#report("busy", strings.setupTesting(model));
    const { body, why } = await tryTo(this.#context, "POST", "models/test", { model });
    const result = isObject(body) ? (body as unknown as ModelTestResult) : null;
    if (why !== null || !result?.ok) {
      this.#report("bad", why ?? result?.message ?? "");
      return false;
    }
    return this.#give(model, result.message);
  }

  /** Makes a model the session's. `how` it was tried; an agent program is not: it is started with the first message. */
  async #give(model: string, how = ""): Promise<boolean> {
    const session = this.#context.session();
    // The server keeps what a session is given for new ones, too.
    const changed =
      session === null
        ? await tryTo(this.#context, "PUT", "models/preferred", { model })
        : await tryTo(this.#context, "PATCH", `sessions/${encodeURIComponent(session)}`, { model });
    if (changed.why !== null) {
      this.#report("bad", changed.why);
      return false;
    }
    this.#report("good", strings.setupAnswered(model, how));
    return true;
  }

  async #forget(name: string): Promise<void> {
    const { why } = await tryTo(this.#context, "DELETE", `providers/${encodeURIComponent(name)}`);
    if (why !== null) this.#report("bad", why);
    await this.#load();
  }
}

function isProviderPage(body: unknown): body is ProviderPage {
  return isObject(body) && Array.isArray(body["providers"]) && Array.isArray(body["local"]);
}

function rank(name: string): number {
  const place = USUAL.indexOf(name);
  return place < 0 ? USUAL.length : place;
}
