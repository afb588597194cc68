/**
 * The page's connection to the server about its notebooks: the page says which it shows and which have unsaved changes,
 * the server asks for these and reports what it has changed in files. No chat has to be open for it.
 *
 * Not responsible for what is done then (`notebook-requests`, `edits`).
 */

import type { Channel, ChannelListener } from "../connection/transport.js";
import { isObject } from "../protocol/frames.js";
import { serverPath, type NotebookTracker, type Panel } from "./notebook-types.js";

/** Milliseconds: after a change of what is shown; before the first and between later attempts to connect again. */
const PAUSE = 30;
const FIRST = 1_000;
const LONGEST = 30_000;

/** The server asks a page that shows a notebook to change, save or show it. */
export interface NotebookRequest {
  readonly session: string;
  readonly request: string;
  readonly path: string;
}

export interface NotebookMessages {
  requested(request: NotebookRequest): void;
  /** The file of a notebook was changed for a session, or what is known of the session's edits. */
  changed(path: string, session: string): void;
  /** Connected again: what was changed meanwhile was not reported. */
  reconnected(): void;
}

export type Connect = (listener: ChannelListener) => Channel | null;

export class NotebookSocket {
  readonly #connect: Connect;
  readonly #messages: NotebookMessages;
  readonly #panels = new Set<Panel>();
  #channel: Channel | null = null;
  #isOpen = false;
  #wasOpen = false;
  #sent = "";
  #delay = FIRST;
  #saying: ReturnType<typeof setTimeout> | undefined;
  #waiting: ReturnType<typeof setTimeout> | undefined;

  constructor(connect: Connect, messages: NotebookMessages) {
    this.#connect = connect;
    this.#messages = messages;
    window.addEventListener("online", this.#again);
    document.addEventListener("visibilitychange", () => !document.hidden && this.#again());
  }

  follow(tracker: NotebookTracker): void {
    tracker.forEach((panel) => this.#add(panel));
    tracker.widgetAdded.connect((_, panel) => this.#add(panel));
  }

  #add(panel: Panel): void {
    void panel.context.ready.then(() => {
      if (panel.isDisposed) return;
      this.#panels.add(panel);
      panel.disposed.connect(() => {
        this.#panels.delete(panel);
        this.#say();
      });
      panel.context.pathChanged.connect(this.#say);
      panel.content.model?.stateChanged?.connect(this.#say);
      this.#say();
      this.#open();
    });
  }

  readonly #say = (): void => {
    this.#saying ??= setTimeout(() => {
      this.#saying = undefined;
      this.#send();
    }, PAUSE);
  };

  #send(): void {
    if (!this.#isOpen) return;
    const notebooks = [...this.#panels].map((panel) => ({ path: serverPath(panel), unsaved: panel.context.model.dirty }));
    const text = JSON.stringify({ notebooks });
    if (text === this.#sent) return;
    this.#sent = text;
    this.#channel?.send(text);
  }

  /** A page without notebooks has no connection. */
  #open(): void {
    clearTimeout(this.#waiting);
    this.#waiting = undefined;
    if (this.#channel || !this.#panels.size) return;
    this.#channel = this.#connect({
      opened: () => {
        this.#isOpen = true;
        this.#delay = FIRST;
        this.#sent = "";
        this.#send();
        if (this.#wasOpen) this.#messages.reconnected();
        this.#wasOpen = true;
      },
      frame: (text) => this.#take(text),
      closed: () => {
        this.#channel = null;
        this.#isOpen = false;
        this.#waiting = setTimeout(() => this.#open(), this.#delay * (0.75 + Math.random() / 2));
        this.#delay = Math.min(2 * this.#delay, LONGEST);
      },
    });
  }

  /** The network or the user is back: not at the end of a long pause. */
  readonly #again = (): void => {
    if (this.#waiting !== undefined) this.#open();
  };

  #take(text: string): void {
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (!isObject(message)) return;
    const { type, session_id: session, request_id: request, path } = message;
    if (typeof session !== "string" || typeof path !== "string") return;
    if (type === "requested" && typeof request === "string") this.#messages.requested({ session, request, path });
    else if (type === "changed") this.#messages.changed(path, session);
  }
}
