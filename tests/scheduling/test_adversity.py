"""Rows of the table that are about one trouble each: clocks that are set, a database that refuses, a busy session."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.clock import boot_time
from navi_jupyter.commands import Acceptance, Command, Prompt
from navi_jupyter.errors import StoreError
from navi_jupyter.model.recalls import FiringStatus, Once, Policy, Recall, RecallStatus
from navi_jupyter.model.sessions import USER
from navi_jupyter.ports.recalls import FiringState, RecallState
from navi_jupyter.scheduling.decisions import MAX_WAIT, Busy
from navi_jupyter.scheduling.ledger import Report
from navi_jupyter.scheduling.outcomes import manual, settle
from navi_jupyter.scheduling.scheduler import BREATH, LEASE, LONGEST_SLEEP, Scheduler
from tests.support.refusals import Refusal, be_impatient, check_integrity, full, locked, read_only
from tests.support.scheduler_world import OWNER, START, World, world


async def until(holds: Callable[[], bool]) -> None:
    """For what the running loop does by itself, at the end of its own steps."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


# --- M8, S6, S7: time ------------------------------------------------------------------------------------------------


async def test_a_clock_that_is_set_back_fires_nothing_twice_and_set_forward_one_for_all(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "every", "every": "1m"})
        for _ in range(3):
            w.clock.advance(MINUTE)
            assert await w.step(scheduler) == 1
            await w.finish(scheduler, session)
        w.clock.advance(-HOUR)
        for _ in range(60):
            assert await w.step(scheduler) == 0
            w.clock.advance(MINUTE)
        assert [row[1] for row in await w.ledger(recall)] == [60, 120, 180]
        w.clock.advance(HOUR)
        assert await w.step(scheduler) == 1
        rows = await w.ledger(recall)
        assert [row[1] for row in rows] == [60.0 * n for n in range(1, 64)]
        assert [row[0] for row in rows[3:]] == ["coalesced"] * 59 + ["running"]


async def test_no_sleep_is_longer_than_the_time_in_which_a_set_clock_is_to_be_noticed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        await w.recall(session, {"kind": "once", "in": "8h"})
        async with w.scheduler():
            await until(lambda: bool(w.clock._waits))
            assert w.clock._waits[0][0] - w.clock.now() <= LONGEST_SLEEP
            w.clock.advance(8 * HOUR)  # suspended: the timer comes late, once
            await until(lambda: bool(w.sessions.prompts))
        assert len(w.sessions.prompts) == 1


@pytest.mark.parametrize("ahead", ["1ms", "1s"])
async def test_a_time_that_is_all_but_now_fires_once(tmp_path: Path, ahead: str) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": ahead})
        w.clock.advance(SECOND)
        assert [await w.step(scheduler), await w.step(scheduler)] == [1, 0]
        await w.finish(scheduler, session)
        assert (await w.get(recall)).status == "fired"


