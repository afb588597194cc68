import { html, render } from "lit";
import { beforeEach, describe, expect, it, vi } from "vitest";
import type { AnyEvent } from "../src/protocol/generated.js";
import { agentOf, offerOf, presentAgent } from "../src/state/agents.js";
import { questionOf } from "../src/state/interrupts.js";
import type { ChatState, Interrupt, ToolCall } from "../src/state/model.js";
import { EMPTY } from "../src/state/model.js";
import { reduceAll, withSession } from "../src/state/reduce.js";
import { agentList } from "../src/view/agents/agent-list.js";
import { agentOptions } from "../src/view/agents/agent-options.js";
import { agentNotice, planCard } from "../src/view/agents/plan.js";
import { Commands } from "../src/view/composer/commands.js";
import { triggerAt } from "../src/view/composer/triggers.js";
import { arming, InterruptCards } from "../src/view/conversation/approvals.js";
import { end } from "../src/view/conversation/run-end.js";
import { Images } from "../src/view/conversation/images.js";
import { ToolCards } from "../src/view/conversation/tools.js";
import { Log, prelude } from "./log.js";

let place: HTMLElement;
const shown = (): string => (place.textContent ?? "").replace(/\s+/g, " ").trim();
const all = (name: string): HTMLElement[] => [...place.querySelectorAll<HTMLElement>(`[data-navi="${name}"]`)];

beforeEach(() => {
  place = document.createElement("div");
  document.body.replaceChildren(place);
});

const step = (content: string, status: string, priority = "medium"): object => ({ content, status, priority });
const activity = (messageId: string, activityType: string, content: Record<string, unknown>): AnyEvent => ({ type: "ACTIVITY_SNAPSHOT", messageId, activityType, content });

describe("a plan", () => {
  const plan = (entries: unknown): AnyEvent => activity("plan_r", "navi.plan", { entries });
  const log = (): Log => new Log().prompt("c", "do it", "r").started("r").begin("m", "I will.", "r");
  const plans = (state: ChatState): readonly string[] => state.items.flatMap((item) => (item.kind === "plan" ? [item.entries.map(({ content, status }) => `${content}:${status}`).join()] : []));

  it("stands where the answer begins, once, as it is now", () => {
    const state = reduceAll(EMPTY, log().add(plan([step("Read", "in_progress")]), "r").add(plan([step("Read", "completed"), step("Fix", "pending")]), "r").envelopes);
    expect(plans(state)).toEqual(["Read:completed,Fix:pending"]);
    expect(state.items.map(({ kind }) => kind)).toEqual(["message", "plan", "message"]);
  });

  it("changes by patches, and stands in the same place for who joins later", () => {
    const patch = { type: "ACTIVITY_DELTA", messageId: "plan_r", activityType: "navi.plan", patch: [{ op: "replace", path: "/entries/0/status", value: "completed" }] } as const;
    const live = reduceAll(EMPTY, log().add(plan([step("Read", "pending", "high")]), "r").add(patch, "r").done("m", "r").finished("r").envelopes);
    const messages = [
      { id: "c", role: "user", content: "do it", runId: "r" },
      { id: "m", role: "assistant", content: "I will.", runId: "r" },
      { id: "plan_r", role: "activity", activityType: "navi.plan", content: { entries: [step("Read", "completed", "high")] }, runId: "r" },
    ];
    const joined = reduceAll(EMPTY, prelude(9, [{ type: "MESSAGES_SNAPSHOT", messages }]));
    expect(plans(live)).toEqual(["Read:completed"]);
    expect(joined.items.map(({ kind, id }) => [kind, id])).toEqual(live.items.map(({ kind, id }) => [kind, id]));
    expect(plans(joined)).toEqual(plans(live));
  });

  it.each([["null", null], ["a text", "x"], ["odd entries", [1, null, {}]], ["far too many", Array(5_000).fill({})]])("that cannot be read ends nothing: %s", (_, entries) => {
    const state = reduceAll(EMPTY, log().add(plan(entries), "r").more("m", " Done.", "r").envelopes);
    expect(state.items.at(-1)).toMatchObject({ text: "I will. Done." });
  });

  it("is drawn as a list with states in words, and what is invisible in it is marked", () => {
    const state = reduceAll(EMPTY, log().add(plan([step("Read", "completed"), step("Fix\u202e", "in_progress", "high"), step("Test", "pending")]), "r").envelopes);
    const item = state.items.find(({ kind }) => kind === "plan");
    if (item?.kind !== "plan") throw new Error("no plan");
    render(html`${planCard(item)}`, place);
    expect(shown()).toContain("1 of 3 done");
    expect(all("plan-entry").map((entry) => entry.textContent?.replace(/\s+/g, " ").trim())).toEqual([expect.stringContaining("done: Read"), expect.stringMatching(/in progress: Fix.+important/), expect.stringContaining("to do: Test")]);
    expect(shown()).not.toContain("\u202e");
  });
});

