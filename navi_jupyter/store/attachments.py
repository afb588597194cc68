"""Attachments: what is known of each, in the database; their content is where ``blobs`` keeps it.

Implements :class:`navi_jupyter.ports.agent.Attachments`. Not responsible for who may see one (``owner`` is what the
server authenticated) nor for what a model takes.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime, timedelta

from ..clock import now
from ..errors import AttachmentNotFound, AttachmentRefused, LimitReached, StoreError
from ..log_setup import get_logger
from ..model.attachments import Attachment
from ..model.base import new_id
from .blobs import BlobKey, Blobs, owner_key
from .database import Database, Transaction
from .rows import from_micros, to_micros
from .statements import Row

log = get_logger("store")

UNUSED_AFTER = timedelta(days=1)  # how long one stays that no session shows
READ_AT_ONCE = 4  # attachments that are read from the disk at the same time
_STRAY_AFTER = timedelta(hours=1)  # how long a file stays that has no row: its row may be about to come


class AttachmentStore:
    def __init__(
        self,
        store: Database,
        *,
        blobs: Blobs | None = None,
        max_bytes: int = 20 * 2**20,
        max_bytes_per_user: int = 2**30,
    ) -> None:
        """``blobs``: where their content goes, if it is not with the database."""
        self._store = store
        self._blobs = blobs or store.blobs
        self.max_bytes = max_bytes
        self._max_bytes_per_user = max_bytes_per_user
        self._reading = asyncio.Semaphore(READ_AT_ONCE)

    async def add(
        self, content: bytes, *, name: str | None, media_type: str | None, owner: str, session_id: str | None = None
    ) -> Attachment:
        attachment = await asyncio.to_thread(self._describe, content, name, media_type, owner)
        if (failure := await self._store.failure()) is not None:
            raise failure  # before there is a file that no row will name
        try:
            await self._blobs.put(_key_of(attachment), content, draft=attachment.id)
        except OSError as error:
            log.error("attachment_not_stored", place=self._blobs.place, error=error.strerror)
            raise StoreError(
                f"{attachment.name} cannot be stored ({error.strerror or error}). Check the free space and the"
                " permissions of the folder that has Navi's database, and try again."
            ) from error

        async def unit(tx: Transaction) -> Attachment:
            kept = await self._known(tx, attachment)
            if kept is None:
                await self._check_room(tx, attachment)
                await _insert(tx, attachment)
                kept = attachment
            if session_id is not None:
                await _use(tx, session_id, (kept.id,))
            return kept

        return await self._store.write(unit, durable=True)

    async def keep(self, attachment_ids: Sequence[str], *, session_id: str) -> None:
        if attachment_ids:
            await self._store.write(lambda tx: _use(tx, session_id, attachment_ids))

    async def find(self, attachment_id: str, *, owner: str) -> Attachment:
        row = await self._store.fetch_one(
            "SELECT * FROM attachments WHERE id = ? AND owner = ?", (attachment_id, owner)
        )
        if row is None:
            raise AttachmentNotFound(f"There is no attachment {attachment_id[:100]}.")
        return _attachment_of(row)

    async def owner_for(self, attachment_id: str, user_id: str) -> str:
        """Whose attachment the user may read: that of an owner who shares a session that shows it; else the user's."""
        row = await self._store.fetch_one(
            "SELECT a.owner FROM attachments a JOIN attachment_uses u ON u.attachment_id = a.id"
            " JOIN sessions s ON s.id = u.session_id AND s.owner = a.owner AND s.deleted_at IS NULL"
            " JOIN shares ON shares.session_id = s.id WHERE a.id = ? AND shares.user_id = ? LIMIT 1",
            (attachment_id, user_id),
        )
        return user_id if row is None else str(row["owner"])

    async def read(self, attachment_id: str, *, owner: str) -> bytes:
        attachment = await self.find(attachment_id, owner=owner)
        try:
            # Whole in memory before it is known whether there is room for the answer: so only some at once.
            async with self._reading:
                content = await self._blobs.get(_key_of(attachment))
        except OSError as error:
            log.error("attachment_unreadable", attachment_id=attachment_id, error=error.strerror)
            content = None
        if content is None:
            raise AttachmentNotFound(f"The content of the attachment {attachment.name} is gone.")
        return content

    async def sweep(self, *, at: datetime | None = None) -> int:
        """Remove what no session shows any more, and content without a row; how many rows went."""
        before = (at or now()) - UNUSED_AFTER

        async def unit(tx: Transaction) -> int:
            return await tx.change(
                "DELETE FROM attachments WHERE created_at < ?"
                " AND NOT EXISTS (SELECT 1 FROM attachment_uses u WHERE u.attachment_id = attachments.id)",
                (to_micros(before),),
            )

        removed = await self._store.write(unit)
        rows = await self._store.fetch_all("SELECT DISTINCT owner, sha256 FROM attachments")
        known = {(owner_key(row["owner"]), row["sha256"]) for row in rows}
        await self._blobs.remove_strays(known, before=(at or now()) - _STRAY_AFTER)
        return removed

    @staticmethod
    async def _known(tx: Transaction, attachment: Attachment) -> Attachment | None:
        row = await tx.one(
            "SELECT * FROM attachments WHERE owner = ? AND sha256 = ? AND name = ? AND media_type = ?",
            (attachment.owner, attachment.sha256, attachment.name, attachment.media_type),
        )
        return None if row is None else _attachment_of(row)

    async def _check_room(self, tx: Transaction, attachment: Attachment) -> None:
        row = await tx.one(
            "SELECT coalesce(sum(size), 0) AS used FROM"
            " (SELECT max(size) AS size FROM attachments WHERE owner = ? GROUP BY sha256) AS stored",
            (attachment.owner,),
        )
        used = 0 if row is None else int(row["used"])
        if used + attachment.size > self._max_bytes_per_user:
            raise LimitReached(
                f"Your attachments take {used // 2**20} of {self._max_bytes_per_user // 2**20} MiB already;"
                " delete sessions that you do not need."
            )

    def _describe(self, content: bytes, name: str | None, media_type: str | None, owner: str) -> Attachment:
        name = _clean(name)
        if not content:
            raise AttachmentRefused(f"{name or 'The attachment'} is empty.")
        if len(content) > self.max_bytes:
            limit = f"{self.max_bytes / 2**20:.3g} MiB"
            raise AttachmentRefused(f"{name or 'The attachment'} is larger than {limit} (max_attachment_bytes).")
        kind = media_type_of(content, name=name)
        if kind is None:
            raise AttachmentRefused(
                f"{name or 'The attachment'} is of a kind that is not taken: PNG, JPEG, GIF, WebP and SVG images, PDF"
                " and UTF-8 text are."
            )
        if media_type and media_type.startswith("text/") and kind.startswith("text/"):
            kind = media_type  # which kind of text it is, only the sender knows
        return Attachment(
            id=new_id("a"),
            owner=owner,
            name=name or f"{kind.partition('/')[0]}.{_ENDINGS.get(kind, 'txt')}",
            media_type=kind,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            created_at=now(),
        )


