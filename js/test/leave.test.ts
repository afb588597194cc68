import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import "../src/navi-chat.js";
import type { Firing, Preview, Recall } from "../src/protocol/generated.js";
import type { NaviChat } from "../src/view/chat-element.js";
import { neededTools } from "../src/view/recalls/leave.js";
import { Log, prelude, recall } from "./log.js";
import { FakeTransport } from "./transport.js";

let chat: NaviChat;
let transport: FakeTransport;

const find = (name: string): HTMLElement | null => chat.querySelector(`[data-navi="${name}"]`);
const all = (name: string): HTMLElement[] => [...chat.querySelectorAll<HTMLElement>(`[data-navi="${name}"]`)];
const press = (name: string): void => find(name)?.click();
const box = (value: string): HTMLInputElement | null => chat.querySelector(`[data-navi="recall-may"][value="${value}"]`);
const asked = (method: string, path: string): unknown[] => transport.requests.filter((each) => each.method === method && each.path === path).map(({ body }) => body);
const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 10_000 });
const submit = (): boolean | undefined => find("recall-form")?.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));

const SLOT = "2026-11-22T09:00:00+00:00";
const tool = (name: string, effect: string, permission: string): object => ({ name, effect, permission, available: true, description: "", parameters: {}, source: "builtin", why: null });
const PREVIEW: Preview = { times: [SLOT], warnings: [], schedule: { kind: "once", at: SLOT }, policy: recall("a").policy, meaning: "at nine", message: "", phrase: "", timezone: "UTC", run: null };

function failed(id: string, reason: string): Firing {
  return {
    id: `f_${id}`, recall_id: id, slot: SLOT, kind: "auto", status: "failed", reason, run_id: "r", attempt: 0, attempts: [], coalesced: 0,
    not_before: SLOT, started_at: SLOT, ended_at: SLOT, lateness_ms: 0, delivery: "none", delivery_error: null,
  };
}

async function drawn(): Promise<void> {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  await chat.updateComplete;
}

async function show(...recalls: Recall[]): Promise<void> {
  const log = new Log();
  for (const each of recalls) log.recall(each);
  transport.last.envelopes(log.envelopes);
  await drawn();
}

