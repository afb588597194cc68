import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import "../src/navi-chat.js";
import type { Firing, FiringAttempt, Preview } from "../src/protocol/generated.js";
import type { NaviChat } from "../src/view/chat-element.js";
import { withoutOwnZone } from "../src/view/lib/time.js";
import { plain } from "../src/view/recalls/time.js";
import { Log, prelude, recall } from "./log.js";
import { FakeTransport } from "./transport.js";

let chat: NaviChat;
let transport: FakeTransport;

const find = (name: string): HTMLElement | null => chat.querySelector(`[data-navi="${name}"]`);
const all = (name: string): HTMLElement[] => [...chat.querySelectorAll<HTMLElement>(`[data-navi="${name}"]`)];
const press = (name: string): void => find(name)?.click();
const asked = (method: string, path: string): unknown[] => transport.requests.filter((each) => each.method === method && each.path.startsWith(path)).map(({ body }) => body);
const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 10_000 });

const row = (id: string): HTMLElement => chat.querySelector<HTMLElement>(`[data-recall-id="${id}"]`) as HTMLElement;

async function drawn(): Promise<void> {
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  await chat.updateComplete;
}

async function show(log: Log): Promise<void> {
  transport.last.envelopes(log.envelopes);
  await drawn();
}

function write(name: string, text: string): void {
  const field = find(name) as HTMLInputElement;
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

function attempt(runId: string, status: FiringAttempt["status"]): FiringAttempt {
  return { run_id: runId, status, reason: null, started_at: null, ended_at: null };
}

function firing(id: string, more: Partial<Firing> = {}): Firing {
  return {
    id, recall_id: "a", slot: "2026-11-22T09:00:00+00:00", kind: "auto", status: "succeeded", reason: null, run_id: null, attempt: 0, attempts: [], coalesced: 0,
    not_before: "2026-11-22T09:00:00+00:00", started_at: null, ended_at: null, lateness_ms: null, delivery: "none", delivery_error: null, ...more,
  };
}

const { policy } = recall("a");
const FRIDAYS: Preview = {
  times: ["2026-11-27T16:00:00+00:00"],
  warnings: ["It is odd."],
  schedule: { kind: "every", every: "14d", start: "2026-11-27T16:00:00+00:00", tz: "UTC" },
  policy,
  meaning: "every 2 weeks on Friday at 16:00",
  message: "",
  phrase: "every other friday at 16:00",
  timezone: "UTC",
  run: null,
};

beforeEach(async () => {
  sessionStorage.clear();
  transport = new FakeTransport();
  transport.answers["notify"] = { status: 200, body: { notify: [{ name: "phone", available: true }, { name: "gone", available: false }] } };
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

describe("a recall", () => {
  it("is run, paused, resumed, copied and cancelled with its buttons", async () => {
    await show(new Log().recall(recall("a")).recall(recall("b", "paused", null)));
    for (const [name, method, path] of [
      ["recall-fire", "POST", "recalls/a/fire"],
      ["recall-pause", "POST", "recalls/a/pause"],
      ["recall-resume", "POST", "recalls/b/resume"],
      ["recall-clone", "POST", "recalls/a/clone"],
      ["recall-cancel", "DELETE", "recalls/a"],
    ] as const) {
      press(name);
      expect(asked(method, path), name).toHaveLength(1);
    }
  });

  it("says where it was tried what was wrong when the server refuses, until something else is tried", async () => {
    await show(new Log().recall(recall("a")).recall(recall("b", "paused", null)));
    transport.answers["recalls/a/fire"] = { status: 409, body: { message: "The recall is over." } };
    press("recall-fire");
    await eventually(() => expect(row("a").querySelector("[role=alert]")?.textContent).toContain("The recall is over."));
    expect(row("b").querySelector("[role=alert]")?.textContent).toBe("");
    expect(find("notice")).toBeNull();
    press("recall-resume");
    await eventually(() => expect(chat.textContent).not.toContain("The recall is over."));
  });

  it("has its schedule in the server's words as long as it is that schedule", async () => {
    const cron = { kind: "cron", expr: "0 9 * * 1-5", tz: "UTC" } as const;
    const daily = { ...recall("a"), schedule: cron };
    transport.answers["recalls?"] = { status: 200, body: { recalls: [daily], last: {}, words: { a: "weekdays at 09:00 UTC" }, next: null } };
    await show(new Log().recall(daily));
    await eventually(() => expect(row("a").textContent).toMatch(/weekdays at 09:00(?! UTC)/));
    transport.answers["recalls?"] = null;
    await show(new Log(10).recall({ ...daily, schedule: { ...cron, expr: "5 5 * * *" } }, "rescheduled"));
    expect(row("a").textContent).toContain("every day at 05:05");
  });

  it("that is paused says when it would have been, and one that waits that it waits", async () => {
    const when = { kind: "when", event: "kernel_died", kernel_id: null, cell: null, path: null, expr: null, longer_than: null, every: "5s", repeat: "once", cooldown: null } as const;
    await show(new Log().recall(recall("a", "paused", null)).recall({ ...recall("b", "pending", null), schedule: when }));
    expect(row("a").querySelector("time")?.dateTime).toBe("2026-11-23T09:00:00+00:00");
    expect(row("b").textContent).toContain("waiting · when the kernel dies");
  });

  it("has with its history all of its message, what bounds it, and its id", async () => {
    const long = "look at it. ".repeat(500).trim();
    const bounds = { ...policy, until: "2026-12-24T12:00:00+00:00", max_fires: 3, busy: "skip", retries: 2, notify: ["phone"] } as const;
    await show(new Log().recall({ ...recall("a"), message: long, policy: bounds }));
    transport.answers["recalls/a/firings"] = { status: 200, body: { firings: [], next: null } };
    press("recall-history");
    await eventually(() => expect(find("recall-whole")?.textContent).toBe(long));
    expect(find("ledger")?.textContent).toMatch(/until .*2026.*3 times at most · skipped when busy · tried again 2 times · tells phone · a/s);
  });

  it("keeps as much of its history as is shown when the log tells of a change, and adds pages without a gap", async () => {
    const rows = (from: number, to: number): Firing[] => Array.from({ length: from - to }, (_, index) => firing(`f${from - index}`));
    await show(new Log().recall(recall("a")));
    transport.answers["recalls/a/firings?limit=30&cursor="] = { status: 200, body: { firings: rows(70, 40), next: "40" } };
    transport.answers["recalls/a/firings?limit=60"] = { status: 200, body: { firings: rows(100, 40), next: "40" } };
    transport.answers["recalls/a/firings"] = { status: 200, body: { firings: rows(100, 70), next: "70" } };
    press("recall-history");
    await eventually(() => expect(all("firing")).toHaveLength(30));
    press("ledger-more");
    await eventually(() => expect(all("firing")).toHaveLength(60));
    const before = asked("GET", "recalls/a/firings?limit=60").length;
    transport.answers["recalls/a/firings?limit=60"] = { status: 200, body: { firings: rows(101, 41), next: "41" } };
    transport.last.envelopes(new Log(20).recall({ ...recall("a"), fired: 101 }, "fired").envelopes);
    await eventually(() => expect(all("firing")).toHaveLength(60));
    await eventually(() => expect(asked("GET", "recalls/a/firings?limit=60").length).toBeGreaterThan(before));
    transport.answers = { "recalls/a/firings?limit=60&cursor=41": { status: 200, body: { firings: rows(41, 0), next: null } }, ...transport.answers };
    press("ledger-more");
    await eventually(() => expect(all("firing")).toHaveLength(101));
    expect(find("ledger-more")).toBeNull();
  });

  it("shows how it went last", async () => {
    transport.answers["recalls?"] = { status: 200, body: { recalls: [], last: { a: firing("f", { status: "skipped", reason: "busy" }) }, next: null } };
    await show(new Log().recall({ ...recall("a"), schedule: { kind: "cron", expr: "0 9 * * *", tz: "UTC" } }));
    await eventually(() => expect(find("recall-last")?.textContent).toContain("skipped, busy"));
  });

  it("has its next time relatively and absolutely, and a kind of event in words", async () => {
    const when = { kind: "when", event: "cell_done", kernel_id: null, cell: "running", path: null, expr: null, longer_than: null, every: "5s", repeat: "each", cooldown: null } as const;
    await show(new Log().recall(recall("a")).recall({ ...recall("b", "pending", null), schedule: when }));
    const [timed, event] = all("recall");
    expect(timed?.querySelector("time")?.dateTime).toBe("2026-11-23T09:00:00+00:00");
    expect(timed?.querySelector<HTMLElement>(".navi-countdown")?.dataset["due"]).toBe(String(Date.parse("2026-11-23T09:00:00Z")));
    expect(event?.textContent).toContain("when the cell is done, each time");
  });

  it("has a history with status, reason, lateness and a way to its run, page by page", async () => {
    await show(new Log().prompt("c1", "check", "r1", { kind: "recall", recall_id: "a" }).started("r1").finished("r1").recall(recall("a")));
    const rows = [firing("f2", { run_id: "r1", lateness_ms: 65_000, attempts: [attempt("r0", "interrupted"), attempt("r1", "completed")] }), firing("f1", { status: "missed", reason: "the server was off", coalesced: 3, delivery: "failed", delivery_error: "phone: 503" })];
    transport.answers["recalls/a/firings?limit=30&cursor="] = { status: 200, body: { firings: [firing("f0", { kind: "manual" })], next: null } };
    transport.answers["recalls/a/firings"] = { status: 200, body: { firings: rows, next: "12:3" } };
    await eventually(() => expect(asked("GET", "recalls?").length).toBeGreaterThan(1)); // what the panel reads by itself
    press("recall-history");
    await eventually(() => expect(all("firing")).toHaveLength(2));
    const [ran, missed] = all("firing");
    expect(ran?.textContent).toMatch(/done.*1 min 05 s late.*attempt 2/s);
    expect(missed?.textContent).toMatch(/missed.*the server was off.*and 3 more.*notification failed: phone: 503/s);
    expect(find("recall-history")?.getAttribute("aria-expanded")).toBe("true");
    press("ledger-more");
    await eventually(() => expect(all("firing")).toHaveLength(3));
    expect(all("firing")[2]?.textContent).toContain("run by hand");
    HTMLElement.prototype.scrollIntoView = vi.fn();
    press("ledger-run");
    await eventually(() => expect((document.activeElement as HTMLElement).dataset["runId"]).toBe("r1"));
    press("recall-history");
    await drawn();
    expect(find("ledger")).toBeNull();
  });
});

describe("the form", () => {
  it("shows what a time means before it can be saved, and saves just that", async () => {
    transport.answers["recalls/preview"] = { status: 200, body: FRIDAYS };
    transport.answers["recalls"] = { status: 201, body: recall("new") };
    press("recall-new");
    await eventually(() => expect(all("recall-notify").map((box) => (box as HTMLInputElement).value)).toEqual(["browser", "phone"]));
    write("recall-message", "check the loss");
    write("recall-when", "every other friday at 16:00");
    await drawn();
    expect((find("recall-save") as HTMLButtonElement).disabled).toBe(true);
    await eventually(() => expect(find("recall-parsed")?.textContent).toBe("every 2 weeks on Friday at 16:00"));
    expect(find("recall-warning")?.textContent).toBe("It is odd.");
    expect((asked("POST", "recalls/preview")[0] as { text: string }).text).toBe("every other friday at 16:00");
    expect((find("recall-save") as HTMLButtonElement).disabled).toBe(false);
    all("recall-notify")[1]?.click();
    await drawn();
    find("recall-form")?.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
    await eventually(() => expect(find("recall-form")).toBeNull());
    const made = transport.requests.find(({ method, path }) => method === "POST" && path === "recalls");
    expect(made?.body).toEqual({ session_id: "s", message: "check the loss", schedule: FRIDAYS.schedule, policy: { ...policy, notify: ["phone"] } });
  });

  it("cannot be saved while the time means nothing, and says why", async () => {
    transport.answers["recalls/preview"] = { status: 400, body: { message: "That is no time." } };
    press("recall-new");
    await drawn();
    write("recall-message", "x");
    write("recall-when", "blue");
    await eventually(() => expect(find("recall-problem")?.textContent).toBe("That is no time."));
    expect((find("recall-save") as HTMLButtonElement).disabled).toBe(true);
    find("recall-form")?.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
    expect(transport.requests.some(({ method, path }) => method === "POST" && path === "recalls")).toBe(false);
  });

  it("takes the answer for the last text only", async () => {
    let answer: ((value: { status: number; body: unknown }) => void) | null = null;
    const request = transport.request.bind(transport);
    transport.request = (method, path, body) => {
      if (path !== "recalls/preview" || (body as { text: string }).text !== "first") return request(method, path, body);
      return new Promise((resolve) => (answer = resolve));
    };
    transport.answers["recalls/preview"] = { status: 200, body: { ...FRIDAYS, meaning: "the second" } };
    press("recall-new");
    await drawn();
    write("recall-when", "first");
    await eventually(() => expect(answer).not.toBeNull());
    write("recall-when", "second");
    await eventually(() => expect(find("recall-parsed")?.textContent).toBe("the second"));
    (answer as unknown as (value: unknown) => void)({ status: 200, body: { ...FRIDAYS, meaning: "the first" } });
    await drawn();
    expect(find("recall-parsed")?.textContent).toBe("the second");
  });

  it("changes what was changed, and nothing else", async () => {
    await show(new Log().recall(recall("a")));
    transport.answers["recalls/a"] = { status: 200, body: recall("a") };
    press("recall-edit");
    await drawn();
    expect((find("recall-message") as HTMLTextAreaElement).value).toBe("check the loss");
    write("recall-message", "check both");
    await drawn();
    find("recall-form")?.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
    await eventually(() => expect(asked("PATCH", "recalls/a")).toEqual([{ message: "check both" }]));
  });

  it("keeps what bounded the recall, and takes over the bounds that a new time has", async () => {
    const until = "2026-11-27T17:00:00+00:00";
    transport.answers["recalls/preview"] = { status: 200, body: { ...FRIDAYS, policy: { ...policy, until } } };
    transport.answers["recalls/a"] = { status: 200, body: recall("a") };
    const bounds = { ...policy, retries: 2, max_fires: 9, notify: ["phone"] };
    await show(new Log().recall({ ...recall("a"), policy: bounds }));
    press("recall-edit");
    await drawn();
    expect((find("recall-when") as HTMLInputElement).placeholder).toContain("9 times at most, tried again 2 times");
    write("recall-when", "every hour until friday at 17:00");
    await eventually(() => expect(find("recall-parsed")).not.toBeNull());
    find("recall-form")?.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
    await eventually(() => expect(asked("PATCH", "recalls/a")).toEqual([{ schedule: FRIDAYS.schedule, policy: { ...bounds, until } }]));
  });

  it("says in itself why it was not saved, and keeps what was written", async () => {
    transport.answers["recalls/preview"] = { status: 200, body: FRIDAYS };
    transport.answers["recalls"] = { status: 409, body: { message: "You have 1000 recalls." } };
    press("recall-new");
    await drawn();
    write("recall-message", "one more");
    write("recall-when", "fridays");
    await eventually(() => expect(find("recall-parsed")).not.toBeNull());
    find("recall-form")?.dispatchEvent(new Event("submit", { bubbles: true, cancelable: true }));
    await eventually(() => expect(find("recall-refused")?.textContent).toContain("You have 1000 recalls."));
    expect((find("recall-message") as HTMLTextAreaElement).value).toBe("one more");
    expect((find("recall-save") as HTMLButtonElement).disabled).toBe(false);
  });

  it("has the focus when it opens; Escape leaves it, gives the focus back and saves nothing", async () => {
    await show(new Log().recall(recall("a")));
    find("recall-edit")?.focus();
    press("recall-edit");
    await eventually(() => expect(document.activeElement).toBe(find("recall-message")));
    find("recall-when")?.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    await drawn();
    expect(find("recall-form")).toBeNull();
    expect(document.activeElement).toBe(find("recall-edit"));
    expect(asked("PATCH", "recalls")).toEqual([]);
  });
});

describe("all recalls of a session", () => {
  it("are paused, and resumed when all are paused", async () => {
    transport.answers["recalls/pause"] = { status: 200, body: { changed: 2 } };
    await show(new Log().recall(recall("a")).recall(recall("b")));
    press("recall-pause-all");
    await eventually(() => expect(find("recalls-said")?.textContent).toBe("2 recalls are paused."));
    expect(asked("POST", "recalls/pause?session_id=s")).toHaveLength(1);
    await show(new Log(10).recall(recall("a", "paused", null), "paused").recall(recall("b", "paused", null), "paused"));
    press("recall-resume-all");
    expect(asked("POST", "recalls/resume?session_id=s")).toHaveLength(1);
  });
});

describe("recalls that are over", () => {
  it("are counted all and shown some at a time", async () => {
    const log = new Log();
    for (let index = 0; index < 50; index += 1) log.recall(recall(`r${index}`, "cancelled", null));
    await show(log);
    expect(chat.querySelector(".navi-past summary")?.textContent).toContain("(50)");
    expect(all("recall")).toHaveLength(20);
    press("past-more");
    await drawn();
    press("past-more");
    await drawn();
    expect(all("recall")).toHaveLength(50);
    expect(find("past-more")).toBeNull();
  });
});

describe("what is said in one line", () => {
  it("has none of the marks of its Markdown, and all of its words", () => {
    expect(plain("# Loss\n\n**Reminder:** check `loss_fn` _now_, see [the log](https://x.y/z)\n\n- a * b * c\n- snake_case_name")).toBe(
      "Loss Reminder: check loss_fn now, see the log a * b * c snake_case_name",
    );
  });
});

describe("a file of recalls", () => {
  async function choose(text: string): Promise<void> {
    const input = find("recall-file") as HTMLInputElement;
    const file = Object.assign(new File([text], "mine.toml"), { text: () => Promise.resolve(text) });
    Object.defineProperty(input, "files", { value: [file], configurable: true });
    input.dispatchEvent(new Event("change", { bubbles: true }));
    await drawn();
  }

  it("is looked at first, and its recalls are made when that is wanted", async () => {
    transport.answers["recalls/import?session_id=s"] = { status: 200, body: { recalls: [recall("x"), recall("y")], dry_run: true } };
    await choose("[[recall]]");
    await eventually(() => expect(find("recall-offer")?.textContent).toMatch(/mine\.toml has 2 recalls.*title of x.*title of y/s));
    expect(transport.requests.filter(({ path }) => path.includes("import")).map(({ path, body }) => [path, body])).toEqual([["recalls/import?session_id=s&dry_run=true", { toml: "[[recall]]" }]]);
    press("recall-import-make");
    await eventually(() => expect(find("recalls-said")?.textContent).toBe("2 recalls are made."));
    expect(transport.requests.filter(({ path }) => path === "recalls/import?session_id=s")).toHaveLength(1);
    expect(find("recall-offer")).toBeNull();
  });

  it("that is none is refused where it was chosen", async () => {
    transport.answers["recalls/import"] = { status: 400, body: { message: "line 3: unknown field whn" } };
    await choose("whn = 1");
    await eventually(() => expect(find("recalls-problem")?.textContent).toContain("line 3: unknown field whn"));
    expect(find("recall-offer")).toBeNull();
    transport.answers["recalls/import"] = { status: 200, body: { recalls: [recall("x")], dry_run: true, words: { x: "weekdays at 9" } } };
    await choose("[[recall]]");
    await eventually(() => expect(find("recall-offer")?.textContent).toContain("weekdays at 9"));
    expect(find("recalls-problem")?.textContent).toBe("");
  });
});

describe("a zone in the server's words", () => {
  it("is named only where it is not the reader's", () => {
    expect(withoutOwnZone("every Friday at 16:00 Europe/Berlin", "Europe/Berlin")).toBe("every Friday at 16:00");
    expect(withoutOwnZone("Tomorrow, Wed 2 Dec 08:30 Europe/Berlin, until Fri 4 Dec Europe/Berlin", "Europe/Berlin")).toBe("Tomorrow, Wed 2 Dec 08:30, until Fri 4 Dec");
    expect(withoutOwnZone("every Friday at 16:00 Asia/Tokyo", "Europe/Berlin")).toBe("every Friday at 16:00 Asia/Tokyo");
    expect(withoutOwnZone("at 09:00 UTC+2", "UTC")).toBe("at 09:00 UTC+2");
  });
});
