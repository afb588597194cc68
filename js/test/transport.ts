/** A transport that a test plays the server of. */

import type { Answer, Channel, ChannelListener, Method, Transport } from "../src/connection/transport.js";
import type { Envelope } from "../src/protocol/generated.js";

export class FakeChannel {
  readonly sent: Record<string, unknown>[] = [];
  isClosed = false;

  constructor(
    readonly after: number | null,
    readonly listener: ChannelListener,
  ) {}

  open(): this {
    this.listener.opened();
    return this;
  }

  frame(value: unknown): this {
    this.listener.frame(JSON.stringify(value));
    return this;
  }

  envelopes(envelopes: readonly Envelope[]): this {
    return this.frame({ batch: envelopes });
  }

  fail(code = 1006): void {
    if (!this.isClosed) this.listener.closed(code, "");
  }
}

export class FakeTransport implements Transport {
  readonly kind = "ws";
  readonly loginUrl = "http://localhost/login";
  readonly channels: FakeChannel[] = [];
  readonly requests: { method: Method; path: string; body: unknown }[] = [];
  /** What `request` answers: by the beginning of the path, else 200 and nothing; null rejects. */
  answers: Record<string, Answer | null> = {};

  get last(): FakeChannel {
    const channel = this.channels.at(-1);
    if (!channel) throw new Error("no channel was opened");
    return channel;
  }

  open(_session: string, after: number | null, listener: ChannelListener): Channel {
    const channel = new FakeChannel(after, listener);
    this.channels.push(channel);
    return {
      send: (text) => channel.sent.push(JSON.parse(text) as Record<string, unknown>),
      close: () => (channel.isClosed = true),
    };
  }

  request(method: Method, path: string, body?: unknown): Promise<Answer> {
    this.requests.push({ method, path, body });
    const key = Object.keys(this.answers).find((beginning) => path.startsWith(beginning));
    const answer = key === undefined ? { status: 200, body: undefined } : this.answers[key];
    return answer ? Promise.resolve(answer) : Promise.reject(new Error("no server"));
  }
}
