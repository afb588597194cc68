/** Tries the straight way first, the way through the kernel when that does not open; stays with what worked. */

import type { Answer, Channel, ChannelListener, Method, Transport } from "./transport.js";

/** How many milliseconds each may take to open; the kernel may have to finish a cell first. */
const PATIENCE = { ws: 3_000, comm: 15_000 };

export class FallbackTransport implements Transport {
  readonly #first: Transport;
  readonly #second: Transport;
  #chosen: Transport | null = null;

  constructor(first: Transport, second: Transport) {
    this.#first = first;
    this.#second = second;
  }

  get kind(): Transport["kind"] {
    return (this.#chosen ?? this.#first).kind;
  }

  get loginUrl(): string {
    return this.#first.loginUrl ?? "";
  }

  open(session: string, after: number | null, listener: ChannelListener): Channel {
    if (this.#chosen) return this.#chosen.open(session, after, listener);
    const attempt = (transport: Transport, failed: (code: number, reason: string) => void): Channel => {
      const timer = setTimeout(() => failed(1006, "no answer"), PATIENCE[transport.kind]);
      const choose = (): void => {
        if (this.#chosen) return;
        clearTimeout(timer);
        this.#chosen = transport;
        listener.opened();
      };
      const channel = transport.open(session, after, {
        // Some proxies open every socket and forward nothing; without a cursor the server always has something to say.
        opened: () => after !== null && choose(),
        frame: (text) => {
          choose();
          listener.frame(text);
        },
        closed: (code, reason) => {
          clearTimeout(timer);
          if (this.#chosen) listener.closed(code, reason);
          else failed(code, reason);
        },
      });
      const close = (): void => {
        clearTimeout(timer);
        channel.close();
      };
      return { send: (text) => channel.send(text), close };
    };
    let current = attempt(this.#first, () => {
      current.close();
      current = attempt(this.#second, (code, reason) => {
        current.close();
        listener.closed(code, reason);
      });
    });
    return { send: (text) => current.send(text), close: () => current.close() };
  }

  request(method: Method, path: string, body?: unknown): Promise<Answer> {
    if (this.#chosen) return this.#chosen.request(method, path, body);
    return this.#first.request(method, path, body).catch(() => this.#second.request(method, path, body));
  }

  upload(path: string, content: Blob): Promise<Answer> {
    const chosen = this.#chosen ?? this.#first;
    return chosen.upload?.(path, content) ?? Promise.reject(new Error("no files this way"));
  }

  async load(path: string): Promise<Blob | null> {
    return (this.#chosen ?? this.#first).load?.(path) ?? null;
  }

  dispose(): void {
    this.#first.dispose?.();
    this.#second.dispose?.();
  }
}
