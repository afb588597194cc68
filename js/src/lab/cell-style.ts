/** How what the extension adds to cells looks: in the host's colours, which have enough contrast in both themes. */

const STYLE = `
.navi-error-actions { display: flex; gap: 6px; margin-inline-start: calc(var(--jp-cell-prompt-width, 64px) + var(--jp-cell-padding, 5px)); padding: 4px 0; }
.navi-error-actions button { padding: 2px 10px; border: 1px solid var(--jp-border-color1, #bdbdbd); border-radius: 4px; background: var(--jp-layout-color1, #fff); color: var(--jp-ui-font-color0, #000); font: 12px/1.5 var(--jp-ui-font-family, sans-serif); cursor: pointer; }
.navi-error-actions button:hover { background: var(--jp-layout-color2, #eee); }
.navi-error-actions button:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: 1px; }
.navi-error-actions button:disabled { opacity: 0.6; cursor: default; }
.jp-CellHeader:has(> navi-cell-edit), .jp-CellFooter:has(> navi-cell-edit) { height: auto; }
.jp-CellHeader > navi-cell-edit, .jp-CellFooter > navi-cell-edit { margin-inline-start: calc(var(--jp-cell-collapser-width, 8px) + var(--jp-cell-prompt-width, 64px)); width: auto; }
`;

export function installCellStyle(): void {
  const style = document.createElement("style");
  style.textContent = STYLE;
  document.head.append(style);
}
