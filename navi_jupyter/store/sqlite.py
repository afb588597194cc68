"""The store on one SQLite file, shared by every server of a user.

One writer per process commits all units of work that have gathered while the last commit was in flight (group commit: a
lone unit waits for nothing, a storm costs few transactions). Each unit runs in a savepoint of its own. What a commit
appended to logs is handed to listeners after it is durable and before the units' callers go on.
Not responsible for what the units mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import aiosqlite

from ..errors import StoreError
from ..log_setup import get_logger
from .connection import connect, store_error
from .damage import notice
from .database_file import prepare
from .recalls import RecallReads, RecallRows
from .sessions import SessionReads, SessionRows

T = TypeVar("T")
log = get_logger("store")

MAX_UNITS = 500  # units per transaction, so that another process's turn comes

OnAppend = Callable[[str, list[tuple[int, str]]], None]
"""Called with what a commit stored in a session's log: (session, [(seq, frame), ...]). Must not block or raise."""


class Transaction(SessionRows, RecallRows):
    """What a unit of work gets: the writer's connection within an open transaction."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self.db = db
        self.appended = []


class _Unit(Generic[T]):
    """A unit of work and the caller that waits for it."""

    __slots__ = ("done", "durable", "work")

    def __init__(self, work: Callable[[Transaction], Awaitable[T]], *, durable: bool) -> None:
        self.work = work
        self.durable = durable
        self.done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def resolve(self, result: T) -> None:
        if not self.done.done():
            self.done.set_result(result)

    def refuse(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class SqliteStore(SessionReads, RecallReads):
    """Implements the store ports. Made by :meth:`open`, ended by :meth:`close`."""

    def __init__(self, path: Path, db: aiosqlite.Connection) -> None:
        super().__init__()
        self.path = path
        self.notice: str | None = None  # what the owner of the database should know although it opens
        self._listeners: list[OnAppend] = []
        self._db = db
        self._units: asyncio.Queue[_Unit[Any] | None] = asyncio.Queue()
        self._writer = asyncio.create_task(self._write_units(), name="navi-store-writer")
        self._closing = False
        self._synchronous = ""
        self._data_version = -1
        self._write_lock = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, *, single_process: bool = False) -> SqliteStore:
        """Open the file, create or migrate its tables.

        ``single_process``: no other process uses it, so that it can be on a network file system.
        Raises StoreTooNew, StoreDamaged (after setting the file aside), StoreForeign, StoreLocked, StoreBusy,
        StoreError.
        """
        await prepare(path, single_process=single_process)
        kept = await asyncio.to_thread(notice, path)
        if kept is not None:
            log.warning("store_notice", notice=kept)
        try:
            store = cls(path, await connect(path))
            try:
                store.notice = kept
                await store.open_readers(path)
                await store.changed_elsewhere()
            except BaseException:
                await store.close()
                raise
        except sqlite3.Error as error:
            raise store_error(error) from error
        return store

    async def close(self) -> None:
        """Commit what was given so far, then close. Later writes raise StoreError."""
        if self._closing:
            return
        self._closing = True
        self._units.put_nowait(None)
        await self._writer
        await self.close_readers()
        with contextlib.suppress(sqlite3.Error):
            await self._db.execute("PRAGMA optimize")
        await self._db.close()

    async def write(self, unit: Callable[[Transaction], Awaitable[T]], *, durable: bool = False) -> T:
        if self._closing:
            raise StoreError("The database is being closed.")
        pending = _Unit(unit, durable=durable)
        self._units.put_nowait(pending)
        return await pending.done

    async def changed_elsewhere(self) -> bool:
        """Whether another process has committed since the last call (SQLite's ``data_version``)."""
        async with self._write_lock:
            try:
                rows = list(await self._db.execute_fetchall("PRAGMA data_version"))
            except (sqlite3.Error, ValueError) as error:
                raise store_error(error) from error
        version = int(rows[0][0])
        changed = version != self._data_version
        self._data_version = version
        return changed

    async def _write_units(self) -> None:
        while (first := await self._units.get()) is not None:
            batch = [first]
            while len(batch) < MAX_UNITS and not self._units.empty():
                following = self._units.get_nowait()
                if following is None:
                    self._units.put_nowait(None)
                    break
                batch.append(following)
            async with self._write_lock:
                await self._commit(batch)

    async def _commit(self, batch: list[_Unit[Any]]) -> None:
        """One transaction for all of ``batch``. Never raises: each unit's caller learns what became of it."""
        transaction = Transaction(self._db)
        done: list[tuple[_Unit[Any], Any]] = []
        try:
            await self._set_synchronous("FULL" if any(unit.durable for unit in batch) else "NORMAL")
            await self._db.execute("BEGIN IMMEDIATE")
            for unit in batch:
                if unit.done.cancelled():
                    continue
                done.append((unit, await self._perform(unit, transaction, alone=len(batch) == 1)))
            await self._db.execute("COMMIT")
        except (sqlite3.Error, ValueError) as error:
            await self._abandon(batch, store_error(error))
            return
        except _RefusedError as refused:
            await self._abandon(batch, refused.error)
            return
        self._publish(transaction)
        for unit, result in done:
            if isinstance(result, _RefusedError):
                unit.refuse(result.error)
            else:
                unit.resolve(result)

    async def _perform(self, unit: _Unit[Any], transaction: Transaction, *, alone: bool) -> Any:
        """The unit's result, or a _RefusedError after undoing it. A lone unit's failure undoes all: no savepoint."""
        mark = len(transaction.appended)
        if not alone:
            await self._db.execute("SAVEPOINT unit")
        try:
            result = await unit.work(transaction)
        except Exception as error:
            if _spoils_all(error):
                raise
            refused = _RefusedError(store_error(error) if isinstance(error, sqlite3.Error) else error)
            if alone:
                raise refused from error
            await self._db.execute("ROLLBACK TO unit")
            await self._db.execute("RELEASE unit")
            del transaction.appended[mark:]
            return refused
        if not alone:
            await self._db.execute("RELEASE unit")
        return result

    async def _abandon(self, batch: list[_Unit[Any]], error: BaseException) -> None:
        with contextlib.suppress(sqlite3.Error, ValueError):
            if self._db.in_transaction:
                await self._db.execute("ROLLBACK")
        if isinstance(error, StoreError):  # what else a unit raises is for its caller to report
            log.error("store_write_failed", error=str(error), units=len(batch))
        for unit in batch:
            unit.refuse(error)

    async def _set_synchronous(self, wanted: str) -> None:
        if wanted != self._synchronous:
            await self._db.execute(f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted

    def subscribe(self, listener: OnAppend) -> None:
        self._listeners.append(listener)

    def _publish(self, transaction: Transaction) -> None:
        by_session: dict[str, list[tuple[int, str]]] = {}
        for session_id, seq, frame in transaction.appended:
            by_session.setdefault(session_id, []).append((seq, frame))
        for session_id, frames in by_session.items():
            for listener in self._listeners:
                try:
                    listener(session_id, frames)
                except Exception:
                    # The writer serves everybody: one listener's defect must not end it.
                    log.exception("listener_failed", session_id=session_id)


class _RefusedError(Exception):
    """A unit raised; carries the error for its caller."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def _spoils_all(error: Exception) -> bool:
    """Whether it is the database that fails (full, locked), not the unit that asked something wrong."""
    wrong_statement = 1  # SQLITE_ERROR
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF != wrong_statement
