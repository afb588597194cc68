/** What the extension asks of the server of its page. */

import { readPageConfig } from "../connection/page-config.js";
import { isOk, type Answer, type Method } from "../connection/transport.js";
import { WebSocketTransport } from "../connection/ws.js";
import { isObject } from "../protocol/frames.js";
import type { ElementName } from "../navi-chat.js";
import type { Attention } from "../protocol/generated.js";
import { ServerProblem } from "./diagnosis.js";
import type { SessionSource } from "./followed-session.js";

/** The server of the page; null: the page is not a Jupyter server's. */
export function serverOfPage(): WebSocketTransport | null {
  const config = readPageConfig();
  return config ? new WebSocketTransport(config) : null;
}

/** Rejects where no answer came, or the page is not a Jupyter server's. */
async function ask(method: Method, path: string, body?: unknown): Promise<Answer> {
  const server = serverOfPage();
  if (!server) throw new Error("not a page of a Jupyter server");
  return server.request(method, path, body);
}

/** As `ask`; rejects for an error, too, with its message. */
async function read(method: Method, path: string, body?: unknown): Promise<Readonly<Record<string, unknown>>> {
  return contentOf(await ask(method, path, body));
}

function contentOf(answer: Answer): Readonly<Record<string, unknown>> {
  const content = isObject(answer.body) ? answer.body : {};
  if (isOk(answer)) return content;
  throw new ServerProblem(answer.status, typeof content["message"] === "string" ? content["message"] : `HTTP ${answer.status}`);
}

/** A cell that waits does not ask at a prompt for what has buttons here. Where this does not arrive, it does. */
export function reportDrawn(session: string, interrupt: string): void {
  ask("POST", `sessions/${encodeURIComponent(session)}/interrupts/${encodeURIComponent(interrupt)}/drawn`).catch(() => null);
}

function idOf(session: unknown): string | null {
  return isObject(session) && typeof session["id"] === "string" ? session["id"] : null;
}

/** The id of the session of the notebook at a path; null: it has none. */
export async function findSession(path: string, create = false): Promise<string | null> {
  return idOf((await read("POST", "sessions/find", { notebook_path: path, is_open: true, create }))["session"]);
}

export const sessionSource: SessionSource = {
  find: findSession,
  async create(path) {
    const id = idOf(await read("POST", "sessions", path === null ? {} : { notebook_path: path }));
    if (id === null) throw new Error("the server made no session");
    return id;
  },
  async last() {
    const { sessions } = await read("GET", "sessions?limit=1");
    return Array.isArray(sessions) ? idOf(sessions[0]) : null;
  },
  async notebookOf(session) {
    const answer = await ask("GET", `sessions/${encodeURIComponent(session)}`);
    if (answer.status === 404) return undefined;
    const { notebook_path: notebook } = contentOf(answer);
    return typeof notebook === "string" ? notebook : null;
  },
};

/** What waits for the user in all sessions. Rejects as `read`. */
export async function readAttention(): Promise<Attention> {
  return (await read("GET", "attention")) as unknown as Attention;
}

/** The address of the page with all sessions; empty where the page is not a Jupyter server's. */
export function pageAddress(): string {
  const config = readPageConfig();
  return config ? new URL("navi", config.baseUrl).href : "";
}

let loading: Promise<Bundle> | null = null;

interface Bundle {
  loadElement(name: ElementName): Promise<void>;
}

/** Defines an element that is a part of the component of its own. */
export async function loadElement(name: ElementName): Promise<void> {
  await (await loadBundle()).loadElement(name);
}

/** The component's bundle, from the server; loaded when the first chat is shown. */
export function loadBundle(): Promise<Bundle> {
  const config = readPageConfig();
  if (!config) return Promise.reject(new Error("not a page of a Jupyter server"));
  const url = new URL(`static/navi/navi-chat.js?v=${__NAVI_BUNDLE__}`, config.baseUrl);
  loading ??= (import(url.href) as Promise<Bundle>).catch((problem: unknown) => {
    loading = null;
    throw problem;
  });
  return loading;
}
