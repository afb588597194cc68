"""The database file before it is used: is it ours, whole, lockable and of a version we know? Then its tables.

Not responsible for anything after that.
"""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from ..errors import StoreBusy, StoreDamaged, StoreError, StoreLocked, StoreTooNew
from ..log_setup import get_logger

log = get_logger("store")

SCHEMA_VERSION = 6
APPLICATION_ID = 0x4E415649  # ``NAVI``: marks our files, so that another program's is not taken for one
CHECKED_BYTES = 64 * 2**20  # up to this size every page is checked at start; beyond, only what opening reads
BUSY_SECONDS = 10.0
_COMPANIONS = ("", "-wal", "-shm")


async def prepare(path: Path) -> None:
    """Make ``path`` a whole database of the present version. Raises a StoreError with what to do."""
    await asyncio.to_thread(_prepare, path)


def _prepare(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(f"The folder {path.parent} cannot be made ({error.strerror}).") from error
    try:
        _check_not_emptied(path)
        _open_checked(path)
    except sqlite3.DatabaseError as error:
        raise _explained(path, error) from error
    except OSError as error:
        raise StoreError(f"The database {path} cannot be opened ({error.strerror}).") from error


def _check_not_emptied(path: Path) -> None:
    """A journal without its database: SQLite would take the database for new, and delete the journal."""
    if _wal_size(path) and not (path.exists() and path.stat().st_size):
        raise sqlite3.DatabaseError("database disk image is malformed: it is empty, its write-ahead log is not")


def _wal_size(path: Path) -> int:
    wal = path.with_name(f"{path.name}-wal")
    return wal.stat().st_size if wal.exists() else 0


def _open_checked(path: Path) -> None:
    # isolation_level None: transactions are ours.
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        _bring_up(connection, path)
    except sqlite3.DatabaseError as error:
        # While it is open: closing it would delete the write-ahead log of a damaged file.
        raise _explained(path, error) from error
    finally:
        connection.close()


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    _check_whole(connection, path)
    version = _check_ours(connection, path)
    path.chmod(0o600)
    _check_locking(connection, path)
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        log.warning("store_without_wal", journal_mode=mode, path=str(path))
    if version < SCHEMA_VERSION:
        if version:
            _back_up(connection, path.with_name(f"{path.name}.v{version}.bak"))
        migrate(connection)


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


def damage_of(connection: sqlite3.Connection) -> str | None:
    """What is wrong with the file, or None. Raises sqlite3.DatabaseError when it cannot even be read.

    ``quick_check`` of some versions of SQLite reports problems that do not exist: each is checked again.
    """
    for check in ("quick_check", "integrity_check"):
        found: str = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
        if found == "ok":
            return None
    return found


def _check_ours(connection: sqlite3.Connection, path: Path) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and application != APPLICATION_ID:
        raise StoreError(f"{path} is another program's database. Set NaviExtension.database_url to a file of its own.")
    if version > SCHEMA_VERSION:
        raise StoreTooNew(
            f"{path} was written by a newer navi-jupyter (schema {version}; this one knows {SCHEMA_VERSION})."
            " Upgrade with: pip install -U navi-jupyter"
        )
    return version


def _check_locking(connection: sqlite3.Connection, path: Path) -> None:
    """Two connections must exclude each other; on some network file systems they do not, and data would be lost."""
    connection.execute("PRAGMA busy_timeout = 1000")
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if _is_busy(error):
            return  # another server excludes us: that is all that was to be known
        raise
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    try:
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return
        finally:
            other.close()
    finally:
        connection.execute("ROLLBACK")
    raise StoreLocked(
        f"The file system of {path} does not lock files, so two servers would overwrite each other."
        " Set NaviExtension.database_url to a file on a local disk."
    )


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


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


def _explained(path: Path, error: sqlite3.DatabaseError) -> StoreError:
    text = str(error)
    if "malformed" in text or "not a database" in text:
        aside = _set_aside(path)
        return StoreDamaged(
            f"The database {path} is damaged ({text}). It was kept as {aside.name}; nothing was deleted."
            f" Restore a backup to {path.name}, or try: sqlite3 {aside.name} .recover | sqlite3 {path.name}."
            " Starting the server again without that begins an empty database."
        )
    if _is_busy(error):
        return StoreBusy(f"The database {path} is held by another program ({text}).")
    if "locked" in text or "locking protocol" in text or "LOCK" in getattr(error, "sqlite_errorname", ""):
        return StoreLocked(
            f"The database {path} cannot be locked ({text}). If it is on a network file system, set"
            " NaviExtension.database_url to a file on a local disk."
        )
    return StoreError(f"The database {path} cannot be opened ({text}). Check its folder's permissions and free space.")


def notice(path: Path) -> str | None:
    """What the owner of a database should know although it opens: that an earlier one was damaged and is kept."""
    kept = sorted(path.parent.glob(f"{path.name}.damaged-*"))
    kept = [name for name in kept if not name.name.endswith(("-wal", "-shm"))]
    if not kept:
        return None
    return (
        f"An earlier database was damaged and is kept as {kept[-1].name} in {path.parent}; sessions and recalls from"
        " before are in there, not lost. Recover it or move it away."
    )


def _set_aside(path: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in _COMPANIONS:
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    log.error("store_damaged", path=str(path), kept_as=str(aside))
    return aside
