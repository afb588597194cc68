"""The file before it is used: new, old, newer, damaged, not ours, not lockable. It is never taken for empty."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.clock import now
from navi_jupyter.errors import StoreDamaged, StoreError, StoreForeign, StoreTooNew
from navi_jupyter.model.sessions import Asker, Session
from navi_jupyter.store.sqlite import database_file
from navi_jupyter.store.sqlite.store import SqliteStore
from tests.support.database import on_sqlite

pytestmark = on_sqlite


def session(session_id: str = "s_1") -> Session:
    at = now()
    return Session(id=session_id, owner="local", title="t", profile="p", model="m", created_at=at, updated_at=at)


async def make(path: Path, sessions: int = 1) -> None:
    store = await SqliteStore.open(path)
    for number in range(sessions):
        await store.write(lambda tx, number=number: tx.add_session(session(f"s_{number}")))
    await store.close()


def known_as_ours(path: Path) -> None:
    """What shows, beside a file that cannot be read at all, that it was a database of ours: the copy of an upgrade."""
    path.with_name(f"{path.name}.v1.bak").touch()


async def sessions_in(path: Path) -> int:
    store = await SqliteStore.open(path)
    try:
        return int((await store.fetch_all("SELECT count(*) AS n FROM sessions"))[0]["n"])
    finally:
        await store.close()


def schema_of(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").fetchall()


async def test_a_new_file_is_private_and_has_the_present_version(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "navi.db"
    await make(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (database_file.SCHEMA_VERSION,)
        assert db.execute("PRAGMA application_id").fetchone() == (database_file.APPLICATION_ID,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("version", range(database_file.SCHEMA_VERSION + 1))
async def test_the_schema_equals_all_migrations_from_each_earlier_version(tmp_path: Path, version: int) -> None:
    await make(tmp_path / "new.db")
    with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as db:
        if version:
            database_file.migrate(db, target=version)
    assert await sessions_in(tmp_path / "old.db") == 0
    assert schema_of(tmp_path / "old.db") == schema_of(tmp_path / "new.db")


async def test_zones_of_earlier_versions_are_guesses_that_a_browser_replaces(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        database_file.migrate(db, target=3)
        for zone in ("UTC", "Europe/Berlin"):
            db.execute(
                "INSERT INTO sessions (id, owner, title, profile, model, timezone, created_at, updated_at)"
                " VALUES (?, 'me', 't', 'assistant', 'offline', ?, 0, 0)",
                (f"s_{zone}", zone),
            )
    store = await SqliteStore.open(path)
    found = {each.timezone: each for each in (await store.sessions("me", limit=9))[0]}
    await store.close()
    assert {zone: each.timezone_source for zone, each in found.items()} == {"UTC": "default", "Europe/Berlin": "kernel"}
    seen = [each.seen_from(Asker(tz="Asia/Tokyo")).timezone for each in found.values()]
    assert seen == ["Asia/Tokyo", "Asia/Tokyo"]


async def test_before_a_migration_the_database_is_backed_up_with_what_is_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "navi.db"
    other = await SqliteStore.open(path)  # its commits are in the write-ahead log only
    await other.write(lambda tx: tx.add_session(session()))
    scripts = database_file.migration_scripts
    following = database_file.SCHEMA_VERSION + 1
    monkeypatch.setattr(database_file, "SCHEMA_VERSION", following)
    monkeypatch.setattr(database_file.migrate, "__kwdefaults__", {"target": following})
    monkeypatch.setattr(
        database_file, "migration_scripts", lambda v: ["CREATE TABLE added (x);\n"] if v == following else scripts(v)
    )
    assert await sessions_in(path) == 1
    await other.close()
    assert "added" in {row[1] for row in schema_of(path)}
    backup = tmp_path / f"navi.db.v{following - 1}.bak"
    assert backup.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(backup)) as db:
        assert db.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
        assert db.execute("PRAGMA user_version").fetchone() == (following - 1,)


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "navi.db"
    await make(path)
    before = schema_of(path)
    following = database_file.SCHEMA_VERSION + 1
    monkeypatch.setattr(database_file, "SCHEMA_VERSION", following)
    monkeypatch.setattr(database_file.migrate, "__kwdefaults__", {"target": following})
    monkeypatch.setattr(
        database_file, "migration_scripts", lambda v: ["CREATE TABLE added (x);\nCREATE TABLE runs (x);\n"]
    )
    with pytest.raises(StoreError):
        await SqliteStore.open(path)
    monkeypatch.undo()
    assert schema_of(path) == before
    assert await sessions_in(path) == 1


async def test_a_file_of_a_newer_version_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    await make(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {database_file.SCHEMA_VERSION + 1}")
    content = path.read_bytes()
    with pytest.raises(StoreTooNew, match="Upgrade"):
        await SqliteStore.open(path)
    assert path.read_bytes() == content


# --- damage


def random_bytes(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(50_000))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def truncated_within_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def headless(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(b"\0" * 100 + content[100:])


def flipped_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 64] = bytes(byte ^ 0xFF for byte in content[start : start + 64])
    path.write_bytes(content)


def flipped_schema(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:4096] = bytes(byte ^ 0x55 for byte in content[100:4096])
    path.write_bytes(content)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "damage", [random_bytes, truncated, truncated_within_a_page, headless, flipped_pages, flipped_schema]
)
async def test_a_damaged_file_is_set_aside_whole_and_never_taken_for_empty(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "navi.db"
    await make(path, sessions=50)
    damage(path)
    content = path.read_bytes()
    with pytest.raises(StoreDamaged, match="nothing was deleted"):
        await SqliteStore.open(path)
    (aside,) = tmp_path.glob("navi.db.damaged-*Z")
    assert aside.read_bytes() == content
    assert not path.exists()


@pytest.mark.parametrize("damage", [random_bytes, truncated, flipped_pages])
async def test_the_log_of_a_damaged_file_is_kept_with_it(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    await make(tmp_path / "live.db", sessions=50)
    live = await SqliteStore.open(tmp_path / "live.db")
    await live.write(lambda tx: tx.add_session(session("s_new")))
    path = tmp_path / "navi.db"
    for suffix in ("", "-wal", "-shm"):
        shutil.copy(tmp_path / f"live.db{suffix}", tmp_path / f"navi.db{suffix}")
    await live.close()
    known_as_ours(path)
    damage(path)
    log = (tmp_path / "navi.db-wal").read_bytes()
    with pytest.raises(StoreDamaged):
        await SqliteStore.open(path)
    (aside,) = tmp_path.glob("navi.db.damaged-*Z-wal")
    assert aside.read_bytes() == log
    assert not list(tmp_path.glob("navi.db-*"))


async def test_a_later_start_says_that_a_damaged_database_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    await make(path)
    random_bytes(path)
    with pytest.raises(StoreDamaged):
        await SqliteStore.open(path)
    store = await SqliteStore.open(path)
    try:
        assert store.notice is not None
        assert "navi.db.damaged-" in store.notice
    finally:
        await store.close()


@pytest.mark.parametrize("damage", [emptied, gone])
async def test_a_log_whose_database_is_empty_or_gone_is_not_deleted_with_it(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    live = await SqliteStore.open(tmp_path / "live.db")
    await live.write(lambda tx: tx.add_session(session()))
    path = tmp_path / "navi.db"
    shutil.copy(tmp_path / "live.db", path)
    shutil.copy(tmp_path / "live.db-wal", tmp_path / "navi.db-wal")
    await live.close()
    log = (tmp_path / "navi.db-wal").read_bytes()
    assert log
    known_as_ours(path)
    damage(path)
    with pytest.raises(StoreDamaged):
        await SqliteStore.open(path)
    assert next(tmp_path.glob("navi.db.damaged-*-wal")).read_bytes() == log


async def test_a_file_that_was_only_begun_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    path.touch()
    assert await sessions_in(path) == 0


async def test_another_programs_database_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE history (line)")
        db.commit()
    path.chmod(0o644)
    content = path.read_bytes()
    with pytest.raises(StoreForeign, match="another program"):
        await SqliteStore.open(path)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o644


# --- places that do not work


async def test_a_directory_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        await SqliteStore.open(tmp_path)
    assert tmp_path.is_dir()


async def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"):
        await SqliteStore.open(tmp_path / "file" / "navi.db")


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="needs a place that nobody can write")  # noqa: PTH110
async def test_a_place_that_can_not_be_written_is_named() -> None:
    with pytest.raises(StoreError):
        await SqliteStore.open(Path("/proc/self/navi.db"))


async def test_eight_servers_may_start_on_a_new_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    code = (
        "import asyncio, sys; from pathlib import Path; from navi_jupyter.store.sqlite.store import SqliteStore\n"
        "async def main():\n"
        "    sys.stdin.read()\n"
        "    store = await SqliteStore.open(Path(sys.argv[1]))\n"
        "    await store.close()\n"
        "asyncio.run(main())"
    )
    root = Path(__file__).resolve().parents[2]
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root
        )
        for _ in range(8)
    ]
    for process in starts:
        assert process.stdin is not None
        process.stdin.close()
    errors = [await asyncio.to_thread(process.stderr.read) for process in starts if process.stderr]
    assert [process.wait() for process in starts] == [0] * 8, errors
    assert await sessions_in(path) == 0


async def test_what_a_quick_look_finds_wrong_is_looked_at_again_before_a_database_is_called_damaged(
    tmp_path: Path,
) -> None:
    path = tmp_path / "navi.db"
    await make(path)
    with closing(sqlite3.connect(path)) as db:  # SQLite 3.40 mixes up the columns of such a table
        db.execute("CREATE TABLE odd (one TEXT NOT NULL, two TEXT NOT NULL, PRIMARY KEY (two, one)) WITHOUT ROWID")
        db.execute("CREATE INDEX odd_one ON odd (one)")
        db.execute("INSERT INTO odd VALUES ('a', 'b')")
        db.commit()
    assert await sessions_in(path) == 1


async def test_the_columns_of_a_key_come_first_in_tables_without_row_ids(tmp_path: Path) -> None:
    """See the test above: who has such a version of SQLite can still check the file by hand."""
    path = tmp_path / "navi.db"
    await make(path)
    with closing(sqlite3.connect(path)) as db:
        tables = db.execute("SELECT name FROM pragma_table_list WHERE wr AND schema = 'main'").fetchall()
        assert tables
        for (table,) in tables:
            keys = [row[5] for row in db.execute(f"PRAGMA table_info({table})")]
            most = max(keys)
            assert keys[:most] == list(range(1, most + 1)), table
