/** Drawings, 16 by 16, in the colour of the text around them. */

import { html, svg, type SVGTemplateResult, type TemplateResult } from "lit";

function icon(drawing: SVGTemplateResult): TemplateResult {
  return html`<svg class="navi-icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false">${drawing}</svg>`;
}

export const icons = {
  navi: icon(svg`<path fill="currentColor" d="M8 1.2l1.5 4.1a2 2 0 0 0 1.2 1.2L14.8 8l-4.1 1.5a2 2 0 0 0-1.2 1.2L8 14.8l-1.5-4.1a2 2 0 0 0-1.2-1.2L1.2 8l4.1-1.5a2 2 0 0 0 1.2-1.2z"/>`),
  clock: icon(svg`<circle cx="8" cy="8.5" r="5.75" fill="none" stroke="currentColor" stroke-width="1.4"/><path d="M8 5.5v3.2l2 1.3M3.2 1.8L1.5 3.4M12.8 1.8l1.7 1.6" fill="none" stroke="currentColor" stroke-width="1.4" stroke-linecap="round" stroke-linejoin="round"/>`),
  send: icon(svg`<path d="M8 13V3.5M3.8 7.6L8 3.4l4.2 4.2" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"/>`),
  stop: icon(svg`<rect x="4" y="4" width="8" height="8" rx="1.5" fill="currentColor"/>`),
  tool: icon(svg`<path d="M9.9 2.3a3.6 3.6 0 0 0-4.5 4.7L2 10.4a1.6 1.6 0 0 0 2.3 2.3L7.7 9.3a3.6 3.6 0 0 0 4.7-4.5l-2 2-2-.5-.5-2z" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" transform="translate(.6 .5)"/>`),
  thought: icon(svg`<path d="M8 2.2a4 4 0 0 0-2.3 7.3c.5.4.8.9.8 1.5h3c0-.6.3-1.1.8-1.5A4 4 0 0 0 8 2.2zM6.7 13.2h2.6" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linecap="round" stroke-linejoin="round"/>`),
  chevron: icon(svg`<path d="M6 4l4 4-4 4" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round"/>`),
  down: icon(svg`<path d="M8 3v9.5M3.8 8.6L8 12.8l4.2-4.2" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round"/>`),
  close: icon(svg`<path d="M4.2 4.2l7.6 7.6M11.8 4.2l-7.6 7.6" stroke="currentColor" stroke-width="1.5" stroke-linecap="round"/>`),
  pause: icon(svg`<path d="M5.8 4v8M10.2 4v8" stroke="currentColor" stroke-width="1.8" stroke-linecap="round"/>`),
  play: icon(svg`<path d="M5.5 3.8v8.4L12 8z" fill="none" stroke="currentColor" stroke-width="1.4" stroke-linejoin="round"/>`),
  fire: icon(svg`<path d="M9 1.8L3.8 9H8l-1 5.2L12.2 7H8z" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round"/>`),
  check: icon(svg`<path d="M3.5 8.5l3 3 6-6.5" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round"/>`),
  warning: icon(svg`<path d="M8 2.2l6.3 11.2H1.7zM8 6.5v3.2M8 11.4v.1" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" stroke-linecap="round"/>`),
};
