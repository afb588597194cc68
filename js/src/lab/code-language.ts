/** The languages of code blocks: which cell a block becomes, and whether the notebook's kernel can run it. */

const MARKDOWN = ["markdown", "md"];
const SHELL = ["bash", "sh", "shell", "zsh", "console", "shell-session", "shellsession"];
/** Names that blocks use for what a kernel calls its language. */
const NAMES: Readonly<Record<string, readonly string[]>> = {
  python: ["py", "python", "python3", "ipython", "ipython3", "pycon", "jupyter"],
  r: ["r"],
  julia: ["jl", "julia"],
  javascript: ["js", "javascript"],
  typescript: ["ts", "typescript"],
  scala: ["scala"],
  bash: SHELL,
};
/** One line that installs or asks about packages, or goes to a folder: IPython has a magic for it that means this kernel. */
const OWN_MAGIC = /^(?:(?:python3? -m )?pip3?|conda|mamba|cd|ls|pwd) ?[^\n|&;<>]*$/;
/** The prompt of a shell or of Python before a line of a session that is shown. */
const PROMPT = /^\$ /;
const PYTHON_PROMPT = /^(?:>>> |\.\.\. |>>>$|\.\.\.$)/;

export interface CellText {
  readonly kind: "code" | "markdown";
  readonly source: string;
}

/** `kernel`: the language of the notebook's kernel. */
export function cellFor(code: string, language: string, kernel: string): CellText {
  const name = language.toLowerCase();
  const source = code.replace(/\n+$/, "");
  if (MARKDOWN.includes(name)) return { kind: "markdown", source };
  if (kernel !== "python") return { kind: "code", source };
  if (SHELL.includes(name)) return { kind: "code", source: shell(source) };
  return { kind: "code", source: unprompted(source) };
}

export function isRunnable(language: string, kernel: string): boolean {
  const name = language.toLowerCase();
  return name === "" || name === kernel || (NAMES[kernel] ?? []).includes(name) || (kernel === "python" && SHELL.includes(name));
}

/** Commands of a shell in a cell of IPython. */
function shell(source: string): string {
  if (/^[%!]/.test(source)) return source; // it is written for a notebook
  const lines = source.split("\n");
  const isSession = lines.some((line) => PROMPT.test(line));
  // Of a session, what the commands have printed is no command.
  const commands = isSession ? lines.filter((line) => PROMPT.test(line)).map((line) => line.replace(PROMPT, "")) : lines;
  const text = commands.join("\n").trim();
  if (!OWN_MAGIC.test(text)) return `%%bash\n${text}`;
  return `%${text.replace(/^python3? -m pip/, "pip").replace(/^pip3/, "pip")}`;
}

/** Python without the prompts of a session that is shown, and without what that session printed. */
function unprompted(source: string): string {
  const lines = source.split("\n");
  if (!lines[0]?.startsWith(">>> ")) return source;
  return lines.filter((line) => PYTHON_PROMPT.test(line)).map((line) => line.slice(4)).join("\n");
}
