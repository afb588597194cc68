/** The line of the recalls panel with which browser notifications are allowed, or switched off. */

import { html, type TemplateResult } from "lit";
import type { BrowserNotices } from "./notifications.js";
import { recallIcons } from "../recalls/icons.js";
import { strings } from "../lib/strings.js";

export function notifySetting(notices: BrowserNotices, redraw: () => void): TemplateResult {
  const { permission } = notices;
  const text = permission === "denied" ? strings.tellHereDenied : permission === "missing" ? strings.tellHereMissing : strings.tellHereOn;
  const allow = (): void => void notices.allow().then(redraw);
  const toggle = (event: Event): void => {
    if ((event.target as HTMLInputElement).checked) allow();
    else notices.turnOff();
    redraw();
  };
  return html`<div class="navi-tell-here" data-navi="tell-here" data-permission=${permission} role="group" aria-label=${strings.tellHere}>
    ${recallIcons.bell}
    ${permission === "ask"
      ? html`<span>${text}</span> <button type="button" class="navi-link" data-navi="tell-allow" @click=${allow}>${strings.tellHereAsk}</button>`
      : permission === "on" || permission === "off"
        ? html`<label><input type="checkbox" data-navi="tell-toggle" .checked=${permission === "on"} @change=${toggle} /> <span>${text}</span></label>`
        : html`<span class="navi-none">${text}</span>`}
  </div>`;
}