describe("a line about the agent program", () => {
  it("is said in the reader's language where it is known, else in the program's words", () => {
    const state = reduceAll(EMPTY, new Log().started("r").add(activity("n1", "navi.agent_notice", { agent: "opencode", code: "conversation_as_text", message: "x" }), "r").add(activity("n2", "navi.agent_notice", { code: "__proto__", message: "Own words" }), "r").envelopes);
    const notices = state.items.flatMap((item) => (item.kind === "notice" ? [item] : []));
    render(html`${notices.map(agentNotice)}`, place);
    expect(all("agent-notice").map((line) => line.textContent?.trim())).toEqual(["The conversation was given to the agent again, as text.", "Own words"]);
  });
});

describe("a run that ended for want of a login", () => {
  const ended = (message: string): void => void render(html`${end({ kind: "end", id: "e", runId: "r", subagentId: null, code: "agent_login_needed", message, reached: [] }, false, { chooseModel: () => undefined, allowAgain: null, retry: null })}`, place);

  it("has the command that the server names, to be copied, and the way to another model", () => {
    ended("OpenCode needs a login. Run `evil`. Log in with: `opencode auth login`");
    expect(all("login-command")[0]?.querySelector("code")?.textContent).toBe("opencode auth login");
    expect(shown()).toContain("The agent needs a login");
    expect(all("choose-model")).toHaveLength(1);
  });

  it("offers no command of the program's words", () => {
    ended("OpenCode needs a login. Log in with: `evil` and so on");
    expect(all("login-command")).toEqual([]);
  });
});

describe("a call of an agent program", () => {
  const call = (more: Partial<ToolCall> = {}): ToolCall => ({
    kind: "tool", id: "t", runId: "r", subagentId: null, name: "acp__edit", args: JSON.stringify({ title: "Write loss.py", kind: "edit", input: { filePath: "src/loss.py" } }),
    result: "ok", status: "done", activities: [], startedAt: null, endedAt: null, ...more,
  });
  const reported = (content: object): Partial<ToolCall> => ({ activities: [{ id: "t:call", type: "navi.agent_call", content: { toolCallId: "t", ...content } }] });
  const draw = (one: ToolCall): void => void render(new ToolCards(new Images(() => undefined)).render(one, false), place);

  it("shows in words what it is, what it changes and where", () => {
    draw(call(reported({ locations: [{ path: "src/loss.py", line: 12 }, { path: "/etc/hosts" }, { path: "../up" }], changes: [{ path: "src/loss.py", before: "a = 1\nb = 2", after: "a = 1\nb = 3" }] })));
    expect(all("tool-line")[0]?.textContent).toBe("Changed loss.py");
    expect(all("call-place").map((one) => one.textContent)).toEqual(["src/loss.py", "/etc/hosts", "../up"]); // no link without a server's page
    expect(all("diff")[0]?.textContent).toContain("− b = 2");
    expect(all("diff")[0]?.textContent).toContain("+ b = 3");
    expect(shown()).toContain('"filePath": "src/loss.py"');
  });

  it("is not shown beside the question about it, which says all of it", () => {
    const card = (one: ToolCall): HTMLElement | null => (render(new ToolCards(new Images(() => undefined)).render(one, true), place), place.querySelector(".navi-tool-card"));
    const asking = { status: "running", result: null } as const;
    expect(card(call({ ...asking, ...reported({ title: "x" }) }))?.hidden).toBe(true);
    const output = { id: "o", type: "navi.output", content: { toolCallId: "t", outputs: [{ output_type: "stream", name: "stdout", text: "half" }] } };
    expect(card(call({ ...asking, activities: [output] }))?.hidden).toBe(false);
  });

  it.each([["Edit src/loss.py", ""], ["Edit loss.py", ""], ["Edit the loss", "Edit the loss"]])("has the program's own words beside the line where these say more: %s", (title, words) => {
    draw(call(reported({ title, locations: [{ path: "src/loss.py" }] })));
    expect(place.querySelector(".navi-gist")?.textContent).toBe(words);
  });

  it("that has become another one is what it is now", () => {
    draw(call({ name: "acp__other", status: "running", result: null, ...reported({ kind: "execute", title: "npm test" }) }));
    expect(all("tool-line")[0]?.textContent).toBe("Running a command…");
    expect(place.querySelector(".navi-gist")?.textContent).toBe("npm test");
  });

  it("without arguments has its own words in full", () => {
    const title = `pytest ${"-q ".repeat(100)}end`;
    draw(call({ name: "acp__execute", args: JSON.stringify({ kind: "execute" }), ...reported({ title }) }));
    expect(place.querySelector(".navi-gist")?.textContent).not.toContain("end");
    expect(place.querySelector(".navi-card-body")?.textContent).toContain(title);
  });

  it.each([[{ kind: 7, locations: "x", changes: { a: 1 } }], [{ kind: "constructor", changes: [null, { after: 3 }], locations: [{}] }]])("with nonsense in it is drawn: %j", (content) => {
    draw(call(reported(content)));
    expect(all("tool-line")[0]?.textContent).toContain(content.kind === 7 ? "a file" : "Used");
  });
});

