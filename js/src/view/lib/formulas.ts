/**
 * Formulas in Markdown: which dollars and brackets enclose TeX, and which are money, shell variables or brackets. The
 * rule in words is in docs/markdown.md; cells have the same one (`navi_jupyter/formulas.py`), and both are held by the
 * rows of `tests/kernel/formulas.json`.
 */

export interface Formula {
  readonly tex: string;
  /** On lines of its own. */
  readonly isDisplay: boolean;
  readonly end: number;
}

// Each ends at the first mark that closes it, and never reaches over a blank line. A backslash and what follows it are
// one piece, so that an escaped dollar and the end of a row of a matrix (`\\]`) close nothing. 5000: a proof on one
// line is a tenth of this, and a mark without an end is searched no further.
const FORMS: Readonly<Record<string, RegExp>> = {
  $$: /\$\$((?:[^$\\\n]|\\[^\n]|\$(?!\$)|\n(?![ \t]*(?:\n|$))){1,5000}?)\$\$/y,
  "\\[": /\\\[((?:[^\\\n]|\\(?!\])[^\n]|\n(?![ \t]*(?:\n|$))|\\(?=\n)){1,5000}?)\\\]/y,
  "\\(": /\\\(((?:[^\\\n]|\\(?!\))[^\n]){1,5000}?)\\\)/y,
  // Pandoc's rule: no blank inside at either end; and no digit, letter or brace behind.
  $: /\$(?![\s$])((?:[^$\\\n]|\\[^\n]){1,5000}?)(?<!\s)\$(?:(?![A-Za-z0-9${])|(?=(?:th|st|nd|rd|s)\b))/y,
};

const COMMAND = /\\[A-Za-z]+/g;
const TEXT_COMMAND = /\\(?:text|math|operatorname|mbox|hbox|label|tag|begin|end)[a-z]*\*?\s*\{[^{}]*\}/g;
const FUNCTION =
  /\b(?:sin|cos|tan|cot|sec|csc|sinh|cosh|tanh|arcsin|arccos|arctan|log|ln|lg|exp|min|max|lim|sup|inf|det|dim|gcd|lcm|arg|argmin|argmax|mod|deg|ker|rank|tr|diag|sgn|sign|var|cov|std|if|iff|or|and|for|all)\b(?![:/])|[A-Za-z]+(?=\()/gi;
const TWO_WORDS = /\p{L}{2,}[,;:.]?\s+\p{L}{2,}/u;
const THREE_WORDS = /\p{L}{2,}[,;:.]?\s+\p{L}{2,}[,;:.]?\s+\p{L}{2,}/u;
const AMOUNT = /\d\s+\p{L}{3,}|\d\s*\/\s*\p{L}{2,}|\d\s+\p{L}{2,}\s+\d/u;
const SIGN = /[\\^_=+<>*|]/;
const WORD = /\p{L}{3,}/u;
const ONE_WORD = /^\p{L}+$/u;
// No word of TeX is as long; what the patterns above do for one grows with its square.
const ENDLESS = /[\p{L}\p{N}_]{200}/u;
const VARIABLE = /^(?:[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|[a-z]{2,}(?:_[a-z]{2,})+)$/;
const REFERENCE = /^(?:[\d\s,;–-]+|[A-Za-z]{3,})$/;

/** The formula whose opening mark is at `start`; null where that is no formula. `before`: the character ahead of `text`. */
export function formulaAt(text: string, start: number, before = ""): Formula | null {
  const two = text.slice(start, start + 2);
  const mark = two in FORMS ? two : two.slice(0, 1);
  const form = FORMS[mark];
  const previous = start > 0 ? text.charAt(start - 1) : before;
  // `US$5`, `1000$`, `array\[0\]`; two dollars are no currency.
  if (!form || previous === "$" || (mark !== "$$" && /[A-Za-z0-9]/.test(previous))) return null;
  form.lastIndex = start;
  const found = form.exec(text);
  const tex = found?.[1]?.trim() ?? "";
  if (!found || !isFormula(tex) || (mark === "\\[" && REFERENCE.test(tex))) return null;
  return { tex, isDisplay: mark === "$$" || mark === "\\[", end: start + found[0].length };
}

/** Whether what stands between two marks looks like TeX, and not like prose, an amount of money or a path. */
function isFormula(tex: string): boolean {
  if (!tex || ENDLESS.test(tex) || VARIABLE.test(tex)) return false;
  const bare = tex.replace(TEXT_COMMAND, "·").replace(COMMAND, "·").replace(FUNCTION, "·");
  if (tex.search(COMMAND) >= 0) return !THREE_WORDS.test(bare);
  if (TWO_WORDS.test(bare) || AMOUNT.test(tex)) return false;
  if (SIGN.test(tex)) return true;
  return !/[:,;"'/]$/.test(tex) && (!WORD.test(bare) || ONE_WORD.test(tex));
}
