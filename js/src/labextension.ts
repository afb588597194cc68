/**
 * The extension of JupyterLab and Notebook: draws outputs of `application/vnd.navi.session+json` as `<navi-chat>`, and
 * those of `application/vnd.navi.question+json` as `<navi-question>`. No kernel is involved, so a chat survives a reload
 * while its kernel is busy or gone, and a question can be answered while its cell waits.
 *
 * Written as the module-federation container that JupyterLab's loader calls (init, get), by hand: this needs no bundler
 * of JupyterLab's. What it takes from JupyterLab comes out of the scope of shared packages.
 */

import { readPageConfig } from "./connection/page-config.js";
import { WebSocketTransport } from "./connection/ws.js";
import { OpenNotebook, carryId, type Contents, type NotebookContext } from "./open-notebook.js";
import { isObject } from "./protocol/frames.js";
import type { NaviChat } from "./view/chat-element.js";
import type { NaviQuestion } from "./view/question-element.js";

const NAME = "navi-jupyter";
const MIME_TYPE = "application/vnd.navi.session+json";
const QUESTION_TYPE = "application/vnd.navi.question+json";
/** Lower than any other: our renderer wins over the widget view that is in the same bundle. */
const RANK = -100;

interface LuminoWidget {
  /** Of an output area: its outputs, and its boxes for input. */
  readonly widgets?: readonly LuminoWidget[];
  readonly node: HTMLElement;
  readonly parent: LuminoWidget | null;
  readonly title: { className: string };
  addClass(name: string): void;
  dispose(): void;
}
interface NotebookPanel extends LuminoWidget {
  readonly context?: NotebookContext;
}
interface Application {
  readonly serviceManager: { readonly contents: Contents };
}
interface Lumino {
  readonly Widget: new () => LuminoWidget;
}
interface MimeModel {
  readonly data: Readonly<Record<string, unknown>>;
}
interface RendererFactory {
  readonly safe: boolean;
  readonly mimeTypes: readonly string[];
  createRenderer(): LuminoWidget;
}
interface RenderMimeRegistry {
  addFactory(factory: RendererFactory, rank: number): void;
}
interface Rendermime {
  readonly IRenderMimeRegistry: object;
}
interface Shared {
  get(): Promise<() => unknown>;
}
type ShareScope = Readonly<Record<string, Readonly<Record<string, Shared>>>>;

let scope: ShareScope = {};

/** A package as JupyterLab shares it, in its highest version. */
async function shared<T>(name: string): Promise<T> {
  const versions = scope[name] ?? {};
  const highest = Object.keys(versions).sort((one, other) => one.localeCompare(other, "en", { numeric: true })).at(-1);
  const found = highest === undefined ? undefined : versions[highest];
  if (!found) throw new Error(`${NAME}: JupyterLab does not share ${name}`);
  return (await found.get())() as T;
}

/** Of the tab of a notebook in which a run waits for the user. */
const ASKS = "navi-asks";
const BADGE = `.${ASKS} .lm-TabBar-tabLabel::after { content: " ●"; color: var(--jp-warn-color1, #e08600); }`;

/** The notebook that an output is in. */
function panelOf(output: LuminoWidget): NotebookPanel | null {
  let panel = output.parent;
  while (panel && !panel.node.classList.contains("jp-NotebookPanel")) panel = panel.parent;
  return panel;
}

/** The outputs with open questions, and the notebook of each: an output that is gone is in none any more. */
const asking = new Map<LuminoWidget, NotebookPanel>();

/** Marks the tab of the notebook that `output` is in while one of its outputs has an open question. */
function markTab(output: LuminoWidget, isAsking: boolean): void {
  const panel = asking.get(output) ?? panelOf(output);
  if (!panel) return;
  if (isAsking) asking.set(output, panel);
  else asking.delete(output);
  const others = panel.title.className.split(" ").filter((name) => name && name !== ASKS);
  panel.title.className = [...others, ...([...asking.values()].includes(panel) ? [ASKS] : [])].join(" ");
}

