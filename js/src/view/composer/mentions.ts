/** What a prompt can name with `@`: what the page around the chat has, and what the server knows. */

import { isObject } from "../../protocol/frames.js";
import type { MentionInfo, MentionPage } from "../../protocol/generated.js";
import type { Mention, NotebookHost } from "../host.js";
import { strings } from "../lib/strings.js";
import { tryTo, type RequestContext } from "../recalls/requests.js";
import type { Suggestion, Suggestions } from "./completion.js";

/** Of which the page knows more than the server: it has what is not saved. */
const OF_THE_PAGE = ["cell", "error"];
const ALL = ["cell", "error", "variable", "file", "session", "recall"];
const MOST_OF_THE_PAGE = 12;

export async function mentionSuggestions(context: RequestContext, host: NotebookHost | null, query: string): Promise<Suggestions> {
  const shown = host === null ? [] : host.mentions(query.replace(/^(?:cell|error):/, "")).slice(0, MOST_OF_THE_PAGE);
  const own = shown.filter(({ kind }) => !/^(?:cell|error):/.test(query) || query.startsWith(`${kind}:`)).map(ofPage);
  const kinds = host === null ? ALL : ALL.filter((kind) => !OF_THE_PAGE.includes(kind));
  const session = encodeURIComponent(context.session() ?? "");
  const { body } = await tryTo(context, "GET", `sessions/${session}/mentions?kind=${kinds.join(",")}&query=${encodeURIComponent(query)}`);
  if (!isPage(body)) return { options: own, notes: [] };
  const found = body.mentions.map(ofServer);
  // An exact name goes before what only has its letters.
  const isNamed = ({ label }: Suggestion): boolean => query !== "" && label.toLowerCase().startsWith(query.toLowerCase());
  return { options: [...found.filter(isNamed), ...own, ...found.filter((option) => !isNamed(option))], notes: query === "" ? body.notes : [] };
}

function ofPage({ kind, cell, label, detail }: Mention): Suggestion {
  const number = /\[(\d+)\]/.exec(label)?.[1];
  const place = /(\d+)$/.exec(label)?.[1];
  const name = number !== undefined ? `In[${number}]` : place !== undefined ? `#${place}` : cell;
  return { token: `@${kind}:${name}`, label, detail, kind: strings.mentionKinds[kind] };
}

function ofServer({ token, label, detail, kind }: MentionInfo): Suggestion {
  return { token, label, detail, kind: strings.mentionKinds[kind] };
}

function isPage(value: unknown): value is MentionPage {
  return isObject(value) && Array.isArray(value["mentions"]) && Array.isArray(value["notes"]);
}
