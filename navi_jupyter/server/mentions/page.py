"""What a page shows of its notebook, as prompts by name and mentions use it.

The page has what is not saved, so it goes before the file. Not responsible for what a model reads of the page by itself
(``agent.profiles.page_context``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...model.notebooks import ClientNotebook, ShownCell
from ...ports.jupyter import Cell
from .candidates import cell_label


def page_parts(notebook: ClientNotebook) -> dict[str, str]:
    """The values of the placeholders ``selection``, ``cell`` and ``error``, as far as the page shows such a thing."""
    parts: dict[str, str] = {}
    if notebook.selection is not None:
        parts["selection"] = notebook.selection.text
    if (active := notebook.cell(notebook.active)) is not None and active.source:
        parts["cell"] = active.source
    if (error := notebook.error) is not None:
        place = next((n for n, cell in enumerate(notebook.cells or ()) if cell.id == error.cell), None)
        where = "" if place is None else _with_source(_cell(place, (notebook.cells or ())[place], notebook))
        parts["error"] = f"{where}{error.traceback or f'{error.ename}: {error.evalue}'}"
    return parts


def _with_source(cell: Cell) -> str:
    return f"The cell {cell_label(cell)}:\n{cell.source}\n\nIts error:\n"


def live_cells(notebook: ClientNotebook) -> Sequence[Cell] | None:
    """The cells as the page shows them; None where it does not give all of them."""
    if notebook.cells is None or any(cell.source is None for cell in notebook.cells):
        return None
    return [_cell(index, cell, notebook) for index, cell in enumerate(notebook.cells)]


def _cell(index: int, cell: ShownCell, notebook: ClientNotebook) -> Cell:
    outputs: list[dict[str, Any]] = []
    if cell.output:
        outputs.append({"output_type": "stream", "name": "stdout", "text": cell.output})
    if cell.error:
        ename, _, evalue = cell.error.partition(": ")
        error: dict[str, Any] = {"output_type": "error", "ename": ename, "evalue": evalue, "traceback": []}
        if notebook.error is not None and notebook.error.cell == cell.id:
            error["traceback"] = [notebook.error.traceback or cell.error]
        outputs.append(error)
    return Cell(
        id=cell.id,
        index=index,
        kind=cell.type,
        source=cell.source or "",
        execution_count=cell.execution_count,
        outputs=outputs,
    )
