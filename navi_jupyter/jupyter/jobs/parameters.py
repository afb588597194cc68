"""The parameters of a notebook job: those that a notebook has, and a cell that sets them. Pure.

The convention is papermill's: the defaults are in a cell with the tag ``parameters``; the cell that is added has the
tag ``injected-parameters``, stands behind that one, and takes the place of an earlier one.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ...errors import InvalidRequest
from ...ports.jobs import JobParameter
from ...text import joined, one_line

DEFAULTS, INJECTED = "parameters", "injected-parameters"  # tags
MAX_DEFAULT = 200  # characters of a default that are shown


def check_language(parameters: Mapping[str, Any], language: str) -> None:
    """Raises InvalidRequest where there are parameters for a kernel whose language they cannot be written in."""
    if parameters and language.lower() != "python":
        raise InvalidRequest(
            f"Parameters are set in Python, and this notebook's kernel is {language or 'of no known language'}: leave"
            " them out, or have the notebook read them from a file.",
            field="run.parameters",
        )


def parameters_of(cells: Sequence[Mapping[str, Any]]) -> tuple[JobParameter, ...] | None:
    """What the cell with the tag sets, in its order; None where no cell has the tag, or it is no Python that can be
    read: then nothing is known of them."""
    tagged = next((cell for cell in cells if DEFAULTS in tags_of(cell) and cell.get("cell_type") == "code"), None)
    if tagged is None:
        return None
    source = _SHELL_LINE.sub("", joined(tagged.get("source")))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a text like "\\d", which is the user's affair
            body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found: dict[str, str] = {}
    for statement in body:
        for target, value in _assignments(statement):
            found[target] = one_line(ast.get_source_segment(source, value) or "", MAX_DEFAULT) if value else ""
    return tuple(JobParameter(name=name, default=default) for name, default in found.items())


_SHELL_LINE = re.compile(r"^[ \t]*[%!].*$", re.MULTILINE)  # a magic, or a command


def _assignments(statement: ast.stmt) -> list[tuple[str, ast.expr | None]]:
    """The names that a statement sets, with what it sets them to where that is to be seen."""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [(statement.target.id, statement.value)]
    if not isinstance(statement, ast.Assign):
        return []
    return [pair for target in statement.targets for pair in _pairs(target, statement.value)]


def _pairs(target: ast.expr, value: ast.expr | None) -> list[tuple[str, ast.expr | None]]:
    if isinstance(target, ast.Name):
        return [(target.id, value)]
    if not isinstance(target, ast.Tuple | ast.List):
        return []
    values: Sequence[ast.expr | None] = [None] * len(target.elts)
    if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
        values = value.elts
    return [pair for each, its in zip(target.elts, values, strict=True) for pair in _pairs(each, its)]


def check_names(parameters: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], path: str) -> None:
    """Raises InvalidRequest for a parameter that the notebook does not have: what it sets would be read by nothing.

    Where it is not known which it has, each name is taken.
    """
    known = parameters_of(cells)
    unknown = [name for name in parameters if known is not None and name not in {one.name for one in known}]
    if known is None or not unknown:
        return
    names = [one.name for one in known]
    near = get_close_matches(unknown[0], names, n=1, cutoff=0.5)
    meant = f" Did you mean {near[0]}?" if near else ""
    has = f"Its cell with the tag {DEFAULTS} sets: {', '.join(names)}." if names else f"Its cell {DEFAULTS} sets none."
    raise InvalidRequest(f"{path} has no parameter {unknown[0]}.{meant} {has}", field="run.parameters")


def with_parameters(cells: list[dict[str, Any]], parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cells, with one that sets the parameters. Without parameters they stay as they are."""
    if not parameters:
        return cells
    kept = [cell for cell in cells if INJECTED not in tags_of(cell)]
    place = next((at + 1 for at, cell in enumerate(kept) if DEFAULTS in tags_of(cell)), 0)
    return [*kept[:place], _cell(parameters, {str(cell.get("id")) for cell in kept}), *kept[place:]]


def tags_of(cell: Mapping[str, Any]) -> tuple[str, ...]:
    """The tags of a cell of a file, whatever that has in their place."""
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, Mapping) else None
    return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list | tuple) else ()


def _cell(parameters: Mapping[str, Any], taken: set[str]) -> dict[str, Any]:
    # The same id in each copy, so that the cells of two results can be compared.
    identity = next(name for n in range(len(taken) + 1) if (name := f"navi-parameters{n or ''}") not in taken)
    lines = [f"{name} = {value!r}" for name, value in parameters.items()]  # JSON's values are Python's by ``repr``
    return {
        "id": identity,
        "cell_type": "code",
        "metadata": {"tags": [INJECTED]},
        "source": "\n".join(["# Parameters", *lines]),
        "outputs": [],
        "execution_count": None,
    }
