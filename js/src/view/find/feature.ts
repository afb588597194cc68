/** The search in the session of a chat: its button, its keys, and the bar, which is loaded when it is first opened. */

import { html, nothing, type TemplateResult } from "lit";
import type { ChatContext, ChatFeature } from "../features.js";
import { icons } from "../lib/icons.js";
import { Lazy } from "../lib/lazy.js";
import { strings } from "../lib/strings.js";

export function findFeature(chat: ChatContext): ChatFeature {
  const { element } = chat;
  const bar = new Lazy(async () => new (await import("./bar.js")).FindBar(chat, () => toggle(false)));
  let isOpen = false;
  /** What had the focus before. */
  let from: HTMLElement | null = null;

  const toggle = (opens: boolean): void => {
    if (opens && !isOpen) from = document.activeElement instanceof HTMLElement && element.contains(document.activeElement) ? document.activeElement : null;
    isOpen = opens;
    if (opens) {
      chat.overlays.close(false);
      bar.get()?.focus();
    } else {
      bar.get()?.close();
      if (from?.isConnected) from.focus({ preventScroll: true });
      else element.focus();
    }
    chat.redraw();
  };
  element.addEventListener("keydown", (event) => {
    const isFind = event.key.toLowerCase() === "f" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey;
    // A second time it is the browser's own search that is wanted.
    if (!isFind || chat.session() === null || (event.target as Element).closest("[data-navi=find]")) return;
    event.preventDefault();
    event.stopPropagation();
    toggle(true);
  });
  chat.headerButtons.push({ render: () => (chat.session() === null ? nothing : button(isOpen, () => toggle(!isOpen))) });
  return {
    reset: () => {
      if (isOpen) bar.get()?.close();
      isOpen = false;
    },
    card: () => (isOpen ? (bar.get()?.render() ?? nothing) : nothing),
  };
}

function button(isOpen: boolean, press: () => void): TemplateResult {
  return html`<button type="button" class="navi-icon-button" data-navi="find-toggle" aria-expanded=${isOpen ? "true" : "false"} aria-label=${strings.find} title="${strings.find} (Ctrl+F)" @click=${press}>
    ${icons.search}
  </button>`;
}
