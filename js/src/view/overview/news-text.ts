/** What a toast says. */

import type { RecallNews } from "./news.js";
import type { toastTexts } from "./strings.js";

/** `texts`: those of the page, or of JupyterLab's extension. */
export function newsText({ kind, title }: RecallNews, texts: typeof toastTexts): string {
  switch (kind) {
    case "done":
      return texts.toastDone(title);
    case "failed":
      return texts.toastFailed(title);
    case "missed":
      return texts.toastMissed(title);
    case "asks":
      return texts.toastAsks(title);
  }
}
