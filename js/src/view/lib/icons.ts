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
  ask: icon(svg`<path d="M8 1.8l5.2 2v3.9c0 3-2.2 5.4-5.2 6.5-3-1.1-5.2-3.5-5.2-6.5V3.8z" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round"/><path d="M6.5 6.4a1.5 1.5 0 1 1 2.2 1.3c-.5.3-.7.5-.7 1M8 10.6v.1" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linecap="round"/>`),
  attach: icon(svg`<path d="M12.8 7.4l-4.9 4.9a3 3 0 0 1-4.3-4.3l5.2-5.2a2 2 0 0 1 2.9 2.9l-5.1 5.1a1 1 0 0 1-1.5-1.4l4.5-4.5" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linecap="round" stroke-linejoin="round"/>`),
  file: icon(svg`<path d="M4 1.8h5l3 3v9.4H4zM9 1.8v3h3" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round"/>`),
  edit: icon(svg`<path d="M10.6 2.7l2.7 2.7-7.5 7.5-3.3.6.6-3.3z" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round"/>`),
  copy: icon(svg`<path d="M6 5.5h7.5v8.3H6zM10.5 5.5V2.2H2.5v8.6H6" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round"/>`),
  again: icon(svg`<path d="M13.2 8a5.2 5.2 0 1 1-1.6-3.8M13.4 1.8v3.1h-3.1" fill="none" stroke="currentColor" stroke-width="1.4" stroke-linecap="round" stroke-linejoin="round"/>`),
  subagent: icon(svg`<circle cx="8" cy="5" r="2.6" fill="none" stroke="currentColor" stroke-width="1.3"/><path d="M3 13.8c.4-2.9 2.4-4.2 5-4.2s4.6 1.3 5 4.2" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linecap="round"/>`),
  sliders: icon(svg`<path d="M2 4.5h6.5M12 4.5h2M2 11.5h2M7.5 11.5H14" stroke="currentColor" stroke-width="1.4" stroke-linecap="round"/><circle cx="10.2" cy="4.5" r="1.7" fill="none" stroke="currentColor" stroke-width="1.3"/><circle cx="5.8" cy="11.5" r="1.7" fill="none" stroke="currentColor" stroke-width="1.3"/>`),
  plug: icon(svg`<path d="M6 1.8v3M10 1.8v3M4.5 4.8h7v2.5a3.5 3.5 0 0 1-7 0zM8 10.8v3.4" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linecap="round" stroke-linejoin="round"/>`),
  check: icon(svg`<path d="M3.5 8.5l3 3 6-6.5" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round"/>`),
  plus: icon(svg`<path d="M8 3.2v9.6M3.2 8h9.6" stroke="currentColor" stroke-width="1.6" stroke-linecap="round"/>`),
  search: icon(svg`<circle cx="7" cy="7" r="4.6" fill="none" stroke="currentColor" stroke-width="1.4"/><path d="M10.5 10.5l3.6 3.6" stroke="currentColor" stroke-width="1.6" stroke-linecap="round"/>`),
  up: icon(svg`<path d="M8 13V3.5M3.8 7.4L8 3.2l4.2 4.2" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round"/>`),
  more: icon(svg`<path d="M3.4 8h.01M8 8h.01M12.6 8h.01" stroke="currentColor" stroke-width="2.4" stroke-linecap="round"/>`),
  fork: icon(svg`<circle cx="4.5" cy="3.5" r="1.7" fill="none" stroke="currentColor" stroke-width="1.3"/><circle cx="11.5" cy="3.5" r="1.7" fill="none" stroke="currentColor" stroke-width="1.3"/><circle cx="8" cy="12.5" r="1.7" fill="none" stroke="currentColor" stroke-width="1.3"/><path d="M4.5 5.2c0 2.6 3.5 2 3.5 5.6M11.5 5.2c0 2.6-3.5 2-3.5 5.6" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linecap="round"/>`),
  sessions: icon(svg`<path d="M2.5 4h11M2.5 8h11M2.5 12h7" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round"/>`),
  warning: icon(svg`<path d="M8 2.2l6.3 11.2H1.7zM8 6.5v3.2M8 11.4v.1" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linejoin="round" stroke-linecap="round"/>`),
};
