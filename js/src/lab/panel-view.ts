/**
 * What is in the panel: `<navi-panel>` with the session that `FollowedSession` names, and the open notebook it is of.
 * Nothing is loaded or asked before the panel is shown for the first time.
 */

import { readStored, writeStored } from "../connection/storage.js";
import { isObject } from "../protocol/frames.js";
import type { NaviChat } from "../view/chat-element.js";
import type { NotebookHost } from "../view/host.js";
import type { NaviPanel } from "../view/panel/panel-element.js";
import { FollowedSession, type Pin, type PinStorage } from "./followed-session.js";
import type { OpenPanel } from "./jupyterlab.js";
import { carryId, openNotebook, type Contents, type NotebookContext } from "./open-notebook.js";
import { findSession, loadBundle, pageAddress, sessionSource } from "./server.js";
import { texts } from "./texts.js";

/** A notebook that is clicked through on the way to another one is not asked for. Milliseconds. */
const SETTLED = 150;

export interface PanelSurroundings {
  readonly contents: Contents;
  /** The open notebook at a path. */
  panelAt(path: string): OpenPanel | null;
  /** What a chat reads of a notebook and does to it. */
  hostOf(panel: OpenPanel): NotebookHost | null;
  /** What the commands say about the panel may be different. */
  changed(): void;
}

export class PanelView {
  readonly #node: HTMLElement;
  readonly #around: PanelSurroundings;
  readonly followed: FollowedSession;
  #element: NaviPanel | null = null;
  #loading: Promise<void> | null = null;
  /** The notebook in front; undefined while the page is loading. */
  #front: string | null | undefined;
  #isShown = false;
  /** The notebook whose host the chat has. */
  #hostOf: OpenPanel | null = null;
  readonly #carried = new WeakMap<NotebookContext, string>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Those who wait for the chat of a session, or of an empty chat. */
  #waiting: ((chat: NaviChat) => void)[] = [];

  constructor(node: HTMLElement, around: PanelSurroundings) {
    this.#node = node;
    this.#around = around;
    this.followed = new FollowedSession(sessionSource, pinStorage, () => this.#draw());
    node.addEventListener("navi-notebook", () => {
      const panel = this.#panel;
      if (panel) void openNotebook(panel.context, around.contents).refresh();
    });
    // A list of sessions or recalls in the chat leads to another session; the chat shows it by itself.
    node.addEventListener("navi-open-session", (event) => {
      const { session } = (event as CustomEvent<{ session: string }>).detail;
      void this.followed.choose(session);
    });
    window.addEventListener("focus", () => this.#isShown && void this.followed.refresh());
  }

  /** The panel is on the screen, or not any more. */
  setShown(isShown: boolean): void {
    this.#isShown = isShown;
    if (!isShown) return;
    void this.#load();
    if (this.#front !== undefined) void this.followed.show(this.#front);
  }

  /** Another notebook is in front; null: none is open. */
  setFront(path: string | null): void {
    this.#front = path;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#isShown && void this.followed.show(path), SETTLED);
  }

  renamed(from: string, to: string): void {
    if (this.#front === from) this.#front = to;
    void this.followed.rename(from, to);
  }

  /** Another notebook is open: it may be that of the session that is shown. */
  notebooksChanged(): void {
    this.#draw();
  }

  /** A cell has run, which may have made a session for its notebook, or have chosen another. */
  cellRan(source: string): void {
    const isOurs = this.followed.shown?.session === null || /navi/i.test(source);
    if (this.#isShown && isOurs && this.#front !== undefined) this.setFront(this.#front);
  }

  /** The chat that is shown, as soon as there is one. */
  chat(): Promise<NaviChat> {
    const chat = this.#element?.chat;
    return chat ? Promise.resolve(chat) : new Promise((resolve) => this.#waiting.push(resolve));
  }

  get #panel(): OpenPanel | null {
    const path = this.followed.shown?.notebook;
    return path === null || path === undefined ? null : this.#around.panelAt(path);
  }

  #load(): Promise<void> {
    this.#loading ??= loadBundle().then(
      () => {
        const element = (this.#element = document.createElement("navi-panel") as NaviPanel);
        element.page = pageAddress();
        element.addEventListener("navi-pin", (event) => {
          void this.followed.setPinned((event as CustomEvent<{ pinned: boolean }>).detail.pinned);
        });
        element.addEventListener("navi-session-gone", () => void this.followed.refresh());
        element.addEventListener("navi-new", () => {
          this.followed.startNew();
          void element.updateComplete.then(() => element.focus());
        });
        this.#node.replaceChildren(element);
        this.#draw();
      },
      () => {
        this.#loading = null; // tried again when the panel is shown again
        this.#node.textContent = texts.labNoServer;
      },
    );
    return this.#loading;
  }

  #draw(): void {
    this.#around.changed();
    const element = this.#element;
    if (!element) return;
    const { shown, problem } = this.followed;
    element.problem = problem === null ? null : problem instanceof Error && problem.message ? problem.message : texts.labNoServer;
    if (!shown) return;
    const panel = this.#panel;
    element.session = shown.session;
    element.notebook = shown.notebook;
    element.isPinned = shown.isPinned;
    if (panel !== this.#hostOf) element.host = panel ? this.#around.hostOf(panel) : null;
    this.#hostOf = panel;
    element.newSession = shown.session === null ? { key: shown.key, create: () => this.followed.begin() } : null;
    if (panel && shown.session !== null) this.#carry(panel, shown.session);
    void element.updateComplete.then(() => {
      const { chat } = element;
      if (chat) for (const resolve of this.#waiting.splice(0)) resolve(chat);
    });
  }

  /** Once for each notebook and session: the notebook carries the id, and what the agent changes in its file is seen. */
  #carry({ context }: OpenPanel, session: string): void {
    openNotebook(context, this.#around.contents);
    if (this.#carried.get(context) === session) return;
    this.#carried.set(context, session);
    carryId(context, (path) => findSession(path)).catch(() => undefined); // the server's save hook does it as well
  }
}

const PIN = "panel:pin";

const pinStorage: PinStorage = {
  read() {
    try {
      const pin: unknown = JSON.parse(readStored(PIN) ?? "null");
      return isObject(pin) ? pinOf(pin) : null;
    } catch {
      return null;
    }
  },
  write: (pin) => writeStored(PIN, pin === null ? null : JSON.stringify(pin)),
};

function pinOf(pin: Readonly<Record<string, unknown>>): Pin {
  const text = (value: unknown): string | null => (typeof value === "string" ? value : null);
  return { session: text(pin["session"]), notebook: text(pin["notebook"]) };
}
