/** TeX to MathML. A bundle of its own (navi-math.js), loaded when the first formula is shown. */

import katex from "katex";

/** Characters, commands and groups in one another of a formula that is drawn: KaTeX is recursive, and MathML nests as deep. */
const LONGEST = 5_000;
const MOST_COMMANDS = 500;
const DEEPEST = 40;
/** Names that make others: a formula needs none, and with a few lines of them a small text becomes a huge one. */
const DEFINES = /\\(?:[egx]?def|let|futurelet|newcommand|renewcommand|providecommand|newenvironment|global|long|char)(?![A-Za-z])/;

/** Throws where the formula exceeds a bound. */
export function toMathML(tex: string, display: boolean): string {
  if (tex.length > LONGEST || (tex.match(/\\/g)?.length ?? 0) > MOST_COMMANDS || depthOf(tex) > DEEPEST || DEFINES.test(tex)) {
    throw new RangeError("a formula that is too deep or too long to draw");
  }
  const html = katex.renderToString(tex, { output: "mathml", displayMode: display, throwOnError: false, trust: false, maxExpand: 200, maxSize: 20 });
  // The TeX source would be shown as text once the sanitiser has taken the tag away.
  return html.replace(/<annotation[^>]*>[\s\S]*?<\/annotation>/g, "");
}

/** How deep groups nest: braces, `\left` and `\begin`, and commands that take the next one as their argument. */
export function depthOf(tex: string): number {
  let depth = 0;
  let deepest = 0;
  let row = 0;
  for (const [sign] of tex.matchAll(/\\[{}]|\\[A-Za-z]+|[{}^_]|[^\\{}^_\s]+/g)) {
    if (sign === "{" || sign === "\\left" || sign === "\\begin") depth += 1;
    else if (sign === "}" || sign === "\\right" || sign === "\\end") depth = Math.max(0, depth - 1);
    row = /^(?:\\[A-Za-z]|[{^_])/.test(sign) ? row + 1 : 0;
    deepest = Math.max(deepest, depth, row);
  }
  return deepest;
}
