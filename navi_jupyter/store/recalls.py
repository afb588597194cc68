"""SQL for recalls and their ledger: what a transaction does (``RecallRows``) and what is read (``RecallReads``).

Not responsible for what the transitions mean: that is ``recalls.policy``.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from ..errors import InvalidRequest
from ..model.recalls import Firing, Recall
from ..model.sessions import Run
from ..ports.recalls import Absence, Claimed, FiringState, RecallAudit, RecallState
from .connection import Statements
from .firings import SEEN, LedgerReads, seen_of
from .recall_rows import (
    FIRING_COLUMNS,
    FIRING_NAMES,
    NEW_FIRING_COLUMNS,
    PROGRESS_COLUMNS,
    PROGRESS_NAMES,
    RECALL_COLUMNS,
    changed_firing_values,
    firing_state_of,
    new_firing_values,
    progress,
    recall_of,
    recall_state_of,
    recall_values,
    schedule_and_policy,
)
from .rows import from_micros, optional_instant, run_of, to_micros

T = TypeVar("T")
_LAST = 2**62
_MANY = 50
"""From this many rows on, they are decoded off the event loop."""
_OPEN_RECALL = "('pending', 'running', 'paused')"
_OPEN_FIRING = "('pending', 'claimed', 'running')"
_CLAIMED = "(status IN ('claimed', 'running') AND status = 'claimed')"
"""The first half is for the partial index: SQLite does not see that it follows, and would read all of the ledger."""
_OVERDUE = timedelta(seconds=60)
_WHEN = """'{"kind":"when"'"""
"""How the stored schedules begin that wait for an event, as a literal: for the partial index."""

# A firing may start while its recall is active; a manual one also while it is paused.
_STARTABLE = "(r.status IN ('pending', 'running') OR (f.kind = 'manual' AND r.status = 'paused'))"


# Running under a time limit, and nobody has asked the run to stop.
_TO_STOP = (
    "FROM firings f JOIN runs ON runs.id = f.run_id WHERE f.status = 'running' AND f.stop_at IS NOT NULL"
    " AND runs.ended_at IS NULL AND runs.stop_command_id IS NULL"
)
_OF_F = ", ".join(f"f.{name}" for name in FIRING_NAMES)


def _updates(names: Sequence[str]) -> str:
    """Assignments from the columns of a VALUES list, which SQLite calls column1 and so on."""
    return ", ".join(f"{name} = v.column{number}" for number, name in enumerate(names, 1))


def _json(values: Iterable[str]) -> str:
    """Many values as one parameter: ``IN (SELECT value FROM json_each(?))`` has no limit on their number."""
    return json.dumps(list(values))


_IN = "IN (SELECT value FROM json_each(?))"
_OPEN_OF = (
    f"SELECT {FIRING_COLUMNS} FROM firings WHERE recall_id {_IN} AND status IN {_OPEN_FIRING} ORDER BY slot, number"
)


async def _decoded(rows: Sequence[sqlite3.Row], decode: Callable[[Iterable[Any]], T]) -> list[T]:
    """The rows as values; many of them are decoded off the event loop."""
    if len(rows) < _MANY:
        return [decode(row) for row in rows]
    return await asyncio.to_thread(lambda: [decode(row) for row in rows])


_ADVANCE_RECALLS = (
    f"UPDATE recalls SET {_updates(PROGRESS_COLUMNS)}, version = version + 1"
    " FROM (VALUES {rows}) AS v WHERE recalls.id = v.column8 AND recalls.version = v.column9"
)
_SAVE_RECALLS = (
    f"UPDATE recalls SET {_updates((*PROGRESS_COLUMNS, 'title', 'message', 'schedule', 'policy'))},"
    " version = version + 1"
    " FROM (VALUES {rows}) AS v WHERE recalls.id = v.column12 AND recalls.version = v.column13"
)
_SAVE_FIRINGS = (
    f"UPDATE firings SET {_updates(PROGRESS_NAMES)}"
    f" FROM (VALUES {{rows}}) AS v WHERE firings.id = v.column{len(PROGRESS_NAMES) + 1}"
    f" AND firings.fence <= v.column{len(PROGRESS_NAMES)}"
)


# --- a transaction ---------------------------------------------------------------------------------------------------


class RecallRows(Statements):
    """The recall half of a transaction. Implements :class:`navi_jupyter.ports.recalls.RecallTx`."""

    async def add_recalls(self, states: Iterable[RecallState]) -> None:
        await self.change_many(
            f"INSERT INTO recalls ({RECALL_COLUMNS}) VALUES {{rows}}", [recall_values(state) for state in states]
        )

    async def count_open_recalls(self, owner: str) -> int:
        row = await self.one(
            f"SELECT count(*) AS n FROM recalls WHERE owner = ? AND status IN {_OPEN_RECALL}", (owner,)
        )
        return 0 if row is None else int(row["n"])

    async def recall_states(self, recall_ids: Iterable[str]) -> dict[str, RecallState]:
        rows = await self.all(f"SELECT {RECALL_COLUMNS} FROM recalls WHERE id {_IN}", (_json(recall_ids),))
        return {state.recall.id: state for state in await _decoded(rows, recall_state_of)}

    async def versions(self, recall_ids: Iterable[str]) -> dict[str, int]:
        rows = await self.all(f"SELECT id, version FROM recalls WHERE id {_IN}", (_json(recall_ids),))
        return {row["id"]: row["version"] for row in rows}

    async def save_recalls(self, states: Iterable[RecallState]) -> int:
        rows = [
            (*progress(s), s.recall.title, s.recall.message, *schedule_and_policy(s.recall), s.recall.id, s.version)
            for s in states
        ]
        return await self.change_many(_SAVE_RECALLS, rows)

    async def advance_recalls(self, states: Iterable[RecallState]) -> int:
        return await self.change_many(_ADVANCE_RECALLS, [(*progress(s), s.recall.id, s.version) for s in states])

    async def add_firings(self, states: Iterable[FiringState]) -> int:
        return await self.change_many(
            f"INSERT OR IGNORE INTO firings ({NEW_FIRING_COLUMNS}) VALUES {{rows}}",
            list(map(new_firing_values, states)),
        )

    async def save_firings(self, states: Iterable[FiringState]) -> None:
        await self.change_many(_SAVE_FIRINGS, list(map(changed_firing_values, states)))

    async def firing_states(self, firing_ids: Iterable[str]) -> dict[str, FiringState]:
        rows = await self.all(f"SELECT {FIRING_COLUMNS} FROM firings WHERE id {_IN}", (_json(firing_ids),))
        return {state.firing.id: state for state in await _decoded(rows, firing_state_of)}

    async def firings_of_commands(self, command_ids: Iterable[str]) -> Sequence[FiringState]:
        rows = await self.all(f"SELECT {FIRING_COLUMNS} FROM firings WHERE command_id {_IN}", (_json(command_ids),))
        return await _decoded(rows, firing_state_of)

    async def manual_firing(self, recall_id: str, key: str) -> FiringState | None:
        row = await self.one(
            f"SELECT {FIRING_COLUMNS} FROM firings WHERE recall_id = ? AND key = ? AND kind = 'manual'",
            (recall_id, key),
        )
        return None if row is None else firing_state_of(row)

    async def event_firing(self, recall_id: str, key: str) -> FiringState | None:
        row = await self.one(
            f"SELECT {FIRING_COLUMNS} FROM firings WHERE recall_id = ? AND key = ? AND kind = 'event'",
            (recall_id, key),
        )
        return None if row is None else firing_state_of(row)

    async def last_slots(self, recall_ids: Iterable[str]) -> dict[str, datetime]:
        rows = await self.all(
            "SELECT r.value AS id, (SELECT slot FROM firings WHERE recall_id = r.value AND kind = 'auto'"
            " ORDER BY slot DESC LIMIT 1) AS slot FROM json_each(?) r",
            (_json(recall_ids),),
        )
        return {row["id"]: from_micros(row["slot"]) for row in rows if row["slot"] is not None}

    async def event_near(self, recall_id: str, at: datetime, *, within: timedelta) -> datetime | None:
        row = await self.one(
            "SELECT slot FROM firings WHERE recall_id = ? AND slot > ? AND slot < ? AND kind = 'event'"
            " AND (started_at IS NOT NULL OR ended_at IS NULL OR status = 'coalesced') ORDER BY slot DESC LIMIT 1",
            (recall_id, to_micros(at - within), to_micros(at + within)),
        )
        return None if row is None else from_micros(row["slot"])

    async def open_recalls_of(self, owner: str, *, session_id: str | None = None) -> Sequence[RecallState]:
        rows = await self.all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE owner = ? AND status IN {_OPEN_RECALL}"
            " AND (? IS NULL OR session_id = ?) ORDER BY number",
            (owner, session_id, session_id),
        )
        return await _decoded(rows, recall_state_of)

    async def ending_with(self, session_id: str) -> Sequence[RecallState]:
        rows = await self.all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE session_id = ? AND instr(policy, '\"cancel_on\"') > 0"
            f" AND status IN {_OPEN_RECALL}",
            (session_id,),
        )
        return [recall_state_of(row) for row in rows]

    async def prune_firings(self, recall_id: str, *, before: datetime, limit: int) -> int:
        return await self.change(
            "DELETE FROM firings WHERE number IN (SELECT number FROM firings WHERE recall_id = ? AND slot < ?"
            f" AND status NOT IN {_OPEN_FIRING} AND delivery <> 'pending' ORDER BY slot LIMIT ?)",
            (recall_id, to_micros(before), limit),
        )

    async def open_firings(self, recall_ids: Iterable[str]) -> Sequence[FiringState]:
        rows = await self.all(_OPEN_OF, (_json(recall_ids),))
        return await _decoded(rows, firing_state_of)

    async def claim(self, *, now: datetime, server_id: str, lease_until: datetime, limit: int) -> Sequence[Claimed]:
        rows = await self.all(
            "UPDATE firings SET status = 'claimed', fence = fence + 1, lease_owner = ?, lease_until = ?"
            " WHERE number IN (SELECT f.number FROM firings f JOIN recalls r ON r.id = f.recall_id"
            f" WHERE f.status = 'pending' AND f.not_before <= ? AND {_STARTABLE}"
            f" ORDER BY f.not_before, f.slot, f.number LIMIT ?) RETURNING {FIRING_COLUMNS}",
            (server_id, to_micros(lease_until), to_micros(now), limit),
        )
        firings = sorted(await _decoded(rows, firing_state_of), key=lambda state: state.firing.slot)
        recalls = await self.recall_states({state.firing.recall_id for state in firings}) if firings else {}
        return [Claimed(firing=state, recall=recalls[state.firing.recall_id]) for state in firings]

    async def may_deliver(self, command_id: str, *, server_id: str) -> bool:
        row = await self.one(
            "SELECT f.kind, f.recall_id, f.status = 'claimed' AND f.lease_owner = ? AS held, r.status AS recall,"
            " instr(r.policy, '\"cancel_on\"') > 0 AS ends_with_user"
            " FROM firings f JOIN recalls r ON r.id = f.recall_id WHERE f.command_id = ?",
            (server_id, command_id),
        )
        if row is None:
            return True
        if not row["held"] or row["kind"] == "manual":
            return bool(row["held"])
        if row["recall"] == "paused":
            return False
        if not row["ends_with_user"]:
            return True
        state = (await self.recall_states([row["recall_id"]]))[row["recall_id"]]
        session_id = state.recall.session_id
        return seen_of(await self.one(SEEN, (session_id, session_id, state.owner))).ends(state.recall) is None

    async def lost_claims(self, *, now: datetime, server_id: str) -> Sequence[FiringState]:
        rows = await self.all(
            f"SELECT {FIRING_COLUMNS} FROM firings WHERE {_CLAIMED} AND (lease_until < ? OR"
            " (lease_owner <> ? AND lease_owner NOT IN (SELECT id FROM servers)))",
            (to_micros(now), server_id),
        )
        return await _decoded(rows, firing_state_of)

    async def wake_deferred(self, session_ids: Iterable[str], *, now: datetime) -> int:
        return await self.change(
            "UPDATE firings SET not_before = min(not_before, ?), deferred = 0 WHERE number IN"
            " (SELECT (SELECT f.number FROM firings f JOIN recalls r ON r.id = f.recall_id"
            "   WHERE f.session_id = s.value AND f.status = 'pending' AND f.deferred = 1"
            f"  AND {_STARTABLE} ORDER BY f.slot, f.number LIMIT 1) FROM json_each(?) s)",
            (to_micros(now), _json(session_ids)),
        )

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

    async def session_of_owner(self, session_id: str, owner: str) -> bool:
        return (await self.one("SELECT 1 FROM sessions WHERE id = ? AND owner = ?", (session_id, owner))) is not None


# --- reads -----------------------------------------------------------------------------------------------------------


class RecallReads(LedgerReads):
    """The recall half of what is read. Implements the reads of :class:`navi_jupyter.ports.recalls.RecallStore`."""

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
            (owner, _number(cursor), session_id, session_id, status, status, limit + 1),
        )
        page = rows[:limit]
        more = str(page[-1]["number"]) if len(rows) > limit else None
        return [recall_of(row) for row in page], more

    async def recalls_in(self, session_id: str) -> Sequence[Recall]:
        rows = await self.fetch_all(
            f"SELECT * FROM recalls WHERE session_id = ? ORDER BY status NOT IN {_OPEN_RECALL},"
            f" CASE WHEN status IN {_OPEN_RECALL} THEN coalesce(next_at, ?) ELSE -number END, number",
            (session_id, _LAST),
        )
        return [recall_of(row) for row in rows]

    async def firings(
        self, recall_id: str, *, limit: int, cursor: str | None = None
    ) -> tuple[Sequence[Firing], str | None]:
        slot, number = _slot_cursor(cursor)
        rows = await self.fetch_all(
            "SELECT * FROM firings WHERE recall_id = ? AND (slot < ? OR (slot = ? AND number < ?))"
            " ORDER BY slot DESC, number DESC LIMIT ?",
            (recall_id, slot, slot, number, limit + 1),
        )
        page = rows[:limit]
        more = f"{page[-1]['slot']}:{page[-1]['number']}" if len(rows) > limit else None
        return [firing_state_of([row[name] for name in FIRING_NAMES]).firing for row in page], more

    async def due_recalls(self, now: datetime, *, limit: int) -> Sequence[RecallState]:
        rows = await self.fetch_all(
            f"SELECT {RECALL_COLUMNS} FROM recalls WHERE due_at IS NOT NULL AND status IN ('pending', 'running')"
            " AND due_at <= ? ORDER BY due_at LIMIT ?",
            (to_micros(now), limit),
        )
        return await _decoded(rows, recall_state_of)

    async def firings_open(self, recall_ids: Iterable[str]) -> Sequence[FiringState]:
        rows = await self.fetch_all(_OPEN_OF, (_json(recall_ids),))
        return await _decoded(rows, firing_state_of)

    async def deferred_sessions(self) -> set[str]:
        rows = await self.fetch_all("SELECT DISTINCT session_id FROM firings WHERE status = 'pending' AND deferred = 1")
        return {row["session_id"] for row in rows}

    async def next_wake(self) -> datetime | None:
        row = await self.fetch_one(
            "SELECT min(at) AS at FROM ("
            "SELECT min(due_at) AS at FROM recalls"
            " WHERE due_at IS NOT NULL AND status IN ('pending', 'running')"
            " UNION ALL SELECT * FROM (SELECT f.not_before FROM firings f JOIN recalls r ON r.id = f.recall_id"
            f" WHERE f.status = 'pending' AND {_STARTABLE} ORDER BY f.not_before LIMIT 1)"
            f" UNION ALL SELECT min(lease_until) FROM firings WHERE {_CLAIMED}"
            f" UNION ALL SELECT * FROM (SELECT f.stop_at {_TO_STOP} ORDER BY f.stop_at LIMIT 1))"
        )
        return None if row is None else optional_instant(row["at"])

    async def ended_firings(self, *, limit: int) -> Sequence[Run]:
        rows = await self.fetch_all(
            "SELECT runs.* FROM firings f JOIN commands c ON c.session_id = f.session_id"
            " AND c.command_id = f.command_id JOIN runs ON runs.id = c.run_id"
            " WHERE f.status IN ('claimed', 'running') AND runs.ended_at IS NOT NULL"
            # A claimed firing with the run of an attempt that is over has not started its next one.
            " AND (f.status = 'running' OR runs.id IS NOT f.run_id) LIMIT ?",
            (limit,),
        )
        return [run_of(row) for row in rows]

    async def overrunning(self, now: datetime, *, limit: int) -> Sequence[Claimed]:
        async with self.reading() as view:
            rows = await view.all(
                f"SELECT {_OF_F} {_TO_STOP} AND f.stop_at <= ? LIMIT ?",
                (to_micros(now), limit),
            )
            recalls = await view.all(
                f"SELECT {RECALL_COLUMNS} FROM recalls WHERE id {_IN}", (_json(row["recall_id"] for row in rows),)
            )
        states = {row["id"]: recall_state_of(row) for row in recalls}
        return [Claimed(firing=firing_state_of(row), recall=states[row["recall_id"]]) for row in rows]

    async def audit_recalls(self, now: datetime) -> RecallAudit:
        late = to_micros(now - _OVERDUE)
        row = await self.fetch_one(
            f"SELECT (SELECT count(*) FROM recalls WHERE status IN {_OPEN_RECALL}) AS open,"
            f" EXISTS (SELECT 1 FROM recalls WHERE status IN {_OPEN_RECALL} AND status <> 'paused') AS awake,"
            " (SELECT count(*) FROM recalls WHERE due_at < ? AND status IN ('pending', 'running')) AS overdue,"
            " (SELECT count(*) FROM firings f LEFT JOIN runs ON runs.id = f.run_id"
            "   WHERE f.status IN ('claimed', 'running') AND f.status = 'running' AND coalesce(runs.ended_at, 0) < ?"
            "   AND (runs.id IS NULL OR runs.ended_at IS NOT NULL)) AS stuck,"
            f" (SELECT count(*) FROM firings WHERE {_CLAIMED} AND lease_until < ?) AS orphans,"
            " (SELECT count(*) FROM recalls r WHERE r.status = 'pending' AND r.due_at IS NULL"
            f"  AND NOT (substr(r.schedule, 1, 14) = {_WHEN}) AND NOT EXISTS"
            f"  (SELECT 1 FROM firings f WHERE f.recall_id = r.id AND f.status IN {_OPEN_FIRING})) AS aimless",
            (late, late, late),
        )
        if row is None:
            return RecallAudit()
        found = {key: row[key] for key in row.keys()}  # noqa: SIM118
        return RecallAudit(**found | {"awake": bool(found["awake"])})


def _number(cursor: str | None) -> int:
    if cursor is None:
        return _LAST
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidRequest("cursor: not a cursor of this list", field="cursor")
    return int(cursor)


def _slot_cursor(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return _LAST, _LAST
    slot, _, number = cursor.partition(":")
    return _number(slot), _number(number)
