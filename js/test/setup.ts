/** What browsers have and jsdom has not. */

import { arming } from "../src/view/conversation/approvals.js";
import { loadCards } from "../src/view/conversation/cards.js";
import { highlight } from "../src/view/lib/highlight.js";
import { loadMarkdown } from "../src/view/lib/markdown.js";

highlight("1", "python"); // what is loaded when it is first needed is there from the beginning here
loadMarkdown();
loadCards();
await import("../src/view/lib/highlight-engine.js");
await import("../src/view/lib/markdown-engine.js");
await Promise.all([import("../src/view/recalls/parts.js"), import("../src/view/composer/parts.js"), import("../src/view/panels/settings.js"), import("../src/view/conversation/card-parts.js")]);
arming.delay = 0; // a test that is about it sets its own

globalThis.ResizeObserver ??= class {
  observe(): void {}
  unobserve(): void {}
  disconnect(): void {}
};
CSSStyleSheet.prototype.replaceSync ??= function replaceSync(): void {};
if (!("adoptedStyleSheets" in document)) Object.defineProperty(document, "adoptedStyleSheets", { value: [], writable: true });
