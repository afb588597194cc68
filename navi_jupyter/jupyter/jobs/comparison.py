"""What has changed between two results of a notebook: a difference of the outputs' text for each cell. Pure.

Cells are the same by their ids; where a notebook's cells have none, these are made of their sources when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import unified_diff
from typing import Any

from ...output_text import outputs_text
from ...ports.jobs import ResultCell
from ...text import joined, one_line

MAX_CELLS = 200  # that differ
MAX_LINES = 400  # of a cell's difference
MAX_COMPARED = 5_000  # lines of a cell's output: more takes seconds
FIRST_LINE = 120
_AROUND = 2  # unchanged lines around a change


def compared(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Sequence[ResultCell], int]:
    """The cells that differ, in the order of the newer result, then those that are gone; and how many do not."""
    before = {cell["id"]: cell for cell in _code_cells(old)}
    found: list[ResultCell] = []
    unchanged = 0
    for cell in _code_cells(new):
        earlier = before.pop(cell["id"], None)
        change = _difference(earlier or {}, cell)
        if change:
            found.append(_result_cell(cell, change))
        else:
            unchanged += 1
    found += [_result_cell(gone, _difference(gone, {}), number=None) for gone in before.values()]
    return found[:MAX_CELLS], unchanged


def _code_cells(notebook: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    cells = notebook["cells"]
    return [cell for cell in cells if cell.get("cell_type") == "code" and joined(cell.get("source")).strip()]


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    sources = [_lines(joined(cell.get("source"))) for cell in (old, new)]
    outputs = [
        _lines(outputs_text(cell.get("outputs") or (), traceback_limit=2000, name_images=True)) for cell in (old, new)
    ]
    lines: list[str] = []
    for name, (before, after) in (("source", sources), ("output", outputs)):
        if before != after:
            lines += unified_diff(before, after, f"{name} before", f"{name} now", n=_AROUND, lineterm="")
    if not lines and _pictures(old) != _pictures(new):
        lines = ["--- output before", "+++ output now", "@@ @@", "-[another picture]", "+[another picture]"]
    return lines


def _lines(text: str) -> list[str]:
    return text.splitlines()[:MAX_COMPARED]


def _pictures(cell: Mapping[str, Any]) -> list[Any]:
    """What outputs show besides text: images, and the like."""
    data = [output.get("data") for output in cell.get("outputs") or () if isinstance(output, Mapping)]
    return [
        [(kind, joined(value) if isinstance(value, list) else value) for kind, value in one.items() if "image/" in kind]
        for one in data
        if isinstance(one, Mapping)
    ]


def _result_cell(cell: Mapping[str, Any], lines: Sequence[str], **changed: Any) -> ResultCell:
    source = joined(cell.get("source")).strip().splitlines() or [""]
    fields: dict[str, Any] = {
        "cell": str(cell["id"]),
        "number": cell.get("execution_count"),
        "source": one_line(source[0], FIRST_LINE),
        "diff": "\n".join(lines[:MAX_LINES]),
        "omitted": max(0, len(lines) - MAX_LINES),
    }
    return ResultCell(**fields | changed)
