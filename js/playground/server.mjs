// A scripted stand-in for the Jupyter server: `npm run playground`, then open the address it prints.
// Its doings can be steered: POST /control/<what>, see below.
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";
import { PlayList } from "./session-list.mjs";
import { addFiring, forgetFirings, overview } from "./overview.mjs";
import { PlaySession } from "./session.mjs";
import { play } from "./scripts.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const sessions = new Map();
const sockets = new Set();
const uploads = new Map();
const list = new PlayList();
/** What the next requests meet: "ok", "gone" (404), "auth" (403), "down" (connections are cut). */
let mood = "ok";

function sessionOf(id) {
  if (!sessions.has(id)) sessions.set(id, Object.assign(new PlaySession(id), { script: play, attachments: uploads }));
  return sessions.get(id);
}

const PNG = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC", "base64");
const models = [
  { name: "offline", provider: "offline", available: true, why: null },
  { name: "anthropic:claude-sonnet-5", provider: "anthropic", available: true, why: null },
  { name: "acp:opencode", provider: "OpenCode", available: true, why: null, command: null },
  { name: "acp:claude", provider: "Claude Code", available: false, why: "Claude Code is not installed. Run: npm install -g @agentclientprotocol/claude-agent-acp", command: "npm install -g @agentclientprotocol/claude-agent-acp" },
  { name: "openai-chat:gpt-5", provider: "openai", available: false, why: "set OPENAI_API_KEY in the server's environment" },
];
const profiles = ["assistant", "analyst"].map((name) => ({ name, description: name, tools: [], builtin: true, available: true, why: null }));
profiles.push({ name: "mine", description: "", tools: [], builtin: false, available: false, why: "mine.toml:3: unknown key 'modell'" });
const prompts = ["fix", "explain", "document", "test"].map((name) => ({ name, description: `To ${name} something`, text: "…", builtin: true, path: null, available: true, why: null }));
prompts.push({ name: "weekly", description: "The week in a few lines", text: "Summarize: {input}", builtin: false, path: "weekly.md", available: true, why: null });
prompts.push({ name: "broken", description: "", text: "", builtin: false, path: "broken.md", available: false, why: "broken.md:2: 'modell' is no setting of a prompt; there is: description" });
const mentions = [
  { kind: "cell", token: "@cell:In[3]", label: "In [3]", detail: "loss.plot()" },
  { kind: "error", token: "@error", label: "The last error", detail: "ValueError: nan" },
  { kind: "variable", token: "@df", label: "df", detail: "DataFrame (1000, 4)" },
  { kind: "file", token: "@data/sales.csv", label: "data/sales.csv", detail: "file, 4,096 bytes" },
  { kind: "file", token: '@"data/my sales of the second quarter, with a long name.csv"', label: "data/my sales of the second quarter, with a long name.csv", detail: "file, 120 bytes" },
  { kind: "session", token: '@session:"Why is the loss flat?"', label: "Why is the loss flat?", detail: "0a1b2c3d" },
  { kind: "recall", token: '@recall:"check the loss"', label: "check the loss", detail: "9f8e7d6c" },
  ...Array.from({ length: 20 }, (_, n) => ({ kind: "variable", token: `@var_${n}`, label: `var_${n}`, detail: "int" })),
];
let mcp = [];
let facts = [];

/** The routes that are of no session; undefined when it is none of them. */
async function other(request, response, json, kind, id, url) {
  const { method } = request;
  const body = async () => Buffer.concat(await request.toArray());
  const parsed = async () => JSON.parse(await body());
  if (kind === "models") return json(200, { models, next: null });
  if (kind === "prompts") return json(200, { prompts, next: null });
  if (kind === "providers") return json(200, { providers: [], local: [], forbidden: null, next: null });
  if (kind === "profiles") return json(200, { profiles, next: null });
  if (kind === "mcp") return json(200, { mcp, next: null });
  if (kind === "attachments" && method === "POST") {
    const content = await body();
    const name = url.searchParams.get("name") ?? "file";
    if (name.endsWith(".exe")) return json(400, { message: "Programs are not taken.", reason: "Bad Request", code: "attachment_refused" });
    const info = { id: `a_${uploads.size + 1}`, name, media_type: request.headers["content-type"], size: content.length };
    uploads.set(info.id, { ...info, content });
    return json(201, info);
  }
  if (kind === "attachments") {
    const found = id === "a_plot" ? { media_type: "image/png", content: PNG } : uploads.get(id);
    if (!found) return json(404, { message: "no such attachment", code: "attachment_not_found" });
    return response.writeHead(200, { "Content-Type": found.media_type, "X-Content-Type-Options": "nosniff" }).end(found.content);
  }
  if (kind !== "memory") return undefined;
  if (method === "GET") return json(200, { memory: facts, next: null });
  if (method === "POST") {
    const fact = { id: `f_${facts.length + 1}_${Date.now()}`, text: (await parsed()).text, source: "user" };
    facts = [fact, ...facts];
    return json(201, fact);
  }
  if (method === "PATCH") {
    const { text } = await parsed();
    facts = facts.map((fact) => (fact.id === id ? { ...fact, text } : fact));
    return json(200, facts.find((fact) => fact.id === id));
  }
  facts = facts.filter((fact) => fact.id !== id);
  return response.writeHead(204).end();
}

