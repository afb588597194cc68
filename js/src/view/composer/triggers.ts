/** What is being written at the caret that can be completed, and what a text names. Pure. */

/** A stretch of the text that an option takes the place of; `query` is what was typed of it. */
export interface Trigger {
  readonly kind: "mention" | "command" | "argument";
  readonly query: string;
  readonly start: number;
  readonly end: number;
  /** Of an argument: the command that it belongs to. */
  readonly command: string;
}

/** The commands of the chat itself. */
export const OWN_COMMANDS = ["recall", "model", "profile", "new", "export"] as const;
/** Those of them whose word can be completed. */
const WITH_CHOICES = ["model", "profile", "export"];
/** An address, a path or a word goes on before it: then it is no mention. */
const MENTION = /(?:^|[\s([{,;:"'])(@(?:(?:cell|error|session|recall|file|variable):)?(?:"[^"\n]*|[^\s"@]*))$/u;
/** Agent programs have names like `mcp:list` as well. */
const COMMAND = /^\/([\p{L}\p{N}_:.-]*)$/u;
const ARGUMENT = /^\/([a-z]+)[ \t]+(\S*)$/;

/** What is written just before the caret; null: nothing that can be completed. */
export function triggerAt(text: string, caret: number): Trigger | null {
  const before = text.slice(0, caret);
  const command = COMMAND.exec(before);
  if (command) return { kind: "command", query: command[1] ?? "", start: 0, end: caret, command: "" };
  const argument = ARGUMENT.exec(before);
  if (argument && WITH_CHOICES.includes(argument[1] ?? "")) {
    const query = argument[2] ?? "";
    return { kind: "argument", query, start: caret - query.length, end: caret, command: argument[1] ?? "" };
  }
  const token = MENTION.exec(before)?.[1];
  if (token === undefined) return null;
  return { kind: "mention", query: token.slice(1).replaceAll('"', ""), start: caret - token.length, end: caret, command: "" };
}

/** The text with `token` in the place of what was typed, and where the caret is then. */
export function completed(text: string, { start, end }: Trigger, token: string): { readonly text: string; readonly caret: number } {
  const rest = text.slice(end);
  const gap = /^\s/.test(rest) ? "" : " ";
  return { text: `${text.slice(0, start)}${token}${gap}${rest}`, caret: start + token.length + 1 };
}

export interface CommandLine {
  readonly name: string;
  /** What stands behind the name. */
  readonly words: string;
}

/** A text that begins with a command. */
export function commandOf(text: string): CommandLine | null {
  const match = /^\/([\p{L}\p{N}_-]+)(?:\s+([\s\S]*))?$/u.exec(text.trim());
  return match ? { name: match[1] ?? "", words: (match[2] ?? "").trim() } : null;
}

const TOKEN = /(?<![\p{L}\p{N}_@./\\-])@(?:(?:cell|error|session|recall|file|variable):)?(?:"[^"\n]{1,200}"|[^\s"@,;!?()`]{1,200})/gu;
const CODE = /```[\s\S]*?(?:```|$)|`[^`\n]*`/g;
/** A line with a decorator in code that stands there without marks. */
const DECORATOR = /^[ \t]*@[\p{L}_][\p{L}\p{N}_.]*(?:\(.*\))?[ \t]*\n[ \t]*(?:@|async def |def |class )/gmu;
const MOST = 20;

/** The mentions in a text, each as it stands there; what is code, an address or a decorator is none. */
export function mentionsIn(text: string): readonly string[] {
  const blank = (found: string): string => " ".repeat(found.length);
  const words = text.replace(CODE, blank).replace(DECORATOR, (found) => found.replaceAll("@", " "));
  const tokens = [...words.matchAll(TOKEN)].map(([token]) => (token.endsWith('"') ? token : token.replace(/[.:]+$/, "")));
  return [...new Set(tokens.filter((token) => token.length > 1))].slice(0, MOST);
}

/** Whether a text has the letters of what was typed, in their order. */
export function fits(query: string, text: string): boolean {
  const letters = [...query.toLowerCase()];
  for (const letter of text.toLowerCase()) if (letter === letters[0]) letters.shift();
  return letters.length === 0;
}
