"""A connection that performs transactions, each of several units of work, once: whatever becomes of connections.

Transactions that write take turns, by an advisory lock that PostgreSQL gives back at their end. A unit that names the
one session that it reads and changes shares the turn with those of other sessions (``shared``): it has the session's
lock as well. Units are performed without savepoints; if one fails, all are performed once more, each in a savepoint.

Each transaction leaves its name in its writer's row: so it is known whether one counts whose COMMIT was not answered.
Only if not, it is performed again. PostgreSQL's own numbers of transactions do not tell: after a crash they are given
to others.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ...clock import now
from ...errors import StoreError
from ...log_setup import get_logger
from ..database import Transaction, Unit
from ..rows import to_micros
from ..served_owners import ServedOwners
from .connection import (
    ERRORS,
    PATIENCE,
    RETRY_EVERY,
    PostgresConnection,
    connect,
    is_lost,
    may_repeat,
    schema_of,
    spoils_all,
    unit_error,
)
from .migrations import WRITING, locks_of

log = get_logger("store")

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"  # each statement sees what was committed before its turn
_BEGIN_WRITER = "INSERT INTO writers (name, last, at) VALUES ($1, '', $2)"
_END_WRITER = "DELETE FROM writers WHERE name = $1 OR at < $2"
_ALONE = "UPDATE writers SET last = $2, at = $3 FROM pg_advisory_xact_lock($4, $5) WHERE name = $1"
# The locks of sessions in one order for all, so that no two wait for each other.
_SHARED = (
    "UPDATE writers SET last = $2, at = $3 FROM pg_advisory_xact_lock_shared($4, $5),"
    " (SELECT count(pg_advisory_xact_lock(key)) FROM (SELECT unnest($6::bigint[]) AS key ORDER BY 1) AS wanted)"
    " AS of_sessions WHERE name = $1"
)
_LAST = "SELECT last FROM writers WHERE name = $1 FOR UPDATE"
"""Waits for the transaction that has the row, if its backend has not noticed yet that the connection is lost."""
END_WITHIN = 5.0  # seconds for the answer to a COMMIT
UNKNOWN_FOR = 60.0  # seconds for which it is asked what became of a transaction
_FORGOTTEN = timedelta(days=1)  # after which the row of a process that died is removed


class UnitFailed(Exception):
    """A unit raised what is not the database's fault. Of one that is alone, there was nothing to commit."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True, slots=True)
class _Sent:
    """A transaction, from its COMMIT on."""

    name: str
    transaction: Transaction


class Writer:
    """See above. Performs one transaction at a time."""

    def __init__(self, url: str, served: ServedOwners, *, shared: bool) -> None:
        self._url = url
        self._served = served
        self._name = secrets.token_hex(12)
        self._schema = schema_of(url)
        self._locks = locks_of(self._schema)
        self._shared = shared
        self._connection: Any = None

    async def open(self) -> None:
        """Connect. Raises what the driver raises."""
        self._connection = await connect(self._url)
        await self._connection.execute(_BEGIN_WRITER, self._name, to_micros(now()))

    async def close(self) -> None:
        """While nothing is performed."""
        if self._connection is not None:
            with contextlib.suppress(*ERRORS):
                await self._connection.execute(_END_WRITER, self._name, to_micros(now() - _FORGOTTEN))
                await self._connection.close()

    async def perform(self, units: Sequence[Unit[Any]]) -> Transaction:
        """Once, whatever becomes of connections meanwhile. Raises UnitFailed for a unit that is alone.

        One whose COMMIT was sent is not given up before it is known whether it counts, but for a server that stays
        away.
        """
        began = time.monotonic()
        savepoints = False
        sent: _Sent | None = None
        while True:
            try:
                if self._connection is None:
                    self._connection = await connect(self._url)
                if sent is None or not await self._counts(sent):
                    sent, attempt = (
                        None,
                        _Sent(secrets.token_hex(12), Transaction(PostgresConnection(self._connection), self._served)),
                    )
                    await self._begin(attempt.name, units)
                    await _perform_all(units, attempt.transaction, savepoints=savepoints)
                    sent = attempt
                    await self._commit()
            except UnitFailed:
                sent = None
                await self._roll_back()
                if savepoints or len(units) == 1:
                    raise
                savepoints = True
            except ERRORS as error:
                is_patient = time.monotonic() - began < (PATIENCE if sent is None else UNKNOWN_FOR)
                if is_lost(error):
                    await self._lose(error)
                else:
                    sent = None  # a COMMIT that is refused does not count
                    await self._roll_back()
                if not is_patient or not (is_lost(error) or may_repeat(error)):
                    raise
            else:
                return sent.transaction

    async def _begin(self, name: str, units: Sequence[Unit[Any]]) -> None:
        while True:
            await self._connection.execute(_BEGIN)
            at = to_micros(now())
            values = [self._name, name, at, self._locks, WRITING]
            if self._shared:
                values.append([_key_of(self._schema, unit.on or "") for unit in units])
            if await self._connection.execute(_SHARED if self._shared else _ALONE, *values) == "UPDATE 1":
                return
            # Its row was removed: this process had stood still for so long.
            await self._connection.execute("ROLLBACK")
            await self._connection.execute(_BEGIN_WRITER, self._name, at)

    async def _commit(self) -> None:
        answer = await self._connection.execute("COMMIT", timeout=END_WITHIN)
        if answer != "COMMIT":  # a unit has caught the error of a statement, which has undone all of the transaction
            raise UnitFailed(StoreError(f"A statement has failed within the unit ({answer})."))

    async def _counts(self, sent: _Sent) -> bool:
        """What became of a transaction whose COMMIT was not answered."""
        try:
            return bool(await self._connection.fetchval(_LAST, self._name) == sent.name)
        except ERRORS as error:
            if is_lost(error):
                raise
            raise ConnectionResetError(str(error)) from error  # asked again, whatever it was

    async def _lose(self, error: BaseException) -> None:
        log.warning("database_connection_lost", error=str(error) or type(error).__name__)
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        await asyncio.sleep(RETRY_EVERY)

    async def _roll_back(self) -> None:
        with contextlib.suppress(*ERRORS):
            if self._connection is not None and self._connection.is_in_transaction():
                await self._connection.execute("ROLLBACK")


async def _perform_all(units: Sequence[Unit[Any]], transaction: Transaction, *, savepoints: bool) -> None:
    """Each unit's result. Raises UnitFailed for one that fails, unless it has a savepoint: then its error."""
    for unit in units:
        mark = len(transaction.appended)
        unit.error = None
        if savepoints:
            await transaction.db.execute("SAVEPOINT unit")
        try:
            unit.result = await unit.work(transaction)
            if savepoints:
                await transaction.db.execute("RELEASE unit")  # fails where the unit has caught a statement's error
        except (Exception, asyncio.CancelledError) as error:  # no one cancels it: a unit may end as what it waits for
            if spoils_all(error):
                raise
            found = unit_error(error)
            if not savepoints:
                raise UnitFailed(found) from error
            unit.error = found
            await transaction.db.execute("ROLLBACK TO unit")
            del transaction.appended[mark:]


def _key_of(schema: str, session_id: str) -> int:
    """Of a session's advisory lock: they are the whole database's."""
    return int.from_bytes(hashlib.sha256(f"{schema} {session_id}".encode()).digest()[:8], "big", signed=True)
