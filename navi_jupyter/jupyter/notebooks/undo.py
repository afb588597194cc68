"""One undo for all that a run has changed in notebooks: but for cells that were changed since.

What others have changed since is left as it is, and listed with the reason. To undo again changes nothing more.
Not responsible for storing the edits (``ports.edits``), nor for how a notebook is changed (``service``).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ...errors import CellNotFound, NaviError, NotebookConflict, NotebookNotFound
from ...model.sessions import Session
from ...ports.edits import TOP, CellEdit, NotebookEdits
from ...ports.jupyter import Cell, Notebook, Notebooks
from ...ports.jupyter_access import JupyterOf

CHANGED = "It was changed since."
DELETED = "It was deleted since."
NOT_KEPT = "The run has changed too much for its texts to be kept."


@dataclass(slots=True)
class Undone:
    """What became of each edit."""

    undone: list[CellEdit] = field(default_factory=list)
    left: list[tuple[CellEdit, str]] = field(default_factory=list)  # with the reason, as a sentence


class RunEdits:
    """The edits of runs: listed, kept, undone."""

    def __init__(self, jupyter_of: JupyterOf, edits: NotebookEdits) -> None:
        self._jupyter_of = jupyter_of
        self._edits = edits

    async def of_run(self, session: Session, run_id: str) -> Sequence[CellEdit]:
        """In the order of each cell's last change, with the paths that their notebooks have now."""
        edits = await self._edits.of_run(run_id)
        moved = {one.path for one in edits if one.own and one.path != session.notebook_path}
        gone = {path for path in moved if not await self._is_there(session, path)}
        own = session.notebook_path
        return [replace(one, path=own) if own is not None and one.own and one.path in gone else one for one in edits]

    async def _is_there(self, session: Session, path: str) -> bool:
        """Whether a notebook of the session's is still at a path that it had."""
        notebooks = self._jupyter_of(session.owner, session.server).notebooks
        if notebooks is None:
            return True
        try:
            await notebooks.read(session, path)
        except (NotebookNotFound, NotebookConflict):
            return False
        except NaviError:
            return True
        return True

    async def keep(self, session: Session, run_id: str, cells: Collection[str] | None = None) -> Sequence[CellEdit]:
        """The user keeps them (``cells`` None: all): views ask no more. All edits of the run, as they are now."""
        chosen = [one for one in await self._edits.of_run(run_id) if one.state == "open" and _chosen(one, cells)]
        await self._edits.settle(chosen, "kept")
        return await self.of_run(session, run_id)

    async def undo(self, session: Session, run_id: str, cells: Collection[str] | None = None) -> Undone:
        """Bring the cells (None: all) back to what they were before the run. Never raises for a single cell."""
        result = Undone()
        # Backwards: a cell that was deleted after the one before it finds its place when that one is back.
        for edit in reversed(await self._edits.of_run(run_id)):
            if not _chosen(edit, cells):
                continue
            if edit.state == "undone":
                result.undone.append(edit)
                continue
            try:
                reason = NOT_KEPT if edit.omitted else await self._undo_one(session, edit)
            except NaviError as error:
                reason = error.message
            if reason is None:
                await self._edits.settle([edit], "undone")  # one by one: what is done is done, whatever comes next
                result.undone.append(edit)
            else:
                result.left.append((edit, reason))
        return result

    async def _undo_one(self, session: Session, edit: CellEdit) -> str | None:
        """Why it is left as it is; None: it is as it was before the run."""
        notebooks = self._jupyter_of(session.owner, session.server).notebooks
        if notebooks is None:
            return "This server has no notebooks."
        path, notebook = await _notebook_of(notebooks, session, edit)
        now = {cell.id: cell for cell in notebook.cells}
        here = now.get(edit.cell)
        source = None if here is None else here.source
        if source == edit.before:
            return None
        if not edit.is_left_as(source):
            return DELETED if source is None else CHANGED
        try:
            if edit.before is None:
                await notebooks.delete(session, edit.cell, expected=source, path=path)
            elif source is None:
                # Where the cell before it is gone, the end is a place at which it is seen.
                after = edit.place if edit.place == TOP or edit.place in now else None
                await notebooks.restore(session, _cell_of(edit), after=after, path=path)
            else:
                await notebooks.edit(session, edit.cell, edit.before, expected=source, path=path)
        except NotebookConflict:
            return CHANGED
        except CellNotFound:
            return DELETED
        return None


async def _notebook_of(notebooks: Notebooks, session: Session, edit: CellEdit) -> tuple[str | None, Notebook]:
    """The notebook that was changed, and its path (None: it is the session's own).

    The session's notebook may have moved since, and the session may have another notebook since: then the one at the
    path is meant. Raises NaviError.
    """
    if edit.own:
        own = await notebooks.read(session)
        if own.path == edit.path:
            return None, own
        with suppress(NotebookNotFound, NotebookConflict):  # none there, or it was moved away
            return edit.path, await notebooks.read(session, edit.path)
        return None, own
    return edit.path, await notebooks.read(session, edit.path)


def _cell_of(edit: CellEdit) -> Cell:
    outputs = []
    with suppress(ValueError):
        outputs = json.loads(edit.outputs)
    return Cell(
        id=edit.cell,
        index=0,
        kind=edit.kind,
        source=edit.before or "",
        execution_count=edit.execution_count,
        outputs=tuple(outputs),
    )


def _chosen(edit: CellEdit, cells: Collection[str] | None) -> bool:
    return cells is None or edit.cell in cells
