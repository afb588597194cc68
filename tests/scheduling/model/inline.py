"""aiosqlite's connection without its thread: the same SQLite, at once, so that a history is the same for a seed.

The store uses six things of a connection; these are they.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from navi_jupyter.store.sqlite import connection
from navi_jupyter.store.sqlite import store as sqlite
from navi_jupyter.store.sqlite.store import SqliteStore

T = TypeVar("T")


class Inline:
    """A connection whose statements are done when they are called."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        # Other threads: "from this many rows on" the store decodes in one, but never executes there.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.0)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA foreign_keys = ON")
        if read_only:
            self._db.execute("PRAGMA query_only = ON")

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    async def execute(self, sql: str, parameters: Iterable[Any] = ()) -> sqlite3.Cursor:
        # What a power cut does to a disk is not the question here; what a death does between commits is.
        if sql.startswith("PRAGMA synchronous"):
            sql = "PRAGMA synchronous = OFF"
        return self._db.execute(sql, tuple(parameters))

    async def execute_fetchall(self, sql: str, parameters: Iterable[Any] = ()) -> list[sqlite3.Row]:
        return self._db.execute(sql, tuple(parameters)).fetchall()

    async def executescript(self, script: str) -> sqlite3.Cursor:
        return self._db.executescript(script)

    async def executemany(self, sql: str, rows: Iterable[Iterable[Any]]) -> sqlite3.Cursor:
        return self._db.executemany(sql, [tuple(row) for row in rows])

    async def create_function(self, name: str, parameters: int, function: Callable[..., Any]) -> None:
        self._db.create_function(name, parameters, function)

    async def close(self) -> None:
        self._db.close()


async def _connect(path: Path, *, read_only: bool = False, uri_query: str = "") -> Inline:
    assert not uri_query
    return Inline(path, read_only=read_only)


async def open_inline(path: Path, patch: Callable[[object, str, object], None]) -> SqliteStore:
    """The real store on inline connections. ``patch`` is a ``monkeypatch.setattr``."""
    patch(connection, "connect", _connect)
    patch(sqlite, "connect", _connect)
    return await SqliteStore.open(path)


async def at_once(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """``asyncio.to_thread`` without the thread."""
    return call(*args, **kwargs)
