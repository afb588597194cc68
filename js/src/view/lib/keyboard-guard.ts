/** Keeps what is typed here from the notebook around us. */

/**
 * JupyterLab listens here, behind us, and cancels line breaks and undo of everything inside a cell: it expects its own
 * shortcuts to have been meant.
 */
export function keepInput(event: Event): void {
  event.stopImmediatePropagation();
}

/** What is typed into a field of ours is no shortcut of the notebook's. */
export function keepKey(event: Event): void {
  event.stopPropagation();
}