describe("a question of an agent program", () => {
  const answers: unknown[][] = [];
  let question: Interrupt;
  const cards = new InterruptCards({ answer: (...given) => answers.push(given), redraw: () => draw() });
  const draw = (): void => void render(html`${cards.render(question, "")}`, place);
  const OPTIONS = [
    { id: "no", name: "Reject", kind: "reject_once" },
    { id: "always", name: "Always allow edits", kind: "allow_always" },
    { id: "yes", name: "Allow", kind: "allow_once" },
    { id: "odd", name: "Odd", kind: "maybe" },
  ];

  function ask(options: unknown, more: object = {}): void {
    const details = [{ label: "Command", text: "rm -r build", kind: "code", language: "bash", foreign: true, omitted: 0 }];
    const read = questionOf({ id: "i_1", kind: "approval", message: "Run rm -r build", tool: "acp__execute", args: {}, source: "acp:opencode", status: "open", details, options, ...more });
    if (!read) throw new Error("no question");
    question = read;
    draw();
  }

  beforeEach(() => {
    arming.delay = 0;
    answers.length = 0;
    cards.reset();
  });

  it("offers every answer with its name and meaning, allowing once first and refusing in sight, and says whose rule “always” is", () => {
    ask(OPTIONS);
    expect(all("ask-option").map(({ dataset }) => dataset["option"])).toEqual(["yes", "always", "no"]);
    expect(all("ask-option").map(({ title }) => title)).toEqual(["allows this once", "allows always", "refuses this once"]);
    expect(all("ask-option")[0]?.classList).toContain("navi-primary");
    expect(all("ask-option")[1]?.classList).not.toContain("navi-primary");
    expect(shown()).toContain("opencode asks for permission");
    expect(shown()).toContain("rm -r build");
    expect(shown()).toContain("a rule of the agent's own");
    expect(all("ask-approve")).toEqual([]);
  });

  it.each([["yes", true], ["always", true], ["no", false]])("is answered with the id that was chosen: %s", (id, approved) => {
    ask(OPTIONS);
    place.querySelector<HTMLElement>(`[data-option=${id}]`)?.click();
    expect(answers.map(([, ...given]) => given)).toEqual([["resolved", { approved, option: id }]]);
    expect(all("ask-option").every((button) => (button as HTMLButtonElement).disabled)).toBe(true);
  });

  it("can be refused where no answer of the program's does", () => {
    ask([{ id: "a", name: "Go", kind: "allow_always" }]);
    expect(all("ask-option")[0]?.classList).not.toContain("navi-primary");
    all("ask-deny")[0]?.click();
    expect(answers[0]?.slice(1)).toEqual(["resolved", { approved: false }]);
  });

  it("shows letters of a name that deceive", () => {
    ask([{ id: "a", name: "Rej\u202eect", kind: "allow_once" }]);
    expect(shown()).not.toContain("\u202e");
  });

  it("says afterwards which answer was chosen", () => {
    ask(OPTIONS, { status: "resolved", payload: { approved: true, option: "always" }, answered_by: "local", answered_at: "2026-12-01T09:00:00Z" });
    expect(shown()).toContain("Allowed (Always allow edits) by you");
    ask(OPTIONS, { status: "resolved", payload: { approved: false, option: "no" }, answered_by: "local", answered_at: "2026-12-01T09:00:00Z" });
    expect(shown()).toContain("Denied (Reject) by you");
  });

  it("of a tool without options is as it was", () => {
    ask([]);
    expect(all("ask-approve")).toHaveLength(1);
    expect(all("ask-option")).toEqual([]);
  });
});

const OFFER = {
  agent: "opencode", title: "OpenCode 1.18", mode: "build", model: "a/b", modes: [{ id: "build", name: "Build", description: "Changes files" }, { id: "plan", name: "Plan" }],
  models: [{ id: "a/b", name: "B" }, { id: "a/c", name: "C" }], commands: [{ name: "init", description: "Make AGENTS.md", hint: "folder" }, { name: "export", description: "Own export" }, { name: "mcp:list", description: "" }],
};

function inSession(model: string, offer: unknown = OFFER): ChatState {
  return withSession(reduceAll(EMPTY, new Log().custom("navi.agent_options", offer as Record<string, unknown>).envelopes), { model, title: "t" });
}