const controls = {
  /** What `GET mcp` lists; told to every session, too. */
  mcp: (query) => {
    const server = { name: query.get("server"), status: query.get("status"), available: query.get("status") === "ready", why: query.get("why") };
    mcp = [...mcp.filter(({ name }) => name !== server.name), server];
    for (const session of sessions.values()) session.custom("navi.mcp", { server: server.name, status: server.status, ...(server.why ? { message: server.why } : {}) }, null);
  },
  /** What `GET sessions` lists. */
  seed: (query) => list.seed(Number(query.get("count") ?? 12)),
  /** Changes a session of the list behind the page. */
  listed: (query) => Object.assign(list.sessions.get(query.get("id")), JSON.parse(query.get("fields"))),
  facts: () => (facts = [{ id: "f_0", text: "Prefers polars to pandas", source: "agent" }]),
  expire: (query) => {
    const session = sessionOf(query.get("session"));
    for (const id of [...session.asks.keys()]) session.settle(id, "expired");
  },
  mood: (query) => (mood = query.get("is")),
  close: (query) => sockets.forEach((socket) => (query.get("code") ? socket.close(Number(query.get("code"))) : socket.terminate())),
  /** The log is compacted: what came before is no longer kept. */
  compact: (query) => {
    const session = sessionOf(query.get("session"));
    session.history = session.log;
    session.log = session.log.slice(-1);
  },
  /** It is shared by somebody, to be read. */
  shared: (query) => (sessionOf(query.get("session")).owner = query.get("by")),
  /** Messages from before: `count` of them. */
  fill: (query) => sessionOf(query.get("session")).fill(Number(query.get("count"))),
  /** No session, recall or firing is known any more. */
  fresh: () => (sessions.clear(), forgetFirings()),
  /** A firing for the view over all sessions. */
  firing: (query) => addFiring(query, sessionOf(query.get("session"))),
  /** Other fields of a recall, as JSON. */
  change: (query) => {
    const session = sessionOf(query.get("session"));
    session.recall({ ...session.recalls.get(query.get("id")), ...JSON.parse(query.get("fields")) }, "rescheduled");
  },
  title: (query) => (sessionOf(query.get("session")).title = query.get("is")),
  recall: (query) => {
    const session = sessionOf(query.get("session"));
    const seconds = Number(query.get("in") ?? 600);
    const at = new Date(Date.now() + seconds * 1000).toISOString();
    const cron = query.get("cron");
    const recall = {
      id: query.get("id") ?? `rc_${session.recalls.size + 1}`,
      session_id: session.id,
      title: query.get("title") ?? "check the loss",
      message: query.get("title") ?? "check the loss",
      schedule: cron ? { kind: "cron", expr: cron, tz: "Europe/Berlin" } : { kind: "once", at },
      policy: {},
      status: "pending",
      next_at: at,
      last_at: null,
      fired: 0,
      created_at: new Date().toISOString(),
      origin: "user",
      allow: query.get("allow")?.split(",") ?? [],
      reason: null,
    };
    session.recall(recall, "created");
    if (query.get("fire")) {
      setTimeout(() => {
        if (session.recalls.get(recall.id)?.status !== "pending") return;
        session.recall({ ...recall, status: "running", last_at: at }, "started", { slot: at });
        session.prompt(`recall:${recall.id}:${at}`, recall.message, { kind: "recall", recall_id: recall.id });
        session.recall({ ...recall, status: "fired", next_at: null, last_at: at, fired: 1 }, "fired", { slot: at });
      }, seconds * 1000);
    }
  },
};

