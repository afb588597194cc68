"""What a hostile reading of the scheduler and the model found, each by itself on the real store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.clock import boot_time
from navi_jupyter.commands import Acceptance, Command, Prompt
from navi_jupyter.errors import NotReady
from navi_jupyter.model.recalls import Every, FiringStatus, Policy, Recall, RecallPatch, RecallStatus
from navi_jupyter.model.sessions import USER, Origin, RunStatus
from navi_jupyter.ports.recalls import FiringState, Happened, RecallState
from navi_jupyter.scheduling import ledger, misfires
from navi_jupyter.scheduling.decisions import MAX_CRASHES
from navi_jupyter.scheduling.ledger import UNRECORDED, Report
from navi_jupyter.scheduling.misfires import APART, AT_ONCE, CatchUp, plan
from navi_jupyter.scheduling.scheduler import LEASE, Scheduler
from tests.scheduling.test_adversity import until
from tests.support.scheduler_world import OWNER, START, World, world

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


async def only_firing(w: World, recall: Recall) -> FiringState:
    (firing,) = await w.store.firings_open([recall.id])
    return firing


async def change(w: World, sql: str, *parameters: Any) -> None:
    assert await w.store.write(lambda tx: tx.change(sql, parameters)) == 1


# --- time limits -----------------------------------------------------------------------------------------------------


async def test_a_run_that_takes_its_time_to_stop_is_asked_once_and_nobody_is_kept_awake_by_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        await w.recall(session, {"kind": "once", "in": "1s"}, {"timeout": "1m"})
        w.clock.advance(SECOND)
        await w.step(scheduler)
        run = await w.active_run(session)
        assert run is not None
        w.clock.advance(MINUTE)
        assert await w.store.next_wake() == w.clock.now()
        assert await scheduler.sweep() == 1
        await w.store.write(lambda tx: tx.request_stop(run.id, "recall-stop"))  # as its session does
        assert await w.store.next_wake() is None
        assert await scheduler.sweep() == 0
        assert len(w.sessions.stops) == 1


async def test_a_stop_that_the_session_refuses_is_tried_again_and_does_not_count_as_done(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        await w.recall(session, {"kind": "once", "in": "1s"}, {"timeout": "1m"})
        w.clock.advance(SECOND)
        await w.step(scheduler)
        w.clock.advance(MINUTE)
        w.sessions.failure = NotReady("The server is stopping.")
        assert await scheduler.sweep() == 0
        w.sessions.failure = None
        assert await scheduler.sweep() == 1


async def test_the_time_in_a_queue_is_no_part_of_the_time_limit(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(SECOND)
        await w.step(scheduler)
        await w.recall(session, {"kind": "once", "in": "1s"}, {"timeout": "1m", "busy": "queue"})
        w.clock.advance(SECOND)
        await w.step(scheduler)
        for _ in range(3):
            w.clock.advance(2 * MINUTE)
            assert await scheduler.sweep() == 0
        await w.finish(scheduler, session)  # and the queued one begins
        w.clock.advance(MINUTE - SECOND)
        await scheduler.sweep()
        assert w.sessions.stops == []
        w.clock.advance(2 * MINUTE)
        await scheduler.sweep()
        assert len(w.sessions.stops) == 1


# --- deliveries of which nobody knows how they ended -----------------------------------------------------------------


async def test_a_prompt_whose_acceptance_was_not_heard_counts_as_started(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()

        async def deaf(session_id: str, command: Command, *, user_id: str, origin: Origin) -> Acceptance:
            await w.sessions(session_id, command, user_id=user_id, origin=origin)
            raise NotReady("The server is stopping.")

        scheduler = Scheduler(w.store, deaf, server_id="deaf", clock=w.clock)
        recall = await w.recall(session, {"kind": "every", "every": "10s"})
        w.clock.advance(10 * SECOND)
        await w.step(scheduler)
        assert (await only_firing(w, recall)).firing.status is FiringStatus.RUNNING
        w.clock.advance(10 * SECOND)
        await w.step(w.scheduler())  # the next slot does not take the place of the one that runs
        assert [row[0] for row in await w.ledger(recall)] == ["running", "pending"]


async def test_a_report_of_a_delivery_that_others_have_rescued_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        slow, other, session = w.scheduler("slow"), w.scheduler("other"), await w.add_session()
        recall = await w.recall(session, {"kind": "every", "every": "1h"})
        w.clock.advance(60 * MINUTE)
        _, (claim,) = await slow.plan_and_claim(w.clock.now())
        await slow.deliver(claim)
        w.clock.advance(LEASE + SECOND)
        await other.sweep()
        assert ((await only_firing(w, recall)).firing.status, (await w.get(recall)).fired) == ("running", 1)
        late = await Scheduler(w.store, _refusing, server_id="slow", clock=w.clock).deliver(claim)
        await slow.settle([Report(outcome=late, firing_id=claim.firing.firing.id, fence=claim.firing.fence)])
        assert ((await only_firing(w, recall)).firing.status, (await w.get(recall)).fired) == ("running", 1)


async def _refusing(*_: Any, **__: Any) -> Acceptance:
    raise NotReady("The server is stopping.")


async def test_a_delivery_that_waits_too_long_on_a_living_server_is_no_crash(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(SECOND)
        for _ in range(2 * MAX_CRASHES):
            await scheduler.plan_and_claim(w.clock.now())
            w.clock.advance(LEASE + SECOND)
            await scheduler.sweep()
        firing = await only_firing(w, recall)
        assert (firing.firing.status, firing.crashes) == (FiringStatus.PENDING, 0)
        await scheduler.plan_and_claim(w.clock.now())
        w.clock.advance(LEASE + SECOND)
        await w.scheduler("other").sweep()
        assert (await only_firing(w, recall)).crashes == 1


# --- users who come --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", ["user_message", "read"])
async def test_a_recall_that_ends_when_the_user_comes_can_not_start_after_that(tmp_path: Path, cause: str) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        policy = {"cancel_on": [cause], "busy": "interrupt", "notify": ["user_message", "read"]}
        await w.recall(session, {"kind": "once", "in": "1s"}, policy)
        w.clock.advance(SECOND)
        _, (claim,) = await scheduler.plan_and_claim(w.clock.now())
        may: list[bool] = []

        async def look() -> None:
            command = claim.firing.command_id
            may.append(await w.store.write(lambda tx: tx.may_deliver(command, server_id="server-1")))

        await look()
        other = "read" if cause == "user_message" else "user_message"
        for came in (other, cause):
            if came == "user_message":
                await w.sessions(session, Prompt(command_id="u1", text="hi"), user_id=OWNER, origin=USER)
            else:
                at = int(w.clock.now().timestamp() * 1e6)
                await change(w, "INSERT INTO reads VALUES (?, ?, 1, ?)", session, OWNER, at)
            await look()
        assert may == [True, True, False]


# --- slots and limits ------------------------------------------------------------------------------------------------


async def test_a_slot_that_the_ledger_has_already_is_neither_run_nor_counted_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "cron", "expr": "* * * * *"}, {"max_fires": 3})
        w.clock.advance(MINUTE)
        await w.step(scheduler)
        await w.finish(scheduler, session)
        w.clock.advance(-MINUTE)  # set back, and then the schedule is written once more
        patch = RecallPatch.model_validate({"schedule": {"kind": "cron", "expr": "* * * * *"}})
        await w.service.patch(recall.id, patch, owner=OWNER)
        w.clock.advance(MINUTE)
        assert await w.step(scheduler) == 0
        for _ in range(2):
            assert (await w.get(recall)).status == "pending"
            w.clock.advance(MINUTE)
            assert await w.step(scheduler) == 1
            await w.finish(scheduler, session)
        assert (await w.get(recall)).status == "fired"
        assert await w.ledger(recall) == [("succeeded", 60.0 * n, None) for n in (1, 2, 3)]


async def test_what_came_while_all_firings_seemed_planned_is_accounted_for_when_one_did_not_run(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "every", "every": "1m"}, {"max_fires": 1, "grace": "30s"})
        await w.sessions(session, Prompt(command_id="u1", text="hi"), user_id=OWNER, origin=USER)
        w.clock.advance(MINUTE)
        await w.step(scheduler)  # the session is busy
        w.clock.advance(3 * MINUTE)  # nobody looks until the grace is long over
        await w.step(scheduler)
        await w.finish(scheduler, session)
        await w.step(scheduler)
        assert [row[:2] for row in await w.ledger(recall)] == [
            ("expired", 60),
            ("coalesced", 120),
            ("coalesced", 180),
            ("running", 240),
        ]


async def test_slots_between_a_plan_made_ahead_and_its_use_are_accounted_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "every", "every": "2s"}, {"max_fires": 2})
        await w.sessions(session, Prompt(command_id="u1", text="hi"), user_id=OWNER, origin=USER)
        w.clock.advance(2 * SECOND)
        await w.step(scheduler)  # the session is busy: it waits
        await scheduler._planner.prepare(START + 4 * SECOND)
        w.clock.advance(6 * SECOND)
        await w.step(scheduler)  # the plan is for four seconds ago, and the one that waited is coalesced into it
        await w.step(scheduler)
        assert [row[:2] for row in await w.ledger(recall)] == [
            ("coalesced", 2),
            ("coalesced", 4),
            ("coalesced", 6),
            ("pending", 8),
        ]


async def test_a_recall_whose_last_firing_runs_goes_on_when_it_is_allowed_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "every", "every": "1m"}, {"max_fires": 1})
        w.clock.advance(MINUTE)
        await w.step(scheduler)
        patched = await w.service.patch(recall.id, RecallPatch(policy=Policy(max_fires=2)), owner=OWNER)
        assert patched.next_at == START + 2 * MINUTE
        await w.finish(scheduler, session)
        assert (await w.get(recall)).status == "pending"
        w.clock.advance(MINUTE)
        await w.step(scheduler)
        await w.finish(scheduler, session)
        assert (await w.get(recall)).status == "fired"


async def test_a_schedule_that_can_not_be_read_any_more_does_not_keep_others_from_being_written_down(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        bad = await w.recall(session, {"kind": "cron", "expr": "* * * * *"}, {"max_fires": 1, "busy": "skip"})
        good = await w.recall(await w.add_session(), {"kind": "cron", "expr": "* * * * *"})
        await w.sessions(session, Prompt(command_id="u1", text="hi"), user_id=OWNER, origin=USER)
        w.clock.advance(MINUTE)
        _, claims = await scheduler.plan_and_claim(w.clock.now())
        gone = '{"kind":"cron","expr":"* * * * *","tz":"Gone/Zone"}'
        await change(w, "UPDATE recalls SET schedule = ? WHERE id = ?", gone, bad.id)
        await scheduler.settle(
            [
                Report(outcome=await scheduler.deliver(c), firing_id=c.firing.firing.id, fence=c.firing.fence)
                for c in claims
            ]
        )
        assert [row[0] for row in await w.ledger(good)] == ["running"]
        assert [row[0] for row in await w.ledger(bad)] == ["skipped"]
        assert (await w.get(bad)).status.final


@pytest.mark.parametrize("kind", ["skip", "latest", "all"])
@pytest.mark.parametrize(("rows", "most"), [(8, 3), (3, 8), (5, 5), (5, 0), (1, 1), (0, 4)])
def test_no_slot_is_lost_however_many_get_a_row_and_however_many_are_caught_up_with(
    monkeypatch: pytest.MonkeyPatch, rows: int, most: int, kind: str
) -> None:
    monkeypatch.setattr(misfires, "LEDGER_ROWS", rows)
    monkeypatch.setattr(misfires, "CATCH_UP", most)
    recall = Recall(
        id="rec_1", session_id="s_1", title="t", message="m", schedule=Every(every=SECOND, start=START),
        policy=Policy.model_validate({"misfire": kind}), status=RecallStatus.PENDING, next_at=None, created_at=START,
    )  # fmt: skip
    for missed in (1, 2, 4, 20):
        state = RecallState(recall=recall, owner="u", due_at=START + SECOND)
        planned = plan(state, START + missed * SECOND)
        assert sum(1 + f.firing.coalesced for f in planned.firings) == missed
        runs = [f for f in planned.firings if not f.firing.status.final]
        assert len(runs) == (min(missed, most, max(1, rows)) if kind == "all" and missed > 1 else 1)
        assert planned.state.due_at == START + (missed + 1) * SECOND


# --- events ----------------------------------------------------------------------------------------------------------


async def test_an_event_that_ran_and_waits_for_its_next_attempt_has_failed_when_the_next_one_comes(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        schedule = {"kind": "when", "event": "kernel_idle", "repeat": "each"}
        policy = {"retries": 2, "max_fires": 2, "notify": ["phone"]}
        recall = await w.recall(session, schedule, policy)
        for n in range(3):
            at = w.clock.now()
            await w.service.occurrences.record(Happened(recall_id=recall.id, key=f"e{n}", at=at, detail="idle"))
            if await w.step(scheduler):
                await w.finish(scheduler, session, RunStatus.FAILED, "provider")
            w.clock.advance(2 * SECOND)
        rows, _ = await w.service.queries.ledger(recall.id, owner=OWNER)
        assert [(row.status, row.delivery) for row in reversed(rows)] == [
            ("failed", "pending"),
            ("pending", "none"),
            ("skipped", "none"),
        ]
        assert rows[0].reason == "max_fires is reached"


def test_turns_of_catching_up_that_passed_unused_are_not_saved_up() -> None:
    recall = Recall(
        id="rec_1", session_id="s_1", title="t", message="m", schedule=Every(every=SECOND, start=START),
        policy=Policy(misfire="all"), status=RecallStatus.PENDING, next_at=None, created_at=START,
    )  # fmt: skip
    missed = plan(RecallState(recall=recall, owner="u", due_at=START + SECOND), START + 5 * AT_ONCE * SECOND)
    begun = START + 60 * MINUTE
    for pause in (APART, 1.5 * APART, 2 * APART, 3 * APART):
        catch_up = CatchUp()
        catch_up.spread(replace(missed, firings=missed.firings[:AT_ONCE]), (), begun)
        later = catch_up.spread(missed, (), begun + pause)
        at_once = [f for f in later.firings if f.firing.not_before <= begun + pause]
        assert len(at_once) == AT_ONCE


# --- one of many that fails ------------------------------------------------------------------------------------------


async def test_of_a_batch_one_whose_outcome_cannot_be_recorded_has_failed_and_the_others_are_delivered_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        sessions = [await w.add_session() for _ in range(40)]
        recalls = [await w.recall(session, {"kind": "once", "in": "1s"}) for session in sessions]
        w.clock.advance(SECOND)

        async def submit(session_id: str, command: Command, **origin: Any) -> Acceptance:
            if session_id == sessions[11]:
                raise RuntimeError("this delivery fails")
            if session_id == sessions[23]:
                return Acceptance.model_construct(seq=1, run_id="r_\ud800")  # which no database takes
            return await w.sessions(session_id, command, **origin)

        asked: list[int] = []
        settle_all = ledger.settle_all

        async def counted(tx: Any, reports: Sequence[Report], *rest: Any) -> Any:
            asked.append(len(reports))
            return await settle_all(tx, reports, *rest)

        monkeypatch.setattr(ledger, "settle_all", counted)
        scheduler = Scheduler(w.store, submit, server_id="one", clock=w.clock)
        _, claims = await scheduler.plan_and_claim(w.clock.now())
        scheduler._hand_out(claims, boot_time())
        delivering = asyncio.create_task(scheduler._deliver_forever())
        await until(lambda: not scheduler._in_flight)
        settling = asyncio.create_task(scheduler._settle_forever())
        try:
            await until(lambda: not scheduler._reports)
        finally:
            delivering.cancel()
            settling.cancel()
        # All, the halves that have it and those beside them, it alone, and that it has failed.
        assert asked[0] == 40
        assert len(asked) <= 1 + 2 * 6 + 1
        rows = [(await w.ledger(recall))[-1] for recall in recalls]
        assert rows[11][::2] == ("pending", "the delivery failed; the server's log has the details")
        assert rows[23][::2] == ("failed", UNRECORDED)
        assert {row[0] for n, row in enumerate(rows) if n not in (11, 23)} == {"running"}
        assert (await w.get(recalls[23])).status is RecallStatus.FAILED
        assert len(w.sessions.prompts) == 38


async def test_a_sweep_finishes_the_others_where_nothing_of_one_firing_can_be_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        scheduler = w.scheduler()
        sessions = [await w.add_session() for _ in range(6)]
        recalls = [await w.recall(session, {"kind": "once", "in": "1s"}) for session in sessions]
        w.clock.advance(SECOND)
        settle = ledger.settle
        cursed = recalls[1].id

        def failing(state: RecallState, *rest: Any, **more: Any) -> Any:
            if state.recall.id == cursed:
                raise ZeroDivisionError
            return settle(state, *rest, **more)

        await w.step(scheduler, settle=False)
        monkeypatch.setattr(ledger, "settle", failing)
        for session in sessions[:3]:
            run = await w.active_run(session)
            assert run is not None
            await w.sessions.end(run.id)
        w.clock.advance(2 * LEASE)
        # Three runs are over, one of them of the firing that cannot be settled; the others' claims are lost.
        assert await scheduler.sweep() == 5
        assert [(await w.ledger(recall))[0][0] for recall in recalls] == [
            "succeeded", "claimed", "succeeded", "running", "running", "running",
        ]  # fmt: skip
        assert await scheduler.sweep() == 0
        monkeypatch.setattr(ledger, "settle", settle)
        assert await scheduler.sweep() == 1
        assert (await w.ledger(recalls[1]))[0][0] == "succeeded"
