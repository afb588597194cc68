/** Puts the style sheet where the element is, once per document or shadow root. */

import css from "./navi.css";
import recallsCss from "./recalls.css";

let sheet: CSSStyleSheet | null = null;

export function installStyle(element: Element): void {
  const root = element.getRootNode();
  if (!(root instanceof Document || root instanceof ShadowRoot)) return;
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(`${css}\n${recallsCss}`);
  }
  if (!root.adoptedStyleSheets.includes(sheet)) root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];
}
