"""SQL for what runs have changed in notebooks: a row for each cell of a run.

Not responsible for undoing it (``jupyter.notebooks.undo``).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from ...ports.edits import CellEdit
from ..database import Database, Transaction
from ..rows import from_micros, to_micros
from ..statements import Row

KEPT_FOR = timedelta(days=30)
MOST_TEXT = 8_000_000  # characters of one run's edits; of what comes beyond that the sources are not kept
MOST_OUTPUTS = 400_000  # of the outputs of one deleted cell

_BEGIN = (
    "INSERT INTO notebook_edits (run_id, path, own, cell_id, number, kind, before, after, next, has_next, place,"
    " outputs, execution_count, omitted, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?)"
    " ON CONFLICT (run_id, path, cell_id) DO UPDATE SET number = excluded.number, next = excluded.next, has_next = 1,"
    # What somebody else has made of the cell since the run changed it is what comes back.
    " before = CASE WHEN notebook_edits.after IS excluded.after THEN notebook_edits.before ELSE excluded.before END,"
    " after = excluded.after,"
    # A deletion has the place and the outputs that count.
    " place = excluded.place, outputs = excluded.outputs, execution_count = excluded.execution_count,"
    " omitted = max(notebook_edits.omitted, excluded.omitted), at = excluded.at, state = 'open'"
)


class NotebookEditStore:
    """Implements :class:`navi_jupyter.ports.edits.NotebookEdits`."""

    def __init__(self, store: Database) -> None:
        self._store = store

    async def begin(self, edit: CellEdit) -> None:
        async def unit(tx: Transaction) -> None:
            await tx.change("DELETE FROM notebook_edits WHERE at < ?", (to_micros(edit.at - KEPT_FOR),))
            row = await tx.one(
                "SELECT coalesce(max(number), 0) AS number, coalesce(sum(length(coalesce(before, ''))"
                " + length(coalesce(after, '')) + length(outputs)), 0) AS size FROM notebook_edits WHERE run_id = ?",
                (edit.run_id,),
            )
            number, size = (row["number"], row["size"]) if row is not None else (0, 0)
            outputs = edit.outputs if len(edit.outputs) <= MOST_OUTPUTS else "[]"
            size += len(edit.before or "") + len(edit.unfinished or "") + len(outputs)
            omitted = size > MOST_TEXT
            texts = (None, None, None) if omitted else (edit.before, edit.after, edit.unfinished)
            await tx.change(
                _BEGIN,
                (
                    edit.run_id,
                    edit.path,
                    edit.own,
                    edit.cell,
                    number + 1,
                    edit.kind,
                    *texts,
                    edit.place,
                    "[]" if omitted else outputs,
                    edit.execution_count,
                    omitted,
                    to_micros(edit.at),
                ),
            )

        await self._store.write(unit, durable=True)

    async def finish(self, edit: CellEdit, *, done: bool) -> None:
        which = (edit.run_id, edit.path, edit.cell)
        where = "WHERE run_id = ? AND path = ? AND cell_id = ?"

        async def unit(tx: Transaction) -> None:
            if done:
                await tx.change(f"UPDATE notebook_edits SET after = next {where}", which)
            await tx.change(f"UPDATE notebook_edits SET next = NULL, has_next = 0 {where}", which)
            # Refused before the run had changed the cell at all: there is nothing to undo.
            await tx.change(f"DELETE FROM notebook_edits {where} AND before IS after AND omitted = 0", which)

        await self._store.write(unit)

    async def of_run(self, run_id: str) -> Sequence[CellEdit]:
        rows = await self._store.fetch_all("SELECT * FROM notebook_edits WHERE run_id = ? ORDER BY number", (run_id,))
        return [_edit_of(row) for row in rows]

    async def settle(self, edits: Sequence[CellEdit], state: Literal["kept", "undone"]) -> None:
        async def unit(tx: Transaction) -> None:
            for edit in edits:
                await tx.change(
                    "UPDATE notebook_edits SET state = ? WHERE run_id = ? AND path = ? AND cell_id = ?",
                    (state, edit.run_id, edit.path, edit.cell),
                )

        await self._store.write(unit)


def _edit_of(row: Row) -> CellEdit:
    return CellEdit(
        run_id=row["run_id"],
        path=row["path"],
        own=bool(row["own"]),
        cell=row["cell_id"],
        kind=row["kind"],
        before=row["before"],
        after=row["after"],
        unfinished=row["next"],
        is_unfinished=bool(row["has_next"]),
        place=row["place"],
        outputs=row["outputs"],
        execution_count=row["execution_count"],
        omitted=bool(row["omitted"]),
        state=row["state"],
        at=from_micros(row["at"]),
    )
