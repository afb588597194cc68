// An agent program as the playground plays it: its offer, a plan that changes, calls with changes and places, a question
// with answers of its own.

export const OFFER = {
  agent: "opencode",
  title: "OpenCode 1.18",
  modes: [
    { id: "build", name: "Build", description: "Changes files and runs commands, and asks before" },
    { id: "plan", name: "Plan", description: "Reads, and changes nothing" },
  ],
  mode: "build",
  models: [
    { id: "a/large", name: "Large" },
    { id: "a/small", name: "Small" },
  ],
  model: "a/large",
  commands: [
    { name: "init", description: "Writes AGENTS.md for this folder", hint: "what to stress" },
    { name: "review", description: "Looks through the changes" },
    { name: "export", description: "Its own export, which Navi's goes before" },
  ],
};

const STEPS = ["Read the training loop", "Make the learning rate smaller where the loss no longer falls, and keep the old one for comparison", "Run the tests"];
const BEFORE = "def rate(step):\n    return 0.1\n\n\ndef train(model):\n    for step in range(100):\n        model.step(rate(step))\n";
const AFTER = BEFORE.replace("return 0.1", "return 0.1 if step < 50 else 0.01");

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
let count = 0;

export async function* playAgent(session, { say, think }) {
  const number = (count += 1);
  yield { type: "CUSTOM", name: "navi.agent_options", value: OFFER };
  yield activity(`notice_${number}`, "navi.agent_notice", { agent: "opencode", code: "conversation_as_text", message: "The conversation was given to it again, as text." });
  const plan = (...states) =>
    activity(`plan_${session.run.id}`, "navi.plan", { entries: STEPS.map((content, index) => ({ content, priority: index === 1 ? "high" : "medium", status: states[index] ?? "pending" })) });
  yield* think("The loss is flat from step 50 on.");
  yield plan("in_progress");
  yield* call(`read_${number}`, "read", { title: "Read train.py", locations: [{ path: "src/train.py", line: 1 }] }, [], "…");
  yield plan("completed", "in_progress");
  const edit = `edit_${number}`;
  yield start(edit, "edit");
  const [answer] = yield {
    ask: [
      {
        kind: "approval",
        message: "OpenCode wants to change a file: src/train.py",
        tool_call_id: edit,
        tool: "write_file",
        args: { filePath: "src/train.py" },
        source: "acp:opencode",
        details: [
          { label: "Path", text: "src/train.py", kind: "text", language: null, foreign: false, omitted: 0 },
          { label: "Change of the file", text: " def rate(step):\n-    return 0.1\n+    return 0.1 if step < 50 else 0.01\n", kind: "diff", language: null, foreign: false, omitted: 0 },
        ],
        options: [
          { id: "no", name: "No", kind: "reject_once" },
          { id: "always", name: "Always allow edits in this folder", kind: "allow_always" },
          { id: "once", name: "Yes, this once", kind: "allow_once" },
        ],
      },
    ],
  };
  const isAllowed = answer.status === "resolved" && answer.payload?.approved !== false;
  const changed = { title: "Write train.py", locations: [{ path: "src/train.py", line: 2 }, { path: "/etc/hosts" }] };
  yield reported(edit, "edit", changed, isAllowed ? [{ path: "src/train.py", before: BEFORE, after: AFTER }] : []);
  yield* end(edit, "edit", changed, isAllowed ? "ok" : JSON.stringify({ error: "not_approved", message: "The user said no." }));
  if (isAllowed) {
    yield plan("completed", "completed", "in_progress");
    const run = `run_${number}`;
    yield start(run, "execute");
    yield activity(`${run}:output`, "navi.output", { toolCallId: run, outputs: [{ output_type: "stream", name: "stdout", text: "\u001b[32m12 passed\u001b[0m in 0.4s\n" }] });
    await sleep(100);
    yield* end(run, "execute", { title: "pytest -q" }, "12 passed");
    yield plan("completed", "completed", "completed");
  }
  yield* say(isAllowed ? `It is done (${answer.payload?.option}).` : "Then I leave the file as it is.", 10);
}

function activity(messageId, activityType, content) {
  return { type: "ACTIVITY_SNAPSHOT", messageId, activityType, content, replace: true };
}

function start(toolCallId, kind) {
  return { type: "TOOL_CALL_START", toolCallId, toolCallName: `acp__${kind}` };
}

function reported(toolCallId, kind, call, changes) {
  return activity(`${toolCallId}:call`, "navi.agent_call", { toolCallId, agent: "opencode", kind, ...call, changes });
}

function* end(toolCallId, kind, call, content) {
  yield [{ type: "TOOL_CALL_ARGS", toolCallId, delta: JSON.stringify({ ...call, kind, input: { filePath: call.locations?.[0]?.path } }) }, { type: "TOOL_CALL_END", toolCallId }];
  yield { type: "TOOL_CALL_RESULT", messageId: `m_${toolCallId}`, toolCallId, content, role: "tool" };
}

function* call(toolCallId, kind, call, changes, content) {
  yield start(toolCallId, kind);
  yield reported(toolCallId, kind, call, changes);
  yield* end(toolCallId, kind, call, content);
}
