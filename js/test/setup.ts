/** What browsers have and jsdom has not. */

globalThis.ResizeObserver ??= class {
  observe(): void {}
  unobserve(): void {}
  disconnect(): void {}
};
CSSStyleSheet.prototype.replaceSync ??= function replaceSync(): void {};
if (!("adoptedStyleSheets" in document)) Object.defineProperty(document, "adoptedStyleSheets", { value: [], writable: true });
