// Builds everything that the wheel carries from js/: `node build.mjs [--watch]`. Called by hatch_build.py, too.
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { fileURLToPath } from "node:url";
import * as esbuild from "esbuild";

const js = dirname(fileURLToPath(import.meta.url));
const root = dirname(js);
const staticFolder = join(root, "navi_jupyter", "static");
const stampFile = join(staticFolder, "sources.sha256");
const labFolder = join(root, "navi_jupyter", "labextension");

const initFile = await readFile(join(root, "navi_jupyter", "__init__.py"), "utf8");
const version = /^__version__\s*=\s*["']([^"']+)["']/m.exec(initFile)?.[1];
if (!version) throw new Error("navi_jupyter/__init__.py has no __version__");

/** @type {esbuild.BuildOptions} */
const common = {
  absWorkingDir: js,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none", // THIRD_PARTY_LICENSES.txt has them in full
  define: { __NAVI_VERSION__: JSON.stringify(version) },
  plugins: [
    {
      name: "css as minified text",
      setup: ({ onLoad }) =>
        onLoad({ filter: /\.css$/ }, async ({ path }) => {
          const { code } = await esbuild.transform(await readFile(path, "utf8"), { loader: "css", minify: true });
          return { contents: code.trim(), loader: "text" };
        }),
    },
  ],
  logLevel: "warning",
};

/** Chinese is half as long so. A module is UTF-8 whatever the page is. */
const charset = "utf8";

/** What the server hands out: the first part, and chunks that it imports when something of them is needed. */
const component = {
  ...common,
  charset,
  define: { ...common.define, __NAVI_SINGLE__: "false" },
  entryPoints: { "navi-chat": "src/navi-chat.ts" },
  outdir: staticFolder,
  splitting: true,
  chunkNames: "chunk-[hash]",
  metafile: true,
};

/** The same in one file, which a kernel hands over where there is no server beside the page. Formulas stay TeX there. */
async function buildSingle() {
  const define = { ...common.define, __NAVI_SINGLE__: "true" };
  const result = await esbuild.build({ ...common, charset, define, entryPoints: ["src/navi-chat.ts"], write: false });
  await writeFile(join(staticFolder, "navi-single.js.gz"), gzip(result.outputFiles[0].contents));
}

/** Compressed once, here, and served so: `server/page.py`. */
function gzip(contents) {
  return gzipSync(contents, { level: 9 });
}

/** The bundle's id: what the URLs of the component end with, so that browsers keep it for years and never use an old one. */
async function bundleId() {
  const digest = createHash("sha256").update(await readFile(join(staticFolder, "navi-chat.js"))).digest("hex");
  return `${version}-${digest.slice(0, 8)}`; // it names its chunks, whose names have their digests
}

async function buildComponent() {
  for (const file of await readdir(staticFolder)) if (/\.(js|gz|br)$/.test(file)) await rm(join(staticFolder, file));
  const { metafile } = await esbuild.build(component);
  for (const output of Object.keys(metafile.outputs)) {
    const file = join(js, output);
    const contents = await readFile(file);
    await writeFile(`${file}.gz`, gzip(contents));
    await writeFile(`${file}.br`, brotliCompressSync(contents)); // smaller; browsers take it from this machine and over HTTPS
  }
  await writeFile(join(staticFolder, "bundle.json"), JSON.stringify({ id: await bundleId(), first: firstLoad(metafile) }) + "\n");
}

/** The files that a page loads before it can show a chat: the component, and what it imports at once. */
function firstLoad({ outputs }) {
  const found = new Set();
  const add = (path) => {
    if (found.has(path)) return;
    found.add(path);
    for (const { path: imported, kind } of outputs[path].imports) if (kind === "import-statement") add(imported);
  };
  add(Object.keys(outputs).find((path) => path.endsWith("/navi-chat.js")));
  return [...found].map((path) => path.split("/").at(-1));
}

/** The options for what loads the component. */
async function loading() {
  return { ...common, define: { ...common.define, __NAVI_BUNDLE__: JSON.stringify(await bundleId()) } };
}

/** The anywidget loader. */
async function buildWidget() {
  await esbuild.build({ ...(await loading()), entryPoints: { widget: "src/widget.ts" }, outdir: staticFolder });
}

