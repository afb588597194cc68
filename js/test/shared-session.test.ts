import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import "../src/navi-chat.js";
import type { NaviChat } from "../src/view/chat-element.js";
import { Log, prelude } from "./log.js";
import { FakeTransport } from "./transport.js";

class SharedTransport extends FakeTransport {
  readonly shareKey = "http://localhost/navi/api/";
}

const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 10_000 });
const texts = (chat: NaviChat): string[] => chat.state.items.flatMap((item) => (item.kind === "message" ? [item.text] : []));
let transport: SharedTransport;

async function drawn(): Promise<void> {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
}

async function open(session = "s"): Promise<NaviChat> {
  const chat = document.createElement("navi-chat") as NaviChat;
  chat.transport = transport;
  chat.session = session;
  document.body.append(chat);
  await drawn();
  return chat;
}

beforeEach(() => {
  sessionStorage.clear();
  transport = new SharedTransport();
});
afterEach(async () => {
  document.body.replaceChildren();
  await new Promise((resolve) => setTimeout(resolve, 2_100)); // until they are gone: the next test begins with none
});

describe("the views of one session in a page", () => {
  it("share one connection and one state, also those that come later", async () => {
    const [one, two] = [await open(), await open()];
    expect(transport.channels).toHaveLength(1);
    transport.last.open().envelopes(prelude(0, [{ type: "MESSAGES_SNAPSHOT", messages: [] }]));
    transport.last.envelopes(new Log().prompt("c1", "hello", "r1").started("r1").envelopes);
    const three = await open();
    expect(transport.channels).toHaveLength(1);
    for (const chat of [one, two, three]) {
      expect(texts(chat)).toEqual(["hello"]);
      expect(chat.status.state).toBe("open");
      expect(chat.querySelector("[data-navi=message]")?.textContent).toContain("hello");
    }
    await open("another");
    expect(transport.channels).toHaveLength(2);
  });

  it("keep it while one of them is there, and give it up with the last one", async () => {
    const [one, two] = [await open(), await open()];
    transport.last.open().envelopes(prelude(0, [{ type: "MESSAGES_SNAPSHOT", messages: [] }]));
    const [channel] = transport.channels;
    one.remove();
    await new Promise((resolve) => setTimeout(resolve, 2_100));
    expect(channel?.isClosed).toBe(false);
    two.remove();
    await eventually(() => expect(channel?.isClosed).toBe(true));
  });

  it("tell the one that has sent it that a command was refused", async () => {
    const [one, two] = [await open(), await open()];
    transport.last.open().envelopes(prelude(0, [{ type: "MESSAGES_SNAPSHOT", messages: [] }]));
    const sent = two.send("no");
    transport.last.frame({ rejected: { command_id: sent?.command_id, code: "conflict", message: "this is not welcome", field: null } });
    await drawn();
    expect(two.querySelector("[data-navi=notice]")?.textContent).toContain("not welcome");
    expect(one.querySelector("[data-navi=notice]")).toBeNull();
  });
});
