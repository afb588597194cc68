/** What browsers have and jsdom has not. */

import { arming } from "../src/view/conversation/approvals.js";
import { highlight } from "../src/view/lib/highlight.js";

highlight("1", "python"); // the highlighter is loaded when it is first needed; here it is there from the beginning
await import("../src/view/lib/highlight-engine.js");
arming.delay = 0; // a test that is about it sets its own

globalThis.ResizeObserver ??= class {
  observe(): void {}
  unobserve(): void {}
  disconnect(): void {}
};
CSSStyleSheet.prototype.replaceSync ??= function replaceSync(): void {};
if (!("adoptedStyleSheets" in document)) Object.defineProperty(document, "adoptedStyleSheets", { value: [], writable: true });
