"""The machine on the real store: what happens to recalls when time passes, sessions are busy and servers die."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from navi_jupyter.errors import SessionNotFound, StoreError
from navi_jupyter.model.recalls import RecallPatch
from navi_jupyter.model.sessions import RunStatus
from tests.support.refusals import be_impatient, read_only
from tests.support.scheduler_world import OWNER, world

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_one_time_recall_runs_once_and_ends_fired(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "10m"})
        assert recall.next_at == w.clock.now() + timedelta(minutes=10)
        w.clock.advance(timedelta(minutes=9, seconds=59))
        assert await w.step(scheduler) == 0
        w.clock.advance(timedelta(seconds=1))
        assert await w.step(scheduler) == 1
        assert (await w.get(recall)).status == "running"
        _, prompt, origin = w.sessions.prompts[0]
        assert prompt.command_id == f"recall:{recall.id}:2026-11-22T12:10:00.000Z"
        assert origin.recall_id == recall.id
        await w.finish(scheduler, session)
        after = await w.get(recall)
        assert (after.status, after.fired, after.next_at) == ("fired", 1, None)
        assert await w.ledger(recall) == [("succeeded", 600, None)]
        assert await w.said(session) == [("created", "pending"), ("started", "running"), ("fired", "fired")]


async def test_a_recurring_recall_goes_back_to_pending_whatever_its_run_did(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "every", "every": "1h"})
        for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.STOPPED, RunStatus.TIMED_OUT):
            w.clock.advance(timedelta(hours=1))
            await w.step(scheduler)
            assert (await w.get(recall)).status == "running"
            await w.finish(scheduler, session, status)
            assert (await w.get(recall)).status == "pending"
        ledger = await w.ledger(recall)
        assert [row[0] for row in ledger] == ["succeeded", "failed", "cancelled", "failed"]
        assert [row[1] for row in ledger] == [3600, 7200, 10800, 14400]


async def test_a_one_time_recall_whose_run_hit_its_limit_of_iterations_has_fired(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(timedelta(seconds=1))
        await w.step(scheduler)
        await w.finish(scheduler, session, RunStatus.FAILED, "max_iterations")
        assert (await w.get(recall)).status == "fired"


async def test_a_failed_run_is_tried_again_with_growing_pauses_and_then_the_recall_has_failed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"}, {"retries": 2})
        w.clock.advance(timedelta(seconds=1))
        for pause in (10, 20):
            assert await w.step(scheduler) == 1
            await w.finish(scheduler, session, RunStatus.FAILED, "provider")
            assert (await w.get(recall)).status == "pending"
            w.clock.advance(timedelta(seconds=pause - 1))
            assert await w.step(scheduler) == 0
            w.clock.advance(timedelta(seconds=1))
        assert await w.step(scheduler) == 1
        await w.finish(scheduler, session, RunStatus.FAILED, "provider")
        assert (await w.get(recall)).status == "failed"
        assert (await w.get(recall)).fired == 1
        commands = [prompt.command_id for _, prompt, _ in w.sessions.prompts]
        assert len(set(commands)) == 3


async def test_a_busy_session_defers_its_recall_as_often_as_needed_and_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        first = await w.recall(session, {"kind": "once", "in": "1s"}, title="first")
        second = await w.recall(session, {"kind": "once", "in": "2s"}, title="second")
        w.clock.advance(timedelta(seconds=2))
        await w.step(scheduler)
        for n in (1, 2, 3):
            deferred = await w.get(second)
            assert deferred.status == "pending"
            assert deferred.next_at == w.clock.now() + timedelta(seconds=60)
            assert (await w.said(session)).count(("deferred", "pending")) == n
            w.clock.advance(timedelta(seconds=60))
            await w.step(scheduler)
        await w.finish(scheduler, session)
        assert (await w.get(first)).status == "fired"
        assert await w.step(scheduler) == 1  # at once: the session is idle now
        assert (await w.get(second)).status == "running"


async def test_recalls_that_wait_for_one_session_start_one_turn_each_in_the_order_of_their_slots(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        for n in (5, 3, 1, 4, 2):
            await w.recall(session, {"kind": "once", "in": f"{n}s"}, message=f"number {n}")
        w.clock.advance(timedelta(seconds=5))
        for _ in range(5):
            await w.step(scheduler)
            await w.finish(scheduler, session)
        assert [prompt.display for _, prompt, _ in w.sessions.prompts] == [f"number {n}" for n in range(1, 6)]


async def test_a_recall_that_is_to_be_skipped_when_busy_is_skipped_with_the_reason(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        await w.recall(session, {"kind": "once", "in": "1s"})
        recall = await w.recall(session, {"kind": "every", "every": "2s"}, {"busy": "skip", "max_fires": 1})
        w.clock.advance(timedelta(seconds=2))
        await w.step(scheduler)
        assert await w.ledger(recall) == [("skipped", 2, "the session is busy")]
        await w.finish(scheduler, session)
        w.clock.advance(timedelta(seconds=2))
        await w.step(scheduler)
        assert (await w.get(recall)).fired == 1  # the skipped slot did not use up max_fires


async def test_slots_missed_while_down_become_one_run_that_is_told_how_late_it_is(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        recall = await w.recall(session, {"kind": "every", "every": "1h"})
        w.clock.advance(timedelta(hours=3, minutes=30))
        scheduler = w.scheduler()
        assert await w.step(scheduler) == 1
        assert [(row[0], row[1]) for row in await w.ledger(recall)] == [
            ("coalesced", 3600),
            ("coalesced", 7200),
            ("running", 10800),
        ]
        assert "runs 30m late" in w.sessions.prompts[0][1].text
        assert w.sessions.prompts[0][1].display == "look at the loss"


async def test_a_killed_claim_is_delivered_again_under_a_higher_fence(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(timedelta(seconds=1))
        _, claims = await w.scheduler("dead").plan_and_claim(w.clock.now())
        assert claims[0].firing.fence == 1
        heir = w.scheduler("heir")
        assert await heir.sweep() == 1
        _, again = await heir.plan_and_claim(w.clock.now())
        assert again[0].firing.fence == 3
        assert again[0].firing.command_id == claims[0].firing.command_id
        assert (await w.get(recall)).status == "pending"


async def test_killed_between_delivery_and_its_record_the_prompt_is_not_sent_twice(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(timedelta(seconds=1))
        await w.step(w.scheduler("dead"), settle=False)
        heir = w.scheduler("heir")
        await heir.sweep()
        await w.step(heir)
        assert len(w.sessions.prompts) == 1
        assert (await w.get(recall)).status == "running"


async def test_a_run_that_ended_while_nobody_listened_is_found_by_the_sweep(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(timedelta(seconds=1))
        await w.step(w.scheduler("dead"), settle=False)
        run = await w.active_run(session)
        assert run is not None
        await w.sessions.end(run.id, RunStatus.FAILED, "provider_error")
        heir = w.scheduler("heir")
        await heir.sweep()
        assert (await w.get(recall)).status == "failed"
        assert await w.said(session) == [("created", "pending"), ("started", "running"), ("failed", "failed")]
        assert await w.ledger(recall) == [("failed", 1, "provider_error")]


async def test_a_stale_record_is_refused_by_its_fence(tmp_path: Path) -> None:
    from navi_jupyter.scheduling.decisions import Busy
    from navi_jupyter.scheduling.ledger import Report

    async with world(tmp_path) as w:
        session = await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(timedelta(seconds=1))
        stalled = w.scheduler("stalled")
        _, claims = await stalled.plan_and_claim(w.clock.now())
        heir = w.scheduler("heir")
        await heir.sweep()
        await w.step(heir)
        report = Report(
            outcome=Busy(delay=timedelta(seconds=60)),
            firing_id=claims[0].firing.firing.id,
            fence=claims[0].firing.fence,
        )
        settled = await stalled.settle([report])
        assert settled == ()
        assert (await w.get(recall)).status == "running"


async def test_two_servers_on_one_database_start_each_slot_once(tmp_path: Path) -> None:
    import asyncio

    async with world(tmp_path) as a, world(tmp_path) as b:
        b.clock = b.sessions.clock = a.clock
        b.service._clock = a.clock
        sessions = [await a.add_session() for _ in range(40)]
        recalls = [await a.recall(s, {"kind": "every", "every": "1m"}) for s in sessions]
        one, two = a.scheduler("one"), b.scheduler("two")
        for _ in range(3):
            a.clock.advance(timedelta(minutes=1))
            await asyncio.gather(a.step(one), b.step(two))
            await asyncio.gather(a.step(one), b.step(two))
            for session in sessions:
                await a.finish(one, session)
        assert len(a.sessions.prompts) + len(b.sessions.prompts) == 120
        for recall in recalls:
            assert [row[:2] for row in await a.ledger(recall)] == [
                ("succeeded", 60),
                ("succeeded", 120),
                ("succeeded", 180),
            ]


async def test_a_store_that_refuses_leaves_the_slots_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_impatient(monkeypatch)
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(timedelta(seconds=1))
        async with read_only(w.store, tmp_path / "navi.db"):
            with pytest.raises(StoreError):
                await w.step(scheduler)
        assert await w.step(scheduler) == 1
        assert (await w.get(recall)).status == "running"


async def test_a_session_that_can_not_take_prompts_now_gets_it_later_without_spending_an_attempt(
    tmp_path: Path,
) -> None:
    from navi_jupyter.errors import NotReady

    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(timedelta(seconds=1))
        w.sessions.failure = NotReady("starting")
        await w.step(scheduler)
        assert await w.ledger(recall) == [("pending", 1, "starting")]
        w.sessions.failure = None
        w.clock.advance(timedelta(seconds=5))
        assert await w.step(scheduler) == 1


async def test_a_delivery_that_keeps_crashing_ends_as_failed_and_others_go_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session, other = w.scheduler(), await w.add_session(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        healthy = await w.recall(other, {"kind": "once", "in": "10h"})
        w.clock.advance(timedelta(seconds=1))
        w.sessions.failure = RuntimeError("boom")
        for _ in range(7):
            await w.step(scheduler)
            w.clock.advance(timedelta(hours=1))
        assert (await w.get(recall)).status == "failed"
        w.sessions.failure = None
        w.clock.advance(timedelta(hours=4))
        await w.step(scheduler)
        assert (await w.get(healthy)).status == "running"


async def test_a_run_beyond_the_timeout_of_its_recall_is_stopped_and_counts_as_failed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"}, {"timeout": "5m"})
        w.clock.advance(timedelta(seconds=1))
        await w.step(scheduler)
        assert await w.store.next_wake() == w.clock.now() + timedelta(minutes=5)
        w.clock.advance(timedelta(minutes=5))
        await scheduler.sweep()
        assert len(w.sessions.stops) == 1
        await w.finish(scheduler, session, RunStatus.STOPPED)
        assert (await w.get(recall)).status == "failed"
        assert await w.ledger(recall) == [("failed", 1, "timed_out")]


async def test_a_stored_schedule_that_can_not_be_read_any_more_fails_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        bad = await w.recall(session, {"kind": "cron", "expr": "0 * * * *"})
        good = await w.recall(session, {"kind": "cron", "expr": "0 * * * *"})
        unreadable = ('{"kind":"cron","expr":"0 * * * *","tz":"Gone/Zone"}', bad.id)
        await w.store.write(lambda tx: tx.change("UPDATE recalls SET schedule = ? WHERE id = ?", unreadable))
        w.clock.advance(timedelta(hours=1))
        await w.step(scheduler)
        assert (await w.get(bad)).status == "failed"
        assert (await w.get(good)).status == "running"


async def test_deleting_the_session_cancels_its_recalls_and_keeps_their_ledger(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        over = await w.recall(session, {"kind": "once", "in": "1s"})
        waiting = await w.recall(session, {"kind": "once", "in": "1h"})
        running = await w.recall(session, {"kind": "every", "every": "2s"})
        for _ in range(2):
            w.clock.advance(timedelta(seconds=1))
            assert await w.step(scheduler) == 1
            if (await w.get(over)).status == "running":
                await w.finish(scheduler, session)
        await w.service.end_with_session(session, lambda tx: tx.delete_session(session))
        w.clock.advance(timedelta(hours=2))
        assert await w.step(scheduler) == 0
        listed, _ = await w.service.queries.list(OWNER)
        assert [(recall.id, recall.status, recall.reason, recall.next_at) for recall in listed] == [
            (running.id, "cancelled", "session deleted", None),
            (waiting.id, "cancelled", "session deleted", None),
            (over.id, "fired", None, None),
        ]
        assert await w.ledger(running) == [("cancelled", 2, "session deleted")]
        assert await w.ledger(over) == [("succeeded", 1, None)]
        with pytest.raises(SessionNotFound):
            await w.service.fire(over.id, owner=OWNER)
        with pytest.raises(SessionNotFound):
            await w.service.clone(running.id, RecallPatch(), owner=OWNER)
        assert (await w.service.queries.open_recalls()) == 0


async def test_the_running_loop_fires_what_comes_due_and_sleeps_in_between(tmp_path: Path) -> None:
    import asyncio

    async with world(tmp_path) as w:
        session = await w.add_session()
        async with w.scheduler() as scheduler:
            recall = await w.recall(session, {"kind": "every", "every": "10s"})
            for n in (1, 2, 3):
                w.clock.advance(timedelta(seconds=10))
                async with asyncio.timeout(5):
                    while (await w.get(recall)).status != "running":  # noqa: ASYNC110 - bounded; yields, does not wait
                        await asyncio.sleep(0)
                run = await w.active_run(session)
                assert run is not None
                await scheduler.on_run_ended(await w.sessions.end(run.id))
                async with asyncio.timeout(5):
                    while (await w.get(recall)).status != "pending":  # noqa: ASYNC110 - bounded; yields, does not wait
                        await asyncio.sleep(0)
                assert (await w.get(recall)).fired == n
