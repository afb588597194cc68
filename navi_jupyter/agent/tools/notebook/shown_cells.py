"""The notebook as the user sees it: its cells in the page of their prompt, where these are newer than the file.

A page sends its cells with a prompt. They count until the file is saved again: from then on it has what the page had,
or what a tool has made of it since. A shared document is always what the page shows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ....model.notebooks import ShownCell, ShownNotebook
from ....ports.agent import ToolContext
from ....ports.jupyter import Cell, Notebook
from ..base import available


async def seen_notebook(context: ToolContext, path: object = None) -> Notebook:
    """The notebook at a path, or the conversation's own, as the user sees it. Raises NaviError."""
    notebooks = available(context.jupyter.notebooks, "notebooks")
    notebook = await notebooks.read(context.session, None if path is None else str(path))
    return as_shown(notebook, context.page.shown)


def as_shown(notebook: Notebook, shown: ShownNotebook | None) -> Notebook:
    """The notebook with the cells of the page, if the page showed this notebook with changes that no save has met."""
    if shown is None or notebook.live or not shown.notebook.unsaved or shown.notebook.path != notebook.path:
        return notebook
    if shown.notebook.cells is None or (notebook.modified is not None and notebook.modified > shown.at):
        return notebook
    saved = {cell.id: cell for cell in notebook.cells}
    cells = [_cell(index, cell, saved.get(cell.id)) for index, cell in enumerate(shown.notebook.cells)]
    return replace(notebook, cells=tuple(cells), shown_at=shown.at)


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