function write(name: string, text: string): void {
  const field = find(name) as HTMLInputElement;
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

beforeEach(async () => {
  sessionStorage.clear();
  transport = new FakeTransport();
  transport.answers["tools?"] = {
    status: 200,
    body: { tools: [tool("run_code", "run", "ask"), tool("insert_cell", "write", "ask"), tool("read_file", "read", "allow"), tool("fetch", "outside", "deny")], next: null },
  };
  transport.answers["recalls/preview"] = { status: 200, body: PREVIEW };
  chat = document.createElement("navi-chat") as NaviChat;
  chat.transport = transport;
  chat.session = "s";
  document.body.replaceChildren(chat);
  await drawn();
  transport.last.open().envelopes(prelude(0, [{ type: "MESSAGES_SNAPSHOT", messages: [] }]));
  await drawn();
  press("recalls-toggle");
  await drawn();
});

afterEach(() => chat.remove());

describe("the form", () => {
  it("asks whether the recall may act, offers what would ask here and can be allowed, and gives no leave by itself", async () => {
    press("recall-new");
    await eventually(() => expect(all("recall-may").map((each) => (each as HTMLInputElement).value)).toEqual(["effect:run", "effect:write", "run_code", "insert_cell"]));
    expect(find("recall-allow")?.textContent).toContain("May Navi do this then without asking you?");
    expect(find("recall-allow")?.textContent).toContain("Run code in your notebook's kernel");
    expect(all("recall-may").some((each) => (each as HTMLInputElement).checked)).toBe(false);
    write("recall-message", "fit again");
    write("recall-when", "at nine");
    transport.answers["recalls"] = { status: 201, body: recall("new") };
    await eventually(() => expect((find("recall-save") as HTMLButtonElement).disabled).toBe(false));
    submit();
    await eventually(() => expect(asked("POST", "recalls")).toHaveLength(1));
    expect(asked("POST", "recalls")[0]).not.toHaveProperty("allow");
  });

  it("sends the leave that was given, and shows what the server has against it", async () => {
    press("recall-new");
    await eventually(() => expect(box("run_code")).not.toBeNull());
    write("recall-message", "fit again");
    write("recall-when", "at nine");
    box("effect:run")?.click();
    box("insert_cell")?.click();
    await eventually(() => expect((find("recall-save") as HTMLButtonElement).disabled).toBe(false));
    transport.answers["recalls"] = { status: 400, body: { message: "allow: the administrator denies insert_cell." } };
    submit();
    await eventually(() => expect(find("recall-refused")?.textContent).toContain("the administrator denies insert_cell"));
    expect(asked("POST", "recalls")[0]).toMatchObject({ allow: ["effect:run", "insert_cell"] });
  });

  it("changes leave alone, and keeps what it does not know", async () => {
    await show({ ...recall("a"), allow: ["effect:run", "mcp_tool"] });
    transport.answers["recalls/a"] = { status: 200, body: recall("a") };
    press("recall-edit");
    await eventually(() => expect(box("mcp_tool")?.checked).toBe(true));
    expect(box("effect:run")?.checked).toBe(true);
    box("effect:run")?.click();
    await drawn();
    submit();
    await eventually(() => expect(asked("PATCH", "recalls/a")).toEqual([{ allow: ["mcp_tool"] }]));
  });
});

describe("a recall's leave", () => {
  it("is shown in words, and revoked by a button", async () => {
    await show({ ...recall("a"), allow: ["effect:run", "insert_cell"] }, recall("b"));
    expect(all("recall-leave").map((each) => each.textContent?.replace(/\s+/g, " ").trim())).toEqual(["may run code, insert_cell without asking"]);
    expect(all("recall-revoke")).toHaveLength(1);
    press("recall-revoke");
    await eventually(() => expect(asked("PATCH", "recalls/a")).toEqual([{ allow: [] }]));
  });

  it("is shown of what a file would make, before it is made", async () => {
    transport.answers["recalls/import?session_id=s"] = { status: 200, body: { recalls: [{ ...recall("x"), allow: ["effect:run"] }], dry_run: true } };
    const input = find("recall-file") as HTMLInputElement;
    const file = Object.assign(new File([""], "mine.toml"), { text: () => Promise.resolve("[[recall]]") });
    Object.defineProperty(input, "files", { value: [file], configurable: true });
    input.dispatchEvent(new Event("change", { bubbles: true }));
    await eventually(() => expect(find("recall-offer")?.textContent?.replace(/\s+/g, " ")).toContain("may run code without asking"));
  });

  it("is not missed in a recall of an older server", async () => {
    const { allow: _, ...old } = recall("a");
    await show(old as Recall);
    expect(find("recall-leave")).toBeNull();
    press("recall-edit");
    await drawn();
    expect(find("recall-allow")).not.toBeNull();
  });
});

describe("a run that needed approval", () => {
  it.each([
    ["needed approval: run_code", ["run_code"]],
    ["needed approval: run_code, insert_cell", ["run_code", "insert_cell"]],
    ["its session was busy", []],
    [null, []],
  ])("names what it lacked: %s", (reason, tools) => expect(neededTools(reason)).toEqual(tools));

  it("is run again with that leave, from the list", async () => {
    const last = failed("a", "needed approval: run_code");
    transport.answers["recalls?"] = { status: 200, body: { recalls: [recall("a")], last: { a: last }, words: {}, next: null } };
    await show({ ...recall("a"), schedule: { kind: "cron", expr: "0 9 * * *", tz: "UTC" } });
    await eventually(() => expect(find("recall-lacking")?.textContent).toContain("needed approval: run_code"));
    find("recall-lacking")?.querySelector<HTMLElement>("[data-navi=allow-again]")?.click();
    await eventually(() => expect(asked("POST", "recalls/a/fire")).toEqual([{ allow: ["run_code"] }]));
  });

  it("is run again with that leave, from its history: the newest one only", async () => {
    await show(recall("a"));
    const firings = [failed("a", "needed approval: run_code, insert_cell"), { ...failed("a", "needed approval: run_code"), id: "f_old" }];
    transport.answers["recalls/a/firings"] = { status: 200, body: { firings, next: null } };
    press("recall-history");
    await eventually(() => expect(all("firing")).toHaveLength(2));
    expect(all("allow-again")).toHaveLength(1);
    press("allow-again");
    await eventually(() => expect(asked("POST", "recalls/a/fire")).toEqual([{ allow: ["run_code", "insert_cell"] }]));
  });

  it("is run again from the conversation, and says where that does not work", async () => {
    const origin = { kind: "recall", recall_id: "a" } as const;
    const log = new Log().recall(recall("a")).prompt("recall:a:2026-11-22T09:00:00Z", "fit", "r1", origin).started("r1").failed("r1", "needed_approval", "needed approval: run_code");
    transport.last.envelopes(log.envelopes);
    await drawn();
    expect(find("error")?.textContent).toContain("It needed your approval and did not get it");
    transport.answers["recalls/a/fire"] = { status: 409, body: { message: "The recall is over." } };
    find("error")?.querySelector<HTMLElement>("[data-navi=allow-again]")?.click();
    await eventually(() => expect(find("notice")?.textContent).toContain("The recall is over."));
    expect(asked("POST", "recalls/a/fire")).toEqual([{ allow: ["run_code"] }]);
    transport.last.envelopes(log.prompt("recall:a:manual:1", "fit", "r2", origin).started("r2").envelopes);
    await drawn();
    expect(find("error")).not.toBeNull();
    expect(find("allow-again")).toBeNull();
  });

  it("of a user has no such button: it asks", async () => {
    transport.last.envelopes(new Log().prompt("c1", "fit", "r1").started("r1").failed("r1", "needed_approval", "needed approval: run_code").envelopes);
    await drawn();
    expect(find("error")).not.toBeNull();
    expect(find("allow-again")).toBeNull();
  });
});
