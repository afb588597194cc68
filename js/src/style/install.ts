/**
 * What each of our elements needs where it is: the style sheet, once per document or shadow root, and its language. Parts
 * of the bundle that are loaded later bring their own rules, which all of these places get then.
 */

import accessCss from "./access.css";
import layoutCss from "./layout.css";
import css from "./navi.css";
import notebookCss from "./notebook.css";
import todayCss from "./today.css";
import writingCss from "./writing.css";
import { language } from "../view/lib/language.js";

// A question below a cell looks as it does in the chat: the same rules, which name the chat.
const FAMILY = ":is(navi-chat,navi-question,navi-cell-edit,navi-sessions)";

const texts: string[] = [shared(css), layoutCss, writingCss, todayCss, notebookCss, accessCss];
let sheet: CSSStyleSheet | null = null;

/** Rules for `navi-chat` that all elements of its kind have. */
export function shared(rules: string): string {
  return rules.replaceAll("navi-chat", FAMILY);
}

/** Adds the rules of a part that has been loaded; call once, where its module is evaluated. */
export function addStyle(rules: string): void {
  texts.splice(-1, 0, rules); // access.css stays last: it takes back what others say, where the user wants that
  sheet?.replaceSync(texts.join("\n"));
}

export function prepareElement(element: HTMLElement): void {
  element.lang = language(); // of what is ours in it; of what others wrote the language is not known, which lang="" says
  const root = element.getRootNode();
  if (!(root instanceof Document || root instanceof ShadowRoot)) return;
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(texts.join("\n"));
  }
  if (!root.adoptedStyleSheets.includes(sheet)) root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];
}
