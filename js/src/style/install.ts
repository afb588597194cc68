/**
 * What each of our elements needs where it is: the style sheet, once per document or shadow root, and its language. Parts
 * of the bundle that are loaded later bring their own rules, which all of these places get then.
 */

import layoutCss from "./layout.css";
import css from "./navi.css";
import notebookCss from "./notebook.css";
import todayCss from "./today.css";
import writingCss from "./writing.css";
import { language } from "../view/lib/language.js";

// A question below a cell looks as it does in the chat: the same rules, which name the chat.
const FAMILY = ":is(navi-chat,navi-question,navi-cell-edit,navi-sessions)";

const texts: string[] = [shared(css), layoutCss, writingCss, todayCss, notebookCss];
/** Rules that take back what others say, where the user wants that. */
let last = "";
let sheet: CSSStyleSheet | null = null;

/** Rules for `navi-chat` that all elements of its kind have. */
export function shared(rules: string): string {
  return rules.replaceAll("navi-chat", FAMILY);
}

/** Adds the rules of a part that has been loaded; call once, where its module is evaluated. */
export function addStyle(rules: string): void {
  texts.push(rules);
  fill();
}

/** Adds the rules that stay behind all others. */
export function addLastStyle(rules: string): void {
  last = rules;
  fill();
}

function fill(): void {
  sheet?.replaceSync([...texts, last].join("\n"));
}

export function prepareElement(element: HTMLElement): void {
  element.lang = language(); // of what is ours in it; of what others wrote the language is not known, which lang="" says
  const root = element.getRootNode();
  if (!(root instanceof Document || root instanceof ShadowRoot)) return;
  if (!sheet) {
    sheet = new CSSStyleSheet();
    fill();
    void import("./access.js").catch(() => undefined); // a view can be used without them
  }
  if (!root.adoptedStyleSheets.includes(sheet)) root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];
}
