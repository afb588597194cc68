import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import "../src/navi-chat.js";
import type { NaviChat } from "../src/view/chat-element.js";
import { Log, prelude, recall } from "./log.js";
import { FakeTransport } from "./transport.js";

let chat: NaviChat;
let transport: FakeTransport;

const find = (name: string): HTMLElement | null => chat.querySelector(`[data-navi="${name}"]`);
const all = (name: string): HTMLElement[] => [...chat.querySelectorAll<HTMLElement>(`[data-navi="${name}"]`)];
const input = (): HTMLTextAreaElement => find("input") as HTMLTextAreaElement;

async function drawn(): Promise<void> {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  await chat.updateComplete;
}

/** Waits as long as it takes on a busy machine. */
const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 10_000 });

async function show(log: Log): Promise<void> {
  transport.last.envelopes(log.envelopes);
  await drawn();
}

function press(key: string, init: KeyboardEventInit = {}): KeyboardEvent {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...init });
  input().dispatchEvent(event);
  return event;
}

function type(text: string): void {
  input().value = text;
  input().dispatchEvent(new Event("input", { bubbles: true }));
}

beforeEach(async () => {
  sessionStorage.clear();
  transport = new FakeTransport();
  chat = document.createElement("navi-chat") as NaviChat;
  chat.transport = transport;
  chat.session = "s";
  document.body.replaceChildren(chat);
  await drawn();
  transport.last.open().envelopes(prelude(0, [{ type: "MESSAGES_SNAPSHOT", messages: [] }]));
  await drawn();
});

afterEach(() => chat.remove());

