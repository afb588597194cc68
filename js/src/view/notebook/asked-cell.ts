/** The cell that an approval is about, by the label that the user sees on the page, and the way there. */

import { html, nothing, type TemplateResult } from "lit";
import type { Interrupt } from "../../state/model.js";
import type { NotebookHost } from "../host.js";
import { strings } from "../lib/strings.js";

/** Of the tools that change or run a cell: the argument that names it. */
const CELL_ARGUMENTS: Readonly<Record<string, "cell" | "after">> = { edit_cell: "cell", delete_cell: "cell", run_cell: "cell", insert_cell: "after" };
/** The part of a description that names the notebook. */
const NOTEBOOK = "Notebook";

export function askedCell({ tool, source, args, details }: Interrupt, host: NotebookHost | null): TemplateResult | typeof nothing {
  const argument = CELL_ARGUMENTS[tool ?? ""];
  const isOwn = source === null || source === "" || source === "builtin";
  const cell = argument && isOwn ? args?.[argument] : null;
  if (!host || argument === undefined || typeof cell !== "string") return nothing;
  // The session may work in another notebook than the one on the page.
  if (details.find(({ label }) => label === NOTEBOOK)?.text !== host.path) return nothing;
  const label = host.cellLabel(cell);
  if (label === null) return nothing;
  return html`<button type="button" class="navi-ask-cell" data-navi="ask-cell" title=${strings.showCell} @click=${() => host.revealCell(cell)}>
    ${argument === "after" ? strings.belowCell(label) : label}
  </button>`;
}
