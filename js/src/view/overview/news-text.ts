/** What a toast says. */

import type { RecallNews } from "./news.js";
import type { toastTexts } from "./strings.js";

/** A title as the beginning of a sentence about it: a line of code may end with a colon of its own. */
export function subject(title: string): string {
  return title.replace(/[\s:;,]+$/u, "") || title;
}

/** `texts`: those of the page, or of JupyterLab's extension, as far as toasts need them. */
export function newsText({ kind, title }: RecallNews, texts: typeof toastTexts): string {
  const name = subject(title);
  switch (kind) {
    case "done":
      return texts.toastDone(name);
    case "failed":
      return texts.toastFailed(name);
    case "missed":
      return texts.toastMissed(name);
    case "asks":
      return texts.toastAsks(name);
  }
}
