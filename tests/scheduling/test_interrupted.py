"""A recall whose run its server's end has interrupted: started again, unless that could do something twice."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from navi_jupyter.handles import lasting_handle
from navi_jupyter.model.recalls import RecallStatus
from navi_jupyter.model.sessions import Run, RunStatus
from navi_jupyter.scheduling.decisions import MAX_CRASHES, SERVER_DIED, STARTED_AGAIN
from tests.support.scheduler_world import OWNER, World, world

if TYPE_CHECKING:
    from pathlib import Path

    from navi_jupyter.scheduling.scheduler import Scheduler

ONCE = {"kind": "once", "in": "10s"}
SECONDS = timedelta(seconds=1)


async def started(w: World, scheduler: Scheduler, session: str, *, after: float = 10) -> Run:
    w.clock.advance(after * SECONDS)
    assert await w.step(scheduler) == 1
    run = await w.active_run(session)
    assert run is not None
    return run


async def test_a_run_that_had_changed_nothing_is_started_again_under_the_same_message(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, scheduler = await w.add_session(), w.scheduler()
        recall = await w.recall(session, ONCE)
        first = await started(w, scheduler, session)
        await w.finish(scheduler, session, RunStatus.INTERRUPTED)
        assert (await w.get(recall)).status is RecallStatus.PENDING

        second = await started(w, scheduler, session, after=0)
        assert second.id != first.id
        assert second.command_id == first.command_id
        await w.finish(scheduler, session)
        assert len(w.sessions.prompts) == 1
        assert await w.ledger(recall) == [("succeeded", 10.0, STARTED_AGAIN)]
        rows, _ = await w.service.queries.ledger(recall.id, owner=OWNER, limit=10)
        assert rows[0].run_id == second.id
        assert rows[0].attempt == 0
        assert [(attempt.run_id, attempt.status) for attempt in rows[0].attempts] == [
            (first.id, RunStatus.INTERRUPTED),
            (second.id, RunStatus.COMPLETED),
        ]
        after = await w.get(recall)
        assert (after.status, after.fired) == (RecallStatus.FIRED, 1)
        runs, _ = await w.store.runs(session, limit=10)
        assert [run.status for run in runs] == [RunStatus.COMPLETED, RunStatus.INTERRUPTED]
        assert [run.rolled_back for run in runs] == [False, True]  # the model reads the prompt once
        actions = [action for action, _ in await w.said(session)]
        assert actions == ["created", "started", "deferred", "started", "fired"]


async def test_a_run_that_had_started_a_tool_stays_interrupted_and_the_session_says_what_to_do(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, scheduler = await w.add_session(), w.scheduler()
        recall = await w.recall(session, ONCE)
        run = await started(w, scheduler, session)
        await w.sessions.record_effect(run, "write_file")
        await w.sessions.record_effect(run, "run_cell")
        await w.finish(scheduler, session, RunStatus.INTERRUPTED)
        assert await w.ledger(recall) == [("failed", 10.0, "interrupted after run_cell")]
        assert (await w.get(recall)).status is RecallStatus.FAILED
        w.clock.advance(timedelta(hours=2))
        assert await w.step(scheduler) == 0
        frames = await w.store.frames(session, after=0, limit=100)
        line = frames[-1][1]
        assert f"%navi fire {lasting_handle(recall.id)}" in line
        assert "interrupted after run_cell, when its server ended" in line


async def test_it_is_started_again_so_often_and_not_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, scheduler = await w.add_session(), w.scheduler()
        recall = await w.recall(session, ONCE)
        runs = []
        for _ in range(MAX_CRASHES + 1):
            runs.append((await started(w, scheduler, session, after=3600)).id)
            await w.finish(scheduler, session, RunStatus.INTERRUPTED)
        w.clock.advance(timedelta(hours=2))
        assert await w.step(scheduler) == 0
        assert len(set(runs)) == MAX_CRASHES + 1
        assert [status for status, *_ in await w.ledger(recall)] == ["failed"]
        assert (await w.get(recall)).status is RecallStatus.FAILED


async def test_a_second_report_of_the_same_end_starts_nothing_more(tmp_path: Path) -> None:
    """Its server's scheduler reports it, and the sweep of another finds it."""
    async with world(tmp_path) as w:
        session, one, two = await w.add_session(), w.scheduler("one"), w.scheduler("two")
        recall = await w.recall(session, ONCE)
        await started(w, one, session)
        ended = await w.finish(one, session, RunStatus.INTERRUPTED)
        for again in (True, False):
            await two.on_run_ended(ended)
            reports, two._reports = two._reports, []
            await two.settle(reports)
            await two.sweep()
            if again:
                await started(w, two, session, after=0)
        await w.finish(two, session)
        assert await w.ledger(recall) == [("succeeded", 10.0, STARTED_AGAIN)]
        runs, _ = await w.store.runs(session, limit=10)
        assert len(runs) == 2


async def test_the_sweep_of_the_next_server_finds_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, one, two = await w.add_session(), w.scheduler("one"), w.scheduler("two")
        recall = await w.recall(session, ONCE)
        run = await started(w, one, session)
        await w.sessions.end(run.id, RunStatus.INTERRUPTED, "interrupted")
        await two.sweep()
        await started(w, two, session, after=0)
        await w.finish(two, session)
        assert await w.ledger(recall) == [("succeeded", 10.0, STARTED_AGAIN)]


