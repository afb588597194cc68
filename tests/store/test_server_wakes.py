"""The table of servers that are started for their recalls: reports with bounds, claims that end, back-off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from navi_jupyter.clock import now
from navi_jupyter.errors import LimitReached
from navi_jupyter.model.user_servers import ServerKey
from navi_jupyter.store.database import Database
from navi_jupyter.store.hub.server_wakes import (
    FORGOTTEN,
    LONGEST_BEFORE,
    MOST_SERVERS,
    UNUSED,
    ServerWake,
    ServerWakeStore,
    WakeReport,
)
from navi_jupyter.store.hub.user_servers import LEASE
from tests.support.database import open_store

AT = now()
SECOND = timedelta(seconds=1)
BEFORE = timedelta(seconds=30)
ADA = ServerKey("ada")


@asynccontextmanager
async def replicas(folder: Path) -> AsyncIterator[tuple[ServerWakeStore, ServerWakeStore]]:
    databases: list[Database] = []
    try:
        for _ in range(2):
            databases.append(await open_store(folder / "navi.db"))
        yield ServerWakeStore(databases[0], "r0"), ServerWakeStore(databases[1], "r1")
    finally:
        for each in databases:
            await each.close()


async def due(store: ServerWakeStore, at: datetime, free: int = 10) -> list[str]:
    return [str(wake.key) for wake in await store.claim_due(before=BEFORE, free=free, now=at)]


async def test_a_server_is_claimed_once_in_time_and_again_when_its_replica_is_gone(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one, other):
        await one.report(WakeReport(key=ADA, next_at=AT + 60 * SECOND), now=AT)
        await other.report(WakeReport(key=ServerKey("bob"), next_at=AT + 50 * SECOND), now=AT)
        await one.report(WakeReport(key=ServerKey("never"), next_at=None), now=AT)
        assert await due(one, AT + 19 * SECOND) == []
        assert await due(one, AT + 20 * SECOND) == ["bob"]
        assert await due(other, AT + 30 * SECOND) == ["ada"]
        assert await due(one, AT + 30 * SECOND) == await due(other, AT + 31 * SECOND) == []
        assert await other.renew([ADA, ServerKey("bob")], now=AT + 31 * SECOND) == [ServerKey("bob")]
        assert await due(other, AT + 20 * SECOND + LEASE + SECOND) == ["bob"], "the replica that had it is gone"
        assert await one.renew([ServerKey("bob")], now=AT + 50 * SECOND) == [ServerKey("bob")]


async def test_the_earliest_come_first_and_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one, other):
        for number in (3, 1, 2):
            await one.report(WakeReport(key=ServerKey(f"u{number}"), next_at=AT + number * SECOND), now=AT)
        assert await due(one, AT, free=2) == ["u1", "u2"]
        assert await due(other, AT) == ["u3"]


async def test_a_server_whose_start_takes_long_is_started_so_much_earlier_within_bounds(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one, _):
        await one.report(WakeReport(key=ADA, next_at=AT + 400 * SECOND), now=AT)
        await one.note_start(ADA, 60 * SECOND)
        assert await due(one, AT + 309 * SECOND) == []
        found = (await one.of((ADA,)))[ADA]
        assert [found.is_due(AT + seconds * SECOND, BEFORE) for seconds in (309, 310)] == [False, True]
        await one.note_start(ADA, 4000 * SECOND)
        assert await due(one, AT + 400 * SECOND - LONGEST_BEFORE - SECOND) == []
        assert await due(one, AT + 400 * SECOND - LONGEST_BEFORE) == ["ada"]


async def test_what_has_failed_waits_unless_something_new_is_reported(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one, other):
        await one.report(WakeReport(key=ADA, next_at=AT), now=AT)
        assert await due(one, AT) == ["ada"]
        await other.settle(ADA, not_before=AT)
        assert await due(other, AT) == [], "another one's claim is not given back"
        await one.settle(ADA, not_before=AT + 100 * SECOND, attempts=3)
        await one.report(WakeReport(key=ADA, next_at=AT), now=AT + 2 * SECOND)
        assert await due(other, AT + 99 * SECOND) == []
        assert (await one.of((ADA,)))[ADA].attempts == 3
        await one.report(WakeReport(key=ADA, next_at=AT + 5 * SECOND), now=AT + 4 * SECOND)
        assert (await one.of((ADA,)))[ADA].attempts == 0
        assert await due(other, AT + 4 * SECOND) == ["ada"]


async def test_a_server_reports_once_in_a_second_on_any_replica_and_a_user_has_so_many(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one, other):
        busy = WakeReport(key=ADA, next_at=None, busy_for=60 * SECOND, in_use=True)
        await one.report(busy, now=AT)
        with pytest.raises(LimitReached, match="once in a second"):
            await other.report(WakeReport(key=ADA, next_at=None), now=AT + 0.9 * SECOND)
        found = (await other.of((ADA,)))[ADA]
        assert found == ServerWake(
            key=ADA, next_at=None, busy_until=AT + 60 * SECOND, in_use=True, reported_at=AT, took=timedelta(0)
        )
        assert [found.is_needed(AT + seconds * SECOND, BEFORE) for seconds in (59, 60)] == [True, False]
        await other.report(WakeReport(key=ADA, next_at=None), now=AT + SECOND)
        assert not (await other.of((ADA,)))[ADA].in_use
        for number in range(MOST_SERVERS):
            await one.report(WakeReport(key=ServerKey("bob", f"s{number}"), next_at=None), now=AT)
        with pytest.raises(LimitReached, match="the most"):
            await one.report(WakeReport(key=ServerKey("bob", "more"), next_at=None), now=AT)
        await one.report(WakeReport(key=ServerKey("bob", "s0"), next_at=None), now=AT + SECOND)


async def test_rows_of_no_use_are_removed(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one, _):
        await one.report(WakeReport(key=ADA, next_at=None), now=AT)
        await one.report(WakeReport(key=ServerKey("bob"), next_at=AT), now=AT)
        keys = (ADA, ServerKey("bob"))
        await one.tidy(now=AT + UNUSED)
        assert set(await one.of(keys)) == set(keys)
        await one.tidy(now=AT + UNUSED + SECOND)
        assert set(await one.of(keys)) == {ServerKey("bob")}
        await one.tidy(now=AT + FORGOTTEN + SECOND)
        assert not await one.of(keys)
