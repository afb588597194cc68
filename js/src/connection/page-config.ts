/** What a page of a Jupyter server says about its server (JupyterLab, Notebook 7 and our own page do). */

import { isObject } from "../protocol/frames.js";

export interface PageConfig {
  readonly baseUrl: URL;
  /** Empty when the cookie is what counts. */
  readonly token: string;
  /** Where the page's application shows a document: what stands between the base URL and its path. */
  readonly documents: string;
}

const LAB = "lab/tree/";
const NOTEBOOK = "notebooks/";

/** Null where the page is not a Jupyter server's (VS Code, Colab, an exported notebook). */
export function readPageConfig(page: Document = document): PageConfig | null {
  const text = page.getElementById("jupyter-config-data")?.textContent;
  if (!text) return null;
  try {
    const config: unknown = JSON.parse(text);
    if (!isObject(config) || typeof config["baseUrl"] !== "string") return null;
    const baseUrl = new URL(config["baseUrl"].replace(/\/?$/, "/"), page.location.href);
    const { token, documents, notebookPage } = config; // ours, and that of Notebook
    return {
      baseUrl,
      token: typeof token === "string" ? token : "",
      documents: typeof documents === "string" ? documents : typeof notebookPage === "string" ? NOTEBOOK : LAB,
    };
  } catch {
    return null;
  }
}
