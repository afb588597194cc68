/** Drawings of the recalls panel, as in `icons`. */

import { html, svg, type SVGTemplateResult, type TemplateResult } from "lit";

function icon(drawing: SVGTemplateResult): TemplateResult {
  return html`<svg class="navi-icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">${drawing}</svg>`;
}

export const recallIcons = {
  copy: icon(svg`<rect x="5.5" y="5.5" width="8" height="8" rx="1.5" fill="none" stroke="currentColor" stroke-width="1.3"/><path d="M10.5 3.2V3a1 1 0 0 0-1-1H3.5a1 1 0 0 0-1 1v6a1 1 0 0 0 1 1h.2" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linecap="round"/>`),
  list: icon(svg`<path d="M6 4h7.5M6 8h7.5M6 12h7.5M2.8 4h.1M2.8 8h.1M2.8 12h.1" stroke="currentColor" stroke-width="1.5" stroke-linecap="round"/>`),
  revoke: icon(svg`<path d="M8 1.8l5.2 2v3.9c0 3-2.2 5.4-5.2 6.5-3-1.1-5.2-3.5-5.2-6.5V3.8zM5.8 6l4.4 4.4M10.2 6l-4.4 4.4" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" stroke-linecap="round"/>`),
  bell: icon(svg`<path d="M4 11.2V7a4 4 0 0 1 8 0v4.2l1 1.3H3zM6.6 14.2h2.8" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" stroke-linecap="round"/>`),
};
