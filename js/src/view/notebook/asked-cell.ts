/** The cell that an approval is about, by the label that the user sees on the page, and the way there. */

import { html, nothing, type TemplateResult } from "lit";
import type { Interrupt } from "../../state/model.js";
import type { NotebookHost } from "../host.js";
import { strings } from "../lib/strings.js";

/** Its cell is the one before the new one. */
const INSERT = "insert_cell";

export function askedCell({ tool, source, details }: Interrupt, host: NotebookHost | null): TemplateResult | typeof nothing {
  // Another program's words do not lead anywhere.
  const isOwn = source === null || source === "" || source === "builtin";
  const cell = isOwn ? details.find((detail) => detail.cell)?.cell : null;
  // The session may work in another notebook than the one on the page.
  if (!host || !cell || cell.path !== host.path) return nothing;
  const label = host.cellLabel(cell.id);
  if (label === null) return nothing;
  return html`<button type="button" class="navi-ask-cell" data-navi="ask-cell" title=${strings.showCell} @click=${() => host.revealCell(cell.id)}>
    ${tool === INSERT ? strings.belowCell(label) : label}
  </button>`;
}
