import { describe, expect, it } from "vitest";
import { cellFor, isRunnable } from "../src/lab/code-language.js";

describe("A code block that becomes a cell", () => {
  it.each([
    ["python", "print(1)\n", "code", "print(1)"],
    ["", "%pip install polars", "code", "%pip install polars"],
    ["py", ">>> a = 1\n>>> if a:\n...     print(a)\n...\n1", "code", "a = 1\nif a:\n    print(a)\n"],
    ["markdown", "# Result", "markdown", "# Result"],
    ["md", "text", "markdown", "text"],
    ["bash", "pip install polars", "code", "%pip install polars"],
    ["sh", "python -m pip install -U polars", "code", "%pip install -U polars"],
    ["console", "$ pip install polars\nCollecting polars", "code", "%pip install polars"],
    ["bash", "ls | wc -l", "code", "%%bash\nls | wc -l"],
    ["shell", "cd data\nls", "code", "%%bash\ncd data\nls"],
    ["console", "$ git status\nOn branch main\n$ git log", "code", "%%bash\ngit status\ngit log"],
    ["bash", "!ls", "code", "!ls"],
    ["bash", "%%bash\nls", "code", "%%bash\nls"],
  ])("in %j: %j", (language, code, kind, source) => {
    expect(cellFor(code, language, "python")).toEqual({ kind, source });
  });

  it("is left as it is where the kernel is not Python's", () => {
    expect(cellFor("ls", "bash", "r")).toEqual({ kind: "code", source: "ls" });
    expect(cellFor("ls", "bash", "bash")).toEqual({ kind: "code", source: "ls" });
    expect(cellFor("# a", "markdown", "r")).toEqual({ kind: "markdown", source: "# a" });
  });

  it("can run in a kernel of its language, and shell in Python's", () => {
    const languages = ["", "python", "PY", "bash", "console", "markdown", "json", "r"];
    expect(languages.filter((language) => isRunnable(language, "python"))).toEqual(["", "python", "PY", "bash", "console"]);
    expect(languages.filter((language) => isRunnable(language, "r"))).toEqual(["", "r"]);
    expect(isRunnable("rust", "rust")).toBe(true);
  });
});
