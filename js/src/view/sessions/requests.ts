/** What the list of sessions asks of the server. A failure is a sentence for the user. */

import { isOk, type Answer, type Method, type Transport } from "../../connection/transport.js";
import { isObject } from "../../protocol/frames.js";
import type { ReaderList, SessionDetail, SessionInfo, SessionPage } from "../../protocol/generated.js";
import { strings } from "../lib/strings.js";

export type Shown = "active" | "archived" | "deleted" | "shared";
export const SHOWN: readonly Shown[] = ["active", "archived", "deleted", "shared"];
export const FORMATS = ["md", "ipynb", "html", "json"] as const;
export type Format = (typeof FORMATS)[number];
export const PAGE = 100;

export class SessionRequests {
  readonly #transport: () => Transport | null;
  readonly #problem: (text: string) => void;

  /** `problem` shows why a request failed; then the request's answer is null. */
  constructor(transport: () => Transport | null, problem: (text: string) => void) {
    this.#transport = transport;
    this.#problem = problem;
  }

  /** Whether files can be fetched: not through a kernel. */
  get canExport(): boolean {
    return this.#transport()?.load !== undefined;
  }

  /** `isQuiet`: a failure is not shown, as the request is repeated by itself. */
  async list(query: string, show: Shown, cursor: string | null, isQuiet = false): Promise<SessionPage | null> {
    const parameters = new URLSearchParams({ limit: String(PAGE), ...(query ? { query } : { show }), ...(cursor ? { cursor } : {}) });
    const page = await this.#ask("GET", `sessions?${parameters}`, undefined, isQuiet);
    return isObject(page) && Array.isArray(page["sessions"]) ? (page as unknown as SessionPage) : null;
  }

  async create(): Promise<SessionDetail | null> {
    return (await this.#ask("POST", "sessions", {})) as SessionDetail | null;
  }

  rename(id: string, title: string): Promise<unknown> {
    return this.#ask("PATCH", path(id), { title });
  }

  delete(id: string): Promise<unknown> {
    return this.#ask("DELETE", path(id));
  }

  /** `restore`, `archive`, `unarchive`. */
  do(id: string, what: "restore" | "archive" | "unarchive"): Promise<unknown> {
    return this.#ask("POST", `${path(id)}/${what}`);
  }

  /** A copy up to that message; without one, of all that is over. */
  async fork(id: string, messageId: string | null = null): Promise<SessionDetail | null> {
    return (await this.#ask("POST", `${path(id)}/fork`, messageId === null ? {} : { message_id: messageId })) as SessionDetail | null;
  }

  async readers(id: string): Promise<readonly string[] | null> {
    const detail = (await this.#ask("GET", path(id))) as SessionDetail | null;
    return detail?.readers ?? null;
  }

  async share(id: string, user: string): Promise<readonly string[] | null> {
    return ((await this.#ask("POST", `${path(id)}/share`, { user })) as ReaderList | null)?.readers ?? null;
  }

  async unshare(id: string, user: string): Promise<readonly string[] | null> {
    return ((await this.#ask("POST", `${path(id)}/unshare`, { user })) as ReaderList | null)?.readers ?? null;
  }

  /** Has the browser save the session as a file. */
  async export(session: Pick<SessionInfo, "id" | "title">, format: Format): Promise<void> {
    const content = (await this.#transport()?.load?.(`${path(session.id)}/export?format=${format}`)) ?? null;
    if (content === null) return this.#problem(strings.failed(strings.noServer));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = `${session.title.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 80) || "session"}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  async #ask(method: Method, where: string, body?: unknown, isQuiet = false): Promise<unknown> {
    const answer: Answer | null = (await this.#transport()?.request(method, where, body).catch(() => null)) ?? null;
    if (answer && isOk(answer)) return answer.body ?? {};
    const why = answer && isObject(answer.body) && typeof answer.body["message"] === "string" ? answer.body["message"] : null;
    if (!isQuiet) this.#problem(strings.failed(why ?? (answer ? `HTTP ${answer.status}` : strings.noServer)));
    return null;
  }
}

function path(id: string): string {
  return `sessions/${encodeURIComponent(id)}`;
}
