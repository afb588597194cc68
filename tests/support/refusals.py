"""Databases that refuse each change for a while: locked by another program, full, or read-only."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.store.database import Database
from navi_jupyter.store.postgres import connection as postgres
from navi_jupyter.store.postgres import writer as postgres_writer
from navi_jupyter.store.sqlite import connection as sqlite
from navi_jupyter.store.sqlite.store import SqliteStore
from tests.support.database import URL, locked_by_another, perform

Refusal = Callable[[Database, Path], AbstractAsyncContextManager[None]]
"""Meanwhile the database at that path refuses."""


def be_impatient(patch: pytest.MonkeyPatch) -> None:
    """Have stores that are opened from now on give up soon."""
    patch.setattr(sqlite, "BUSY_TIMEOUT_MS", 30)
    patch.setitem(postgres._SETTINGS, "lock_timeout", "30ms")
    patch.setattr(postgres_writer, "PATIENCE", 0.03)


@asynccontextmanager
async def locked(_: Database, path: Path) -> AsyncIterator[None]:
    """By another program."""
    with locked_by_another(path):
        yield


@asynccontextmanager
async def full(store: Database, path: Path) -> AsyncIterator[None]:
    """No space is left. A small change of a SQLite file may still find room."""
    if isinstance(store, SqliteStore):
        db: Any = store._db
        await db.execute("VACUUM")  # no page is free
        pages = next(iter(await db.execute_fetchall("PRAGMA page_count")))[0]
        await db.execute(f"PRAGMA max_page_count = {pages}")
        yield
        await db.execute("PRAGMA max_page_count = 1073741823")
    else:
        with _raising(path, "53100"):
            yield


@asynccontextmanager
async def read_only(store: Database, path: Path) -> AsyncIterator[None]:
    """It takes no change."""
    if isinstance(store, SqliteStore):
        await store._db.execute("PRAGMA query_only = ON")
        yield
        await store._db.execute("PRAGMA query_only = OFF")
    else:
        with _raising(path, "25006"):
            yield


@contextmanager
def _raising(path: Path, sqlstate: str) -> Iterator[None]:
    """Have PostgreSQL raise an error with that SQLSTATE in each transaction that writes."""
    perform(
        path,
        "CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION 'it refuses' USING ERRCODE = '{sqlstate}'; END $$",
    )
    perform(path, "CREATE TRIGGER refuses BEFORE UPDATE ON writers FOR EACH ROW EXECUTE FUNCTION refuse()")
    yield
    perform(path, "DROP FUNCTION refuse CASCADE")


def check_integrity(path: Path) -> None:
    """Of a SQLite file; PostgreSQL's are its own concern."""
    if URL not in os.environ:
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
