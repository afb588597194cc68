/** Reads what comes over the wire. Not responsible for what it means: that is the reducer. */

import type { AcceptedCommand, Envelope, Recall, Rejection } from "./generated.js";

export type Frame =
  | { readonly kind: "envelopes"; readonly envelopes: readonly Envelope[] }
  | { readonly kind: "accepted"; readonly accepted: AcceptedCommand }
  | { readonly kind: "rejected"; readonly rejected: Rejection }
  | { readonly kind: "unknown" };

type Fields = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A server frame; `unknown` when it is none that this version understands (a newer server may send more). */
export function readFrame(text: string): Frame {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { kind: "unknown" };
  }
  if (!isObject(value)) return { kind: "unknown" };
  if (Array.isArray(value["batch"])) return { kind: "envelopes", envelopes: value["batch"].filter(isEnvelope) };
  if (isEnvelope(value)) return { kind: "envelopes", envelopes: [value] };
  const { accepted, rejected } = value;
  if (isObject(accepted) && typeof accepted["command_id"] === "string") {
    return { kind: "accepted", accepted: accepted as unknown as AcceptedCommand };
  }
  if (isObject(rejected) && typeof rejected["message"] === "string") {
    return { kind: "rejected", rejected: rejected as unknown as Rejection };
  }
  return { kind: "unknown" };
}

/** Shallow on purpose: the server is trusted to send the fields of the event type that it names. */
export function isEnvelope(value: unknown): value is Envelope {
  return (
    isObject(value) && typeof value["seq"] === "number" && isObject(value["event"]) && typeof value["event"]["type"] === "string"
  );
}

export function isRecall(value: unknown): value is Recall {
  return isObject(value) && typeof value["id"] === "string" && typeof value["title"] === "string" && isObject(value["schedule"]);
}

/** A fresh command id. `crypto.randomUUID` exists in secure contexts only, and Jupyter is often plain HTTP. */
export function newCommandId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `c_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
