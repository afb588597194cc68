"""The database file before it is used: is it ours, whole, lockable and of a version we know? Then its tables.

Not responsible for anything after that.
"""

from __future__ import annotations

import asyncio
import sqlite3
from importlib.resources import files
from pathlib import Path

from ...errors import StoreError, StoreForeign, StoreLocked, StoreTooNew
from ...installation import upgrade_command
from ...log_setup import get_logger
from .damage import APPLICATION_ID, explained, notice, refuse_foreign
from .file_state import LEAST, damage_of, missing_changes, record_beside, record_of
from .location import check_place, file_system_of, real_path
from .locking import check_locking

log = get_logger("store")

SCHEMA_VERSION = 24
CHECKED_BYTES = 64 * 2**20  # up to this size every page is checked at start; beyond, only what opening reads
BUSY_SECONDS = 10.0
REWRITTEN_BYTES = 16 * 2**20  # up to this size a database that cannot give pages back is written anew at a start
_INCREMENTAL = 2
_GIVES_BACK = "PRAGMA auto_vacuum = INCREMENTAL"


async def prepare(path: Path, *, single_process: bool = False) -> str | None:
    """Make ``path`` a whole database of the present version; what its owner should know although it opens.

    ``single_process``: no other process uses the database, so that it can be on a network file system.
    Raises a StoreError with what to do.
    """
    return await asyncio.to_thread(_prepare, path, single_process=single_process)


def _prepare(path: Path, *, single_process: bool) -> str | None:
    check_place(path)
    path = real_path(path)
    journal = _journal_for(path, single_process=single_process)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(f"The folder {path.parent} cannot be made ({error.strerror}).") from error
    try:
        _check_not_emptied(path)
        refuse_foreign(path)
        check_locking(path, journal=journal)
        missing = _open_checked(path, journal)
    except sqlite3.DatabaseError as error:
        raise explained(path, error) from error
    except OSError as error:
        raise StoreError(f"The database {path} cannot be opened ({error.strerror}).") from error
    return " ".join(each for each in (missing, notice(path)) if each) or None


def _journal_for(path: Path, *, single_process: bool) -> str:
    """SQLite's journal mode for the file system of ``path``. Raises StoreLocked where several machines may have it."""
    found = file_system_of(path)
    if found is None or not found.network:
        return "WAL"
    if single_process:
        return "DELETE"  # a write-ahead log needs shared memory, which network file systems do not have
    raise StoreLocked(
        f"{path} is on a network file system ({found.type} at {found.mount_point}), where servers on several machines"
        " would overwrite each other's data. Set NAVI_DATABASE_URL (NaviExtension.database_url) to a file on a local"
        " disk, like sqlite:////var/tmp/<user>/navi.db. If this server alone ever uses the file, as with one server"
        " per user under JupyterHub, set NAVI_DATABASE_SINGLE_PROCESS=true."
    )


def _check_not_emptied(path: Path) -> None:
    """What SQLite would take for new: a journal without its database, which it would delete; one cut to nothing."""
    if _wal_size(path) and not (path.exists() and path.stat().st_size):
        raise sqlite3.DatabaseError("database disk image is malformed: it is empty, its write-ahead log is not")
    if path.exists() and path.stat().st_size < LEAST and record_beside(path) is not None:
        raise sqlite3.DatabaseError("database disk image is malformed: it is empty, and was not")


def _wal_size(path: Path) -> int:
    wal = path.with_name(f"{path.name}-wal")
    return wal.stat().st_size if wal.exists() else 0


def _open_checked(path: Path, journal: str) -> str | None:
    """The database is opened, and closed again; what is missing in it."""
    beside, has_log = record_beside(path), _wal_size(path) > 0
    # isolation_level None: transactions are ours.
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        _bring_up(connection, path, journal)
        inside = record_of(connection)
        if not inside.in_use:
            connection.execute("UPDATE database_state SET in_use = 1")
        return missing_changes(inside, beside, has_log=has_log)
    except sqlite3.DatabaseError as error:
        # While it is open: closing it would delete the write-ahead log of a damaged file.
        raise explained(path, error) from error
    finally:
        connection.close()


def _bring_up(connection: sqlite3.Connection, path: Path, journal: str) -> None:
    _check_whole(connection, path)
    version = _check_ours(connection, path)
    path.chmod(0o600)
    if version == 0:
        connection.execute(_GIVES_BACK)  # before the first page is written: an empty file takes it for good
    mode = connection.execute(f"PRAGMA journal_mode = {journal}").fetchone()[0]
    if mode != journal.lower():
        log.warning("store_without_wal", journal_mode=mode, path=str(path))
    if version < SCHEMA_VERSION:
        if version:
            _back_up(connection, path.with_name(f"{path.name}.v{version}.bak"))
        migrate(connection)
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
        _make_give_back(connection, path)


def _make_give_back(connection: sqlite3.Connection, path: Path) -> None:
    """Write a database of an earlier version anew, so that its unused pages can be given back; if that takes a moment.

    One transaction: killed within it, nothing has changed. Others wait for it as for any other.
    """
    if path.stat().st_size > REWRITTEN_BYTES or record_of(connection).in_use:
        return  # it works without; docs/operations.md has how a large one is written anew
    try:
        connection.execute(_GIVES_BACK)
        connection.execute("VACUUM")
    except sqlite3.OperationalError as error:  # no space for it, or another program has it locked: the next start tries
        log.warning("store_not_rewritten", path=str(path), error=str(error))


def _back_up(connection: sqlite3.Connection, target: Path) -> None:
    """A copy of the database as it is now, write-ahead log included.

    Not by copying: closing any other handle of a file drops all the locks that this process holds on it.
    """
    target.touch(mode=0o600)
    copy = sqlite3.connect(target)
    try:
        connection.backup(copy)
    finally:
        copy.close()


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    size, page_size = path.stat().st_size, connection.execute("PRAGMA page_size").fetchone()[0]
    if size % page_size and not _wal_size(path):  # a crash while its log is copied into it may leave half a page
        raise sqlite3.DatabaseError("database disk image is malformed: its last page is cut off")
    if size > CHECKED_BYTES:
        return
    if (found := damage_of(connection)) is not None:
        raise sqlite3.DatabaseError(f"database disk image is malformed: {found}")


def _check_ours(connection: sqlite3.Connection, path: Path) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and application != APPLICATION_ID:
        raise StoreForeign(
            f"{path} is another program's database. Set NaviExtension.database_url to a file of its own."
        )
    if version > SCHEMA_VERSION:
        raise StoreTooNew(
            f"{path} was written by a newer navi-jupyter (schema {version}; this one knows {SCHEMA_VERSION})."
            f" Upgrade with: {upgrade_command()}"
        )
    return version


def migrate(connection: sqlite3.Connection, *, target: int = SCHEMA_VERSION) -> None:
    """Bring an opened database from any earlier version (0: empty) to ``target``, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        for number in range(version + 1, target + 1):
            for script in migration_scripts(number):
                for statement in _statements(script):
                    connection.execute(statement)
        if version < target:
            connection.execute(f"PRAGMA user_version = {target}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def migration_scripts(version: int) -> list[str]:
    """The SQL of one migration, in the order of the file names."""
    folder = files(__package__) / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.startswith(f"{version:04d}_"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]


def _statements(script: str) -> list[str]:
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
