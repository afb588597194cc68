/** What a page of a Jupyter server says about its server (JupyterLab, Notebook 7 and our own page do). */

import { isObject } from "../protocol/frames.js";

export interface PageConfig {
  readonly baseUrl: URL;
  /** Empty when the cookie is what counts. */
  readonly token: string;
}

/** Null where the page is not a Jupyter server's (VS Code, Colab, an exported notebook). */
export function readPageConfig(page: Document = document): PageConfig | null {
  const text = page.getElementById("jupyter-config-data")?.textContent;
  if (!text) return null;
  try {
    const config: unknown = JSON.parse(text);
    if (!isObject(config) || typeof config["baseUrl"] !== "string") return null;
    const baseUrl = new URL(config["baseUrl"].replace(/\/?$/, "/"), page.location.href);
    return { baseUrl, token: typeof config["token"] === "string" ? config["token"] : "" };
  } catch {
    return null;
  }
}
