"""The contract of ``Blobs``, on each of its implementations: files, rows of PostgreSQL, objects of S3."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from navi_jupyter.clock import now
from navi_jupyter.store.blobs import BlobKey, Blobs, FileBlobs, owner_key
from navi_jupyter.store.engines import s3_blobs
from navi_jupyter.store.postgres.store import PostgresStore
from tests.support.s3 import BUCKET

IMPLEMENTATIONS = ("files", "postgres", "s3")


Opened = Callable[[], AbstractAsyncContextManager[Blobs]]


@pytest.fixture(params=["files", "postgres", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens an empty one."""
    server = {"postgres": "postgres_url", "s3": "s3"}.get(request.param)
    found = None if server is None else request.getfixturevalue(server)

    @asynccontextmanager
    async def blobs() -> AsyncIterator[Blobs]:
        if request.param == "files":
            yield FileBlobs(tmp_path / "files")
        elif request.param == "postgres":
            store = await PostgresStore.open(f"{found}?search_path=t_{secrets.token_hex(6)}")
            yield store.blobs
            await store.close()
        else:
            url = f"s3://{BUCKET}/{secrets.token_hex(6)}"
            yield s3_blobs(url, database="this one", earlier=FileBlobs(tmp_path / "earlier"))

    return blobs


def key(owner: str = "ada") -> BlobKey:
    """A new one."""
    return owner_key(owner), secrets.token_hex(32)


MIB = 2**20


@pytest.mark.parametrize("size", [1, 1000, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 10 * MIB, 12 * MIB + 7, 31 * MIB])
async def test_content_of_any_size_is_read_as_it_was_put(opened: Opened, size: int) -> None:
    async with opened() as blobs:
        one, content = key(), os.urandom(size)
        await blobs.put(one, content, draft="d")
        assert await blobs.get(one) == content


async def test_what_was_never_put_is_not_there(opened: Opened) -> None:
    async with opened() as blobs:
        assert await blobs.get(key()) is None


async def test_the_same_content_of_two_owners_is_kept_for_each(opened: Opened) -> None:
    async with opened() as blobs:
        ada, eve = key("ada"), (owner_key("eve"), "1" * 64)
        await blobs.put(ada, b"a", draft="d1")
        assert await blobs.get((eve[0], ada[1])) is None
        await blobs.put(eve, b"a", draft="d2")
        await blobs.remove_strays({ada}, before=now() + timedelta(hours=1))
        assert await blobs.get(ada) == b"a"
        assert await blobs.get(eve) is None


async def test_what_many_put_at_once_is_whole(opened: Opened) -> None:
    async with opened() as blobs:
        one, content = key(), os.urandom(6 * MIB)
        others = [key() for _ in range(10)]
        await asyncio.gather(
            *(blobs.put(one, content, draft=f"d{n}") for n in range(3)),
            *(blobs.put(other, other[1].encode(), draft=other[1]) for other in others),
        )
        assert await blobs.get(one) == content
        assert await asyncio.gather(*map(blobs.get, others)) == [other[1].encode() for other in others]


async def test_a_sweep_removes_what_is_unknown_and_old_and_nothing_else(opened: Opened) -> None:
    async with opened() as blobs:
        known, stray = key(), key()
        for one in (known, stray):
            await blobs.put(one, b"content", draft=one[1])
        await blobs.remove_strays({known}, before=now() - timedelta(hours=1))
        assert await blobs.get(stray) == b"content", "its row may be about to come"
        await blobs.remove_strays({known}, before=now() + timedelta(hours=1))
        assert await blobs.get(stray) is None
        assert await blobs.get(known) == b"content"


async def test_what_is_put_again_is_as_new_for_a_sweep(opened: Opened) -> None:
    async with opened() as blobs:
        again, old = key(), key()
        for one in (again, old):
            await blobs.put(one, b"content", draft=one[1])
        await asyncio.sleep(2.1)  # S3 has times in whole seconds
        between = now() - timedelta(seconds=1)
        await blobs.put(again, b"content", draft="e")
        await blobs.remove_strays((), before=between)
        assert await blobs.get(again) == b"content"
        assert await blobs.get(old) is None
