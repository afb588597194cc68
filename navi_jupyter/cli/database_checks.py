"""What can be known of the database without a server: its file, or its PostgreSQL server.

Not responsible for how findings are printed (``doctor``, ``database``).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from shlex import quote
from typing import Any

from ..errors import NaviError, StoreError
from ..installation import upgrade_command
from ..settings import is_postgres
from .backup import configured_database, configured_settings
from .findings import Finding

COUNTED = ("sessions", "runs", "events", "recalls", "attachments", "facts")  # tables whose rows are counted
MOVE = "set NAVI_DATABASE_URL (or c.NaviExtension.database_url) to sqlite:////<a file on a local disk>"


def database() -> Iterator[Finding]:
    """The database that a server started here would use."""
    # Late: as in configured_database.
    from ..store.sqlite.location import check_place

    if is_postgres(url := configured_settings().database_url):
        yield from check_server(url)
        return
    path, single_process = configured_database()
    try:
        check_place(path)
    except NaviError as problem:
        yield Finding("database", "fail", problem.message, MOVE)
        return
    if path.exists():
        yield check_file(path)
    else:
        yield Finding("database", "ok", f"{path} does not exist yet: the first start of a server creates it")
    yield _folder(path, single_process=single_process)


def check_file(path: Path) -> Finding:
    """The file that exists, opened read-only."""
    from ..store.sqlite.damage import APPLICATION_ID, notice
    from ..store.sqlite.database_file import REWRITTEN_BYTES, SCHEMA_VERSION
    from ..store.sqlite.file_state import damage_of

    # Reading makes companion files. Without a -wal file no server has it open, and immutable=1 prevents them.
    mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=5)) as connection:
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            damage = damage_of(connection)
            pages = "page_size * freelist_count FROM pragma_page_size, pragma_freelist_count, pragma_auto_vacuum"
            unused = connection.execute(f"SELECT {pages} WHERE auto_vacuum <> 2").fetchone()
    except sqlite3.Error as problem:
        fix = "check the permissions of the file, or restore a backup"
        return Finding("database", "fail", f"{path} cannot be read: {problem}", fix)
    if application != APPLICATION_ID and found:
        return Finding("database", "fail", f"{path} is another program's database", MOVE)
    if damage is not None:
        fix = "restore a backup, or try: sqlite3 <file> .recover"
        return Finding("database", "fail", f"{path} is damaged: {damage}", fix)
    if found > SCHEMA_VERSION:
        text = f"{path} was written by a newer navi-jupyter (schema {found}; this one knows {SCHEMA_VERSION})"
        return Finding("database", "fail", text, upgrade_command())
    if (kept := notice(path)) is not None:
        return Finding(
            "database", "warn", f"{path} opens. {kept}", "move the damaged file away when you no longer need it"
        )
    size = path.stat().st_size / 1e6
    if (
        unused and unused[0] > 4e6 and path.stat().st_size > REWRITTEN_BYTES
    ):  # a smaller file is written anew at a start
        text = f"{path} opens, is whole ({size:.1f} MB); {unused[0] / 1e6:.1f} MB of it are unused, and it keeps them"
        fix = f"stop all servers, then: sqlite3 {quote(str(path))} 'PRAGMA auto_vacuum = INCREMENTAL; VACUUM'"
        return Finding("database", "warn", text, fix)
    older = "" if found == SCHEMA_VERSION else f", to be migrated to {SCHEMA_VERSION}"
    return Finding("database", "ok", f"{path} opens, is whole ({size:.1f} MB, schema {found}{older})")


def _folder(path: Path, *, single_process: bool) -> Finding:
    """Whether a new database can be created in the folder, tried with a file of our own: written, locked, migrated."""
    from ..store.sqlite.database_file import prepare
    from ..store.sqlite.location import COMPANIONS, STATE, file_system_of

    folder = next(parent for parent in path.resolve().parents if parent.exists())
    found = file_system_of(folder)
    kind = "a file system of unknown type" if found is None else found.type
    probe = folder / f".navi-doctor-{os.getpid()}.db"
    try:
        asyncio.run(prepare(probe, single_process=single_process))
    except NaviError as problem:
        return Finding("database", "fail", f"{folder} cannot hold a database: {problem.message}", MOVE)
    finally:
        for suffix in ("", *COMPANIONS, STATE):
            probe.with_name(probe.name + suffix).unlink(missing_ok=True)
    if found is not None and found.network:
        text = (
            f"{folder} is on {kind}; locks work between two processes of this machine, the write-ahead log is not used"
        )
        return Finding("database", "warn", text, "make sure that one server alone uses it, or use a local disk")
    text = f"a database can be written and locked in {folder} ({kind}): locks and write-ahead log work"
    return Finding("database", "ok", f"{text} between two processes")


def check_server(url: str) -> Iterator[Finding]:
    """A PostgreSQL database: whether it can be reached, its version, what is in it, and the clocks."""
    try:
        yield from asyncio.run(with_connection(url, _findings))
    except NaviError as problem:
        yield Finding("database", "fail", problem.message, "check database_url, and that its server runs")


def attachments() -> Iterator[Finding]:
    """Whether an object can be written, read and removed where attachments go, if that is a bucket."""
    from ..store.blobs import FileBlobs  # late: as above
    from ..store.engines import s3_blobs

    if not (url := configured_settings().blobs_url):
        yield Finding("attachments", "ok", "with the database (blobs_url is not set)")
        return
    try:
        # What was there earlier is not looked for.
        blobs = s3_blobs(url, database="", earlier=FileBlobs(Path(os.devnull)))
        took = asyncio.run(blobs.probe())
    except NaviError as problem:
        fix = "check NAVI_BLOBS_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL"
        yield Finding("attachments", "fail", problem.message, fix)
    else:
        yield Finding(
            "attachments", "ok", f"{blobs.place}: an object was written, read and removed in {took * 1e3:.0f} ms"
        )


async def _findings(connection: Any) -> list[Finding]:
    from ..clock import now  # late: the driver is an extra
    from ..store.postgres.migrations import AHEAD, SCHEMA_VERSION, version_of
    from ..store.postgres.signal import REFUSED, WARNED

    server = await connection.fetchval("SELECT current_setting('server_version')")
    version = await version_of(connection)
    began = now()
    at = await connection.fetchval("SELECT clock_timestamp()")
    took = now() - began
    answer = f"PostgreSQL {server.split()[0]} answers in {took.total_seconds() * 1e3:.1f} ms"
    found = [Finding("database", "ok", answer)]
    if version > SCHEMA_VERSION + AHEAD:
        text = f"its tables are of a newer navi-jupyter (schema {version}; this one knows {SCHEMA_VERSION})"
        found.append(Finding("database", "fail", text, "upgrade navi-jupyter"))
    elif version < SCHEMA_VERSION:
        text = f"its tables have schema {version}; the first start of a server brings them to {SCHEMA_VERSION}"
        found.append(Finding("database", "ok", text))
    else:
        rows = [f"{await connection.fetchval(f'SELECT count(*) FROM {name}')} {name}" for name in COUNTED]
        found.append(Finding("database", "ok", f"its tables have schema {version}: {', '.join(rows)}"))
    off = abs(at - (began + took / 2)) - took / 2
    if off > WARNED:
        text = f"the clock of this machine differs from the database server's by {off.total_seconds():.0f} s"
        fix = "set both by a time server (NTP)"
        found.append(Finding("database", "fail" if off > REFUSED else "warn", text, fix))
    if await connection.fetchval("SELECT current_setting('synchronous_commit')") == "off":
        text = "synchronous_commit is off: what was accepted is lost when the database server dies"
        found.append(Finding("database", "warn", text, "ALTER DATABASE … SET synchronous_commit = on"))
    return found


async def with_connection(url: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """What ``work``, which may take hours, returns with a connection to a PostgreSQL database. Raises StoreError."""
    try:
        from ..store.postgres.connection import CONNECT_ERRORS, connect, postgres_error  # late: as above
    except ImportError as error:
        raise StoreError(
            f"A PostgreSQL database needs the extra `postgres` ({error}): pip install 'navi-jupyter[postgres]'"
        ) from error
    try:
        connection = await connect(url, within=3_600.0, idle_in_transaction_session_timeout="0")
        try:
            return await work(connection)
        finally:
            await connection.close()
    except CONNECT_ERRORS as error:
        raise postgres_error(error) from error
