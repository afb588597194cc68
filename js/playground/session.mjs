// A session as the real server keeps one, in memory and scripted: a log, its followers, and an agent that plays back.
import { detailsOf } from "./details.mjs";
import { prelude } from "./prelude.mjs";

const USER = { kind: "user", recall_id: null };
const NOTHING = { input_tokens: 0, output_tokens: 0, requests: 0, cost: null };

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
    this.model = "offline";
    this.profile = "assistant";
    this.agent_options = { mode: null, model: null };
    this.usage = NOTHING;
    this.allowed = new Set();
    /** Open questions by id, each with what ends its wait. */
    this.asks = new Map();
    /** Those that were settled, as they are listed beside the runs. */
    this.settled = [];
    this.attachments = new Map();
    this.past = [];
  }

  append(events, { runId = this.run?.id ?? null, origin = USER } = {}) {
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

  custom(name, value, runId = this.run?.id ?? null) {
    return this.append([{ type: "CUSTOM", name, value }], { runId });
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

  detail() {
    const approvals = [...this.asks.values()].map(({ interrupt }) => interrupt);
    return { id: this.id, title: this.title, model: this.model, profile: this.profile, head_seq: this.seq, usage: this.usage, agent_options: this.agent_options, agent_offer: this.log.findLast(({ event }) => event.name === "navi.agent_options")?.event.value ?? null, approvals, owner: this.owner ?? "local", access: this.owner ? "reader" : "owner" };
  }

  patch(changes) {
    Object.assign(this, changes);
    this.custom("navi.session", { changed: Object.keys(changes), session: { title: this.title, model: this.model, profile: this.profile, agent_options: this.agent_options } }, null);
  }

  // --- commands ------------------------------------------------------------------------------------------------------

  command(command) {
    const { command_id: id, type } = command;
    const known = this.accepted.get(id);
    if (known) return known;
    const refuse = (code, message) => ({ rejected: { command_id: id, code, message, field: null } });
    let runId = null;
    if (type === "prompt") {
      if (command.text === "reject me") return refuse("conflict", "this text is not welcome");
      runId = this.prompt(id, command.text, USER, command);
    } else if (type === "stop") {
      runId = this.run?.id ?? null;
      this.custom("navi.stop", { action: "requested", command_id: id, run_id: runId });
      this.#stop();
    } else if (type === "unqueue" || type === "edit") {
      const waiting = this.queue.find(({ commandId }) => commandId === command.target);
      if (!waiting) return refuse("command_not_found", "That prompt is not waiting any more.");
      if (type === "edit") waiting.text = command.text;
      else this.queue = this.queue.filter((one) => one !== waiting);
      const done = type === "edit" ? { action: "edited", text: command.text } : { action: "cancelled" };
      this.custom("navi.queue", { ...done, command_id: command.target, run_id: waiting.runId }, waiting.runId);
    } else if (type === "answer") {
      const ask = this.asks.get(command.interrupt_id);
      if (!ask) return refuse("interrupt_not_found", "That question is not open any more.");
      runId = ask.interrupt.run_id;
      this.settle(command.interrupt_id, command.status, command.payload ?? null, "ada", id);
    }
    this.last = command;
    const answer = { accepted: { command_id: id, seq: this.seq, run_id: runId, type } };
    this.accepted.set(id, answer);
    return answer;
  }

  prompt(commandId, text, origin, { images = [], files = [], mode = "enqueue", replaces } = {}) {
    if (replaces) this.custom("navi.queue", { action: "rolled_back", run_id: replaces }, replaces);
    const collecting = mode === "collect" && this.run ? this.queue.find((one) => one.mode === "collect") : undefined;
    const runId = collecting?.runId ?? `r_${this.seq}`;
    const attachments = [...images, ...files].map(({ id }) => this.attachments.get(id)).filter(Boolean).map(({ content: _, ...info }) => info);
    const start = { type: "TEXT_MESSAGE_START", messageId: commandId, role: "user", ...(attachments.length ? { metadata: { attachments } } : {}) };
    const events = [start, { type: "TEXT_MESSAGE_CONTENT", messageId: commandId, delta: text }, { type: "TEXT_MESSAGE_END", messageId: commandId }];
    const action = collecting ? "collected" : "queued";
    if (this.run && mode !== "steer") events.push({ type: "CUSTOM", name: "navi.queue", value: { action, command_id: commandId, run_id: runId } });
    this.append(events, { runId, origin });
    const waiting = { commandId, runId, text, origin, mode };
    if (this.run && (mode === "interrupt" || mode === "rollback")) {
      if (mode === "rollback") this.custom("navi.queue", { action: "rolled_back", command_id: commandId, run_id: this.run.id });
      this.queue.unshift(waiting);
      this.#stop();
    } else if (collecting) {
      collecting.text += `\n\n${text}`;
    } else {
      this.queue.push(waiting);
    }
    if (!this.run) setImmediate(() => this.#next());
    return runId;
  }

  recall(recall, action, extra = {}) {
    this.recalls.set(recall.id, recall);
    this.append([{ type: "CUSTOM", name: "navi.recall", value: { action, status: recall.status, recall, ...extra } }], { runId: null });
  }

  // --- questions -----------------------------------------------------------------------------------------------------

  /** Asks; the answer is the interrupts with their final status. The run pauses for durable ones. */
  async ask(questions) {
    const runId = this.run.id;
    const durable = questions.some((question) => question.durable !== false);
    const waits = questions.map((question) => {
      if (question.tool && this.allowed.has(question.tool)) return Promise.resolve({ status: "resolved", payload: null });
      const id = `i_${(this.seq += 1)}`;
      const interrupt = {
        id, session_id: this.id, run_id: runId, kind: "approval", message: "", tool_call_id: null, tool: null, args: null, response_schema: null,
        subagent_run_id: null, durable: true, created_at: new Date().toISOString(), expires_at: null, status: "open", payload: null,
        answered_by: null, answered_at: null, source: question.tool ? "builtin" : null, details: question.tool ? detailsOf(question.args) : [], ...question,
      };
      return new Promise((resolve) => {
        this.asks.set(id, { interrupt, resolve });
        this.custom("navi.interrupt", { action: "opened", interrupt });
      });
    });
    const pauses = durable && this.asks.size > 0;
    if (pauses) {
      const interrupts = [...this.asks.values()].map(({ interrupt: { id, kind, message } }) => ({ id, reason: kind, message }));
      this.append([{ type: "RUN_FINISHED", threadId: this.id, runId, outcome: { type: "interrupt", interrupts } }]);
    }
    const answers = await Promise.all(waits);
    if (pauses && !this.run.stopped) this.append([{ type: "RUN_STARTED", threadId: this.id, runId }]);
    return answers;
  }

  settle(id, status, payload = null, by = null, commandId = undefined) {
    const { interrupt, resolve } = this.asks.get(id);
    this.asks.delete(id);
    const settled = { ...interrupt, status, payload, answered_by: by, answered_at: new Date().toISOString() };
    this.settled.push(settled);
    if (payload?.always === "session") this.allowed.add(interrupt.tool);
    this.custom("navi.interrupt", { action: status, interrupt: settled, ...(commandId ? { command_id: commandId } : {}) });
    resolve(settled);
  }

  #stop() {
    if (!this.run) return;
    this.run.stopped = true;
    for (const id of [...this.asks.keys()]) this.settle(id, "cancelled");
  }

  // --- runs ----------------------------------------------------------------------------------------------------------

  async #next() {
    const waiting = this.queue.shift();
    if (!waiting || this.run) return;
    const { runId, text, origin } = waiting;
    this.run = { id: runId, origin, stopped: false, usage: null };
    const record = { id: runId, status: "running", origin, error: null, rolled_back: false };
    this.runs.push(record);
    this.append([{ type: "RUN_STARTED", threadId: this.id, runId }], { origin });
    try {
      const events = this.script(text, this);
      let given;
      for (;;) {
        const { value: event, done } = await events.next(given);
        given = undefined;
        if (done || this.run.stopped) break;
        if (event.ask) given = await this.ask(event.ask);
        else this.append([event].flat(), { origin });
        this.#steer();
        if (this.run.stopped) break;
      }
      this.#closeOpen(runId, origin);
      if (this.run.stopped) this.custom("navi.stop", { action: "reached", run_id: runId, what: "model", message: "the request to the model was ended" });
      record.status = this.run.stopped ? "stopped" : "completed";
      this.append([{ type: "RUN_FINISHED", threadId: this.id, runId, outcome: { type: this.run.stopped ? "cancelled" : "success" } }], { origin });
    } catch (problem) {
      this.#closeOpen(runId, origin);
      record.status = "failed";
      record.error = { code: problem.code ?? "backend_error", message: problem.message };
      this.append([{ type: "RUN_ERROR", ...record.error }], { origin });
    }
    const rolledBack = this.log.some(({ event }) => event.value?.action === "rolled_back" && event.value.run_id === runId);
    Object.assign(record, { rolled_back: rolledBack });
    if (this.run.usage) this.usage = Object.fromEntries(Object.entries(this.run.usage).map(([key, value]) => [key, (this.usage[key] ?? 0) + value]));
    this.run = null;
    this.#next();
  }

  /** What was steered joins the run between two of its messages. */
  #steer() {
    const isBetween = ["TEXT_MESSAGE_END", "TOOL_CALL_RESULT"].includes(this.log.at(-1)?.event.type);
    if (!isBetween) return;
    for (const { commandId, text } of this.queue.filter(({ mode }) => mode === "steer")) {
      this.custom("navi.queue", { action: "steered", command_id: commandId, run_id: this.run.id, text });
    }
    this.queue = this.queue.filter(({ mode }) => mode !== "steer");
  }

  #closeOpen(runId, origin) {
    const open = new Map();
    for (const { run_id, event } of this.log) {
      if (run_id !== runId) continue;
      if (event.type === "TEXT_MESSAGE_START") open.set(event.messageId, { type: "TEXT_MESSAGE_END", messageId: event.messageId });
      if (event.type === "TOOL_CALL_START") open.set(event.toolCallId, { type: "TOOL_CALL_END", toolCallId: event.toolCallId });
      if (event.type.endsWith("_END")) open.delete(event.messageId ?? event.toolCallId);
    }
    if (open.size) this.append([...open.values()], { origin });
  }

  #envelope(event) {
    return { seq: this.seq, session_id: this.id, run_id: this.run?.id ?? null, ts: new Date().toISOString(), origin: this.run?.origin ?? { kind: "system", recall_id: null }, event };
  }

  #prelude() {
    return prelude({
      log: this.history ?? this.log,
      run: this.run?.id ?? null,
      sessionId: this.id,
      queued: new Set(this.queue.map(({ commandId }) => commandId)),
      recalls: [...this.recalls.values()].filter(({ status }) => ["pending", "running", "paused"].includes(status)),
      asks: [...this.asks.values()].map(({ interrupt }) => interrupt),
      past: this.past,
    });
  }

  /** Messages that were said before the log begins. */
  fill(count) {
    const ts = (index) => new Date(Date.UTC(2026, 0, 1) + index * 60_000).toISOString();
    this.past = Array.from({ length: count }, (_, index) => ({
      id: `past_${index}`,
      role: index % 2 ? "assistant" : "user",
      content: index % 2 ? `Answer ${index}: **the loss** is \`0.${index}\`.\n\n- one point\n- another one, which is longer than a line of a narrow view and so goes on in the next` : `Question ${index}: how is the loss now?`,
      runId: `past_r${Math.floor(index / 2)}`,
      origin: USER,
      timestamp: ts(index),
    }));
  }

  /** Where a word is in them, the newest first. */
  search(query, from, limit) {
    const word = query.trim().toLowerCase();
    const found = this.past.filter(({ content }) => content.toLowerCase().includes(word)).reverse();
    const hits = found.slice(from, from + limit).map(({ id, role, content, runId, timestamp }) => {
      const at = content.toLowerCase().indexOf(word);
      const parts = [content.slice(0, at), content.slice(at, at + word.length), content.slice(at + word.length)];
      return { role, message_id: id, run_id: runId, at: timestamp, snippet: parts.map((text, index) => ({ text, match: index === 1 })) };
    });
    return { hits, next: from + limit < found.length ? String(from + limit) : null, complete: true };
  }

  /** A page of them, which goes back in time. */
  transcript(before, limit) {
    const end = before === null ? this.past.length : before.startsWith("past_r") ? 2 * Number(before.slice(6)) : Number(before);
    const start = Math.max(0, end - limit);
    return { messages: this.past.slice(start, end), runs: [], questions: [], earlier: start > 0 ? String(start) : null };
  }
}
