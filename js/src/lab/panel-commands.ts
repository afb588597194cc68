/** The commands of the panel, and where they are offered: palette, menu, launcher, keyboard. */

import type { NaviChat } from "../view/chat-element.js";
import type { LabIcon } from "./icon.js";
import { SHOW_OVERVIEW } from "../view/overview/places.js";
import type { Application, Commands, Lumino, Menu } from "./jupyterlab.js";
import type { PanelView } from "./panel-view.js";
import { pageAddress } from "./server.js";
import { texts } from "./texts.js";

export const COMMANDS = {
  open: "navi:open",
  newSession: "navi:new-session",
  composer: "navi:focus-composer",
  pin: "navi:pin",
  page: "navi:open-page",
  explain: "navi:explain-error",
  insert: "navi:insert-code",
  recalls: "navi:show-recalls",
} as const;

/** As in the schema that build.mjs ships: free in JupyterLab, in Notebook and in browsers. */
const SHORTCUTS: Readonly<Record<string, { readonly keys: readonly string[]; readonly macKeys?: readonly string[] }>> = {
  [COMMANDS.composer]: { keys: ["Alt Shift N"] },
  // With Option, the keyboards of a Mac write letters of some languages.
  [COMMANDS.explain]: { keys: ["Alt Shift E"], macKeys: ["Ctrl Shift E"] },
  [COMMANDS.insert]: { keys: ["Alt Shift V"], macKeys: ["Ctrl Shift V"] },
  [COMMANDS.recalls]: { keys: ["Alt Shift R"], macKeys: ["Ctrl Shift R"] },
};

export interface Places {
  readonly palette: { addItem(item: { readonly command: string; readonly category: string }): unknown } | null;
  readonly mainMenu: { addMenu(menu: Menu, update: boolean, options: { readonly rank: number }): void } | null;
  readonly launcher: { add(item: { readonly command: string; readonly args: object; readonly category: string; readonly rank: number }): unknown } | null;
  readonly Menu: Lumino["Menu"];
}

export interface PanelActions {
  readonly panel: PanelView;
  readonly icon: LabIcon;
  /** Shows the panel and goes to where one writes. */
  open(): Promise<NaviChat>;
  /** Goes to where one writes, or from there back. */
  toggle(): void;
  /** The notebook in front, and the chats that it may be about: that of the panel first, if that is shown. */
  notebook(): HTMLElement | null;
  chats(): readonly HTMLElement[];
}

export interface PanelCommands {
  /** What is toggled may be different. */
  changed(): void;
  addShortcuts(): void;
}

/** Between Kernel and Settings. */
const MENU_RANK = 85;

export function addCommands(app: Application, actions: PanelActions, places: Places): PanelCommands {
  const { commands } = app;
  const { panel, icon, open, toggle, notebook, chats } = actions;
  commands.addCommand(COMMANDS.open, { label: ({ isLauncher }) => (isLauncher ? texts.labLauncher : texts.labOpen), caption: texts.labOpenCaption, icon, execute: () => void open() });
  commands.addCommand(COMMANDS.newSession, {
    label: texts.labNewSession,
    execute: async () => {
      await open();
      panel.followed.startNew();
      await open();
    },
  });
  commands.addCommand(COMMANDS.composer, { label: texts.labComposer, execute: toggle });
  commands.addCommand(COMMANDS.pin, {
    label: texts.labPin,
    isToggled: () => panel.followed.shown?.isPinned ?? false,
    isEnabled: () => panel.followed.shown !== null,
    execute: () => panel.followed.setPinned(!panel.followed.shown?.isPinned),
  });
  commands.addCommand(COMMANDS.page, {
    label: texts.labPage,
    execute: () => {
      const session = panel.followed.shown?.session;
      window.open(`${pageAddress()}${session ? `?session=${encodeURIComponent(session)}` : ""}`, "_blank", "noopener");
    },
  });
  addPressing(commands, COMMANDS.explain, texts.labExplain, () => explainButton(notebook()));
  addPressing(commands, COMMANDS.insert, texts.labInsert, () => insertButton(chats()));
  commands.addCommand(COMMANDS.recalls, { label: texts.labRecalls, execute: async () => void (await open()).dispatchEvent(new CustomEvent(SHOW_OVERVIEW)) });
  for (const command of Object.values(COMMANDS)) places.palette?.addItem({ command, category: texts.labCategory });
  if (places.mainMenu) addMenu(places.mainMenu, new places.Menu({ commands }));
  places.launcher?.add({ command: COMMANDS.open, args: { isLauncher: true }, category: "Other", rank: 1 });
  watchShortcuts(app);
  return {
    changed: () => commands.notifyCommandChanged(COMMANDS.pin),
    addShortcuts: () => {
      for (const [command, keys] of Object.entries(SHORTCUTS)) commands.addKeyBinding({ command, ...keys, selector: "body" });
    },
  };
}

