"""Files beside the database: whole, private, of a known kind, within limits, and gone when nobody shows them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from navi_jupyter.clock import now
from navi_jupyter.errors import AttachmentNotFound, AttachmentRefused, LimitReached, StoreError
from navi_jupyter.store.attachments import AttachmentStore, media_type_of
from navi_jupyter.store.blobs import owner_key
from navi_jupyter.store.database import Database
from tests.support.database import URL, on_sqlite, open_store

from .test_database_file import session


def png(shade: int = 0) -> bytes:
    """A real one-pixel picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (1).to_bytes(4, "big") * 2 + bytes((8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes((0, shade))))
        + chunk(b"IEND", b"")
    )


@asynccontextmanager
async def opened(folder: Path, **limits: int) -> AsyncIterator[tuple[Database, AttachmentStore]]:
    store = await open_store(folder / "navi.db")
    try:
        yield store, AttachmentStore(store, **limits)
    finally:
        await store.close()


def files(folder: Path) -> list[Path]:
    """With the content of attachments, beside a SQLite file."""
    return [path for path in (folder / "navi-attachments").rglob("*") if path.is_file()]


async def contents(store: Database, folder: Path) -> int:
    """How many contents are kept."""
    if URL not in os.environ:
        return len(files(folder))
    return int((await store.fetch_all("SELECT count(DISTINCT (owner, sha256)) AS n FROM blobs"))[0]["n"])


async def test_a_database_whose_sessions_show_attachments_is_whole_when_it_is_opened_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, attachments):
        await store.write(lambda tx: tx.add_session(session("s_1")))
        added = await attachments.add(png(), name="plot.png", media_type=None, owner="ada")
        await attachments.keep([added.id], session_id="s_1")
    async with opened(tmp_path) as (store, attachments):
        assert [dict(row) for row in await store.fetch_all("SELECT * FROM attachment_uses")] == [
            {"attachment_id": added.id, "session_id": "s_1"}
        ]


async def test_an_attachment_is_read_back_whole_after_the_database_was_closed(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, attachments):
        added = await attachments.add(png(), name="../../etc/plot.png\n", media_type="image/jpeg", owner="ada")
    assert (added.name, added.media_type, added.size) == ("plot.png", "image/png", len(png()))
    async with opened(tmp_path) as (_, attachments):
        assert await attachments.find(added.id, owner="ada") == added
        assert await attachments.read(added.id, owner="ada") == png()


async def test_only_the_owner_can_find_and_read_it_and_only_the_account_can_open_the_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, attachments):
        added = await attachments.add(png(), name=None, media_type=None, owner="ada")
        for attempt in (attachments.find(added.id, owner="eve"), attachments.read(added.id, owner="eve")):
            with pytest.raises(AttachmentNotFound):
                await attempt
    if URL in os.environ:
        assert files(tmp_path) == []  # its content is in the database
        return
    (path,) = files(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_the_same_content_takes_its_place_once_per_owner(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes_per_user=len(png()) * 2) as (store, attachments):
        first = await attachments.add(png(), name="a.png", media_type=None, owner="ada")
        assert await attachments.add(png(), name="a.png", media_type=None, owner="ada") == first
        other_name = await attachments.add(png(), name="b.png", media_type=None, owner="ada")
        assert other_name.id != first.id
        assert await contents(store, tmp_path) == 1
        await attachments.add(png(1), name="c.png", media_type=None, owner="ada")
        with pytest.raises(LimitReached):
            await attachments.add(png(2), name="d.png", media_type=None, owner="ada")
        assert (await attachments.add(png(), name="a.png", media_type=None, owner="eve")).id != first.id
        assert await contents(store, tmp_path) == 4  # what was refused lies there until the next sweep


@pytest.mark.parametrize(
    ("content", "name", "kind"),
    [
        (png(), "x.txt", "image/png"),
        (b"\xff\xd8\xff\xe0 and more", None, "image/jpeg"),
        (b"GIF89a...", None, "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", None, "image/webp"),
        (b"%PDF-1.7 ...", None, "application/pdf"),
        (b"<?xml version='1.0'?>\n<!-- x --><svg xmlns='...'>", "x.png", "image/svg+xml"),
        (b"a,b\n1,2\n", "data.csv", "text/csv"),
        ("grüße".encode(), "x.unknown", "text/plain"),
        (b'{"a": 1}', "x.json", "application/json"),
        (b"\x7fELF\x02\x01", "run.txt", None),
        ("grüße".encode("latin-1"), "x.txt", None),
        (b"a\x00b", "x.txt", None),
    ],
)
def test_the_kind_is_what_the_content_is(content: bytes, name: str | None, kind: str | None) -> None:
    assert media_type_of(content, name=name) == kind


async def test_what_is_empty_too_large_or_of_an_unknown_kind_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=1000) as (store, attachments):
        for content in (b"", b"x" * 1001, b"\x7fELF\x00"):
            with pytest.raises(AttachmentRefused):
                await attachments.add(content, name="x", media_type="text/plain", owner="ada")
        assert await contents(store, tmp_path) == 0


