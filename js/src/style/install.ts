/** What each of our elements needs where it is: the style sheet, once per document or shadow root, and its language. */

import layoutCss from "./layout.css";
import css from "./navi.css";
import notebookCss from "./notebook.css";
import panelCss from "./panel.css";
import questionCss from "./question.css";
import overviewCss from "./overview.css";
import recallsCss from "./recalls.css";
import sessionsCss from "./sessions.css";
import setupCss from "./setup.css";
import writingCss from "./writing.css";
import { language } from "../view/lib/language.js";

let sheet: CSSStyleSheet | null = null;

export function prepareElement(element: HTMLElement): void {
  element.lang = language(); // of what is ours in it; of what others wrote the language is not known, which lang="" says
  const root = element.getRootNode();
  if (!(root instanceof Document || root instanceof ShadowRoot)) return;
  if (!sheet) {
    sheet = new CSSStyleSheet();
    // A question below a cell looks as it does in the chat: the same rules, which name the chat.
    const shared = css.replaceAll("navi-chat", ":is(navi-chat,navi-question,navi-cell-edit,navi-sessions)");
    const sheets = [shared, layoutCss, recallsCss, writingCss, overviewCss, setupCss, notebookCss, questionCss, sessionsCss, panelCss];
    sheet.replaceSync(sheets.join("\n"));
  }
  if (!root.adoptedStyleSheets.includes(sheet)) root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];
}
