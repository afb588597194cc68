import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { SessionClient, type ClientListener } from "../src/connection/client.js";
import type { SentCommand } from "../src/connection/outbox.js";
import type { Rejection } from "../src/protocol/generated.js";
import { EMPTY } from "../src/state/model.js";
import { reduceAll } from "../src/state/reduce.js";
import { Log } from "./log.js";
import { FakeTransport } from "./transport.js";

let transport: FakeTransport;
let state = EMPTY;
let rejections: [SentCommand | undefined, Rejection][];
let clients: SessionClient[];
let isOnLine = true;

const listener: ClientListener = {
  envelopes: (envelopes) => (state = reduceAll(state, envelopes)),
  changed: () => {},
  rejected: (command, rejection) => rejections.push([command, rejection]),
  head: () => state.head,
  isRunning: () => state.run !== null,
};

function start(): SessionClient {
  const client = new SessionClient(transport, "s", listener);
  clients.push(client);
  client.start();
  return client;
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(1);
  vi.spyOn(navigator, "onLine", "get").mockImplementation(() => isOnLine);
  sessionStorage.clear();
  [transport, state, rejections, clients, isOnLine] = [new FakeTransport(), EMPTY, [], [], true];
});

afterEach(() => {
  for (const client of clients) client.stop();
  vi.useRealTimers();
});

