"""Connections to one SQLite file: opened with the right pragmas, work in their threads, a small pool of readers.

A call of aiosqlite is a round trip to the connection's thread (a hop), which costs several times what SQLite needs for
a statement. So several statements are given to the thread together (``in_one_hop``).
Not responsible for what is written or when: that is ``sqlite``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from ...errors import NaviError, StoreBusy, StoreDamaged, StoreError
from ..statements import Parameters, Readers, Row, SqlConnection, Statements, statements_on

BUSY_TIMEOUT_MS = 10_000  # how long a statement waits for another process's transaction
READERS = 3
T = TypeVar("T")
_ASYNCIO = Path(asyncio.__file__).parent
_CLOSED = ("Connection closed", "no active connection")  # aiosqlite's ValueErrors for a connection that was closed


async def connect(path: Path, *, read_only: bool = False, uri_query: str = "") -> aiosqlite.Connection:
    """A connection in autocommit mode: transactions begin and end with our own statements."""
    target = f"{Path(os.path.abspath(path)).as_uri()}{uri_query}"  # noqa: PTH100, ASYNC240  touches no disk
    pending = aiosqlite.connect(target, isolation_level=None, uri=True)
    # aiosqlite's thread is not a daemon: a process that dies without closing would hang at exit instead.
    pending._thread.daemon = True  # noqa: SLF001
    connection = await pending
    connection.row_factory = sqlite3.Row
    await connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    await connection.execute("PRAGMA foreign_keys = ON")
    if read_only:
        await connection.execute("PRAGMA query_only = ON")
    return connection


class CommitWatch:
    """Whether other processes have committed to a file: asked many times a second, on the event loop.

    Most answers come from a connection of its own, which finds in some 10 microseconds that there was no commit at all:
    it reads shared memory, no disk, and waits for no lock. After a commit the ``writer`` is asked, whose own do not
    count. Made in any thread.
    """

    def __init__(self, path: Path, writer: aiosqlite.Connection, lock: asyncio.Lock) -> None:
        target = path.absolute().as_uri()
        self._probe = sqlite3.connect(target, uri=True, isolation_level=None, timeout=0, check_same_thread=False)
        self._probe.execute("PRAGMA query_only = ON")
        self._writer = writer
        self._lock = lock  # of what the writer does
        self._probed: object = None  # SQLite's `data_version`, as the probe has it
        self._version: object = None  # and as the writer has it

    async def changed_elsewhere(self) -> bool:
        """Since the last call. Raises StoreError; then the next call finds what this one has not."""
        probed = self._ask()
        if probed is not None and probed == self._probed:
            return False
        try:
            async with self._lock:
                rows = list(await self._writer.execute_fetchall("PRAGMA data_version"))
        except (sqlite3.Error, ValueError) as error:
            raise store_error(error) from error
        # What is committed after the probe was asked is found by the next call, which asks the writer once more.
        changed, self._probed, self._version = bool(rows[0][0] != self._version), probed, rows[0][0]
        return changed

    def _ask(self) -> object:
        try:
            return self._probe.execute("PRAGMA data_version").fetchone()[0]
        except (sqlite3.Error, TypeError):
            return None  # not known

    def close(self) -> None:
        """Before the writer, whose connection is the last one to the file and copies its log."""
        self._probe.close()


class _InThread:
    """A connection for what runs in its thread: a statement is done when its call returns, and nothing suspends."""

    __slots__ = ("_raw",)

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    async def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        return self._raw.execute(sql, parameters)

    async def execute_fetchall(self, sql: str, parameters: Any = (), /) -> list[Any]:
        return self._raw.execute(sql, parameters).fetchall()

    async def executemany(self, sql: str, rows: Any, /) -> sqlite3.Cursor:
        return self._raw.executemany(sql, rows)

    @property
    def in_transaction(self) -> bool:
        return self._raw.in_transaction


SqliteConnection = aiosqlite.Connection | _InThread  # what performs statements


def inside(db: aiosqlite.Connection) -> SqliteConnection:
    """The connection as :func:`in_one_hop` has it: for its work, and for nothing else."""
    # aiosqlite has no documented way to run a function in its thread. Without these two names each statement is a hop.
    raw = getattr(db, "_conn", None) if hasattr(db, "_execute") else None
    return db if raw is None else _InThread(raw)


async def in_one_hop(db: aiosqlite.Connection, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``work``, which awaits nothing but the statements of ``inside(db)``, in the connection's thread.

    Cancelled, it goes on there to its end. Raises what ``work`` raises, ValueError when the connection is closed.
    """
    if isinstance(inside(db), _InThread):
        return await db._execute(_drive, work)  # type: ignore[no-any-return, no-untyped-call]  # noqa: SLF001
    return await work()


