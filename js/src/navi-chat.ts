/**
 * The bundle navi-chat.js: defines `<navi-chat>`, and offers what hosts need to mount it. The other elements are parts
 * that are loaded when they are asked for with `loadElement`, or are in the page already.
 */

import { NaviChat } from "./view/chat-element.js";
import { pageLanguage, useLanguage } from "./view/lib/language.js";
import { loadSessionList } from "./view/sessions/feature.js";

export { CommTransport } from "./connection/comm.js";
export { FallbackTransport } from "./connection/fallback.js";
export { WebSocketTransport } from "./connection/ws.js";
export { mount } from "./mount.js";
export { reduce, reduceAll } from "./state/reduce.js";
export { EMPTY } from "./state/model.js";
export { english, setStrings } from "./view/lib/strings.js";
export { loadSessionList, NaviChat };
export const version = __NAVI_VERSION__;

const elements = {
  "navi-cell-edit": async () => (await import("./view/notebook/cell-edit-element.js")).NaviCellEdit,
  "navi-panel": async () => (await import("./view/panel/panel-element.js")).NaviPanel,
  "navi-question": async () => (await import("./view/question-element.js")).NaviQuestion,
} satisfies Record<string, () => Promise<CustomElementConstructor>>;

export type ElementName = keyof typeof elements;

/** Defines one of the other elements. Can be called again. Rejects where it cannot be loaded. */
export async function loadElement(name: ElementName): Promise<void> {
  const element = await elements[name]();
  if (!customElements.get(name)) customElements.define(name, element);
}

// Before an element is drawn: no text changes its language while it is read.
await useLanguage(pageLanguage());

if (!customElements.get("navi-chat")) customElements.define("navi-chat", NaviChat);
// What a page has in its HTML becomes one without asking for it.
for (const name of Object.keys(elements) as ElementName[]) if (document.querySelector(name)) void loadElement(name).catch(() => undefined);
if (document.querySelector("navi-sessions")) void loadSessionList().catch(() => undefined);
