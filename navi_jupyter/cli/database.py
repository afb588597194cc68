"""``navi db``: a database checked, brought up to this version, and copied from SQLite to PostgreSQL.

Not responsible for backups (``backup``; on PostgreSQL, ``pg_dump``).
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..settings import Settings, is_postgres
from .backup import configured_settings, reported
from .database_checks import COUNTED, check_file, check_server, with_connection


def run(given: argparse.Namespace) -> int:
    """Perform the command; its exit status."""
    work = {"check": _check, "upgrade": _upgrade, "copy": _copy}[given.action]
    return reported(lambda: work(given))


def _check(given: argparse.Namespace) -> str:
    url = given.url or configured_settings().database_url
    found = list(check_server(url)) if is_postgres(url) else [check_file(_existing(url))]
    if wrong := [one for one in found if one.status == "fail"]:
        raise StoreError(f"{wrong[0].text.rstrip('.')}; {wrong[0].fix}.")
    return "; ".join(one.text for one in found)


def _upgrade(given: argparse.Namespace) -> str:
    from ..store.engines import open_database  # late: `navi --help` imports no store

    async def work() -> str:
        database = await open_database(Settings(database_url=given.url or configured_settings().database_url))
        try:
            return f"{database.place} has the tables of this version."
        finally:
            await database.close()

    return asyncio.run(work())


def _copy(given: argparse.Namespace) -> str:
    from ..store.blobs import FileBlobs  # late: as above, and the driver is an extra
    from ..store.engines import s3_blobs
    from ..store.postgres.connection import identity_of, schema_of
    from ..store.postgres.copying import copy_database
    from ..store.postgres.migrations import migrate
    from ..store.sqlite.location import attachments_folder

    if is_postgres(given.source) or not is_postgres(given.target):
        raise StoreError("A SQLite database can be copied to PostgreSQL: navi db copy sqlite:////… postgresql://…")
    source = _existing(given.source)
    url = configured_settings().blobs_url
    folder = FileBlobs(attachments_folder(source))
    bucket = s3_blobs(url, database=identity_of(given.target), earlier=folder) if url else None

    async def work(connection: Any) -> str:
        if bucket is not None:
            await bucket.probe()  # else the copy would be there, and its attachments would not
        schema = schema_of(given.target)
        await migrate(connection, schema)
        counts = await copy_database(source, connection, schema)
        rows = ", ".join(f"{counts[name]} {name}" for name in COUNTED)
        copied = f"Copied: {rows}; {counts['blobs']} files of attachments."
        if bucket is None:
            return copied
        await bucket.take_over()
        return f"{copied} The other attachments stay at {bucket.place} and belong to the copy: set blobs_url there."

    try:
        return str(asyncio.run(with_connection(given.target, work)))
    except sqlite3.Error as error:
        raise StoreError(f"{source} cannot be read ({error}).") from error


def _existing(url: str) -> Path:
    from ..store.sqlite.location import database_path  # late: as above

    path = database_path(url).absolute()
    if not path.is_file():
        raise StoreError(f"There is no database at {path}.")
    return path
