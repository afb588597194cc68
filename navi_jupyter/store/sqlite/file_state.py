"""The files of an open database: whether they are still those at their path, and a record of the last commit.

SQLite goes on with files that were deleted or replaced: everything would be accepted, and gone at the next start. It
also takes a database without its write-ahead log for whole. Not responsible for what is done about either (``sqlite``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...errors import StoreLocked
from ...log_setup import get_logger
from .location import STATE

log = get_logger("store")

Identity = tuple[int, int]  # device and inode

_Written = tuple[int, int]  # when it was last written, in nanoseconds, and its size
LEAST = 512  # bytes of the smallest database; SQLite takes a shorter file for empty
_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
_CHECKPOINT = 0.2  # seconds between two looks at a file that seems to be another one

_RECORD = 160  # bytes: always as long, so that writing it needs no space on a disk that became full


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """The database's own row about itself, or the record beside it."""

    database: str  # made up when its tables were created
    committed_at: int  # of the last commit, in microseconds since 1970; it only grows
    in_use: bool = False  # whether no server has closed it in order since its last commit


_NEVER = 253_402_300_800_000_000  # microseconds: the year 10000, which no date shows


def record_of(connection: sqlite3.Connection) -> CommitRecord:
    """The row in the database. Raises sqlite3.Error, also where somebody has removed it."""
    row = connection.execute("SELECT name, committed_at, in_use FROM database_state").fetchone()
    if row is None:
        raise sqlite3.OperationalError("its table database_state has no row")
    return CommitRecord(row[0], row[1], bool(row[2]))


def record_beside(path: Path) -> CommitRecord | None:
    """The record in the file beside the database; None when there is none that can be read."""
    try:
        with path.with_name(path.name + STATE).open("rb") as file:
            found = json.loads(file.read(_RECORD))  # what is behind it is not ours
        at = int(found["committed_at"])
        return CommitRecord(str(found["database"]), at) if 0 <= at < _NEVER else None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def missing_changes(inside: CommitRecord, beside: CommitRecord | None, *, has_log: bool) -> str | None:
    """What to tell the owner of a database that does not have all that was committed to it. Pure.

    ``has_log``: whether there was a write-ahead log before it was opened.
    """
    if beside is not None and beside.database == inside.database:
        if inside.committed_at >= beside.committed_at:
            return None
        return (
            f"Changes are missing: what was saved from {_shown(inside.committed_at)} until"
            f" {_shown(beside.committed_at)} is not in the database. Its write-ahead log (the file that ends with -wal)"
            " was removed or cut off, or an older copy of the database was put in its place. If you have that file,"
            " stop the server and put it back."
        )
    if not inside.in_use or has_log:
        return None
    return (
        f"Changes may be missing: what was saved after {_shown(inside.committed_at)} was in a write-ahead log (the file"
        " that ends with -wal), which is not there although no server has closed the database in order. It was removed,"
        " or the database was copied without it. If you have that file, stop the server and put it back."
    )


