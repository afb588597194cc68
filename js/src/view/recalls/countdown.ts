/** The clocks of a view: what is left until a recall, and what has passed of something that goes on. */

import { durationText } from "../lib/numbers.js";
import { countdown } from "../lib/time.js";

/** Writes what is left, or has passed, into every clock below `root`; the templates leave them empty. */
export function tick(root: ParentNode, now = Date.now()): void {
  for (const element of root.querySelectorAll<HTMLElement>(".navi-elapsed")) {
    const seconds = Math.floor((now - Number(element.dataset["since"])) / 1000);
    const text = seconds < 2 ? "" : durationText(seconds * 1000);
    if (element.textContent !== text) element.textContent = text;
  }
  for (const element of root.querySelectorAll<HTMLElement>(".navi-countdown")) {
    const text = countdown(Number(element.dataset["due"]) - now);
    if (element.textContent !== text) element.textContent = text;
  }
}