describe("the conversation", () => {
  it("shows messages with what tests and styles need to know of them", async () => {
    await show(new Log().prompt("c1", "hi <b>", "r1").started("r1").begin("m1", "**Hello**", "r1"));
    const [user, answer] = all("message");
    expect(user?.dataset).toMatchObject({ role: "user", messageId: "c1", runId: "r1", origin: "user", status: "done" });
    expect(user?.querySelector(".navi-text")?.textContent).toBe("hi <b>");
    expect(answer?.dataset).toMatchObject({ role: "assistant", messageId: "m1", status: "streaming" });
    expect(answer?.querySelector("strong")?.textContent).toBe("Hello");
  });

  it("tells a recall's message apart, with title and slot", async () => {
    const origin = { kind: "recall", recall_id: "a" } as const;
    await show(new Log().recall(recall("a")).prompt("recall:a:2026-11-23T09:00:00Z", "check", "r1", origin));
    const [message] = all("message");
    expect(message?.dataset["origin"]).toBe("recall");
    expect(message?.querySelector('[data-navi="badge"]')?.textContent).toContain("title of a");
    expect(message?.querySelector("time")?.dateTime).toBe("2026-11-23T09:00:00.000Z");
  });

  it("shows tool calls as cards", async () => {
    const log = new Log().started("r1");
    log.add({ type: "TOOL_CALL_START", toolCallId: "k1", toolCallName: "now" }, "r1");
    log.add({ type: "TOOL_CALL_ARGS", toolCallId: "k1", delta: '{"tz":"UTC"}' }, "r1");
    log.add({ type: "TOOL_CALL_RESULT", messageId: "x", toolCallId: "k1", content: "12:00", role: "tool" }, "r1");
    await show(log);
    const card = find("tool") as HTMLDetailsElement;
    expect(card.dataset).toMatchObject({ toolCallId: "k1", toolName: "now", status: "done" });
    expect(card.open).toBe(false);
    expect(card.textContent).toContain("12:00");
  });

  it("shows an error as one, and a stopped run as stopped", async () => {
    await show(new Log().prompt("c1", "a", "r1").started("r1").failed("r1", "model_unauthorized", "no key").prompt("c2", "b", "r2").started("r2").finished("r2", "cancelled"));
    expect(find("error")?.textContent).toContain("no key");
    expect(find("run-end")?.dataset["code"]).toBe("cancelled");
  });

  it("says in a line under the answer what is the matter with it, and what to do", async () => {
    const notice = { run_id: "r1", code: "answer_cut", message: "The answer is cut off. Ask to go on." };
    await show(new Log().prompt("c1", "a", "r1").started("r1").begin("m1", "One, two", "r1").done("m1", "r1").custom("navi.notice", notice, "r1").finished("r1"));
    expect(find("notice")?.dataset["code"]).toBe("answer_cut");
    expect(find("notice")?.textContent).toContain("Ask to go on");
    expect(find("error")).toBeNull();
    expect(find("message")!.compareDocumentPosition(find("notice")!) & Node.DOCUMENT_POSITION_FOLLOWING).toBeTruthy();
  });

  it("has a bounded part of a long log in the document, and the rest on request", async () => {
    const log = new Log();
    for (let index = 0; index < 1000; index += 1) log.prompt(`c${index}`, `text ${index}`, `r${index}`).started(`r${index}`).finished(`r${index}`);
    await show(log);
    expect(all("message").length).toBeLessThanOrEqual(300);
    expect(all("message").at(-1)?.dataset["messageId"]).toBe("c999");
    expect(find("earlier")).not.toBeNull();
  });

  it("announces what was said once it is complete", async () => {
    const log = new Log().started("r1").begin("m1", "Hello", "r1");
    await show(log);
    expect(all("message")[0]?.getAttribute("aria-live")).toBe("off");
    expect(find("announcer")?.textContent).not.toContain("Hello");
    await show(log.done("m1", "r1"));
    expect(find("announcer")?.textContent).toBe("Navi: Hello");
  });

  it("says at its end, and once to a screen reader, that it waits for the user's server", async () => {
    const log = new Log().prompt("c1", "a", "r1").started("r1");
    await show(log);
    expect(find("working")?.textContent?.trim()).toBe("");
    await show(log.custom("navi.kernel", { status: "server_starting" }, "r1"));
    expect(find("working")?.textContent?.trim()).toBe("Waiting for your server to start…");
    expect(find("announcer")?.textContent).toBe("Waiting for your server to start…");
    await show(log.custom("navi.kernel", { status: "server_ready" }, "r1"));
    expect(find("working")?.textContent?.trim()).toBe("");
  });

  it("announces once and as plain text what is new, politely, and a question at once", async () => {
    const said = (urgency: string): readonly (string | null)[] =>
      [...chat.querySelectorAll(`[data-navi=announcer][aria-live=${urgency}] p`)].map(({ textContent }) => textContent);
    const log = new Log();
    await show(log.prompt("c1", "a", "r1"));
    expect(find("log")?.getAttribute("aria-live")).toBe("off");
    expect(said("polite")).toEqual([]);
    await show(log.started("r1"));
    expect(said("polite")).toEqual(["Navi is working"]);
    await show(log.begin("m1", "Use **`lr`** as in [the docs](https://example.com)", "r1").done("m1", "r1"));
    expect(said("polite")).toEqual(["Navi: Use lr as in the docs"]);
    chat.querySelector("[data-navi=announcer]")!.replaceChildren();
    const interrupt = { id: "i1", run_id: "r1", kind: "approval", tool: "run_code", message: "Navi wants to use run_code.", args: { code: "1" } };
    await show(log.custom("navi.interrupt", { action: "opened", interrupt }, "r1"));
    expect(said("assertive")).toEqual(["Navi wants to run this code"]);
    expect(said("polite")).toEqual([]); // the answer was read before
    await show(log.failed("r1", "provider_network", "no way there"));
    expect(said("polite")).toEqual(["The provider cannot be reached. no way there"]);
    const origin = { kind: "recall", recall_id: "a" } as const;
    await show(log.recall(recall("a")).prompt("recall:a:2026-11-23T09:00:00Z", "check", "r2", origin).started("r2"));
    expect(said("polite")).toEqual(["Recall: title of a"]);
  });
});

