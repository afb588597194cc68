"""The store on one SQLite file, shared by every server of a user.

Each unit of a commit runs in a savepoint of its own, and all of them in one hop: in the connection's thread, from BEGIN
to COMMIT. Not responsible for gathering units, nor for what they mean (``database``).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from ...clock import until_tick
from ...errors import NaviError, StoreBusy, StoreReplaced
from ...log_setup import get_logger
from ...ports.jupyter import NotebookLink
from ..blobs import FileBlobs
from ..database import Database, Transaction, Unit, no_work
from ..served_owners import EVERY_OWNER, ServedOwners
from ..sessions import link_of, links_now
from .connection import CommitWatch, SqliteReaders, connect, in_one_hop, inside, spoils_all, store_error, without_loop
from .database_file import prepare
from .file_state import CommitRecord, DatabaseFiles, rescue_places
from .full_text import SqliteFullText
from .location import attachments_folder

T = TypeVar("T")
_LOOK = "SELECT navi_look_at_files((SELECT name FROM database_state), (SELECT committed_at FROM database_state))"
_MARK = "UPDATE database_state SET committed_at = max(committed_at + 1, ?), in_use = 1"
log = get_logger("store")

LOOK_EVERY = 1.0  # seconds between two looks whether the files are still there, beside the look at each commit
RESCUE_EVERY = 5.0  # seconds between two attempts to write what the open files hold to a new file
FRESH = 3.0  # seconds for which it is known from the last commit whether the database can be written
ANSWER_WITHIN = 1.0  # seconds that are waited for the commit that finds it out


@dataclass(slots=True)
class _Group:
    """The units of one transaction, and what became of it."""

    units: Sequence[Unit[Any]]
    transaction: Transaction
    error: Exception | None = None  # why nothing of it is stored, unless that is its lone unit's
    refused: bool = False  # the files are not those of the path any more
    files_changed: str | None = None  # what has become of them, if the error made look

    @property
    def lone_error(self) -> BaseException | None:
        """The error of its unit, if there is one unit alone: nothing is stored then."""
        return self.units[0].error if len(self.units) == 1 else None


class SqliteStore(SqliteReaders, Database):
    """Made by :meth:`open`."""

    def __init__(self, path: Path, db: aiosqlite.Connection, served: ServedOwners) -> None:
        super().__init__()
        self.served = served
        self.path = path
        self.place = str(path)
        self.full_text = SqliteFullText()
        self.blobs = FileBlobs(attachments_folder(path))
        self._files = DatabaseFiles(path)
        self._files_changed: str | None = None  # what has become of them
        self._refusing: StoreReplaced | None = None  # the files are not those of the path any more: nothing is written
        self._rescued = False  # what the open files hold is in a new file
        self._trouble: NaviError | None = None  # why the last commit failed; None when it did not
        self._tried_at = time.monotonic()  # when a commit last ended, well or not
        self._watch: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()  # set when the watch has something to do before its time
        self._db = db
        self._inside = inside(db)
        self._synchronous = ""
        self._commits: CommitWatch | None = None
        self._write_lock = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, *, single_process: bool = False, served: ServedOwners = EVERY_OWNER) -> SqliteStore:
        """Open the file, create or migrate its tables.

        ``single_process``: no other process uses it, so that it can be on a network file system.
        Raises StoreTooNew, StoreDamaged (after setting the file aside), StoreForeign, StoreLocked, StoreBusy,
        StoreError.
        """
        known = await prepare(path, single_process=single_process)
        if known is not None:
            log.warning("store_notice", notice=known)
        try:
            store = cls(path, await connect(path), served)
            try:
                store.notice = known
                await store.open_readers(path)
                if not single_process:  # else no other one commits, and on a network file system a look is a request
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
        if self._closing:
            return
        await self._end_writer()
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
        self.identity = str(row["name"])
        inside = CommitRecord(row["name"], row["committed_at"])
        await self._db.create_function("navi_look_at_files", 2, look)
        await asyncio.to_thread(self._files.open, inside, alone=alone)
        self._watch = asyncio.create_task(self._watch_files(), name="navi-store-files")

    @property
    def known_failure(self) -> NaviError | None:
        return self._refusing or self._trouble

    async def failure(self) -> NaviError | None:
        if self._refusing is None and time.monotonic() - self._tried_at > FRESH and not self._closing:
            with contextlib.suppress(NaviError, TimeoutError):
                # Shielded: a unit that is cancelled would be left out, and this one is to find out.
                await asyncio.wait_for(asyncio.shield(self.write(no_work)), ANSWER_WITHIN)
        if (
            self._refusing is None
            and self._trouble is None
            and time.monotonic() - self._tried_at > FRESH + ANSWER_WITHIN
        ):
            return StoreBusy("The database has not taken a change for some seconds: another program may lock it.")
        return self.known_failure

    async def write(
        self, unit: Callable[[Transaction], Awaitable[T]], *, durable: bool = False, on: str | None = None
    ) -> T:
        if self._refusing is not None and not self._closing:
            raise self._refusing
        return await super().write(unit, durable=durable, on=on)

    async def changed_elsewhere(self, *, within: float = 0.0) -> bool:
        if within:
            await asyncio.sleep(within)
        return self._commits is not None and await self._commits.changed_elsewhere()

    async def _commit(self, batch: Sequence[Unit[Any]]) -> None:
        async with self._write_lock:
            await self._commit_alone(batch)

    async def _commit_alone(self, batch: Sequence[Unit[Any]]) -> None:
        group, began = _Group(batch, Transaction(self._inside, self.served)), time.perf_counter()
        try:
            await in_one_hop(self._db, lambda: self._perform_all(group))
        except Exception as error:  # noqa: BLE001 - the connection is closed, or cannot be used
            group.error = error
        # None of a unit that failed alone: there was nothing to commit.
        seconds = time.perf_counter() - began if group.lone_error is None else None
        what = self._files_changed if group.refused else group.files_changed
        if what is not None and self._refusing is None:
            self._refuse(what)
        if isinstance(group.error, sqlite3.Error | ValueError):
            self._tried_at, self._trouble = time.monotonic(), store_error(group.error)
            self._abandon(batch, self._refusing or self._trouble)
        elif group.error is not None:  # the writer must not end by a defect: every later change would wait for ever
            log.error("store_write_broke", units=len(batch), exc_info=group.error)
            self._abandon(batch, group.error)
        elif group.lone_error is not None:
            self._abandon(batch, group.lone_error)
        elif group.refused and self._refusing is not None:
            self._abandon(batch, self._refusing)
        else:
            self._tried_at, self._trouble = time.monotonic(), None
            self._publish(group.units, group.transaction)
        if seconds is not None:
            self._observe(seconds, len(batch))

    async def _perform_all(self, group: _Group) -> None:
        """From BEGIN to COMMIT, or to ROLLBACK: runs in the connection's thread, so that it touches nothing of the
        loop's. A file system that hangs does no harm there. Raises nothing."""
        try:
            await self._set_synchronous("FULL" if any(unit.durable for unit in group.units) else "NORMAL")
            await self._begin()
            group.refused = self._files_changed is not None or self._refusing is not None
            if group.refused and self._files.lost:
                await self._roll_back()
                return
            for unit in group.units:
                # What is accepted must not be kept where it will not be found; what has happened is kept with the rest.
                if not (unit.done.cancelled() or (group.refused and unit.durable)):
                    await self._perform(unit, group.transaction, savepoint=len(group.units) > 1)
            if group.lone_error is not None:
                await self._roll_back()
                return
            await self._inside.execute("COMMIT")
            if not group.refused:
                self._files.committed()
        except Exception as error:  # noqa: BLE001 - reported by ``_commit``
            group.error = error
            if isinstance(error, sqlite3.Error | ValueError):
                group.files_changed = self._files.changed()  # SQLite fails in its own ways without its files
            await self._roll_back()

    async def _begin(self) -> None:
        await self._inside.execute("BEGIN IMMEDIATE")
        await self._inside.execute(_LOOK)
        await self._inside.execute(_MARK, (self._files.next_commit(),))

    async def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error, ValueError):
            if self._inside.in_transaction:
                await self._inside.execute("ROLLBACK")

    def _refuse(self, what: str) -> None:
        self._refusing = StoreReplaced(f"{what} while the server was running, so nothing is saved any more.")
        log.error("store_replaced", what=what)
        self._wake.set()

    async def _watch_files(self) -> None:
        """Notice files that are deleted while nothing is written, and keep what the open ones hold."""
        while self._refusing is None and not self._closing:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), until_tick(LOOK_EVERY))
            what = await asyncio.to_thread(self._files.look_closely)
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

    async def _rescue(self, refusal: StoreReplaced) -> bool:
        """Write what the open files hold to a new file; whether that was done."""
        for place in rescue_places(self.path):
            try:
                async with self._write_lock:
                    damage = await self._files.copy_to(place, self._db.backup)
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

    async def _perform(self, unit: Unit[Any], transaction: Transaction, *, savepoint: bool) -> None:
        """The unit's result, or its error after undoing it, unless there is no ``savepoint``."""
        mark = len(transaction.appended)
        if savepoint:
            await self._inside.execute("SAVEPOINT unit")
        try:
            unit.result = await unit.work(transaction)
        except (Exception, asyncio.CancelledError) as error:  # no one cancels it: a unit may end as what it waits for
            if spoils_all(error):
                raise
            unit.error = store_error(error) if isinstance(error, sqlite3.Error) else without_loop(error)
            if savepoint:
                await self._inside.execute("ROLLBACK TO unit")
            del transaction.appended[mark:]
        if savepoint:
            await self._inside.execute("RELEASE unit")

    async def _set_synchronous(self, wanted: str) -> None:
        if wanted != self._synchronous:
            await self._inside.execute(f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted

    def links_now(self, path: str, session_id: str | None) -> Sequence[NotebookLink]:
        with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)) as db:
            db.row_factory = sqlite3.Row
            return [link_of(row) for row in db.execute(links_now(self.served), (path, session_id)).fetchall()]
