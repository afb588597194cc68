"""SQL for the ledger: the firings in a transaction (``FiringRows``), and what is read of them (``FiringReads``).

Not responsible for what the transitions mean: that is ``scheduling.decisions``.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from ..errors import InvalidRequest
from ..model.recalls import Firing, FiringAttempt
from ..model.sessions import Run, RunStatus
from ..ports.agent import Unrun
from ..ports.recalls import Claimed, FiringState
from ..ports.transactions import off_loop
from .rows import (
    FIRING_COLUMNS,
    FIRING_NAMES,
    NEW_FIRING_COLUMNS,
    PROGRESS_NAMES,
    RECALL_COLUMNS,
    changed_firing_values,
    firing_state_of,
    from_micros,
    new_firing_values,
    optional_instant,
    optional_micros,
    recall_state_of,
    rows_of,
    run_of,
    to_micros,
)
from .statements import Readers, Row, Statements, json_list

T = TypeVar("T")
LAST = 2**62  # After all numbers and times: where a list without a cursor begins.
_MANY = 50  # From this many rows on, they are decoded off the event loop.
OPEN_FIRING = "('pending', 'claimed', 'running')"
CLAIMED = "(status IN ('claimed', 'running') AND status = 'claimed')"
"""The first half is for the partial index: SQLite does not see that it follows, and would read all of the ledger."""
STARTABLE = "(r.status IN ('pending', 'running') OR (f.kind = 'manual' AND r.status = 'paused'))"
"""A firing may start while its recall is active; a manual one also while it is paused."""
TO_STOP = (
    "FROM firings f JOIN runs ON runs.id = f.run_id WHERE f.status = 'running' AND f.stop_at IS NOT NULL"
    " AND runs.ended_at IS NULL AND runs.stop_command_id IS NULL"
)
"""Running under a time limit, and its run was not asked to stop yet."""
IN = "IN (SELECT value FROM json_each(?))"
UNRUN = "('skipped', 'missed', 'coalesced', 'expired')"
_OF_F = ", ".join(f"f.{name}" for name in FIRING_NAMES)
_AHEAD = "recall_id = ? AND kind = 'auto' AND slot > ?"
_STARTED = "(started_at IS NOT NULL OR run_id IS NOT NULL OR status IN ('claimed', 'running'))"
_OPEN_OF = (
    f"SELECT {FIRING_COLUMNS} FROM firings INDEXED BY firings_open"  # else SQLite reads all that these recalls had
    f" WHERE recall_id {IN} AND status IN {OPEN_FIRING} ORDER BY slot, number"
)
_BESIDE = (
    f"WITH named AS (SELECT number, recall_id FROM firings WHERE id {IN}"
    f" UNION SELECT number, recall_id FROM firings WHERE command_id {IN})"
    f" SELECT {FIRING_COLUMNS} FROM firings WHERE number IN (SELECT number FROM named UNION SELECT number FROM firings"
    f" INDEXED BY firings_open WHERE recall_id IN (SELECT recall_id FROM named) AND status IN {OPEN_FIRING})"
    " ORDER BY slot, number"
)
_ATTEMPTS = (
    "SELECT f.id AS firing_id, runs.id, runs.status, runs.error_message, runs.started_at, runs.ended_at"
    " FROM json_each(?) w JOIN firings f ON f.id = json_extract(w.value, '$[0]')"
    " JOIN commands c ON c.session_id = f.session_id AND c.command_id = json_extract(w.value, '$[1]')"
    " JOIN runs last ON last.id = c.run_id"
    # A command that was started again has several runs, of which it names the last. The others lie between the slot
    # and that one: the index by user and time finds them, so that no index by command has to be kept for every run.
    " JOIN runs ON runs.user_id = last.user_id AND runs.command_id = last.command_id AND runs.created_at"
    " BETWEEN CASE WHEN f.crashes > 0 THEN min(f.slot, last.created_at) ELSE last.created_at END AND last.created_at"
    " ORDER BY runs.number"
)
_DELIVERABLE = (
    "delivery = 'pending' AND (lease_until IS NULL OR lease_until <= ?)"
    # Those with notices that wait are taken again when these are over.
    " AND NOT EXISTS (SELECT 1 FROM notices n WHERE n.firing_id = firings.id AND n.status = 'pending')"
)


def updates(names: Sequence[str]) -> str:
    """Assignments from the columns of a VALUES list, which SQLite calls column1 and so on."""
    return ", ".join(f"{name} = v.column{number}" for number, name in enumerate(names, 1))


async def decoded(rows: Sequence[Row], decode: Callable[[Iterable[Any]], T]) -> list[T]:
    """The rows as values; many of them are decoded off the event loop."""
    if len(rows) < _MANY:
        return [decode(row) for row in rows]
    return await off_loop(lambda: [decode(row) for row in rows])


_SAVE_FIRINGS = (
    f"UPDATE firings SET {updates(PROGRESS_NAMES)}"
    f" FROM (VALUES {{rows}}) AS v WHERE firings.id = v.column{len(PROGRESS_NAMES) + 1}"
    f" AND firings.fence <= v.column{len(PROGRESS_NAMES)}"
)


class ClockRows(Statements):
    """What a clock that was ahead has left in the ledger. Implements ``ports.recalls.ClockTx``."""

    async def times_that_ran(self, recall_id: str, *, after: datetime) -> set[datetime]:
        rows = await self.all(f"SELECT slot FROM firings WHERE {_AHEAD} AND {_STARTED}", (recall_id, to_micros(after)))
        return {from_micros(row["slot"]) for row in rows}

    async def drop_times(self, recall_id: str, *, after: datetime) -> int:
        ahead = f"FROM firings WHERE {_AHEAD} AND NOT {_STARTED}"
        given = (recall_id, to_micros(after))
        row = await self.one(f"SELECT count(*) AS waiting {ahead} AND status = 'pending'", given)
        await self.change(f"DELETE {ahead}", given)
        return 0 if row is None else int(row["waiting"])

    async def shift_times(self, *, now: datetime, back: timedelta, lease_until: datetime) -> None:
        at, step, lease = to_micros(now), int(back.total_seconds() * 1e6), to_micros(lease_until)
        of_recall = self.served.of_recall("firings.recall_id")
        ahead = at + step // 2  # not in SQL: of a parameter by a number, PostgreSQL makes one of 32 bits
        await self.change(
            f"UPDATE firings SET lease_until = ?2 WHERE {CLAIMED} AND lease_until > ?2{of_recall}", (at, lease)
        )
        await self.change(
            "UPDATE firings SET stop_at = stop_at - ?2, started_at = ?1"
            f" WHERE status = 'running' AND stop_at IS NOT NULL AND started_at > ?1{of_recall}",
            (at, step),
        )
        # Put off while the clock was ahead: it had shown at least this time then.
        await self.change(
            "UPDATE firings SET not_before = max(slot, not_before - ?2),"
            " wait_until = max(not_before - ?2, wait_until - ?2)"
            " WHERE status = 'pending' AND slot <= ?1 AND (attempt > 0 OR deferred = 1 OR reason IS NOT NULL)"
            f" AND not_before > ?3{of_recall}",
            (at, step, ahead),
        )
        # Also where quiet hours hold them back: that is looked at again before they are sent.
        await self.change(
            f"UPDATE notices SET due_at = due_at - ? WHERE status = 'pending' AND due_at > ?{self.served.by('owner')}",
            (step, ahead),
        )
        await self.change(
            "UPDATE interrupts SET expires_at = expires_at - ?2, created_at = ?1"
            " WHERE status = 'open' AND expires_at IS NOT NULL AND created_at > ?1"
            + self.served.of_session("interrupts.session_id"),
            (at, step),
        )


class FiringRows(ClockRows):
    """The ledger in a transaction. Implements :class:`navi_jupyter.ports.recalls.FiringTx`."""

    async def add_firings(self, states: Iterable[FiringState]) -> int:
        text = f"INSERT INTO firings ({NEW_FIRING_COLUMNS}) VALUES {{rows}} ON CONFLICT DO NOTHING"
        return await self.change_many(text, rows_of(states, new_firing_values))

    async def save_firings(self, states: Iterable[FiringState]) -> None:
        await self.change_many(_SAVE_FIRINGS, list(map(changed_firing_values, states)))

    async def firing_states(self, firing_ids: Iterable[str]) -> dict[str, FiringState]:
        rows = await self.all(f"SELECT {FIRING_COLUMNS} FROM firings WHERE id {IN}", (json_list(firing_ids),))
        return {state.firing.id: state for state in await decoded(rows, firing_state_of)}

    async def firings_beside(self, firing_ids: Sequence[str], command_ids: Sequence[str]) -> Sequence[FiringState]:
        rows = await self.all(_BESIDE, (json_list(firing_ids), json_list(command_ids)))
        return await decoded(rows, firing_state_of)

    async def keyed_firing(self, recall_id: str, kind: str, key: str) -> FiringState | None:
        row = await self.one(
            f"SELECT {FIRING_COLUMNS} FROM firings WHERE recall_id = ? AND key = ? AND kind = ?", (recall_id, key, kind)
        )
        return None if row is None else firing_state_of(row)

    async def last_slots(self, recall_ids: Iterable[str]) -> dict[str, datetime]:
        rows = await self.all(
            "SELECT r.value AS id, (SELECT slot FROM firings WHERE recall_id = r.value AND kind = 'auto'"
            " ORDER BY slot DESC LIMIT 1) AS slot FROM json_each(?) r",
            (json_list(recall_ids),),
        )
        return {row["id"]: from_micros(row["slot"]) for row in rows if row["slot"] is not None}

    async def event_near(self, recall_id: str, at: datetime, *, within: timedelta) -> datetime | None:
        row = await self.one(
            "SELECT slot FROM firings WHERE recall_id = ? AND slot > ? AND slot < ? AND kind = 'event'"
            " AND (started_at IS NOT NULL OR ended_at IS NULL OR status = 'coalesced') ORDER BY slot DESC LIMIT 1",
            (recall_id, to_micros(at - within), to_micros(at + within)),
        )
        return None if row is None else from_micros(row["slot"])

    async def prune_firings(self, recall_id: str, *, before: datetime, limit: int) -> int:
        return await self.change(
            "DELETE FROM firings WHERE number IN (SELECT number FROM firings WHERE recall_id = ? AND slot < ?"
            f" AND status NOT IN {OPEN_FIRING} AND delivery <> 'pending' ORDER BY slot LIMIT ?)",
            (recall_id, to_micros(before), limit),
        )

    async def open_firings(self, recall_ids: Iterable[str]) -> Sequence[FiringState]:
        rows = await self.all(_OPEN_OF, (json_list(recall_ids),))
        return await decoded(rows, firing_state_of)

    # One statement, so that of two servers each firing goes to one; the fence voids what was decided before.
    async def claim(self, *, now: datetime, server_id: str, lease_until: datetime, limit: int) -> Sequence[Claimed]:
        rows = await self.all(
            "UPDATE firings SET status = 'claimed', fence = fence + 1, lease_owner = ?, lease_until = ?"
            " WHERE number IN (SELECT f.number FROM firings f JOIN recalls r ON r.id = f.recall_id"
            f" WHERE f.status = 'pending' AND f.not_before <= ? AND {STARTABLE}{self.served.by('r.owner')}"
            f" ORDER BY f.not_before, f.slot, f.number LIMIT ?) RETURNING {FIRING_COLUMNS}",
            (server_id, to_micros(lease_until), to_micros(now), limit),
        )
        return await _with_recalls(self, rows)

    # A server that left, or was found dead, is not in ``servers`` any more: its leases need not run out.
    async def lost_claims(self, *, now: datetime, server_id: str) -> Sequence[FiringState]:
        rows = await self.all(
            f"SELECT {FIRING_COLUMNS} FROM firings WHERE {CLAIMED} AND (lease_until < ? OR"
            " (lease_owner <> ? AND lease_owner NOT IN (SELECT id FROM servers)))"
            + self.served.of_recall("firings.recall_id"),
            (to_micros(now), server_id),
        )
        return await decoded(rows, firing_state_of)

    # One for each session: the run that it starts keeps the others waiting anyway.
    async def wake_deferred(self, session_ids: Iterable[str], *, now: datetime) -> int:
        return await self.change(
            "UPDATE firings SET not_before = min(not_before, ?), deferred = 0 WHERE number IN"
            " (SELECT (SELECT f.number FROM firings f JOIN recalls r ON r.id = f.recall_id"
            "   WHERE f.session_id = s.value AND f.status = 'pending' AND f.deferred = 1"
            f"  AND {STARTABLE} ORDER BY f.slot, f.number LIMIT 1) FROM json_each(?) s)",
            (to_micros(now), json_list(session_ids)),
        )


class FiringReads(Readers):
    """What is read of the ledger. Implements :class:`navi_jupyter.ports.recalls.FiringStore`."""

    @abstractmethod
    async def write(
        self, unit: Callable[[Statements], Awaitable[T]], *, durable: bool = False, on: str | None = None
    ) -> T:
        """The store's, in whose class this one is mixed."""

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
        states = [firing_state_of([row[name] for name in FIRING_NAMES]) for row in page]
        attempts = await self._attempts(states)
        return [state.firing.but(attempts=tuple(attempts[state.firing.id])) for state in states], more

    async def _attempts(self, states: Sequence[FiringState]) -> Mapping[str, Sequence[FiringAttempt]]:
        """The runs that these firings have had, by the firing's id. One query for all of them."""
        commands = [
            (state.firing.id, state.command_of(attempt))
            for state in states
            for attempt in range(state.firing.attempt + 1)
        ]
        found: dict[str, list[FiringAttempt]] = defaultdict(list)
        for row in await self.fetch_all(_ATTEMPTS, (json.dumps(commands),)):
            attempt = FiringAttempt(
                run_id=row["id"],
                status=RunStatus(row["status"]),
                reason=row["error_message"],
                started_at=optional_instant(row["started_at"]),
                ended_at=optional_instant(row["ended_at"]),
            )
            found[row["firing_id"]].append(attempt)
        return found

    async def firings_open(self, recall_ids: Iterable[str]) -> Sequence[FiringState]:
        rows = await self.fetch_all(_OPEN_OF, (json_list(recall_ids),))
        return await decoded(rows, firing_state_of)

    async def deferred_sessions(self) -> set[str]:
        rows = await self.fetch_all(
            "SELECT DISTINCT session_id FROM firings WHERE status = 'pending' AND deferred = 1"
            + self.served.of_recall("firings.recall_id")
        )
        return {row["session_id"] for row in rows}

    # By the command and not by run_id: the start of a run that is over may not have been recorded.
    async def ended_firings(self, *, limit: int) -> Sequence[Run]:
        rows = await self.fetch_all(
            "SELECT runs.* FROM firings f JOIN commands c ON c.session_id = f.session_id"
            " AND c.command_id = f.command_id JOIN runs ON runs.id = c.run_id"
            " WHERE f.status IN ('claimed', 'running') AND runs.ended_at IS NOT NULL"
            # A claimed firing with the run of an attempt that is over has not started its next one.
            f" AND (f.status = 'running' OR runs.id IS NOT f.run_id){self.served.of_recall('f.recall_id')} LIMIT ?",
            (limit,),
        )
        return [run_of(row) for row in rows]

    async def overrunning(self, now: datetime, *, limit: int) -> Sequence[Claimed]:
        async with self.reading() as view:
            rows = await view.all(
                f"SELECT {_OF_F} {TO_STOP} AND f.stop_at <= ?{self.served.of_recall('f.recall_id')} LIMIT ?",
                (to_micros(now), limit),
            )
            return await _with_recalls(view, rows)

    async def last_firings(self, recall_ids: Iterable[str]) -> dict[str, Firing]:
        rows = await self.fetch_all(
            f"SELECT {_OF_F} FROM json_each(?) r JOIN firings f ON f.number = (SELECT number FROM firings"
            " WHERE recall_id = r.value ORDER BY slot DESC, number DESC LIMIT 1)",
            (json_list(recall_ids),),
        )
        return {row["recall_id"]: firing_state_of(row).firing for row in rows}

    async def unrun(self, session_id: str, *, since: datetime | None, limit: int) -> Sequence[Unrun]:
        rows = await self.fetch_all(
            f"SELECT {_OF_F}, r.title FROM recalls r JOIN firings f ON f.recall_id = r.id"
            f" WHERE r.session_id = ? AND f.slot >= ? AND f.status IN {UNRUN}"
            " ORDER BY f.slot DESC, f.number DESC LIMIT ?",
            (session_id, optional_micros(since) or 0, limit),
        )
        return [Unrun(firing=firing_state_of(row[:-1]).firing, title=row["title"]) for row in reversed(rows)]

    async def old_firings(self, before: datetime, *, keep: int, limit: int) -> Mapping[str, datetime]:
        rows = await self.fetch_all(
            "SELECT id, edge FROM (SELECT id,"
            "  (SELECT slot FROM firings WHERE recall_id = recalls.id ORDER BY slot DESC LIMIT 1 OFFSET ?) AS edge"
            f"  FROM recalls WHERE EXISTS (SELECT 1 FROM firings WHERE recall_id = recalls.id AND slot < ?)"
            f" {self.served.by('owner')}) o"
            " WHERE edge IS NOT NULL LIMIT ?",
            (keep - 1, to_micros(before), limit),
        )
        return {row["id"]: from_micros(row["edge"]) for row in rows}

    async def deliveries_pending(self, limit: int) -> Sequence[Claimed]:
        async with self.reading() as view:
            rows = await view.all(
                f"SELECT {FIRING_COLUMNS} FROM firings WHERE delivery = 'pending'"
                f"{self.served.of_recall('firings.recall_id')} ORDER BY number LIMIT ?",
                (limit,),
            )
            return await _with_recalls(view, rows)

    async def take_deliveries(self, *, now: datetime, until: datetime, limit: int) -> Sequence[Claimed]:
        async def unit(tx: Statements) -> Sequence[Claimed]:
            rows = await tx.all(
                f"UPDATE firings SET lease_until = ? WHERE number IN (SELECT number FROM firings WHERE {_DELIVERABLE}"
                f"{self.served.of_recall('firings.recall_id')} ORDER BY number LIMIT ?) RETURNING {FIRING_COLUMNS}",
                (to_micros(until), to_micros(now), limit),
            )
            return await _with_recalls(tx, rows)

        return await self.write(unit)

    async def delivered(self, firing_id: str, error: str | None = None) -> None:
        text = (
            "UPDATE firings SET delivery = ?, delivery_error = ?, lease_until = NULL"
            " WHERE id = ? AND delivery = 'pending'"
        )
        values = ("delivered" if error is None else "failed", error, firing_id)
        await self.write(lambda tx: tx.change(text, values), durable=True)


async def _with_recalls(view: Statements, rows: Sequence[Row]) -> Sequence[Claimed]:
    """Each firing with its recall, the oldest first."""
    if not rows:
        return []
    recalls = await view.all(
        f"SELECT {RECALL_COLUMNS} FROM recalls WHERE id {IN}", (json_list({row["recall_id"] for row in rows}),)
    )
    states = {state.recall.id: state for state in await decoded(recalls, recall_state_of)}
    firings = sorted(await decoded(rows, firing_state_of), key=lambda state: state.firing.slot)
    return [Claimed(firing=state, recall=states[state.firing.recall_id]) for state in firings]


def number_of(cursor: str | None) -> int:
    if cursor is None:
        return LAST
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidRequest("cursor: not a cursor of this list", field="cursor")
    return int(cursor)


def _slot_cursor(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return LAST, LAST
    slot, _, number = cursor.partition(":")
    return number_of(slot), number_of(number)
