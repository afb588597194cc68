"""The engine of a database, by its URL. Each is imported when it is used."""

from __future__ import annotations

from urllib.parse import urlsplit

from .database import Database

POSTGRES = ("postgresql", "postgres")  # schemes of URLs, as libpq takes them


def is_postgres(url: str) -> bool:
    """Whether a database is on a PostgreSQL server, and not in a file."""
    return urlsplit(url).scheme in POSTGRES


async def open_database(url: str, *, single_process: bool = False) -> Database:
    """Open it, create or migrate its tables. Raises StoreError and its kinds when it cannot be used.

    ``single_process``: no other process uses the file (see :meth:`SqliteStore.open`).
    """
    from .sqlite.location import database_path
    from .sqlite.store import SqliteStore

    return await SqliteStore.open(database_path(url), single_process=single_process)