async def test_it_is_interrupted_before_its_start_was_written_down(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, one, two = await w.add_session(), w.scheduler("one"), w.scheduler("two")
        recall = await w.recall(session, ONCE)
        w.clock.advance(10 * SECONDS)
        await w.step(one, settle=False)
        run = await w.active_run(session)
        assert run is not None
        await w.sessions.end(run.id, RunStatus.INTERRUPTED, "interrupted")
        await two.sweep()
        await started(w, two, session, after=0)
        await w.finish(two, session)
        assert await w.ledger(recall) == [("succeeded", 10.0, STARTED_AGAIN)]
        assert (await w.get(recall)).fired == 1


async def test_a_run_that_the_user_has_stopped_is_not_started_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, scheduler = await w.add_session(), w.scheduler()
        recall = await w.recall(session, ONCE)
        await started(w, scheduler, session)
        await w.finish(scheduler, session, RunStatus.STOPPED)
        assert await w.ledger(recall) == [("cancelled", 10.0, "its run was stopped")]
        assert await w.step(scheduler) == 0


async def test_nothing_is_started_again_for_a_recall_that_was_cancelled_meanwhile(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, scheduler = await w.add_session(), w.scheduler()
        recall = await w.recall(session, ONCE)
        await started(w, scheduler, session)
        await w.service.cancel(recall.id, owner=OWNER)
        await w.finish(scheduler, session, RunStatus.INTERRUPTED, "interrupted")
        assert await w.ledger(recall) == [("failed", 10.0, SERVER_DIED)]
        assert await w.step(scheduler) == 0


async def test_a_paused_recall_waits_for_its_second_attempt_until_it_is_resumed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, scheduler = await w.add_session(), w.scheduler()
        recall = await w.recall(session, ONCE)
        await started(w, scheduler, session)
        await w.service.pause(recall.id, owner=OWNER)
        await w.finish(scheduler, session, RunStatus.INTERRUPTED)
        assert await w.step(scheduler) == 0
        await w.service.resume(recall.id, owner=OWNER)
        await started(w, scheduler, session, after=1)


@pytest.mark.parametrize("grace", [None, "5s"])
async def test_a_recurring_recall_runs_its_slot_again_however_late_that_is(tmp_path: Path, grace: str | None) -> None:
    async with world(tmp_path) as w:
        session, scheduler = await w.add_session(), w.scheduler()
        recall = await w.recall(session, {"kind": "every", "every": "1h"}, {} if grace is None else {"grace": grace})
        first = await started(w, scheduler, session, after=3600)
        w.clock.advance(60 * SECONDS)
        await w.finish(scheduler, session, RunStatus.INTERRUPTED)
        again = await started(w, scheduler, session, after=0)
        assert again.command_id == first.command_id
        await w.finish(scheduler, session)
        assert await w.ledger(recall) == [("succeeded", 3600.0, STARTED_AGAIN)]
        assert (await w.get(recall)).fired == 1
        following = await started(w, scheduler, session, after=3540)
        assert following.command_id != first.command_id


async def test_with_retries_an_attempt_that_did_something_is_a_failure_like_any_other(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, scheduler = await w.add_session(), w.scheduler()
        recall = await w.recall(session, ONCE, {"retries": 1})
        run = await started(w, scheduler, session)
        await w.sessions.record_effect(run, "run_cell")
        await w.finish(scheduler, session, RunStatus.INTERRUPTED)
        await started(w, scheduler, session, after=60)
        await w.finish(scheduler, session)
        assert await w.ledger(recall) == [("succeeded", 10.0, None)]


async def test_the_ledger_has_every_attempt_of_every_firing_interrupted_or_tried_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, scheduler = await w.add_session(), w.scheduler()
        recall = await w.recall(session, {"kind": "every", "every": "1h"}, {"retries": 1})
        expected = []
        for _ in range(2):
            for status in (RunStatus.INTERRUPTED, RunStatus.FAILED, RunStatus.INTERRUPTED, RunStatus.COMPLETED):
                run = await started(w, scheduler, session, after=3600 if len(expected) % 4 == 0 else 90)
                code = None if status is RunStatus.COMPLETED else "provider_down"
                await w.finish(scheduler, session, status, code)
                expected.append((run.id, status, code))
        later, earlier = (await w.service.queries.ledger(recall.id, owner=OWNER, limit=10))[0]
        found = [(one.run_id, one.status, one.reason) for one in (*earlier.attempts, *later.attempts)]
        assert found == expected
        assert later.run_id == later.attempts[-1].run_id
        assert all(one.started_at and one.ended_at for one in later.attempts)


async def test_a_firing_that_waits_has_its_interrupted_attempt_in_the_ledger(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, scheduler = await w.add_session(), w.scheduler()
        recall = await w.recall(session, ONCE)
        run = await started(w, scheduler, session)
        await w.finish(scheduler, session, RunStatus.INTERRUPTED)
        (firing,), _ = await w.service.queries.ledger(recall.id, owner=OWNER, limit=10)
        assert [(one.run_id, one.status) for one in firing.attempts] == [(run.id, RunStatus.INTERRUPTED)]
