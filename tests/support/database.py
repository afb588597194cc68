"""The database of a test: a SQLite file, or, where ``PYTEST_NAVI_POSTGRES`` has a URL, a schema of that PostgreSQL
database for each path that the test names."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.store.database import Database
from navi_jupyter.store.postgres.connection import PostgresConnection, connect, schema_of
from navi_jupyter.store.postgres.migrations import WRITING, locks_of
from navi_jupyter.store.postgres.store import PostgresStore
from navi_jupyter.store.served_owners import ServedOwners
from navi_jupyter.store.sqlite.store import SqliteStore

URL = "PYTEST_NAVI_POSTGRES"  # not NAVI_…: tests are freed of those


async def open_store(path: Path, *, serves: str = "*") -> Database:
    """The database at a path: the same one each time, in any process of the test. ``serves``: as the setting."""
    server, served = os.environ.get(URL), ServedOwners.of(serves)
    if server is None:
        return await SqliteStore.open(path, served=served)
    return await PostgresStore.open(database_url(path), served=served)


def database_url(path: Path) -> str:
    """Its URL."""
    server = os.environ.get(URL)
    if server is None:
        return f"sqlite:///{path}"
    return f"{server}{'&' if '?' in server else '?'}search_path={schema_for(path)}"


def schema_for(path: Path) -> str:
    """What stands for a file there."""
    return f"t_{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:24]}"


on_sqlite = pytest.mark.skipif(URL in os.environ, reason="is about SQLite's files, locks or statements")
"""Of a test that does not apply to PostgreSQL."""


def perform(path: Path, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
    """The rows of a statement, or what it changes, as another program performs it; also where an event loop runs."""
    if URL not in os.environ:
        with closing(sqlite3.connect(path)) as db:
            db.row_factory = sqlite3.Row
            rows = db.execute(sql, parameters).fetchall()
            db.commit()
            return rows
    return perform_at(database_url(path), sql, parameters)


def perform_at(url: str, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
    """The same, of the PostgreSQL database of that URL."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(_perform(url, sql, parameters))).result()


async def _perform(url: str, sql: str, parameters: Sequence[object]) -> list[Any]:
    connection = await connect(url)
    try:
        return await PostgresConnection(connection).execute_fetchall(sql, parameters)
    finally:
        await connection.close()


def is_being_written(path: Path) -> bool:
    """Whether a transaction goes on that writes, for half a second."""
    if URL not in os.environ:
        with closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            db.execute("ROLLBACK")
            return False
    turn = f"SELECT pg_try_advisory_xact_lock({_locks(path)}, {WRITING}) AS free"
    return not any(perform(path, turn)[0]["free"] for _ in range(10))


def _locks(path: Path) -> int:
    return locks_of(schema_of(database_url(path)))


_SQLITE_LOCKER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
db.execute("COMMIT")
"""
_POSTGRES_LOCKER = """
import asyncio, sys
from navi_jupyter.store.postgres.connection import connect
async def main():
    db = await connect(sys.argv[1])
    await db.execute("SELECT pg_advisory_lock(" + sys.argv[2] + ")")
    print("locked", flush=True)
    sys.stdin.read()
    await db.close()
asyncio.run(main())
"""


@contextmanager
def locked_by_another(path: Path) -> Iterator[None]:
    """Meanwhile another process has the lock of those that write."""
    program = [_SQLITE_LOCKER, str(path)]
    if URL in os.environ:
        program = [_POSTGRES_LOCKER, database_url(path), f"{_locks(path)}, {WRITING}"]
    process = subprocess.Popen(
        [sys.executable, "-c", *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "locked\n"
        yield
    finally:
        process.stdin.close()
        process.wait()


class Hold:
    """A unit of work, or of reading, that lasts until it is released, in whichever thread it is performed."""

    def __init__(self) -> None:
        self._began = threading.Event()
        self._released = threading.Event()

    async def __call__(self, _: object = None) -> None:
        self._began.set()
        if URL not in os.environ:
            self._released.wait()  # in the database's thread; it may await nothing else
        while not self._released.is_set():  # noqa: ASYNC110 - it is set by any thread
            await asyncio.sleep(0.001)

    async def begun(self) -> None:
        """Returns once it is performed."""
        await asyncio.to_thread(self._began.wait)

    def release(self) -> None:
        self._released.set()
