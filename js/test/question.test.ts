import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { loadElement } from "../src/navi-chat.js";
import type { NaviQuestion } from "../src/view/question-element.js";
import { FakeTransport } from "./transport.js";

await loadElement("navi-question");

let question: NaviQuestion;
let transport: FakeTransport;

const OPEN = {
  id: "i_1",
  session_id: "s_1",
  run_id: "r_1",
  kind: "approval",
  message: "Navi wants to use run_code.",
  tool_call_id: "t_1",
  tool: "run_code",
  args: { code: "df.describe()" },
  response_schema: null,
  subagent_run_id: null,
  durable: true,
  created_at: "2026-12-01T10:00:00Z",
  expires_at: null,
  status: "open",
  payload: null,
  answered_by: null,
  answered_at: null,
  drawn: true,
};
const FORM = { ...OPEN, kind: "question", message: "Which column?", tool: null, args: null, response_schema: { type: "object", properties: { column: { type: "string" } }, required: ["column"] } };
const PATH = "sessions/s_1/interrupts/i_1";

const find = <T extends HTMLElement>(name: string): T | null => question.querySelector<T>(`[data-navi="${name}"]`);
const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 10_000 });
const commands = (): unknown[] => transport.requests.filter(({ path }) => path === "sessions/s_1/commands").map(({ body }) => body);

async function show(body: unknown, status = 200): Promise<void> {
  transport.answers[PATH] = { status, body };
  question.session = "s_1";
  question.interrupt = "i_1";
  document.body.replaceChildren(question);
  await eventually(() => expect(question.textContent?.trim()).not.toMatch(/^…?$/));
}

/** What the server says from the answer on. */
function settles(body: unknown): void {
  const before = transport.request.bind(transport);
  transport.request = async (method, path, sent) => {
    const answer = await before(method, path, sent);
    if (method === "POST") transport.answers[PATH] = { status: 200, body };
    return answer;
  };
}

beforeEach(() => {
  transport = new FakeTransport();
  transport.answers["sessions/s_1/commands"] = { status: 202, body: {} };
  question = document.createElement("navi-question") as NaviQuestion;
  question.transport = transport;
});

afterEach(() => {
  question.remove();
  vi.useRealTimers();
});

describe("a question below a cell", () => {
  it("shows what would run, and three buttons", async () => {
    await show(OPEN);
    expect(question.textContent).toContain("df.describe()");
    const labels = [...question.querySelectorAll(".navi-ask-actions button")].map(({ textContent }) => textContent?.trim());
    expect(labels).toEqual(["Approve", "Always", "Deny", "Edit"]);
  });

  it.each([
    ["ask-approve", { approved: true }],
    ["ask-always", { approved: true, always: "session" }],
    ["ask-deny", { approved: false }],
  ])("answers by %s and shows what was decided", async (button, payload) => {
    await show(OPEN);
    settles({ ...OPEN, status: "resolved", payload });
    find(button)?.click();
    await eventually(() => expect(question.querySelector("[data-navi=ask]")?.getAttribute("data-status")).toBe("resolved"));
    expect(commands()).toEqual([expect.objectContaining({ type: "answer", interrupt_id: "i_1", status: "resolved", payload })]);
    expect(find("ask-approve")).toBeNull();
  });

  it("has no Always for what a call asks in its own words: that is about this call", async () => {
    await show({ ...OPEN, tool: "create_recall", message: "May this recall run code in your kernel without asking?" });
    const labels = [...question.querySelectorAll(".navi-ask-actions button")].map(({ textContent }) => textContent?.trim());
    expect(labels).toEqual(["Approve", "Deny", "Edit"]);
    expect(question.textContent).toContain("May this recall run code");
  });

  it("denies with a reason", async () => {
    await show(OPEN);
    const reason = find<HTMLInputElement>("ask-reason");
    if (reason) reason.value = "too slow";
    find("ask-deny")?.click();
    await eventually(() => expect(commands()).toEqual([expect.objectContaining({ payload: { approved: false, message: "too slow" } })]));
  });

  it("takes a value by its form", async () => {
    await show(FORM);
    const field = question.querySelector<HTMLInputElement>("[data-field=column]");
    if (field) field.value = "price";
    find("ask-answer")?.click();
    await eventually(() => expect(commands()).toEqual([expect.objectContaining({ status: "resolved", payload: { column: "price" } })]));
  });

  it("sends the same command again while the server does not answer", async () => {
    await show(OPEN);
    transport.answers["sessions/s_1/commands"] = null;
    find("ask-approve")?.click();
    await eventually(() => expect(commands().length).toBe(2));
    transport.answers["sessions/s_1/commands"] = { status: 202, body: {} };
    await eventually(() => expect(commands().length).toBe(3));
    expect(new Set(commands().map((command) => (command as { command_id: string }).command_id)).size).toBe(1);
  });

  it("can be answered again after a refusal, which it shows", async () => {
    await show(OPEN);
    transport.answers["sessions/s_1/commands"] = { status: 400, body: { message: "payload: not that" } };
    find("ask-approve")?.click();
    await eventually(() => expect(find("ask-problem")?.textContent).toContain("not that"));
    expect(find<HTMLButtonElement>("ask-approve")?.disabled).toBe(false);
  });

  it.each([
    ["resolved", "Allowed"],
    ["expired", "Expired"],
    ["cancelled", "Not answered"],
  ])("shows that it was %s elsewhere", async (status, text) => {
    await show(OPEN);
    transport.answers[PATH] = { status: 200, body: { ...OPEN, status, payload: status === "resolved" ? { approved: true } : null } };
    window.dispatchEvent(new Event("focus"));
    await eventually(() => expect(question.textContent).toContain(text));
    expect(find("ask-approve")).toBeNull();
  });

  it("says when there is no such question any more, and does not ask again", async () => {
    await show({ code: "session_not_found" }, 404);
    expect(find("ask-gone")).not.toBeNull();
    const { length } = transport.requests;
    window.dispatchEvent(new Event("focus"));
    await Promise.resolve();
    expect(transport.requests.length).toBe(length);
  });
});
