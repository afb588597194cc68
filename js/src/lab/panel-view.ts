/**
 * What is in the panel: `<navi-panel>` with the session that `FollowedSession` names, and the open notebook it is of.
 * Nothing is loaded or asked before the panel is shown for the first time.
 */

import type { NaviChat } from "../view/chat-element.js";
import type { NotebookHost } from "../view/host.js";
import type { NaviPanel } from "../view/panel/panel-element.js";
import { FollowedSession, type PinStorage } from "./followed-session.js";
import type { OpenPanel } from "./jupyterlab.js";
import { carryId, openNotebook, type Contents, type NotebookContext } from "./open-notebook.js";
import { diagnose, drawDiagnosis, type Diagnosis } from "./diagnosis.js";
import { findSession, loadElement, pageAddress, sessionSource } from "./server.js";

/** A notebook that is clicked through on the way to another one is not asked for. Milliseconds. */
const SETTLED = 150;
/** What could not be loaded is tried again. Milliseconds. */
const AGAIN_AFTER = 5_000;

export interface PanelSurroundings {
  readonly contents: Contents;
  /** Where the pin is kept. */
  readonly pins: PinStorage;
  /** The open notebook at a path. */
  panelAt(path: string): OpenPanel | null;
  /** What a chat reads of the work beside it and does to it, with a notebook or without. */
  hostOf(panel: OpenPanel | null): NotebookHost | null;
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
  /** The notebook whose host the chat has; undefined: it has no host yet. */
  #hostOf: OpenPanel | null | undefined;
  readonly #carried = new WeakMap<NotebookContext, string>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #again: ReturnType<typeof setTimeout> | undefined;
  /** What the panel says is wrong. */
  #problem: unknown = null;
  /** Those who wait for the chat of a session, or of an empty chat. */
  #waiting: ((chat: NaviChat) => void)[] = [];

  constructor(node: HTMLElement, around: PanelSurroundings) {
    this.#node = node;
    this.#around = around;
    this.followed = new FollowedSession(sessionSource, around.pins, () => this.#draw());
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
    this.#loading ??= loadElement("navi-panel").then(
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
      async (problem: unknown) => {
        this.#loading = null;
        drawDiagnosis(this.#node, await diagnose(problem));
        clearTimeout(this.#again);
        this.#again = setTimeout(() => this.#isShown && void this.#load(), AGAIN_AFTER);
      },
    );
    return this.#loading;
  }

  #draw(): void {
    this.#around.changed();
    const element = this.#element;
    if (!element) return;
    const { shown, problem } = this.followed;
    if (problem !== this.#problem) void this.#diagnose(problem);
    if (!shown) return;
    const panel = this.#panel;
    element.session = shown.session;
    element.notebook = shown.notebook;
    element.isPinned = shown.isPinned;
    if (panel !== this.#hostOf) element.host = this.#around.hostOf(panel);
    this.#hostOf = panel;
    element.newSession = shown.session === null ? { key: shown.key, create: () => this.followed.begin() } : null;
    if (panel && shown.session !== null) this.#carry(panel, shown.session);
    void element.updateComplete.then(() => {
      const { chat } = element;
      if (chat) for (const resolve of this.#waiting.splice(0)) resolve(chat);
    });
  }

  /** Says in the panel what is wrong, while it is. */
  async #diagnose(problem: unknown): Promise<void> {
    this.#problem = problem;
    const diagnosis: Diagnosis | null = problem === null ? null : await diagnose(problem);
    if (problem !== this.#problem || !this.#element) return;
    this.#element.problem = diagnosis?.text ?? null;
    this.#element.problemLink = diagnosis?.link ?? null;
  }

  /** Once for each notebook and session: the notebook carries the id, and what the agent changes in its file is seen. */
  #carry({ context }: OpenPanel, session: string): void {
    openNotebook(context, this.#around.contents);
    if (this.#carried.get(context) === session) return;
    this.#carried.set(context, session);
    carryId(context, (path) => findSession(path)).catch(() => undefined); // the server's save hook does it as well
  }
}
