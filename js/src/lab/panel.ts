/**
 * The plug-in that puts Navi beside the work: a panel in the side area, its icon with what waits, commands, menu, palette,
 * launcher and shortcut. Where a page lacks one of these (Notebook has no launcher and no bar of icons), the others do.
 */

import type { NaviChat } from "../view/chat-element.js";
import { readStored, writeStored } from "../connection/storage.js";
import { attentionCount, attentionText, AttentionWatch, type Waiting } from "./attention.js";
import { FocusReturn } from "./focus-return.js";
import { FrontFile, type FileTracker, type FrontShell } from "./front-file.js";
import { makeIcon, type Components, type LabIcon } from "./icon.js";
import type { Application, Lumino, LuminoWidget, OpenPanel, Plugin, Signal, Title, Tracker } from "./jupyterlab.js";
import { installPanelStyle } from "./panel-style.js";
import { addCommands, type PanelCommands, type Places } from "./panel-commands.js";
import type { Panel } from "./notebook-types.js";
import { pageNotebook } from "./page-context.js";
import { withoutDrive } from "./open-notebook.js";
import { PanelView } from "./panel-view.js";
import { tabPins, workspacePins, type StateDatabase } from "./pins.js";
import { readAttention } from "./server.js";
import { shared, sharedIfAny } from "./shared-packages.js";
import { LANGUAGE, texts } from "./texts.js";

const ID = "navi-jupyter:panel";
const PANEL = "navi-panel";
/** Behind the property inspector and the debugger. */
const RANK = 900;
/** Before the menus of Notebook: in a small window neither the line above them nor their end is in sight. */
const BUTTON_RANK = 1;
const IS_OPEN = "panel:open";
/** Pixels of a window. */
const NARROW = 700;

interface Restorer {
  add(widget: LuminoWidget, name: string): void;
}
interface Settings {
  load(plugin: string): Promise<unknown>;
}

type Executed = Signal<unknown, { readonly cell: { readonly model: { readonly sharedModel: { getSource(): string } } } }>;

interface Token {
  readonly [name: string]: object;
}

/** Shows the panel on the notebook in front, and goes to its chat. Rejects while there is no panel. */
export const panelDoor = {
  open: (): Promise<NaviChat> => Promise.reject(new Error("there is no panel")),
};

/** What the page shares of a package, by the names of tokens; a page that lacks one has null for its service. */
async function tokens(wanted: readonly (readonly [string, string])[]): Promise<object[]> {
  const found = await Promise.all(wanted.map(async ([name, token]) => (await sharedIfAny<Token>(name))?.[token] ?? { name: token }));
  return found;
}