const server = createServer(async (request, response) => {
  const url = new URL(request.url, "http://localhost");
  const json = (status, body) => response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
  const control = /^\/control\/(\w+)/.exec(url.pathname)?.[1];
  if (control) return controls[control](url.searchParams), json(200, {});
  if (mood === "down") return request.socket.destroy();
  if (url.pathname.startsWith("/static/navi/")) {
    const file = here(`../../navi_jupyter/static/${url.pathname.slice(13)}`);
    response.writeHead(200, { "Content-Type": file.endsWith(".js") ? "text/javascript" : "text/plain" });
    return createReadStream(file).pipe(response);
  }
  if (!url.pathname.startsWith("/navi/api/")) {
    const page = await readFile(here("index.html"), "utf8");
    return response.writeHead(200, { "Content-Type": "text/html; charset=utf-8", "Set-Cookie": "_xsrf=play" }).end(page);
  }
  if (mood === "gone") return json(404, { message: "no such session", code: "session_not_found" });
  if (mood === "auth" || request.headers["x-xsrftoken"] !== "play") return json(403, { message: "Forbidden", code: "forbidden" });
  const [kind, id, action] = url.pathname.slice("/navi/api/".length).split("/");
  if (kind === "sessions" && (!id || list.sessions.has(id))) {
    const body = Buffer.concat(await request.toArray()).toString();
    const found = list.answer(request.method, id, action, url.searchParams, body ? JSON.parse(body) : {});
    if (found !== undefined && found[0] !== 204) return json(...found);
    if (found !== undefined) return response.writeHead(204).end();
  }
  if (kind === "sessions") {
    const session = sessionOf(id);
    if (action === "transcript") return json(200, session.transcript(url.searchParams.get("before"), Number(url.searchParams.get("limit") ?? 150)));
    if (action === "search") return json(200, session.search(url.searchParams.get("query"), Number(url.searchParams.get("cursor") ?? 0), Number(url.searchParams.get("limit"))));
    if (action === "mentions") {
      const [query, kinds] = [url.searchParams.get("query").toLowerCase(), url.searchParams.get("kind").split(",")];
      const found = mentions.filter((one) => kinds.includes(one.kind) && `${one.token} ${one.label}`.toLowerCase().includes(query));
      return json(200, { mentions: found, notes: ["The kernel is busy: its variables cannot be listed now."], next: null });
    }
    if (action === "interrupts") {
      const asked = session.asks.get(url.pathname.split("/")[6]);
      return asked ? json(200, asked.interrupt) : json(404, { message: "no such question", code: "interrupt_not_found" });
    }
    if (action === "export") return response.writeHead(200, { "Content-Type": "text/markdown" }).end(`# ${session.title}`);
    if (action === "runs") return json(200, { runs: [...session.runs].reverse(), questions: session.settled, next: null });
    if (request.method === "PATCH") session.patch(JSON.parse(Buffer.concat(await request.toArray())));
    return json(200, session.detail());
  }
  if (kind === "recalls" && id === "overview") return json(200, overview(sessions, url.searchParams));
  if (kind === "recalls" && request.method === "POST" && id === "preview") {
    const { text } = JSON.parse(Buffer.concat(await request.toArray()));
    const [, time, message] = /^(in \w+)\s*(.*)$/.exec(text) ?? [];
    if (!time) return json(400, { message: `${text} has no time in it.`, code: "invalid_request" });
    return json(200, { times: [], warnings: [], schedule: { kind: "once", in: time.slice(3) }, policy: {}, meaning: time, message, phrase: time, timezone: "UTC" });
  }
  if (kind === "recalls" && request.method === "POST" && !id) {
    const body = JSON.parse(Buffer.concat(await request.toArray()));
    controls.recall(new URLSearchParams({ session: body.session_id, in: "600", title: body.message }));
    return json(201, [...sessionOf(body.session_id).recalls.values()].at(-1));
  }
  if (kind === "recalls" && !id) {
    return json(200, { recalls: [...sessionOf(url.searchParams.get("session_id")).recalls.values()], next: null });
  }
  if (kind === "recalls") {
    const session = [...sessions.values()].find(({ recalls }) => recalls.has(id));
    const recall = session?.recalls.get(id);
    if (!recall) return json(404, { message: "no such recall", code: "recall_not_found" });
    if (request.method === "PATCH") {
      session.recall({ ...recall, ...JSON.parse(Buffer.concat(await request.toArray())) }, "rescheduled");
      return json(200, session.recalls.get(id));
    }
    const change = { DELETE: ["cancelled", "cancelled"], pause: ["paused", "paused"], resume: ["pending", "resumed"], fire: ["fired", "fired"] };
    const [status, done] = change[request.method === "DELETE" ? "DELETE" : action];
    session.recall({ ...recall, status }, done);
    return json(200, session.recalls.get(id));
  }
  if ((await other(request, response, json, kind, id, url)) === undefined) json(200, { status: "ok" });
});

const upgrades = new WebSocketServer({ noServer: true });
server.on("upgrade", (request, socket, head) => {
  const url = new URL(request.url, "http://localhost");
  if (mood !== "ok") return socket.destroy();
  upgrades.handleUpgrade(request, socket, head, (client) => {
    sockets.add(client);
    const after = url.searchParams.get("after");
    const session = sessionOf(url.pathname.split("/")[4]);
    const send = (frame) => client.send(JSON.stringify(frame));
    const leave = session.follow(after === null ? null : Number(after), send);
    client.on("message", (text) => send(session.command(JSON.parse(text))));
    client.on("close", () => (leave(), sockets.delete(client)));
  });
});

server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/`));
