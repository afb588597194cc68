"""A SQLite database copied into an empty PostgreSQL database, with all ids and numbers.

One transaction: afterwards everything is there, or nothing. The file is read as of one instant and not changed; its
servers should be stopped first, since what they write later is not copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import StoreError
from ..blobs import owner_key
from ..transfer.source import Source
from ..transfer.tables import TABLES
from .blobs import PART
from .dialect import storable
from .migrations import WRITING, locks_of
from .text_index import ts_vector


async def copy_database(source: Source, connection: Any, schema: str, report: Callable[[str], None]) -> dict[str, int]:
    """Copy all rows; how many of each table. The target has its tables, and no session. ``report``: a line for somebody
    who waits.

    Raises StoreError; sqlite3.Error, or what the driver raises.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", locks_of(schema), WRITING)
        if await connection.fetchval("SELECT EXISTS (SELECT 1 FROM sessions)"):
            raise StoreError("The PostgreSQL database has sessions already; copy into an empty one, or import.")
        counts = {}
        for table in (one.name for one in TABLES):
            # What its triggers would do is among the rows that are copied.
            await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            counts[table] = await _copy_table(source, connection, table, report)
            await connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        await _index_texts(source, connection)
        counts["blobs"] = await _copy_contents(source, connection)
    return counts


async def _copy_table(source: Source, connection: Any, table: str, report: Callable[[str], None]) -> int:
    found = await connection.fetch(
        "SELECT column_name, is_identity FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND table_name = $1",
        table,
    )
    identity = [row["column_name"] for row in found if row["is_identity"] == "YES"]
    columns = [column[0] for column in source.rows(f"SELECT * FROM {table} WHERE 0").description]
    if missing := set(columns) - {row["column_name"] for row in found}:
        raise StoreError(f"The PostgreSQL database has no column {table}.{min(missing)}: run navi db upgrade first.")
    copied = 0
    for batch in source.batches(f"SELECT * FROM {table}"):
        values = [tuple(map(storable, row)) for row in batch]
        await connection.copy_records_to_table(table, records=values, columns=columns)
        copied += len(batch)
        report(f"{table}: {copied} rows")
    for column in identity:
        # The next number is after the highest one that there ever was, as AUTOINCREMENT has it.
        highest = source.rows("SELECT max(seq) FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()[0]
        if highest:
            await connection.execute(f"SELECT setval(pg_get_serial_sequence($1, '{column}'), $2)", table, highest)
    return copied


async def _index_texts(source: Source, connection: Any) -> None:
    """The words of facts and messages, made anew: each engine has its own index."""
    for batch in source.batches("SELECT number, text FROM facts"):
        await connection.executemany(
            "INSERT INTO facts_text (number, words) VALUES ($1, $2::text::tsvector)",
            [(row["number"], ts_vector(str(storable(row["text"])))) for row in batch],
        )
    texts = source.batches(
        "SELECT rowid AS number, text FROM message_index WHERE rowid IN (SELECT number FROM message_texts)"
    )
    for batch in texts:
        await connection.executemany(
            "INSERT INTO message_index (number, text, words) VALUES ($1, $2, $3::text::tsvector)",
            [(row["number"], text := str(storable(row["text"])), ts_vector(text)) for row in batch],
        )


async def _copy_contents(source: Source, connection: Any) -> int:
    """The content of attachments; one whose file is gone is left out, as it is when it is read."""
    copied = 0
    for row in source.rows("SELECT owner, sha256, max(created_at) AS at FROM attachments GROUP BY owner, sha256"):
        content = source.content(row["owner"], row["sha256"])
        if content is None:
            continue
        key = (owner_key(row["owner"]), row["sha256"])
        parts = [content[start : start + PART] for start in range(0, len(content), PART)]
        await connection.copy_records_to_table(
            "blobs",
            records=[(*key, n, part, len(parts), row["at"]) for n, part in enumerate(parts)],
            columns=("owner", "sha256", "part", "content", "of_parts", "put_at"),
        )
        copied += 1
    return copied
