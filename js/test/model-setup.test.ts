import { render } from "lit";
import { beforeEach, describe, expect, it, vi } from "vitest";
import type { Answer, Method } from "../src/connection/transport.js";
import type { ProviderInfo } from "../src/protocol/generated.js";
import { ModelSetup } from "../src/view/panels/model-setup.js";
import { FakeTransport } from "./transport.js";

const KEY = "sk-planted-0123456789";
const MODEL = "openai-chat:gpt-6-luna";

/** A server that answers by method and path, and notes what it was asked. */
class Server extends FakeTransport {
  readonly replies: Record<string, Answer> = {};

  override request(method: Method, path: string, body?: unknown): Promise<Answer> {
    this.requests.push({ method, path, body });
    const key = Object.keys(this.replies).sort((one, other) => other.length - one.length).find((beginning) => `${method} ${path}`.startsWith(beginning));
    return Promise.resolve(key === undefined ? { status: 404, body: { message: `no ${method} ${path}` } } : (this.replies[key] as Answer));
  }
}

let server: Server;
let setup: ModelSetup;
let place: HTMLElement;

const ok = (body: unknown): Answer => ({ status: 200, body });
const openai = (more: Partial<ProviderInfo> = {}): ProviderInfo => ({
  name: "openai-chat", label: "OpenAI", setting: "OPENAI_API_KEY", kind: "key", prefixes: ["sk-proj-"], installed: true, source: null, available: false, why: "OpenAI needs a key", ...more,
});
const models = (available: boolean): Answer => ok({ models: [{ name: "offline", provider: "", available: true, why: null }, { name: MODEL, provider: "OpenAI", available, why: null }], next: null });
const page = (more: object = {}): Answer => ok({ providers: [openai()], local: [], may_store: true, file: "/x", next: null, ...more });
const find = <T extends HTMLElement>(name: string): T | null => place.querySelector<T>(`[data-navi="${name}"]`);
const asked = (beginning: string): unknown[] => server.requests.filter(({ method, path }) => `${method} ${path}`.startsWith(beginning)).map(({ body }) => body);
const draw = (): void => void render(setup.card("offline"), place);

async function shown(): Promise<void> {
  draw();
  await vi.waitFor(() => expect(find("setup-outcome")).not.toBeNull());
}

async function save(value: string): Promise<void> {
  const input = find<HTMLInputElement>("setup-value");
  if (!input) throw new Error("no field");
  input.value = value;
  find<HTMLFormElement>("setup-form")?.requestSubmit();
  expect(input.value).toBe("");
  await vi.waitFor(() => expect(["good", "bad"]).toContain(find("setup-outcome")?.dataset["kind"]));
}

beforeEach(() => {
  localStorage.clear();
  place = document.createElement("div");
  document.body.replaceChildren(place);
  server = new Server();
  server.replies["GET providers"] = page();
  server.replies["GET models"] = models(false);
  setup = new ModelSetup({ transport: () => server, session: () => "s_1", problem: () => undefined, redraw: draw });
});

