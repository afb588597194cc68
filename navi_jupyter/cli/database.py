"""``navi db``: a database checked, brought up to this version, copied from SQLite to PostgreSQL; and what one user has
in a SQLite database imported into another one.

Not responsible for backups (``backup``; on PostgreSQL, ``pg_dump``).
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..clock import now
from ..errors import StoreError
from ..settings import Settings, is_postgres
from ..text import printable
from .backup import ATTACHMENTS, DATABASE, configured_settings, copy_database_file, reported
from .database_checks import COUNTED, check_file, check_server, with_connection
from .restoration import unpack

if TYPE_CHECKING:
    from ..store.transfer.source import Source

LONGEST_NAME = 255  # characters of a user's name
REPORTED_EVERY = 5.0  # seconds between two lines about what goes on


def run(given: argparse.Namespace) -> int:
    """Perform the command; its exit status."""
    work = {"check": _check, "upgrade": _upgrade, "copy": _copy, "import": _import}[given.action]
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

    if is_postgres(given.source) or not is_postgres(given.target):
        raise StoreError("A SQLite database can be copied to PostgreSQL: navi db copy sqlite:////… postgresql://…")

    url = configured_settings().blobs_url

    async def work(connection: Any) -> str:
        folder = FileBlobs(source.contents)
        bucket = s3_blobs(url, database=identity_of(given.target), earlier=folder) if url else None
        if bucket is not None:
            await bucket.probe()  # else the copy would be there, and its attachments would not
        schema = schema_of(given.target)
        await migrate(connection, schema)
        counts = await copy_database(source, connection, schema, _Progress())
        rows = ", ".join(f"{counts[name]} {name}" for name in COUNTED)
        copied = f"Copied: {rows}; {counts['blobs']} files of attachments."
        if bucket is None:
            return copied
        await bucket.take_over()
        return f"{copied} The other attachments stay at {bucket.place} and belong to the copy: set blobs_url there."

    with _reading(given.source) as source:
        return str(asyncio.run(with_connection(given.target, work)))


def _import(given: argparse.Namespace) -> str:
    from ..store.engines import open_database  # late: as above
    from ..store.transfer.user_import import Brought, UserImport

    name = given.owner
    if not name.strip() or len(name) > LONGEST_NAME or printable(name) != name:
        raise StoreError("--owner must be a user's name, as the servers of the target authenticate it.")
    if is_postgres(given.source):
        raise StoreError("What is in a SQLite database can be imported: navi db import sqlite:////… TO --owner NAME")
    _require_current(given.target)

    async def work(source: Source, owner: str) -> Brought:
        database = await open_database(Settings(database_url=given.target))
        try:
            return await UserImport(source, database, owner=owner, name=name, report=_Progress()).perform()
        finally:
            await database.close()

    with _reading(given.source, alone=True) as source:
        if not is_postgres(given.target) and source.path.samefile(_existing(given.target)):
            raise StoreError("FROM and TO are the same database.")
        imported = asyncio.run(work(source, _chosen_owner(source, given.from_owner)))
    rows = ", ".join(f"{imported.counts[one]} {one}" for one in COUNTED)
    known = f" {imported.known} sessions were there already, and stay as they are." if imported.known else ""
    return f"Imported for {name}: {rows}.{known}"


def _chosen_owner(source: Source, wanted: str | None) -> str:
    """Whose data it is in the source. Raises StoreError where that has to be named."""
    owners = source.owners()
    listed = ", ".join(owners)
    if not owners:
        raise StoreError(f"Nothing in {source.path} belongs to a user.")
    if wanted is None and len(owners) > 1:
        raise StoreError(f"{len(owners)} users have data in {source.path}: {listed}. Choose one with --from-owner.")
    if wanted is not None and wanted not in owners:
        raise StoreError(f"{wanted} has nothing in {source.path}; data is there of: {listed}.")
    return wanted or owners[0]


def _require_current(url: str) -> None:
    """Others use the target: it is not brought up to this version on the way. Raises StoreError."""
    from ..store.sqlite.database_file import SCHEMA_VERSION as FILE_VERSION  # late: as above

    if is_postgres(url):
        from ..store.postgres.migrations import SCHEMA_VERSION, version_of  # late: the driver is an extra

        found, wanted = int(asyncio.run(with_connection(url, version_of))), SCHEMA_VERSION
    else:
        found, wanted = _version_of(_existing(url)), FILE_VERSION
    if found < wanted:
        raise StoreError(f"The target has schema {found}, not {wanted}: run navi db upgrade on it first.")


@contextmanager
def _reading(given: str, *, alone: bool = False) -> Iterator[Source]:
    """The source, of this version: what is older, or in a backup, is read from a copy. Raises StoreError.

    ``alone``: no server may use it.
    """
    from ..store.rows import to_micros  # late: as above
    from ..store.sqlite.database_file import SCHEMA_VERSION
    from ..store.transfer.source import reading

    path = _existing(given)
    try:
        if zipfile.is_zipfile(path):
            with tempfile.TemporaryDirectory(prefix="navi-import-") as folder:
                place = Path(folder)
                unpack(path, place)
                _bring_up(place / DATABASE)
                with reading(place / DATABASE, place / ATTACHMENTS) as source:
                    yield source
            return
        found = check_file(path)
        if found.status == "fail":
            raise StoreError(f"{found.text.rstrip('.')}; {found.fix}.")
        if _version_of(path) == SCHEMA_VERSION:
            with reading(path) as source:
                if alone and source.is_in_use(to_micros(now())):
                    raise StoreError(f"A server uses {path}, or was killed less than a minute ago. Stop it first.")
                yield source
            return
        from ..store.sqlite.location import attachments_folder  # late: as above

        with tempfile.TemporaryDirectory(prefix="navi-import-") as folder:
            copy = Path(folder) / DATABASE
            copy_database_file(path, copy)
            _bring_up(copy)
            with reading(copy, attachments_folder(path)) as source:
                yield source
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read ({error}).") from error


def _version_of(path: Path) -> int:
    from ..store.transfer.source import read_only  # late: as above

    try:
        connection = read_only(path)
        try:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be read ({error}).") from error


def _bring_up(path: Path) -> None:
    from ..store.sqlite.database_file import migrate  # late: as above

    connection = sqlite3.connect(path, isolation_level=None)
    try:
        migrate(connection)
    finally:
        connection.close()


class _Progress:
    """Lines about a long work on the standard error output, now and then."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._at >= REPORTED_EVERY:
            self._at = time.monotonic()
            print(f"navi: {text}", file=sys.stderr, flush=True)


def _existing(url: str) -> Path:
    from ..store.sqlite.location import database_path  # late: as above

    path = database_path(url).absolute()
    if not path.is_file():
        raise StoreError(f"There is no database at {path}.")
    return path
