/** What a view asks of the server besides following the log. */

import { isObject } from "../../protocol/frames.js";
import type { McpPage, RecallPage, RunPage } from "../../protocol/generated.js";
import { isOk, type Transport } from "../../connection/transport.js";
import type { ChatState } from "../../state/model.js";
import { withQuestions } from "../../state/interrupts.js";
import { withRecalls, withRuns, withServers, withSession } from "../../state/reduce.js";

const PAGE = 100;

/** How to put what was read into the state; and how much of the session is unread, null where the server does not say. */
export interface Around {
  (state: ChatState): ChatState;
  readonly unread: number | null;
}

/** Reads the session, its recalls and its runs. `head`: that of the state now. */
export async function readAround(transport: Transport, session: string, head: number): Promise<Around> {
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
  const merge = (state: ChatState): ChatState => {
    let next = isObject(info) ? withSession(state, info) : state;
    if (isPage(recalls, "recalls")) next = withRecalls(next, (recalls as RecallPage).recalls, head);
    if (isPage(runs, "runs")) next = withQuestions(withRuns(next, (runs as RunPage).runs), (runs as RunPage).questions);
    if (isPage(mcp, "mcp")) next = withServers(next, (mcp as McpPage).mcp);
    return next;
  };
  return Object.assign(merge, { unread: isObject(info) && typeof info["unread"] === "number" ? info["unread"] : null });
}

function isPage(value: unknown, name: string): boolean {
  return isObject(value) && Array.isArray(value[name]);
}
