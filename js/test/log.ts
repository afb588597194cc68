/** Writes logs for tests: each call is one event, numbered. */

import type { AnyEvent, Custom, Envelope, Origin, Recall, RecallStatus } from "../src/protocol/generated.js";

export const USER: Origin = { kind: "user", recall_id: null };

export class Log {
  readonly envelopes: Envelope[] = [];
  #seq: number;

  constructor(after = 0) {
    this.#seq = after;
  }

  add(event: AnyEvent, runId: string | null = null, origin: Origin = USER): this {
    this.#seq += 1;
    this.envelopes.push({ seq: this.#seq, session_id: "s", run_id: runId, ts: "2026-11-22T22:13:00.123Z", origin, event });
    return this;
  }

  custom(name: Custom["name"], value: Custom["value"], runId: string | null = null): this {
    return this.add({ type: "CUSTOM", name, value }, runId);
  }

  prompt(id: string, text: string, runId: string, origin: Origin = USER): this {
    return this.add({ type: "TEXT_MESSAGE_START", messageId: id, role: "user" }, runId, origin)
      .add({ type: "TEXT_MESSAGE_CONTENT", messageId: id, delta: text }, runId, origin)
      .add({ type: "TEXT_MESSAGE_END", messageId: id }, runId, origin);
  }

  queued(id: string, runId: string): this {
    return this.custom("navi.queue", { action: "queued", command_id: id, run_id: runId }, runId);
  }

  started(runId: string): this {
    return this.add({ type: "RUN_STARTED", threadId: "s", runId }, runId);
  }

  begin(id: string, text: string, runId: string): this {
    return this.add({ type: "TEXT_MESSAGE_START", messageId: id, role: "assistant" }, runId).more(id, text, runId);
  }

  more(id: string, delta: string, runId: string): this {
    return this.add({ type: "TEXT_MESSAGE_CONTENT", messageId: id, delta }, runId);
  }

  done(id: string, runId: string): this {
    return this.add({ type: "TEXT_MESSAGE_END", messageId: id }, runId);
  }

  finished(runId: string, type: "success" | "cancelled" | "interrupt" = "success"): this {
    return this.add({ type: "RUN_FINISHED", threadId: "s", runId, outcome: { type } }, runId);
  }

  failed(runId: string, code: string, message: string): this {
    return this.add({ type: "RUN_ERROR", code, message }, runId);
  }

  recall(recall: Recall, action = "created"): this {
    return this.custom("navi.recall", { action, status: recall.status, recall });
  }
}

/** The events of a prelude that describes `head`. */
export function prelude(head: number, events: readonly AnyEvent[], runId: string | null = null): Envelope[] {
  return events.map((event) => ({ seq: head, session_id: "s", run_id: runId, ts: "2026-11-22T22:13:00.123Z", origin: USER, event, snapshot: true }));
}

export function recall(id: string, status: RecallStatus = "pending", nextAt: string | null = "2026-11-23T09:00:00+00:00"): Recall {
  return {
    id,
    session_id: "s",
    title: `title of ${id}`,
    message: "check the loss",
    schedule: { kind: "once", at: "2026-11-23T09:00:00+00:00" },
    policy: { misfire: "latest", grace: null, busy: "defer", retries: 0, timeout: null, until: null, max_fires: null, jitter: null, cancel_on: [], notify: [], quiet: null, needs: "auto" },
    status,
    next_at: nextAt,
    last_at: null,
    fired: 0,
    created_at: "2026-11-22T09:00:00+00:00",
    origin: "user",
    allow: [],
    reason: null,
    run: { kind: "prompt" },
    last_result: null,
  };
}
