/** What runs of recalls lacked of leave to do without asking, and the way to give it. Its choice in a form: `leave-choice`. */

import { html, nothing, type TemplateResult } from "lit";
import { strings } from "../lib/strings.js";
import { tryTo, type RequestContext } from "./requests.js";

const NEEDED = "needed approval: ";

/** The tools whose calls ended a firing because they were not approved, from its reason. */
export function neededTools(reason: string | null): readonly string[] {
  return reason?.startsWith(NEEDED) ? reason.slice(NEEDED.length).split(", ").filter(Boolean) : [];
}

/** Runs a recall again with leave for what its last run lacked. True when the server took it. */
export async function runWithLeave(context: RequestContext, recallId: string, tools: readonly string[]): Promise<boolean> {
  const { why } = await tryTo(context, "POST", `recalls/${encodeURIComponent(recallId)}/fire`, { allow: tools });
  if (why !== null) context.problem(strings.failed(why));
  return why === null;
}

/** What a run lacked, and the button that gives it leave for that; nothing where it lacked nothing. */
export function needed(reason: string | null, again: (tools: readonly string[]) => void): TemplateResult | typeof nothing {
  const tools = neededTools(reason);
  if (!tools.length) return nothing;
  return html`<button type="button" class="navi-link" data-navi="allow-again" aria-label=${strings.leaveAgainFor(tools.join(", "))} title=${strings.leaveAgainFor(tools.join(", "))} @click=${() => again(tools)}>
    ${strings.leaveAgain}
  </button>`;
}