describe("writing", () => {
  it("sends with Enter, and shows the text at once", async () => {
    type("hello");
    expect(press("Enter").defaultPrevented).toBe(true);
    await drawn();
    expect(transport.last.sent).toEqual([expect.objectContaining({ type: "prompt", text: "hello" })]);
    expect(input().value).toBe("");
    expect(all("message")[0]?.dataset["status"]).toBe("sending");
  });

  it("starts a new line with Shift+Enter, out of the notebook's hearing", () => {
    const heard = vi.fn();
    document.body.addEventListener("keydown", heard, { once: true });
    type("hello");
    expect(press("Enter", { shiftKey: true }).defaultPrevented).toBe(false);
    expect(heard).not.toHaveBeenCalled();
    expect(transport.last.sent).toEqual([]);
    expect(chat.dataset["lmSuppressShortcuts"]).toBe("true");
  });

  it("leaves Enter to an input method", () => {
    type("にほん");
    press("Enter", { isComposing: true });
    expect(transport.last.sent).toEqual([]);
  });

  it("sends nothing when there is nothing", () => {
    type("  \n ");
    press("Enter");
    expect(transport.last.sent).toEqual([]);
    expect((find("send") as HTMLButtonElement).disabled).toBe(true);
  });

  it("keeps a draft", async () => {
    type("half a thou");
    chat.remove();
    chat = document.createElement("navi-chat") as NaviChat;
    chat.transport = new FakeTransport();
    chat.session = "s";
    document.body.append(chat);
    await drawn();
    expect(input().value).toBe("half a thou");
  });

  it("gives a rejected prompt back", async () => {
    type("hello");
    press("Enter");
    const id = transport.last.sent[0]?.["command_id"];
    transport.last.frame({ rejected: { command_id: id, code: "conflict", message: "not now", field: null } });
    await drawn();
    expect(input().value).toBe("hello");
    expect(find("notice")?.textContent).toContain("not now");
    expect(all("message")).toEqual([]);
  });

  it("stops with the button and with Escape, once", async () => {
    expect(find("stop")).toBeNull();
    const log = new Log().started("r1");
    await show(log);
    press("Escape");
    expect(transport.last.sent).toEqual([expect.objectContaining({ type: "stop", run_id: "r1" })]);
    await show(log.custom("navi.stop", { action: "requested", run_id: "r1" }, "r1"));
    const stop = find("stop") as HTMLButtonElement;
    expect([stop.disabled, stop.textContent.trim()]).toEqual([true, "Stopping…"]);
    press("Escape");
    expect(transport.last.sent).toHaveLength(1);
    await show(log.finished("r1", "cancelled"));
    expect(find("stop")).toBeNull();
  });

  it("can withdraw a waiting prompt", async () => {
    await show(new Log().started("r1").prompt("c2", "later", "r2").queued("c2", "r2"));
    find("withdraw")?.click();
    expect(transport.last.sent).toEqual([expect.objectContaining({ type: "unqueue", target: "c2" })]);
  });
});

describe("the connection", () => {
  it("is shown in a status for everybody", async () => {
    expect(find("status")?.dataset["state"]).toBe("open");
    expect(find("status")?.getAttribute("role")).toBe("status");
    transport.last.fail();
    await drawn();
    expect(find("status")?.dataset["state"]).toBe("reconnecting");
  });

  it("says when the session is gone", async () => {
    transport.answers = { "sessions/s": { status: 404, body: {} } };
    transport.last.fail(1008);
    await eventually(() => expect(find("status")?.dataset["reason"]).toBe("gone"));
    expect(chat.textContent).toContain("This session no longer exists");
    expect(input().disabled).toBe(true);
  });

  it("offers to log in", async () => {
    transport.answers = { "sessions/s": { status: 403, body: {} } };
    transport.last.fail(1008);
    await eventually(() => expect(chat.querySelector("a")?.href).toBe("http://localhost/login"));
  });

  it("goes on over a move in the document, and starts over with another session", async () => {
    await show(new Log().prompt("c1", "hi", "r1"));
    const other = document.createElement("div");
    document.body.append(other);
    other.append(chat);
    await drawn();
    expect([transport.channels.length, all("message").length]).toEqual([1, 1]);
    chat.session = "t";
    await drawn();
    expect([transport.channels.length, all("message").length]).toEqual([2, 0]);
    expect(transport.last.after).toBeNull();
  });

  it("says that it shows a saved transcript when there is no server", async () => {
    chat.transport = null;
    chat.snapshot = '<p>old <img src="https://evil.example/x.png" alt="plot"></p>';
    await drawn();
    expect(find("status")?.dataset["state"]).toBe("closed");
    expect(find("log")?.textContent).toContain("old [plot: image not loaded]");
    expect(input().disabled).toBe(true);
  });
});

describe("recalls", () => {
  beforeEach(async () => {
    find("recalls-toggle")?.click();
    await drawn();
  });

  it("are listed with what can be done to them", async () => {
    await show(new Log().recall(recall("a", "pending", new Date(Date.now() + 90_500).toISOString())).recall(recall("b", "paused", null)));
    expect(all("recall").map(({ dataset }) => [dataset["recallId"], dataset["status"]])).toEqual([["a", "pending"], ["b", "paused"]]);
    expect(find("recall")?.textContent).toContain("1:3");
    find("recall-cancel")?.click();
    find("recall-resume")?.click();
    find("recall-pause")?.click();
    find("recall-fire")?.click();
    expect(transport.requests.filter(({ method }) => method !== "GET").map(({ method, path }) => `${method} ${path}`)).toEqual([
      "DELETE recalls/a", "POST recalls/b/resume", "POST recalls/a/pause", "POST recalls/a/fire",
    ]);
  });

  it("that could not be changed say why", async () => {
    transport.answers = { recalls: { status: 409, body: { message: "it is running" } } };
    await show(new Log().recall(recall("a")));
    find("recall-cancel")?.click();
    await eventually(() => expect(chat.querySelector("[data-recall-id=a] [data-navi=recalls-problem]")?.textContent).toContain("it is running"));
  });

  it("that are over are read from the server", async () => {
    transport.answers = { "recalls?": { status: 200, body: { recalls: [recall("z", "fired", null)], next: null } } };
    transport.last.fail();
    await eventually(() => expect(transport.channels).toHaveLength(2));
    transport.last.open();
    await eventually(() => expect(find("recall")?.dataset["recallId"]).toBe("z"));
  });
});

