/** How a client reaches a session: a channel for the log and the commands, and REST requests. */

export interface Transport {
  /** `ws`: straight to the server. `comm`: through the kernel. */
  readonly kind: "ws" | "comm";
  /** Views whose transports have the same one reach a session in the same way, and can share a connection. */
  readonly shareKey?: string;
  /** Begins to open a channel; its events go to `listener`, never before this returns. */
  open(session: string, after: number | null, listener: ChannelListener): Channel;
  /** A request below `navi/api/`. Rejects when no answer came; any status is an answer. */
  request(method: Method, path: string, body?: unknown): Promise<Answer>;
  /** Sends a file. Missing where only JSON gets through. Rejects when no answer came. */
  upload?(path: string, content: Blob): Promise<Answer>;
  /** What a path below `navi/api/` has that is no JSON; null when it could not be had. Missing as above. */
  load?(path: string): Promise<Blob | null>;
  /** Where to log in, when the server asks for that; where it is off, a JupyterHub offers to start it there. */
  readonly loginUrl?: string;
  dispose?(): void;
}

export type Method = "GET" | "POST" | "PATCH" | "PUT" | "DELETE";

export interface Channel {
  /** Hands over a frame; it may be lost with the channel. */
  send(text: string): void;
  /** After this the listener is not called any more. */
  close(): void;
}

export interface ChannelListener {
  opened(): void;
  frame(text: string): void;
  closed(code: number, reason: string): void;
}

export interface Answer {
  readonly status: number;
  /** The JSON of the answer; undefined when it was none. */
  readonly body: unknown;
}

/** The status of an answer that comes instead of that of the user's server, which is off: JupyterHub's. */
export const OFF = 424;

export function isOk(answer: Answer): boolean {
  return answer.status >= 200 && answer.status < 300;
}
