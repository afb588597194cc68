import { afterEach, beforeEach, expect, it, vi } from "vitest";
import "../src/navi-chat.js";
import type { NaviChat } from "../src/view/chat-element.js";
import { isPressed } from "../src/lab/panel-commands.js";
import { FakeTransport } from "./transport.js";

let chat: NaviChat;
let transport: FakeTransport;
let made: number;
let answer: (id: string) => void;
let refuse: (problem: Error) => void;

const find = (name: string): HTMLElement | null => chat.querySelector(`[data-navi="${name}"]`);
const input = (): HTMLTextAreaElement => find("input") as HTMLTextAreaElement;

async function drawn(): Promise<void> {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  await chat.updateComplete;
}

function newSession(key: string): NonNullable<NaviChat["newSession"]> {
  return {
    key,
    create: () => {
      made += 1;
      return new Promise<string>((resolve, reject) => {
        answer = resolve;
        refuse = reject;
      });
    },
  };
}

function type(text: string): void {
  input().value = text;
  input().dispatchEvent(new Event("input", { bubbles: true }));
}

function send(): void {
  input().dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true }));
}

const prompts = (): unknown[] => transport.channels.flatMap(({ sent }) => sent.filter(({ type }) => type === "prompt").map(({ text }) => text));

beforeEach(async () => {
  sessionStorage.clear();
  made = 0;
  transport = new FakeTransport();
  chat = document.createElement("navi-chat") as NaviChat;
  chat.transport = transport;
  chat.newSession = newSession("a");
  document.body.replaceChildren(chat);
  await drawn();
});

afterEach(() => chat.remove());

it("a chat without session can be written to, and makes none before something is sent", async () => {
  expect(find("empty")).not.toBeNull();
  expect(input().disabled).toBe(false);
  type("hello");
  await drawn();
  expect(made).toBe(0);
  expect(transport.channels).toHaveLength(0);
});

it("the first prompt makes the session, and both prompts of a moment are in it", async () => {
  type("hello");
  send();
  type("and this");
  send();
  type("a draft");
  await drawn();
  expect(made).toBe(1);
  answer("s_1");
  await vi.waitFor(() => expect(chat.session).toBe("s_1"));
  await drawn();
  transport.last.open();
  await vi.waitFor(() => expect(prompts()).toEqual(["hello", "and this"]));
  expect(input().value).toBe("a draft");
});

it("the first prompt goes to the session that was made for it although the view shows another one by then", async () => {
  type("hello");
  send();
  chat.newSession = newSession("b");
  await drawn();
  answer("s_1");
  await vi.waitFor(() => expect(transport.requests.map(({ method, path }) => `${method} ${path}`)).toContain("POST sessions/s_1/commands"));
  expect(transport.requests.find(({ path }) => path === "sessions/s_1/commands")?.body).toMatchObject({ type: "prompt", text: "hello" });
  expect(chat.session).toBeNull();
  expect(prompts()).toEqual([]);
});

it("says why no session was made, and the text is there again", async () => {
  type("hello");
  send();
  refuse(new Error("There are 500 sessions."));
  await vi.waitFor(() => expect(find("notice")?.textContent).toContain("There are 500 sessions."));
  expect(input().value).toBe("hello");
  send();
  expect(made).toBe(2);
});

it("the drafts of two views without session are kept apart", async () => {
  type("for a");
  chat.newSession = newSession("b");
  await drawn();
  expect(input().value).toBe("");
  chat.newSession = newSession("a");
  await drawn();
  expect(input().value).toBe("for a");
  input().setSelectionRange(1, 1);
  chat.newSession = newSession("a"); // drawn again: nothing moves
  await drawn();
  expect(input().selectionStart).toBe(1);
});

it("settings that are opened make the session first", async () => {
  find("settings-toggle")?.click();
  expect(made).toBe(1);
  answer("s_1");
  await vi.waitFor(() => expect(find("settings")?.hidden).toBe(false));
  expect(chat.session).toBe("s_1");
});

it("a shortcut is known by the place of its key", () => {
  const event = (init: KeyboardEventInit): KeyboardEvent => new KeyboardEvent("keydown", init);
  expect(isPressed(event({ key: "˜", code: "KeyN", altKey: true, shiftKey: true }), "Alt Shift N")).toBe(true);
  expect(isPressed(event({ key: "N", code: "KeyN", shiftKey: true }), "Alt Shift N")).toBe(false);
  expect(isPressed(event({ key: "N", code: "KeyN", altKey: true, shiftKey: true, ctrlKey: true }), "Alt Shift N")).toBe(false);
  expect(isPressed(event({ key: "n", code: "KeyN", ctrlKey: true }), "Accel N")).toBe(true);
});
