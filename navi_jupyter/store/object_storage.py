"""The content of attachments as objects of an S3 bucket. Imported when ``blobs_url`` is set: its library is an extra.

Keys, region and endpoint come from the ``AWS_…`` variables, as the library reads them. What a store answers is never
logged or shown as it is: it has the id of the key, and on AWS what was signed.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from ..errors import StoreError
from ..log_setup import get_logger
from .blobs import BlobKey, Blobs

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import RetryConfig

T = TypeVar("T")
log = get_logger("store")

PART = 5 * 2**20  # bytes of an object that one request carries; S3 takes no smaller parts
PATIENCE = 20.0  # seconds for any operation, whatever the library tries meanwhile
PER_PART = 5.0  # seconds more for each part
AT_ONCE = 4  # requests of one operation at the same time
PAGE = 1000  # names that one request lists, S3's own limit
MOST_STRAYS = 5000  # that one sweep removes: each is two requests
_RETRIES: RetryConfig = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}
_OWN = "navi-database"  # the object that names the database whose attachments are here
_NAME = re.compile(r"([0-9a-f]{32})/([0-9a-f]{64})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_LIKE = "blobs_url must be like s3://bucket/prefix"


def location_of(url: str) -> str:
    """``blobs_url``, checked and without a slash at its end. Raises StoreError; it repeats nothing of a wrong URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise StoreError(f"{_LIKE}.") from None
    if parts.scheme != "s3":
        raise StoreError(f"{_LIKE}.")
    if "@" in parts.netloc:
        raise StoreError(f"{_LIKE}: keys do not belong there, but in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc) or parts.query or parts.fragment:
        raise StoreError(f"{_LIKE}: the name of a bucket, and a path in it that ends the URL.")
    names = [name for name in unquote(parts.path).split("/") if name]
    if any(name in (".", "..") or not name.isprintable() for name in names):
        raise StoreError(f"{_LIKE}: no part of its path can be . or .., or have control characters.")
    return "/".join([f"s3://{parts.netloc}", *names])


class S3Blobs:
    """Objects below a prefix. Implements :class:`navi_jupyter.store.blobs.Blobs`.

    An object that is written again while a sweep removes it can be lost, as a file can: the sweep looks at the age of
    each one just before.
    """

    def __init__(self, url: str, *, database: str, earlier: Blobs, patience: float = PATIENCE) -> None:
        """``database``: what distinguishes the database whose attachments these are. ``earlier``: where their content
        was before ``blobs_url`` was set; it is still read there. Raises StoreError for a URL that is none."""
        self.place = location_of(url)
        self._database = database
        self._earlier = earlier
        self._patience = patience
        bucket, _, prefix = self.place.removeprefix("s3://").partition("/")
        try:
            self._store = S3Store(bucket, prefix=prefix or None, retry_config=_RETRIES)
        except (BaseError, ValueError) as error:
            raise StoreError(
                f"{self.place} cannot be used: an AWS_… variable has a value that is not understood."
            ) from _without_text(error)

    async def put(self, key: BlobKey, content: bytes, *, draft: str) -> None:
        """An object that is there already is written again: S3 has no other way to make it new for a sweep."""
        del draft  # the store shows an object when all its parts are there
        with self._errors("written"):
            await self._within(
                obstore.put_async(self._store, _name_of(key), content, chunk_size=PART, max_concurrency=AT_ONCE),
                size=len(content),
            )

    async def get(self, key: BlobKey) -> bytes | None:
        with self._errors("read"):
            content = await self._read(_name_of(key))
        return await self._earlier.get(key) if content is None else content

    async def remove_strays(self, known: Collection[BlobKey], *, before: datetime) -> None:
        await self._earlier.remove_strays(known, before=before)
        with self._errors("searched for what no session shows"):
            if not await self._is_own():
                log.warning("attachments_of_two_databases", place=self.place, object=_OWN)
                return
            removed = 0
            async for page in self._pages():
                strays = [one for one in page if _is_stray(one, known, before)][: MOST_STRAYS - removed]
                for some in _groups(strays, AT_ONCE):
                    await asyncio.gather(*(self._remove(one["path"], before) for one in some))
                removed += len(strays)
                if removed >= MOST_STRAYS:
                    return  # the next sweep goes on

    async def take_over(self) -> None:
        """From now on these are the attachments of this database: the one that had them was copied to it."""
        with self._errors("written"):
            await self._within(obstore.put_async(self._store, _OWN, self._database.encode()))

    async def probe(self) -> float:
        """Write, read and remove an object of our own; the seconds that it took. Raises StoreError."""
        name, content = f"navi-doctor-{secrets.token_hex(8)}", secrets.token_bytes(64)
        began = time.monotonic()
        with self._errors("written"):
            await self._within(obstore.put_async(self._store, name, content))
        with self._errors("read"):
            found = await self._read(name)
        if found != content:
            raise StoreError(f"{self.place}: what was written there a moment ago is not what is read.")
        with self._errors("removed"):
            await self._within(obstore.delete_async(self._store, name))
        return time.monotonic() - began

    async def _read(self, name: str) -> bytes | None:
        """In parts, so that the time of a request does not grow with the object. None: there is no such object."""
        try:
            first = await self._within(obstore.get_async(self._store, name, options={"range": (0, PART)}))
            parts = [await self._within(first.bytes_async())]
            size = first.meta["size"]
            for starts in _groups(range(PART, size, PART), AT_ONCE):
                parts += await self._within(
                    asyncio.gather(
                        *(
                            obstore.get_range_async(self._store, name, start=start, end=min(start + PART, size))
                            for start in starts
                        )
                    ),
                    size=AT_ONCE * PART,
                )
        except FileNotFoundError as error:
            if _reason(error) == "NoSuchBucket":
                raise
            return None
        return await asyncio.to_thread(b"".join, parts)

    async def _remove(self, name: str, before: datetime) -> None:
        """Unless it was written again since it was listed."""
        try:
            if (await self._within(obstore.head_async(self._store, name)))["last_modified"] < before:
                await self._within(obstore.delete_async(self._store, name))
        except FileNotFoundError:  # another server has removed it
            return

    async def _is_own(self) -> bool:
        """Whether this database's attachments are here, and not those of another one, whose rows are unknown to us."""
        if (found := await self._read(_OWN)) is None:
            await self.take_over()
            found = await self._read(_OWN)  # of two servers that begin here at once, one sees the other's
        return found == self._database.encode()

    async def _pages(self) -> AsyncIterator[Sequence[ObjectMeta]]:
        listed = obstore.list(self._store, chunk_size=PAGE)
        while True:
            try:
                page = await self._within(listed.__anext__())
            except StopAsyncIteration:
                return
            yield page

    async def _within(self, work: Awaitable[T], *, size: int = 0) -> T:
        return await asyncio.wait_for(work, self._patience + PER_PART * (size // PART))

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            log.error("object_storage_failed", place=self.place, reason="timeout")
            raise StoreError(f"The attachments at {self.place} cannot be {done}: no answer in time.") from error
        except (BaseError, OSError, ValueError) as error:
            reason = _reason(error)
            log.error("object_storage_failed", place=self.place, reason=reason)
            raise StoreError(
                f"The attachments at {self.place} cannot be {done} ({reason}). Check the bucket and the AWS_… variables"
                " with: navi doctor"
            ) from _without_text(error)


def _name_of(key: BlobKey) -> str:
    return "/".join(key)


def _is_stray(found: ObjectMeta, known: Collection[BlobKey], before: datetime) -> bool:
    """Only what has a name that we give: in a bucket of other things, nothing else is touched."""
    match = _NAME.fullmatch(found["path"])
    return match is not None and found["last_modified"] < before and match.groups() not in known


def _groups(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    iterator = iter(items)
    while some := list(itertools.islice(iterator, size)):
        yield some


def _reason(error: Exception) -> str:
    """The code of the answer, which is a word; without an answer, what kind of failure it is."""
    text = str(error)
    found = _CODE.search(text) or _STATUS.search(text)
    if found is not None:
        return found[1]
    return "the store cannot be reached" if "HTTP error" in text else type(error).__name__


def _without_text(error: Exception) -> Exception:
    """The cause in a traceback, without the answer of the store."""
    return type(error)(_reason(error))
