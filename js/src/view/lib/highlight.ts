/** Code as HTML: coloured once the highlighter has been loaded, plain until then. */

import { Lazy } from "./lazy.js";
import { drawable } from "./plain-text.js";

type Colour = (code: string, language: string) => string | null;

const engine = new Lazy<Colour>(async () => (await import("./highlight-engine.js")).colour);

/** Longer code is shown plain: colouring it would be felt. */
const LONGEST = 20_000;

/** The code as HTML, escaped; coloured when the language is known. */
export function highlight(source: string, language: string): string {
  const code = drawable(source);
  const coloured = language && code.length <= LONGEST ? (engine.get()?.(code, language) ?? null) : null;
  return coloured ?? escapeHtml(code);
}

export function escapeHtml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
