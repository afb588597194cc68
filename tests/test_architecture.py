"""The rules of CONTRIBUTING.md that a program can hold: sizes, folders, words, imports.

The layers themselves are held by import-linter (pyproject.toml).
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "navi_jupyter"

LONGEST_MODULE = 400
SHORT_MODULE = 60
MOST_SHORT_MODULES = 15
MOST_MODULES_IN_A_FOLDER = 18
MOST_SINGLE_IMPORTERS = 102  # of some 400 modules
MOST_PUBLIC_METHODS = 12
MOST_LARGE_CLASSES = 3

# Words that hide who does what to which data, and the spelling of "cannot". Searched in code, comments and docs.
UNCLEAR_WORDS = re.compile(
    r"\b(?:can not|whoever|nobody(?:'s)?|lets go|puts? away|good-bye|told|said|leash|turnstile)\b", re.IGNORECASE
)
ALLOWED_WORDS = {
    '"been", "said", "done"': "users type it",
    "what the user wants and has said about how": "a prompt for a model",
    '"said": words': "a key that models know",
    "``told`` (the answer or the reason)": "a key of rows that notebooks read",
    '"told": text, "run_id"': "the same",
    '"told": reason, "slots"': "the same",
    'row["told"]': "the same",
}
"""The parts of lines in which an unclear word may stand, and why."""

# Started by Jupyter, a console script or `python -m`, or named by other people's packages: short by nature.
ENTRY_POINTS = {"__init__.py", "__main__.py", "plugins.py", "toolbox.py", "contexts.py"}


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(name: str) -> set[str]:
    """The modules of this package that a module imports anywhere: at its top, for types, or late."""
    path = modules()[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = package[: len(package) - (node.level - 1)] if node.level else []
        target = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
        for alias in node.names:
            inner = f"{target}.{alias.name}"
            found.add(inner if inner in modules() else target)
    # The package itself is no module that could be in a circle: it has the version, and names its API lazily.
    return {one for one in found if one in modules() and one not in (name, "navi_jupyter")}


@cache
def graph() -> dict[str, set[str]]:
    return {name: imports_of(name) for name in modules()}


def circles() -> Iterator[list[str]]:
    """The strongly connected components of more than one module (Tarjan's algorithm, iterative by depth)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> Iterator[list[str]]:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(graph()[name]):
            if target not in index:
                yield from visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            component = []
            while not component or component[-1] != name:
                component.append(stack.pop())
            if len(component) > 1:
                yield sorted(component)

    for name in graph():
        if name not in index:
            yield from visit(name)


def lines_of(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_module_is_longer_than_a_reader_takes_in() -> None:
    assert {place(path): lines for path in modules().values() if (lines := lines_of(path)) > LONGEST_MODULE} == {}


def test_few_modules_are_so_short_that_they_belong_to_their_importer() -> None:
    short = [
        place(path) for path in modules().values() if lines_of(path) < SHORT_MODULE and path.name not in ENTRY_POINTS
    ]
    assert len(short) <= MOST_SHORT_MODULES, short


def test_no_folder_holds_more_modules_than_one_looks_through() -> None:
    folders = Counter(place(path.parent) for path in modules().values() if path.name not in ENTRY_POINTS)
    assert {folder: count for folder, count in folders.items() if count > MOST_MODULES_IN_A_FOLDER} == {}


def test_few_modules_have_a_single_importer() -> None:
    importers = Counter(target for targets in graph().values() for target in targets)
    single = [name for name, path in modules().items() if importers[name] == 1 and path.name not in ENTRY_POINTS]
    assert len(single) <= MOST_SINGLE_IMPORTERS, sorted(single)


def test_every_module_is_imported_or_started() -> None:
    imported = {target for targets in graph().values() for target in targets}
    named = "\n".join(path.read_text(encoding="utf-8") for path in modules().values())
    unused = [
        name
        for name, path in modules().items()
        if name not in imported and path.name not in ENTRY_POINTS and name.rpartition(".")[2] not in named
    ]
    assert unused == []


def test_few_classes_have_more_public_methods_than_one_remembers() -> None:
    large = {}
    for path in modules().values():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
                public = len({one.name for one in methods if not one.name.startswith("_")})
                if public > MOST_PUBLIC_METHODS:
                    large[f"{place(path)}: {node.name}"] = public
    assert len(large) <= MOST_LARGE_CLASSES, large


def test_no_circle_of_imports() -> None:
    assert list(circles()) == []


def test_an_import_inside_a_function_says_why() -> None:
    silent = []
    for path in modules().values():
        lines = path.read_text(encoding="utf-8").splitlines()
        for function in ast.walk(tree_of(path)):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            first = True
            for node in function.body if "injected" not in path.parts else ():
                if not isinstance(node, ast.Import | ast.ImportFrom):
                    first = True
                    continue
                # One comment, at the first of several or above it, speaks for all that follow at once.
                around = lines[node.lineno - 2] + lines[node.lineno - 1] + lines[node.end_lineno or node.lineno - 1]
                if first and "#" not in around and '"""' not in lines[node.lineno - 2]:
                    silent.append(f"{place(path)}:{node.lineno}: {lines[node.lineno - 1].strip()}")
                first = False
    assert silent == []


# The user's API, the server's nouns and its wire types are three views of one thing: they share its name on purpose.
SHARED_CLASS_NAMES = {"Recall", "Session", "Prompt", "QueuedPrompt", "Accepted"}


def test_a_class_name_means_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for path in modules().values():
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(place(path))
    twice = {name: paths for name, paths in homes.items() if len(paths) > 1 and name not in SHARED_CLASS_NAMES}
    assert twice == {}


def test_protocols_stand_at_layer_boundaries_or_have_two_implementations() -> None:
    outside = []
    for name, path in modules().items():
        if name.startswith("navi_jupyter.ports"):
            continue
        outside += [
            f"{place(path)}: {node.name}"
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.ClassDef)
            and any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases)
        ]
    assert set(outside) <= set(PROTOCOLS), set(outside) - set(PROTOCOLS)


