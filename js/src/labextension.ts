/**
 * The extension of JupyterLab and Notebook, written as the module-federation container that JupyterLab's loader calls
 * (init, get), by hand: this needs no bundler of JupyterLab's. What it takes from JupyterLab comes out of the scope of
 * shared packages.
 */

import { createCellsPlugin } from "./lab/cells-plugin.js";
import { createOutputsPlugin } from "./lab/outputs.js";
import { createPanelPlugin } from "./lab/panel.js";
import { createRecallsPlugin } from "./lab/recalls.js";
import { useScope, type ShareScope } from "./lab/shared-packages.js";
import { createLanguagePlugin } from "./lab/texts.js";

const NAME = "navi-jupyter";

const container = {
  init(shareScope: ShareScope): void {
    useScope(shareScope);
  },
  async get(module: string): Promise<() => unknown> {
    if (module !== "./extension") throw new Error(`${NAME} has no ${module}`);
    const made = await Promise.allSettled([createLanguagePlugin(), createOutputsPlugin(), createCellsPlugin(), createPanelPlugin(), createRecallsPlugin()]);
    for (const each of made) if (each.status === "rejected") console.error(`${NAME}:`, each.reason); // the others work without it
    const plugins = made.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
    return () => ({ __esModule: true, default: plugins });
  },
};

const containers = ((globalThis as { _JUPYTERLAB?: Record<string, unknown> })._JUPYTERLAB ??= {});
containers[NAME] = container;