async def test_it_is_kept_while_a_session_shows_it_and_goes_a_day_after_the_last_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, attachments):
        await store.write(lambda tx: tx.add_session(session()))
        used = await attachments.add(png(), name="a", media_type=None, owner="ada", session_id="s_1")
        kept = await attachments.add(png(1), name="b", media_type=None, owner="ada")
        await attachments.keep([kept.id, "a_unknown"], session_id="s_1")
        loose = await attachments.add(png(2), name="c", media_type=None, owner="ada")
        later = now() + timedelta(days=2)

        assert await attachments.sweep() == 0
        assert await attachments.sweep(at=later) == 1
        with pytest.raises(AttachmentNotFound):
            await attachments.find(loose.id, owner="ada")
        assert await attachments.read(used.id, owner="ada") == png()

        await store.write(lambda tx: tx.delete_session("s_1"))
        assert await attachments.sweep(at=later) == 2
        assert await contents(store, tmp_path) == 0


@on_sqlite
async def test_a_file_whose_row_never_came_is_removed_after_an_hour(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, attachments):
        added = await attachments.add(png(), name="a", media_type=None, owner="ada")
        stray = files(tmp_path)[0].with_name("0" * 64)
        young = stray.with_name(".a_half")
        for path in (stray, young):
            path.write_bytes(b"half of")
        old = (now() - timedelta(hours=2)).timestamp()
        os.utime(stray, (old, old))
        await attachments.sweep()
        assert not stray.exists()
        assert young.exists()
        assert await attachments.read(added.id, owner="ada") == png()


async def test_content_whose_row_never_came_is_removed_after_an_hour(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, attachments):
        added = await attachments.add(png(), name="a", media_type=None, owner="ada")
        stray = (owner_key("ada"), "0" * 64)
        await store.blobs.put(stray, b"half of", draft="d")
        later = now() + timedelta(hours=2)
        known = {(owner_key("ada"), hashlib.sha256(png()).hexdigest())}
        await store.blobs.remove_strays(known, before=later - timedelta(hours=3))
        assert await store.blobs.get(stray) == b"half of", "its row may be about to come"
        await store.blobs.remove_strays(known, before=later)
        assert await store.blobs.get(stray) is None
        assert await attachments.read(added.id, owner="ada") == png()


async def test_content_that_somebody_deleted_is_said_to_be_gone(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, attachments):
        added = await attachments.add(png(), name="a.png", media_type=None, owner="ada")
        if URL in os.environ:
            await store.write(lambda tx: tx.change("DELETE FROM blobs"))
        else:
            files(tmp_path)[0].unlink()
        with pytest.raises(AttachmentNotFound, match=r"a\.png"):
            await attachments.read(added.id, owner="ada")


@on_sqlite
@pytest.mark.parametrize("trouble", ["a file", "a pipe", "a full disk"])
async def test_a_folder_of_attachments_that_cannot_be_written_is_a_refusal_that_says_why(
    tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as (_, attachments):
        folder = tmp_path / "navi-attachments"
        if trouble == "a file":
            folder.touch()
        elif trouble == "a pipe":
            os.mkfifo(folder, 0o644)
        else:

            def full(_: int) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(os, "fsync", full)
        before = folder.stat().st_mode if folder.exists() else None
        with pytest.raises(StoreError, match="cannot be stored"):
            await attachments.add(png(), name="plot.png", media_type=None, owner="ada")
        assert files(tmp_path) == []
        assert before is None or folder.stat().st_mode == before
