/** Straight to the Jupyter server, with its cookie. */

import type { PageConfig } from "./page-config.js";
import type { Answer, Channel, ChannelListener, Method, Transport } from "./transport.js";

export class WebSocketTransport implements Transport {
  readonly kind = "ws";
  readonly loginUrl: string;
  readonly #api: URL;
  /** Only another origin needs the token: this one's cookie goes along by itself, and a URL with a token may leak. */
  readonly #token: string;

  constructor(config: PageConfig) {
    this.#api = new URL("navi/api/", config.baseUrl);
    this.#token = config.baseUrl.origin === location.origin ? "" : config.token;
    this.loginUrl = new URL(`login?next=${encodeURIComponent(location.pathname + location.search)}`, config.baseUrl).href;
  }

  open(session: string, after: number | null, listener: ChannelListener): Channel {
    const url = new URL(`sessions/${encodeURIComponent(session)}/ws`, this.#api);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (after !== null) url.searchParams.set("after", String(after));
    if (this.#token) url.searchParams.set("token", this.#token);
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
    const headers = new Headers({ "X-XSRFToken": cookie("_xsrf") }); // under JupyterHub a GET needs it, too
    if (this.#token) headers.set("Authorization", `token ${this.#token}`);
    const init: RequestInit = { method, headers, credentials: "same-origin", cache: "no-store", redirect: "manual" };
    if (body !== undefined) {
      headers.set("Content-Type", "application/json");
      init.body = JSON.stringify(body);
    }
    const response = await fetch(new URL(path, this.#api), init);
    if (response.type === "opaqueredirect") return { status: 403, body: undefined }; // to the login page
    return { status: response.status, body: await response.json().catch(() => undefined) };
  }
}

function cookie(name: string): string {
  const found = document.cookie.split("; ").find((pair) => pair.startsWith(`${name}=`));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
}
