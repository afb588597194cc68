// What a joiner is told instead of the log: see "Following" in docs/protocol.md.

/** `log`: envelopes. `run`: the id of the run in progress, or null. `queued`: command ids. */
export function prelude({ log, run, sessionId, queued, recalls, asks, past = [] }) {
  const steered = new Map(); // command id -> the run that it joined
  const withdrawn = new Set();
  const edited = new Map();
  for (const { event } of log) {
    if (event.name !== "navi.queue") continue;
    const { action, command_id: id } = event.value;
    if (action === "steered") steered.set(id, event.value.run_id);
    if (action === "cancelled") withdrawn.add(id);
    if (action === "edited") edited.set(id, event.value.text);
  }
  const isUsers = ({ event }) => event.type === "TEXT_MESSAGE_START" && event.role === "user";
  const users = new Set(log.filter(isUsers).map(({ event }) => event.messageId));
  const isLive = ({ run_id: runId, event }) => run !== null && runId === run && !users.has(event.messageId);
  const last = past.slice(-150);
  const present = snapshot(log.filter((envelope) => !isLive(envelope)), { queued, withdrawn, edited, skip: (id) => steered.get(id) === run && run !== null });
  const earlier = past.length > last.length ? { earlier: String(past.length - last.length) } : {};
  const events = [{ type: "MESSAGES_SNAPSHOT", messages: [...last, ...present], ...earlier }];
  if (run !== null) events.push({ type: "RUN_STARTED", threadId: sessionId, runId: run }, ...retold(log, isLive));
  for (const recall of recalls) events.push({ type: "CUSTOM", name: "navi.recall", value: { action: "created", status: recall.status, recall } });
  for (const interrupt of asks) events.push({ type: "CUSTOM", name: "navi.interrupt", value: { action: "opened", interrupt } });
  return events;
}

/** AG-UI messages of all that is finished. */
function snapshot(log, { queued, withdrawn, edited, skip }) {
  const messages = [];
  const byId = new Map();
  const add = (message, key = message.id) => (messages.push(message), byId.set(key, message));
  for (const { event, run_id: runId, origin, ts } of log) {
    const common = { runId, origin, ...(event.subagentRunId ? { subagentRunId: event.subagentRunId } : {}) };
    switch (event.type) {
      case "TEXT_MESSAGE_START": {
        const { messageId: id, role, metadata } = event;
        if (role === "user" && (skip(id) || withdrawn.has(id))) break;
        const more = { ...(queued.has(id) ? { queued: true } : {}), ...(metadata ? { attachments: metadata.attachments } : {}) };
        add({ id, role, content: "", ...common, timestamp: ts, ...more });
        break;
      }
      case "TEXT_MESSAGE_CONTENT":
      case "REASONING_MESSAGE_CONTENT":
        if (byId.has(event.messageId)) byId.get(event.messageId).content += event.delta;
        break;
      case "REASONING_MESSAGE_START":
        add({ id: event.messageId, role: "reasoning", content: "", ...common });
        break;
      case "TOOL_CALL_START": {
        const called = { id: event.toolCallId, type: "function", function: { name: event.toolCallName, arguments: "" } };
        add({ id: `a_${event.toolCallId}`, role: "assistant", content: "", ...common, toolCalls: [called] }, event.toolCallId);
        break;
      }
      case "TOOL_CALL_ARGS":
        byId.get(event.toolCallId).toolCalls[0].function.arguments += event.delta;
        break;
      case "ACTIVITY_SNAPSHOT": {
        const { messageId: id, activityType, content } = event;
        if (content.toolCallId && activityType !== "navi.agent_call") break; // outputs of past runs are not played
        if (byId.has(id)) byId.get(id).content = content;
        else add({ id, role: "activity", activityType, content, ...common });
        break;
      }
      case "TOOL_CALL_RESULT":
        add({ id: event.messageId, role: "tool", toolCallId: event.toolCallId, content: event.content, ...common });
        break;
    }
  }
  for (const [id, text] of edited) if (byId.has(id)) byId.get(id).content = text;
  return messages;
}

/** The events of the run in progress, deltas joined, in the order of the log. */
function retold(log, isLive) {
  const events = [];
  const texts = new Map();
  const activities = new Map();
  const users = new Map();
  for (const envelope of log) {
    const { event } = envelope;
    if (event.type === "TEXT_MESSAGE_START" && event.role === "user") users.set(event.messageId, { start: event, text: "" });
    if (event.type === "TEXT_MESSAGE_CONTENT" && users.has(event.messageId)) users.get(event.messageId).text += event.delta;
    if (!isLive(envelope)) continue;
    switch (event.type) {
      case "TEXT_MESSAGE_CONTENT":
      case "REASONING_MESSAGE_CONTENT":
      case "TOOL_CALL_ARGS": {
        const key = event.messageId ?? event.toolCallId;
        if (texts.has(key)) texts.get(key).delta += event.delta;
        else events.push(texts.set(key, { ...event }).get(key));
        break;
      }
      case "ACTIVITY_SNAPSHOT":
        if (activities.has(event.messageId)) activities.get(event.messageId).content = structuredClone(event.content);
        else events.push(activities.set(event.messageId, structuredClone(event)).get(event.messageId));
        break;
      case "ACTIVITY_DELTA":
        for (const { op, path, value } of event.patch) {
          const { content } = activities.get(event.messageId);
          if (op === "add" && path === "/outputs/-") content.outputs.push(value);
          else content[path.slice(1)] = value;
        }
        break;
      case "CUSTOM":
        if (event.name === "navi.queue" && event.value.action === "steered") {
          const { start, text } = users.get(event.value.command_id);
          events.push(start, { type: "TEXT_MESSAGE_CONTENT", messageId: start.messageId, delta: text }, { type: "TEXT_MESSAGE_END", messageId: start.messageId });
        }
        break;
      case "RUN_STARTED":
      case "RUN_FINISHED":
        break;
      default:
        events.push(event);
    }
  }
  return events;
}
