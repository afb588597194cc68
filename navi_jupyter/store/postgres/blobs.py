"""The content of attachments as rows of the database, in parts: a row of tens of megabytes would be read as a whole."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

from ...clock import now
from ..blobs import BlobKey
from ..rows import to_micros

if TYPE_CHECKING:
    from ..database import Database, Transaction

PART = 2**20  # bytes
_PUT = (
    "INSERT INTO blobs (owner, sha256, part, content, of_parts, put_at) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (owner, sha256, part) DO UPDATE SET put_at = excluded.put_at"
)


class PostgresBlobs:
    """Implements :class:`navi_jupyter.store.blobs.Blobs`."""

    place = "the database"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, key: BlobKey, content: bytes, *, draft: str) -> None:
        del draft  # the number of its parts shows whether it is whole
        at = to_micros(now())
        parts = [content[start : start + PART] for start in range(0, len(content), PART)]

        async def renew(tx: Transaction) -> bool:
            # So that a sweep of strays leaves it alone until its row is there.
            known = await tx.change("UPDATE blobs SET put_at = ? WHERE owner = ? AND sha256 = ?", (at, *key))
            return known == len(parts)

        if await self._database.write(renew, durable=True):
            return
        # Each part in a transaction of its own: others that write wait for it.
        for number, part in enumerate(parts):
            values = (*key, number, part, len(parts), at)
            await self._database.write(lambda tx, values=values: tx.change(_PUT, values), durable=True)  # type: ignore[misc]

    async def get(self, key: BlobKey) -> bytes | None:
        rows = await self._database.fetch_all(
            "SELECT content, of_parts FROM blobs WHERE owner = ? AND sha256 = ? ORDER BY part", key
        )
        is_whole = bool(rows) and len(rows) == rows[0]["of_parts"]
        return b"".join(row["content"] for row in rows) if is_whole else None

    async def remove_strays(self, known: Collection[BlobKey], *, before: datetime) -> None:
        old = await self._database.fetch_all(
            "SELECT DISTINCT owner, sha256 FROM blobs WHERE put_at < ?", (to_micros(before),)
        )
        strays = [key for row in old if (key := (row["owner"], row["sha256"])) not in known]

        async def unit(tx: Transaction) -> None:
            for key in strays:
                # Unless it was put again meanwhile.
                await tx.change(
                    "DELETE FROM blobs WHERE owner = ? AND sha256 = ? AND put_at < ?", (*key, to_micros(before))
                )

        if strays:
            await self._database.write(unit)