def _shown(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class DatabaseFiles:
    """The files of one open database. ``changed`` may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        real = path.resolve()
        # The path as it was given: a link that leads to another file now has replaced the database, too.
        self._names = {"": str(path), "-wal": f"{real}-wal", "-shm": f"{real}-shm"}
        self._known: dict[str, Identity] = {}
        self._record = real.with_name(real.name + STATE)
        self._handle: int | None = None
        self._database = ""
        self._last = 0  # microseconds
        self._committed = 0  # the same, of what was committed
        self._in_file = 0  # the same, of what was last seen in the file without its log
        self.lost = (
            False  # whether the open files hold what another program wrote, so that nothing is to be added to it
        )
        self._header_seen: _Written | None = None  # as the file was when its header was last looked at
        self._content_seen: _Written | None = None  # and its content

    def open(self, inside: CommitRecord, *, alone: bool) -> None:
        """Remember which files they are, once they are open; begin the record. ``alone``: no other server may use them.

        Raises StoreLocked when another server does.
        """
        self._database, self._last = inside.database, inside.committed_at
        for companion, name in self._names.items():
            with contextlib.suppress(OSError):
                self._known[companion] = _identity(name)
        try:
            self._handle = os.open(self._record, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        except OSError as error:
            log.warning("store_record_not_written", path=str(self._record), error=error.strerror)
            return
        self._claim(alone=alone)
        self.committed()

    def _claim(self, *, alone: bool) -> None:
        if sys.platform == "win32" or self._handle is None:  # there, an open file can be neither deleted nor replaced
            return
        import fcntl  # late: not on Windows

        try:
            fcntl.flock(self._handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise StoreLocked(
                f"Another server uses the database {self._path}, and database_single_process promises that one server"
                " alone does. Stop the other one, or use a local disk without that setting."
            ) from None
        except OSError as error:  # such a file system has no such locks; those of SQLite were tried
            log.warning("store_record_not_locked", path=str(self._record), error=error.strerror)

    def close(self) -> None:
        """Close the record, which stays."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def replaced_within(self, database: str | None, committed_at: int | None) -> str | None:
        """Whether another program has replaced the content through SQLite (``.restore``): the row in it tells."""
        if database == self._database and committed_at is not None and committed_at >= self._committed:
            return None
        self.lost = True
        return f"The content of {self._path} was replaced by another program"

    def changed(self) -> str | None:
        """What has become of the files: None as long as they are those that were opened. Takes some 5 microseconds."""
        for companion, known in self._known.items():
            name = self._names[companion]
            try:
                status = os.stat(name)  # noqa: PTH116 - half the time of Path.stat, at each commit
            except (FileNotFoundError, NotADirectoryError):
                return f"{name} was deleted or moved" + _log_too(companion)
            except OSError:
                continue  # no permission, no answer: nothing is known, and writing will report it
            found = status.st_dev, status.st_ino
            if companion == "" and found == known:
                written = status.st_mtime_ns, status.st_size
                if written != self._header_seen:
                    if status.st_size < LEAST:
                        return f"{name} was emptied"
                    if _is_no_database(name):
                        return f"{name} was overwritten"
                    self._header_seen = written
            if found != known:
                if found not in _open_here():
                    return f"{name} was replaced by another file" + _log_too(companion)
                self._known[companion] = found  # a file system that numbers its files anew (some of FUSE do)
        return None

    def overwritten(self) -> str | None:
        """Whether another database, or an older copy, was written into the file, as ``cp`` does: the inode is the same.

        Reads the file without its log when it was changed since the last look, twice: a checkpoint may be going on.
        """
        name = self._names[""]
        for attempt in range(2):
            try:
                status = os.stat(name)  # noqa: PTH116 - as in ``changed``
            except OSError:
                return None  # ``changed`` reports it
            written = status.st_mtime_ns, status.st_size
            if written == self._content_seen:
                return None
            found = _record_in(name)
            if found is None or (found.database == self._database and found.committed_at >= self._in_file):
                self._content_seen = written
                self._in_file = self._in_file if found is None else found.committed_at
                return None
            if attempt == 0:
                time.sleep(_CHECKPOINT)
        return f"{name} was overwritten with another database, or an older one"

    def look_closely(self) -> str | None:
        """:meth:`changed`, or :meth:`overwritten`."""
        return self.changed() or self.overwritten()

    async def copy_to(self, place: Path, back_up: Callable[[sqlite3.Connection], Awaitable[None]]) -> str | None:
        """Write a copy of the open database; what is wrong with it, when the files were overwritten before it could be
        made. Raises sqlite3.Error, OSError."""
        await asyncio.to_thread(place.touch, 0o600, exist_ok=False)
        try:
            with closing(sqlite3.connect(place, check_same_thread=False)) as copy:
                await back_up(copy)
            return await asyncio.to_thread(self.damage_of_copy, place)
        except BaseException:
            place.unlink(missing_ok=True)  # noqa: ASYNC240 - a half copy must not be taken for a whole one
            raise

    def damage_of_copy(self, place: Path) -> str | None:
        """What is wrong with a copy of the open database, as the end of a sentence: None when it is whole and of it.

        Raises sqlite3.Error when it cannot be written.
        """
        try:
            set_closed(place)
            with closing(sqlite3.connect(place)) as copy:
                record = record_of(copy)
                if self.lost or self.replaced_within(record.database, record.committed_at) is not None:
                    return "has what the other program wrote"
                damage = damage_of(copy)
                return None if damage is None else f"is damaged ({damage})"
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK:
                raise
            return f"is damaged ({error})"

    def next_commit(self) -> int:
        """When the present transaction is made, in microseconds since 1970: later than any before."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last

    def committed(self) -> None:
        """Record beside the database that this transaction was committed. No disk is waited for."""
        self._committed = self._last
        if self._handle is None:
            return
        content = json.dumps({"database": self._database, "committed_at": self._last})
        with contextlib.suppress(OSError):
            os.lseek(self._handle, 0, os.SEEK_SET)  # no pwrite: Windows has none
            os.write(self._handle, f"{content:<{_RECORD - 1}}\n".encode())


def damage_of(connection: sqlite3.Connection) -> str | None:
    """What is wrong with the file, or None. Raises sqlite3.DatabaseError when it cannot even be read.

    ``quick_check`` of some versions of SQLite reports problems that do not exist: each is checked again.
    """
    for check in ("quick_check", "integrity_check"):
        found: str = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
        if found == "ok":
            return None
    return found


def _is_no_database(name: str) -> bool:
    try:
        with closing(_without_log(name)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB
    return False


def _record_in(name: str) -> CommitRecord | None:
    """What the file says of itself without its log; None when nothing (it may be in the log)."""
    try:
        with closing(_without_log(name)) as connection:
            return record_of(connection)
    except sqlite3.Error:
        return None


def _without_log(name: str) -> sqlite3.Connection:
    # Through SQLite: to close a handle of our own would drop all locks that this process holds on the file.
    return sqlite3.connect(f"{Path(name).absolute().as_uri()}?immutable=1", uri=True)


def _log_too(companion: str) -> str:
    return "" if companion == "" else ", which belongs to the open database"


def _identity(name: str) -> Identity:
    status = os.stat(name)  # noqa: PTH116 - half the time of Path.stat, at each commit
    return status.st_dev, status.st_ino


def _open_here() -> set[Identity]:
    """The files that this process has open, on Linux."""
    found: set[Identity] = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found.add(_identity(entry.path))
    return found


def rescue_places(path: Path) -> Iterator[Path]:
    """Where a copy of the open database ``path`` can be written: beside it, above its folder, among temporary files."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    name = f"{path.name}.recovered-{stamp}-{os.getpid()}"
    above = [folder for folder in path.absolute().parents if folder.is_dir()]
    for folder in (*above[:1], Path(tempfile.gettempdir())):
        yield folder / name


def set_closed(place: Path) -> None:
    """Mark a copy as a whole database of its own: it needs no log that was left elsewhere. Raises sqlite3.Error."""
    with closing(sqlite3.connect(place, isolation_level=None)) as copy:
        # No log and no shared memory: the copy may be on any file system, and is one file.
        copy.execute("PRAGMA journal_mode = DELETE")
        copy.execute("UPDATE database_state SET in_use = 0")
