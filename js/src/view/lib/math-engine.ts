/** TeX to MathML. A bundle of its own (navi-math.js), loaded when the first formula is shown. */

import katex from "katex";

export function toMathML(tex: string, display: boolean): string {
  const html = katex.renderToString(tex, { output: "mathml", displayMode: display, throwOnError: false, trust: false, maxExpand: 200 });
  // The TeX source would be shown as text once the sanitiser has taken the tag away.
  return html.replace(/<annotation[^>]*>[\s\S]*?<\/annotation>/g, "");
}
