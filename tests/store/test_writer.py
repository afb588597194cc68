"""The writer: many units in few transactions, each on its own feet; what a refusing disk and others do to it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.clock import now
from navi_jupyter.errors import NaviError, SessionNotFound, StoreError
from navi_jupyter.events import Custom, Draft
from navi_jupyter.model.sessions import SYSTEM
from navi_jupyter.store.database import Database, Transaction
from navi_jupyter.store.postgres import connection as postgres
from navi_jupyter.store.sqlite import connection
from tests.support.database import Hold, locked_by_another, on_sqlite, open_store, perform

from .test_database_file import session

ROOT = Path(__file__).resolve().parents[2]


def draft(number: int, size: int = 0) -> Draft:
    value = {"n": number, "pid": os.getpid(), "pad": "x" * size}
    return Draft(Custom(name="navi.kernel", value=value), run_id=None, origin=SYSTEM, at=now())


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Any]:
    store = await open_store(folder / "navi.db")
    try:
        if await store.session("s_1") is None:
            await store.write(lambda tx: tx.add_session(session()))
        yield store
    finally:
        await store.close()


async def count_transactions(store: Any) -> list[str]:
    """The statements that begin and end transactions, as the connection performs them."""
    seen: list[str] = []
    await store._db.set_trace_callback(seen.append)
    return seen


async def test_concurrent_writes_need_few_transactions(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        seen: list[int] = []
        store.observe_commits(lambda _seconds, units: seen.append(units))
        seqs = await asyncio.gather(*(store.write(lambda tx, n=n: tx.append("s_1", [draft(n)])) for n in range(1000)))
        assert seqs == list(range(1, 1001))
        assert len(seen) <= 4
        assert sum(seen) == 1000


async def test_a_unit_that_fails_undoes_itself_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        published: list[int] = []
        store.subscribe(lambda _, frames: published.extend(seq for seq, _ in frames))

        async def unit(tx: Transaction, number: int) -> int:
            seq = await tx.append("s_1", [draft(number)])
            if number % 3 == 0:
                raise SessionNotFound(f"{number}")
            if number % 3 == 1:
                await tx.change("INSERT INTO runs (nonsense) VALUES (1)")
            return seq

        results = await asyncio.gather(
            *(store.write(lambda tx, n=n: unit(tx, n)) for n in range(60)), return_exceptions=True
        )
        assert [type(result) for result in results[:3]] == [SessionNotFound, StoreError, int]
        assert [result for result in results if isinstance(result, int)] == list(range(1, 21))
        frames = await store.frames("s_1", after=0, limit=100)
        assert [json.loads(frame)["event"]["value"]["n"] for _, frame in frames] == list(range(2, 60, 3))
        assert published == list(range(1, 21))
        with pytest.raises(SessionNotFound):
            await store.write(lambda tx: unit(tx, 0))  # the same, alone
        assert await store.head("s_1") == 20


async def test_a_waiter_that_is_cancelled_does_not_undo_what_it_waits_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        hold = Hold()

        async def unit(tx: Transaction) -> int:
            await hold()
            return await tx.append("s_1", [draft(1)])

        waiter = asyncio.create_task(store.write(unit))
        await hold.begun()
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        hold.release()
        assert await store.write(lambda tx: tx.append("s_1", [draft(2)])) == 2


async def test_events_are_shown_after_the_commit_and_before_the_caller_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        order: list[object] = []

        def shown(_: str, frames: list[tuple[int, str]]) -> None:
            order.append(perform(tmp_path / "navi.db", "SELECT max(seq) FROM events")[0][0])

        store.subscribe(shown)
        order.append(("returned", await store.write(lambda tx: tx.append("s_1", [draft(1)]))))
        assert order == [1, ("returned", 1)]


async def test_a_listener_that_breaks_does_not_end_the_writer(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:

        def broken(_: str, frames: list[tuple[int, str]]) -> None:
            raise RuntimeError

        store.subscribe(broken)
        assert [await store.write(lambda tx: tx.append("s_1", [draft(0)])) for _ in range(2)] == [1, 2]


@on_sqlite
async def test_what_must_survive_a_power_cut_is_synced_and_the_rest_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        seen = await count_transactions(store)
        for durable in (True, True, False, False, True):
            await store.write(lambda tx: tx.append("s_1", [draft(1)]), durable=durable)
        modes = [sql.split("=")[1].strip() for sql in seen if sql.startswith("PRAGMA sync")]
        assert modes in (["FULL", "NORMAL", "FULL"], ["NORMAL", "FULL"] * 2)


async def test_a_closed_store_refuses_in_words(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        pending = [asyncio.create_task(store.write(lambda tx: tx.append("s_1", [draft(0)]))) for _ in range(50)]
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*pending) == list(range(1, 51))  # what was given before is committed
        with pytest.raises(StoreError, match="closed"):
            await store.write(lambda tx: tx.append("s_1", [draft(1)]))
        with pytest.raises(StoreError, match="closed"):
            await store.session("s_1")
        with pytest.raises(StoreError, match="closed"):
            await store.snapshot("s_1")


async def test_an_invalid_change_of_a_session_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(NaviError):
            await store.write(lambda tx: tx.change_session("s_1", {"owner": "eve"}))
        with pytest.raises(SessionNotFound):
            await store.write(lambda tx: tx.append("s_none", [draft(1)]))


# --- a disk that refuses


@on_sqlite
async def test_a_full_database_refuses_and_takes_everything_once_there_is_room(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        pages = (await store.fetch_all("PRAGMA page_count"))[0][0]
        await store._db.execute(f"PRAGMA max_page_count = {pages + 5}")
        results = await asyncio.gather(
            *(store.write(lambda tx, n=n: tx.append("s_1", [draft(n, 20_000)])) for n in range(10)),
            return_exceptions=True,
        )
        assert any(isinstance(result, StoreError) and "full" in str(result) for result in results)
        taken = [result for result in results if isinstance(result, int)]
        assert await store.head("s_1") == len(taken)
        await store._db.execute("PRAGMA max_page_count = 1000000")
        assert await store.write(lambda tx: tx.append("s_1", [draft(99)])) == len(taken) + 1


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
sys.path[:0] = [{root!r}]
from tests.store.test_writer import opened, draft, StoreError
async def main():
    async with opened(Path({folder!r})) as store:
        size = (Path({folder!r}) / "navi.db-wal").stat().st_size
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, hard))
        refused = 0
        for n in range(20):
            try:
                await store.write(lambda tx: tx.append("s_1", [draft(n, 5000)]), durable=True)
            except StoreError as error:
                refused += 1
        head = await store.head("s_1")
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        for n in range(refused):
            await store.write(lambda tx: tx.append("s_1", [draft(n, 5000)]), durable=True)
        assert await store.head("s_1") == 20, (refused, head, await store.head("s_1"))
        print(refused)
asyncio.run(main())
"""


