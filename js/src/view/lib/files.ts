/** Links to files of the server: the page around the view opens them in its own way, else the browser does. */

import { html, type TemplateResult } from "lit";
import { readPageConfig } from "../../connection/page-config.js";

/** What the page gets (it bubbles): it opens the file and cancels the event. */
export const OPEN_FILE = "navi-open-file";

export interface FilePlace {
  /** From the server's folder. */
  readonly path: string;
  /** The id of the cell of a notebook that is to be shown; null: its beginning. */
  readonly cell: string | null;
}

/** Where the browser finds a file; null where the page is not a server's. */
export function fileUrl({ path, cell }: FilePlace): string | null {
  const config = readPageConfig();
  if (!config) return null;
  const url = new URL(`${config.documents}${path.split("/").map(encodeURIComponent).join("/")}`, config.baseUrl);
  if (cell !== null) url.hash = `cell-id=${encodeURIComponent(cell)}`;
  return url.href;
}

/** `name`: its `data-navi`. */
export function fileLink(place: FilePlace, text: string, name: string): TemplateResult {
  const href = fileUrl(place);
  if (href === null) return html`<span data-navi=${name} dir="ltr">${place.path}</span>`;
  const open = (event: MouseEvent): void => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // in a tab of the browser, as everywhere
    const asked = new CustomEvent<FilePlace>(OPEN_FILE, { bubbles: true, cancelable: true, detail: place });
    if (!event.currentTarget?.dispatchEvent(asked)) event.preventDefault();
  };
  return html`<a class="navi-link" href=${href} target="_blank" rel="noopener" title=${place.path} data-navi=${name} data-path=${place.path} @click=${open}>${text}</a>`;
}
