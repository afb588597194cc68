"""A SQLite database copied into an empty PostgreSQL database, with all ids and numbers.

One transaction: afterwards everything is there, or nothing. The file is read as of one instant and not changed; its
servers should be stopped first, since what they write later is not copied.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ...errors import StoreError
from ..blobs import owner_key
from ..sqlite.database_file import SCHEMA_VERSION as FILE_VERSION
from ..sqlite.location import attachments_folder
from .blobs import PART
from .dialect import storable
from .migrations import WRITING, locks_of
from .text_index import ts_vector

TABLES = (
    *("sessions", "events", "commands", "runs", "compactions", "interrupts", "attachments", "attachment_uses"),
    *("facts", "recalls", "firings", "reads", "notices", "absences", "notebook_edits", "shown_notebooks", "results"),
    *("shares", "message_texts", "preferences", "ended", "user_entries"),
)
"""In an order in which each row's references are there before it. Not ``servers``: those of the file have ended."""
ROWS = 100  # rows that are sent at once: those of runs have their conversations


async def copy_database(source: Path, connection: Any, schema: str) -> dict[str, int]:
    """Copy all rows; how many of each table. The target has its tables, and no session.

    Raises StoreError; sqlite3.Error, or what the driver raises.
    """
    with closing(_read_only(source)) as file:
        file.row_factory = sqlite3.Row
        file.execute("BEGIN")
        version = file.execute("PRAGMA user_version").fetchone()[0]
        if version != FILE_VERSION:
            raise StoreError(
                f"{source} has schema {version}, not {FILE_VERSION}: start a server on it once, which brings it up."
            )
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", locks_of(schema), WRITING)
            if await connection.fetchval("SELECT EXISTS (SELECT 1 FROM sessions)"):
                raise StoreError("The PostgreSQL database has sessions already; copy into an empty one.")
            counts = {}
            for table in TABLES:
                # What its triggers would do is among the rows that are copied.
                await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
                counts[table] = await _copy_table(file, connection, table)
                await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
            await _index_texts(file, connection)
            counts["blobs"] = await _copy_contents(file, connection, attachments_folder(source))
    return counts


def _read_only(source: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)


async def _copy_table(file: sqlite3.Connection, connection: Any, table: str) -> int:
    found = await connection.fetch(
        "SELECT column_name, is_identity FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND table_name = $1",
        table,
    )
    identity = [row["column_name"] for row in found if row["is_identity"] == "YES"]
    rows = file.execute(f"SELECT * FROM {table}")
    columns = [column[0] for column in rows.description]
    if missing := set(columns) - {row["column_name"] for row in found}:
        raise StoreError(f"The PostgreSQL database has no column {table}.{min(missing)}: run navi db upgrade first.")
    copied = 0
    for batch in _batches(rows):
        values = [tuple(map(storable, row)) for row in batch]
        await connection.copy_records_to_table(table, records=values, columns=columns)
        copied += len(batch)
    for column in identity:
        # The next number is after the highest one that there ever was, as AUTOINCREMENT has it.
        highest = file.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()[0]
        if highest:
            await connection.execute(f"SELECT setval(pg_get_serial_sequence($1, '{column}'), $2)", table, highest)
    return copied


async def _index_texts(file: sqlite3.Connection, connection: Any) -> None:
    """The words of facts and messages, made anew: each engine has its own index."""
    for batch in _batches(file.execute("SELECT number, text FROM facts")):
        await connection.executemany(
            "INSERT INTO facts_text (number, words) VALUES ($1, $2::text::tsvector)",
            [(row["number"], ts_vector(str(storable(row["text"])))) for row in batch],
        )
    texts = file.execute(
        "SELECT rowid AS number, text FROM message_index WHERE rowid IN (SELECT number FROM message_texts)"
    )
    for batch in _batches(texts):
        await connection.executemany(
            "INSERT INTO message_index (number, text, words) VALUES ($1, $2, $3::text::tsvector)",
            [(row["number"], text := str(storable(row["text"])), ts_vector(text)) for row in batch],
        )


async def _copy_contents(file: sqlite3.Connection, connection: Any, folder: Path) -> int:
    """The content of attachments; one whose file is gone is left out, as it is when it is read."""
    copied = 0
    for row in file.execute("SELECT owner, sha256, max(created_at) AS at FROM attachments GROUP BY owner, sha256"):
        path = folder / owner_key(row["owner"]) / row["sha256"]
        if not path.is_file():
            continue
        content = path.read_bytes()
        parts = [content[start : start + PART] for start in range(0, len(content), PART)]
        await connection.copy_records_to_table(
            "blobs",
            records=[(path.parent.name, path.name, n, part, len(parts), row["at"]) for n, part in enumerate(parts)],
            columns=("owner", "sha256", "part", "content", "of_parts", "put_at"),
        )
        copied += 1
    return copied


def _batches(rows: sqlite3.Cursor) -> Iterator[list[sqlite3.Row]]:
    while batch := rows.fetchmany(ROWS):
        yield batch
