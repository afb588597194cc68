/** What the extension asks of the server of its page. */

import { readPageConfig } from "../connection/page-config.js";
import { WebSocketTransport } from "../connection/ws.js";
import { isObject } from "../protocol/frames.js";

/** The server of the page; null: the page is not a Jupyter server's. */
export function serverOfPage(): WebSocketTransport | null {
  const config = readPageConfig();
  return config ? new WebSocketTransport(config) : null;
}

/** A cell that waits does not ask at a prompt for what has buttons here. Where this does not arrive, it does. */
export function reportDrawn(session: string, interrupt: string): void {
  const path = `sessions/${encodeURIComponent(session)}/interrupts/${encodeURIComponent(interrupt)}/drawn`;
  serverOfPage()?.request("POST", path).catch(() => null);
}

/** The id of the session of the notebook at a path; null: it has none. */
export async function findSession(path: string): Promise<string | null> {
  const answer = await serverOfPage()?.request("POST", "sessions/find", { notebook_path: path, is_open: true });
  const session = isObject(answer?.body) ? answer.body["session"] : null;
  return isObject(session) && typeof session["id"] === "string" ? session["id"] : null;
}

let loading: Promise<unknown> | null = null;

/** The component's bundle, from the server; loaded when the first chat is shown. */
export function loadBundle(): Promise<unknown> {
  const config = readPageConfig();
  if (!config) return Promise.reject(new Error("not a page of a Jupyter server"));
  const url = new URL(`static/navi/navi-chat.js?v=${__NAVI_BUNDLE__}`, config.baseUrl);
  loading ??= import(url.href).catch((problem: unknown) => {
    loading = null;
    throw problem;
  });
  return loading;
}