/** Of the tab of a notebook with sessions in which something is unread; the class says how many. */
const UNREAD = "navi-unread";
const MOST_UNREAD = 10;
const UNREAD_BADGES = Array.from({ length: MOST_UNREAD }, (_, index) => {
  const text = index + 1 === MOST_UNREAD ? `${index}+` : String(index + 1);
  return `.${UNREAD}-${index + 1} .lm-TabBar-tabLabel::before { content: "(${text}) "; font-weight: 600; }`;
}).join("\n");

/** Counts what is unread in all chats of the notebook that `output` is in, on its tab. */
function countOnTab(output: LuminoWidget): void {
  let panel = output.parent;
  while (panel && !panel.node.classList.contains("jp-NotebookPanel")) panel = panel.parent;
  if (!panel) return;
  const counts = new Map<string, number>(); // two views of one session count once
  for (const chat of panel.node.querySelectorAll<NaviChat>("navi-chat")) if (chat.session) counts.set(chat.session, chat.unread);
  const count = Math.min([...counts.values()].reduce((sum, each) => sum + each, 0), MOST_UNREAD);
  const others = panel.title.className.split(" ").filter((name) => name && !name.startsWith(`${UNREAD}-`));
  panel.title.className = [...others, ...(count ? [`${UNREAD}-${count}`] : [])].join(" ");
}

function installBadge(): void {
  const style = document.createElement("style");
  style.textContent = `${BADGE}\n${UNREAD_BADGES}`;
  document.head.append(style);
}

/** How the kernel's prompts for a question can be known. */
const PROMPT = /\[y\]es \/ \[n\]o|\(or: decline\)/;
/** When a prompt may have come although there are buttons: a page that was slow to report them. Milliseconds. */
const SLOW = [0, 1_000, 3_000, 10_000];

/** Takes away the boxes of prompts that the kernel has given up, beside `output`: the host leaves them there. */
function removePrompts(output: LuminoWidget): void {
  let area = output.parent;
  while (area && !area.node.classList.contains("jp-OutputArea")) area = area.parent;
  const boxes = (area?.widgets ?? []).filter(({ node }) => PROMPT.test(node.querySelector(".jp-Stdin-prompt")?.textContent ?? ""));
  for (const box of boxes) box.dispose();
}

/** A cell that waits does not ask at a prompt for what has buttons here. Where this does not arrive, it does. */
function reportDrawn(session: string, interrupt: string): void {
  const config = readPageConfig();
  if (!config) return;
  const path = `sessions/${encodeURIComponent(session)}/interrupts/${encodeURIComponent(interrupt)}/drawn`;
  new WebSocketTransport(config).request("POST", path).catch(() => null);
}

/** The id of the session of the notebook at a path; null: it has none. */
async function findSession(path: string): Promise<string | null> {
  const config = readPageConfig();
  if (!config) return null;
  const { body } = await new WebSocketTransport(config).request("POST", "sessions/find", { notebook_path: path, is_open: true });
  const session = isObject(body) ? body["session"] : null;
  return isObject(session) && typeof session["id"] === "string" ? session["id"] : null;
}

let loading: Promise<unknown> | null = null;

/** The component's bundle, from the server; loaded when the first chat is shown. */
function loadBundle(): Promise<unknown> {
  const config = readPageConfig();
  if (!config) return Promise.reject(new Error("not a page of a Jupyter server"));
  const url = new URL(`static/navi/navi-chat.js?v=${__NAVI_BUNDLE__}`, config.baseUrl);
  loading ??= import(url.href).catch((problem: unknown) => {
    loading = null;
    throw problem;
  });
  return loading;
}

