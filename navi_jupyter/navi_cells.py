"""Cells that only give commands to Navi, so that a recall about "the cell" does not mean them. Pure.

Used on both sides: by the kernel to find the cell that a recall means, by the server to find which cells count.
"""

from __future__ import annotations

import ast
import re

AGENT_USER = "navi"
"""The user name in the headers of an agent's requests to kernels: all that read them see by it that an agent asked."""
LENT_ERROR = "navi_lent"
"""Set in the metadata of an ``error`` message of code that an agent executes in a cell which waits for its answer: the
message is about that code, and not about the cell, in whose name it is sent."""

_IGNORED_LINE = re.compile(
    r"^\s*(?:#.*|(?:[\w, ]+=\s*)?%navi\b.*|navi\s+[^=\s.(\[].*|%(?:load|reload)_ext\b.*|%%(?:time|capture)\b.*)?$"
)
"""Without the percent sign, too: IPython takes ``navi recall …`` for the magic."""
_COMMAND = re.compile(r"^\s*(?:[\w, ]+=\s*)?%navi\b|^\s*navi\s+[^=\s.(\[]|\bnavi\b|\brecalls?\s*\(", re.MULTILINE)
_RECALLS = ("recall", "recalls")


def only_makes_recalls(source: str) -> bool:
    """Whether a cell does nothing but make recalls (and import what that takes)."""
    rest = "\n".join(line for line in source.splitlines() if not _IGNORED_LINE.match(line))
    if not rest.strip():
        return True
    try:
        tree = ast.parse(rest)
    except (SyntaxError, ValueError, RecursionError):
        return False  # other magics, or no plain Python: it does something
    return all(
        isinstance(statement, (ast.Import, ast.ImportFrom)) or _makes_recalls(statement) for statement in tree.body
    )


def is_navi_only_cell(source: str) -> bool:
    """Whether a cell only gives commands to Navi: it makes, lists or asks. One that only imports does something."""
    if re.match(r"\s*%%navi\b", source):
        return True
    return bool(_COMMAND.search(source)) and only_makes_recalls(source)


def _makes_recalls(statement: ast.stmt) -> bool:
    """``r = navi.recall(…)`` and the like; not a loop around it."""
    if not isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign)):
        return False
    if isinstance(statement, ast.Expr) and isinstance(statement.value, (ast.Name, ast.Constant)):
        return True  # shows it; a docstring
    value = statement.value
    if not isinstance(value, ast.Call):
        return False
    called = ast.unparse(value.func)
    if called.endswith("run_line_magic"):
        return bool(value.args) and isinstance(value.args[0], ast.Constant) and value.args[0].value == "navi"
    return called.rpartition(".")[2] in _RECALLS
