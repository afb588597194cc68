import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { CommTransport, type CommModel } from "../src/connection/comm.js";
import { FallbackTransport } from "../src/connection/fallback.js";
import { readPageConfig } from "../src/connection/page-config.js";
import type { ChannelListener } from "../src/connection/transport.js";
import { WebSocketTransport } from "../src/connection/ws.js";
import { FakeTransport } from "./transport.js";

type Message = Record<string, unknown>;

class FakeModel implements CommModel {
  readonly sent: Message[] = [];
  #listeners: ((content: unknown) => void)[] = [];
  send(content: unknown): void {
    this.sent.push(content as Message);
  }
  on(_event: string, listener: (content: unknown) => void): void {
    this.#listeners.push(listener);
  }
  off(_event: string, listener: (content: unknown) => void): void {
    this.#listeners = this.#listeners.filter((other) => other !== listener);
  }
  tell(message: unknown): void {
    for (const listener of this.#listeners) listener(message);
  }
}

function recorder(): ChannelListener & { readonly told: unknown[][] } {
  const told: unknown[][] = [];
  return {
    told,
    opened: () => told.push(["opened"]),
    frame: (text) => told.push(["frame", text]),
    closed: (code, reason) => told.push(["closed", code, reason]),
  };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("through the kernel", () => {
  it("carries frames and commands of its own channel only", () => {
    const [model, listener] = [new FakeModel(), recorder()];
    const channel = new CommTransport(model).open("s", 7, listener);
    const conn = model.sent[0]?.["conn"];
    expect(model.sent).toEqual([{ navi: 1, m: "open", conn, session_id: "s", after: 7 }]);
    model.tell({ navi: 1, m: "opened", conn });
    model.tell({ navi: 1, m: "frame", conn, data: "{}" });
    model.tell({ navi: 1, m: "frame", conn: "another", data: "{}" });
    model.tell({ m: "frame", conn, data: "not ours" });
    channel.send("command");
    model.tell({ navi: 1, m: "closed", conn, code: 1001, reason: "going" });
    model.tell({ navi: 1, m: "frame", conn, data: "late" });
    expect(listener.told).toEqual([["opened"], ["frame", "{}"], ["closed", 1001, "going"]]);
    expect(model.sent.at(-1)).toEqual({ navi: 1, m: "send", conn, data: "command" });
  });

  it("gives up on a kernel that does not answer within a minute", async () => {
    const [model, listener] = [new FakeModel(), recorder()];
    new CommTransport(model).open("s", null, listener);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(listener.told).toEqual([["closed", 1006, "the kernel does not answer"]]);
    expect(model.sent.at(-1)).toMatchObject({ m: "close" });
  });

  it("makes requests", async () => {
    const model = new FakeModel();
    const answer = new CommTransport(model).request("POST", "recalls/a/fire", {});
    const { id } = model.sent[0] as { id: string };
    expect(model.sent[0]).toEqual({ navi: 1, m: "request", id, method: "POST", path: "recalls/a/fire", body: {} });
    model.tell({ navi: 1, m: "response", id, status: 200, body: { ok: true } });
    await expect(answer).resolves.toEqual({ status: 200, body: { ok: true } });
  });
});

describe("the choice of a way", () => {
  const both = (): [FakeTransport, FakeTransport, FallbackTransport] => {
    const [first, second] = [new FakeTransport(), new FakeTransport()];
    return [first, second, new FallbackTransport(first, second)];
  };

  it("is the straight one when it opens, for good", () => {
    const [first, second, transport] = both();
    const listener = recorder();
    transport.open("s", null, listener);
    first.last.open().frame({}).fail(1006);
    transport.open("s", 3, listener);
    expect(listener.told).toEqual([["opened"], ["frame", "{}"], ["closed", 1006, ""]]);
    expect([first.channels.length, second.channels.length]).toEqual([2, 0]);
  });

  it.each(["does not open", "opens and says nothing"])("is the kernel when the straight one %s within 3 seconds", async (how) => {
    const [first, second, transport] = both();
    const listener = recorder();
    transport.open("s", null, listener);
    if (how !== "does not open") first.last.open();
    await vi.advanceTimersByTimeAsync(3_000);
    expect(first.last.isClosed).toBe(true);
    second.last.open().frame({});
    await vi.advanceTimersByTimeAsync(60_000);
    expect(listener.told).toEqual([["opened"], ["frame", "{}"]]);
  });

  it("is made by the opening alone when there may be nothing to say", () => {
    const [first, , transport] = both();
    const listener = recorder();
    transport.open("s", 9, listener);
    first.last.open();
    expect(listener.told).toEqual([["opened"]]);
  });

  it("is open again when neither opens", async () => {
    const [first, second, transport] = both();
    const listener = recorder();
    transport.open("s", null, listener);
    first.last.fail();
    second.last.fail(1006);
    expect(listener.told).toEqual([["closed", 1006, ""]]);
    transport.open("s", null, listener);
    expect(first.channels).toHaveLength(2);
  });

  it("leaves nothing behind when the channel is closed meanwhile", async () => {
    const [first, second, transport] = both();
    transport.open("s", null, recorder()).close();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(first.last.isClosed).toBe(true);
    expect(second.channels).toHaveLength(0);
  });
});

describe("straight to the server", () => {
  const config = (baseUrl: string, token = ""): void => {
    document.body.innerHTML = `<script id="jupyter-config-data" type="application/json">${JSON.stringify({ baseUrl, token })}</script>`;
  };

  it("needs a page of a Jupyter server", () => {
    document.body.innerHTML = "";
    expect(readPageConfig()).toBeNull();
    document.body.innerHTML = '<script id="jupyter-config-data" type="application/json">{]</script>';
    expect(readPageConfig()).toBeNull();
    config("/a%40b/", "secret");
    expect(readPageConfig()).toEqual({ baseUrl: new URL("/a%40b/", location.href), token: "secret", documents: "lab/tree/" });
  });

  it("uses the page's base URL, the XSRF token on every request, and no server token on its own origin", async () => {
    config("/a%40b/", "secret");
    document.cookie = "_xsrf=abc";
    const fetched = vi.spyOn(globalThis, "fetch").mockResolvedValue(Response.json({ ok: 1 }));
    const page = readPageConfig();
    const transport = new WebSocketTransport(page ?? expect.fail("no config"));
    await expect(transport.request("GET", "recalls?session_id=s")).resolves.toEqual({ status: 200, body: { ok: 1 } });
    const [url, init] = fetched.mock.calls[0] ?? expect.fail("nothing was fetched");
    expect(String(url)).toBe(new URL("/a%40b/navi/api/recalls?session_id=s", location.href).href);
    const headers = new Headers(init?.headers);
    expect([headers.get("X-XSRFToken"), headers.get("Authorization")]).toEqual(["abc", null]);
  });

  it.each([
    ["the login page", new Response("<html>"), 403],
    ["the Hub, which does not run the server", new Response("{}", { status: 424 }), 424],
    ["the Hub of an earlier version", new Response("{}", { status: 503 }), 424],
    ["another domain", new TypeError("Failed to fetch"), 403],
  ])("sees by where it is led whether to log in or to start the server: %s", async (_, end, status) => {
    config("/base");
    const led = Object.defineProperty(new Response(null), "type", { value: "opaqueredirect" });
    vi.spyOn(globalThis, "fetch").mockImplementation((_url, init) =>
      init?.redirect === "manual" ? Promise.resolve(led) : end instanceof Error ? Promise.reject(end) : Promise.resolve(end),
    );
    const transport = new WebSocketTransport(readPageConfig() ?? expect.fail("no config"));
    expect(await transport.request("POST", "sessions", {})).toEqual({ status, body: undefined });
  });

  it("opens a socket after the cursor, with the XSRF token on its own origin and the server's token on another", () => {
    const urls: string[] = [];
    vi.stubGlobal("WebSocket", class { constructor(url: URL) { urls.push(url.href); } close(): void {} });
    document.cookie = "_xsrf=2|a%7Cb";
    config("/base", "secret");
    const transport = new WebSocketTransport(readPageConfig() ?? expect.fail("no config"));
    transport.open("s/1", null, recorder());
    transport.open("s", 412, recorder());
    config("https://other.example/base", "secret");
    new WebSocketTransport(readPageConfig() ?? expect.fail("no config")).connect("notebooks/ws", {}, recorder());
    vi.unstubAllGlobals();
    const root = location.href.replace("http", "ws");
    const xsrf = "_xsrf=2%7Ca%7Cb";
    expect(urls).toEqual([
      `${root}base/navi/api/sessions/s%2F1/ws?${xsrf}`,
      `${root}base/navi/api/sessions/s/ws?after=412&${xsrf}`,
      "wss://other.example/base/navi/api/notebooks/ws?token=secret",
    ]);
  });
});