async function createPlugin(): Promise<object> {
  const [{ Widget }, { IRenderMimeRegistry }] = await Promise.all([
    shared<Lumino>("@lumino/widgets"),
    shared<Rendermime>("@jupyterlab/rendermime"),
  ]);

  let contents: Contents | null = null;

  class SessionRenderer extends Widget {
    #notebook: OpenNotebook | null = null;

    override dispose(): void {
      this.#notebook?.dispose();
      this.#notebook = null;
      markTab(this, false);
      super.dispose();
    }

    /** Where no collaboration does it: what the agent changes in the file is to be seen in the notebook around us. */
    #follow(chat: NaviChat): void {
      const context = panelOf(this)?.context;
      if (!context || !contents) return;
      const notebook = (this.#notebook ??= new OpenNotebook(context, contents));
      chat.addEventListener("navi-notebook", () => void notebook.refresh());
      carryId(context, findSession).catch(() => undefined); // the server's save hook does it as well
    }

    async renderModel({ data }: MimeModel): Promise<void> {
      const { session_id: session } = (data[MIME_TYPE] ?? {}) as { session_id?: unknown };
      if (typeof session !== "string") throw new Error(`${MIME_TYPE} without a session_id`);
      this.addClass("navi-output");
      this.node.dataset["lmSuppressShortcuts"] = "true";
      await loadBundle();
      const present = this.node.querySelector<NaviChat>("navi-chat");
      const chat = present ?? (document.createElement("navi-chat") as NaviChat);
      chat.session = session;
      if (present) return;
      chat.addEventListener("navi-asks", (event) => markTab(this, (event as CustomEvent<{ open: number }>).detail.open > 0));
      chat.addEventListener("navi-unread", () => countOnTab(this));
      this.node.append(chat);
      this.#follow(chat);
    }
  }

  class QuestionRenderer extends Widget {
    override dispose(): void {
      markTab(this, false);
      removePrompts(this);
      super.dispose();
    }

    async renderModel({ data }: MimeModel): Promise<void> {
      const { session_id: session, interrupt_id: interrupt } = (data[QUESTION_TYPE] ?? {}) as { session_id?: unknown; interrupt_id?: unknown };
      if (typeof session !== "string" || typeof interrupt !== "string") throw new Error(`${QUESTION_TYPE} without its ids`);
      this.addClass("navi-output");
      this.node.dataset["lmSuppressShortcuts"] = "true";
      reportDrawn(session, interrupt); // before the bundle is there: the cell that waits is about to ask at a prompt
      for (const delay of SLOW) setTimeout(() => removePrompts(this), delay);
      await loadBundle();
      const present = this.node.querySelector<NaviQuestion>("navi-question");
      const question = present ?? (document.createElement("navi-question") as NaviQuestion);
      question.session = session;
      question.interrupt = interrupt;
      if (present) return;
      question.addEventListener("navi-asks", (event) => markTab(this, (event as CustomEvent<{ open: number }>).detail.open > 0));
      this.node.append(question);
    }
  }

  return {
    id: `${NAME}:mime`,
    description: "Draws Navi sessions and their questions in outputs.",
    autoStart: true,
    requires: [IRenderMimeRegistry],
    activate: (app: Application, rendermime: RenderMimeRegistry) => {
      contents = app.serviceManager.contents;
      installBadge();
      const createRenderer = (): SessionRenderer => new SessionRenderer();
      rendermime.addFactory({ safe: true, mimeTypes: [MIME_TYPE], createRenderer }, RANK);
      rendermime.addFactory({ safe: true, mimeTypes: [QUESTION_TYPE], createRenderer: () => new QuestionRenderer() }, RANK);
    },
  };
}

const container = {
  init(shareScope: ShareScope): void {
    scope = shareScope;
  },
  async get(module: string): Promise<() => unknown> {
    if (module !== "./extension") throw new Error(`${NAME} has no ${module}`);
    const plugin = await createPlugin();
    return () => ({ __esModule: true, default: plugin });
  },
};

const containers = ((globalThis as { _JUPYTERLAB?: Record<string, unknown> })._JUPYTERLAB ??= {});
containers[NAME] = container;
