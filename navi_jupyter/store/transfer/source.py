"""The SQLite database that a copy or an import reads: as of one instant, in batches of a bounded size. It is not
changed.

Not responsible for what is done with the rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ...errors import StoreError
from ..blobs import owner_key
from ..sqlite.database_file import SCHEMA_VERSION
from ..sqlite.location import COMPANIONS, attachments_folder

ROWS = 256  # rows of a batch at most
BYTES = 2**20  # of texts and conversations in a batch, unless one row has more
_OWNERS = " UNION ".join(f"SELECT owner FROM {table}" for table in ("sessions", "recalls", "attachments", "facts"))
Values = tuple[object, ...] | Mapping[str, object]


class Source:
    """See above. Made by :func:`reading`; used in one thread."""

    def __init__(self, path: Path, file: sqlite3.Connection, contents: Path) -> None:
        self.path = path
        self._file = file
        self.contents = contents  # the folder of attachments

    def rows(self, sql: str, values: Values = ()) -> sqlite3.Cursor:
        """The rows of a statement, read as they are asked for."""
        return self._file.execute(sql, values)

    def batches(self, sql: str, values: Values = ()) -> Iterator[list[sqlite3.Row]]:
        """The same, some at a time."""
        batch: list[sqlite3.Row] = []
        size = 0
        for row in self.rows(sql, values):
            batch.append(row)
            size += sum(len(value) for value in row if isinstance(value, str | bytes))
            if len(batch) >= ROWS or size >= BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def owners(self) -> list[str]:
        """The users who have something in it."""
        return sorted(row["owner"] for row in self.rows(_OWNERS))

    def is_in_use(self, at: int) -> bool:
        """Whether a server has promised to live beyond ``at`` (microseconds since 1970)."""
        return self.rows("SELECT 1 FROM servers WHERE lease_until > ?", (at,)).fetchone() is not None

    def remember(self, table: str, ids: Iterable[str]) -> None:
        """Make a table of ids, for conditions of later statements; it is not in the file."""
        self._file.execute(f"CREATE TEMP TABLE {table} (id TEXT PRIMARY KEY) WITHOUT ROWID")
        self._file.executemany(f"INSERT INTO {table} (id) VALUES (?)", ((one,) for one in ids))

    def content(self, owner: str, sha256: str) -> bytes | None:
        """Of attachments. None: its file is gone."""
        try:
            return (self.contents / owner_key(owner) / sha256).read_bytes()
        except FileNotFoundError:
            return None


@contextmanager
def reading(path: Path, contents: Path | None = None) -> Iterator[Source]:
    """The database at ``path``, of this version. ``contents``: where its attachments are, if not beside it.

    Raises StoreError, sqlite3.Error.
    """
    file = read_only(path)
    try:
        file.row_factory = sqlite3.Row
        file.execute("BEGIN")
        version = file.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise StoreError(f"{path} has schema {version}, not {SCHEMA_VERSION}.")
        yield Source(path, file, contents or attachments_folder(path))
    finally:
        file.close()


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing. Raises sqlite3.Error."""
    uri = path.absolute().as_uri()
    file = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None)
    try:
        file.execute("SELECT count(*) FROM sqlite_schema")
    except sqlite3.OperationalError:
        file.close()
        # A disk on which no companion files can be made. What is in such a file is not in the database alone.
        if any(path.with_name(path.name + companion).exists() for companion in COMPANIONS):
            raise
        return sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    return file