@on_sqlite
@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY, reason="is limited already")
def test_a_disk_that_takes_no_more_bytes_refuses_and_loses_nothing(tmp_path: Path) -> None:
    code = FULL_DISK.format(root=str(ROOT), folder=str(tmp_path))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 0
    with closing(sqlite3.connect(tmp_path / "navi.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*), max(seq) FROM events").fetchone() == (20, 20)


async def locked_out(store: Database, path: Path, busy: float) -> None:
    loop = asyncio.get_running_loop()
    with locked_by_another(path):
        began = loop.time()
        with pytest.raises(StoreError, match="locked"):
            await store.write(lambda tx: tx.append("s_1", [draft(1)]))
        assert busy * 0.9 <= loop.time() - began <= busy + 5
        assert await store.head("s_1") == 0  # readers do not mind
    assert await store.write(lambda tx: tx.append("s_1", [draft(1)])) == 1


async def test_a_database_that_another_program_locks_refuses_after_a_while_and_then_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_MS", 300)
    monkeypatch.setitem(postgres._SETTINGS, "lock_timeout", "300ms")
    async with opened(tmp_path) as store:
        seen: list[float] = []
        store.observe_commits(lambda seconds, _units: seen.append(seconds))
        await locked_out(store, tmp_path / "navi.db", 0.3)
        assert max(seen) >= 0.27, "that a commit waited in vain is what its time is looked at for"


@pytest.mark.slow
async def test_a_lock_of_twelve_seconds_is_waited_for_ten(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await locked_out(store, tmp_path / "navi.db", 10)


# --- two processes

APPENDER = """
import asyncio, sys
from pathlib import Path
from tests.store.test_writer import opened, draft
async def main():
    async with opened(Path(sys.argv[1])) as store:
        sys.stdin.read()
        for n in range(0, 200, 5):
            await asyncio.gather(*(store.write(lambda tx, m=m: tx.append("s_1", [draft(m)])) for m in range(n, n + 5)))
asyncio.run(main())
"""


async def until_unchanged(store: Database) -> None:
    """PostgreSQL reports a change some milliseconds later; and all counts as new once a connection is there."""
    async with asyncio.timeout(20):
        while await store.changed_elsewhere(within=0.1):
            pass


async def test_two_processes_that_append_to_one_session_number_without_gap_and_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        appenders = [
            subprocess.Popen(
                [sys.executable, "-c", APPENDER, str(tmp_path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
            )
            for _ in range(2)
        ]
        await until_unchanged(store)
        for process in appenders:
            assert process.stdin is not None
            process.stdin.close()
        for process in appenders:
            assert process.stderr is not None
            errors = await asyncio.to_thread(process.stderr.read)
            assert process.wait() == 0, errors
        assert await store.changed_elsewhere(within=0.1)
        await until_unchanged(store)
        await store.write(lambda tx: tx.append("s_1", [draft(0)]))
        assert not await store.changed_elsewhere(within=0.1)  # our own commits do not count
        frames = await store.frames("s_1", after=0, limit=1000)
        assert [seq for seq, _ in frames] == list(range(1, 402))
        by_process: dict[int, list[Any]] = {}
        for _, frame in frames[:-1]:
            value = json.loads(frame)["event"]["value"]
            by_process.setdefault(value["pid"], []).append(value["n"])
        assert list(by_process.values()) == [list(range(200))] * 2


@on_sqlite
async def test_a_defect_in_the_writer_fails_its_own_batch_and_the_next_change_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_wanted: str) -> None:
        raise RuntimeError("planted")

    async with opened(tmp_path) as store, asyncio.timeout(20):
        with monkeypatch.context() as planted:
            planted.setattr(store, "_set_synchronous", broken)
            with pytest.raises(RuntimeError, match="planted"):
                await store.write(lambda tx: tx.append("s_1", [draft(1)]))
        assert await store.write(lambda tx: tx.append("s_1", [draft(2)])) == 1
