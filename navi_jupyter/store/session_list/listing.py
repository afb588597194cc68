"""SQL for pages of sessions, for what each is doing, and for who may read it besides its owner.

Not responsible for a session by itself (``sessions``) or for search (``search``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from ...errors import InvalidRequest
from ...model.recalls import RecallStatus
from ...model.sessions import Session, Usage
from ...ports.recalls import RecallState
from ...ports.session_list import RunCopy, SessionActivity, SessionFilter, SourceRun, UntitledSession
from ..rows import RECALL_NAMES, dump_messages, load_messages, recall_state_of, session_of, to_micros
from ..statements import Readers, Row, Statements, json_list

_LAST = 2**62  # beyond every key of a list that is paged downwards
_PAGE = (
    " AND (updated_at < :at OR (updated_at = :at AND id > :last)) AND (CAST(:path AS TEXT) IS NULL OR"
    " notebook_path = :path)"
    " ORDER BY updated_at DESC, id LIMIT :limit"
)
_GOING = 0  # as the time of its deletion: it is being removed, a piece at a time, and cannot be restored any more
_OWN = {
    SessionFilter.ACTIVE: "archived_at IS NULL AND deleted_at IS NULL",
    SessionFilter.ARCHIVED: "archived_at IS NOT NULL AND deleted_at IS NULL",
    SessionFilter.DELETED: f"deleted_at > {_GOING}",
    SessionFilter.SHARED: "false",
    SessionFilter.ALL: "deleted_at IS NULL",
}
_WITH_SHARED = (SessionFilter.ACTIVE, SessionFilter.SHARED, SessionFilter.ALL)
_FIRST_RUN = (
    "SELECT id FROM runs WHERE session_id = s.id AND origin_kind = 'user' AND started_at IS NOT NULL"
    " AND ended_at IS NOT NULL ORDER BY number LIMIT 1"
)
PIECE_ROWS = 200  # rows of a session that one transaction removes, others wait for it
PIECE_BYTES = 2**20  # and their size, but for the first one
_PIECE = (
    "(SELECT {key} FROM (SELECT {key}, SUM(size) OVER (ORDER BY {key}) - size AS before FROM"
    " (SELECT {key}, {size} AS size FROM {rows} WHERE session_id = ?1 LIMIT ?2) AS parts) AS piece WHERE before < ?3)"
)
_EDITS = _PIECE.format(  # They would go with their runs, many megabytes at once where cells are large.
    key="run_id, path, cell_id",
    size="length(outputs) + coalesce(length(before), 0) + coalesce(length(after), 0) + coalesce(length(next), 0)",
    rows="runs CROSS JOIN notebook_edits ON run_id = id",
)
_PIECES = {"notebook_edits": f"DELETE FROM notebook_edits WHERE (run_id, path, cell_id) IN {_EDITS}"} | {
    table: f"DELETE FROM {table} WHERE session_id = ?1 AND {key} IN {_PIECE.format(key=key, size=size, rows=table)}"
    for table, key, size in (
        ("runs", "number", "length(prompt) + coalesce(length(transcript), 0) + coalesce(length(conversation), 0)"),
        ("events", "seq", "length(frame)"),
        ("message_texts", "number", "0"),
        ("interrupts", "number", "coalesce(length(args), 0) + coalesce(length(details), 0)"),
        ("commands", "command_id", "0"),
        ("compactions", "from_seq", "0"),
    )
}
"""What of a session grows with its use, the runs before their events: nothing begins in it any more. The rest goes with
its row."""
_COPIED = (
    "origin_kind, recall_id, origin_kernel, user_id, model, prompt, parts, mode, priority, created_at, started_at,"
    " ended_at, timezone, rolled_back"
)


class SessionListRows(Statements):
    """The list of sessions in a transaction. Implements :class:`navi_jupyter.ports.session_list.SessionListTx`."""

    async def deleted_session(self, session_id: str) -> Session | None:
        row = await self.one(f"SELECT * FROM sessions WHERE id = ? AND deleted_at > {_GOING}", (session_id,))
        return None if row is None else session_of(row)

    async def begin_removal(self, session_id: str, *, deleted_before: datetime | None = None) -> bool:
        changed = await self.change(
            f"UPDATE sessions SET deleted_at = {_GOING} WHERE id = ? AND deleted_at < ?",
            (session_id, _LAST if deleted_before is None else to_micros(deleted_before)),
        )
        return changed == 1

    async def remove_piece(self, session_id: str) -> bool:
        for statement in _PIECES.values():
            if await self.change(statement, (session_id, PIECE_ROWS, PIECE_BYTES)):
                return True
        return False

    async def share(self, session_id: str, user_id: str, *, at: datetime) -> None:
        await self.change(
            "INSERT INTO shares (session_id, user_id, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (session_id, user_id, to_micros(at)),
        )

    async def unshare(self, session_id: str, user_id: str) -> bool:
        return bool(await self.change("DELETE FROM shares WHERE session_id = ? AND user_id = ?", (session_id, user_id)))

    async def copy_runs(
        self, source_id: str, session_id: str, copies: Sequence[RunCopy], frames: Sequence[tuple[str, str]]
    ) -> None:
        for copy in copies:
            await self.change(
                "INSERT INTO runs (id, session_id, command_id, first_seq, merged_into, transcript, compacted, status,"
                f" conversation, error_code, error_message, {_COPIED}) SELECT ?, ?, ?, ?, ?, ?, 1,"
                " CASE WHEN ?7 THEN 'completed' ELSE status END, CASE WHEN ?7 THEN NULL ELSE conversation END,"
                " CASE WHEN ?7 THEN NULL ELSE error_code END, CASE WHEN ?7 THEN NULL ELSE error_message END,"
                f" {_COPIED} FROM runs WHERE id = ?8 AND session_id = ?9",
                (
                    copy.run_id,
                    session_id,
                    f"fork:{copy.run_id}",
                    copy.first_seq,
                    copy.merged_into,
                    dump_messages(copy.messages),
                    copy.is_cut,
                    copy.source_id,
                    source_id,
                ),
            )
        events = [(session_id, seq, run_id, frame) for seq, (run_id, frame) in enumerate(frames, 1)]
        await self.change_many("INSERT INTO events (session_id, seq, run_id, frame) VALUES {rows}", events)
        await self.change("UPDATE sessions SET head_seq = ? WHERE id = ?", (len(events), session_id))
        await self.change(
            "INSERT INTO attachment_uses (attachment_id, session_id)"
            " SELECT attachment_id, ? FROM attachment_uses WHERE session_id = ? ON CONFLICT DO NOTHING",
            (session_id, source_id),
        )

    async def add_usage(self, run_id: str, usage: Usage) -> None:
        await self.change(
            "UPDATE runs SET input_tokens = input_tokens + ?, output_tokens = output_tokens + ?,"
            " requests = requests + ?, cost = coalesce(cost + ?4, cost, ?4) WHERE id = ?5",
            (usage.input_tokens, usage.output_tokens, usage.requests, usage.cost, run_id),
        )

    async def note_statuses(self, session_id: str) -> None:
        await self.change(
            "UPDATE recalls SET status_before = status WHERE session_id = ?"
            " AND status IN ('pending', 'running', 'paused')",
            (session_id,),
        )

    async def cancelled_with(self, session_id: str, reason: str) -> Sequence[tuple[RecallState, RecallStatus]]:
        rows = await self.all(
            "SELECT * FROM recalls WHERE session_id = ? AND status = 'cancelled' AND reason = ?"
            " AND status_before IS NOT NULL ORDER BY number",
            (session_id, reason),
        )
        return [
            (recall_state_of([row[name] for name in RECALL_NAMES]), RecallStatus(row["status_before"])) for row in rows
        ]


class SessionListQueries(Readers):
    """The list of sessions for readers, but for search. Implements part of ``ports.session_list.SessionListReads``."""

    async def sessions(
        self,
        user_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        notebook_path: str | None = None,
        show: SessionFilter = SessionFilter.ACTIVE,
    ) -> tuple[Sequence[Session], str | None]:
        at, last_id = read_cursor(cursor)
        values = {"user": user_id, "at": at, "last": last_id, "path": notebook_path, "limit": limit + 1}
        # Two pages that are merged, and not one condition with OR: each is read in the order of an index.
        sql = f"SELECT * FROM (SELECT * FROM sessions WHERE owner = :user AND {_OWN[show]}{_PAGE}) AS own"
        if show in _WITH_SHARED:
            shared = "id IN (SELECT session_id FROM shares WHERE user_id = :user) AND deleted_at IS NULL"
            sql += (
                f" UNION ALL SELECT * FROM (SELECT * FROM sessions WHERE {shared} AND owner <> :user{_PAGE}) AS others"
            )
        rows = await self.fetch_all(f"{sql} ORDER BY updated_at DESC, id LIMIT :limit", values)
        page = rows[:limit]
        more = f"{page[-1]['updated_at']}:{page[-1]['id']}" if len(rows) > limit else None
        return [session_of(row) for row in page], more

    async def sessions_of(self, session_ids: Iterable[str]) -> Sequence[Session]:
        rows = await self.fetch_all(
            "SELECT s.* FROM json_each(?) w JOIN sessions s ON s.id = w.value WHERE s.deleted_at IS NULL"
            " ORDER BY CAST(w.key AS BIGINT)",
            (json_list(session_ids),),
        )
        return [session_of(row) for row in rows]

    async def activities(self, session_ids: Iterable[str]) -> Mapping[str, SessionActivity]:
        rows = await self.fetch_all(
            "SELECT session_id, status FROM runs WHERE status IN ('queued', 'running', 'waiting')"
            " AND session_id IN (SELECT value FROM json_each(?)) ORDER BY status = 'waiting'",
            (json_list(session_ids),),
        )
        return {
            row["session_id"]: SessionActivity.WAITING if row["status"] == "waiting" else SessionActivity.RUNNING
            for row in rows
        }

    async def readers(self, session_id: str) -> Sequence[str]:
        rows = await self.fetch_all("SELECT user_id FROM shares WHERE session_id = ? ORDER BY user_id", (session_id,))
        return [row["user_id"] for row in rows]

    async def is_shared(self, session_id: str, user_id: str) -> bool:
        row = await self.fetch_one("SELECT 1 FROM shares WHERE session_id = ? AND user_id = ?", (session_id, user_id))
        return row is not None

    async def untitled(self, *, session_id: str | None = None, limit: int = 20) -> Sequence[UntitledSession]:
        rows = await self.fetch_all(
            "SELECT s.id, s.model, r.id AS run_id, r.prompt, r.transcript, r.status FROM sessions s"
            f" JOIN runs r ON r.id = ({_FIRST_RUN})"
            " WHERE s.title_source = 'default' AND s.deleted_at IS NULL AND s.id = coalesce(?1, s.id)"
            f"{self.served.by('s.owner')} LIMIT ?2",
            (session_id, limit),
        )
        return [_untitled_of(row) for row in rows]

    async def deleted_before(self, at: datetime, *, limit: int) -> Sequence[str]:
        rows = await self.fetch_all(
            f"SELECT id FROM sessions WHERE deleted_at < ?{self.served.by('owner')} ORDER BY deleted_at LIMIT ?",
            (to_micros(at), limit),
        )
        return [row["id"] for row in rows]

    async def finished_runs(self, session_id: str) -> Sequence[SourceRun]:
        async with self.reading() as view:
            runs = await view.all(
                "SELECT id, merged_into, transcript FROM runs WHERE session_id = ? AND ended_at IS NOT NULL"
                " ORDER BY coalesce(started_at, created_at), number",
                (session_id,),
            )
            frames = await view.all(
                "SELECT run_id, frame FROM events WHERE session_id = ? AND run_id IS NOT NULL ORDER BY seq",
                (session_id,),
            )
        return await asyncio.to_thread(_source_runs, runs, frames)


def _source_runs(runs: Sequence[Row], frames: Sequence[Row]) -> list[SourceRun]:
    by_run: dict[str, list[str]] = {}
    for row in frames:
        by_run.setdefault(row["run_id"], []).append(row["frame"])
    return [
        SourceRun(
            run_id=row["id"],
            merged_into=row["merged_into"],
            messages=load_messages(row["transcript"]),
            frames=tuple(by_run.get(row["id"], ())),
        )
        for row in runs
    ]


def _untitled_of(row: Row) -> UntitledSession:
    messages = load_messages(row["transcript"])
    asked = next((message.content for message in messages if message.role == "user"), row["prompt"])
    own = (each for each in messages if each.role == "assistant" and each.subagent_run_id is None and each.content)
    return UntitledSession(
        session_id=row["id"],
        model=row["model"],
        run_id=row["run_id"],
        prompt=asked,
        answer=next((message.content for message in own), ""),
        completed=row["status"] == "completed",
    )


def read_cursor(cursor: str | None) -> tuple[int, str]:
    """Where a page of sessions goes on: a time, and an id among those of that time. Raises InvalidRequest."""
    if cursor is None:
        return _LAST, ""
    at, _, session_id = cursor.partition(":")
    if not (at.isascii() and at.isdigit() and len(at) < 19):
        raise InvalidRequest("cursor: not a cursor of this list", field="cursor")
    return int(at), session_id
