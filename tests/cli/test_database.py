"""``navi db``: checked, upgraded, and copied from SQLite to PostgreSQL with every id and number."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta
from pathlib import Path

import pytest

from navi_jupyter.cli import main
from navi_jupyter.clock import now
from navi_jupyter.server.builders import build_store
from navi_jupyter.settings import Settings
from navi_jupyter.store.attachments import AttachmentStore
from navi_jupyter.store.database import Database
from navi_jupyter.store.memory import FactStore
from navi_jupyter.store.postgres.migrations import SCHEMA_VERSION
from navi_jupyter.store.postgres.store import PostgresStore
from navi_jupyter.store.session_list.index import SearchIndex
from navi_jupyter.store.sqlite.store import SqliteStore
from navi_jupyter.store.transfer.tables import TABLES
from tests.store.test_attachments import png
from tests.store.test_database_file import session
from tests.store.test_session_list import add, found
from tests.store.test_writer import draft
from tests.support.s3 import BUCKET, PrivateS3


def navi(*words: str) -> int:
    """Its exit status."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    return int(caught.value.code or 0)


async def fill(store: Database) -> str:
    """Something in every part; the id of an attachment."""
    await store.write(lambda tx: tx.add_session(session()))
    await store.write(lambda tx: tx.append("s_1", [draft(n) for n in range(3)]))
    await add(store, "towns", "What about Besançon?", "It is a town.")
    await SearchIndex(store).take_in(limit=10)
    await FactStore(store).add("Lives in Besançon", owner="ada", source="user")
    one = await AttachmentStore(store).add(
        png() + bytes(2_500_000), name="p.png", media_type=None, owner="ada", session_id="s_1"
    )
    return one.id


async def rows(store: Database) -> dict[str, list[list[tuple[str, object]]]]:
    """All rows but those of indexes, whatever their order."""
    found_rows = {}
    for table in (one.name for one in TABLES):
        of_table = await store.fetch_all(f"SELECT * FROM {table}")
        pairs = [sorted((name, row[name]) for name in row.keys()) for row in of_table]  # noqa: SIM118 - no mapping
        found_rows[table] = sorted(pairs, key=repr)
    return found_rows


def target(url: str) -> str:
    return f"{url}?search_path=t_{secrets.token_hex(6)}"


async def test_a_copy_has_all_rows_with_their_ids_and_can_be_searched_and_gone_on_with(
    tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, url = tmp_path / "navi.db", target(postgres_url)
    source = await SqliteStore.open(path)
    attachment = await fill(source)
    before = await rows(source)
    await source.close()
    assert await asyncio.to_thread(navi, "db", "copy", f"sqlite:///{path}", url) == 0
    assert "1 attachments" in capsys.readouterr().out
    copy = await PostgresStore.open(url)
    try:
        assert await rows(copy) == before
        assert before["events"]
        assert before["runs"]
        assert await found(copy, "besancon") == await found(copy, "town")
        assert [fact.text for fact in (await FactStore(copy).facts("ada", query="besan"))[0]] == ["Lives in Besançon"]
        content = await AttachmentStore(copy).read(attachment, owner="ada")
        assert content == png() + bytes(2_500_000)
        # Numbers go on after the highest one.
        await add(copy, "more", "Another question", "Another answer")
        numbers = [row["number"] for row in await copy.fetch_all("SELECT number FROM runs ORDER BY number")]
        assert len(set(numbers)) == len(numbers) == len(before["runs"]) + 1
        assert await copy.write(lambda tx: tx.append("s_1", [draft(9)])) == 4
    finally:
        await copy.close()
    assert await asyncio.to_thread(navi, "db", "copy", f"sqlite:///{path}", url) == 1
    assert "has sessions already" in capsys.readouterr().err


async def test_attachments_in_s3_stay_there_and_belong_to_the_copy(
    tmp_path: Path,
    postgres_url: str,
    s3: PrivateS3,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, url, place = tmp_path / "navi.db", target(postgres_url), f"s3://{BUCKET}/{secrets.token_hex(6)}"
    # One that was there before blobs_url was set, and one that came later.
    source = await SqliteStore.open(path)
    earlier = await fill(source)
    await source.close()
    stores = await build_store(Settings(database_url=f"sqlite:///{path}", blobs_url=place))
    later = await stores.attachments.add(png(7), name="q.png", media_type=None, owner="ada", session_id="s_1")
    await stores.attachments.sweep()
    await stores.sessions.close()
    monkeypatch.setenv("NAVI_BLOBS_URL", f"{place}-of-another-bucket".replace(BUCKET, "no-such-bucket"))
    assert await asyncio.to_thread(navi, "db", "copy", f"sqlite:///{path}", url) == 1
    assert "NoSuchBucket" in capsys.readouterr().err
    monkeypatch.setenv("NAVI_BLOBS_URL", place)
    assert await asyncio.to_thread(navi, "db", "copy", f"sqlite:///{path}", url) == 0
    out = capsys.readouterr().out
    assert "2 attachments" in out
    assert "1 files of attachments" in out
    assert f"stay at {place}" in out
    stores = await build_store(Settings(database_url=url, blobs_url=place))
    try:
        assert await stores.attachments.read(earlier, owner="ada") == png() + bytes(2_500_000)
        assert await stores.attachments.read(later.id, owner="ada") == png(7)
        # Its sweeps remove what its sessions do not show any more.
        await stores.sessions.write(lambda tx: tx.delete_session("s_1"))
        await stores.attachments.sweep(at=now() + timedelta(days=2))
        assert s3.objects(place.rpartition("/")[2]) == ["navi-database"]
    finally:
        await stores.sessions.close()


async def test_a_copy_that_cannot_be_made_changes_nothing_and_says_why(
    tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = target(postgres_url)
    assert await asyncio.to_thread(navi, "db", "copy", url, f"sqlite:///{tmp_path}/x.db") == 1
    assert "sqlite:////" in capsys.readouterr().err
    assert await asyncio.to_thread(navi, "db", "copy", f"sqlite:///{tmp_path}/none.db", url) == 1
    assert "no database at" in capsys.readouterr().err
    source = await SqliteStore.open(tmp_path / "navi.db")
    await fill(source)
    await source.write(lambda tx: tx.change("ALTER TABLE runs ADD COLUMN of_a_later_version TEXT"))
    await source.close()
    assert await asyncio.to_thread(navi, "db", "copy", f"sqlite:///{tmp_path}/navi.db", url) == 1
    assert "of_a_later_version" in capsys.readouterr().err
    copy = await PostgresStore.open(url)
    try:
        assert not any((await rows(copy)).values())
    finally:
        await copy.close()


async def test_the_tables_are_made_and_checked(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = target(postgres_url)
    assert await asyncio.to_thread(navi, "db", "check", url) == 0
    assert f"to {SCHEMA_VERSION}\n" in capsys.readouterr().out
    assert await asyncio.to_thread(navi, "db", "upgrade", url) == 0
    assert await asyncio.to_thread(navi, "db", "check", url) == 0
    assert "0 sessions" in capsys.readouterr().out


async def test_a_check_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(navi, "db", "check", "postgresql://navi:hunter2@127.0.0.1:1/x") == 1
    shown = capsys.readouterr().err
    assert "cannot be reached" in shown
    assert "hunter2" not in shown
    (tmp_path / "other.db").write_text("no database" * 100)
    assert await asyncio.to_thread(navi, "db", "check", f"sqlite:///{tmp_path}/other.db") == 1
