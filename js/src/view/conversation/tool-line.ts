/** A call of a tool as one line of words: "Ran code", "Reading cell 3…", "Could not write notes.md". Pure. */

import { isObject } from "../../protocol/frames.js";
import { strings } from "../lib/strings.js";
import { markedLine } from "../lib/visible-text.js";
import type { ToolVerb } from "./tool-strings.js";

type Fields = Readonly<Record<string, unknown>>;

/** Of a call in words. `asking`: the user is asked whether it may be made. */
export type LineStatus = "streaming" | "running" | "done" | "stopped" | "failed" | "asking" | "denied";

/** Characters of a name or text in a line. */
const LONGEST = 60;

/** What was called, with what (as far as that can be read), what came of it, and how far it is. */
export function toolLine(named: string, args: unknown, result: unknown, status: LineStatus): string {
  const name = knownName(named);
  const own = (strings.toolVerbs as Readonly<Record<string, ToolVerb>>)[name];
  const about = own ? (aboutOf(name, isObject(args) ? args : {}, isObject(result) ? result : {}) ?? own.any) : toolName(name);
  const { done, running, plain } = own ?? strings.toolOther;
  // In German the line may begin with what it is about: words of ours are capitals there, names stay as they are.
  const isOurs = own !== undefined && about === own.any;
  const first = isOurs ? about.slice(0, 1).toLocaleUpperCase() + about.slice(1) : about;
  const filled = (text: string): string => text.replace(/^\{\}/, () => first).replace("{}", () => about);
  const inner = plain.replace("{}", () => about);
  switch (status) {
    case "done":
      return filled(done);
    case "streaming":
    case "running":
      return filled(running);
    case "asking":
      return strings.toolAsks(inner);
    case "failed":
      return strings.toolFailed(inner);
    case "denied":
      return strings.toolDenied(inner);
    case "stopped":
      return strings.toolStopped(inner);
  }
}

/** Whether a tool has words of its own, which say all that its arguments do on one line. */
export function hasVerb(name: string): boolean {
  return Object.hasOwn(strings.toolVerbs, knownName(name));
}

/** How the calls of an agent program are named: this, and the kind that the program gives (Agent Client Protocol). */
const OF_AGENT = "acp__";

export function isOfAgent(name: string): boolean {
  return name.startsWith(OF_AGENT);
}

/** A kind that came with a later version of the protocol is one of the others. */
function knownName(name: string): string {
  return isOfAgent(name) && !Object.hasOwn(strings.toolVerbs, name) ? `${OF_AGENT}other` : name;
}

/** What an agent program says of its call, in its own words; empty where the line has it, or nothing is known. */
export function agentTitle(name: string, args: Fields): string {
  const { title } = args;
  if (!isOfAgent(name) || typeof title !== "string" || knownName(name) === `${OF_AGENT}other`) return "";
  const about = aboutOf(name, args, {});
  return about !== null && title.trim().split(/[\s/\\]+/).at(-1) === about ? "" : title;
}

/** `search of github` for `github__search`, which is how tools of MCP servers are called. */
function toolName(name: string): string {
  const [, server = "", tool = ""] = /^(.+?)__(.+)$/.exec(name) ?? [];
  return server && tool ? strings.toolOf(shortened(tool), shortened(server)) : shortened(name);
}

/** What a call is about, for the user's eyes: never an id. Null where that is not known. */
function aboutOf(name: string, args: Fields, result: Fields): string | null {
  switch (name) {
    case "create_recall":
    case "recall_when_true":
    case "change_recall":
    case "pause_recall":
    case "resume_recall":
    case "cancel_recall":
      return quoted(result["title"]) ?? quoted(args["title"]) ?? quoted(args["message"]);
    case "search_files":
      return quoted(args["query"]);
    case "recall_notebook":
    case "run_notebook":
    case "read_file":
    case "write_file":
      return fileName(args["path"]);
    case "list_files":
      return fileName(args["path"]);
    case "read_notebook":
      return text(args["cells"]) === null ? fileName(args["path"]) : cellsOf(args["cells"]);
    case "edit_cell":
    case "delete_cell":
    case "run_cell":
      return cellsOf(args["cell"]);
    case "inspect_variable":
      return text(args["name"]);
    case "acp__read":
    case "acp__edit":
    case "acp__delete":
    case "acp__move":
      return fileName(firstPath(args));
    case "acp__other":
      return quoted(args["title"]);
    default:
      return null;
  }
}

/** The path of the first place that a call of an agent program names. */
function firstPath({ locations }: Fields): unknown {
  const first: unknown = Array.isArray(locations) ? locations[0] : null;
  return isObject(first) ? first["path"] : null;
}

/** Cells by their places, as `2`, `2-4` and `-1` name them from 0 on; null for ids and lists. */
function cellsOf(value: unknown): string | null {
  const named = text(typeof value === "number" ? String(value) : value) ?? "";
  if (named === "-1") return strings.toolLastCell;
  const [, first, last] = /^(\d{1,6})(?:-(\d{1,6}))?$/.exec(named) ?? [];
  if (first === undefined) return null;
  return last === undefined || last === first ? strings.toolCell(Number(first) + 1) : strings.toolCells(Number(first) + 1, Number(last) + 1);
}

function fileName(value: unknown): string | null {
  return text(typeof value === "string" ? value.replace(/\/+$/, "").split("/").at(-1) : value);
}

function quoted(value: unknown): string | null {
  const shown = text(value);
  return shown === null ? null : strings.toolQuoted(shown);
}

function text(value: unknown): string | null {
  return typeof value === "string" && value.trim() ? shortened(value) : null;
}

function shortened(value: string): string {
  const line = value.trim().split(/\s+/).join(" ");
  return markedLine(line.length <= LONGEST ? line : `${line.slice(0, LONGEST - 1).trimEnd()}…`);
}
