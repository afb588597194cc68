/** Formulas in Markdown: recognised at once, drawn when the engine has been loaded, shown as TeX until then. */

import type { MarkedExtension, TokenizerExtension } from "marked";
import { escapeHtml } from "./highlight.js";

type Engine = (tex: string, display: boolean) => string;

let engine: Engine | null = null;
let loading: Promise<void> | null = null;
const loaded = new Set<() => void>();

/** Calls `listener` once formulas that were shown as TeX can be drawn. */
export function whenMathLoads(listener: () => void): void {
  if (!engine) loaded.add(listener);
}

function load(): void {
  // Beside this bundle on the server; a bundle that came through the kernel (blob:) has nothing beside it.
  if (loading || !/^https?:/.test(import.meta.url)) return;
  const url = new URL("navi-math.js", import.meta.url);
  url.search = new URL(import.meta.url).search;
  loading = import(url.href)
    .then((module: { toMathML: Engine }) => {
      engine = module.toMathML;
      for (const listener of loaded) listener();
      loaded.clear();
    })
    .catch(() => {}); // TeX stays readable
}

function draw(tex: string, display: boolean): string {
  if (!engine) load();
  if (!engine) return `<code class="navi-math${display ? "-display" : ""}">${escapeHtml(tex)}</code>`;
  return engine(tex, display);
}

function rule(name: string, level: "inline" | "block", start: RegExp, pattern: RegExp, display: boolean): TokenizerExtension & { renderer: (token: object) => string } {
  return {
    name,
    level,
    start: (source) => start.exec(source)?.index,
    tokenizer(source) {
      const match = pattern.exec(source);
      return match ? { type: name, raw: match[0], text: (match[1] ?? match[2] ?? "").trim() } : undefined;
    },
    renderer: (token) => draw((token as { text: string }).text, display),
  };
}

/** `$…$` needs a non-space inside and no digit behind: "$5 and $10" is money. */
export const mathExtension: MarkedExtension = {
  extensions: [
    rule("mathBlock", "block", /(?:^|\n)(?:\$\$|\\\[)/, /^(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n|$)/, true),
    rule("mathDisplay", "inline", /\$\$|\\\[/, /^(?:\$\$([^\n]+?)\$\$|\\\[([^\n]+?)\\\])/, true),
    rule("mathInline", "inline", /\$|\\\(/, /^(?:\$(?!\s|\$)((?:\\.|[^\n\\$])+?)(?<!\s)\$(?!\d)|\\\(([^\n]+?)\\\))/, false),
  ],
};
