"""What a run has changed in notebooks, kept so that it can be undone: each Protocol's docstring is its contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol

from .jupyter import Cell, Notebook

TOP: Final = "start"  # In place of a cell's id: there is no cell before it.


@dataclass(frozen=True, kw_only=True, slots=True)
class CellEdit:
    """A cell that a run has changed, added or deleted: as it was before the run's first change, and after its last.

    A source of None: the cell was not there.
    """

    run_id: str
    path: str  # of the notebook, when it was changed
    own: bool  # whether it was the session's own notebook, which may have another path by now
    cell: str
    kind: Literal["code", "markdown", "raw"]
    before: str | None
    after: str | None
    unfinished: str | None = None
    """The source that a change was to bring whose end is not known: the server was killed in it."""
    is_unfinished: bool = False  # since ``unfinished`` None is a deletion
    place: str = TOP  # the id of the cell before it, while it was there
    outputs: str = "[]"  # those of a deleted cell, as JSON
    execution_count: int | None = None
    omitted: bool = False  # the sources are not kept: the run has changed too much
    state: Literal["open", "kept", "undone"] = "open"
    at: datetime

    def is_left_as(self, source: str | None) -> bool:
        """Whether a cell with this source (None: it is not there) is as the run has left it."""
        return source == self.after or (self.is_unfinished and source == self.unfinished)


def edit_of(
    notebook: Notebook, cell: Cell, *, run_id: str, own: bool, before: str | None, after: str | None, at: datetime
) -> CellEdit:
    """The edit of one cell that is about to be made."""
    ids = [one.id for one in notebook.cells]
    index = ids.index(cell.id) if cell.id in ids else 0
    return CellEdit(
        run_id=run_id,
        path=notebook.path,
        own=own,
        cell=cell.id,
        kind=cell.kind,
        before=before,
        after=before,
        unfinished=after,
        is_unfinished=True,
        place=ids[index - 1] if index else TOP,
        execution_count=cell.execution_count,
        at=at,
    )


class NotebookEdits(Protocol):
    """The edits of notebooks by runs. Implemented by ``store``; removed with their session, and after some weeks."""

    async def begin(self, edit: CellEdit) -> None:
        """A change is about to be made: durable on return. Of a cell that the run has changed before, the first
        ``before`` stays."""

    async def finish(self, edit: CellEdit, *, done: bool) -> None:
        """The change was made, or was refused."""

    async def of_run(self, run_id: str) -> Sequence[CellEdit]:
        """The run's edits, in the order of each cell's last change."""

    async def settle(self, edits: Sequence[CellEdit], state: Literal["kept", "undone"]) -> None:
        """The user keeps them, or they are undone."""
