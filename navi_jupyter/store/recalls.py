"""SQL for recalls: what a transaction does (``RecallRows``) and what is read (``RecallReads``).

Not responsible for what the transitions mean: that is ``scheduling.decisions``; nor for the ledger (``firings``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from ..model.recalls import Recall
from ..model.sessions import Run
from ..ports.recalls import Absence, RecallAudit, RecallState, Seen
from .firings import (
    CLAIMED,
    IN,
    LAST,
    OPEN_FIRING,
    STARTABLE,
    TO_STOP,
    FiringReads,
    FiringRows,
    decoded,
    json_list,
    number_of,
    updates,
)
from .rows import (
    PROGRESS_COLUMNS,
    RECALL_COLUMNS,
    from_micros,
    leave_and_reason,
    optional_instant,
    progress,
    recall_of,
    recall_state_of,
    recall_values,
    run_of,
    schedule_and_policy,
    to_micros,
)

_OPEN_RECALL = "('pending', 'running', 'paused')"
_OVERDUE = timedelta(seconds=60)
_WHEN = """'{"kind":"when"'"""
"""How the stored schedules begin that wait for an event, as a literal: for the partial index."""
_SEEN = (
    "SELECT (SELECT created_at FROM runs WHERE session_id = ? AND origin_kind = 'user'"
    "  ORDER BY number DESC LIMIT 1) AS wrote_at,"
    " (SELECT at FROM reads WHERE session_id = ? AND user_id = ?) AS read_at"
)

# The version guards both: a plan, or a form, that was made from an older state changes nothing.
_ADVANCE_RECALLS = (
    f"UPDATE recalls SET {updates(PROGRESS_COLUMNS)}, version = version + 1"
    " FROM (VALUES {rows}) AS v WHERE recalls.id = v.column8 AND recalls.version = v.column9"
)
_CHANGED = ("title", "message", "schedule", "policy", "origin", "allow", "reason")
_SAVE_RECALLS = (
    f"UPDATE recalls SET {updates((*PROGRESS_COLUMNS, *_CHANGED))},"
    " version = version + 1"
    " FROM (VALUES {rows}) AS v WHERE recalls.id = v.column15 AND recalls.version = v.column16"
)


class RecallRows(FiringRows):
    """Recalls in a transaction. Implements :class:`navi_jupyter.ports.recalls.RecallTx`."""

    async def add_recalls(self, states: Iterable[RecallState]) -> None:
        text = f"INSERT INTO recalls ({RECALL_COLUMNS}) VALUES {{rows}}"
        await self.change_many(text, list(map(recall_values, states)))

    async def count_open_recalls(self, owner: str) -> int:
        row = await self.one(
            f"SELECT count(*) AS n FROM recalls WHERE owner = ? AND status IN {_OPEN_RECALL}", (owner,)
        )
        return 0 if row is None else int(row["n"])

    async def recall_states(self, recall_ids: Iterable[str]) -> dict[str, RecallState]:
        rows = await self.all(f"SELECT {RECALL_COLUMNS} FROM recalls WHERE id {IN}", (json_list(recall_ids),))
        return {state.recall.id: state for state in await decoded(rows, recall_state_of)}

    async def versions(self, recall_ids: Iterable[str]) -> dict[str, int]:
        rows = await self.all(f"SELECT id, version FROM recalls WHERE id {IN}", (json_list(recall_ids),))
        return {row["id"]: row["version"] for row in rows}

    async def save_recalls(self, states: Iterable[RecallState]) -> int:
        rows = [
            (
                *progress(s),
                s.recall.title,
                s.recall.message,
                *schedule_and_policy(s.recall),
                f"{s.recall.origin}",
                *leave_and_reason(s.recall),
                s.recall.id,
                s.version,
            )
            for s in states
        ]
        return await self.change_many(_SAVE_RECALLS, rows)

    async def advance_recalls(self, states: Iterable[RecallState]) -> int:
        return await self.change_many(_ADVANCE_RECALLS, [(*progress(s), s.recall.id, s.version) for s in states])

    async def open_recalls_of(self, owner: str, *, session_id: str | None = None) -> Sequence[RecallState]:
        rows = await self.all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE owner = ? AND status IN {_OPEN_RECALL}"
            " AND (? IS NULL OR session_id = ?) ORDER BY number",
            (owner, session_id, session_id),
        )
        return await decoded(rows, recall_state_of)

    async def ending_with(self, session_id: str) -> Sequence[RecallState]:
        rows = await self.all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE session_id = ? AND instr(policy, '\"cancel_on\"') > 0"
            f" AND status IN {_OPEN_RECALL}",
            (session_id,),
        )
        return [recall_state_of(row) for row in rows]

    async def unfinished_in(self, session_id: str) -> Sequence[RecallState]:
        rows = await self.all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE session_id = ? AND (status IN {_OPEN_RECALL} OR EXISTS"
            f" (SELECT 1 FROM firings f WHERE f.recall_id = recalls.id AND f.status IN {OPEN_FIRING}))",
            (session_id,),
        )
        return await decoded(rows, recall_state_of)

    async def may_deliver(self, command_id: str, *, server_id: str) -> bool:
        row = await self.one(
            "SELECT f.kind, f.recall_id, f.status = 'claimed' AND f.lease_owner = ? AS held, r.status AS recall,"
            " instr(r.policy, '\"cancel_on\"') > 0 AS ends_with_user"
            " FROM firings f JOIN recalls r ON r.id = f.recall_id WHERE f.command_id = ?",
            (server_id, command_id),
        )
        if row is None:  # a person's prompt, or a recall's of a firing that is pruned
            return True
        if not row["held"] or row["kind"] == "manual":
            return bool(row["held"])
        if row["recall"] == "paused":
            return False
        if not row["ends_with_user"]:
            return True
        # The rule itself is not SQL: it is decided in one place, for this transaction as for all others.
        state = (await self.recall_states([row["recall_id"]]))[row["recall_id"]]
        session_id = state.recall.session_id
        return _seen_of(await self.one(_SEEN, (session_id, session_id, state.owner))).ends(state.recall) is None

    async def note_absences(self, found: Mapping[str, Absence]) -> None:
        await self.change_many(
            "INSERT INTO absences (session_id, since, late, missed)"
            " SELECT s.id, v.column2, v.column3, v.column4 FROM (VALUES {rows}) AS v"
            " JOIN sessions s ON s.id = v.column1 WHERE true ON CONFLICT (session_id) DO UPDATE"
            " SET since = min(since, excluded.since), late = late + excluded.late, missed = missed + excluded.missed",
            [(session_id, to_micros(each.since), each.late, each.missed) for session_id, each in found.items()],
        )

    async def take_absences(self) -> dict[str, Absence]:
        rows = await self.all("DELETE FROM absences RETURNING session_id, since, late, missed")
        return {
            row["session_id"]: Absence(since=from_micros(row["since"]), late=row["late"], missed=row["missed"])
            for row in rows
        }


class RecallReads(FiringReads):
    """What is read of recalls. Implements the reads of :class:`navi_jupyter.ports.recalls.RecallStore`."""

    async def recall_state(self, recall_id: str) -> RecallState | None:
        row = await self.fetch_one(f"SELECT {RECALL_COLUMNS} FROM recalls WHERE id = ?", (recall_id,))
        return None if row is None else recall_state_of(row)

    async def recalls(
        self,
        owner: str,
        *,
        session_id: str | None = None,
        status: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> tuple[Sequence[Recall], str | None]:
        rows = await self.fetch_all(
            "SELECT * FROM recalls WHERE owner = ? AND number < ? AND (? IS NULL OR session_id = ?)"
            " AND (? IS NULL OR status = ?) ORDER BY number DESC LIMIT ?",
            (owner, number_of(cursor), session_id, session_id, status, status, limit + 1),
        )
        page = rows[:limit]
        more = str(page[-1]["number"]) if len(rows) > limit else None
        return [recall_of(row) for row in page], more

    async def recalls_in(self, session_id: str) -> Sequence[Recall]:
        rows = await self.fetch_all(
            f"SELECT * FROM recalls WHERE session_id = ? ORDER BY status NOT IN {_OPEN_RECALL},"
            f" CASE WHEN status IN {_OPEN_RECALL} THEN coalesce(next_at, ?) ELSE -number END, number",
            (session_id, LAST),
        )
        return [recall_of(row) for row in rows]

    async def due_recalls(self, now: datetime, *, limit: int) -> Sequence[RecallState]:
        rows = await self.fetch_all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE due_at IS NOT NULL AND status IN ('pending', 'running')"
            " AND due_at <= ? ORDER BY due_at LIMIT ?",
            (to_micros(now), limit),
        )
        return await decoded(rows, recall_state_of)

    async def expired_recalls(self, *, until_after: datetime) -> Sequence[RecallState]:
        rows = await self.fetch_all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE status = 'expired' AND instr(policy, '\"until\"') > 0"
        )
        states = await decoded(rows, recall_state_of)
        return [one for one in states if one.recall.policy.until is not None and one.recall.policy.until > until_after]

    # The minimum of four indexed lookups, each of which stops at its first row.
    async def next_wake(self) -> datetime | None:
        row = await self.fetch_one(
            "SELECT min(at) AS at FROM ("
            "SELECT min(due_at) AS at FROM recalls"
            " WHERE due_at IS NOT NULL AND status IN ('pending', 'running')"
            " UNION ALL SELECT * FROM (SELECT f.not_before FROM firings f JOIN recalls r ON r.id = f.recall_id"
            f" WHERE f.status = 'pending' AND {STARTABLE} ORDER BY f.not_before LIMIT 1)"
            f" UNION ALL SELECT min(lease_until) FROM firings WHERE {CLAIMED}"
            f" UNION ALL SELECT * FROM (SELECT f.stop_at {TO_STOP} ORDER BY f.stop_at LIMIT 1))"
        )
        return None if row is None else optional_instant(row["at"])

    async def audit_recalls(self, now: datetime) -> RecallAudit:
        late = to_micros(now - _OVERDUE)
        row = await self.fetch_one(
            f"SELECT (SELECT count(*) FROM recalls WHERE status IN {_OPEN_RECALL}) AS open,"
            f" EXISTS (SELECT 1 FROM recalls WHERE status IN {_OPEN_RECALL} AND status <> 'paused') AS awake,"
            " (SELECT count(*) FROM recalls WHERE due_at < ? AND status IN ('pending', 'running')) AS overdue,"
            " (SELECT count(*) FROM firings f LEFT JOIN runs ON runs.id = f.run_id"
            "   WHERE f.status IN ('claimed', 'running') AND f.status = 'running' AND coalesce(runs.ended_at, 0) < ?"
            "   AND (runs.id IS NULL OR runs.ended_at IS NOT NULL)) AS stuck,"
            f" (SELECT count(*) FROM firings WHERE {CLAIMED} AND lease_until < ?) AS orphans,"
            " (SELECT count(*) FROM recalls r WHERE r.status = 'pending' AND r.due_at IS NULL"
            f"  AND NOT (substr(r.schedule, 1, 14) = {_WHEN}) AND NOT EXISTS"
            f"  (SELECT 1 FROM firings f WHERE f.recall_id = r.id AND f.status IN {OPEN_FIRING})) AS aimless",
            (late, late, late),
        )
        if row is None:
            return RecallAudit()
        found = {key: row[key] for key in row.keys()}  # noqa: SIM118
        return RecallAudit(**found | {"awake": bool(found["awake"])})

    async def when_recalls(self, *, paused: bool = False) -> Sequence[RecallState]:
        rows = await self.fetch_all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE substr(schedule, 1, 14) = {_WHEN}"
            " AND (status IN ('pending', 'running') OR (? AND status = 'paused')) ORDER BY number",
            (paused,),
        )
        return [recall_state_of(row) for row in rows]

    async def begun_firings(self, *, limit: int) -> Sequence[Run]:
        rows = await self.fetch_all(
            "SELECT runs.* FROM firings f JOIN commands c ON c.session_id = f.session_id"
            " AND c.command_id = f.command_id JOIN runs ON runs.id = c.run_id"
            f" WHERE {CLAIMED.replace('status', 'f.status')} AND f.lease_owner IS NULL"
            " AND runs.started_at IS NOT NULL AND runs.ended_at IS NULL LIMIT ?",
            (limit,),
        )
        return [run_of(row) for row in rows]

    async def seen(self, session_id: str, owner: str) -> Seen:
        return _seen_of(await self.fetch_one(_SEEN, (session_id, session_id, owner)))

    async def ends_with_user(self, session_id: str) -> bool:
        row = await self.fetch_one(
            "SELECT 1 FROM recalls WHERE session_id = ? AND instr(policy, '\"cancel_on\"') > 0"
            f" AND status IN {_OPEN_RECALL} LIMIT 1",
            (session_id,),
        )
        return row is not None


def _seen_of(row: sqlite3.Row | None) -> Seen:
    """The row of ``_SEEN``."""
    if row is None:
        return Seen()
    return Seen(wrote_at=optional_instant(row["wrote_at"]), read_at=optional_instant(row["read_at"]))
