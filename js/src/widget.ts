/**
 * The anywidget loader. Small, because its text goes into every widget's state, and quick, because anywidget drops a
 * model's messages for good when initialising takes two seconds: so all work is done in `render`.
 */

import type { AnyModel } from "@anywidget/types";
import type { mount as Mount, WidgetModel } from "./mount.js";

interface Bundle {
  readonly mount: typeof Mount;
}

/** How long the kernel may take to hand over the bundle; it may have to finish a cell first. */
const PATIENCE = 60_000;

/** Until then, and for good where there is neither server nor kernel, the conversation is shown as it was. */
const SNAPSHOT_AFTER = 1_500;

let loading: Promise<Bundle> | null = null;

function load(model: WidgetModel): Promise<Bundle> {
  loading ??= fromServer().catch(() => fromKernel(model));
  loading.catch(() => (loading = null));
  return loading;
}

async function fromServer(): Promise<Bundle> {
  const config = JSON.parse(document.getElementById("jupyter-config-data")?.textContent ?? "{}") as { baseUrl?: string };
  if (!config.baseUrl) throw new Error("not a page of a Jupyter server");
  const base = new URL(config.baseUrl.replace(/\/?$/, "/"), location.href);
  return import(new URL(`static/navi/navi-chat.js?v=${__NAVI_BUNDLE__}`, base).href) as Promise<Bundle>;
}

function fromKernel(model: WidgetModel): Promise<Bundle> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => done() ?? reject(new Error("no answer")), PATIENCE);
    const receive = (content: unknown): void => {
      const message = content as { navi?: number; m?: string; text?: string };
      if (message.navi !== 1 || message.m !== "bundle" || !message.text) return;
      done();
      const url = URL.createObjectURL(new Blob([message.text], { type: "text/javascript" }));
      (import(url) as Promise<Bundle>).then(resolve, reject).finally(() => URL.revokeObjectURL(url));
    };
    const done = (): undefined => {
      clearTimeout(timer);
      model.off("msg:custom", receive);
    };
    model.on("msg:custom", receive);
    model.send({ navi: 1, m: "get_bundle" });
  });
}

/** The conversation as it was, in a frame where nothing of it can run. */
function showSnapshot(model: WidgetModel, el: HTMLElement): void {
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "");
  frame.style.cssText = "width:100%;height:420px;border:0";
  frame.title = "Navi";
  const policy = "default-src 'none';style-src 'unsafe-inline'";
  frame.srcdoc = `<meta http-equiv="Content-Security-Policy" content="${policy}">${String(model.get("snapshot") ?? "")}`;
  el.replaceChildren(frame);
}

export default {
  render({ model, el }: { model: AnyModel; el: HTMLElement }): () => void {
    const own = model as unknown as WidgetModel;
    const late = setTimeout(() => showSnapshot(own, el), SNAPSHOT_AFTER);
    let clean = (): void => clearTimeout(late);
    let gone = false;
    const show = ({ mount }: Bundle): void => {
      clearTimeout(late);
      if (gone) return;
      el.replaceChildren();
      clean = mount(own, el);
    };
    load(own).then(show, () => gone || showSnapshot(own, el));
    return () => {
      gone = true;
      clean();
    };
  },
};
