/** Drawings of the panel's bar, as in `icons`. */

import { html, svg, type SVGTemplateResult, type TemplateResult } from "lit";

function icon(drawing: SVGTemplateResult): TemplateResult {
  return html`<svg class="navi-icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">${drawing}</svg>`;
}

export const panelIcons = {
  pin: icon(svg`<path d="M5.5 2h5M6.2 2v4.2L4 8.6v1.2h8V8.6L9.8 6.2V2M8 9.8V14" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" stroke-linecap="round"/>`),
  pinned: icon(svg`<path d="M5.5 2h5M6.2 2v4.2L4 8.6v1.2h8V8.6L9.8 6.2V2zM8 9.8V14" fill="currentColor" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" stroke-linecap="round"/>`),
  plus: icon(svg`<path d="M8 3v10M3 8h10" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round"/>`),
  page: icon(svg`<path d="M6.5 3H3.8A.8.8 0 0 0 3 3.8v8.4a.8.8 0 0 0 .8.8h8.4a.8.8 0 0 0 .8-.8V9.5M9.5 3H13v3.5M13 3L7.6 8.4" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" stroke-linecap="round"/>`),
};
