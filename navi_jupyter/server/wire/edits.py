"""Bodies about what runs have changed in notebooks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from ...model.base import Instant, Value
from ...model.notebooks import CellId, ClientNotebook


class EditChoice(Value):
    """Body of ``POST runs/{rid}/undo`` and ``POST runs/{rid}/keep``: may be missing."""

    cells: Annotated[tuple[CellId, ...], Field(min_length=1, max_length=2000)] | None = None
    """Ids of cells. Left out: all that the run has changed."""


class RunEdit(Value):
    """A cell that a run has changed, added or deleted."""

    path: str  # of the notebook: as it is now for the session's own, else when it was changed
    cell: str
    kind: Literal["code", "markdown", "raw"]
    before: str | None  # its source before the run; null: the run has added it
    after: str | None  # its source as the run has left it; null: the run has deleted it
    place: str  # the id of the cell before it when it was changed, ``start`` at the top
    omitted: bool  # the sources are not kept, because the run has changed too much: it cannot be undone
    state: Literal["open", "kept", "undone"]  # ``open``: the user has not decided
    at: Instant


class RunEditList(Value):
    """``GET runs/{rid}/edits``: in the order of each cell's last change."""

    run_id: str
    session_id: str
    edits: tuple[RunEdit, ...]


class EditedCell(Value):
    """A cell of a notebook."""

    path: str
    cell: str


class LeftCell(EditedCell):
    """A cell that was not brought back."""

    reason: str  # a sentence


class UndoneEdits(Value):
    """What an undo has done."""

    run_id: str
    undone: tuple[EditedCell, ...]  # these are as they were before the run
    left: tuple[LeftCell, ...]


class NotebookClaim(Value):
    """Body of ``POST sessions/{sid}/notebook-requests/{nid}/claim``: a page has the notebook open."""

    unsaved: bool  # whether it has changes that are not saved


class NotebookChange(Value):
    """What a page is to do with the notebook that it has open."""

    path: str
    action: Literal["insert", "edit", "delete", "save", "show"]
    cell: str | None = None  # id or index
    source: str | None = None  # of ``edit``: the new one
    expected: str | None = None  # only if this is the cell's source now; null: whatever it is
    after: str | None = None  # of ``insert``: id or index of the cell before it, ``start``, null: at the end
    new_cell: dict[str, Any] | None = None  # of ``insert``: as nbformat 4 has it


class ClaimedRequest(Value):
    """The answer to a claim."""

    change: NotebookChange | None  # null: nothing, the server does it


class ReportedCell(Value):
    """A cell that a page has added, changed or deleted: as it is then, or was."""

    id: CellId
    index: Annotated[int, Field(ge=0)]
    type: Literal["code", "markdown", "raw"]
    source: Annotated[str, StringConstraints(max_length=2_000_000)]


class NotebookReport(Value):
    """Body of ``POST sessions/{sid}/notebook-requests/{nid}/report``: the page has made the change, or cannot."""

    cell: ReportedCell | None = None  # null for ``save`` and ``show``
    notebook: ClientNotebook | None = None  # of ``show``: what the page shows
    refusal: Literal["changed", "not_found", "conflict"] | None = None
    """``changed``: the cell's source is not the expected one. ``not_found``: there is no such cell. ``conflict``:
    the file was changed since the page has read it, in a cell that is not saved in the page either."""
