"""SQL for recalls and their ledger: what a transaction does (``RecallRows``) and what is read (``RecallReads``).

Not responsible for what the transitions mean: that is ``recalls.policy``.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

from ..errors import InvalidRequest
from ..model import Firing, FiringStatus, OriginKind, Policy, Recall, RecallStatus, Run, Schedule
from ..ports.recalls import Claimed, FiringState, RecallAudit, RecallState
from .connection import Readers, Statements
from .rows import from_micros, optional_instant, optional_micros, run_of, to_micros

T = TypeVar("T")
_LAST = 2**62
_MANY = 50
"""From this many rows on, they are decoded off the event loop."""
_OPEN_RECALL = "('pending', 'running', 'paused')"
_OPEN_FIRING = "('pending', 'claimed', 'running')"
_OVERDUE = timedelta(seconds=60)
_SCHEDULES: TypeAdapter[Schedule] = TypeAdapter(Schedule)

# A firing may start while its recall is active; a manual one also while it is paused.
_STARTABLE = "(r.status IN ('pending', 'running') OR (f.kind = 'manual' AND r.status = 'paused'))"

_RECALL_COLUMNS = (
    "id, session_id, owner, title, message, schedule, policy, status, next_at, last_at, fired, created_at,"
    " origin, due_at, planned, outcome, version"
)
_PROGRESS = ("status", "next_at", "last_at", "fired", "due_at", "planned", "outcome")
_FIRING_COLUMNS = (
    "id, recall_id, session_id, slot, kind, key, status, reason, command_id, run_id, attempt, crashes, coalesced,"
    " not_before, wait_until, stop_at, deferred, started_at, ended_at, lateness_ms, lease_owner, lease_until, fence"
)


_RECALL_NAMES = _RECALL_COLUMNS.split(", ")
_FIRING_NAMES = _FIRING_COLUMNS.split(", ")


def _updates(names: Sequence[str], first: int = 1) -> str:
    """Assignments from the columns of a VALUES list, which SQLite calls column1 and so on."""
    return ", ".join(f"{name} = v.column{number}" for number, name in enumerate(names, first))


# --- rows and values -------------------------------------------------------------------------------------------------

# Tens of thousands of rows pass here when many recalls are due at once: rows are taken apart by position, and their
# values were validated when they were stored and are not validated again.
_RECALL_STATUS = {status.value: status for status in RecallStatus}
_FIRING_STATUS = {status.value: status for status in FiringStatus}
_ORIGIN = {kind.value: kind for kind in OriginKind}


@lru_cache(maxsize=4096)
def _policy(text: str) -> Policy:
    return Policy.model_validate_json(text)


@lru_cache(maxsize=4096)
def _schedule(text: str) -> Schedule:
    return _SCHEDULES.validate_json(text)


def recall_of(row: sqlite3.Row) -> Recall:
    """A row of ``recalls`` with all its columns."""
    return _recall_state([row[name] for name in _RECALL_NAMES]).recall


def _recall_state(row: Iterable[Any]) -> RecallState:
    """A row of ``_RECALL_COLUMNS``."""
    (
        recall_id, session_id, owner, title, message, schedule, policy, status, next_at, last_at, fired, created_at,
        origin, due_at, planned, outcome, version,
    ) = row  # fmt: skip
    recall = Recall.trusted(
        id=recall_id,
        session_id=session_id,
        title=title,
        message=message,
        schedule=_schedule(schedule),
        policy=_policy(policy),
        status=_RECALL_STATUS[status],
        next_at=optional_instant(next_at),
        last_at=optional_instant(last_at),
        fired=fired,
        created_at=from_micros(created_at),
        origin=_ORIGIN[origin],
    )
    return RecallState(
        recall=recall,
        owner=owner,
        due_at=recall.next_at if due_at == next_at else optional_instant(due_at),
        planned=planned,
        outcome=None if outcome is None else _FIRING_STATUS[outcome],
        version=version,
    )


def _recall_values(state: RecallState) -> tuple[object, ...]:
    """In the order of ``_RECALL_COLUMNS``."""
    recall = state.recall
    status, next_at, last_at, fired, *rest = _progress(state)
    return (
        recall.id,
        recall.session_id,
        state.owner,
        recall.title,
        recall.message,
        *_schedule_and_policy(recall),
        status,
        next_at,
        last_at,
        fired,
        to_micros(recall.created_at),
        f"{recall.origin}",
        *rest,
        state.version,
    )


def _schedule_and_policy(recall: Recall) -> tuple[str, str]:
    return recall.schedule.model_dump_json(), recall.policy.model_dump_json(exclude_defaults=True)


def _progress(state: RecallState) -> tuple[object, ...]:
    """What the passing of time changes, in the order of ``_PROGRESS``."""
    recall, outcome = state.recall, state.outcome
    next_at = optional_micros(recall.next_at)
    return (
        f"{recall.status}",
        next_at,
        optional_micros(recall.last_at),
        recall.fired,
        next_at if state.due_at is recall.next_at else optional_micros(state.due_at),
        state.planned,
        None if outcome is None else f"{outcome}",
    )


def _firing_state(row: Iterable[Any]) -> FiringState:
    """A row of ``_FIRING_COLUMNS``."""
    (
        firing_id, recall_id, session_id, slot, kind, key, status, reason, command_id, run_id, attempt, crashes,
        coalesced, not_before, wait_until, stop_at, deferred, started_at, ended_at, lateness_ms, lease_owner,
        lease_until, fence,
    ) = row  # fmt: skip
    at = from_micros(slot)
    firing = Firing.trusted(
        id=firing_id,
        recall_id=recall_id,
        slot=at,
        kind=kind,
        status=_FIRING_STATUS[status],
        reason=reason,
        run_id=run_id,
        attempt=attempt,
        coalesced=coalesced,
        not_before=at if not_before == slot else from_micros(not_before),
        started_at=optional_instant(started_at),
        ended_at=optional_instant(ended_at),
        lateness_ms=lateness_ms,
    )
    return FiringState(
        firing=firing,
        session_id=session_id,
        command_id=command_id,
        key=key,
        fence=fence,
        lease_owner=lease_owner,
        lease_until=optional_instant(lease_until),
        crashes=crashes,
        wait_until=optional_instant(wait_until),
        stop_at=optional_instant(stop_at),
        deferred=bool(deferred),
    )


def _firing_values(state: FiringState) -> tuple[object, ...]:
    """In the order of ``_FIRING_COLUMNS``."""
    firing = state.firing
    return (
        firing.id,
        firing.recall_id,
        state.session_id,
        to_micros(firing.slot),
        firing.kind,
        state.key,
        f"{firing.status}",
        firing.reason,
        state.command_id,
        firing.run_id,
        firing.attempt,
        state.crashes,
        firing.coalesced,
        to_micros(firing.not_before),
        optional_micros(state.wait_until),
        optional_micros(state.stop_at),
        int(state.deferred),
        optional_micros(firing.started_at),
        optional_micros(firing.ended_at),
        firing.lateness_ms,
        state.lease_owner,
        optional_micros(state.lease_until),
        state.fence,
    )


def _json(values: Iterable[str]) -> str:
    """Many values as one parameter: ``IN (SELECT value FROM json_each(?))`` has no limit on their number."""
    return json.dumps(list(values))


_IN = "IN (SELECT value FROM json_each(?))"
_OPEN_OF = f"SELECT {_FIRING_COLUMNS} FROM firings WHERE recall_id {_IN} AND status IN {_OPEN_FIRING} ORDER BY slot, number"


async def _decoded(rows: Sequence[sqlite3.Row], decode: Callable[[Iterable[Any]], T]) -> list[T]:
    """The rows as values; many of them are decoded off the event loop."""
    if len(rows) < _MANY:
        return [decode(row) for row in rows]
    return await asyncio.to_thread(lambda: [decode(row) for row in rows])


_ADVANCE_RECALLS = (
    f"UPDATE recalls SET {_updates(_PROGRESS)}, version = version + 1"
    " FROM (VALUES {rows}) AS v WHERE recalls.id = v.column8 AND recalls.version = v.column9"
)
_SAVE_RECALLS = (
    f"UPDATE recalls SET {_updates((*_PROGRESS, 'title', 'message', 'schedule', 'policy'))}, version = version + 1"
    " FROM (VALUES {rows}) AS v WHERE recalls.id = v.column12 AND recalls.version = v.column13"
)
_SAVE_FIRINGS = (
    f"UPDATE firings SET {_updates(_FIRING_NAMES[6:], 2)}"
    " FROM (VALUES {rows}) AS v WHERE firings.id = v.column1 AND firings.fence <= v.column18"
)


# --- a transaction ---------------------------------------------------------------------------------------------------


class RecallRows(Statements):
    """The recall half of a transaction. Implements :class:`navi_jupyter.ports.recalls.RecallTx`."""

    async def add_recalls(self, states: Iterable[RecallState]) -> None:
        await self.change_many(
            f"INSERT INTO recalls ({_RECALL_COLUMNS}) VALUES {{rows}}", [_recall_values(state) for state in states]
        )

    async def count_open_recalls(self, owner: str) -> int:
        row = await self.one(
            f"SELECT count(*) AS n FROM recalls WHERE owner = ? AND status IN {_OPEN_RECALL}", (owner,)
        )
        return 0 if row is None else int(row["n"])

    async def recall_states(self, recall_ids: Iterable[str]) -> dict[str, RecallState]:
        rows = await self.all(f"SELECT {_RECALL_COLUMNS} FROM recalls WHERE id {_IN}", (_json(recall_ids),))
        return {state.recall.id: state for state in await _decoded(rows, _recall_state)}

    async def versions(self, recall_ids: Iterable[str]) -> dict[str, int]:
        rows = await self.all(f"SELECT id, version FROM recalls WHERE id {_IN}", (_json(recall_ids),))
        return {row["id"]: row["version"] for row in rows}

    async def save_recalls(self, states: Iterable[RecallState]) -> int:
        rows = [
            (*_progress(s), s.recall.title, s.recall.message, *_schedule_and_policy(s.recall), s.recall.id, s.version)
            for s in states
        ]
        return await self.change_many(_SAVE_RECALLS, rows)

    async def advance_recalls(self, states: Iterable[RecallState]) -> int:
        return await self.change_many(_ADVANCE_RECALLS, [(*_progress(s), s.recall.id, s.version) for s in states])

    async def add_firings(self, states: Iterable[FiringState]) -> None:
        await self.change_many(
            f"INSERT OR IGNORE INTO firings ({_FIRING_COLUMNS}) VALUES {{rows}}", list(map(_firing_values, states))
        )

    async def save_firings(self, states: Iterable[FiringState]) -> None:
        await self.change_many(_SAVE_FIRINGS, [(v[0], *v[6:]) for v in map(_firing_values, states)])

    async def firing_states(self, firing_ids: Iterable[str]) -> dict[str, FiringState]:
        rows = await self.all(f"SELECT {_FIRING_COLUMNS} FROM firings WHERE id {_IN}", (_json(firing_ids),))
        return {state.firing.id: state for state in await _decoded(rows, _firing_state)}

    async def firings_of_commands(self, command_ids: Iterable[str]) -> Sequence[FiringState]:
        rows = await self.all(f"SELECT {_FIRING_COLUMNS} FROM firings WHERE command_id {_IN}", (_json(command_ids),))
        return await _decoded(rows, _firing_state)

    async def manual_firing(self, recall_id: str, key: str) -> FiringState | None:
        row = await self.one(
            f"SELECT {_FIRING_COLUMNS} FROM firings WHERE recall_id = ? AND key = ? AND kind = 'manual'", (recall_id, key)
        )
        return None if row is None else _firing_state(row)

    async def open_firings(self, recall_ids: Iterable[str]) -> Sequence[FiringState]:
        rows = await self.all(_OPEN_OF, (_json(recall_ids),))
        return await _decoded(rows, _firing_state)

    async def claim(self, *, now: datetime, server_id: str, lease_until: datetime, limit: int) -> Sequence[Claimed]:
        rows = await self.all(
            "UPDATE firings SET status = 'claimed', fence = fence + 1, lease_owner = ?, lease_until = ?"
            " WHERE number IN (SELECT f.number FROM firings f JOIN recalls r ON r.id = f.recall_id"
            f" WHERE f.status = 'pending' AND f.not_before <= ? AND {_STARTABLE}"
            f" ORDER BY f.not_before, f.slot, f.number LIMIT ?) RETURNING {_FIRING_COLUMNS}",
            (server_id, to_micros(lease_until), to_micros(now), limit),
        )
        firings = sorted(await _decoded(rows, _firing_state), key=lambda state: state.firing.slot)
        recalls = await self.recall_states({state.firing.recall_id for state in firings}) if firings else {}
        return [Claimed(firing=state, recall=recalls[state.firing.recall_id]) for state in firings]

    async def lost_claims(self, *, now: datetime, server_id: str) -> Sequence[FiringState]:
        rows = await self.all(
            f"SELECT {_FIRING_COLUMNS} FROM firings WHERE status = 'claimed' AND (lease_until < ? OR"
            " (lease_owner <> ? AND lease_owner NOT IN (SELECT id FROM servers)))",
            (to_micros(now), server_id),
        )
        return await _decoded(rows, _firing_state)

    async def wake_deferred(self, session_ids: Iterable[str], *, now: datetime) -> int:
        return await self.change(
            "UPDATE firings SET not_before = min(not_before, ?), deferred = 0 WHERE number IN"
            " (SELECT (SELECT f.number FROM firings f JOIN recalls r ON r.id = f.recall_id"
            "   WHERE f.session_id = s.value AND f.status = 'pending' AND f.deferred = 1"
            f"  AND {_STARTABLE} ORDER BY f.slot, f.number LIMIT 1) FROM json_each(?) s)",
            (to_micros(now), _json(session_ids)),
        )

    async def session_of_owner(self, session_id: str, owner: str) -> bool:
        return (await self.one("SELECT 1 FROM sessions WHERE id = ? AND owner = ?", (session_id, owner))) is not None


# --- reads -----------------------------------------------------------------------------------------------------------


class RecallReads(Readers):
    """The recall half of what is read. Implements the reads of :class:`navi_jupyter.ports.recalls.RecallStore`."""

    async def recall_state(self, recall_id: str) -> RecallState | None:
        row = await self.fetch_one(f"SELECT {_RECALL_COLUMNS} FROM recalls WHERE id = ?", (recall_id,))
        return None if row is None else _recall_state(row)

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
        return [_firing_state([row[name] for name in _FIRING_NAMES]).firing for row in page], more

    async def due_recalls(self, now: datetime, *, limit: int) -> Sequence[RecallState]:
        rows = await self.fetch_all(
            f"SELECT {_RECALL_COLUMNS} FROM recalls WHERE due_at IS NOT NULL AND status IN ('pending', 'running')"
            " AND due_at <= ? ORDER BY due_at LIMIT ?",
            (to_micros(now), limit),
        )
        return await _decoded(rows, _recall_state)

    async def firings_open(self, recall_ids: Iterable[str]) -> Sequence[FiringState]:
        rows = await self.fetch_all(_OPEN_OF, (_json(recall_ids),))
        return await _decoded(rows, _firing_state)

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
            " UNION ALL SELECT min(lease_until) FROM firings WHERE status = 'claimed'"
            " UNION ALL SELECT min(stop_at) FROM firings WHERE status = 'running' AND stop_at IS NOT NULL)"
        )
        return None if row is None else optional_instant(row["at"])

    async def ended_firings(self, *, limit: int) -> Sequence[Run]:
        rows = await self.fetch_all(
            "SELECT runs.* FROM firings f JOIN commands c ON c.session_id = f.session_id"
            " AND c.command_id = f.command_id JOIN runs ON runs.id = c.run_id"
            " WHERE f.status IN ('claimed', 'running') AND runs.ended_at IS NOT NULL LIMIT ?",
            (limit,),
        )
        return [run_of(row) for row in rows]

    async def overrunning(self, now: datetime, *, limit: int) -> Sequence[Claimed]:
        async with self.reading() as view:
            rows = await view.all(
                f"SELECT {_FIRING_COLUMNS} FROM firings WHERE status = 'running' AND stop_at <= ? LIMIT ?",
                (to_micros(now), limit),
            )
            recalls = await view.all(
                f"SELECT {_RECALL_COLUMNS} FROM recalls WHERE id {_IN}", (_json(row["recall_id"] for row in rows),)
            )
        states = {row["id"]: _recall_state(row) for row in recalls}
        return [Claimed(firing=_firing_state(row), recall=states[row["recall_id"]]) for row in rows]

    async def audit_recalls(self, now: datetime) -> RecallAudit:
        late = to_micros(now - _OVERDUE)
        row = await self.fetch_one(
            f"SELECT (SELECT count(*) FROM recalls WHERE status IN {_OPEN_RECALL}) AS open,"
            " (SELECT count(*) FROM recalls WHERE due_at < ? AND status IN ('pending', 'running')) AS overdue,"
            " (SELECT count(*) FROM firings f LEFT JOIN runs ON runs.id = f.run_id"
            "   WHERE f.status = 'running' AND coalesce(runs.ended_at, 0) < ?"
            "   AND (runs.id IS NULL OR runs.ended_at IS NOT NULL)) AS stuck,"
            " (SELECT count(*) FROM firings WHERE status = 'claimed' AND lease_until < ?) AS orphans,"
            " (SELECT count(*) FROM recalls r WHERE r.status = 'pending' AND r.due_at IS NULL AND NOT EXISTS"
            f"  (SELECT 1 FROM firings f WHERE f.recall_id = r.id AND f.status IN {_OPEN_FIRING})) AS aimless",
            (late, late, late),
        )
        return RecallAudit() if row is None else RecallAudit(**{key: row[key] for key in row.keys()})  # noqa: SIM118


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