async def test_a_server_that_starts_again_just_before_a_due_time_sends_one_prompt(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        recall = await w.recall(session, {"kind": "every", "every": "1m"})
        before, after = w.scheduler("before"), w.scheduler("after")
        w.clock.advance(MINUTE - SECOND)
        await before._planner.prepare(START + MINUTE)
        await after.sweep()
        await after._planner.prepare(START + MINUTE)
        w.clock.advance(SECOND)
        assert [await w.step(after), await w.step(before)] == [1, 0]
        assert len(w.sessions.prompts) == 1
        await w.finish(after, session)
        assert [row[0] for row in await w.ledger(recall)] == ["succeeded"]


# --- M9: a database that refuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [locked, full, read_only])
async def test_what_falls_due_while_the_database_refuses_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    be_impatient(monkeypatch)
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        many = [await w.recall(session, {"kind": "once", "in": f"{n + 1}s"}, {"busy": "queue"}) for n in range(40)]
        regular = await w.recall(session, {"kind": "every", "every": "10s"})
        async with refusal(w.store, tmp_path / "navi.db"):
            refused = 0
            for _ in range(6):
                w.clock.advance(10 * SECOND)
                try:
                    await w.step(scheduler)
                except StoreError:
                    refused += 1
            assert refused, "it was to refuse"
            state = await w.store.recall_state(regular.id)
            assert state is not None
            assert state.due_at is not None
            # On a full disk a small transaction may still find room: whole, never half.
            assert state.due_at == START + 10 * SECOND * (1 + len(await w.ledger(regular)))
            if refusal is not full:
                assert state.due_at == START + 10 * SECOND, "its place has moved"
                assert not w.sessions.prompts
        await w.step(scheduler)
        assert [row[1] for row in await w.ledger(regular)] == [10.0 * n for n in range(1, 7)]
        assert w.sessions.prompts
        assert all([len(await w.ledger(recall)) == 1 for recall in many])
        check_integrity(tmp_path / "navi.db")


# --- B2, B3, O1-O6: a busy session -----------------------------------------------------------------------------------


async def test_a_session_that_is_busy_for_ever_ends_the_wait_and_spends_no_attempt(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        await w.recall(session, {"kind": "once", "in": "1s"}, message="the one that never ends")
        recall = await w.recall(session, {"kind": "once", "in": "2s"}, {"retries": 3, "timeout": "1m"})
        w.clock.advance(2 * SECOND)
        seen = set()
        while not (await w.get(recall)).status.final:
            await w.step(scheduler)
            rows, _ = await w.service.queries.ledger(recall.id, owner=OWNER)
            seen.add((rows[0].status, rows[0].attempt, rows[0].started_at))
            w.clock.advance(HOUR)
        assert seen == {(FiringStatus.PENDING, 0, None), (FiringStatus.EXPIRED, 0, None)}
        assert w.clock.now() - START <= MAX_WAIT + 2 * HOUR
        assert (await w.ledger(recall))[0][2] == "the session is busy for too long"
        assert (await w.get(recall)).status == "expired"


async def test_of_a_user_and_a_recall_in_the_same_instant_both_get_their_turn_one_after_the_other(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(SECOND)
        _, claims = await scheduler.plan_and_claim(w.clock.now())
        await w.sessions(session, Prompt(command_id="u1", text="hello"), user_id=OWNER, origin=USER)
        outcome = await scheduler.deliver(claims[0])
        assert isinstance(outcome, Busy), "the user was first"
        firing = claims[0].firing
        await scheduler.settle(
            [Report(outcome=outcome, firing_id=firing.firing.id, fence=firing.fence, session_id=session)]
        )
        assert (await w.get(recall)).status == "pending"
        await w.finish(scheduler, session)
        assert await w.step(scheduler) == 1
        assert w.sessions.prompts[0][1].command_id == "u1"
        assert (await w.get(recall)).status == "running"


def test_what_becomes_of_a_busy_session_is_what_a_plain_reading_of_the_policy_says() -> None:
    dice = random.Random(4)
    for _ in range(10_000):
        busy = dice.choice(["defer", "queue", "skip", "interrupt"])
        session = dice.random() < 0.7
        delay, waited = SECOND * dice.randint(0, 100), SECOND * dice.randint(0, 10**6)
        recall = Recall(
            id="rec_1", session_id="s_1", title="t", message="m", schedule=Once(at=START),
            policy=Policy.model_validate({"busy": busy}), status=RecallStatus.PENDING, next_at=None, created_at=START,
        )  # fmt: skip
        state = RecallState(recall=recall, owner="u", due_at=None)
        firing = manual(recall, None, START)
        now = START + waited
        step = settle(state, firing, Busy(delay=delay, session=session), now, others=())
        assert step.firing is not None
        expected: tuple[object, ...]
        if session and busy == "skip":
            expected = (FiringStatus.SKIPPED, False)
        elif waited >= MAX_WAIT:
            expected = (FiringStatus.EXPIRED, False)
        else:
            expected = (FiringStatus.PENDING, session)
            assert step.firing.firing.not_before == min(now + delay, START + MAX_WAIT)
        assert (step.firing.firing.status, step.firing.deferred) == expected
        assert step.firing.fence == firing.fence + 1
        assert _untouched(step.firing, firing)


def _untouched(after: FiringState, before: FiringState) -> bool:
    """Waiting costs nothing: neither an attempt nor the slot nor the name of the prompt."""
    return (
        after.firing.attempt == before.firing.attempt
        and after.firing.slot == before.firing.slot
        and after.command_id == before.command_id
        and after.firing.run_id is None
    )


async def test_what_is_delivered_but_not_recorded_within_its_lease_is_not_delivered_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sessions = [await w.add_session() for _ in range(3)]
        recalls = [await w.recall(session, {"kind": "once", "in": "1s"}) for session in sessions]
        w.clock.advance(SECOND)
        submitted: list[str] = []

        # No acceptance in the database: only what the scheduler knows can keep it from delivering again.
        async def submit(_session: str, command: Command, **_: object) -> Acceptance:
            submitted.append(command.command_id or "")
            return Acceptance(command_id=command.command_id or "", seq=1, run_id=f"r_{len(submitted)}")

        scheduler = Scheduler(w.store, submit, server_id="busy", clock=w.clock)
        _, claims = await scheduler.plan_and_claim(w.clock.now())
        scheduler._hand_out(claims, boot_time())
        delivering = asyncio.create_task(scheduler._deliver_forever())
        await until(lambda: scheduler._in_flight == 0)
        delivering.cancel()
        w.clock.advance(2 * LEASE)
        assert await scheduler.sweep() == 0
        assert (await scheduler.plan_and_claim(w.clock.now()))[1] == []
        await scheduler.settle(scheduler._reports)
        assert len(submitted) == len(set(submitted)) == len(recalls)
        assert [[row[0] for row in await w.ledger(recall)] for recall in recalls] == [["running"]] * 3


async def test_a_turn_of_the_loop_has_one_share_of_deliveries_whichever_tasks_make_them(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for _ in range(3 * BURST):
            await w.recall(await w.add_session(), {"kind": "once", "in": "1s"})
        w.clock.advance(SECOND)
        turn, by_turn = 0, dict[int, int]()

        async def submit(_session: str, command: Command, **_: object) -> Acceptance:
            by_turn[turn] = by_turn.get(turn, 0) + 1
            time.sleep(BREATH / BURST)  # noqa: ASYNC251 - one that never waits
            return Acceptance(command_id=command.command_id or "", seq=1, run_id="r_1")

        scheduler = Scheduler(w.store, submit, server_id="s", clock=w.clock)
        _, claims = await scheduler.plan_and_claim(w.clock.now())
        delivering = [asyncio.create_task(scheduler._deliver_forever()) for _ in range(8)]
        await asyncio.sleep(0)
        scheduler._hand_out(claims, boot_time())
        while scheduler._in_flight:
            await asyncio.sleep(0)
            turn += 1
        for task in delivering:
            task.cancel()
        assert sum(by_turn.values()) == 3 * BURST
        assert max(by_turn.values()) <= BURST


BURST = 10


async def test_a_claim_that_may_be_another_servers_by_now_is_not_delivered(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        trusted = [True]
        scheduler, session = w.scheduler(trusted=lambda: trusted[0]), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(SECOND)
        _, claims = await scheduler.plan_and_claim(w.clock.now())
        trusted[0] = False
        scheduler._hand_out(claims, boot_time())
        delivering = asyncio.create_task(scheduler._deliver_forever())
        await until(lambda: scheduler._in_flight == 0)
        trusted[0] = True
        scheduler._hand_out(claims, boot_time() - LEASE.total_seconds())
        await until(lambda: scheduler._in_flight == 0)
        delivering.cancel()
        assert not w.sessions.prompts
        w.clock.advance(LEASE + SECOND)
        await scheduler.sweep()
        assert await w.step(scheduler) == 1
        assert len(w.sessions.prompts) == 1
        await w.finish(scheduler, session)
        assert [row[0] for row in await w.ledger(recall)] == ["succeeded"]


# --- C4: a clock that was ahead ---------------------------------------------------------------------------------------


class Steady:
    """Seconds that really pass, whatever the wall clock shows."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


async def _turns(w: World, scheduler: Any, session: str) -> None:
    """The loop's turns until it would sleep."""

    async def at_once(_signal: asyncio.Event, *, until: Any) -> None:
        await asyncio.sleep(0)

    w.clock.wait = at_once  # type: ignore[method-assign]
    for _ in range(6):
        await scheduler._turn()
        while scheduler._groups:
            _, group = scheduler._groups.popleft()
            for claim in group:
                outcome = await scheduler.deliver(claim)
                scheduler._in_flight -= 1
                row = claim.firing
                scheduler._report(
                    Report(outcome=outcome, firing_id=row.firing.id, fence=row.fence, session_id=row.session_id)
                )
        if scheduler._reports:
            batch = list(scheduler._reports)
            await scheduler.settle(batch)
            scheduler._reports = [report for report in scheduler._reports if report not in batch]
        if await w.active_run(session) is not None:
            await w.finish(scheduler, session)


@pytest.mark.parametrize("restarted", [False, True], ids=["noticed", "found at the next start"])
@pytest.mark.parametrize(
    ("spec", "ahead"),
    [
        ({"kind": "every", "every": "3s"}, 24 * HOUR),
        ({"kind": "every", "every": "1m"}, HOUR),
        ({"kind": "cron", "expr": "* * * * *", "tz": "UTC"}, 24 * HOUR),
        ({"kind": "every", "every": "3s"}, 3650 * 24 * HOUR),
    ],
)
async def test_a_clock_that_was_ahead_for_a_moment_silences_no_recall_and_that_is_told(
    tmp_path: Path, spec: dict[str, Any], ahead: timedelta, restarted: bool
) -> None:
    async with world(tmp_path) as w:
        steady, session = Steady(), await w.add_session()
        scheduler = w.scheduler(steady=steady)
        recall = await w.recall(session, spec, {"busy": "queue"})

        async def passes(seconds: float) -> None:
            w.clock.advance(timedelta(seconds=seconds))
            steady.at += seconds
            await _turns(w, scheduler, session)

        for _ in range(3):
            await passes(60)
        before = len(w.sessions.prompts)
        assert before >= 2
        w.clock.advance(ahead)
        await passes(12)
        assert len(w.sessions.prompts) > before
        w.clock.advance(-ahead)
        if restarted:
            scheduler = w.scheduler("server-2", steady=steady)
        prompts = len(w.sessions.prompts)
        await passes(1)
        state = await w.get(recall)
        assert state.next_at is not None
        assert state.next_at - w.clock.now() <= MINUTE
        for _ in range(5):
            await passes(60)
        assert len(w.sessions.prompts) - prompts >= 4
        ran = [row[1] for row in await w.ledger(recall) if row[0] == "succeeded"]
        assert len(ran) == len(set(ran)), "nothing ran twice for a time"
        frames = [json.loads(frame)["event"] for _, frame in await w.store.frames(session, after=0, limit=10_000)]
        values = [event["value"] for event in frames if event.get("name") == "navi.recall"]
        told = [value for value in values if value["action"] == "rescheduled"]
        assert len(told) == 1
        assert "the clock was ahead" in told[0]["reason"]


@pytest.mark.parametrize("restarted", [False, True], ids=["noticed", "found at the next start"])
async def test_a_recall_that_a_clock_ahead_took_for_over_goes_on_until_its_end(tmp_path: Path, restarted: bool) -> None:
    async with world(tmp_path) as w:
        steady, session = Steady(), await w.add_session()
        scheduler = w.scheduler(steady=steady)
        end = w.clock.now() + 3 * HOUR
        recall = await w.recall(session, {"kind": "every", "every": "1m"}, {"busy": "queue", "until": end.isoformat()})

        async def passes(seconds: float) -> None:
            w.clock.advance(timedelta(seconds=seconds))
            steady.at += seconds
            await _turns(w, scheduler, session)

        await passes(61)
        w.clock.advance(24 * HOUR)
        await passes(12)
        assert (await w.get(recall)).status is RecallStatus.EXPIRED
        w.clock.advance(-24 * HOUR)
        if restarted:
            scheduler = w.scheduler("server-2", steady=steady)
        prompts = len(w.sessions.prompts)
        for _ in range(5):
            await passes(60)

        assert len(w.sessions.prompts) - prompts >= 4
        w.clock.advance(3 * HOUR)
        steady.at += 3 * 3600
        await passes(60)
        await passes(600)
        assert (await w.get(recall)).status is RecallStatus.EXPIRED, "its end is its end"


async def test_what_a_server_whose_clock_was_ahead_has_planned_is_planned_anew_by_another_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        steady, session = Steady(), await w.add_session()
        scheduler = w.scheduler(steady=steady)
        recall = await w.recall(session, {"kind": "every", "every": "1m"}, {"busy": "queue"})

        async def passes(seconds: float) -> None:
            w.clock.advance(timedelta(seconds=seconds))
            steady.at += seconds
            await _turns(w, scheduler, session)

        await passes(61)
        w.clock.advance(24 * HOUR)
        await _turns(w, w.scheduler("server-2", steady=Steady()), session)
        w.clock.advance(-24 * HOUR)  # the other server is gone; this one's clock was right all the time
        state = await w.get(recall)
        assert state.next_at is not None
        assert state.next_at > w.clock.now() + 20 * HOUR
        for _ in range(6):
            await passes(60)

        prompts = len(w.sessions.prompts)
        for _ in range(3):
            await passes(60)
        assert len(w.sessions.prompts) - prompts >= 2


async def test_what_was_put_off_while_the_clock_was_ahead_is_put_off_no_longer_than_it_was_to_be(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        steady, session = Steady(), await w.add_session()
        scheduler = w.scheduler(steady=steady)
        await w.recall(session, {"kind": "once", "in": "1s"}, message="the one that runs")
        recall = await w.recall(session, {"kind": "once", "in": "2s"})
        w.clock.advance(24 * HOUR)
        await scheduler._follow_clock(w.clock.now())
        await w.step(scheduler)
        waits = (await w.get(recall)).next_at
        assert waits is not None
        w.clock.advance(SECOND * 10 - 24 * HOUR)
        steady.at += 10
        await scheduler._follow_clock(w.clock.now())
        rows = await w.store.firings_open([recall.id])
        assert all(row.firing.not_before <= w.clock.now() + 2 * MINUTE for row in rows)
