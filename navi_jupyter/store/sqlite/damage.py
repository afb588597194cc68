"""Files that cannot be used as the database: whether they are ours, what is wrong with them, and how they are kept.

Ours and damaged: set aside whole, so that a new one can begin. Not ours: not touched at all.
Not responsible for finding out (``database_file`` opens and checks).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ...errors import StoreBusy, StoreDamaged, StoreError, StoreForeign, StoreLocked
from ...log_setup import get_logger
from .file_state import LEAST, record_beside
from .location import STATE
from .locking import is_busy

log = get_logger("store")

APPLICATION_ID = 0x4E415649  # ``NAVI``: marks our files, so that another program's is not taken for one
_MOVED = ("", "-wal", "-shm", STATE)
_FRAMES = 4096  # of a write-ahead log that are searched for the first page of the database
_ELSE = "Nothing was changed. Set NaviExtension.database_url to a file of its own, or move this one away."


def refuse_foreign(path: Path) -> None:
    """Raise StoreForeign when there is a file and it is not one of ours. It is only read.

    Before SQLite opens it for writing, which would take over what another program has not committed yet.
    """
    if not path.exists() or not path.stat().st_size:
        return
    try:
        application, tables = header_of(path)
    except sqlite3.DatabaseError as error:
        if is_ours(path):
            return  # and damaged
        raise StoreForeign(f"{path} is no database of Navi ({error}). {_ELSE}") from error
    logged = list(_logged(path))
    if application == APPLICATION_ID or any(page.application == APPLICATION_ID for page in logged):
        return
    short = path.stat().st_size < LEAST and not is_ours(path)
    if tables or application or short or any(page.tables for page in logged):
        raise StoreForeign(f"{path} is another program's file. {_ELSE}")


def header_of(path: Path) -> tuple[int, int]:
    """The application id and the number of tables and indexes, without the log. Raises sqlite3.DatabaseError.

    Through SQLite: to close a handle of our own would drop all locks that this process holds on the file.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as connection:
        application: int = connection.execute("PRAGMA application_id").fetchone()[0]
        tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    return application, tables


def is_ours(path: Path) -> bool:
    """Whether anything shows that the file is, or was, a database of ours: its header, its log, what is beside it."""
    if _application_of(path) == APPLICATION_ID or any(page.application == APPLICATION_ID for page in _logged(path)):
        return True
    return record_beside(path) is not None or any(path.parent.glob(f"{_glob(path.name)}.v[0-9]*.bak"))


def _glob(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _application_of(path: Path) -> int:
    """The application id in the file's header, also where the rest of the file is damaged; 0 when there is none."""
    with contextlib.suppress(sqlite3.Error):
        return header_of(path)[0]
    # A handle of our own, since SQLite does not read it: no connection of this process works on such a file.
    with contextlib.suppress(OSError), path.open("rb") as file:
        header = file.read(100)
        if header.startswith(b"SQLite format 3\0") and len(header) == 100:
            return int.from_bytes(header[68:72])
    return 0


class _FirstPage(NamedTuple):
    """The first page of a database, as a write-ahead log has it."""

    application: int
    tables: bool


def _logged(path: Path) -> Iterator[_FirstPage]:
    """The first pages in the write-ahead log, which carries no locks: a handle of our own does no harm."""
    with contextlib.suppress(OSError), path.with_name(f"{path.name}-wal").open("rb") as wal:
        size = int.from_bytes(wal.read(32)[8:12])
        for _ in range(_FRAMES if 512 <= size <= 65536 else 0):
            header, page = wal.read(24), wal.read(size)
            if len(page) < size:
                return
            if int.from_bytes(header[:4]) == 1:
                is_leaf = page[100] == 13  # a table's; another kind has pages below it, so there are many tables
                tables = not is_leaf or page[103:105] != b"\0\0"
                yield _FirstPage(int.from_bytes(page[68:72]), tables)


def explained(path: Path, error: sqlite3.DatabaseError) -> StoreError:
    """An error at opening as one that says what to do; a file of ours that is damaged is set aside."""
    text = str(error)
    if "malformed" in text or "not a database" in text:
        if not is_ours(path):
            return StoreDamaged(f"The database {path} is damaged ({text}). {_ELSE}")
        aside = _set_aside(path)
        return StoreDamaged(
            f"The database {path} is damaged ({text}). It was kept as {aside.name}; nothing was deleted."
            f" Restore a backup to {path.name}, or try: sqlite3 {aside.name} .recover | sqlite3 {path.name}."
            " Starting the server again without that begins an empty database."
        )
    if is_busy(error):
        return StoreBusy(f"The database {path} is held by another program ({text}).")
    if "locked" in text or "locking protocol" in text or "LOCK" in getattr(error, "sqlite_errorname", ""):
        return StoreLocked(
            f"The database {path} cannot be locked ({text}). If it is on a network file system, set"
            " NaviExtension.database_url to a file on a local disk."
        )
    return StoreError(f"The database {path} cannot be opened ({text}). Check its folder's permissions and free space.")


def notice(path: Path) -> str | None:
    """What the owner of a database should know although it opens: that an earlier one was damaged and is kept."""
    kept = sorted(path.parent.glob(f"{_glob(path.name)}.damaged-*"))
    kept = [name for name in kept if not name.name.endswith(_MOVED[1:])]
    if not kept:
        return None
    return (
        f"An earlier database was damaged and is kept as {kept[-1].name} in {path.parent}; sessions and recalls from"
        " before are in there, not lost. Recover it or move it away."
    )


def _set_aside(path: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in _MOVED:
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    log.error("store_damaged", path=str(path), kept_as=str(aside))
    return aside
