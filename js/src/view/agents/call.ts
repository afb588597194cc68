/**
 * A call that an agent program has made with a tool of its own: what it is by the Agent Client Protocol, what it changes,
 * and the files that it names. The log has it in the arguments, and as it is now in the activity `navi.agent_call`.
 */

import { html, nothing, type TemplateResult } from "lit";
import { isObject } from "../../protocol/frames.js";
import type { ToolCall } from "../../state/model.js";
import { diffView } from "../conversation/diff.js";
import { isOfAgent } from "../conversation/tool-line.js";
import { fileLink } from "../lib/files.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";
import { visibleText } from "../lib/visible-text.js";

type Fields = Readonly<Record<string, unknown>>;

/** The activity with what the program has reported of its call: nothing of it is drawn beside the line. */
export const AGENT_CALL = "navi.agent_call";
/** Places and changes of one call that are shown; more are of no use to a reader. */
const MOST = 50;
/** Characters of a text whose difference is drawn: comparing longer ones would block the browser. */
const LONGEST = 100_000;

/** The call as it is now: its name by its kind, and its arguments with what has been reported since. */
export function presentCall(call: ToolCall, args: unknown): { readonly name: string; readonly args: unknown } {
  if (!isOfAgent(call.name)) return { name: call.name, args };
  const now = reported(call);
  const before = isObject(args) ? args : {};
  const kind = now["kind"] ?? before["kind"];
  return { name: typeof kind === "string" ? `acp__${kind}` : call.name, args: { ...before, ...now } };
}

function reported({ activities }: ToolCall): Fields {
  return activities.findLast(({ type }) => type === AGENT_CALL)?.content ?? {};
}

const ICONS: Readonly<Record<string, TemplateResult>> = {
  acp__read: icons.file,
  acp__edit: icons.edit,
  acp__delete: icons.close,
  acp__move: icons.down,
  acp__search: icons.search,
  acp__execute: icons.play,
  acp__think: icons.thought,
  acp__fetch: icons.plug,
  acp__switch_mode: icons.sliders,
};

export function callIcon(name: string): TemplateResult {
  return ICONS[name] ?? icons.tool;
}

/** What a call of an agent program changes and names; its other arguments are the program's own, and come after. */
export function callParts(call: ToolCall, args: Fields): TemplateResult | typeof nothing {
  if (!isOfAgent(call.name)) return nothing;
  const { locations, changes } = { ...args, ...reported(call) };
  const places = listOf(locations).flatMap(placeOf);
  return html`${places.length
      ? html`<h4>${strings.callPlaces}</h4>
          <ul class="navi-call-places" data-navi="call-places">
            ${places.map(({ path, line }) => html`<li>${place(path, line)}</li>`)}
          </ul>`
      : nothing}
    ${listOf(changes).map((change) => changeView(change))}`;
}

/** Of the arguments, what is not drawn already. */
export function otherArguments(args: Fields): Fields {
  const { title: _title, kind: _kind, locations: _locations, changes: _changes, input, ...others } = args;
  return isObject(input) ? { ...others, ...input } : input === undefined || input === null ? others : { ...others, input };
}

function listOf(value: unknown): readonly Fields[] {
  return Array.isArray(value) ? value.filter(isObject).slice(0, MOST) : [];
}

function placeOf({ path, line }: Fields): readonly { readonly path: string; readonly line: number | null }[] {
  return typeof path === "string" && path && path !== "." ? [{ path, line: typeof line === "number" ? line : null }] : [];
}

/** A file of the server's folder can be opened; others are named. */
function place(path: string, line: number | null): TemplateResult {
  const text = line === null ? path : `${path}:${line}`;
  const isInside = !/^(?:[/\\~]|[a-zA-Z]:|[a-z][a-z0-9+.-]*:)/.test(path) && !path.split("/").includes("..");
  return isInside ? fileLink({ path, cell: null }, text, "call-place") : html`<span data-navi="call-place" dir="ltr">${visibleText(text)}</span>`;
}

function changeView({ path, before, after }: Fields): TemplateResult | typeof nothing {
  if (typeof after !== "string") return nothing;
  const old = typeof before === "string" ? before : "";
  const title = strings.callChange(typeof path === "string" ? path : "");
  const text = after.length > LONGEST ? `${after.slice(0, LONGEST)}…` : after;
  return html`<h4>${visibleText(title)}</h4>
    ${old.length + after.length > LONGEST ? html`<pre tabindex="0" role="group" aria-label=${title}>${visibleText(text)}</pre>` : diffView(old, after)}`;
}
