"""Units of work in the connection's thread: one hop for all of a commit, and what a unit may not do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.errors import SessionNotFound, StoreError
from navi_jupyter.store.database import Transaction
from navi_jupyter.store.postgres import connection as postgres
from navi_jupyter.store.sqlite import connection
from navi_jupyter.store.sqlite import store as sqlite
from navi_jupyter.store.sqlite.store import SqliteStore
from navi_jupyter.store.statements import Statements
from tests.support.database import Hold, locked_by_another, on_sqlite

from .test_writer import draft, opened


@contextmanager
def hops(store: SqliteStore) -> Iterator[list[object]]:
    """What is given to the threads of the store's connections meanwhile."""
    seen: list[object] = []
    tasks = [store._db._tx, *(reader._tx for reader in store._readers)]

    class Counting:
        def __init__(self, queue: Any) -> None:
            self.queue = queue

        def put_nowait(self, item: object) -> None:
            seen.append(item)
            self.queue.put_nowait(item)

    connections = [store._db, *store._readers]
    for db, queue in zip(connections, tasks, strict=True):
        db._tx = Counting(queue)  # type: ignore[assignment]
    try:
        yield seen
    finally:
        for db, queue in zip(connections, tasks, strict=True):
            db._tx = queue


async def append(tx: Transaction, number: int) -> int:
    return await tx.append("s_1", [draft(number)])


