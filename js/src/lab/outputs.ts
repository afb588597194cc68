/**
 * The plug-in that draws outputs: `application/vnd.navi.session+json` as `<navi-chat>`, and those of
 * `application/vnd.navi.question+json` as `<navi-question>`. No kernel is involved, so a chat survives a reload while its
 * kernel is busy or gone, and a question can be answered while its cell waits.
 */

import type { NaviChat } from "../view/chat-element.js";
import { keepHeight } from "../view/lib/kept-height.js";
import type { NaviQuestion } from "../view/question-element.js";
import { panelOf, type Lumino, type LuminoWidget, type Plugin } from "./jupyterlab.js";
import type { Panel } from "./notebook-types.js";
import { carryId, openNotebook, type Contents } from "./open-notebook.js";
import { pageNotebook } from "./page-context.js";
import { findSession, loadBundle, loadElement, reportDrawn } from "./server.js";
import { shared } from "./shared-packages.js";
import { countOnTab, installTabMarks, markTab } from "./tab-marks.js";
import { LANGUAGE } from "./texts.js";

const MIME_TYPE = "application/vnd.navi.session+json";
const QUESTION_TYPE = "application/vnd.navi.question+json";
/** Lower than any other: our renderer wins over the widget view that is in the same bundle. */
const RANK = -100;

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

export async function createOutputsPlugin(): Promise<Plugin> {
  const [{ Widget }, { IRenderMimeRegistry }] = await Promise.all([
    shared<Lumino>("@lumino/widgets"),
    shared<Rendermime>("@jupyterlab/rendermime"),
  ]);

  let contents: Contents | null = null;

  class SessionRenderer extends Widget {
    override dispose(): void {
      markTab(this, false);
      super.dispose();
    }

    /** Where no collaboration does it: what the agent changes in the file is to be seen in the notebook around us. */
    #follow(chat: NaviChat): void {
      const panel = panelOf(this) as Panel | null;
      if (!panel || !contents) return;
      const { context } = panel;
      chat.host = pageNotebook(panel).host(this.node);
      const notebook = openNotebook(context, contents);
      chat.addEventListener("navi-notebook", () => void notebook.refresh());
      carryId(context, (path) => findSession(path)).catch(() => undefined); // the server's save hook does it as well
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
      keepHeight(chat);
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
      await loadElement("navi-question");
      const present = this.node.querySelector<NaviQuestion>("navi-question");
      const question = present ?? (document.createElement("navi-question") as NaviQuestion);
      question.session = session;
      question.interrupt = interrupt;
      if (present) return;
      question.addEventListener("navi-asks", (event) => markTab(this, (event as CustomEvent<{ open: number }>).detail.open > 0));
      const panel = panelOf(this) as Panel | null;
      if (panel) question.host = pageNotebook(panel).host(this.node);
      this.node.append(question);
    }
  }

  return {
    id: "navi-jupyter:mime",
    description: "Draws Navi sessions and their questions in outputs.",
    autoStart: true,
    requires: [IRenderMimeRegistry],
    optional: [LANGUAGE], // the page has its language before a chat is drawn in it
    activate: (app, rendermime) => {
      contents = app.serviceManager.contents;
      installTabMarks();
      const registry = rendermime as RenderMimeRegistry;
      const createRenderer = (): SessionRenderer => new SessionRenderer();
      registry.addFactory({ safe: true, mimeTypes: [MIME_TYPE], createRenderer }, RANK);
      registry.addFactory({ safe: true, mimeTypes: [QUESTION_TYPE], createRenderer: () => new QuestionRenderer() }, RANK);
    },
  };
}
