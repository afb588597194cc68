"""The table of users' servers: a queue with places, claims that end, uses that keep a server from being stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from navi_jupyter.clock import now
from navi_jupyter.model.user_servers import (
    FAILURES,
    FAILURES_WITHIN,
    LOOKED_AT,
    REFUSED_FOR,
    ServerKey,
    UserServer,
    UserServerState,
)
from navi_jupyter.store.database import Database
from navi_jupyter.store.hub.user_servers import LEASE, ServerTurn, UserServerStore
from tests.support.database import open_store

AT = now()
SECOND = timedelta(seconds=1)
LATER = AT + LEASE + SECOND
IDLE = timedelta(seconds=300)


@dataclass
class Replica:
    """A process, whose clock the test has."""

    store: UserServerStore
    at: datetime = AT

    async def turn(
        self,
        wants: Sequence[ServerKey] = (),
        *,
        renewed: Sequence[ServerKey] = (),
        uses: Sequence[ServerKey] = (),
        places: int = 10,
    ) -> ServerTurn:
        return await self.store.turn(wants=wants, watched=wants, renewed=renewed, uses=uses, places=places, now=self.at)

    async def starts(self, key: ServerKey) -> None:
        """It has started a server of which it has the claim."""
        assert await self.store.change(key, lambda one, _: one.ready(self.at, "then"), now=self.at)

    async def state(self, key: ServerKey) -> UserServerState | None:
        found = (await self.store.of((key,))).get(key)
        return None if found is None else found.state

    async def to_stop(self) -> list[ServerKey]:
        return [one.key for one in await self.store.to_stop(idle=IDLE, now=self.at)]


@asynccontextmanager
async def replicas(folder: Path, count: int = 2) -> AsyncIterator[list[Replica]]:
    databases: list[Database] = []
    try:
        for _ in range(count):
            databases.append(await open_store(folder / "navi.db"))
        yield [Replica(UserServerStore(each, f"r{number}")) for number, each in enumerate(databases)]
    finally:
        for each in databases:
            await each.close()


def keys(*owners: str) -> list[ServerKey]:
    return [ServerKey(owner, "") for owner in owners]


def claimed(turn: ServerTurn) -> list[str]:
    return [one.key.owner for one in turn.claimed]


ADA, BOB, CID = keys("ada", "bob", "cid")


async def test_those_who_came_first_get_the_places_over_all_replicas(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one, other):
        assert claimed(await one.turn([ADA], places=1)) == ["ada"]
        other.at += SECOND
        assert claimed(await other.turn([BOB], places=1)) == []
        one.at += 2 * SECOND
        assert claimed(await one.turn([CID], renewed=[ADA], places=1)) == []
        await one.starts(ADA)
        assert claimed(await one.turn([CID], places=1)) == ["bob"], "although the other one has wanted it"
        assert claimed(await other.turn(places=2)) == ["cid"]


async def test_many_turns_at_once_never_give_more_places_than_there_are(tmp_path: Path) -> None:
    wanted = keys(*(f"u{number:03}" for number in range(60)))
    async with replicas(tmp_path, 3) as all_of_them:
        taken: list[str] = []
        starting: set[str] = set()
        most = 0

        async def act(replica: Replica, mine: Sequence[ServerKey]) -> None:
            nonlocal most
            while len(taken) < len(wanted):
                for each in claimed(await replica.turn(mine, places=4)):
                    taken.append(each)
                    starting.add(each)
                    most = max(most, len(starting))
                for key in [key for key in wanted if key.owner in starting]:
                    if await replica.store.change(key, lambda one, _: one.ready(AT, "then"), now=AT):
                        starting.discard(key.owner)

        await asyncio.gather(*(act(each, wanted[number::2]) for number, each in enumerate(all_of_them)))
        assert sorted(taken) == [key.owner for key in wanted], "each once"
        assert most <= 4


async def test_a_claim_that_is_not_renewed_is_taken_over_and_its_holder_can_do_nothing_more(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one, other):
        await one.turn([ADA])
        other.at = AT + LEASE - SECOND
        assert claimed(await other.turn()) == []
        asked = await one.store.change(ADA, lambda each, _: each.asked(AT), now=AT, keep=True)
        assert asked is not None
        one.at = AT + SECOND
        assert (await one.turn(renewed=[ADA])).lost == []
        other.at = LATER
        assert claimed(await other.turn()) == []
        other.at = LATER + SECOND
        (taken,) = (await other.turn()).claimed
        assert taken.asked_at == asked.asked_at, "what the row says is known to the other one"
        one.at = other.at
        assert (await one.turn(renewed=[ADA])).lost == [ADA]
        assert await one.store.change(ADA, lambda each, _: each.ready(AT, "x"), now=one.at) is None
        assert await one.state(ADA) is UserServerState.STARTING


async def test_a_claim_that_has_ended_is_not_good_for_asking_the_hub(tmp_path: Path) -> None:
    async with replicas(tmp_path, 1) as (one,):
        await one.turn([ADA])
        assert await one.store.change(ADA, lambda each, _: each.asked(LATER), now=LATER, keep=True) is None


async def test_what_is_not_wanted_any_more_is_not_started_but_what_the_hub_may_have_begun_is_looked_at(
    tmp_path: Path,
) -> None:
    async with replicas(tmp_path) as (one, other):
        await one.turn([ADA, BOB], places=1)
        await one.store.change(ADA, lambda each, _: each.asked(AT), now=AT, keep=True)
        await one.store.change(ADA, lambda each, _: each.queued(AT, 1, "away", asked=True), now=AT)
        other.at = LATER
        await other.store.tidy(now=LATER, forgotten=FAILURES_WITHIN)
        assert await other.state(BOB) is None
        assert claimed(await other.turn()) == ["ada"]


async def test_a_use_on_any_replica_keeps_a_server_from_being_stopped_until_its_end(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one, other):
        await one.turn([ADA])
        await one.starts(ADA)
        await other.store.hold(ADA, now=AT + SECOND)
        one.at = other.at = AT + IDLE + LEASE
        assert await one.to_stop() == [], "its last use, of a replica that died, ended with its lease"
        await other.turn(uses=[ADA])
        one.at += 2 * SECOND
        assert await one.to_stop() == []
        await other.store.release(ADA, now=one.at)
        one.at += IDLE - SECOND
        assert await one.to_stop() == []
        one.at += SECOND
        assert await one.to_stop() == [ADA]
        found = await one.store.claim(ADA, state=UserServerState.OURS, now=one.at)
        assert found is not None
        assert await other.store.claim(ADA, state=UserServerState.OURS, now=one.at) is None, "one of them stops it"
        assert await one.to_stop() == []
        await other.store.hold(ADA, now=one.at)
        seen: list[bool] = []

        def decide(_: UserServer, used: bool) -> None:
            seen.append(used)

        await one.store.change(ADA, decide, now=one.at)
        assert seen[-1] is True, "who comes in between is seen"


async def test_a_use_that_was_never_renewed_counts_until_its_lease_ended(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one, other):
        await one.turn([ADA])
        await one.starts(ADA)
        await other.store.hold(ADA, now=AT)
        one.at = AT + LEASE + IDLE - SECOND
        assert await one.to_stop() == []
        one.at += 2 * SECOND
        assert await one.to_stop() == [ADA]


async def test_a_stop_of_a_replica_that_died_is_taken_up(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one, other):
        await one.turn([ADA])
        await one.starts(ADA)
        one.at = AT + IDLE + LEASE
        await one.store.claim(ADA, state=UserServerState.OURS, now=one.at)
        await one.store.change(ADA, lambda each, _: each.being_stopped(), now=one.at, keep=True)
        found = await other.store.hold(ADA, now=one.at)
        assert found is not None
        assert found.state is UserServerState.STOPPING
        other.at = one.at
        assert await other.to_stop() == []
        other.at += LEASE + SECOND
        assert await other.to_stop() == [ADA], "although somebody wants to use it: it may be half stopped"


async def test_one_that_runs_is_asked_for_again_only_after_a_while(tmp_path: Path) -> None:
    async with replicas(tmp_path, 1) as (one,):
        await one.turn([ADA])
        await one.starts(ADA)
        one.at = AT + LOOKED_AT - SECOND
        assert claimed(await one.turn([ADA])) == []
        one.at = AT + LOOKED_AT
        (again,) = (await one.turn([ADA])).claimed
        assert again.started == "then", "what was started is known"
        await one.store.change(ADA, lambda each, _: each.queued(one.at, 1), now=one.at)
        one.at += LEASE + 2 * SECOND
        await one.store.tidy(now=one.at, forgotten=FAILURES_WITHIN)
        assert await one.state(ADA) is UserServerState.OURS, "no run waits for it, and the service has it still"


async def test_a_refusal_and_three_failures_hold_for_a_while(tmp_path: Path) -> None:
    async with replicas(tmp_path, 1) as (one,):
        for number in range(1, FAILURES + 1):
            (found,) = (await one.turn([ADA])).claimed
            assert await one.store.change(found.key, lambda each, _: each.failed(one.at, "no image"), now=one.at)
            (known,) = (await one.turn([ADA])).wanted.values()
            assert (known.failures, known.is_given_up(one.at)) == (number, number == FAILURES)
            assert claimed(await one.turn([ADA])) == []
            one.at = known.not_before
        (found,) = (await one.turn([ADA])).claimed
        await one.store.change(ADA, lambda each, _: each.refused_by_hub(one.at, "no scope"), now=one.at)
        (known,) = (await one.turn([ADA])).wanted.values()
        assert known.is_given_up(one.at)
        assert known.refused
        one.at += REFUSED_FOR
        (found,) = (await one.turn([ADA])).claimed
        assert not found.refused


async def test_what_is_of_no_use_any_more_is_removed(tmp_path: Path) -> None:
    async with replicas(tmp_path, 1) as (one,):
        await one.turn([ADA, BOB, CID], places=2)
        await one.store.change(ADA, lambda each, _: each.theirs(AT), now=AT)
        await one.store.change(BOB, lambda each, _: each.failed(AT, "no image"), now=AT)
        await one.store.tidy(now=LATER + LOOKED_AT, forgotten=FAILURES_WITHIN)
        assert [await one.state(key) for key in (ADA, BOB, CID)] == [None, UserServerState.FAILED, None]
        await one.store.tidy(now=AT + FAILURES_WITHIN + SECOND, forgotten=FAILURES_WITHIN)
        assert await one.state(BOB) is None


def test_failures_count_as_in_a_row_within_ten_minutes_of_each_other() -> None:
    server = UserServer(key=ADA, state=UserServerState.STARTING, wanted_at=AT)
    twice = server.failed(AT, "a").failed(AT + FAILURES_WITHIN, "b")
    assert twice.failures == 2
    assert twice.failed(AT + 2 * FAILURES_WITHIN + SECOND, "c").failures == 1
    assert replace(twice, state=UserServerState.STARTING).ready(AT, "x").failures == 0
    assert len(server.failed(AT, "x" * 9999).reason) <= 500
