"""The parameters of a notebook job: a cell that sets them, behind the one that has their defaults. Pure.

The convention is papermill's: the defaults are in a cell with the tag ``parameters``; the cell that is added has the
tag ``injected-parameters`` and takes the place of an earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import InvalidRequest

DEFAULTS, INJECTED = "parameters", "injected-parameters"  # tags


def check_language(parameters: Mapping[str, Any], language: str) -> None:
    """Raises InvalidRequest where there are parameters for a kernel whose language they cannot be written in."""
    if parameters and language.lower() != "python":
        raise InvalidRequest(
            f"Parameters are set in Python, and this notebook's kernel is {language or 'of no known language'}: leave"
            " them out, or have the notebook read them from a file.",
            field="run.parameters",
        )


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