PROTOCOLS = {
    "navi_jupyter/clock.py: Clock": "SystemClock, and the tests' clock that is set",
    "navi_jupyter/agent/tools/base.py: ToolSource": "built-in, entry points, kernel functions, MCP",
    "navi_jupyter/agent/tools/base.py: ListedSource": "built-in, entry points, MCP",
    "navi_jupyter/hub/server_changes.py: ReachedServers": "the links of the service, and the tests' links",
    "navi_jupyter/jupyter/kernels/iopub.py: IopubListener": "the executing connection, the observer of cells",
    "navi_jupyter/server/bench/channel.py: ChannelSocket": "the service's handler, and the client of a user's server",
    "navi_jupyter/server/bench/tool_port.py: OwnTools": "the user's server, and its calls over the link",
    "navi_jupyter/jupyter/kernels/lent_kernel.py: LoanSocket": "the server's handler, and the tests' socket",
    "navi_jupyter/jupyter/kernels/requests.py: Executor": "the connection to a kernel, the loan of one",
    "navi_jupyter/kernel/display/painters.py: Painter": "cell, terminal, none",
    "navi_jupyter/store/blobs.py: Blobs": "files, rows of a database, and objects of S3",
    "navi_jupyter/store/statements.py: Row": "of both engines",
    "navi_jupyter/store/statements.py: Changed": "of both engines",
    "navi_jupyter/store/statements.py: SqlConnection": "a connection of each engine, and SQLite's in its thread",
    "navi_jupyter/notifications/apprise_sender.py: MessageSender": "AppriseSender, and the tests' sender",
    "navi_jupyter/server/services.py: RecallWatcher": "the watcher of this server, those of users' servers",
    "navi_jupyter/server/mcp_server/offers.py: McpOffer": "for an agent program, for a user's program",
}
"""Protocols outside of ports -> their implementations."""


@pytest.mark.parametrize("suffix", [".py", ".md"])
def test_words_are_those_of_a_reference_manual(suffix: str) -> None:
    files = modules().values() if suffix == ".py" else [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    found = [
        f"{place(path)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNCLEAR_WORDS.search(line) and not any(part in line for part in ALLOWED_WORDS)
    ]
    assert found == []


NAMED = re.compile(r"`([A-Za-z_][\w.]*)`(?: in)? \(?`([\w/]+\.py)`")


@pytest.mark.parametrize("page", ["docs/design.md", "CONTRIBUTING.md"])
def test_a_page_names_modules_and_functions_that_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    files = {place(path): path.read_text(encoding="utf-8") for path in modules().values()}
    wrong = []
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", text):
        if not any(f"/{path}".endswith(f"/{name}") for path in [*files, *map(place, (ROOT / "tests").rglob("*.py"))]):
            wrong.append(name)
    for name, file in NAMED.findall(text):
        sources = [source for path, source in files.items() if f"/{path}".endswith(f"/{file}")]
        defined = all(re.search(rf"(?:def|class) {part}\b", "\n".join(sources)) for part in name.split("."))
        wrong += [] if defined else [f"{name} in {file}"]
    assert wrong == []


TREE = ROOT / "docs" / "tree.md"


def tree_text() -> str:
    """docs/tree.md: every module with the first sentence of its docstring."""
    lines = [
        "# The tree",
        "",
        "Every module, by the first sentence of its docstring. Written by `python tests/test_architecture.py`.",
    ]
    folder = None
    for path in modules().values():
        text = (ast.get_docstring(tree_of(path)) or "").split("\n\n")[0].replace("\n", " ")
        first = re.split(r"(?<=\.)\s", text)[0].rstrip(".")
        if path.parent != folder:
            folder = path.parent
            lines += ["", f"## `{place(folder)}/`", "", "| module | what it is |", "|---|---|"]
        lines.append(f"| `{path.name}` | {first.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def test_the_map_of_the_tree_is_true() -> None:
    """If not: python tests/test_architecture.py"""
    assert TREE.read_text(encoding="utf-8") == tree_text()


if __name__ == "__main__":
    TREE.write_text(tree_text(), encoding="utf-8")
