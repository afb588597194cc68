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
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Generic, TypeVar

import aiosqlite

from ..clock import until_tick
from ..errors import NaviError, StoreBusy, StoreError, StoreReplaced
from ..log_setup import get_logger
from .connection import CommitWatch, connect, store_error
from .database_file import prepare
from .file_state import CommitRecord, DatabaseFiles, rescue_places
from .recalls import RecallReads, RecallRows
from .sessions import SessionReads, SessionRows

T = TypeVar("T")
_LOOK = "SELECT navi_look_at_files((SELECT name FROM database_state), (SELECT committed_at FROM database_state))"
log = get_logger("store")

MAX_UNITS = 500  # units per transaction, so that another process's turn comes
LOOK_EVERY = 1.0  # seconds between two looks whether the files are still there, beside the look at each commit
RESCUE_EVERY = 5.0  # seconds between two attempts to write what the open files hold to a new file
FRESH = 3.0  # seconds for which it is known from the last commit whether the database can be written
ANSWER_WITHIN = 1.0  # seconds that are waited for the commit that finds it out

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
        self._files = DatabaseFiles(path)
        self._files_changed: str | None = None  # what has become of them
        self._refusing: StoreReplaced | None = None  # the files are not those of the path any more: nothing is written
        self._rescued = False  # what the open files hold is in a new file
        self._trouble: NaviError | None = None  # why the last commit failed; None when it did not
        self._tried_at = time.monotonic()  # when a commit last ended, well or not
        self._watch: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()  # set when the watch has something to do before its time
        self._listeners: list[OnAppend] = []
        self._db = db
        self._units: asyncio.Queue[_Unit[Any] | None] = asyncio.Queue()
        self._writer = asyncio.create_task(self._write_units(), name="navi-store-writer")
        self._closing = False
        self._synchronous = ""
        self._commits: CommitWatch | None = None
        self._write_lock = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, *, single_process: bool = False) -> SqliteStore:
        """Open the file, create or migrate its tables.

        ``single_process``: no other process uses it, so that it can be on a network file system.
        Raises StoreTooNew, StoreDamaged (after setting the file aside), StoreForeign, StoreLocked, StoreBusy,
        StoreError.
        """
        known = await prepare(path, single_process=single_process)
        if known is not None:
            log.warning("store_notice", notice=known)
        try:
            store = cls(path, await connect(path))
            try:
                store.notice = known
                await store.open_readers(path)
                store._commits = await asyncio.to_thread(CommitWatch, path, store._db, store._write_lock)
                await store.changed_elsewhere()
                await store._remember_files(alone=single_process)
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
        self._wake.set()
        if self._watch is not None:
            await self._watch
        await self.close_readers()
        if self._commits is not None:
            self._commits.close()
        if self._refusing is None:
            with contextlib.suppress(sqlite3.Error):
                await self._db.execute("PRAGMA optimize")
                # Other servers that still use it set this again with their next commit.
                await self._db.execute("UPDATE database_state SET in_use = 0")
        await self._db.close()
        self._files.close()

    async def _remember_files(self, *, alone: bool) -> None:
        def look(name: str | None, committed_at: int | None) -> None:
            self._files_changed = self._files.changed() or self._files.replaced_within(name, committed_at)

        row = (await self.fetch_all("SELECT name, committed_at FROM database_state"))[0]
        inside = CommitRecord(row["name"], row["committed_at"])
        await self._db.create_function("navi_look_at_files", 2, look)
        await asyncio.to_thread(self._files.open, inside, alone=alone)
        self._watch = asyncio.create_task(self._watch_files(), name="navi-store-files")

    @property
    def known_failure(self) -> NaviError | None:
        """As :meth:`failure`, without an attempt to write: what the last commit found."""
        return self._refusing or self._trouble

    async def failure(self) -> NaviError | None:
        """Why nothing can be written at this moment; None when it can. Tries, unless it is known from a moment ago."""
        if self._refusing is None and time.monotonic() - self._tried_at > FRESH and not self._closing:
            with contextlib.suppress(NaviError, TimeoutError):
                # Shielded: a unit that is cancelled would be left out, and this one is to find out.
                await asyncio.wait_for(asyncio.shield(self.write(_nothing)), ANSWER_WITHIN)
        if (
            self._refusing is None
            and self._trouble is None
            and time.monotonic() - self._tried_at > FRESH + ANSWER_WITHIN
        ):
            return StoreBusy("The database has not taken a change for some seconds: another program may lock it.")
        return self.known_failure

    async def write(self, unit: Callable[[Transaction], Awaitable[T]], *, durable: bool = False) -> T:
        if self._closing:
            raise StoreError("The database is being closed.")
        if self._refusing is not None:
            raise self._refusing
        pending = _Unit(unit, durable=durable)
        self._units.put_nowait(pending)
        return await pending.done

    async def changed_elsewhere(self) -> bool:
        """Whether another process has committed since the last call (SQLite's ``data_version``)."""
        return self._commits is not None and await self._commits.changed_elsewhere()

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
            refusal = await self._begin()
            if refusal is not None and self._files.lost:
                await self._abandon(batch, refusal)
                return
            for unit in batch:
                # What is accepted must not be kept where it will not be found; what has happened is kept with the rest.
                if unit.done.cancelled() or (refusal is not None and unit.durable):
                    continue
                done.append((unit, await self._perform(unit, transaction, alone=len(batch) == 1)))
            await self._db.execute("COMMIT")
        except (sqlite3.Error, ValueError) as error:
            self._tried_at, self._trouble = time.monotonic(), store_error(error)
            what = await asyncio.to_thread(self._files.changed)  # SQLite fails in its own ways without its files
            if what is not None and self._refusing is None:
                self._refuse(what)
            await self._abandon(batch, self._refusing or self._trouble)
            return
        except _RefusedError as refused:
            await self._abandon(batch, refused.error)
            return
        except Exception as error:  # the writer must not end by a defect: every later change would wait for ever
            log.exception("store_write_broke", units=len(batch))
            await self._abandon(batch, error)
            return
        if refusal is not None:
            await self._abandon(batch, refusal)
            return
        self._files.committed()
        self._tried_at, self._trouble = time.monotonic(), None
        self._publish(transaction)
        for unit, result in done:
            if isinstance(result, _RefusedError):
                unit.refuse(result.error)
            else:
                unit.resolve(result)

    async def _begin(self) -> StoreReplaced | None:
        """Begin a transaction; the refusal, when it is not in the files of the path any more. Raises sqlite3.Error."""
        # One call: each is a round trip to the connection's thread, where a file system that hangs does no harm.
        await self._db.executescript(f"BEGIN IMMEDIATE; {_LOOK}; {self._files.mark()}")
        if self._files_changed is not None and self._refusing is None:
            self._refuse(self._files_changed)
        return self._refusing

    def _refuse(self, what: str) -> None:
        self._refusing = StoreReplaced(f"{what} while the server was running, so nothing is saved any more.")
        log.error("store_replaced", what=what)
        self._wake.set()

    async def _watch_files(self) -> None:
        """Notice files that are deleted while nothing is written, and keep what the open ones hold."""
        while self._refusing is None and not self._closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), until_tick(LOOK_EVERY))
            what = await asyncio.to_thread(self._look_closely)
            if what is not None and self._refusing is None:
                self._refuse(what)
        while self._refusing is not None and not self._rescued:
            self._wake.clear()
            self._rescued = await self._rescue(self._refusing)
            if self._closing:
                return  # with the last connection a deleted file is gone: that was the last chance
            if not self._rescued:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), RESCUE_EVERY)

    def _look_closely(self) -> str | None:
        return self._files.changed() or self._files.overwritten()

    async def _rescue(self, refusal: StoreReplaced) -> bool:
        """Write what the open files hold to a new file; whether that was done."""
        for place in rescue_places(self.path):
            try:
                async with self._write_lock:
                    damage = await self._copy_to(place)
            except (sqlite3.Error, OSError, ValueError) as error:
                log.error("store_not_kept", place=str(place), error=str(error))
                continue
            if damage is not None:
                self._refusing = StoreReplaced(
                    f"{refusal.message} What could still be read is kept in {place}, which {damage}. Stop all servers"
                    " that use the database, then restore a backup; or try sqlite3's .recover on that file."
                )
                log.error("store_kept_damaged", place=str(place), damage=damage)
                return True
            self._refusing = StoreReplaced(
                f"{refusal.message} What it held is kept in {place}. To go on with it: stop all servers that use the"
                f" database, move that file to {self.path}, start again."
            )
            log.error("store_kept", place=str(place))
            return True
        return False

    async def _copy_to(self, place: Path) -> str | None:
        """Write the copy; what is wrong with it, when the files were overwritten before it could be made."""
        await asyncio.to_thread(place.touch, 0o600, exist_ok=False)
        try:
            with closing(sqlite3.connect(place, check_same_thread=False)) as copy:
                await self._db.backup(copy)
            return await asyncio.to_thread(self._files.damage_of_copy, place)
        except BaseException:
            place.unlink(missing_ok=True)  # noqa: ASYNC240 - a half copy must not be taken for a whole one
            raise

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


async def _nothing(_: Transaction) -> None:
    """A unit that shows whether anything can be committed."""


class _RefusedError(Exception):
    """A unit raised; carries the error for its caller."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def _spoils_all(error: Exception) -> bool:
    """Whether it is the database that fails (full, locked), not the unit that asked something wrong."""
    wrong_statement = 1  # SQLITE_ERROR
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF != wrong_statement
