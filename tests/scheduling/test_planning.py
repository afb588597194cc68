"""What is planned before it is due: used when nothing has changed, refused when something has."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from navi_jupyter.clock import boot_time
from navi_jupyter.model.recalls import RecallPatch
from navi_jupyter.scheduling.scheduler import LEASE
from tests.support.scheduler_world import OWNER, START, world

if TYPE_CHECKING:
    from pathlib import Path

DUE = START + timedelta(seconds=10)


async def test_a_recall_that_was_planned_ahead_fires_once_and_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "every", "every": "10s"})
        await scheduler._planner.prepare(DUE)
        assert await w.ledger(recall) == []
        assert await w.step(scheduler) == 0, "nothing fires before its time"
        w.clock.advance(timedelta(seconds=10))
        assert await w.step(scheduler) == 1
        assert await w.step(scheduler) == 0
        assert (await w.get(recall)).status == "running"
        state = await w.store.recall_state(recall.id)
        assert state is not None
        assert state.due_at == DUE + timedelta(seconds=10)


async def test_a_plan_made_ahead_gives_way_to_what_its_owner_did_since_and_others_fire(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session, other = w.scheduler(), await w.add_session(), await w.add_session()
        paused = await w.recall(session, {"kind": "every", "every": "10s"})
        healthy = await w.recall(other, {"kind": "every", "every": "10s"})
        await scheduler._planner.prepare(DUE)
        await w.service.pause(paused.id, owner=OWNER)
        w.clock.advance(timedelta(seconds=10))
        assert await w.step(scheduler) == 1
        assert await w.ledger(paused) == []
        assert (await w.get(healthy)).status == "running"


async def test_a_plan_made_ahead_that_is_outdated_is_made_anew_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "every", "every": "10s"})
        await scheduler._planner.prepare(DUE)
        await w.service.patch(recall.id, RecallPatch(message="look again"), owner=OWNER)
        w.clock.advance(timedelta(seconds=10))
        scheduler._signal.clear()
        async with asyncio.timeout(20):  # a turn that waits for the clock would not end: nothing moves it on
            while not scheduler._groups:
                await scheduler._advance(w.clock.now())


async def test_two_servers_that_planned_the_same_slot_ahead_run_it_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one, two, session = w.scheduler("one"), w.scheduler("two"), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "10s"})
        await one._planner.prepare(DUE)
        await two._planner.prepare(DUE)
        w.clock.advance(timedelta(seconds=10))
        assert await w.step(one) + await w.step(two) == 1
        assert [row[:2] for row in await w.ledger(recall)] == [("running", 10)]


async def test_of_a_batch_that_two_servers_planned_ahead_each_recall_runs_once_and_a_changed_one_holds_up_none(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        one, two = w.scheduler("one"), w.scheduler("two")
        recalls = [await w.recall(await w.add_session(), {"kind": "once", "in": "10s"}) for _ in range(70)]
        for server in (one, two):
            await server._planner.prepare(DUE)
        await w.service.pause(recalls[3].id, owner=OWNER)
        w.clock.advance(timedelta(seconds=10))
        (_, first), (_, second) = await asyncio.gather(*(s.plan_and_claim(w.clock.now()) for s in (one, two)))
        assert {c.recall.recall.id for c in (*first, *second)} == {r.id for n, r in enumerate(recalls) if n != 3}
        assert len(first) + len(second) == 69
        assert [len(await w.ledger(recall)) for recall in recalls] == [int(n != 3) for n in range(70)]


async def test_rows_made_ahead_have_a_lease_since_they_were_due_and_claims_are_relied_on_since_then(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        await w.recall(session, {"kind": "once", "in": "10s"})
        await scheduler._planner.prepare(DUE)
        w.clock.advance(timedelta(seconds=11))
        at = boot_time()
        await scheduler._advance(w.clock.now())
        ((since, (claim,)),) = scheduler._groups
        assert claim.firing.lease_until == DUE + LEASE
        assert -1 <= since - at < -1 + (boot_time() - at)


async def test_rows_made_ahead_are_not_written_when_little_is_left_of_their_lease(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        await w.recall(session, {"kind": "once", "in": "10s"})
        await scheduler._planner.prepare(DUE)
        w.clock.advance(timedelta(seconds=13))
        _, (claim,) = await scheduler.plan_and_claim(w.clock.now())
        assert claim.firing.lease_until == w.clock.now() + LEASE
        assert claim.firing.fence == 1


async def test_a_firing_that_waits_is_coalesced_into_one_planned_ahead_beside_others(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, busy, idle = w.scheduler(), await w.add_session(), await w.add_session()
        waiting = await w.recall(busy, {"kind": "every", "every": "10s"})
        await w.step(scheduler)
        w.clock.advance(timedelta(seconds=10))
        assert await w.step(scheduler) == 1  # the session is busy with it from here on
        w.clock.advance(timedelta(seconds=10))
        await w.step(scheduler)
        other = await w.recall(idle, {"kind": "once", "in": "10s"})
        await scheduler._planner.prepare(DUE + timedelta(seconds=20))
        batches = [(len(batch.plans), batch.ahead is not None) for batch in scheduler._planner._ready]
        assert batches == [(1, True), (1, False)]
        w.clock.advance(timedelta(seconds=10))
        while await w.step(scheduler):
            pass
        assert [row[:2] for row in await w.ledger(other)] == [("running", 30)]
        assert [row[:2] for row in await w.ledger(waiting)] == [("running", 10), ("coalesced", 20), ("pending", 30)]


async def test_a_time_that_the_ledger_has_already_is_not_run_again_from_rows_made_ahead(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "every", "every": "10s"})
        await scheduler._planner.prepare(DUE)
        (ready,) = scheduler._planner._ready
        assert ready.ahead is not None
        (row,) = ready.ahead.firings
        known = replace(row, firing=row.firing.but(id="f_other"), lease_until=DUE + 2 * LEASE)
        await w.store.write(lambda tx: tx.add_firings([known]))
        w.clock.advance(timedelta(seconds=10))
        assert await w.step(scheduler) == 0
        state = await w.store.recall_state(recall.id)
        assert state is not None
        assert state.due_at == DUE + timedelta(seconds=10)
