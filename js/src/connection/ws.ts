/** Straight to the Jupyter server, with its cookie. */

import type { PageConfig } from "./page-config.js";
import { OFF, type Answer, type Channel, type ChannelListener, type Method, type Transport } from "./transport.js";

export class WebSocketTransport implements Transport {
  readonly kind = "ws";
  readonly loginUrl: string;
  readonly shareKey: string;
  readonly #api: URL;
  /** Only another origin needs the token: this one's cookie goes along by itself, and a URL with a token may leak. */
  readonly #token: string;

  constructor(config: PageConfig) {
    this.#api = new URL("navi/api/", config.baseUrl);
    this.shareKey = this.#api.href;
    this.#token = config.baseUrl.origin === location.origin ? "" : config.token;
    this.loginUrl = new URL("navi", config.baseUrl).href; // leads to the login, which a JupyterHub has elsewhere
  }

  open(session: string, after: number | null, listener: ChannelListener): Channel {
    return this.connect(`sessions/${encodeURIComponent(session)}/ws`, after === null ? {} : { after: String(after) }, listener);
  }

  /** A socket of the server that is of no session. */
  connect(path: string, query: Readonly<Record<string, string>>, listener: ChannelListener): Channel {
    const url = new URL(path, this.#api);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    if (this.#token) url.searchParams.set("token", this.#token);
    else url.searchParams.set("_xsrf", cookie("_xsrf"));
    const socket = new WebSocket(url);
    socket.onopen = () => listener.opened();
    socket.onmessage = ({ data }: MessageEvent<unknown>) => {
      if (typeof data === "string") listener.frame(data);
    };
    socket.onclose = ({ code, reason }) => listener.closed(code, reason);
    return {
      send: (text) => {
        if (socket.readyState === WebSocket.OPEN) socket.send(text);
      },
      close: () => {
        socket.onopen = socket.onmessage = socket.onclose = null;
        socket.close();
      },
    };
  }

  async request(method: Method, path: string, body?: unknown): Promise<Answer> {
    return this.#ask(method, path, body === undefined ? undefined : new Blob([JSON.stringify(body)], { type: "application/json" }));
  }

  upload(path: string, content: Blob): Promise<Answer> {
    const typed = content.type ? content : new Blob([content], { type: "application/octet-stream" });
    return this.#ask("POST", path, typed);
  }

  async load(path: string): Promise<Blob | null> {
    const response = await this.#fetch("GET", path);
    return response.ok ? response.blob() : null;
  }

  async #ask(method: Method, path: string, content?: Blob): Promise<Answer> {
    const response = await this.#fetch(method, path, content);
    if (response.type === "opaqueredirect") {
      // By a proxy in front of the server. That of JupyterHub leads to the Hub, which says so where the server is off.
      const { status } = await this.#fetch("GET", path, undefined, "follow").catch(() => response);
      return { status: status === 424 || status === 503 ? OFF : 403, body: undefined };
    }
    return { status: response.status, body: await response.json().catch(() => undefined) };
  }

  #fetch(method: Method, path: string, body?: Blob, redirect: RequestRedirect = "manual"): Promise<Response> {
    const headers = new Headers({ "X-XSRFToken": cookie("_xsrf") }); // under JupyterHub a GET needs it, too
    if (this.#token) headers.set("Authorization", `token ${this.#token}`);
    const init: RequestInit = { method, headers, credentials: "same-origin", cache: "no-store", redirect };
    if (body !== undefined) {
      headers.set("Content-Type", body.type);
      init.body = body;
    }
    if (method === "GET" && path.startsWith("attachments/")) init.cache = "default"; // they never change
    return fetch(new URL(path, this.#api), init);
  }
}

function cookie(name: string): string {
  const found = document.cookie.split("; ").find((pair) => pair.startsWith(`${name}=`));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
}
