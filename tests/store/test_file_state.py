"""A database whose files are taken away while it is open, and one that lacks what was committed to it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from navi_jupyter.errors import NaviError, StoreLocked, StoreReplaced
from navi_jupyter.store.sqlite import database_file
from navi_jupyter.store.sqlite import store as sqlite
from navi_jupyter.store.sqlite.file_state import CommitRecord, DatabaseFiles, missing_changes
from navi_jupyter.store.sqlite.location import FileSystem
from navi_jupyter.store.sqlite.store import SqliteStore
from tests.support.database import on_sqlite

from .test_database_file import session, sessions_in

pytestmark = on_sqlite

ROOT = Path(__file__).resolve().parents[2]


async def add(store: SqliteStore, session_id: str, *, durable: bool = True) -> None:
    await store.write(lambda tx: tx.add_session(session(session_id)), durable=durable)


async def rescued(store: SqliteStore, folder: Path, name: str = "navi.db") -> Path:
    """The file in ``folder`` that holds what was in the database, once it is whole."""
    while True:
        failure = await store.failure()
        if failure is not None and "is kept in" in failure.message:
            (kept,) = folder.glob(f"{name}.recovered-*")
            assert str(kept) in failure.message
            return kept
        await asyncio.sleep(0.05)


def ids_in(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0] for row in db.execute("SELECT id FROM sessions")}


# --- taken away while it is open


def deleted(path: Path) -> None:
    for name in list(path.parent.glob("navi.db*")):
        name.unlink()


def file_deleted(path: Path) -> None:
    path.unlink()


def log_deleted(path: Path) -> None:
    path.with_name("navi.db-wal").unlink()


def shared_memory_deleted(path: Path) -> None:
    path.with_name("navi.db-shm").unlink()


def replaced(path: Path) -> None:
    other = path.with_name("other")
    with closing(sqlite3.connect(other)) as db:
        database_file.migrate(db)
    other.replace(path)


def replaced_by_a_copy(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    other.replace(path)


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


TAKEN = [deleted, file_deleted, log_deleted, shared_memory_deleted, replaced, replaced_by_a_copy, moved]


@pytest.mark.parametrize("take", TAKEN)
async def test_a_database_that_is_taken_away_takes_nothing_more_and_all_of_it_is_in_a_new_file(
    tmp_path: Path, take: Callable[[Path], None]
) -> None:
    path = tmp_path / "navi.db"
    store = await SqliteStore.open(path)
    await add(store, "s_1")
    await add(store, "s_2", durable=False)
    take(path)
    others = {each: each.read_bytes() for each in tmp_path.glob("navi.db") if "replaced" in take.__name__}
    with pytest.raises(StoreReplaced, match="nothing is saved any more"):
        await add(store, "s_3")
    kept = await rescued(store, tmp_path)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert ids_in(kept) == {"s_1", "s_2"}
    rows = await store.fetch_all("SELECT id FROM sessions ORDER BY id")
    assert [row["id"] for row in rows] == ["s_1", "s_2"], "what is there can still be read"
    with pytest.raises(StoreReplaced, match="is kept in"):
        await add(store, "s_4")
    await store.close()
    assert {each: each.read_bytes() for each in others} == others, "a new file at the path is not written"
    for name in (
        list(tmp_path.glob("navi.db")) + list(tmp_path.glob("navi.db-*")) + list(tmp_path.glob("navi.db.state"))
    ):
        name.unlink()
    kept.rename(path)
    assert await sessions_in(path) == 2


# --- overwritten in its place: the file is the same one


def in_another_process(program: str, *arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-c", f"import sys, sqlite3\n{program}", *map(str, arguments)], check=True, timeout=60
    )


def emptied(path: Path, _: Path) -> None:
    os.truncate(path, 0)


def first_page_zeroed(path: Path, _: Path) -> None:
    in_another_process("f = open(sys.argv[1], 'r+b'); f.write(bytes(4096)); f.close()", path)


def another_kind_of_file(path: Path, _: Path) -> None:
    in_another_process("f = open(sys.argv[1], 'wb'); f.write(b'\\xff\\xd8JPEG' * 9999); f.close()", path)


def copied_over(path: Path, other: Path) -> None:
    in_another_process("import shutil; shutil.copyfile(sys.argv[2], sys.argv[1])", path, other)


def restored_by_sqlite(path: Path, other: Path) -> None:
    in_another_process("sqlite3.connect(sys.argv[2]).backup(sqlite3.connect(sys.argv[1]))", path, other)


def row_removed(path: Path, _: Path) -> None:
    in_another_process("c = sqlite3.connect(sys.argv[1]); c.execute('DELETE FROM database_state'); c.commit()", path)


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(
    "overwrite", [emptied, first_page_zeroed, another_kind_of_file, copied_over, restored_by_sqlite, row_removed]
)
async def test_a_database_that_is_overwritten_takes_nothing_more_and_what_is_left_of_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: Callable[[Path, Path], None], older: bool
) -> None:
    monkeypatch.setattr(sqlite, "LOOK_EVERY", 0.05)
    path, other = tmp_path / "navi.db", tmp_path / "other.db"
    store = await SqliteStore.open(path if older else other)  # an older copy of this database, or another one
    await add(store, "s_0")
    await store.close()
    if older:
        shutil.copy(path, other)
    store = await SqliteStore.open(path)
    await add(store, "s_1")
    await store.close()
    store = await SqliteStore.open(path)
    await add(store, "s_2")
    await asyncio.sleep(0.3)
    overwrite(path, other)
    kept = await asyncio.wait_for(rescued(store, tmp_path), 20)
    failure = await store.failure()
    assert failure is not None
    with pytest.raises(StoreReplaced, match="nothing is saved any more"):
        await add(store, "s_3")
    whole = "What it held is kept in" in failure.message
    assert whole or "What could still be read is kept in" in failure.message
    if whole:
        assert {"s_1", "s_2"} <= ids_in(kept)
    await store.close()


async def test_what_other_programs_may_do_to_a_database_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOOK_EVERY", 0.02)
    path = tmp_path / "navi.db"
    first, second = await SqliteStore.open(path), await SqliteStore.open(path)
    for number in range(40):
        await add(first, f"s_{number}")
        await add(second, f"t_{number}", durable=False)
        if number % 10 == 5:
            in_another_process("sqlite3.connect(sys.argv[1]).execute('VACUUM')", path)
            in_another_process("sqlite3.connect(sys.argv[1]).execute('PRAGMA wal_checkpoint(TRUNCATE)')", path)
    assert await first.failure() is None
    assert await second.failure() is None
    await second.close()
    await add(first, "last")
    await first.close()
    assert await sessions_in(path) == 81


@pytest.mark.parametrize("take", [deleted, replaced])
async def test_it_is_noticed_also_while_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(sqlite, "LOOK_EVERY", 0.05)
    store = await SqliteStore.open(tmp_path / "navi.db")
    await add(store, "s_1")
    take(tmp_path / "navi.db")
    assert ids_in(await asyncio.wait_for(rescued(store, tmp_path), 20)) == {"s_1"}
    await store.close()


@pytest.mark.parametrize("gone", [False, True])
async def test_a_folder_that_is_moved_or_deleted_leaves_the_copy_above_it(tmp_path: Path, gone: bool) -> None:
    folder = tmp_path / "navi"
    store = await SqliteStore.open(folder / "navi.db")
    await add(store, "s_1")
    shutil.rmtree(folder) if gone else folder.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreReplaced):
        await add(store, "s_2")
    assert ids_in(await rescued(store, tmp_path)) == {"s_1"}
    await store.close()
    assert not folder.exists()


async def test_a_link_that_leads_to_another_file_now_has_replaced_the_database(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    path.symlink_to("first.db")
    store = await SqliteStore.open(path)
    await add(store, "s_1")
    (tmp_path / "second.db").touch()
    path.unlink()
    path.symlink_to("second.db")
    with pytest.raises(StoreReplaced):
        await add(store, "s_2")
    assert ids_in(await rescued(store, tmp_path)) == {"s_1"}
    await store.close()


async def test_two_servers_on_one_file_both_notice(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    code = (
        "import asyncio, sys; from pathlib import Path; from navi_jupyter.store.sqlite.store import SqliteStore\n"
        "async def main():\n"
        "    store = await SqliteStore.open(Path(sys.argv[1]))\n"
        "    print('open', flush=True)\n"
        "    while 'is kept in' not in (getattr(await store.failure(), 'message', '')):\n"
        "        await asyncio.sleep(0.05)\n"
        "    print((await store.failure()).code, flush=True)\n"
        "    await store.close()\n"
        "asyncio.run(main())"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert other.stdout is not None
    try:
        assert await asyncio.to_thread(other.stdout.readline) == "open\n"
        store = await SqliteStore.open(path)
        await add(store, "s_1")
        deleted(path)
        with pytest.raises(StoreReplaced):
            await add(store, "s_2")
        assert await asyncio.wait_for(asyncio.to_thread(other.stdout.readline), 30) == "store_replaced\n"
        while "is kept" not in str(await store.failure()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert [ids_in(kept) for kept in tmp_path.glob("navi.db.recovered-*")] == [{"s_1"}, {"s_1"}]
        await store.close()
    finally:
        other.kill()
        other.wait()


async def test_a_copy_that_could_not_be_written_is_tried_again_also_when_the_store_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(tmp_path / "navi.db")
    await add(store, "s_1")
    with monkeypatch.context() as without_places:
        without_places.setattr(sqlite, "rescue_places", lambda _: iter((Path("/proc/none/kept"),)))
        deleted(tmp_path / "navi.db")
        with pytest.raises(StoreReplaced):
            await add(store, "s_2")
        await asyncio.sleep(0.2)
        assert not list(tmp_path.glob("navi.db.recovered-*"))
    await store.close()
    (kept,) = tmp_path.glob("navi.db.recovered-*")
    assert ids_in(kept) == {"s_1"}


async def test_what_keeps_its_files_is_not_refused(tmp_path: Path) -> None:
    """Checkpoints, vacuums, other servers that come and go, a backup that reads, other modes and times."""
    path = tmp_path / "navi.db"
    store = await SqliteStore.open(path)
    for number in range(3):
        await add(store, f"s_{number}")
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("VACUUM")
        assert await sessions_in(path) == number + 1
        path.chmod(0o640)
        os.utime(path, (0, 0))
        assert await store.failure() is None
    await store.close()


def test_to_look_at_the_files_takes_a_few_microseconds(tmp_path: Path) -> None:
    files = DatabaseFiles(tmp_path / "navi.db")
    with closing(sqlite3.connect(tmp_path / "navi.db")) as db:
        database_file.migrate(db)
    for companion in ("-wal", "-shm"):
        (tmp_path / f"navi.db{companion}").touch()
    files.open(CommitRecord("d", 0), alone=False)
    took = []
    for _ in range(200):
        began = time.perf_counter()
        assert files.changed() is None
        took.append(time.perf_counter() - began)
    files.close()
    assert sorted(took)[20] < 50e-6  # of a loaded machine; 4 microseconds on an idle one


# --- opened without what was committed

_WORK = (
    "import asyncio, os, sys; from pathlib import Path; from navi_jupyter.store.sqlite.store import SqliteStore\n"
    "from tests.store.test_database_file import session\n"
    "async def main():\n"
    "    store = await SqliteStore.open(Path(sys.argv[1]))\n"
    "    for number in range(int(sys.argv[2])):\n"
    "        await store.write(lambda tx: tx.add_session(session(f's_{number}')), durable=True)\n"
    "    os._exit(9)\n"
    "asyncio.run(main())"
)


def crashed(path: Path, sessions: int = 20, *, prefix: str = "s") -> None:
    """A server that has died in mid-work; its log is there."""
    work = _WORK.replace("s_{", f"{prefix}_{{")
    done = subprocess.run([sys.executable, "-c", work, str(path), str(sessions)], cwd=ROOT, check=False)
    assert done.returncode == 9
    assert path.with_name("navi.db-wal").stat().st_size > 0


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a server which died in mid-work has left behind: database, log, shared memory and record."""
    folder = tmp_path_factory.mktemp("crash")
    crashed(folder / "navi.db")
    return folder