describe("a question", () => {
  const ask = (more: Record<string, unknown>): Log =>
    new Log().started("r1").custom("navi.interrupt", {
      action: "opened",
      interrupt: { id: "i1", run_id: "r1", kind: "approval", message: "", tool: "run_code", args: { code: "1 + 1" }, durable: true, ...more },
    }, "r1");
  const click = (name: string): void => (find(name) as HTMLElement).click();
  const answers = (): unknown[] => transport.last.sent.filter(({ type }) => type === "answer").map(({ command_id: _, ...answer }) => answer);

  it("is answered once, however often one presses", async () => {
    await show(ask({}));
    click("ask-approve");
    click("ask-approve");
    click("ask-deny");
    await drawn();
    expect(answers()).toEqual([{ type: "answer", interrupt_id: "i1", status: "resolved", payload: { approved: true } }]);
    expect(find("ask")?.dataset["status"]).toBe("sending");
    expect((find("ask-approve") as HTMLButtonElement).disabled).toBe(true);
  });

  it("whose answer was refused can be answered again", async () => {
    await show(ask({}));
    click("ask-deny");
    await drawn();
    transport.last.frame({ rejected: { command_id: transport.last.sent[0]?.["command_id"], code: "not_ready", message: "wait", field: null } });
    await drawn();
    expect(find("notice")?.textContent).toContain("wait");
    expect((find("ask-approve") as HTMLButtonElement).disabled).toBe(false);
  });

  it("is told to screen readers and to the host", async () => {
    const heard: number[] = [];
    chat.addEventListener("navi-asks", (event) => heard.push((event as CustomEvent<{ open: number }>).detail.open));
    const log = ask({ message: "May I?" });
    await show(log);
    expect(chat.querySelector("[data-navi=announcer][aria-live=assertive]")?.textContent).toContain("May I?");
    await show(new Log(log.envelopes.length).finished("r1", "cancelled"));
    expect(heard).toEqual([1, 0]);
  });

  it("shows what an agent wrote as text", async () => {
    await show(ask({ tool: "mcp<b>x</b>", message: "<img src=x onerror=alert(1)>", args: { "<i>a</i>": "<b>b</b>", code: "<script>1</script>" } }));
    expect(find("ask")?.querySelector("img, script, i, b")).toBeNull();
    expect(find("ask")?.textContent).toContain("<script>1</script>");
  });

  it("without a schema takes text, with a nested one JSON", async () => {
    await show(ask({ kind: "question", tool: null, args: null, message: "Why?" }));
    (chat.querySelector("[data-field]") as HTMLTextAreaElement).value = "because";
    click("ask-answer");
    expect(answers()).toEqual([{ type: "answer", interrupt_id: "i1", status: "resolved", payload: "because" }]);
  });
});

describe("files over the kernel", () => {
  it("go inside of the command when they are small, and are refused when they are not", async () => {
    Object.assign(transport, { kind: "comm" });
    const pick = async (file: File): Promise<void> => {
      const control = find("file-input") as HTMLInputElement;
      Object.defineProperty(control, "files", { value: [file], configurable: true });
      control.dispatchEvent(new Event("change"));
      await drawn();
    };
    await pick(new File([new Uint8Array(300 * 1024)], "big.bin"));
    expect(find("notice")?.textContent).toContain("too large to go through the kernel");
    await pick(new File(["a,b"], "data.csv", { type: "text/csv" }));
    await eventually(() => expect(find("attachment")?.dataset["status"]).toBe("ready"));
    type("look");
    press("Enter");
    expect(transport.last.sent.at(-1)).toMatchObject({ files: [{ data: btoa("a,b"), name: "data.csv", media_type: "text/csv" }] });
  });
});