const panelSchema = {
  title: "Navi",
  description: "The panel with Navi's chat",
  "jupyter.lab.shortcuts": [
    { command: "navi:focus-composer", keys: ["Alt Shift N"], selector: "body" },
    { command: "navi:explain-error", keys: ["Alt Shift E"], macKeys: ["Ctrl Shift E"], selector: "body" },
    { command: "navi:insert-code", keys: ["Alt Shift V"], macKeys: ["Ctrl Shift V"], selector: "body" },
    { command: "navi:show-recalls", keys: ["Alt Shift R"], macKeys: ["Ctrl Shift R"], selector: "body" },
  ],
  properties: {},
  additionalProperties: false,
  type: "object",
};

/** The hand-written module-federation container that JupyterLab and Notebook load. */
async function buildLabExtension() {
  const result = await esbuild.build({
    ...(await loading()),
    entryPoints: ["src/labextension.ts"],
    format: "iife",
    write: false,
  });
  const code = result.outputFiles[0].contents;
  const hash = createHash("sha256").update(code).digest("hex").slice(0, 16);
  const entry = `static/remoteEntry.${hash}.js`;
  const manifest = {
    name: "navi-jupyter",
    version,
    description: "Navi in JupyterLab and Notebook: a panel, and its chats in outputs.",
    license: "BSD-3-Clause",
    jupyterlab: { extension: true, schemaDir: "schemas", _build: { load: entry, extension: "./extension" } },
  };
  await rm(labFolder, { recursive: true, force: true });
  await mkdir(join(labFolder, "static"), { recursive: true });
  await writeFile(join(labFolder, entry), code);
  await writeFile(join(labFolder, "package.json"), JSON.stringify(manifest, null, 2) + "\n");
  // Read by the server of JupyterLab: what can be set, and the shortcuts, which users can change there.
  const schemas = join(labFolder, "schemas", manifest.name);
  await mkdir(schemas, { recursive: true });
  await writeFile(join(schemas, "panel.json"), JSON.stringify(panelSchema, null, 2) + "\n");
  await writeFile(join(schemas, "package.json.orig"), JSON.stringify(manifest, null, 2) + "\n");
}

/** Their licences ask to be passed on with the code. */
async function collectLicenses() {
  const packages = ["lit", "lit-html", "lit-element", "@lit/reactive-element", "marked", "diff", "dompurify", "highlight.js", "katex"];
  const parts = [];
  for (const name of packages) {
    const folder = join(js, "node_modules", name);
    const { version: itsVersion } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    const file = (await readdir(folder)).find((entry) => /^licen[sc]e/i.test(entry));
    const text = file ? await readFile(join(folder, file), "utf8") : "";
    parts.push(`${"=".repeat(78)}\n${name} ${itsVersion}\n${"=".repeat(78)}\n\n${text.trim()}\n`);
  }
  await writeFile(join(staticFolder, "THIRD_PARTY_LICENSES.txt"), parts.join("\n"));
}

/** The same digest as in hatch_build.py, which compares. */
async function stamp() {
  const files = [];
  for (const source of ["js/src", "js/build.mjs", "js/package.json", "js/package-lock.json"]) await walk(join(root, source), files);
  const named = files.map((file) => [relative(root, file).split(sep).join("/"), file]);
  named.sort(([a], [b]) => (a < b ? -1 : 1));
  const digest = createHash("sha256").update(version + "\0");
  for (const [name, file] of named) digest.update(name + "\0").update(await readFile(file)).update("\0");
  await writeFile(stampFile, digest.digest("hex") + "\n");
}

async function walk(path, found) {
  if ((await stat(path)).isFile()) found.push(path);
  else for (const entry of await readdir(path)) await walk(join(path, entry), found);
}

await mkdir(staticFolder, { recursive: true });
await rm(stampFile, { force: true });
await buildComponent();
await Promise.all([buildSingle(), buildWidget(), buildLabExtension(), collectLicenses()]);
await stamp(); // last: it says that all of the above is there
if (process.argv.includes("--watch")) {
  await (await esbuild.context({ ...component, sourcemap: "inline", logLevel: "info" })).watch();
}
