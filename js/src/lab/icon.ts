/** Navi's mark as an icon of JupyterLab: in the colour of the other icons, in light and dark. */

interface IconOptions {
  readonly name: string;
  readonly svgstr: string;
}
export interface LabIcon {
  element(options: Readonly<Record<string, unknown>>): HTMLElement;
}
interface Components {
  readonly LabIcon: new (options: IconOptions) => LabIcon;
}

const MARK =
  '<svg xmlns="http://www.w3.org/2000/svg" width="16" height="16" viewBox="0 0 16 16"><path class="jp-icon3" fill="#616161" d="M8 1.2l1.5 4.1a2 2 0 0 0 1.2 1.2L14.8 8l-4.1 1.5a2 2 0 0 0-1.2 1.2L8 14.8l-1.5-4.1a2 2 0 0 0-1.2-1.2L1.2 8l4.1-1.5a2 2 0 0 0 1.2-1.2z"/></svg>';

export function makeIcon({ LabIcon }: Components): LabIcon {
  return new LabIcon({ name: "navi-jupyter:mark", svgstr: MARK });
}

export type { Components };