def _drive(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end without a loop."""
    coroutine = work()
    try:
        awaited = coroutine.send(None)
        while True:  # raised at the place that awaits: what is around it (a savepoint) is undone as for any error
            awaited = coroutine.throw(_not_alone(f"awaited {awaited!r}", _names_of(coroutine)))
    except StopIteration as end:
        result: T = end.value
        return result


def _names_of(coroutine: Any) -> Iterator[str]:
    while coroutine is not None:
        yield getattr(coroutine, "__qualname__", type(coroutine).__name__)
        coroutine = getattr(coroutine, "cr_await", None)


def without_loop(error: BaseException) -> BaseException:
    """The error of a unit that asked for the event loop, as one that explains it; any other one as it is."""
    frames = traceback.extract_tb(error.__traceback__) if isinstance(error, RuntimeError | AttributeError) else None
    # An event or a queue finds no loop either, and fails by that in asyncio itself.
    if not frames or (str(error) != "no running event loop" and _ASYNCIO not in Path(frames[-1].filename).parents):
        return error
    return _not_alone("asked for the event loop", (frame.name for frame in frames))


def _not_alone(how: str, names: Iterable[str]) -> RuntimeError:
    place = " > ".join(list(names)[-3:])
    return RuntimeError(
        f"A unit of work has {how} (in {place}). It awaits nothing but its transaction: it runs in the database's"
        " thread, which has no event loop."
    )


class SqliteReaders(Readers):
    """A few read-only connections, each used by one reader at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._free: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        self._readers: list[aiosqlite.Connection] = []

    async def open_readers(self, path: Path) -> None:
        """Open the pool. The file must exist."""
        for _ in range(READERS):
            connection = await connect(path, read_only=True)
            # Opens all files now: what is there is still read when they are deleted later.
            await connection.execute_fetchall("SELECT count(*) FROM sqlite_schema")
            self._readers.append(connection)
            self._free.put_nowait(connection)

    async def close_readers(self) -> None:
        """Close the pool. Statements in progress end first."""
        for connection in self._readers:
            await connection.close()
        self._readers.clear()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Statements]:
        connection = await self._free.get()
        statements = statements_on(connection)
        try:
            with _explaining():
                await connection.execute("BEGIN")
                yield statements
        finally:
            try:
                # Also after a cancelled BEGIN: its thread performs it all the same, and this one comes after it.
                with contextlib.suppress(sqlite3.Error, ValueError):
                    await connection.execute("ROLLBACK")
            finally:
                self._free.put_nowait(connection)

    async def read(self, view: Callable[[Statements], Awaitable[T]]) -> T:
        # All its statements in one hop.
        connection = await self._free.get()
        try:
            with _explaining():
                return await in_one_hop(connection, lambda: _read(inside(connection), view))
        finally:
            self._free.put_nowait(connection)

    async def fetch_all(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        connection = await self._free.get()
        try:
            with _explaining():
                return list(await connection.execute_fetchall(sql, parameters))
        finally:
            self._free.put_nowait(connection)


async def _read(db: SqlConnection, view: Callable[[Statements], Awaitable[T]]) -> T:
    await db.execute("BEGIN")
    try:
        return await view(statements_on(db))
    finally:
        with contextlib.suppress(sqlite3.Error, ValueError):
            await db.execute("ROLLBACK")


@contextlib.contextmanager
def _explaining() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise store_error(error) from error
    except ValueError as error:
        if str(error) not in _CLOSED:
            raise
        raise store_error(error) from error


def store_error(error: BaseException) -> NaviError:
    """An error of SQLite as one a user can act on."""
    text = str(error).lower()
    if isinstance(error, ValueError):
        return StoreError("The database is being closed.")
    if "malformed" in text or "not a database" in text:
        return StoreDamaged(f"The database file is damaged ({error}). Restart the server: the file will be set aside.")
    if "full" in text:
        return StoreError(f"The disk is full; nothing was saved ({error}). Free some space and try again.")
    if "readonly" in text or "read-only" in text:
        return StoreError(f"The database cannot be written ({error}). Check the permissions of its folder.")
    if "locked" in text or "busy" in text:
        return StoreBusy(f"The database was locked by another program for too long ({error}). Try again.")
    return StoreError(f"The database refused the change ({error}).")


def spoils_all(error: BaseException) -> bool:
    """Whether it is the database that fails (full, locked), not the unit that asked something wrong."""
    wrong_statement = 1  # SQLITE_ERROR
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF != wrong_statement