export async function createPanelPlugin(): Promise<Plugin> {
  const [{ Widget, Menu }, components, notebooks, optional] = await Promise.all([
    shared<Lumino>("@lumino/widgets"),
    shared<Components>("@jupyterlab/ui-components"),
    sharedIfAny<{ readonly NotebookActions?: { readonly executed: Executed } }>("@jupyterlab/notebook"),
    tokens([
      ["@jupyterlab/notebook", "INotebookTracker"],
      ["@jupyterlab/application", "ILayoutRestorer"],
      ["@jupyterlab/application", "ILabShell"],
      ["@jupyterlab/settingregistry", "ISettingRegistry"],
      ["@jupyterlab/apputils", "ICommandPalette"],
      ["@jupyterlab/mainmenu", "IMainMenu"],
      ["@jupyterlab/launcher", "ILauncher"],
      ["@jupyterlab/statedb", "IStateDB"],
      ["@jupyterlab/fileeditor", "IEditorTracker"],
    ]),
  ]);

  class SidePanel extends Widget {
    readonly view: PanelView;
    readonly #restored: () => boolean;
    readonly #moved: () => void;
    readonly #shown: () => void;

    constructor(view: (node: HTMLElement) => PanelView, isRestored: () => boolean, moved: () => void, shown: () => void) {
      super();
      this.id = PANEL;
      this.addClass("navi-side-panel");
      this.view = view(this.node);
      this.#restored = isRestored;
      this.#moved = moved;
      this.#shown = shown;
    }

    /** Lumino calls these. */
    protected onAfterAttach(): void {
      setTimeout(this.#moved, 0); // when the bar of icons has its new tab
    }

    protected onAfterShow(): void {
      this.view.setShown(true);
      this.#shown();
      if (this.#restored()) writeStored(IS_OPEN, "yes");
    }

    protected onAfterHide(): void {
      this.view.setShown(false);
      if (this.#restored()) writeStored(IS_OPEN, null);
    }

    protected onActivateRequest(): void {
      void this.view.chat().then((chat) => chat.updateComplete.then(() => chat.focus()));
    }
  }

  return {
    id: ID,
    description: "The panel with Navi's chat, its icon, and its commands.",
    autoStart: true,
    requires: [],
    optional: [...optional, LANGUAGE],
    activate: (app, ...services) => {
      const [tracker, restorer, labShell, settings, palette, menu, launcher, state, files] = services as [
        Tracker | null,
        Restorer | null,
        object | null,
        Settings | null,
        Places["palette"],
        Places["mainMenu"],
        Places["launcher"],
        StateDatabase | null,
        FileTracker | null,
      ];
      const icon = makeIcon(components);
      const front = new FrontFile(files, app.shell as FrontShell);
      let isRestored = false;
      let waiting: Waiting = { unread: 0, questions: 0 };
      let commands: PanelCommands | null = null;
      const panel = new SidePanel(
        (node) =>
          new PanelView(node, {
            contents: app.serviceManager.contents,
            pins: labShell && state ? workspacePins(state) : tabPins,
            panelAt: (path) => tracker?.find(({ context }) => context.path === path || withoutDrive(context.path) === path) ?? null,
            hostOf: (each) => front.host(each && pageNotebook(each as unknown as Panel).host(null)),
            changed: () => commands?.changed(),
          }),
        () => isRestored,
        () => mark(),
        () => {
          // Two side areas leave nothing of a small window.
          if (window.innerWidth < NARROW && document.getElementById("jp-right-stack")?.contains(panel.node)) app.shell.collapseLeft?.();
        },
      );
      const title: Title = panel.title;
      title.icon = icon;
      title.caption = texts.labPanel;
      installPanelStyle();
      app.shell.add(panel, "right", { rank: RANK });
      restorer?.add(panel, PANEL);
      const way = new FocusReturn((element) => tracker?.find(({ node }) => node.contains(element)) ?? null);
      way.watch(panel.node);
      const open = (): Promise<NaviChat> => {
        way.remember(panel.node);
        app.shell.activateById(PANEL);
        return panel.view.chat();
      };
      panelDoor.open = open;
      const top = labShell ? null : addTopButton(app, new Widget(), icon, () => {
        if (panel.isVisible) app.shell.collapseRight?.();
        else void open();
      });
      const toggle = (): void => {
        if (panel.isVisible && panel.node.contains(document.activeElement)) way.back(tracker?.currentWidget ?? null, ({ id }) => app.shell.activateById(id));
        else void open();
      };
      const notebook = (): HTMLElement | null => tracker?.currentWidget?.node ?? null;
      const chats = (): readonly HTMLElement[] => [...(panel.isVisible ? [panel.node] : []), ...(notebook()?.querySelectorAll<HTMLElement>("navi-chat") ?? [])];
      commands = addCommands(app, { panel: panel.view, icon, open, toggle, notebook, chats }, { palette, mainMenu: menu, launcher, Menu });
      // Of the schema that is shipped with the extension: so the shortcuts can be changed as all others.
      if (settings) settings.load(ID).catch(() => commands?.addShortcuts());
      else commands.addShortcuts();
      function mark(): void {
        const count = attentionCount(waiting);
        const { "navi-count": _count, "navi-asks": _asks, ...others } = title.dataset; // JupyterLab's own is in it, too
        title.dataset = { ...others, navi: "panel-tab", ...(count ? { "navi-count": count } : {}), ...(waiting.questions ? { "navi-asks": "" } : {}) };
        title.caption = attentionText(waiting);
        top?.mark(waiting);
      }
      void app.restored.then(() => {
        isRestored = true;
        if (tracker) follow(tracker, panel.view, notebooks?.NotebookActions?.executed ?? null);
        else panel.view.setFront(null);
        if (!restorer && readStored(IS_OPEN) !== null) app.shell.activateById(PANEL); // Notebook does not restore its side areas
        new AttentionWatch(readAttention, (found) => {
          waiting = found;
          mark();
        }).start();
      });
    },
  };
}

/** Has the panel show the session of the notebook in front. */
function follow(tracker: Tracker, view: PanelView, executed: Executed | null): void {
  const known = new WeakSet<OpenPanel>();
  const watch = (panel: OpenPanel): void => {
    if (known.has(panel)) return;
    known.add(panel);
    let { path } = panel.context;
    panel.context.pathChanged.connect(() => {
      const from = path;
      path = panel.context.path;
      view.renamed(from, path);
    });
  };
  tracker.forEach(watch);
  tracker.widgetAdded.connect((_, panel) => {
    watch(panel);
    view.notebooksChanged();
  });
  tracker.currentChanged.connect(() => view.setFront(tracker.currentWidget?.context.path ?? null));
  executed?.connect((_, { cell }) => view.cellRan(cell.model.sharedModel.getSource()));
  view.setFront(tracker.currentWidget?.context.path ?? null);
}

interface TopButton {
  mark(waiting: Waiting): void;
}

/** Notebook shows no icons of its side areas: the way to the panel is a button before its menus. */
function addTopButton(app: Application, widget: LuminoWidget, icon: LabIcon, press: () => void): TopButton {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset["navi"] = "panel-open";
  button.className = "navi-top-button";
  button.title = texts.labOpenCaption;
  button.setAttribute("aria-label", texts.labPanel);
  icon.element({ container: button, tag: "span", height: "18px", width: "18px" });
  button.addEventListener("click", press);
  widget.id = "navi-top";
  widget.addClass("navi-top");
  widget.node.append(button);
  app.shell.add(widget, "menu", { rank: BUTTON_RANK });
  return {
    mark(waiting) {
      const count = attentionCount(waiting);
      button.title = button.ariaLabel = attentionText(waiting);
      if (count) button.dataset["naviCount"] = count;
      else delete button.dataset["naviCount"];
      button.toggleAttribute("data-navi-asks", waiting.questions > 0);
    },
  };
}
