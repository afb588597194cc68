/** The style of what is outside of `<navi-panel>`: the panel's frame, the number on its icon, the button of Notebook. */

const STYLE = `
.navi-side-panel { display: flex; flex-direction: column; background: var(--jp-layout-color1); color: var(--jp-ui-font-color1); }
/* Wider than JupyterLab has it for lists of files: there is text to be read. */
:is(#jp-left-stack, #jp-right-stack) .navi-side-panel { min-width: 300px; }
@media (max-width: 600px) { :is(#jp-left-stack, #jp-right-stack) .navi-side-panel { min-width: 240px; } }
.navi-side-note { margin: 0; padding: 16px; font: 12.5px/1.5 var(--jp-ui-font-family, sans-serif); color: var(--jp-ui-font-color1); }
.navi-side-note a { color: var(--jp-content-link-color, #1565c0); text-decoration: underline; }
:is(.lm-TabBar-tab[data-navi="panel-tab"], .navi-top-button) { position: relative; }
:is(.lm-TabBar-tab[data-navi="panel-tab"], .navi-top-button)[data-navi-count]::after {
  content: attr(data-navi-count); position: absolute; inset-block-start: 2px; inset-inline-end: 2px; box-sizing: border-box; min-width: 14px; height: 14px;
  padding: 0 3px; border-radius: 7px; background: #3949ab; color: #fff; font: 600 10px/14px var(--jp-ui-font-family, sans-serif); text-align: center; pointer-events: none;
}
:is(.lm-TabBar-tab[data-navi="panel-tab"], .navi-top-button)[data-navi-asks]::after { background: #9a4a00; }
.navi-top { display: flex; align-items: center; }
.navi-top-button { display: grid; place-items: center; width: 30px; height: 28px; margin: 0 4px; padding: 0; border: 0; border-radius: 4px; background: none; cursor: pointer; }
.navi-top-button:hover { background: var(--jp-layout-color2); }
.navi-top-button:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: -2px; }
`;

export function installPanelStyle(): void {
  const style = document.createElement("style");
  style.textContent = STYLE;
  document.head.append(style);
}