describe("a model to begin with", () => {
  it("is offered where there is none, until it is dismissed", async () => {
    expect(setup.wants(MODEL)).toBe(false);
    await shown();
    find("setup-dismiss")?.click();
    expect(find("model-setup")).toBeNull();
    expect(setup.wants("offline")).toBe(false);
  });

  it("takes a key, has a model answer, and makes it the session's", async () => {
    await shown();
    Object.assign(server.replies, {
      "PUT providers/openai-chat": ok(openai({ source: "stored", available: true })),
      "GET models": models(true),
      "POST models/test": ok({ ok: true, message: "It answered in 0.4 s.", seconds: 0.4 }),
      "PATCH sessions/s_1": ok({}),
    });
    await save(KEY);
    expect(asked("PUT providers/openai-chat")).toEqual([{ value: KEY }]);
    expect(asked("POST models/test")).toEqual([{ model: MODEL }]);
    expect(asked("PATCH sessions/s_1")).toEqual([{ model: MODEL }]);
    expect(find("setup-outcome")?.textContent).toContain("It answered in 0.4 s.");
    expect(document.documentElement.outerHTML + JSON.stringify({ ...localStorage })).not.toContain(KEY);
  });

  it("does not keep a key with which no model answers, and says why", async () => {
    await shown();
    Object.assign(server.replies, {
      "PUT providers/openai-chat": ok(openai({ source: "stored", available: true })),
      "GET models": models(true),
      "POST models/test": ok({ ok: false, message: "The key is wrong.", seconds: 0 }),
      "DELETE providers/openai-chat": { status: 204, body: undefined },
    });
    await save(KEY);
    expect(asked("DELETE providers/openai-chat")).toHaveLength(1);
    expect(asked("PATCH")).toEqual([]);
    expect(find("setup-outcome")?.textContent).toContain("The key is wrong.");
  });

  it("shows what is wrong with a key that the server does not take", async () => {
    await shown();
    server.replies["PUT providers/openai-chat"] = { status: 400, body: { message: "A key has no blanks." } };
    await save("two words");
    expect(find("setup-outcome")?.textContent).toContain("no blanks");
  });

  it("offers a server that was found on this machine, with one click", async () => {
    server.replies["GET providers"] = page({ local: [{ name: "ollama", label: "Ollama", url: "http://127.0.0.1:11434/v1", models: ["llama-4"] }] });
    Object.assign(server.replies, {
      "PUT providers/ollama": ok(openai({ name: "ollama" })),
      "POST models/test": ok({ ok: true, message: "It answered in 1.0 s.", seconds: 1 }),
      "PATCH sessions/s_1": ok({}),
    });
    await shown();
    find("setup-use")?.click();
    await vi.waitFor(() => expect(asked("PATCH sessions/s_1")).toEqual([{ model: "ollama:llama-4" }]));
    expect(asked("PUT providers/ollama")).toEqual([{ value: "http://127.0.0.1:11434/v1" }]);
  });

  it("is there before there is a session, and keeps the model for the first one", async () => {
    setup = new ModelSetup({ transport: () => server, session: () => null, problem: () => undefined, redraw: () => render(setup.card(null), place) });
    server.replies["GET models/preferred"] = ok({ model: "offline", chosen: null, why: null, default: "offline" });
    server.replies["GET models"] = models(true);
    Object.assign(server.replies, { "POST models/test": ok({ ok: true, message: "It answered in 0.4 s.", seconds: 0.4 }), "PUT models/preferred": ok({}) });
    render(setup.card(null), place);
    await vi.waitFor(() => expect(find("setup-use")).not.toBeNull());
    find("setup-use")?.click();
    await vi.waitFor(() => expect(find("setup-outcome")?.dataset["kind"]).toBe("good"));
    expect(asked("PUT models/preferred")).toEqual([{ model: MODEL }]);
    expect(asked("PATCH")).toEqual([]);
  });

  it("is not there where new sessions have a model, and says why a chosen one is not used", async () => {
    const redraw = (): void => void render(setup.card(null), place);
    const make = (preferred: object): void => {
      server.replies["GET models/preferred"] = ok(preferred);
      setup = new ModelSetup({ transport: () => server, session: () => null, problem: () => undefined, redraw });
      redraw();
    };
    make({ model: MODEL, chosen: MODEL, why: null, default: "offline" });
    await vi.waitFor(() => expect(asked("GET models/preferred")).toHaveLength(1));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(find("model-setup")).toBeNull();
    make({ model: "offline", chosen: MODEL, why: `${MODEL} cannot be used here any more.`, default: "offline" });
    await vi.waitFor(() => expect(find("setup-why")?.textContent).toContain("cannot be used here any more"));
  });

  it("chooses the provider whose key is pasted", async () => {
    server.replies["GET providers"] = page({ providers: [openai(), openai({ name: "anthropic", label: "Anthropic", prefixes: ["sk-ant-"] })] });
    await shown();
    const select = (): HTMLSelectElement => find<HTMLSelectElement>("setup-provider") as HTMLSelectElement;
    expect(select().value).toBe("anthropic");
    const input = find<HTMLInputElement>("setup-value") as HTMLInputElement;
    expect(input.type).toBe("password");
    input.value = " sk-proj-planted-0123";
    input.dispatchEvent(new InputEvent("input"));
    expect(select().value).toBe("openai-chat");
    expect(input.value).toBe(" sk-proj-planted-0123");
    input.value = "sk-unknown";
    input.dispatchEvent(new InputEvent("input"));
    expect(select().value).toBe("openai-chat");
  });

  it("asks for no key where the administrator forbids it", async () => {
    server.replies["GET providers"] = page({ may_store: false });
    await shown();
    expect(find("setup-form")).toBeNull();
    expect(place.textContent).toContain("administrator");
  });

  it("says how a provider is installed where there is none, as the server does", async () => {
    server.replies["GET providers"] = page({ providers: [openai({ installed: false, why: 'OpenAI support is not installed. Run: uv pip install "navi-jupyter[openai]" and restart the server.' })] });
    await shown();
    expect(find("setup-missing")?.textContent).toContain("uv pip install");
  });

  it("asks for no key of a provider whose package is not installed, and lists what is stored in the settings", async () => {
    server.replies["GET providers"] = page({
      providers: [openai({ name: "groq", label: "Groq", installed: false, why: 'Groq support is not installed. Run: pip install "x"' }), openai({ source: "stored", available: true, why: null })],
    });
    await shown();
    expect([...place.querySelectorAll("option")].map(({ value }) => value)).toEqual(["openai-chat"]);
    render(setup.section("offline"), place);
    expect(find("setup-stored")?.dataset["provider"]).toBe("openai-chat");
  });
});
