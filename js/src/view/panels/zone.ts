/** The session's zone in the settings: which it is, where it comes from, and another one to choose. */

import { html, nothing, type TemplateResult } from "lit";
import type { ZoneSource } from "../../protocol/generated.js";
import type { SessionInfo } from "../../state/model.js";
import { strings, textOf } from "../lib/strings.js";
import { browserZone, zoneNames } from "../lib/zone.js";

/** Changes the session; `undo` is called when that was refused. */
type Change = (fields: { readonly timezone: string; readonly timezone_source?: ZoneSource }, undo: () => void) => void;

let instances = 0;

export class ZoneSetting {
  readonly #change: Change;
  readonly #list = `navi-zones-${(instances += 1)}`;

  constructor(change: Change) {
    this.#change = change;
  }

  /** Nothing where the server does not say which zone the session has. */
  render(session: SessionInfo | null): TemplateResult | typeof nothing {
    const { timezone = "", zoneSource = "" } = session ?? {};
    if (timezone === "") return nothing;
    const own = browserZone();
    const isOwn = own === null || (own === timezone && zoneSource !== "chosen");
    const choose = (event: Event): void => {
      const field = event.currentTarget as HTMLInputElement;
      const wanted = field.value.trim();
      if (wanted === "" || wanted === timezone) field.value = timezone;
      else this.#change({ timezone: wanted }, () => (field.value = timezone));
    };
    return html`<form class="navi-zone" data-navi="zone" @submit=${(event: Event) => event.preventDefault()}>
      <label class="navi-picker">
        <span>${strings.zoneLabel}</span>
        <input type="text" data-navi="zone-name" list=${this.#list} maxlength="64" autocomplete="off" spellcheck="false" dir="ltr" .value=${timezone} @change=${choose} />
      </label>
      <datalist id=${this.#list}>${zoneNames().map((name) => html`<option value=${name}></option>`)}</datalist>
      <small data-navi="zone-source">${textOf(strings.zoneSource, zoneSource) ?? nothing}</small>
      ${isOwn
        ? nothing
        : html`<button type="button" class="navi-link" data-navi="zone-own" @click=${() => this.#change({ timezone: own, timezone_source: "browser" }, () => {})}>
            ${strings.zoneOwn(own)}
          </button>`}
    </form>`;
  }
}
