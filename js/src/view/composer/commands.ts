/** The commands of the composer: those that the chat does itself, and the prompts that the server knows by name. */

import { isObject } from "../../protocol/frames.js";
import type { Preview, NamedPromptInfo } from "../../protocol/generated.js";
import type { AgentCommand } from "../../state/model.js";
import { strings } from "../lib/strings.js";
import type { RecallDraft } from "../overview/remind.js";
import { markedLine } from "../lib/visible-text.js";
import { asker } from "../lib/zone.js";
import { ask, tryTo, type RequestContext } from "../recalls/requests.js";
import type { Suggestion, Suggestions } from "./completion.js";
import { fits, OWN_COMMANDS, type CommandLine } from "./triggers.js";

export type CommandName = keyof typeof strings.commands;

export interface CommandContext extends RequestContext {
  /** Tells the user what was done. */
  report(text: string): void;
  /** Shows another session in this view. */
  enter(session: string): void;
  /** Opens the form of a new recall, to be confirmed. */
  propose(draft: RecallDraft): void;
  /** The path of the notebook around the chat; null: there is none. */
  notebookPath(): string | null;
  title(): string;
  /** The slash commands of the agent program that answers; empty where none does. */
  agentCommands(): readonly AgentCommand[];
}

const FORMATS = ["md", "ipynb", "json"];
/** For how long a list of the server's is good, in milliseconds: it is asked for with every key. */
const FRESH = 5_000;

export class Commands {
  readonly #context: CommandContext;
  readonly #lists = new Map<string, { readonly at: number; readonly items: Promise<readonly Record<string, unknown>[]> }>();

  constructor(context: CommandContext) {
    this.#context = context;
  }

  reset(): void {
    this.#lists.clear();
  }

  /** Commands by what was typed of their names. */
  async suggestions(query: string): Promise<Suggestions> {
    const own = OWN_COMMANDS.map((name): Suggestion => ({ token: `/${name}`, label: strings.commands[name].form, detail: strings.commands[name].what, kind: strings.commandKind }));
    const prompts = await this.#prompts();
    const named = prompts.filter(({ text }) => text !== "").map(({ name, description, builtin }): Suggestion => ({
      token: `/${name}`,
      label: `/${name}`,
      detail: description,
      kind: builtin ? strings.commandKind : strings.promptKind,
    }));
    const taken = new Set([...named, ...own].map(({ token }) => token));
    // What Navi knows by a name is Navi's. The others are sent as they stand there.
    const agents = this.#context.agentCommands().map(({ name, description, hint }): Suggestion => ({
      token: `/${name}`,
      label: markedLine(hint ? `/${name} ${hint}` : `/${name}`),
      detail: markedLine(description),
      kind: strings.agentCommandKind,
    }));
    const notes = prompts.flatMap(({ why }) => (why === null ? [] : [why]));
    const wanted = query.toLowerCase();
    const rank = ({ token }: Suggestion): number => (token.slice(1).toLowerCase().startsWith(wanted) ? 0 : 1);
    const options = [...named, ...own, ...agents.filter(({ token }) => !taken.has(token))].filter(({ token }) => fits(query, token)).sort((one, other) => rank(one) - rank(other));
    return { options, notes };
  }

  /** What can stand behind a command. */
  async choices(command: string, query: string): Promise<Suggestions> {
    const list = command === "model" ? "models" : command === "profile" ? "profiles" : null;
    const items: readonly Record<string, unknown>[] = list === null ? FORMATS.map((name) => ({ name, available: true })) : await this.#list(list);
    const options = items
      .filter((item) => item["available"] === true && fits(query, String(item["name"])))
      .map((item): Suggestion => ({
        token: String(item["name"]),
        label: String(item["name"]),
        detail: typeof item["description"] === "string" ? item["description"] : "",
        kind: strings.argumentKind,
      }));
    return { options, notes: [] };
  }

  /** Does one of the chat's own. Answers whether it was possible. */
  run({ name, words }: CommandLine): Promise<boolean> {
    switch (name) {
      case "recall":
        return words === "" ? this.#needs("recall") : this.#recall(words);
      case "model":
        return words === "" || /\s/.test(words) ? this.#needs("model") : this.#set("model", words);
      case "profile":
        return words === "" || /\s/.test(words) ? this.#needs("profile") : this.#set("profile", words);
      case "new":
        return words === "" ? this.#new() : this.#unfit("new");
      case "export":
        return FORMATS.includes(words || "md") ? this.#export(words || "md") : this.#unfit("export");
      default:
        return Promise.resolve(false);
    }
  }

  #needs(name: CommandName): Promise<boolean> {
    this.#context.problem(strings.commandNeeds(strings.commands[name].form));
    return Promise.resolve(false);
  }

  #unfit(name: CommandName): Promise<boolean> {
    this.#context.problem(strings.commandUnfit(strings.commands[name].form));
    return Promise.resolve(false);
  }

  async #set(what: "model" | "profile", value: string): Promise<boolean> {
    const body = await ask(this.#context, "PATCH", `sessions/${this.#session}`, { [what]: value });
    if (!isObject(body)) return false;
    const name = String(body[what] ?? value);
    this.#context.report(what === "model" ? strings.modelIs(name) : strings.profileIs(name));
    return true;
  }

  /** A recall from its words: the server says which are the time. It is made when its form, which shows the times, is confirmed. */
  async #recall(words: string): Promise<boolean> {
    const session = this.#context.session();
    const read = await ask(this.#context, "POST", "recalls/preview", { text: words, sentence: true, session_id: session, ...asker(), n: 1 });
    if (!isObject(read) || !isObject(read["schedule"])) return false;
    const { message, phrase } = read as unknown as Preview;
    if (!message) {
      this.#context.problem(strings.recallNoMessage);
      return false;
    }
    this.#context.propose({ message, when: phrase });
    return true;
  }

  async #new(): Promise<boolean> {
    const path = this.#context.notebookPath();
    const made = await ask(this.#context, "POST", "sessions", path === null ? {} : { notebook_path: path });
    if (!isObject(made) || typeof made["id"] !== "string") return false;
    this.#context.enter(made["id"]);
    return true;
  }

  async #export(format: string): Promise<boolean> {
    const file = await this.#context.transport()?.load?.(`sessions/${this.#session}/export?format=${format}`);
    if (!file) {
      this.#context.problem(strings.exportNotHere);
      return false;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = `${fileName(this.#context.title())}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    return true;
  }

  get #session(): string {
    return encodeURIComponent(this.#context.session() ?? "");
  }

  async #prompts(): Promise<readonly NamedPromptInfo[]> {
    return (await this.#list("prompts")) as unknown as readonly NamedPromptInfo[];
  }

  #list(name: string): Promise<readonly Record<string, unknown>[]> {
    const known = this.#lists.get(name);
    if (known && Date.now() - known.at < FRESH) return known.items;
    const items = tryTo(this.#context, "GET", name).then(({ body }) => {
      const listed = isObject(body) ? body[name] : null;
      return Array.isArray(listed) ? listed.filter(isObject) : [];
    });
    this.#lists.set(name, { at: Date.now(), items });
    return items;
  }
}

function fileName(title: string): string {
  return title.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 60) || "navi";
}
