"""The numbered migrations of the PostgreSQL tables, each in a transaction, one server at a time.

Expand and contract: a server works with the tables of the version after its own, so that servers can be upgraded one
after the other. What an older server needs is removed one version later.
"""

from __future__ import annotations

import re
import zlib
from importlib.resources import files
from typing import Any

from ...errors import StoreTooNew
from ...installation import upgrade_command

SCHEMA_VERSION = 5
AHEAD = 1  # versions that the tables may be ahead of this program
_TEXT = re.compile(r"^    \w+ TEXT\b", re.MULTILINE)  # a column's
MIGRATING, WRITING = 1, 2  # advisory locks, among those of a schema


async def migrate(connection: Any, schema: str, *, target: int = SCHEMA_VERSION) -> int:
    """Bring the tables to ``target``; the version that they had (0: none). Raises StoreTooNew."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", locks_of(schema), MIGRATING)
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        before = await version_of(connection)
        if before > target + AHEAD:
            raise StoreTooNew(
                f"The database was written by a newer navi-jupyter (schema {before}; this one knows {target})."
                f" Upgrade with: {upgrade_command()}"
            )
        for number in range(before + 1, target + 1):
            for script in migration_scripts(number):
                await connection.execute(script)
        if before < target:
            await connection.execute("CREATE TABLE IF NOT EXISTS navi_schema (version BIGINT NOT NULL)")
            await connection.execute("DELETE FROM navi_schema")
            await connection.execute("INSERT INTO navi_schema (version) VALUES ($1)", target)
    return before


def locks_of(schema: str) -> int:
    """The first number of a schema's advisory locks: they are the whole database's."""
    return number_of(f"navi {schema}")


def number_of(name: str) -> int:
    """31 bits of a name: a number of an advisory lock."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


async def version_of(connection: Any) -> int:
    """The version of the tables in the connection's schema; 0 where there are none."""
    if await connection.fetchval("SELECT to_regclass('navi_schema')") is None:
        return 0
    return int(await connection.fetchval("SELECT coalesce(max(version), 0) FROM navi_schema"))


def migration_scripts(version: int) -> list[str]:
    """Of one migration, in the order of the file names; text is compared byte by byte, as SQLite does."""
    return [_TEXT.sub(r'\g<0> COLLATE "C"', script) for script in _scripts(f"{version:04d}_")]


def all_scripts() -> list[str]:
    """Of all migrations, as they are written."""
    return _scripts("")


def _scripts(prefix: str) -> list[str]:
    folder = files(__package__) / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.startswith(prefix) and entry.name[0] == "0")
    return [(folder / name).read_text(encoding="utf-8") for name in names]
