/**
 * Where the panel's pin is kept: in JupyterLab with the layout of the workspace, so that it is there again where that is
 * opened; in Notebook, whose pages are of one notebook each, in the tab.
 */

import { readStored, writeStored } from "../connection/storage.js";
import { isObject } from "../protocol/frames.js";
import type { Pin, PinStorage } from "./followed-session.js";

/** JupyterLab's state of a workspace, as far as we use it. */
export interface StateDatabase {
  fetch(id: string): Promise<unknown>;
  save(id: string, value: unknown): Promise<unknown>;
  remove(id: string): Promise<unknown>;
}

const IN_WORKSPACE = "navi-jupyter:pin";
const IN_TAB = "panel:pin";

export function workspacePins(state: StateDatabase): PinStorage {
  return {
    read: async () => pinOf(await state.fetch(IN_WORKSPACE)),
    write: (pin) => void (pin === null ? state.remove(IN_WORKSPACE) : state.save(IN_WORKSPACE, { ...pin })).catch(() => undefined), // a convenience
  };
}

export const tabPins: PinStorage = {
  read() {
    try {
      return pinOf(JSON.parse(readStored(IN_TAB) ?? "null"));
    } catch {
      return null;
    }
  },
  write: (pin) => writeStored(IN_TAB, pin === null ? null : JSON.stringify(pin)),
};

function pinOf(pin: unknown): Pin | null {
  const text = (value: unknown): string | null => (typeof value === "string" ? value : null);
  return isObject(pin) ? { session: text(pin["session"]), notebook: text(pin["notebook"]) } : null;
}
