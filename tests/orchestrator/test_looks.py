"""What a server looks for by itself, and how often: nothing while it is alone, and soon again when it is not."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.clock import now
from navi_jupyter.errors import LeaseLost, StoreError
from navi_jupyter.events import Custom, Draft
from navi_jupyter.model.sessions import SYSTEM
from navi_jupyter.orchestrator.upkeep import maintenance
from navi_jupyter.orchestrator.upkeep.servers import Trust, process_started
from navi_jupyter.settings import ServerLease
from navi_jupyter.store.database import Database
from tests.store.test_writer import count_transactions
from tests.support.database import on_sqlite, open_store
from tests.support.orchestrator_world import World, eventually, world


def calls_of(monkeypatch: pytest.MonkeyPatch, store: Database, *names: str) -> list[str]:
    """The names of these methods, each time that one is called."""
    seen: list[str] = []
    for name in names:
        method = getattr(store, name)

        def called(*given: Any, name: str = name, method: Any = method, **more: Any) -> Any:
            seen.append(name)
            return method(*given, **more)

        monkeypatch.setattr(store, name, called)
    return seen


@asynccontextmanager
async def counted_turns() -> Any:
    """Turns of the loop for which it waited."""
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    turns, select = [0], selector.select

    def counted(timeout: float | None = None) -> Any:
        turns[0] += timeout is None or timeout > 0
        return select(timeout)

    selector.select = counted
    try:
        yield turns
    finally:
        del selector.select


async def note(w: World, sid: str) -> None:
    await w.store.write(
        lambda tx: tx.append(sid, [Draft(Custom(name="navi.kernel", value={}), run_id=None, origin=SYSTEM, at=now())])
    )


def alone(w: World) -> bool:
    return w.orchestrator._maintenance._alone


async def test_a_server_that_is_alone_and_idle_sleeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        await eventually(lambda: alone(w) and not w.orchestrator._maintenance._met.is_set())
        await asyncio.sleep(2 * maintenance.QUESTIONS_EVERY)  # until it has seen that nothing can expire
        seen = calls_of(monkeypatch, w.store, "leases", "expiring", "ready_sessions", "runs_of", "heads")
        async with counted_turns() as turns:
            await asyncio.sleep(3.0)
        assert turns[0] < 45  # 63 when each kind of work looked at its own times
        assert seen == []
        await note(w, sid)  # there may be a question now, or an answer
        await eventually(lambda: "ready_sessions" in seen and "leases" in seen)


async def test_a_new_server_lets_clients_in_when_the_others_look_often_and_its_events_are_seen(tmp_path: Path) -> None:
    async with world(tmp_path) as first:
        sid = await first.session()
        follower = asyncio.create_task(first.until(sid, lambda e: e["event"].get("name") == "navi.kernel"))
        await eventually(lambda: alone(first) and first.orchestrator.log.followers == 1)
        began = time.monotonic()
        async with world(tmp_path) as second:
            assert time.monotonic() - began >= maintenance.LOOK_ALONE
            await eventually(lambda: not alone(first))
            await note(second, sid)
            async with asyncio.timeout(10):
                await follower
        await eventually(lambda: alone(first))


async def test_an_idle_server_meets_another_one_and_takes_over_when_that_is_gone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await eventually(lambda: alone(w) and not w.orchestrator._maintenance._met.is_set())
        other = await open_store(tmp_path / "navi.db")
        process = await asyncio.create_subprocess_exec("sleep", "60")
        try:
            here = w.orchestrator.server
            there = here.__class__(
                id="other", host=here.host, pid=process.pid, pid_started=process_started(process.pid) or 0.0
            )
            await other.write(lambda tx: tx.beat(there, at=now(), lease=timedelta(hours=1)))
            await eventually(lambda: not alone(w))
            process.kill()
            await process.wait()
            await eventually(lambda: alone(w))
            assert [server.id for server in await w.store.known_servers()] == [here.id]
        finally:
            if process.returncode is None:
                process.kill()
            await other.close()


@on_sqlite
async def test_whether_another_process_has_committed_is_asked_of_the_writers_thread_only_after_a_commit(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        sid, seen = await w.session(), await count_transactions(w.store)
        asked = "PRAGMA data_version"
        for _ in range(50):
            assert not await w.store.changed_elsewhere()
        assert seen.count(asked) <= 5  # after commits of its own
        other = await open_store(tmp_path / "navi.db")
        await w.store.changed_elsewhere()
        await other.write(
            lambda tx: tx.append(
                sid, [Draft(Custom(name="navi.kernel", value={}), run_id=None, origin=SYSTEM, at=now())]
            )
        )
        assert await w.store.changed_elsewhere()
        assert not await w.store.changed_elsewhere()
        await other.close()


@on_sqlite
async def test_a_look_that_fails_finds_the_commit_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(tmp_path / "navi.db")
    other = await open_store(tmp_path / "navi.db")
    await store.changed_elsewhere()
    await other.write(lambda tx: tx.forget_server("none"))

    async def broken(*_: object) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(store._db, "execute_fetchall", broken)  # type: ignore[attr-defined]
        with pytest.raises(StoreError):
            await store.changed_elsewhere()
    assert await store.changed_elsewhere()
    await other.close()
    await store.close()


async def test_the_lease_is_watched_while_a_run_works_and_asked_for_before_it_begins() -> None:
    time_, lost, working = [1000.0], [], True
    trust = Trust(ServerLease(), on_lost=lambda: lost.append(time_[0]), clock=lambda: time_[0])
    trust.renewed(time_[0])
    watching = asyncio.create_task(trust.watch(lambda: working))
    await asyncio.sleep(0)
    time_[0] += 60.0
    await eventually(lambda: lost == [1060.0])
    working = False
    trust.renewed(time_[0])
    await eventually(lambda: not trust._required.is_set() and bool(trust._required._waiters))
    time_[0] += 10.0
    trust.require()  # a run is about to begin, and is not seen yet
    time_[0] += 60.0
    await eventually(lambda: len(lost) == 2)
    with pytest.raises(LeaseLost):
        trust.require()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
