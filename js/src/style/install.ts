/** Puts the style sheet where the element is, once per document or shadow root. */

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

let sheet: CSSStyleSheet | null = null;

export function installStyle(element: Element): void {
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
