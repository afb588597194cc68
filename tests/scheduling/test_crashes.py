"""Random histories on the real store: servers die between any two steps, users pause and edit, sessions are busy."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from navi_jupyter.model.recalls import FiringStatus
from navi_jupyter.model.sessions import RunStatus
from navi_jupyter.scheduling.ledger import Report
from navi_jupyter.scheduling.schedules import count
from tests.support.scheduler_world import OWNER, START, World, world

if TYPE_CHECKING:
    from pathlib import Path

    from navi_jupyter.model.recalls import Recall
    from navi_jupyter.scheduling.scheduler import Scheduler

SCHEDULES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"kind": "every", "every": "30s"}, {}),
    ({"kind": "every", "every": "45s"}, {"misfire": "all"}),
    ({"kind": "every", "every": "20s"}, {"misfire": "skip", "grace": "30s"}),
    ({"kind": "every", "every": "1m"}, {"busy": "skip"}),
    ({"kind": "cron", "expr": "* * * * *"}, {"max_fires": 3}),
    ({"kind": "once", "in": "90s"}, {"retries": 1}),
    ({"kind": "once", "in": "10s"}, {}),
]


async def crashing_step(w: World, scheduler: Scheduler, dice: random.Random) -> None:
    """One turn that may die after planning, in the middle of the deliveries, or before they are written down."""
    _, claims = await scheduler.plan_and_claim(w.clock.now())
    if dice.random() < 0.15:
        return
    reports = []
    for claim in claims:
        outcome = await scheduler.deliver(claim)
        if dice.random() < 0.15:
            continue  # died between delivery and its record
        reports.append(
            Report(
                outcome=outcome,
                firing_id=claim.firing.firing.id,
                fence=claim.firing.fence,
                session_id=claim.firing.session_id,
            )
        )
    await scheduler.settle(reports)


async def finish_some(w: World, scheduler: Scheduler, sessions: list[str], dice: random.Random) -> None:
    for session in sessions:
        if dice.random() < 0.5 and (run := await w.active_run(session)) is not None:
            status = dice.choice([RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.INTERRUPTED])
            if dice.random() < 0.3:
                await w.sessions.end(run.id, status)  # nobody is told
            else:
                await w.finish(scheduler, session, status)


async def act(w: World, scheduler: Scheduler, sessions: list[str], recalls: list[Recall], dice: random.Random) -> None:
    match dice.randrange(7):
        case 0:
            recall = dice.choice(recalls)
            if not (await w.get(recall)).status.final:
                await w.service.pause(recall.id, owner=OWNER)
        case 1:
            await resume_all(w, recalls)
        case 2 | 3:
            await finish_some(w, scheduler, sessions, dice)
        case _:
            await crashing_step(w, scheduler, dice)


async def resume_all(w: World, recalls: list[Recall]) -> None:
    for recall in recalls:
        if not (await w.get(recall)).status.final:
            await w.service.resume(recall.id, owner=OWNER)


async def at_rest(w: World, recalls: list[Recall]) -> bool:
    opens = await w.store.firings_open([recall.id for recall in recalls])
    due = await w.store.due_recalls(w.clock.now(), limit=100)
    return not opens and not due


async def check(w: World, recalls: list[Recall]) -> None:
    commands = Counter(prompt.command_id for _, prompt, _ in w.sessions.prompts)
    assert all(n == 1 for n in commands.values()), "a slot ran twice"
    for recall in recalls:
        state = await w.store.recall_state(recall.id)
        assert state is not None
        rows, _ = await w.service.queries.ledger(recall.id, owner=OWNER, limit=10_000)
        open_rows = [f for f in rows if not f.status.final]
        assert open_rows == [], [(f.status, f.reason) for f in open_rows]
        auto = [f for f in rows if f.kind == "auto"]
        assert len({f.slot for f in auto}) == len(auto)
        if state.due_at is not None:
            nominal = count(recall.schedule, START, state.due_at - timedelta(microseconds=1))
            assert sum(1 + f.coalesced for f in auto) == nominal, recall.schedule
        assert all(f.reason for f in auto if f.status is not FiringStatus.SUCCEEDED)
        limit = recall.policy.max_fires
        assert limit is None or len([f for f in auto if f.started_at]) <= limit
        if recall.schedule.kind == "once":
            assert state.recall.status.final


@pytest.mark.parametrize("seed", range(12))
async def test_no_slot_is_lost_or_run_twice_whatever_dies(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with world(tmp_path) as w:
        sessions = [await w.add_session() for _ in range(3)]
        recalls = [await w.recall(dice.choice(sessions), s, p) for s, p in SCHEDULES]
        scheduler = w.scheduler("server-0")
        for n in range(40):
            w.clock.advance(timedelta(seconds=dice.choice([1, 5, 20, 60, 200])))
            if dice.random() < 0.15:
                scheduler = w.scheduler(f"server-{n}")
                await scheduler.sweep()
            await act(w, scheduler, sessions, recalls, dice)
        # The faults stop: everything comes to rest.
        await resume_all(w, recalls)
        scheduler = w.scheduler("last")
        for _ in range(400):
            await scheduler.sweep()
            delivered = await w.step(scheduler)
            for session in sessions:
                if await w.active_run(session) is not None:
                    await w.finish(scheduler, session)
            if await at_rest(w, recalls):
                break
            w.clock.advance(timedelta(seconds=0 if delivered else 3))
        await check(w, recalls)