_ENDINGS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/svg+xml": "svg",
    "application/pdf": "pdf",
}


def _key_of(attachment: Attachment) -> BlobKey:
    return owner_key(attachment.owner), attachment.sha256


def _clean(name: str | None) -> str | None:
    """The last part of a name, without what terminals, headers and file systems trip over."""
    if name is None:
        return None
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(char for char in last if unicodedata.category(char)[0] != "C").strip()
    return kept[:255] or None


async def _insert(tx: Transaction, attachment: Attachment) -> None:
    await tx.change(
        "INSERT INTO attachments (id, owner, name, media_type, size, sha256, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            attachment.id,
            attachment.owner,
            attachment.name,
            attachment.media_type,
            attachment.size,
            attachment.sha256,
            to_micros(attachment.created_at),
        ),
    )


async def _use(tx: Transaction, session_id: str, attachment_ids: Sequence[str]) -> None:
    """Those that are gone, and a session that is, are passed over."""
    for attachment_id in attachment_ids:
        await tx.change(
            "INSERT INTO attachment_uses (session_id, attachment_id)"
            " SELECT s.id, a.id FROM sessions s, attachments a WHERE s.id = ? AND a.id = ? ON CONFLICT DO NOTHING",
            (session_id, attachment_id),
        )


def _attachment_of(row: Row) -> Attachment:
    return Attachment(
        id=row["id"],
        owner=row["owner"],
        name=row["name"],
        media_type=row["media_type"],
        size=row["size"],
        sha256=row["sha256"],
        created_at=from_micros(row["created_at"]),
    )


_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
)
_SVG = re.compile(r"\A\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg[\s>]", re.DOTALL)
_TEXT_BY_ENDING = {
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "md": "text/markdown",
    "html": "text/html",
    "htm": "text/html",
    "json": "application/json",
    "ipynb": "application/x-ipynb+json",
    "py": "text/x-python",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "toml": "application/toml",
}
_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")
"""Bytes that no text has; tabs, line and page breaks and terminals' escapes are text."""


def media_type_of(content: bytes, *, name: str | None = None) -> str | None:
    """The media type; None for a binary that is none of those that are taken. Text is UTF-8 without control codes."""
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if not _is_text(content):
        return None
    if _SVG.match(content[:4096].decode("utf-8", "ignore")):
        return "image/svg+xml"
    ending = (name or "").rpartition(".")[2].lower()
    return _TEXT_BY_ENDING.get(ending, "text/plain")


def is_text(media_type: str) -> bool:
    """Whether the content of such a file is text that a model can read as it is."""
    return media_type.startswith("text/") or media_type in _TEXT_BY_ENDING.values() or media_type == "image/svg+xml"


def _is_text(content: bytes) -> bool:
    if _CONTROL.search(content):
        return False
    try:
        codecs.decode(content, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
