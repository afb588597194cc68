"""SQL for compaction: what of a log can be folded, within bounds, and the free pages that it leaves in the file.

Not responsible for what is folded into what (``orchestrator.upkeep.maintenance``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from ...ports.transactions import Foldable
from ..rows import to_micros
from ..statements import Readers, Statements

READ_BYTES = 2**20
"""What one read of a log returns at most, but for its first event: a page of large events must not fill the memory."""
# A run's deltas lie between the end of the run before it in its session and its own end (`last_seq`): without both
# bounds each read would go on to the end of the log, or begin where the prompt was queued. Deltas that were elsewhere,
# against that rule, would only stay apart. A run that ended under an earlier version has no `last_seq`; then the log
# has gone on to the next prompt that was sent after its end.
_TO_COMPACT = (
    "SELECT id, session_id,"
    " max(first_seq - 1, coalesce((SELECT max(other.last_seq) FROM runs AS other"
    " WHERE other.session_id = runs.session_id AND other.last_seq < runs.last_seq), 0)) AS after,"
    " CASE WHEN started_at IS NULL THEN 0 ELSE coalesce(last_seq,"
    " (SELECT next.first_seq FROM runs AS next WHERE next.session_id = runs.session_id AND next.number > runs.number"
    " AND next.created_at >= runs.ended_at ORDER BY next.number LIMIT 1),"
    " (SELECT head_seq FROM sessions WHERE sessions.id = runs.session_id)) END AS last"
    " FROM runs WHERE compacted = 0 AND ended_at IS NOT NULL AND ended_at < ?{served} ORDER BY ended_at LIMIT ?"
)
_FOLDABLE = (
    "SELECT seq, frame FROM"
    " (SELECT seq, frame, SUM(LENGTH(frame)) OVER (ORDER BY seq) - LENGTH(frame) AS before"
    " FROM events WHERE session_id = ? AND run_id = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?) AS page"
    " WHERE before < ?"
)
# A stretch is within its run, so that those of runs that had ended by the cursor cannot reach beyond it.
GAP = (
    "SELECT 1 FROM compactions WHERE session_id = ?1 AND from_seq <= ?2 AND from_seq >= coalesce("
    "(SELECT max(last_seq) FROM runs WHERE session_id = ?1 AND last_seq <= ?2), 0) AND to_seq > ?2 LIMIT 1"
)


class CompactionRows(Statements):
    """Compaction in a transaction. Implements the part of :class:`navi_jupyter.ports.transactions.LogTx` about it."""

    async def unfolded(self, foldable: Foldable, seqs: Sequence[int]) -> bool:
        row = await self.one(
            "SELECT count(*) AS n FROM events WHERE session_id = ? AND run_id = ? AND seq BETWEEN ? AND ?",
            (foldable.session_id, foldable.run_id, seqs[0], seqs[-1]),
        )
        return row is not None and row["n"] == len(seqs)

    async def fold_events(self, session_id: str, folded: Mapping[int, str], dropped: Sequence[int]) -> None:
        # Frames are replaced in place: a cursor beyond them stays valid.
        await self.db.executemany(
            "UPDATE events SET frame = ? WHERE session_id = ? AND seq = ?",
            [(frame, session_id, seq) for seq, frame in folded.items()],
        )
        # One statement: with one for each row its thread would have to fight for the interpreter after each.
        await self.change(
            "DELETE FROM events WHERE session_id = ? AND seq IN (SELECT CAST(value AS BIGINT) FROM json_each(?))",
            (session_id, json.dumps(list(dropped))),
        )

    async def note_folded(
        self, session_id: str, run_id: str, stretches: Sequence[tuple[int, int]], *, complete: bool = True
    ) -> None:
        if stretches:
            await self.db.executemany(
                "INSERT INTO compactions (session_id, from_seq, to_seq) VALUES (?, ?, ?)"
                " ON CONFLICT (session_id, from_seq) DO UPDATE SET to_seq = excluded.to_seq",
                [(session_id, first, last) for first, last in stretches],
            )
        if complete:
            await self.change("UPDATE runs SET compacted = 1 WHERE id = ?", (run_id,))

    async def give_back(self, pages: int) -> None:
        # All rows are fetched: the pragma frees a page for each.
        await self.all(f"PRAGMA incremental_vacuum({int(pages)})")


class CompactionReads(Readers):
    """What compaction reads. Implements :class:`navi_jupyter.ports.store.CompactableLogs`."""

    async def runs_to_compact(self, *, ended_before: datetime, limit: int) -> Sequence[Foldable]:
        text = _TO_COMPACT.format(served=self.served.of_session("runs.session_id"))
        rows = await self.fetch_all(text, (to_micros(ended_before), limit))
        return [
            Foldable(run_id=row["id"], session_id=row["session_id"], after=row["after"], last=row["last"])
            for row in rows
        ]

    async def foldable_frames(self, foldable: Foldable, *, limit: int) -> tuple[Sequence[tuple[int, str]], bool]:
        bounds = (foldable.session_id, foldable.run_id, foldable.after, foldable.last, limit + 1, READ_BYTES)
        rows = await self.fetch_all(_FOLDABLE, bounds)
        size = sum(len(row["frame"]) for row in rows)
        page = [(row["seq"], row["frame"]) for row in rows[:limit]]
        return page, len(rows) > limit or size >= READ_BYTES

    async def free_pages(self) -> int:
        row = await self.fetch_one(
            "SELECT freelist_count FROM pragma_freelist_count, pragma_auto_vacuum WHERE auto_vacuum = 2"
        )
        return 0 if row is None else int(row["freelist_count"])
