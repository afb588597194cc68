// A session as the real server keeps one, in memory and scripted: a log, its followers, and an agent that plays back.

export class PlaySession {
  constructor(id) {
    this.id = id;
    this.seq = 0;
    this.log = [];
    this.followers = new Set();
    this.queue = [];
    this.recalls = new Map();
    this.accepted = new Map();
    this.runs = [];
    this.run = null;
    this.title = "Training run";
  }

  append(events, { runId = this.run?.id ?? null, origin = { kind: "user", recall_id: null } } = {}) {
    const envelopes = events.map((event) => ({
      seq: (this.seq += 1),
      session_id: this.id,
      run_id: runId,
      ts: new Date().toISOString(),
      origin,
      event,
    }));
    this.log.push(...envelopes);
    for (const send of this.followers) send(envelopes.length === 1 ? envelopes[0] : { batch: envelopes });
    return this.seq;
  }

  follow(after, send) {
    const floor = this.log[0]?.seq ?? 1;
    if (after === null || after < floor - 1) {
      if (after !== null) send(this.#envelope({ type: "CUSTOM", name: "navi.gap", value: { since: after, min_seq: floor, head_seq: this.seq } }));
      for (const event of this.#prelude()) send({ ...this.#envelope(event), snapshot: true });
    } else {
      const batch = this.log.filter(({ seq }) => seq > after);
      if (batch.length) send({ batch });
    }
    this.followers.add(send);
    return () => this.followers.delete(send);
  }

  command(command) {
    const { command_id: id } = command;
    const known = this.accepted.get(id);
    if (known) return known;
    let runId = null;
    if (command.type === "prompt") {
      if (command.text === "reject me") return { rejected: { command_id: id, code: "conflict", message: "this text is not welcome", field: null } };
      runId = this.prompt(id, command.text, { kind: "user", recall_id: null });
    } else if (command.type === "stop") {
      runId = this.run?.id ?? null;
      this.append([{ type: "CUSTOM", name: "navi.stop", value: { action: "requested", command_id: id, run_id: runId } }]);
      if (this.run) this.run.stopped = true;
    } else if (command.type === "unqueue") {
      this.queue = this.queue.filter((waiting) => waiting.commandId !== command.target);
      this.append([{ type: "CUSTOM", name: "navi.queue", value: { action: "cancelled", command_id: command.target } }]);
    }
    const answer = { accepted: { command_id: id, seq: this.seq, run_id: runId, type: command.type } };
    this.accepted.set(id, answer);
    return answer;
  }

  prompt(commandId, text, origin) {
    const runId = `r_${this.seq}`;
    const events = [
      { type: "TEXT_MESSAGE_START", messageId: commandId, role: "user" },
      { type: "TEXT_MESSAGE_CONTENT", messageId: commandId, delta: text },
      { type: "TEXT_MESSAGE_END", messageId: commandId },
    ];
    if (this.run) events.push({ type: "CUSTOM", name: "navi.queue", value: { action: "queued", command_id: commandId, run_id: runId } });
    this.append(events, { runId, origin });
    this.queue.push({ commandId, runId, text, origin });
    if (!this.run) setImmediate(() => this.#next());
    return runId;
  }

  recall(recall, action, extra = {}) {
    this.recalls.set(recall.id, recall);
    this.append([{ type: "CUSTOM", name: "navi.recall", value: { action, status: recall.status, recall, ...extra } }], { runId: null });
  }

  async #next() {
    const waiting = this.queue.shift();
    if (!waiting || this.run) return;
    const { runId, text, origin } = waiting;
    this.run = { id: runId, stopped: false };
    const record = { id: runId, status: "running", origin, error: null };
    this.runs.push(record);
    this.append([{ type: "RUN_STARTED", threadId: this.id, runId }], { origin });
    try {
      for await (const event of this.script(text, runId)) {
        if (this.run.stopped) break;
        this.append([event].flat(), { origin });
      }
      this.#closeOpen(runId, origin);
      record.status = this.run.stopped ? "stopped" : "completed";
      this.append([{ type: "RUN_FINISHED", threadId: this.id, runId, outcome: { type: this.run.stopped ? "cancelled" : "success" } }], { origin });
    } catch (problem) {
      this.#closeOpen(runId, origin);
      record.status = "failed";
      record.error = { code: problem.code ?? "backend_error", message: problem.message };
      this.append([{ type: "RUN_ERROR", ...record.error }], { origin });
    }
    this.run = null;
    this.#next();
  }

  #closeOpen(runId, origin) {
    const open = new Set();
    for (const { run_id, event } of this.log) {
      if (run_id !== runId) continue;
      if (event.type === "TEXT_MESSAGE_START") open.add(event.messageId);
      if (event.type === "TEXT_MESSAGE_END") open.delete(event.messageId);
    }
    if (open.size) this.append([...open].map((messageId) => ({ type: "TEXT_MESSAGE_END", messageId })), { origin });
  }

  #envelope(event) {
    return { seq: this.seq, session_id: this.id, run_id: this.run?.id ?? null, ts: new Date().toISOString(), origin: { kind: "system", recall_id: null }, event };
  }

  #prelude() {
    const messages = [];
    const byId = new Map();
    const queued = new Set(this.queue.map(({ commandId }) => commandId));
    for (const { event, run_id: runId, origin, ts } of this.history ?? this.log) {
      const add = (message) => (messages.push(message), byId.set(message.id, message), message);
      if (event.type === "TEXT_MESSAGE_START") {
        add({ id: event.messageId, role: event.role, content: "", runId, origin, timestamp: ts, ...(queued.has(event.messageId) ? { queued: true } : {}) });
      } else if (event.type === "TEXT_MESSAGE_CONTENT") byId.get(event.messageId).content += event.delta;
      else if (event.type === "REASONING_MESSAGE_START") add({ id: event.messageId, role: "reasoning", content: "", runId, origin });
      else if (event.type === "REASONING_MESSAGE_CONTENT") byId.get(event.messageId).content += event.delta;
      else if (event.type === "TOOL_CALL_START") {
        byId.set(event.toolCallId, add({ id: `a_${event.toolCallId}`, role: "assistant", content: "", runId, origin, toolCalls: [{ id: event.toolCallId, type: "function", function: { name: event.toolCallName, arguments: "" } }] }));
      } else if (event.type === "TOOL_CALL_ARGS") byId.get(event.toolCallId).toolCalls[0].function.arguments += event.delta;
      else if (event.type === "TOOL_CALL_RESULT") add({ id: event.messageId, role: "tool", toolCallId: event.toolCallId, content: event.content, runId, origin });
      else if (event.type === "CUSTOM" && event.value.action === "cancelled" && event.name === "navi.queue") {
        messages.splice(messages.indexOf(byId.get(event.value.command_id)), 1);
      }
    }
    const events = [{ type: "MESSAGES_SNAPSHOT", messages }];
    if (this.run) events.push({ type: "RUN_STARTED", threadId: this.id, runId: this.run.id });
    for (const recall of this.recalls.values()) {
      if (["pending", "running", "paused"].includes(recall.status)) events.push({ type: "CUSTOM", name: "navi.recall", value: { action: "created", status: recall.status, recall } });
    }
    return events;
  }
}