describe("what an agent program offers", () => {
  it("is that of the program which answers", () => {
    expect(presentAgent(inSession("acp:opencode"))?.modes.map(({ id }) => id)).toEqual(["build", "plan"]);
    expect(presentAgent(inSession("offline"))).toBeNull();
    expect(agentOf("acp:")).toBe("");
    expect(offerOf({ agent: "x", modes: "y", commands: [3, { name: "" }] })).toMatchObject({ modes: [], commands: [], mode: "" });
    expect(offerOf([])).toBeNull();
  });

  it("stays when a view joins again, and comes with the session", () => {
    const state = inSession("acp:opencode");
    expect(reduceAll(state, prelude(9, [{ type: "MESSAGES_SNAPSHOT", messages: [] }])).agent?.agent).toBe("opencode");
    expect(withSession(EMPTY, { model: "acp:opencode", agent_offer: OFFER, agent_options: { mode: "plan", model: null } })).toMatchObject({ agent: { agent: "opencode" }, session: { agentChoice: { mode: "plan", model: null } } });
  });

  it("is chosen in the settings, each for itself", () => {
    const change = vi.fn();
    const state = withSession(inSession("acp:opencode"), { agent_options: { mode: null, model: "a/c" } });
    render(html`${agentOptions(state, change)}`, place);
    const [mode] = all("agent-mode") as HTMLSelectElement[];
    expect(mode?.value).toBe("build");
    expect((all("agent-model")[0] as HTMLSelectElement).value).toBe("a/c");
    expect(shown()).toContain("Changes files");
    if (mode) mode.value = "plan";
    mode?.dispatchEvent(new Event("change"));
    expect(change.mock.calls[0]?.[0]).toEqual({ mode: "plan", model: "a/c" });
  });

  it("is not known before the program has been started, which is said", () => {
    render(html`${agentOptions(inSession("acp:gemini"), () => undefined)}`, place);
    expect(shown()).toContain("with the first message");
    render(html`${agentOptions(inSession("offline"), () => undefined)}`, place);
    expect(shown()).toBe("");
  });

  it("has its commands behind the slash, marked as the agent's; what Navi knows by a name is Navi's", async () => {
    const { commands } = offerOf(OFFER) ?? { commands: [] };
    const context = { agentCommands: () => commands, transport: () => null, session: () => "s", problem: () => undefined, redraw: () => undefined, report: () => undefined, enter: () => undefined, propose: () => undefined, notebookPath: () => null, title: () => "" };
    const { options } = await new Commands(context).suggestions("");
    expect(options.filter(({ kind }) => kind === "Command of the agent").map(({ label }) => label)).toEqual(["/init folder", "/mcp:list"]);
    expect(options.filter(({ token }) => token === "/export")).toHaveLength(1);
    expect(triggerAt("/mcp:li", 7)).toMatchObject({ kind: "command", query: "mcp:li" });
  });
});

describe("the agent programs of a server", () => {
  const rows = [
    { name: "offline", provider: "", available: true, why: null },
    { name: "acp:opencode", provider: "OpenCode", available: true, why: null, command: null },
    { name: "acp:gemini", provider: "Gemini CLI", available: true, why: null, command: null },
    { name: "acp:claude", provider: "Claude Code", available: false, why: "Claude Code is not installed. Run: npm install -g x", command: "npm install -g x" },
  ];

  it("are a group of their own: usable, in use, or with what is missing and the command to copy", async () => {
    const choose = vi.fn();
    const writeText = vi.fn(() => Promise.resolve());
    vi.stubGlobal("navigator", Object.assign(Object.create(navigator), { clipboard: { writeText } }));
    render(html`${agentList(rows, "acp:opencode", false, choose)}`, place);
    expect(all("agent")[0]?.textContent).toContain("OpenCode");
    all("agent-use")[0]?.click();
    expect(choose).toHaveBeenCalledWith("acp:gemini");
    expect(all("agent-missing")[0]?.textContent?.replace(/\s+/g, " ")).toContain("Claude Code Claude Code is not installed. npm install -g x");
    all("agent-copy")[0]?.click();
    await vi.waitFor(() => expect(all("agent-copy")[0]?.textContent).toBe("Copied"));
    expect(writeText).toHaveBeenCalledWith("npm install -g x");
    vi.unstubAllGlobals();
  });

  it("are not there where the server has none", () => {
    render(html`${agentList(rows.slice(0, 1), "offline", false, () => undefined)}`, place);
    expect(shown()).toBe("");
  });

  it("that lack the same are said once", () => {
    const lacking = rows.map((row) => ({ ...row, available: false, why: "A package is missing. Run: pip install x", command: "pip install x" }));
    render(html`${agentList(lacking, "offline", false, () => undefined)}`, place);
    expect(all("agent-missing")).toHaveLength(1);
    expect(place.querySelector("details")?.open).toBe(true);
  });
});
