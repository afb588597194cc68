/** What a view asks of the server besides following the log. */

import { isObject } from "../protocol/frames.js";
import type { McpPage, Recall, RecallPage, RunPage } from "../protocol/generated.js";
import { isOk, type Method, type Transport } from "../connection/transport.js";
import type { ChatState } from "../state/model.js";
import { withRecalls, withRuns, withServers, withSession } from "../state/reduce.js";
import type { RecallAction } from "./recalls.js";
import { strings } from "./strings.js";

const PAGE = 100;

/** Reads the session, its recalls and its runs; answers how to put them into the state. `head`: that of the state now. */
export async function readAround(transport: Transport, session: string, head: number): Promise<(state: ChatState) => ChatState> {
  const id = encodeURIComponent(session);
  const read = async (path: string): Promise<unknown> => {
    const answer = await transport.request("GET", path).catch(() => null);
    return answer && isOk(answer) ? answer.body : null;
  };
  const [info, recalls, runs, mcp] = await Promise.all([
    read(`sessions/${id}`),
    read(`recalls?session_id=${id}&limit=${PAGE}`),
    read(`sessions/${id}/runs?limit=${PAGE}`),
    read("mcp"),
  ]);
  return (state) => {
    let next = isObject(info) ? withSession(state, info) : state;
    if (isPage(recalls, "recalls")) next = withRecalls(next, (recalls as RecallPage).recalls, head);
    if (isPage(runs, "runs")) next = withRuns(next, (runs as RunPage).runs);
    if (isPage(mcp, "mcp")) next = withServers(next, (mcp as McpPage).mcp);
    return next;
  };
}

function isPage(value: unknown, name: string): boolean {
  return isObject(value) && Array.isArray(value[name]);
}

/** Does something to a recall; the log tells every view what came of it. Answers what was wrong, or null. */
export async function actOnRecall(transport: Transport, { id }: Recall, action: RecallAction): Promise<string | null> {
  const path = `recalls/${encodeURIComponent(id)}`;
  const [method, target]: [Method, string] = action === "cancel" ? ["DELETE", path] : ["POST", `${path}/${action}`];
  try {
    const answer = await transport.request(method, target);
    if (isOk(answer)) return null;
    return isObject(answer.body) && typeof answer.body["message"] === "string" ? answer.body["message"] : `HTTP ${answer.status}`;
  } catch {
    return strings.noServer;
  }
}
