/** Formulas in Markdown: recognised at once, drawn when the engine has been loaded, shown as TeX until then. */

import type { MarkedExtension, RendererExtension, TokenizerExtension, Tokens } from "marked";
import { formulaAt, type Formula } from "./formulas.js";
import { escapeHtml } from "./highlight.js";
import { Lazy } from "./lazy.js";

type Engine = (tex: string, display: boolean) => string;

// Where everything is in one file, KaTeX would be most of it: TeX stays readable.
const engine = new Lazy<Engine | null>(async () => (__NAVI_SINGLE__ ? null : (await import("./math-engine.js")).toMathML));

function draw(tex: string, display: boolean): string {
  const toMathML = engine.get();
  if (toMathML) {
    try {
      return toMathML(tex, display);
    } catch {
      // A formula that is too deep or too long for the engine: the TeX.
    }
  }
  return `<code class="navi-math${display ? "-display" : ""}">${escapeHtml(tex)}</code>`;
}

/** The last character that is read: of the token before, since a tokenizer gets only what is left. */
function characterBefore(tokens: readonly { readonly raw: string }[]): string {
  return tokens.at(-1)?.raw.at(-1) ?? "";
}

const asToken = (raw: string, { tex, isDisplay }: Formula): Tokens.Generic => ({ type: "formula", raw, tex, isDisplay });

const renderer = (token: Tokens.Generic): string => draw(String(token["tex"]), Boolean(token["isDisplay"]));

const OPENS = /\$|\\[([]/;
/** At most one block is searched: a paragraph ends at a blank line, and the rest of a long text is searched once. */
const untilBlankLine = (source: string): string => {
  const end = source.indexOf("\n\n");
  return end < 0 ? source : source.slice(0, end);
};

const inline: TokenizerExtension & RendererExtension = {
  name: "formula",
  level: "inline",
  start: (source) => OPENS.exec(source)?.index,
  tokenizer(source, tokens) {
    const formula = /^(?:\$|\\[([])/.test(source) ? formulaAt(source, 0, characterBefore(tokens)) : null;
    return formula ? asToken(source.slice(0, formula.end), formula) : undefined;
  },
  renderer,
};

/** The end of a formula on lines of its own (in which a line may look like a list) that begins at `start`; null: none does. */
function blockAt(source: string, start: number): { readonly formula: Formula; readonly end: number } | null {
  const formula = formulaAt(source, start);
  if (!formula) return null;
  const rest = /[ \t]*(?:\n|$)/y;
  rest.lastIndex = formula.end;
  const end = rest.exec(source);
  return end && { formula, end: formula.end + end[0].length };
}

/** Lines of a paragraph that are tried as the beginning of a formula. */
const MOST_STARTS = 50;

const block: TokenizerExtension & RendererExtension = {
  name: "formulaBlock",
  level: "block",
  // Only where there is one: a paragraph is cut there, and one that is cut at each line takes time that grows with its square.
  start(source) {
    const paragraph = untilBlankLine(source);
    let tries = 0;
    for (const found of paragraph.matchAll(/\n {0,3}(?=\$\$|\\\[)/g)) {
      if (blockAt(source, found.index + found[0].length)) return found.index;
      if ((tries += 1) === MOST_STARTS) break;
    }
    return undefined;
  },
  tokenizer(source) {
    const mark = /^\n? {0,3}(?=\$\$|\\\[)/.exec(source);
    const found = mark && blockAt(source, mark[0].length);
    return found ? { ...asToken(source.slice(0, found.end), found.formula), type: "formulaBlock" } : undefined;
  },
  renderer,
};

/** The signs of emphasis in formulas are none: `$a*b$ and $c*d$`. */
function withoutFormulas(source: string): string {
  let masked = "";
  let done = 0;
  for (let at = source.indexOf("$"); at >= 0; at = source.indexOf("$", Math.max(at + 1, done))) {
    const formula = formulaAt(source, at);
    if (!formula) continue;
    masked += source.slice(done, at) + "[" + "a".repeat(formula.end - at - 2) + "]";
    done = formula.end;
  }
  return masked + source.slice(done);
}

export const mathExtension: MarkedExtension = {
  extensions: [block, inline],
  hooks: { emStrongMask: withoutFormulas },
};
