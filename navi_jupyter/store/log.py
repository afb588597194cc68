"""SQL for the logs of sessions: in a transaction (``LogRows``) and for readers (``LogReads``)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from ..errors import SessionNotFound
from ..events import Draft
from ..ports.store import SessionSnapshot
from .connection import Readers, Statements
from .interrupts import OF_LAST_PAUSE, interrupt_of
from .recall_rows import recall_of
from .rows import run_of, session_of
from .runs import FINISHED_TURNS, OPEN_RUNS, marks, messages_of

READ_BYTES = 2**20
"""What one read of a log returns at most, but for its first event: a page of large events must not fill the memory."""
_CHUNKS = (256, 32, 4, 1)
"""Rows per statement: few sizes, so that the statements stay prepared."""
_INSERT_EVENTS = {
    size: "INSERT INTO events (session_id, seq, run_id, frame) VALUES " + ", ".join(["(?, ?, ?, ?)"] * size)
    for size in _CHUNKS
}
_RUN_FRAMES = (
    "SELECT frame FROM events WHERE session_id = ? AND run_id = ?"
    " AND seq >= (SELECT first_seq FROM runs WHERE id = ?) ORDER BY seq"
)


class LogRows(Statements):
    """Logs in a transaction. Implements :class:`navi_jupyter.ports.transactions.LogTx`."""

    appended: list[tuple[str, int, str]]
    """What this transaction stored in logs: (session, seq, frame), in order. Published after the commit."""

    async def append(self, session_id: str, drafts: Sequence[Draft]) -> int:
        row = await self.one("SELECT head_seq FROM sessions WHERE id = ?", (session_id,))
        if row is None:
            raise SessionNotFound(f"There is no session {session_id}.")
        # The only counter of a log. Read and raised in one transaction, so that two servers never give a number twice.
        head: int = row["head_seq"]
        await self._insert({session_id: drafts}, {session_id: head})
        return head + len(drafts)

    async def append_all(self, batches: Mapping[str, Sequence[Draft]]) -> None:
        """:meth:`append` for many sessions in three statements. Sessions that are gone are left out."""
        rows = await self.all(
            f"SELECT id, head_seq FROM sessions WHERE id IN ({marks(tuple(batches))})", tuple(batches)
        )
        heads = {row["id"]: row["head_seq"] for row in rows}
        await self._insert({session: batches[session] for session in heads}, heads)

    async def _insert(self, batches: Mapping[str, Sequence[Draft]], heads: Mapping[str, int]) -> None:
        rows = [
            (session_id, seq, draft.run_id, draft.frame(session_id, seq))
            for session_id, drafts in batches.items()
            for seq, draft in enumerate(drafts, heads[session_id] + 1)
        ]
        if not rows:
            return
        # Many rows in one statement: its thread has to fight for the interpreter after each one.
        start = 0
        for size in _CHUNKS:
            while len(rows) - start >= size:
                chunk = rows[start : start + size]
                await self.change(_INSERT_EVENTS[size], [value for row in chunk for value in row])
                start += size
        await self.db.executemany(
            "UPDATE sessions SET head_seq = head_seq + ? WHERE id = ?",
            [(len(drafts), session_id) for session_id, drafts in batches.items()],
        )
        self.appended.extend((session_id, seq, frame) for session_id, seq, _, frame in rows)

    async def run_frames(self, session_id: str, run_id: str) -> Sequence[str]:
        rows = await self.all(_RUN_FRAMES, (session_id, run_id, run_id))
        return [row["frame"] for row in rows]

    async def fold_events(self, session_id: str, folded: Mapping[int, str], dropped: Sequence[int]) -> None:
        # Frames are replaced in place: a cursor beyond them stays valid.
        await self.db.executemany(
            "UPDATE events SET frame = ? WHERE session_id = ? AND seq = ?",
            [(frame, session_id, seq) for seq, frame in folded.items()],
        )
        await self.db.executemany(
            "DELETE FROM events WHERE session_id = ? AND seq = ?", [(session_id, seq) for seq in dropped]
        )

    async def note_folded(self, session_id: str, run_id: str, stretches: Sequence[tuple[int, int]]) -> None:
        await self.db.executemany(
            "INSERT OR REPLACE INTO compactions (session_id, from_seq, to_seq) VALUES (?, ?, ?)",
            [(session_id, first, last) for first, last in stretches],
        )
        await self.change("UPDATE runs SET compacted = 1 WHERE id = ?", (run_id,))


class LogReads(Readers):
    """Logs for readers. Implements :class:`navi_jupyter.ports.store.LogReads`."""

    async def head(self, session_id: str) -> int | None:
        row = await self.fetch_one("SELECT head_seq FROM sessions WHERE id = ?", (session_id,))
        return None if row is None else int(row["head_seq"])

    async def heads(self, session_ids: Iterable[str]) -> dict[str, int]:
        wanted = tuple(session_ids)
        rows = await self.fetch_all(f"SELECT id, head_seq FROM sessions WHERE id IN ({marks(wanted)})", wanted)
        return {row["id"]: row["head_seq"] for row in rows}

    async def frames(self, session_id: str, *, after: int, limit: int) -> Sequence[tuple[int, str]]:
        rows = await self.fetch_all(
            "SELECT seq, frame FROM"
            " (SELECT seq, frame, SUM(LENGTH(frame)) OVER (ORDER BY seq) - LENGTH(frame) AS before"
            " FROM events WHERE session_id = ? AND seq > ? ORDER BY seq LIMIT ?) WHERE before < ?",
            (session_id, after, limit, READ_BYTES),
        )
        return [(row["seq"], row["frame"]) for row in rows]

    async def gap(self, session_id: str, after: int) -> bool:
        row = await self.fetch_one(
            "SELECT 1 FROM compactions WHERE session_id = ? AND from_seq <= ? AND to_seq > ? LIMIT 1",
            (session_id, after, after),
        )
        return row is not None

    async def snapshot(self, session_id: str) -> SessionSnapshot | None:
        async with self.reading() as view:
            row = await view.one("SELECT * FROM sessions WHERE id = ?", (session_id,))
            if row is None:
                return None
            finished = await view.all(
                f"SELECT transcript FROM runs WHERE session_id = ? AND {FINISHED_TURNS} ORDER BY started_at, number",
                (session_id,),
            )
            open_rows = await view.all(OPEN_RUNS, (session_id,))
            frames = await view.all(
                "SELECT frame FROM events WHERE session_id = ? AND seq >= ?"
                f" AND run_id IN ({marks(open_rows)}) ORDER BY seq",
                (
                    session_id,
                    min((r["first_seq"] for r in open_rows), default=0),
                    *(r["id"] for r in open_rows),
                ),
            )
            questions = await view.all(
                f"SELECT * FROM interrupts WHERE session_id = ? AND (status = 'open' OR {OF_LAST_PAUSE})"
                " ORDER BY number",
                (session_id, *(_waiting(open_rows),) * 2),
            )
            recalls = await view.all(
                "SELECT * FROM recalls WHERE session_id = ? AND status IN ('pending', 'running', 'paused')"
                " ORDER BY next_at",
                (session_id,),
            )
        runs = [run_of(r) for r in open_rows]
        return SessionSnapshot(
            session=session_of(row),
            head_seq=row["head_seq"],
            finished=await asyncio.to_thread(messages_of, finished),
            active=next((run for run in runs if run.status.active), None),
            frames=[r["frame"] for r in frames],
            queued=[run for run in runs if not run.status.active],
            recalls=[recall_of(r) for r in recalls],
            interrupts=[interrupt_of(r) for r in questions],
        )

    async def run_frames(self, session_id: str, run_id: str) -> Sequence[str]:
        rows = await self.fetch_all(_RUN_FRAMES, (session_id, run_id, run_id))
        return [row["frame"] for row in rows]


def _waiting(rows: Sequence[sqlite3.Row]) -> str | None:
    """The run that waits for an answer, if there is one."""
    return next((row["id"] for row in rows if row["status"] == "waiting"), None)
