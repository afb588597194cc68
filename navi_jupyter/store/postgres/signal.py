"""One connection beside those that read and write: it hears of other servers' commits and reports this one's, compares
the clocks, and its lock shows that this server is connected.

A notification is sent on its own and never within a transaction that writes: PostgreSQL would let such transactions
commit one after the other. Several commits within some milliseconds are reported once. What is reported is only that
there is something new, so that nothing is lost with a notification: after a connection was lost, everything counts as
new. Behind a pooler that shares connections (PgBouncer) nothing is heard, and a lock would be another's: ``poll``.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from ...clock import boot_time, database_offset, now, set_database_offset
from ...errors import StoreError
from ...log_setup import get_logger
from .connection import ERRORS, RETRY_EVERY, connect, schema_of, shuts_down
from .migrations import number_of

log = get_logger("store")

COALESCED = 0.005  # seconds in which commits are reported once
LEAST = 0.01  # seconds between two reports that others have committed: each makes this server read
POLL_EVERY = 0.1  # seconds between two looks without notifications
PROBE_EVERY = 1.0  # seconds between two proofs that the connection is there
WITHIN = 1.5  # seconds for each answer
RECONNECT_WITHIN = 0.8  # seconds without the connection for which others do not act on it: two of their looks
PROVED_WITHIN = 3.5
"""Seconds since the last statement that was answered for which this server counts as connected: PostgreSQL gives up a
connection that is cut off after four (``connection``), and others then see its lock free."""
SETTLED = 15.0
"""Seconds for which the own connection must have lasted before free locks of others mean anything: when PostgreSQL is
restarted, or another server takes its place, everybody loses theirs, and makes them again."""
WARNED = timedelta(seconds=2)  # difference of the clocks
REFUSED = timedelta(seconds=30)
_CONNECTED = "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::bigint::oid AND granted"
_LOCK = "SELECT pg_try_advisory_lock($1, $2)"
_NOTIFY = "SELECT pg_notify($1, $2)"


class Signal:
    """See above. Belongs to the event loop."""

    def __init__(self, url: str, *, poll: bool = False) -> None:
        self._url = url
        self._poll = poll
        schema = schema_of(url)
        self._channel = f"navi_{schema}"
        self._locks = number_of(f"servers of {schema}")  # then one of the name
        self._name = secrets.token_hex(8)  # of this process among those that report
        self._server: str | None = None
        self._is_locked = False  # whether this connection has the server's lock
        self._connection: Any = None
        self._use = asyncio.Lock()  # of the connection, which performs one statement at a time
        self._lost_at: float | None = None  # by ``boot_time``: since when there is no connection, or not the lock
        self._proved_at = 0.0  # when the last statement was begun that was answered
        self._made_at = 0.0  # when the connection was made
        self._is_down = False  # whether PostgreSQL itself has reported that it ends, since the connection was lost
        self._changed = asyncio.Event()
        self._found_at = 0.0  # by ``boot_time``: when that was last reported to be so
        self._committed = asyncio.Event()
        self._lost = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect. Raises what the driver raises; StoreError where the clocks differ by more than can be right."""
        await self._connect()
        if abs(offset := database_offset()) > REFUSED:
            raise StoreError(
                f"The clock of this machine differs from the database server's by {offset.total_seconds():.0f} s."
                " Set both by a time server (NTP)."
            )
        self._tasks = [
            asyncio.create_task(self._keep_connected(), name="navi-store-signal"),
            asyncio.create_task(self._report(), name="navi-store-report"),
        ]

    async def close(self) -> None:
        """End. The lock is given back with the connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(*ERRORS):
                await connection.close(timeout=WITHIN)

    def committed(self) -> None:
        """This process has committed: others are to look."""
        self._committed.set()

    async def changed(self, *, within: float) -> bool:
        """Whether others have committed since the last call; waits for that so long at most."""
        if self._poll:
            await asyncio.sleep(min(within, POLL_EVERY))
            return True
        if within > 0 and (early := self._found_at + LEAST - boot_time()) > 0:
            await asyncio.sleep(early)
        if not self._changed.is_set() and within > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):  # no task of its own, as many times a second
                    await self._changed.wait()
        found = self._changed.is_set()
        if found:
            self._changed.clear()
            self._found_at = boot_time()
        return found

    async def announce(self, server: str) -> None:
        """This process is that server: others see it as connected as long as this connection lasts."""
        self._server = server
        with contextlib.suppress(*ERRORS):  # then it is done with the next connection
            async with self._using() as connection:
                await self._lock(connection)

    @property
    def is_cut_off(self) -> bool:
        """Whether others may take this server for gone, as PostgreSQL may have ended its connection.

        Not while PostgreSQL itself is down: then no server is connected, nor acts on locks for a while afterwards.
        """
        if self._poll or self._server is None or self._is_down:
            return False
        at = boot_time()
        is_lost = self._lost_at is not None and at - self._lost_at > RECONNECT_WITHIN
        return is_lost or at - self._proved_at > PROVED_WITHIN

    async def connected(self) -> frozenset[int] | None:
        """The numbers (``number_of``) of the servers that are connected; None when that cannot be known now."""
        if self._poll:
            return None
        try:
            async with self._using() as connection:
                rows = await connection.fetch(_CONNECTED, self._locks, timeout=WITHIN)
        except ERRORS:
            return None
        is_settled = self._lost_at is None and boot_time() - self._made_at > SETTLED
        return frozenset(row["objid"] for row in rows) if is_settled else None

    @asynccontextmanager
    async def _using(self) -> AsyncIterator[Any]:
        """The connection, for one statement, whose answer proves that it is there. Without an answer it is lost."""
        async with self._use:
            began, connection = boot_time(), self._connection
            if connection is None:
                raise ConnectionResetError
            try:
                yield connection
            except ERRORS:
                self._lost.set()
                raise
            self._proved_at = began

    async def _connect(self) -> None:
        connection = await connect(self._url)
        try:
            if not self._poll:
                await connection.add_listener(self._channel, self._hear)
            # Only of the connection that is in use: the end of an earlier one is noticed late.
            connection.add_termination_listener(self._note_end)
            connection.add_log_listener(self._note_report)
            self._connection, self._is_locked, self._is_down = connection, False, False
            self._made_at = boot_time()
            await self._lock(connection)
            await self._probe(connection)
        except BaseException:
            connection.terminate()
            raise
        self._proved_at = self._made_at
        if self._is_locked or self._server is None:
            self._lost_at = None
        self._changed.set()

    async def _lock(self, connection: Any) -> None:
        """Where the former connection still has it, which PostgreSQL has not noticed to be gone, it is tried again."""
        if self._server is not None and not self._poll and not self._is_locked:
            self._is_locked = await connection.fetchval(_LOCK, self._locks, number_of(self._server), timeout=WITHIN)

    def _note_end(self, connection: object) -> None:
        if connection is self._connection:
            self._lost.set()

    def _note_report(self, connection: object, report: Any) -> None:
        if connection is self._connection and shuts_down(report):
            self._is_down = True

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload != self._name:
            self._changed.set()

    async def _keep_connected(self) -> None:
        while True:
            waits_for_lock = self._server is not None and not self._is_locked and not self._poll
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_EVERY if waits_for_lock else PROBE_EVERY):
                    await self._lost.wait()
            with contextlib.suppress(*ERRORS):  # then it is lost
                if not self._lost.is_set():
                    async with self._using() as connection:
                        await self._lock(connection)
                        await self._probe(connection)
                    if self._is_locked:
                        self._lost_at = None
            if self._lost.is_set():
                await self._reconnect()

    async def _reconnect(self) -> None:
        if self._lost_at is None:
            self._lost_at = boot_time()
            log.warning("database_connection_lost", connection="signal")
        async with self._use:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.terminate()
            self._lost.clear()
            try:
                await self._connect()
            except ERRORS as error:
                self._is_down = self._is_down or shuts_down(error)
                self._lost.set()
        if self._lost.is_set():
            await asyncio.sleep(RETRY_EVERY)

    async def _probe(self, connection: Any) -> None:
        """Ask for the database's time: the clock of this process goes by it."""
        began, before = boot_time(), now()
        at = await connection.fetchval("SELECT clock_timestamp()", timeout=WITHIN)
        took = boot_time() - began
        behind = at - (before + timedelta(seconds=took / 2))
        # What the way there and back hides is not a difference.
        if abs(behind) > timedelta(seconds=max(took, 0.02)):
            set_database_offset(database_offset() + behind)
            log_difference = log.warning if abs(database_offset()) > WARNED else log.info
            log_difference("database_clock_differs", seconds=round(database_offset().total_seconds(), 3))

    async def _report(self) -> None:
        while True:
            await self._committed.wait()
            await asyncio.sleep(COALESCED)
            self._committed.clear()
            try:
                async with self._using() as connection:
                    await connection.execute(_NOTIFY, self._channel, self._name, timeout=WITHIN)
            except ERRORS:
                self._committed.set()  # reported with the next connection
                await asyncio.sleep(RETRY_EVERY)
