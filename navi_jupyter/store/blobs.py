"""The content of attachments, by its owner and its hash: never rewritten. As files beside a database (``FileBlobs``).

Not responsible for which content is still needed, nor for who may read it (``attachments``).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Protocol

BlobKey = tuple[str, str]
"""The owner, as :func:`owner_key` has it, and the content's SHA-256 in hexadecimal."""


class Blobs(Protocol):
    """Where content is kept. It is there before its row is, and goes after it."""

    place: str  # for people: where it is

    async def put(self, key: BlobKey, content: bytes, *, draft: str) -> None:
        """Whole or not at all, and on the disk when it returns. ``draft``: a name that no other call has.

        Raises OSError; of another store than files, StoreError.
        """

    async def get(self, key: BlobKey) -> bytes | None:
        """None: it is gone."""

    async def remove_strays(self, known: Collection[BlobKey], *, before: datetime) -> None:
        """Remove what is not ``known``, and was not put later than ``before``: its row may be about to come."""


def owner_key(owner: str) -> str:
    """A user name may be anything; a folder's may not."""
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


class FileBlobs:
    """Files in a folder. Implements :class:`Blobs`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = str(folder)

    async def put(self, key: BlobKey, content: bytes, *, draft: str) -> None:
        await asyncio.to_thread(self._put, key, content, draft)

    async def get(self, key: BlobKey) -> bytes | None:
        try:
            return await asyncio.to_thread(self._path(key).read_bytes)
        except FileNotFoundError:
            return None

    async def remove_strays(self, known: Collection[BlobKey], *, before: datetime) -> None:
        await asyncio.to_thread(self._remove_strays, known, before)

    def _path(self, key: BlobKey) -> Path:
        owner, sha256 = key
        return self._folder / owner / sha256

    def _put(self, key: BlobKey, content: bytes, draft_name: str) -> None:
        path = self._path(key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size == len(content):
            os.utime(path)  # so that a sweep of strays leaves it alone until its row is there
            return
        draft = path.with_name(f".{draft_name}")
        try:
            with open(draft, "xb", opener=_private) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            with contextlib.suppress(OSError):  # a disk that is read-only by now
                draft.unlink(missing_ok=True)
        _sync_folder(path.parent)

    def _remove_strays(self, known: Collection[BlobKey], before: datetime) -> None:
        for path in self._folder.glob("*/*"):
            with contextlib.suppress(OSError):
                old = path.stat().st_mtime < before.timestamp()
                if old and (path.parent.name, path.name) not in known:
                    path.unlink()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut, where a folder can be synced."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
