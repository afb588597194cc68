/** What browsers have and jsdom has not. */

import { arming } from "../src/view/conversation/approvals.js";

arming.delay = 0; // a test that is about it sets its own

globalThis.ResizeObserver ??= class {
  observe(): void {}
  unobserve(): void {}
  disconnect(): void {}
};
CSSStyleSheet.prototype.replaceSync ??= function replaceSync(): void {};
if (!("adoptedStyleSheets" in document)) Object.defineProperty(document, "adoptedStyleSheets", { value: [], writable: true });
