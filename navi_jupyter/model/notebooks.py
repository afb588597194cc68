"""What a page shows of a notebook when its user sends a prompt: field ``client.notebook`` of a prompt.

Its cells may be unsaved, so that no file has them. It is data of the notebook's: a model reads it as foreign text
(``agent.run.foreign_text``). Not responsible for the notebook itself (``ports.jupyter``).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from .base import Instant, Value
from .sessions import Asker

MOST_CELLS = 2_000
LONGEST_SOURCE = 100_000  # characters of one cell
MOST_TEXT = 500_000
"""Characters of all texts together. A page with a larger notebook leaves out the sources that are the farthest from the
active cell: the prompt is stored, and sent again where a connection breaks."""

CellId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_Count = Annotated[int, Field(ge=0, le=10**9)]


class ShownCell(Value):
    """A cell as the page shows it."""

    id: CellId
    type: Literal["code", "markdown", "raw"] = "code"
    source: Annotated[str, StringConstraints(max_length=LONGEST_SOURCE)] | None = None
    """None: left out, because the cell or the notebook is too long."""
    execution_count: _Count | None = None
    output: Annotated[str, StringConstraints(max_length=4_000)] | None = None  # the text of its outputs, shortened
    error: Annotated[str, StringConstraints(max_length=1_000)] | None = None  # the error that it ended with, in a line


class ShownSelection(Value):
    """The text that is selected in a cell's editor."""

    cell: CellId | None = None
    text: Annotated[str, StringConstraints(min_length=1, max_length=20_000)]


class ShownError(Value):
    """The last error that the page shows."""

    cell: CellId | None = None
    ename: Annotated[str, StringConstraints(max_length=200)]
    evalue: Annotated[str, StringConstraints(max_length=5_000)] = ""
    traceback: Annotated[str, StringConstraints(max_length=20_000)] | None = None  # as text, without colours


class ClientNotebook(Value):
    """The notebook that the page of a prompt shows; or a file in an editor, which has no cells."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)]  # relative to the server's root
    cells: Annotated[tuple[ShownCell, ...], Field(max_length=MOST_CELLS)] | None = None
    """All of its cells, in order; None: the page does not give them."""
    active: CellId | None = None  # the cell that is selected
    selection: ShownSelection | None = None
    error: ShownError | None = None
    unsaved: bool = False  # whether something of it is not in the file yet

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        length = sum(len(text) for text in self.texts())
        if length > MOST_TEXT:
            raise ValueError(
                f"has {length:,} characters of text, and may have {MOST_TEXT:,}: leave out sources of cells (null)"
            )
        ids = [cell.id for cell in self.cells or ()]
        if len(set(ids)) != len(ids):
            raise ValueError("two cells have the same id")
        return self

    def texts(self) -> list[str]:
        """All texts of it that may be long."""
        cells = [text for cell in self.cells or () for text in (cell.source, cell.output, cell.error)]
        error = [self.error.evalue, self.error.traceback] if self.error else []
        selected = [self.selection.text] if self.selection else []
        return [text for text in (*cells, *error, *selected) if text]

    def cell(self, cell_id: str | None) -> ShownCell | None:
        """The cell with that id, if it is there."""
        return next((cell for cell in self.cells or () if cell.id == cell_id), None)


class PromptClient(Asker):
    """Field ``client`` of a prompt: the machine of the one who asks, and what its page shows."""

    notebook: ClientNotebook | None = None


class ShownNotebook(Value):
    """What the page of a prompt showed, and when the prompt came."""

    notebook: ClientNotebook
    at: Instant

    def summary(self) -> dict[str, object]:
        """What goes with the user's message in the log: names and counts, and no text of the notebook's."""
        notebook = self.notebook
        active = notebook.cell(notebook.active)
        return {
            "path": notebook.path,
            "cells": len(notebook.cells or ()),
            "active": notebook.active,
            "execution_count": active.execution_count if active else None,
            "selection": notebook.selection is not None,
            "error": notebook.error is not None,
            "unsaved": notebook.unsaved,
        }
