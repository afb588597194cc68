/**
 * `<navi-cell-edit>`: what a run did to one cell of the notebook, above that cell: the difference, *Keep* and *Undo*.
 * The page around it does what is pressed: it gets the events `navi-keep`, `navi-undo`, and for all changes of the
 * run `navi-keep-all` and `navi-undo-all`.
 */

import { html, LitElement, nothing, type TemplateResult } from "lit";
import { addStyle, prepareElement } from "../../style/install.js";
import { diffView } from "../conversation/diff.js";
import { icons } from "../lib/icons.js";
import { strings } from "../lib/strings.js";
import css from "../../style/cell-edit.css";

addStyle(css);

export interface CellChange {
  /** The id of the cell. */
  readonly cell: string;
  readonly kind: "edited" | "inserted" | "deleted";
  /** Empty for a cell that was inserted. */
  readonly before: string;
  /** As the run left it; empty for a cell that was deleted. */
  readonly after: string;
}

export class NaviCellEdit extends LitElement {
  static override properties = {
    change: { attribute: false },
    current: { attribute: false },
    count: { attribute: false },
    problem: { attribute: false },
  };

  declare change: CellChange | null;
  /** The source of the cell now; the user may have changed it since. */
  declare current: string;
  /** How many changes of the run are neither kept nor undone. */
  declare count: number;
  /** Why the last undo did not work; empty: it did. */
  declare problem: string;

  constructor() {
    super();
    this.change = null;
    this.current = "";
    this.count = 1;
    this.problem = "";
  }

  override connectedCallback(): void {
    super.connectedCallback();
    prepareElement(this);
    this.dataset["lmSuppressShortcuts"] = "true"; // Enter presses a button, and does not enter the cell
    this.dataset["navi"] = "cell-edit";
    this.classList.add("navi");
    this.setAttribute("role", "group");
  }

  protected override createRenderRoot(): HTMLElement {
    return this;
  }

  protected override render(): TemplateResult | typeof nothing {
    const { change, current, count } = this;
    if (!change) return nothing;
    const text = strings.cellChanged[change.kind];
    this.setAttribute("aria-label", text);
    this.dataset["kind"] = change.kind;
    const isSince = change.kind !== "deleted" && current !== change.after;
    return html`<div class="navi-edit-bar">
        ${icons.edit}<span class="navi-edit-text">${text}${isSince ? html` <small>${strings.cellChangedSince}</small>` : nothing}</span>
        ${this.#button("keep", strings.keepChange, strings.keepChangeTitle)} ${this.#button("undo", strings.undoChange, strings.undoChangeTitle[change.kind])}
        ${count > 1
          ? html`${this.#button("keep-all", strings.keepAll(count), strings.keepAllTitle)} ${this.#button("undo-all", strings.undoAll(count), strings.undoAllTitle)}`
          : nothing}
      </div>
      ${this.problem ? html`<p class="navi-ask-problem" role="alert" data-navi="edit-problem">${this.problem}</p>` : nothing}
      ${change.kind === "inserted" ? nothing : diffView(change.before, change.kind === "deleted" ? "" : current)}`;
  }

  #button(name: "keep" | "undo" | "keep-all" | "undo-all", text: string, title: string): TemplateResult {
    const press = (): boolean => this.dispatchEvent(new CustomEvent(`navi-${name}`, { bubbles: true }));
    return html`<button type="button" class="navi-button ${name.startsWith("keep") ? "navi-quiet" : ""}" data-navi="edit-${name}" title=${title} @click=${press}>${text}</button>`;
  }
}
