/** Puts a chat into an anywidget's view. Called by the loader (widget.ts), which knows as little as possible. */

import { CommTransport, type CommModel } from "./connection/comm.js";
import { FallbackTransport } from "./connection/fallback.js";
import { readPageConfig } from "./connection/page-config.js";
import type { Transport } from "./connection/transport.js";
import { WebSocketTransport } from "./connection/ws.js";
import { keepHeight } from "./view/lib/kept-height.js";
import type { NaviChat } from "./view/chat-element.js";

export interface WidgetModel extends CommModel {
  get(name: "session_id" | "version" | "snapshot"): unknown;
  on(event: string, listener: (content: unknown) => void): void;
  off(event: string, listener: (content: unknown) => void): void;
}

/** Shows the session of `model` below `el`; the answer takes it away again. */
export function mount(model: WidgetModel, el: HTMLElement): () => void {
  const chat = document.createElement("navi-chat") as NaviChat;
  const transport = chooseTransport(model);
  chat.transport = transport;
  const follow = (): void => {
    chat.session = textOf(model.get("session_id"));
    chat.snapshot = textOf(model.get("snapshot"));
  };
  follow();
  model.on("change:session_id", follow);
  model.on("change:snapshot", follow);
  keepHeight(chat);
  el.dataset["lmSuppressShortcuts"] = "true";
  el.append(chat);
  return () => {
    model.off("change:session_id", follow);
    model.off("change:snapshot", follow);
    chat.remove();
    transport.dispose?.();
  };
}

function chooseTransport(model: WidgetModel): Transport {
  const config = readPageConfig();
  const comm = new CommTransport(model);
  return config ? new FallbackTransport(new WebSocketTransport(config), comm) : comm;
}

function textOf(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}