/** A command that presses a button of ours: what can be done where, and how, is the button's. */
function addPressing(commands: Commands, id: string, label: string, find: () => HTMLElement | null): void {
  commands.addCommand(id, { label, isEnabled: () => find() !== null, execute: () => find()?.click() });
}

/** Of the active cell if that has failed, else of the last one that has. */
function explainButton(notebook: HTMLElement | null): HTMLElement | null {
  const all = [...(notebook?.querySelectorAll<HTMLElement>("[data-navi=explain]") ?? [])];
  return all.find((button) => button.closest(".jp-Cell.jp-mod-active")) ?? all.at(-1) ?? null;
}

/** Of the last block of code that was written. */
function insertButton(chats: readonly HTMLElement[]): HTMLElement | null {
  const lasts = chats.map((chat) => [...chat.querySelectorAll<HTMLElement>("[data-navi=insert-below]")].at(-1));
  return lasts.find((button) => button !== undefined) ?? null;
}

function addMenu(mainMenu: NonNullable<Places["mainMenu"]>, menu: Menu): void {
  menu.id = "jp-mainmenu-navi";
  menu.title.label = texts.labMenu;
  const items = [COMMANDS.open, COMMANDS.composer, COMMANDS.explain, COMMANDS.insert, COMMANDS.recalls, null, COMMANDS.newSession, COMMANDS.pin, null, COMMANDS.page];
  for (const command of items) menu.addItem(command === null ? { type: "separator" } : { command });
  mainMenu.addMenu(menu, false, { rank: MENU_RANK });
}

/** The host takes no shortcuts from inside of a chat, where keys are text: ours are taken here. */
function watchShortcuts({ commands }: Application): void {
  document.addEventListener(
    "keydown",
    (event) => {
      if (!(event.target instanceof Element && event.target.closest(".navi"))) return;
      const binding = commands.keyBindings.find(({ command, keys }) => command in SHORTCUTS && keys.length === 1 && isPressed(event, keys[0] ?? ""));
      if (!binding) return;
      event.preventDefault();
      event.stopPropagation();
      void commands.execute(binding.command);
    },
    true,
  );
}

const IS_MAC = /mac|iphone|ipad/i.test(navigator.platform);

/** Whether an event is the keystroke that a binding names, as in "Alt Shift N". By the place of the key: Option changes what it writes. */
export function isPressed(event: KeyboardEvent, keystroke: string): boolean {
  const parts = keystroke.split(/\s+/);
  const key = parts.at(-1) ?? "";
  const held = (name: string): boolean => parts.slice(0, -1).includes(name);
  const accel = held("Accel");
  if (event.altKey !== held("Alt") || event.shiftKey !== held("Shift")) return false;
  if (event.ctrlKey !== (held("Ctrl") || (accel && !IS_MAC)) || event.metaKey !== (held("Cmd") || (accel && IS_MAC))) return false;
  return event.code === `Key${key.toUpperCase()}` || event.code === `Digit${key}` || event.key.toLowerCase() === key.toLowerCase();
}