@pytest.fixture(scope="module")
def two_crashes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after a second server; in ``before`` what the first had left, once it was opened and closed in order."""
    folder, before = tmp_path_factory.mktemp("crashes"), tmp_path_factory.mktemp("before") / "before"
    crashed(folder / "navi.db", 1)
    assert asyncio.run(notice_of(folder / "navi.db")) is None
    shutil.copytree(folder, before)
    crashed(folder / "navi.db", prefix="t")
    before.rename(folder / "before")
    return folder


def left(folder: Path, place: Path) -> Path:
    """The database in a copy of all files of a folder."""
    shutil.copytree(folder, place, dirs_exist_ok=True)
    return place / "navi.db"


async def notice_of(path: Path) -> str | None:
    store = await SqliteStore.open(path)
    await store.close()
    return store.notice


async def test_after_a_crash_nothing_is_missing_and_nothing_is_said(tmp_path: Path, crash: Path) -> None:
    path = left(crash, tmp_path)
    assert await notice_of(path) is None
    assert await sessions_in(path) == 20


def without_log(path: Path) -> None:
    path.with_name("navi.db-wal").unlink()


def without_log_and_shared_memory(path: Path) -> None:
    without_log(path)
    path.with_name("navi.db-shm").unlink()


def with_an_empty_log(path: Path) -> None:
    os.truncate(path.with_name("navi.db-wal"), 0)


def with_half_a_log(path: Path) -> None:
    wal = path.with_name("navi.db-wal")
    os.truncate(wal, wal.stat().st_size // 2)


def with_a_log_that_lacks_its_end(path: Path) -> None:
    wal = path.with_name("navi.db-wal")
    os.truncate(wal, wal.stat().st_size - 100)


def with_a_damaged_log(path: Path) -> None:
    wal = path.with_name("navi.db-wal")
    content = bytearray(wal.read_bytes())
    content[len(content) // 2] ^= 0xFF
    wal.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        without_log,
        without_log_and_shared_memory,
        with_an_empty_log,
        with_half_a_log,
        with_a_log_that_lacks_its_end,
        with_a_damaged_log,
    ],
)
async def test_after_a_crash_a_missing_or_cut_log_is_told_with_the_time_from_which_changes_are_missing(
    tmp_path: Path, two_crashes: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = left(two_crashes, tmp_path)
    damage(path)
    said = await notice_of(path)
    assert said is not None
    assert "Changes are missing: what was saved from 20" in said
    assert "store_notice" in caplog.text
    assert await notice_of(path) is None, "what was told is not told for ever"


async def test_a_copy_of_the_file_alone_says_that_changes_may_be_missing(tmp_path: Path, crash: Path) -> None:
    shutil.copy(crash / "navi.db", tmp_path)
    said = await notice_of(tmp_path / "navi.db")
    assert said is not None
    assert "Changes may be missing" in said


async def test_an_older_copy_in_the_place_of_the_database_is_told(tmp_path: Path, two_crashes: Path) -> None:
    path = left(two_crashes, tmp_path)
    assert await notice_of(path) is None
    shutil.copy(two_crashes / "before" / "navi.db", path)
    said = await notice_of(path)
    assert said is not None
    assert "an older copy" in said


async def test_a_database_that_was_closed_in_order_can_be_copied_and_nothing_is_said(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    store = await SqliteStore.open(path)
    await add(store, "s_1")
    await store.close()
    shutil.copy(path, tmp_path / "copy.db")
    assert await notice_of(tmp_path / "copy.db") is None
    assert await notice_of(path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"database": 1}',
        b'{"committed_at": 1e999}',
        b'{"database": "NAME", "committed_at": 1e999}',
        b'{"database": "NAME", "committed_at": 99999999999999999999999}',
        b'{"database": "NAME", "committed_at": -9999999999999999999}',
        b'{"database": "NAME", "committed_at": []}',
        b"[" * 200_000,
    ],
)
async def test_a_record_that_cannot_be_read_is_written_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "navi.db"
    store = await SqliteStore.open(path)
    await store.close()
    with closing(sqlite3.connect(path)) as db:
        name = db.execute("SELECT name FROM database_state").fetchone()[0]
    path.with_name("navi.db.state").write_bytes(content.replace(b"NAME", name.encode()))
    assert await notice_of(path) is None
    # Written anew: it is known again what was committed last, as when this server dies and its log is taken away.
    record = json.loads(path.with_name("navi.db.state").read_bytes().split(b"\n")[0])
    assert record.keys() == {"database", "committed_at"}
    assert record["database"] == name
    store = await SqliteStore.open(path)
    await add(store, "s_1")
    left(tmp_path, tmp_path / "died")
    await store.close()
    died = tmp_path / "died" / "navi.db"
    without_log(died)
    assert "Changes are missing" in str(await notice_of(died))


@pytest.mark.parametrize(
    ("inside", "beside", "has_log", "said"),
    [
        (CommitRecord("a", 5), None, False, None),
        (CommitRecord("a", 5), CommitRecord("a", 5), False, None),
        (CommitRecord("a", 5, in_use=True), CommitRecord("a", 5), False, None),
        (CommitRecord("a", 6, in_use=True), CommitRecord("a", 5), True, None),
        (CommitRecord("a", 5), CommitRecord("a", 6), True, "are missing"),
        (CommitRecord("a", 5), CommitRecord("b", 6), True, None),
        (CommitRecord("a", 5, in_use=True), CommitRecord("b", 6), False, "may be missing"),
        (CommitRecord("a", 5, in_use=True), None, False, "may be missing"),
        (CommitRecord("a", 5, in_use=True), None, True, None),
    ],
)
def test_what_is_missing_is_known_from_the_two_records(
    inside: CommitRecord, beside: CommitRecord | None, has_log: bool, said: str | None
) -> None:
    found = missing_changes(inside, beside, has_log=has_log)
    assert found is None if said is None else said in str(found)


# --- one process alone


async def test_of_two_servers_that_each_promise_to_be_alone_the_second_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_file, "file_system_of", lambda _: FileSystem("nfs4", "/home"))
    store = await SqliteStore.open(tmp_path / "navi.db", single_process=True)
    await add(store, "s_1")
    with pytest.raises(StoreLocked, match="Another server"):
        await SqliteStore.open(tmp_path / "navi.db", single_process=True)
    await add(store, "s_2")
    await store.close()
    store = await SqliteStore.open(tmp_path / "navi.db", single_process=True)
    await store.close()


# --- what cannot be written at the moment


async def test_it_is_known_whether_anything_can_be_written_also_when_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "FRESH", 0.1)
    monkeypatch.setattr(sqlite, "ANSWER_WITHIN", 0.3)
    path = tmp_path / "navi.db"
    store = await SqliteStore.open(path)
    assert await store.failure() is None
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(0.5)
        failure = await store.failure()
        assert isinstance(failure, NaviError)
        assert failure.code == "store_busy"
        holder.execute("ROLLBACK")
    while await store.failure() is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await store.close()
