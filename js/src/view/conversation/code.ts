/** Code that tools are called with, coloured. */

import { html, type TemplateResult } from "lit";
import { unsafeHTML } from "lit/directives/unsafe-html.js";
import { highlight } from "../lib/highlight.js";
import { strings } from "../lib/strings.js";
import "../../style/code.js";

/** Arguments of ours whose value is code, or the text of a cell or file. */
const CODE = ["code", "source", "new_source", "content"];
/** Which argument replaces which. */
const CHANGES = [["search", "replace"], ["old", "new"], ["old_source", "source"], ["old_source", "new_source"], ["expected", "source"], ["before", "after"]] as const;

type Fields = Readonly<Record<string, unknown>>;

export interface Parts {
  readonly code: readonly { readonly name: string; readonly text: string; readonly language: string }[];
  readonly change: { readonly before: string; readonly after: string } | null;
  /** What is neither. */
  readonly others: readonly (readonly [string, unknown])[];
}

/** The arguments of a call, by what a person has to look at. */
export function partsOf(tool: string, args: Fields): Parts {
  const text = (name: string): string | null => (typeof args[name] === "string" ? args[name] : null);
  const pair = CHANGES.find(([before, after]) => text(before) !== null && text(after) !== null);
  const used = new Set<string>(pair ?? []);
  if (pair?.[0] === "search") used.add("expected"); // what the cell is thought to hold: the change is what matters
  const code = CODE.filter((name) => !used.has(name) && text(name) !== null).map((name) => {
    used.add(name);
    return { name, text: text(name) ?? "", language: languageOf(tool, name, args) };
  });
  const others = Object.entries(args).filter(([name, value]) => !used.has(name) && value !== null);
  const change = pair ? { before: text(pair[0]) ?? "", after: text(pair[1]) ?? "" } : null;
  return { code, change, others };
}

export function isCode(name: string): boolean {
  return CODE.includes(name) || CHANGES.some((pair) => (pair as readonly string[]).includes(name));
}

function languageOf(tool: string, name: string, args: Fields): string {
  if (name === "content") return String(args["path"] ?? "").split(".").at(-1) ?? "";
  if (args["kind"] === "markdown" || args["cell_type"] === "markdown") return "markdown";
  return typeof args["language"] === "string" ? args["language"] : tool === "write_file" ? "" : "python";
}

const LANGUAGES: Readonly<Record<string, string>> = { py: "python", js: "javascript", ts: "typescript", md: "markdown", sh: "bash", yml: "yaml", html: "xml", R: "r", jl: "julia" };

export function codeView(text: string, language: string, label = strings.toolCode): TemplateResult {
  return html`<pre class="navi-code" tabindex="0" role="group" aria-label=${label}>${highlightedCode(text, language)}</pre>`;
}

/** Escaped by the highlighter, which is what makes it safe here. */
export function highlightedCode(text: string, language: string): TemplateResult {
  return html`<code>${unsafeHTML(highlight(text, LANGUAGES[language] ?? language))}</code>`;
}