@on_sqlite
async def test_a_commit_is_one_hop_whatever_its_units_do(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        threads: set[int] = set()

        async def unit(tx: Transaction, number: int) -> int:
            threads.add(threading.get_ident())
            await tx.all("SELECT 1")
            if number % 3 == 0:
                raise SessionNotFound(f"{number}")
            return await append(tx, number)

        with hops(store) as seen:
            assert await store.write(lambda tx: unit(tx, 1), durable=True) == 1
            assert len(seen) == 1
            await asyncio.gather(
                *(store.write(lambda tx, n=n: unit(tx, n)) for n in range(300)), return_exceptions=True
            )
            assert len(seen) <= 3
        assert threads == {store._db._thread.ident}
        assert await store.head("s_1") == 201


async def count_events(view: Statements) -> int:
    (row,) = await view.all("SELECT count(*) AS n FROM events")
    return int(row["n"])


async def test_what_is_read_together_is_one_view_of_the_database(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        hold = Hold()

        async def twice(view: Statements) -> tuple[int, int]:
            first = await count_events(view)
            await hold()
            return first, await count_events(view)

        reading = asyncio.create_task(store.read(twice))
        await hold.begun()
        await store.write(lambda tx: append(tx, 1))
        hold.release()
        assert await reading == (0, 0)
        assert await store.read(count_events) == 1

        async def wrong(view: Statements) -> None:
            await view.all("SELECT each FROM nowhere")

        for _ in range(2 * max(connection.READERS, postgres.READERS)):  # each reader can be used again
            with pytest.raises(StoreError, match="nowhere"):
                await store.read(wrong)
        assert await store.read(count_events) == 1


@on_sqlite
async def test_what_is_read_together_is_one_hop(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:

        async def twice(view: Statements) -> tuple[int, int]:
            return await count_events(view), await count_events(view)

        with hops(store) as seen:
            assert await store.read(twice) == (0, 0)
            assert len(seen) == 1


async def asks_the_loop(tx: Transaction) -> None:
    await append(tx, 0)
    await asyncio.sleep(1)


async def gives_the_loop_its_turn(tx: Transaction) -> None:
    await append(tx, 0)
    await asyncio.sleep(0)


async def waits_for_others(tx: Transaction) -> None:
    await append(tx, 0)
    await asyncio.Event().wait()


@on_sqlite
@pytest.mark.parametrize("unit", [asks_the_loop, gives_the_loop_its_turn, waits_for_others])
async def test_a_unit_that_awaits_something_else_is_refused_by_name_and_the_others_are_stored(
    tmp_path: Path, unit: Any
) -> None:
    async with opened(tmp_path) as store:
        with pytest.raises(RuntimeError, match=unit.__name__):
            await store.write(unit)
        results = await asyncio.gather(
            store.write(lambda tx: append(tx, 1)),
            store.write(unit),
            store.write(lambda tx: append(tx, 2)),
            return_exceptions=True,
        )
        assert (results[0], results[2]) == (1, 2)
        assert isinstance(results[1], RuntimeError)
        assert "It awaits nothing but its transaction" in str(results[1])
        assert await store.head("s_1") == 2


async def test_a_unit_that_ends_as_if_it_was_cancelled_ends_no_one_else(tmp_path: Path) -> None:
    async def unit(tx: Transaction) -> None:
        await append(tx, 0)
        raise asyncio.CancelledError

    async with opened(tmp_path) as store, asyncio.timeout(20):
        for others in (0, 3):
            results = await asyncio.gather(
                store.write(unit),
                *(store.write(lambda tx: append(tx, 1)) for _ in range(others)),
                return_exceptions=True,
            )
            assert isinstance(results[0], asyncio.CancelledError)
            assert not any(isinstance(result, BaseException) for result in results[1:])
        assert await store.head("s_1") == 3


async def test_the_loop_goes_on_while_another_process_has_the_lock(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with locked_by_another(tmp_path / "navi.db"):
            writing = asyncio.create_task(store.write(lambda tx: append(tx, 1)))
            for _ in range(50):
                await asyncio.sleep(0.001)
                assert await store.head("s_1") == 0
            assert not writing.done()
        assert await writing == 1


async def test_observers_of_commits_learn_their_time_and_their_units_after_the_callers_are_answered(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as store:
        seen: list[tuple[float, int]] = []

        def broken(_seconds: float, _units: int) -> None:
            raise RuntimeError

        store.observe_commits(broken)
        store.observe_commits(lambda seconds, units: seen.append((seconds, units)))
        writing = [asyncio.create_task(store.write(lambda tx: append(tx, 0))) for _ in range(20)]
        await asyncio.sleep(0)
        assert 0 < store.waiting_units <= 20
        await asyncio.gather(*writing)
        assert store.waiting_units == 0
        assert sum(units for _, units in seen) == 20
        assert all(seconds > 0 for seconds, _ in seen)
        before = len(seen)
        with pytest.raises(SessionNotFound):
            await store.write(lambda tx: tx.append("s_none", [draft(1)]))
        assert len(seen) == before  # nothing was committed


class WithoutInside:
    """aiosqlite's connection as it would be without what is not documented of it."""

    def __init__(self, db: Any) -> None:
        self.documented = db

    def __getattr__(self, name: str) -> Any:
        if name in ("_execute", "_conn", "_connection"):
            raise AttributeError(name)
        return getattr(self.documented, name)


@on_sqlite
async def test_without_a_way_into_the_thread_all_works_with_a_hop_per_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = connection.connect

    async def connect(path: Path, *, read_only: bool = False, uri_query: str = "") -> Any:
        return WithoutInside(await really(path, read_only=read_only, uri_query=uri_query))

    monkeypatch.setattr(connection, "connect", connect)
    monkeypatch.setattr(sqlite, "connect", connect)
    async with opened(tmp_path) as store:

        async def unit(tx: Transaction, number: int) -> int:
            seq = await append(tx, number)
            if number % 3 == 0:
                raise SessionNotFound(f"{number}")
            if number % 3 == 1:
                await tx.change("INSERT INTO runs (nonsense) VALUES (1)")
            return seq

        with pytest.raises(SessionNotFound):
            await store.write(lambda tx: unit(tx, 0))
        results = await asyncio.gather(
            *(store.write(lambda tx, n=n: unit(tx, n)) for n in range(30)), return_exceptions=True
        )
        assert [result for result in results if isinstance(result, int)] == list(range(1, 11))
        assert {type(result) for result in results} == {SessionNotFound, StoreError, int}

        async def view(view: Statements) -> list[Any]:
            return [*await view.all("SELECT seq FROM events"), *await view.all("SELECT seq FROM events")]

        assert [row["seq"] for row in await store.read(view)] == [*range(1, 11)] * 2
        assert not await store.changed_elsewhere()
    with pytest.raises(StoreError, match="closed"):
        await store.read(view)
