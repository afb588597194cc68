"""The notebook as the user sees it: its cells in a page that has it open, where these are newer than the file.

A page that is there says what it shows when it is asked (``open_pages``). A page also sends its cells with a prompt:
where none is there any more, they count until the file is saved again, which has what the page had, or what a tool has
made of it since. A shared document is always what the page shows.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from ...model.notebooks import ClientNotebook, ShownCell, ShownNotebook
from ...ports.jupyter import Cell, Notebook


def as_shown(notebook: Notebook, shown: ShownNotebook | None) -> Notebook:
    """The notebook with the cells of a prompt's page, if it showed this one with changes that no save has met."""
    if shown is None or not shown.notebook.unsaved or shown.notebook.path != notebook.path:
        return notebook
    if notebook.modified is not None and notebook.modified > shown.at:
        return notebook
    return as_page_has(notebook, shown.notebook, shown.at)


def as_page_has(notebook: Notebook, page: ClientNotebook, at: datetime) -> Notebook:
    """The notebook with the cells of a page."""
    if page.cells is None:
        return notebook
    saved = {cell.id: cell for cell in notebook.cells}
    cells = [_cell(index, cell, saved.get(cell.id)) for index, cell in enumerate(page.cells)]
    return replace(notebook, cells=tuple(cells), shown_at=at)


def _cell(index: int, shown: ShownCell, saved: Cell | None) -> Cell:
    unread: tuple[str, ...] = ()
    source = shown.source
    if source is None:
        source = saved.source if saved is not None else ""
        unread = ("its source is long: this is the one of the file",)
    same = saved is not None and saved.kind == shown.type and saved.execution_count == shown.execution_count
    return Cell(
        id=shown.id,
        index=index,
        kind=shown.type,
        source=source,
        execution_count=shown.execution_count,
        # Those of the file are whole, the page's are the beginning of their text.
        outputs=saved.outputs if saved is not None and same else tuple(_outputs(shown)),
        unread=unread,
    )


def _outputs(shown: ShownCell) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = []
    if shown.output:
        outputs.append({"output_type": "stream", "name": "stdout", "text": shown.output})
    if shown.error:
        name, _, value = shown.error.partition(": ")
        outputs.append({"output_type": "error", "ename": name, "evalue": value, "traceback": []})
    return outputs
