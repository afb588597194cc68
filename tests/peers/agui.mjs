// A client of AG-UI, the official one, unchanged: driven by lines of JSON, so that a test can act between its steps.
// Each run's events pass the client's own checks of schema and order before they are shown here.
import { HttpAgent } from "@ag-ui/client";
import { createInterface } from "node:readline";

const agents = new Map();

function agentOf({ name, thread }) {
  if (!agents.has(name)) {
    const headers = { Authorization: `token ${process.env.NAVI_TOKEN}` };
    const agent = new HttpAgent({ url: process.env.NAVI_AGUI, headers, threadId: thread });
    agent.subscribe({ onEvent: ({ event }) => { say({ name, event }); } });
    agents.set(name, agent);
  }
  return agents.get(name);
}

function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

async function run(step) {
  const agent = agentOf(step);
  agent.messages.push(...(step.messages ?? []));
  let error = null;
  try {
    await agent.runAgent(step.parameters ?? {});
  } catch (failure) {
    error = String(failure);
  }
  const { messages, pendingInterrupts } = agent;
  say({ name: step.name, over: { error, messages, interrupts: pendingInterrupts } });
}

const warn = console.warn;
console.warn = (...words) => { say({ warning: words.map(String).join(" ") }); warn(...words); };
console.error = console.warn;

for await (const line of createInterface({ input: process.stdin })) {
  const step = JSON.parse(line);
  if (step.do === "run") {
    void run(step);
  } else if (step.do === "abort") {
    agentOf(step).abortRun();
  }
}