describe("reconnecting", () => {
  it.each([1000, 1001, 1006, 1008, 1009, 1011, 1012, 1013, 4000])("happens after close code %i, from the highest seq", async (code) => {
    const client = start();
    transport.last.open().envelopes(new Log().prompt("c1", "hi", "r1").envelopes);
    transport.last.fail(code);
    expect(client.status.state).toBe("reconnecting");
    await vi.advanceTimersByTimeAsync(250);
    expect(transport.channels).toHaveLength(2);
    expect(transport.last.after).toBe(3);
    transport.last.open();
    expect(client.status.state).toBe("open");
  });

  it("waits longer each time, up to 30 seconds", async () => {
    start();
    const waits: number[] = [];
    for (let attempt = 0; attempt < 10; attempt += 1) {
      const [before, opened] = [Date.now(), transport.channels.length];
      transport.last.fail();
      while (transport.channels.length === opened) await vi.advanceTimersByTimeAsync(50);
      waits.push(Date.now() - before);
    }
    expect(waits).toEqual([250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
  });

  it("spreads over the whole wait", async () => {
    vi.mocked(Math.random).mockReturnValue(0.1);
    start();
    transport.last.fail();
    await vi.advanceTimersByTimeAsync(25);
    expect(transport.channels).toHaveLength(2);
  });

  it("starts with a short wait again after a channel that lived", async () => {
    start();
    for (let attempt = 0; attempt < 6; attempt += 1) {
      transport.last.fail();
      await vi.advanceTimersByTimeAsync(30_000);
    }
    const opened = transport.channels.length;
    transport.last.open();
    await vi.advanceTimersByTimeAsync(6_000);
    transport.last.fail();
    await vi.advanceTimersByTimeAsync(250);
    expect(transport.channels).toHaveLength(opened + 1);
  });

  it("does not hammer a server that opens and closes at once", async () => {
    start();
    for (let attempt = 0; attempt < 8; attempt += 1) {
      transport.last.open().fail(1008);
      await vi.advanceTimersByTimeAsync(30_000);
    }
    const opened = transport.channels.length;
    transport.last.open().fail(1008);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(transport.channels).toHaveLength(opened);
  });

  it("happens at once when the browser is online again, or the page is looked at", async () => {
    start();
    for (let attempt = 0; attempt < 8; attempt += 1) {
      transport.last.fail();
      await vi.advanceTimersByTimeAsync(30_000);
    }
    transport.last.fail();
    const opened = transport.channels.length;
    window.dispatchEvent(new Event("online"));
    expect(transport.channels).toHaveLength(opened + 1);
    transport.last.fail();
    document.dispatchEvent(new Event("visibilitychange"));
    expect(transport.channels).toHaveLength(opened + 2);
  });

  it("ends with stop", async () => {
    const client = start();
    transport.last.open();
    client.stop();
    expect(transport.last.isClosed).toBe(true);
    window.dispatchEvent(new Event("online"));
    await vi.advanceTimersByTimeAsync(120_000);
    expect(transport.channels).toHaveLength(1);
  });

  it("happens when a run is silent for 45 seconds, and not while nothing runs", async () => {
    start();
    transport.last.open();
    await vi.advanceTimersByTimeAsync(120_000);
    expect(transport.channels).toHaveLength(1);
    transport.last.envelopes(new Log().started("r1").envelopes);
    await vi.advanceTimersByTimeAsync(44_000);
    expect(transport.channels).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(7_000);
    expect(transport.channels).toHaveLength(2);
  });
});

describe("a connection that is refused", () => {
  it("is closed for good when the session is gone", async () => {
    const client = start();
    transport.answers = { "sessions/s": { status: 404, body: {} } };
    transport.last.fail();
    await vi.advanceTimersByTimeAsync(120_000);
    document.dispatchEvent(new Event("visibilitychange"));
    expect(client.status).toEqual({ state: "closed", reason: "gone" });
    expect(transport.channels).toHaveLength(1);
  });

  it.each([[401, "auth"], [403, "auth"], [424, "off"]])("after a %i leads to where that can be changed, and goes on after that", async (status, reason) => {
    const client = start();
    transport.answers = { "sessions/s": { status, body: {} } };
    transport.last.fail();
    await vi.advanceTimersByTimeAsync(10);
    expect(client.status).toEqual({ state: "closed", reason });
    transport.answers = {};
    document.dispatchEvent(new Event("visibilitychange"));
    transport.last.open();
    expect(client.status.state).toBe("open");
  });

  it("goes on trying when the server is not there at all", async () => {
    const client = start();
    transport.answers = { "sessions/s": null };
    transport.last.fail();
    await vi.advanceTimersByTimeAsync(250);
    expect(client.status.state).toBe("connecting");
    expect(transport.channels).toHaveLength(2);
  });
});

describe("being offline", () => {
  it("drops a connection that does not answer, and says so", async () => {
    const client = start();
    transport.last.open();
    isOnLine = false;
    transport.answers = { health: null };
    window.dispatchEvent(new Event("offline"));
    await vi.advanceTimersByTimeAsync(10);
    expect(client.status.state).toBe("offline");
    isOnLine = true;
    window.dispatchEvent(new Event("online"));
    transport.last.open();
    expect(client.status.state).toBe("open");
  });

  it("is nothing to a server on the same machine", async () => {
    const client = start();
    transport.last.open();
    isOnLine = false;
    window.dispatchEvent(new Event("offline"));
    await vi.advanceTimersByTimeAsync(10);
    expect(client.status.state).toBe("open");
    expect(transport.channels).toHaveLength(1);
  });
});

describe("a command", () => {
  const accept = (command: SentCommand, seq: number): object => ({
    accepted: { command_id: command.command_id, seq, run_id: "r1", type: command.type },
  });

  it("is sent at once when connected", () => {
    const client = start();
    transport.last.open();
    const sent = client.send({ type: "prompt", text: "hi" });
    expect(transport.last.sent).toEqual([{ type: "prompt", text: "hi", command_id: sent.command_id }]);
  });

  it("waits for the connection, and is sent again with the same id until it is seen", async () => {
    const client = start();
    const sent = client.send({ type: "prompt", text: "hi" });
    expect(transport.last.sent).toEqual([]);
    for (let attempt = 0; attempt < 3; attempt += 1) {
      transport.last.open();
      expect(transport.last.sent).toEqual([sent]);
      transport.last.fail();
      await vi.advanceTimersByTimeAsync(30_000);
    }
    transport.last.open().envelopes(new Log().prompt(sent.command_id, "hi", "r1").envelopes);
    expect(client.outbox).toEqual([]);
    transport.last.fail();
    await vi.advanceTimersByTimeAsync(30_000);
    expect(transport.last.open().sent).toEqual([]);
  });

  it("stays on the screen from its acceptance until the log shows it", () => {
    const client = start();
    transport.last.open();
    const sent = client.send({ type: "prompt", text: "hi" });
    transport.last.frame(accept(sent, 3));
    expect(client.outbox).toEqual([sent]);
    transport.last.envelopes(new Log().prompt(sent.command_id, "hi", "r1").envelopes);
    expect(client.outbox).toEqual([]);
  });

  it("is done when it was accepted at a seq that has been seen", () => {
    const client = start();
    transport.last.open().envelopes(new Log().prompt("other", "hi", "r1").envelopes);
    transport.last.frame(accept(client.send({ type: "prompt", text: "withdrawn long ago" }), 2));
    expect(client.outbox).toEqual([]);
  });

  it("that is no prompt is done when it was accepted", () => {
    const client = start();
    transport.last.open();
    transport.last.frame(accept(client.send({ type: "stop" }), 9));
    expect(client.outbox).toEqual([]);
  });

  it("that was rejected is given back and not sent again", async () => {
    const client = start();
    transport.last.open();
    const sent = client.send({ type: "prompt", text: "hi" });
    transport.last.frame({ rejected: { command_id: sent.command_id, code: "conflict", message: "busy", field: null } });
    expect(rejections).toEqual([[sent, expect.objectContaining({ message: "busy" })]]);
    expect(client.outbox).toEqual([]);
  });

  it("survives a reload of the page", () => {
    const sent = start().send({ type: "prompt", text: "hi" });
    const [again] = start().outbox;
    expect(again).toEqual(sent);
  });

  it("of one view is not lost when another view of the session has its own done", () => {
    const [one, two] = [start(), start()];
    const kept = one.send({ type: "prompt", text: "one" });
    const [, channel] = transport.channels;
    channel?.open();
    const done = two.send({ type: "prompt", text: "two" });
    channel?.envelopes(new Log().prompt(done.command_id, "two", "r1").envelopes);
    expect(start().outbox).toEqual([kept]);
  });
});

it("frames that are not understood change nothing", () => {
  const client = start();
  transport.last.open();
  for (const text of ["", "{", "[]", "null", '"x"', '{"seq":"1"}', '{"batch":[1,{"seq":1}]}', '{"new":{}}']) {
    transport.last.listener.frame(text);
  }
  expect(client.status.state).toBe("open");
  expect(state).toEqual(EMPTY);
});
