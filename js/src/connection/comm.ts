/**
 * Through the kernel, where the page is not the server's: a thread of the kernel's client relays each channel and
 * request. The kernel answers late while it is busy, so nothing here gives up quickly.
 */

import { isObject } from "../protocol/frames.js";
import type { Answer, Channel, ChannelListener, Method, Transport } from "./transport.js";

/** What is needed of an anywidget model. */
export interface CommModel {
  send(content: unknown): void;
  on(event: "msg:custom", listener: (content: unknown) => void): void;
  off(event: "msg:custom", listener: (content: unknown) => void): void;
}

const OPEN_TIMEOUT = 60_000;
const REQUEST_TIMEOUT = 60_000;

type Fields = Readonly<Record<string, unknown>>;

export class CommTransport implements Transport {
  readonly kind = "comm";
  readonly #model: CommModel;
  readonly #channels = new Map<string, (message: Fields) => void>();
  readonly #requests = new Map<string, (answer: Answer) => void>();

  constructor(model: CommModel) {
    this.#model = model;
    model.on("msg:custom", this.#receive);
  }

  open(session: string, after: number | null, listener: ChannelListener): Channel {
    const conn = crypto.getRandomValues(new Uint32Array(2)).join("-");
    const forget = (): void => {
      clearTimeout(timer);
      this.#channels.delete(conn);
    };
    const timer = setTimeout(() => {
      forget();
      this.#send("close", { conn });
      listener.closed(1006, "the kernel does not answer");
    }, OPEN_TIMEOUT);
    this.#channels.set(conn, (message) => {
      switch (message["m"]) {
        case "opened":
          clearTimeout(timer);
          return listener.opened();
        case "frame":
          return listener.frame(String(message["data"]));
        case "closed":
          forget();
          return listener.closed(Number(message["code"] ?? 1006), String(message["reason"] ?? ""));
        default:
          return undefined;
      }
    });
    this.#send("open", { conn, session_id: session, after });
    return {
      send: (text) => this.#send("send", { conn, data: text }),
      close: () => {
        if (this.#channels.has(conn)) this.#send("close", { conn });
        forget();
      },
    };
  }

  request(method: Method, path: string, body?: unknown): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const id = crypto.getRandomValues(new Uint32Array(2)).join("-");
      const timer = setTimeout(() => {
        this.#requests.delete(id);
        reject(new Error("the kernel does not answer"));
      }, REQUEST_TIMEOUT);
      this.#requests.set(id, (answer) => {
        clearTimeout(timer);
        this.#requests.delete(id);
        resolve(answer);
      });
      this.#send("request", { id, method, path, body: body ?? null });
    });
  }

  dispose(): void {
    this.#model.off("msg:custom", this.#receive);
  }

  readonly #receive = (message: unknown): void => {
    if (!isObject(message) || message["navi"] !== 1) return;
    if (message["m"] === "response") {
      this.#requests.get(String(message["id"]))?.({ status: Number(message["status"]), body: message["body"] });
    } else {
      this.#channels.get(String(message["conn"]))?.(message);
    }
  };

  #send(m: string, fields: Fields): void {
    this.#model.send({ navi: 1, m, ...fields });
  }
}
