"""Attachments in S3: beside either database, within bounds, and in words where the store is away or refuses."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.clock import now
from navi_jupyter.errors import AttachmentNotFound, StoreError
from navi_jupyter.server.builders import build_store
from navi_jupyter.settings import Settings
from navi_jupyter.store.attachments import AttachmentStore
from navi_jupyter.store.blobs import FileBlobs, owner_key
from navi_jupyter.store.database import Database
from navi_jupyter.store.engines import s3_blobs
from tests.support.database import database_url
from tests.support.s3 import BUCKET, PrivateS3

from .test_attachments import contents, png
from .test_database_file import session


@pytest.fixture
def prefix() -> str:
    """Of this test."""
    return f"t-{secrets.token_hex(6)}/attachments"


@asynccontextmanager
async def opened(folder: Path, prefix: str | None) -> AsyncIterator[tuple[Database, AttachmentStore]]:
    """As a server has them; without S3 where ``prefix`` is None."""
    url = f"s3://{BUCKET}/{prefix}" if prefix else ""
    stores = await build_store(Settings(database_url=database_url(folder / "navi.db"), blobs_url=url))
    try:
        yield stores.sessions, stores.attachments
    finally:
        await stores.sessions.close()


async def add(attachments: AttachmentStore, content: bytes, **fields: Any) -> str:
    """Its id."""
    return (await attachments.add(content, name="a.png", media_type=None, owner="ada", **fields)).id


async def test_the_content_is_an_object_and_not_with_the_database(s3: PrivateS3, tmp_path: Path, prefix: str) -> None:
    async with opened(tmp_path, prefix) as (store, attachments):
        added = await attachments.add(png(), name="a.png", media_type=None, owner="ada")
        assert await attachments.read(added.id, owner="ada") == png()
        assert await contents(store, tmp_path) == 0
    assert s3.objects(prefix) == [f"{owner_key('ada')}/{added.sha256}"]
    async with opened(tmp_path, prefix) as (_, attachments):
        assert await attachments.read(added.id, owner="ada") == png()


async def test_what_was_with_the_database_before_is_read_there_and_swept_there(
    s3: PrivateS3, tmp_path: Path, prefix: str
) -> None:
    async with opened(tmp_path, None) as (store, attachments):
        await store.write(lambda tx: tx.add_session(session("s_1")))
        kept = await add(attachments, png(), session_id="s_1")
        await add(attachments, png(1))
    async with opened(tmp_path, prefix) as (store, attachments):
        assert await attachments.read(kept, owner="ada") == png()
        assert await attachments.sweep(at=now() + timedelta(days=2)) == 1
        assert await attachments.read(kept, owner="ada") == png()
        assert await contents(store, tmp_path) == 1
    assert s3.objects(prefix) == ["navi-database"]


async def test_a_sweep_leaves_what_sessions_show_and_what_is_not_ours(
    s3: PrivateS3, tmp_path: Path, prefix: str
) -> None:
    import obstore

    async with opened(tmp_path, prefix) as (store, attachments):
        await store.write(lambda tx: tx.add_session(session("s_1")))
        shown = await add(attachments, png(), session_id="s_1")
        await add(attachments, png(1))
        other = obstore.store.S3Store(BUCKET, prefix=prefix)
        foreign = [f"{owner_key('ada')}/report.csv", "0" * 64, f"deep/{owner_key('ada')}/{'0' * 64}"]
        for name in foreign:
            await obstore.put_async(other, name, b"of another program")
        assert len(s3.objects(prefix)) == 5
        assert await attachments.sweep(at=now() + timedelta(days=2)) == 1
        assert await attachments.read(shown, owner="ada") == png()
        found = await attachments.find(shown, owner="ada")
    assert set(s3.objects(prefix)) == {*foreign, f"{owner_key('ada')}/{found.sha256}", "navi-database"}


async def test_what_another_database_has_in_the_same_place_is_not_removed(
    s3: PrivateS3, tmp_path: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    async with opened(tmp_path / "one", prefix) as (store, attachments):
        await store.write(lambda tx: tx.add_session(session("s_1")))
        kept = await add(attachments, png(), session_id="s_1")
        await attachments.sweep()
        later = now() + timedelta(days=2)
        async with opened(tmp_path / "two", prefix) as (_, others):
            await others.sweep(at=later)
        assert "attachments_of_two_databases" in caplog.text
        assert await attachments.read(kept, owner="ada") == png()


async def test_a_sweep_is_bounded_and_the_next_one_goes_on(
    s3: PrivateS3, tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from navi_jupyter.store import object_storage

    monkeypatch.setattr(object_storage, "MOST_STRAYS", 5)
    monkeypatch.setattr(object_storage, "PAGE", 3)
    async with opened(tmp_path, prefix) as (_, attachments):
        for shade in range(8):
            await add(attachments, png(shade))
        later = now() + timedelta(days=2)
        await attachments.sweep(at=later)
        assert len(s3.objects(prefix)) == 3 + 1
        await attachments.sweep(at=later)
        assert s3.objects(prefix) == ["navi-database"]


async def test_large_content_is_written_in_parts_and_read_by_ranges(s3: PrivateS3, tmp_path: Path, prefix: str) -> None:
    blobs = s3_blobs(f"s3://{BUCKET}/{prefix}", database="x", earlier=FileBlobs(tmp_path))
    key, content = (owner_key("ada"), secrets.token_hex(32)), os.urandom(12 * 2**20)
    await blobs.put(key, content, draft="d")
    assert await blobs.get(key) == content
    lines = [line for line in s3.log if key[1] in line]
    assert len([line for line in lines if "partNumber=" in line]) == 3
    assert len([line for line in lines if " 206 " in line]) == 3


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AWS_ACCESS_KEY_ID", "AKIAWRONGWRONGWRONG1", "InvalidAccessKeyId"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "cannot be reached"),
    ],
)
async def test_a_store_that_is_away_or_refuses_is_an_error_in_words_without_a_key(
    s3: PrivateS3,
    tmp_path: Path,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    words: str,
) -> None:
    async with opened(tmp_path, prefix) as (_, attachments):
        added = await add(attachments, png())
    monkeypatch.setenv(variable, value)
    caplog.set_level(logging.DEBUG)
    async with opened(tmp_path, prefix) as (store, attachments):
        for attempt in (add(attachments, png(1)), attachments.read(added, owner="ada"), attachments.sweep()):
            began = time.monotonic()
            with pytest.raises(StoreError, match=words) as caught:
                await attempt
            assert time.monotonic() - began < 15
            shown = "".join(traceback.format_exception(caught.value)) + caplog.text
            assert "object_storage_failed" in caplog.text
            assert "navi doctor" in shown
            assert "S3RVER" not in shown
            assert variable == "AWS_ENDPOINT_URL" or value not in shown
        assert (await store.fetch_one("SELECT count(*) AS n FROM attachments"))["n"] == 1  # type: ignore[index]


async def test_what_a_store_answers_of_a_key_and_what_was_signed_is_not_shown(
    s3: PrivateS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    body = (  # as AWS answers; s3rver does not check signatures
        "<Error><Code>SignatureDoesNotMatch</Code><Message>The signature does not match.</Message>"
        "<AWSAccessKeyId>S3RVER</AWSAccessKeyId><StringToSign>AWS4-HMAC-SHA256 hunter2</StringToSign></Error>"
    )
    answer = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    blobs = s3_blobs(f"s3://{BUCKET}", database="x", earlier=FileBlobs(tmp_path))
    key = (owner_key("ada"), "0" * 64)
    caplog.set_level(logging.DEBUG)
    for attempt in (blobs.put(key, b"x", draft="d"), blobs.get(key), blobs.remove_strays((), before=now())):
        with pytest.raises(StoreError, match="SignatureDoesNotMatch") as caught:
            await attempt
        text = "".join(traceback.format_exception(caught.value)) + caplog.text
        assert "object_storage_failed" in text
        assert "S3RVER" not in text
        assert "hunter2" not in text
    server.close()


async def test_a_bucket_that_does_not_exist_is_an_error_and_not_content_that_is_gone(
    s3: PrivateS3, tmp_path: Path
) -> None:
    blobs = s3_blobs("s3://no-such-bucket", database="x", earlier=FileBlobs(tmp_path))
    key = (owner_key("ada"), "0" * 64)
    for attempt in (blobs.put(key, b"x", draft="d"), blobs.get(key), blobs.remove_strays((), before=now())):
        with pytest.raises(StoreError, match="NoSuchBucket"):
            await attempt


async def test_a_store_that_takes_a_request_and_says_nothing_is_given_up(
    s3: PrivateS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from navi_jupyter.store.object_storage import S3Blobs

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    blobs = S3Blobs(f"s3://{BUCKET}", database="x", earlier=FileBlobs(tmp_path), patience=0.5)
    key = (owner_key("ada"), "0" * 64)
    for attempt in (blobs.put(key, b"x", draft="d"), blobs.get(key), blobs.remove_strays((), before=now())):
        began = time.monotonic()
        with pytest.raises(StoreError, match="no answer in time"):
            await attempt
        assert time.monotonic() - began < 5
    server.close()


async def test_content_that_was_removed_from_the_bucket_is_gone(s3: PrivateS3, tmp_path: Path, prefix: str) -> None:
    import obstore

    async with opened(tmp_path, prefix) as (_, attachments):
        added = await add(attachments, png())
        (name,) = s3.objects(prefix)
        await obstore.delete_async(obstore.store.S3Store(BUCKET, prefix=prefix), name)
        with pytest.raises(AttachmentNotFound, match=r"a\.png"):
            await attachments.read(added, owner="ada")


@pytest.mark.parametrize(
    "url",
    [
        *("gs://bucket/x", "/var/blobs", "s3:///prefix", "s3://bucket/../x", "s3://bucket/x?region=hunter2"),
        *("s3://key:hunter2@bucket/x", "s3://UPPER/x", "s3://bucket/a%00b", "s3://bucket:hunter2/x", "s3://[hunter2"),
    ],
)
async def test_a_url_that_names_no_place_in_a_bucket_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    pytest.importorskip("obstore")
    with pytest.raises(StoreError, match="s3://bucket/prefix") as caught:
        await build_store(Settings(database_url=f"sqlite:///{tmp_path}/navi.db", blobs_url=url))
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_a_users_own_server_on_a_hub_does_not_get_the_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_USER", "ada")
    with pytest.raises(StoreError, match="all users"):
        await build_store(Settings(database_url=f"sqlite:///{tmp_path}/navi.db", blobs_url="s3://bucket"))


async def test_without_the_extra_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "navi_jupyter.store.object_storage", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StoreError, match=r'pip install "navi-jupyter\[s3\]"'):
        await build_store(Settings(database_url=f"sqlite:///{tmp_path}/navi.db", blobs_url="s3://bucket"))


def test_its_library_is_not_imported_where_no_bucket_is_set(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys, navi_jupyter.server.app, navi_jupyter.server.runtime\n"
        "from navi_jupyter.server.builders import build_store\n"
        "from navi_jupyter.settings import Settings\n"
        "async def main():\n"
        "    stores = await build_store(Settings(database_url=sys.argv[1]))\n"
        "    await stores.sessions.close()\n"
        "asyncio.run(main())\n"
        "assert 'obstore' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, f"sqlite:///{tmp_path}/navi.db"], check=True, timeout=60)
