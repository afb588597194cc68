/** The bundle navi-chat.js: defines `<navi-chat>`, `<navi-question>` and `<navi-cell-edit>`, and offers what hosts need to mount it. */

import { NaviChat } from "./view/chat-element.js";
import { pageLanguage, useLanguage } from "./view/lib/language.js";
import { NaviCellEdit } from "./view/notebook/cell-edit-element.js";
import { NaviPanel } from "./view/panel/panel-element.js";
import { NaviQuestion } from "./view/question-element.js";
import { loadSessionList } from "./view/sessions/feature.js";

export { CommTransport } from "./connection/comm.js";
export { FallbackTransport } from "./connection/fallback.js";
export { WebSocketTransport } from "./connection/ws.js";
export { mount } from "./mount.js";
export { reduce, reduceAll } from "./state/reduce.js";
export { EMPTY } from "./state/model.js";
export { english, setStrings } from "./view/lib/strings.js";
export { loadSessionList, NaviCellEdit, NaviChat, NaviPanel, NaviQuestion };
export const version = __NAVI_VERSION__;

// Before an element is drawn: nobody sees one language turn into another.
await useLanguage(pageLanguage());

if (!customElements.get("navi-chat")) customElements.define("navi-chat", NaviChat);
if (!customElements.get("navi-question")) customElements.define("navi-question", NaviQuestion);
if (!customElements.get("navi-cell-edit")) customElements.define("navi-cell-edit", NaviCellEdit);
if (!customElements.get("navi-panel")) customElements.define("navi-panel", NaviPanel);
// No part of what loads first; and a list that a page has in its HTML becomes one without asking for it.
setTimeout(() => void loadSessionList().catch(() => undefined), 500);
