"""SQL for users' servers that keep their own Navi: when each has its next recall, and which replica starts it for that.

A replica acts on a server under a claim, a lease on its row; where it dies, another one takes over. Times are the
database's (:func:`navi_jupyter.clock.now`). Not responsible for the start itself (``user_servers``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ...errors import LimitReached
from ...model.user_servers import NEVER, ServerKey
from ..database import Database, Transaction
from ..rows import from_micros, optional_instant, optional_micros, to_micros
from ..statements import Row, json_list
from .user_servers import LEASE

REPORT_EVERY = timedelta(seconds=1)  # between two reports of one server
MOST_SERVERS = 100  # of one owner, that may have reported
LONGEST_BEFORE = timedelta(minutes=5)  # before a recall, that its server is started at most
FORGOTTEN = timedelta(days=30)  # after which a server that could not be started for a recall is given up
UNUSED = timedelta(days=1)  # after the last report of a server without a recall to come, until its row is removed

_SAME = "user_server_wakes.next_at IS excluded.next_at"
_REPORT = (
    "INSERT INTO user_server_wakes (owner, server, next_at, busy_until, in_use, reported_at)"
    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (owner, server) DO UPDATE SET"
    # What has failed is tried again at once where there is something new to be tried.
    f" not_before = CASE WHEN {_SAME} THEN user_server_wakes.not_before ELSE 0 END,"
    f" attempts = CASE WHEN {_SAME} THEN user_server_wakes.attempts ELSE 0 END,"
    " next_at = excluded.next_at, busy_until = excluded.busy_until, in_use = excluded.in_use,"
    " reported_at = excluded.reported_at WHERE user_server_wakes.reported_at <= excluded.reported_at - "
    f"{int(REPORT_EVERY / timedelta(microseconds=1))}"
)
_OTHERS = "SELECT count(*) AS n FROM user_server_wakes WHERE owner = ? AND server <> ?"
_DUE = (
    "SELECT * FROM user_server_wakes WHERE next_at <= took + :before + :now AND next_at <= :latest"
    " AND not_before <= :now AND lease_until < :now{served}"
    " ORDER BY next_at, owner, server LIMIT :free"
)
_CLAIM = "UPDATE user_server_wakes SET replica = ?, lease_until = ? WHERE owner = ? AND server = ?"
_RENEW = "UPDATE user_server_wakes SET lease_until = ? WHERE owner = ? AND server = ? AND replica = ?"
_SETTLE = (
    "UPDATE user_server_wakes SET replica = '', lease_until = 0, not_before = ?, attempts = ?"
    " WHERE owner = ? AND server = ? AND replica = ?"
)
_TOOK = "UPDATE user_server_wakes SET took = ? WHERE owner = ? AND server = ?"
_OF_OWNERS = "SELECT * FROM user_server_wakes WHERE owner IN (SELECT value FROM json_each(?))"
_FORGET = (
    "DELETE FROM user_server_wakes WHERE lease_until < :now"
    " AND ((next_at IS NULL AND reported_at < :unused) OR next_at < :forgotten)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class WakeReport:
    """What a server reports of itself."""

    key: ServerKey
    next_at: datetime | None  # when its scheduler has something to do; None: never
    busy_for: timedelta = timedelta(0)  # for how long it is at work at least, unless it reports again
    in_use: bool = False  # whether its user has come


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerWake:
    """One server, as the database has it."""

    key: ServerKey
    next_at: datetime | None
    busy_until: datetime
    in_use: bool
    reported_at: datetime
    took: timedelta  # what its last start took, until it reported
    not_before: datetime = NEVER  # it is not looked at before, whatever is due
    attempts: int = 0  # in a row, that did not bring it up

    def is_due(self, now: datetime, before: timedelta) -> bool:
        """Whether it should run for its next recall. ``before``: how long before, beside what its start takes."""
        return self.next_at is not None and self.next_at - min(LONGEST_BEFORE, before + self.took) <= now

    def is_needed(self, now: datetime, before: timedelta) -> bool:
        """Whether it is at work, or is about to be."""
        return self.busy_until > now or self.is_due(now, before)


class ServerWakeStore:
    """The table as one replica uses it."""

    def __init__(self, store: Database, replica: str) -> None:
        """``replica``: a name that no other process ever has."""
        self._store = store
        self._replica = replica

    async def report(self, report: WakeReport, *, now: datetime) -> None:
        """Store what a server has reported. Raises LimitReached for too many reports or servers, and StoreError."""
        values = (
            *report.key,
            optional_micros(report.next_at),
            to_micros(now + report.busy_for) if report.busy_for else 0,
            int(report.in_use),
            to_micros(now),
        )

        async def unit(tx: Transaction) -> str:
            others = await tx.one(_OTHERS, report.key)
            if others is not None and others["n"] >= MOST_SERVERS:
                return f"You have {MOST_SERVERS} servers that have reported, which is the most."
            return "" if await tx.change(_REPORT, values) else "A server reports once in a second at most."

        if refused := await self._store.write(unit, durable=True):
            raise LimitReached(refused)

    async def claim_due(self, *, before: timedelta, free: int, now: datetime) -> Sequence[ServerWake]:
        """Claim up to ``free`` servers that should run for their next recall, the earliest first. Raises StoreError."""
        found = {
            "now": to_micros(now),
            "before": int(before / timedelta(microseconds=1)),
            "latest": to_micros(now + LONGEST_BEFORE),
            "free": free,
        }
        sql = _DUE.format(served=self._store.served.by("owner"))
        if not await self._store.fetch_all(sql, found):
            return ()

        async def unit(tx: Transaction) -> Sequence[ServerWake]:
            due = [_wake_of(row) for row in await tx.all(sql, found)]
            for wake in due:
                await tx.change(_CLAIM, (self._replica, to_micros(now + LEASE), *wake.key))
            return due

        return await self._store.write(unit, durable=True)

    async def renew(self, keys: Collection[ServerKey], *, now: datetime) -> Sequence[ServerKey]:
        """Renew claims; those that another replica has taken over. Raises StoreError."""
        until = to_micros(now + LEASE)

        async def unit(tx: Transaction) -> Sequence[ServerKey]:
            return [key for key in keys if not await tx.change(_RENEW, (until, *key, self._replica))]

        return await self._store.write(unit, durable=True)

    async def settle(self, key: ServerKey, *, not_before: datetime, attempts: int = 0) -> None:
        """Give a claim back: it is not looked at before that instant, unless it reports something new."""

        async def unit(tx: Transaction) -> None:
            await tx.change(_SETTLE, (to_micros(not_before), attempts, *key, self._replica))

        await self._store.write(unit, durable=True)

    async def note_start(self, key: ServerKey, took: timedelta) -> None:
        """Store how long a start took. Raises StoreError."""

        async def unit(tx: Transaction) -> None:
            await tx.change(_TOOK, (int(took / timedelta(microseconds=1)), *key))

        await self._store.write(unit)

    async def of(self, keys: Collection[ServerKey]) -> Mapping[ServerKey, ServerWake]:
        """These servers, as far as they have reported. Raises StoreError."""
        rows = await self._store.fetch_all(_OF_OWNERS, (json_list(sorted({key.owner for key in keys})),))
        return {wake.key: wake for wake in map(_wake_of, rows) if wake.key in keys}

    async def tidy(self, *, now: datetime) -> None:
        """Remove what is of no use any more. Raises StoreError."""
        values = {"now": now, "unused": now - UNUSED, "forgotten": now - FORGOTTEN}

        async def unit(tx: Transaction) -> None:
            await tx.db.execute(_FORGET, {name: to_micros(at) for name, at in values.items()})

        await self._store.write(unit)


def _wake_of(row: Row) -> ServerWake:
    return ServerWake(
        key=ServerKey(row["owner"], row["server"]),
        next_at=optional_instant(row["next_at"]),
        busy_until=from_micros(row["busy_until"]),
        in_use=bool(row["in_use"]),
        reported_at=from_micros(row["reported_at"]),
        took=timedelta(microseconds=row["took"]),
        not_before=from_micros(row["not_before"]),
        attempts=row["attempts"],
    )
