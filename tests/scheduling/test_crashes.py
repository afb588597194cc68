"""Random histories on the real store: servers die between any two steps, users pause and edit, sessions are busy."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from navi_jupyter.clock import SystemClock
from navi_jupyter.clock import now as real_now
from navi_jupyter.model.base import new_id, ordered_id
from navi_jupyter.model.recalls import FiringStatus, Once, Recall
from navi_jupyter.model.sessions import RunStatus, Session
from navi_jupyter.ports.recalls import RecallState
from navi_jupyter.scheduling.ledger import Report
from navi_jupyter.scheduling.scheduler import Scheduler
from navi_jupyter.scheduling.schedules import count
from tests.support.database import open_store, perform
from tests.support.scheduler_world import OWNER, START, Sessions, World, world

if TYPE_CHECKING:
    from datetime import datetime

    from navi_jupyter.commands import Prompt

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


AT_ONCE = 1100
"""More than the batches that are taken before the first is delivered."""


class _Told(list[Any]):
    """Prompts that are new: each is told of once it is durable."""

    def append(self, prompt: tuple[str, Prompt, Any]) -> None:
        super().append(prompt)
        os.write(1, f"{prompt[1].command_id}\n".encode())


async def _serve(database: Path, server_id: str) -> None:
    store, clock = await open_store(database), SystemClock()
    sessions = Sessions(store, clock)
    sessions.prompts = _Told()
    async with Scheduler(store, sessions, server_id=server_id):
        await asyncio.Event().wait()


async def _fill(database: Path) -> datetime:
    store, at = await open_store(database), real_now()
    due = at.replace(microsecond=0) + timedelta(seconds=2)

    async def unit(tx: Any) -> None:
        recalls = []
        for _ in range(AT_ONCE):
            session = Session(
                id=new_id("s"), owner=OWNER, title="t", profile="p", model="m", created_at=at, updated_at=at
            )
            await tx.add_session(session)
            recall = Recall(
                id=ordered_id("rec"), session_id=session.id, title="t", message="look", schedule=Once(at=due),
                policy={}, status="pending", next_at=due, created_at=at,
            )  # fmt: skip
            recalls.append(RecallState(recall=recall, owner=OWNER, due_at=due))
        await tx.add_recalls(recalls)

    await store.write(unit)
    await store.close()
    return due


def _recorded(database: Path) -> int:
    return int(perform(database, "SELECT count(*) AS running FROM firings WHERE status = 'running'")[0]["running"])


def test_a_server_killed_in_the_middle_of_a_burst_has_started_each_recall_once_and_lost_none(tmp_path: Path) -> None:
    database = tmp_path / "navi.db"
    due = asyncio.run(_fill(database))
    heard: list[str] = []
    # One claim delivered and not recorded, many claimed and not delivered, some not planned; the next server goes on.
    for life, until in enumerate((300, AT_ONCE)):
        server = subprocess.Popen(
            [sys.executable, __file__, str(database), f"server-{life}"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert server.stdout is not None
        try:
            while len(heard) < until < AT_ONCE:
                heard.append(server.stdout.readline().decode().strip())
                assert heard[-1], "it has ended"
            patience = time.monotonic() + 60
            while until == AT_ONCE and _recorded(database) < AT_ONCE and time.monotonic() < patience:
                time.sleep(0.05)
        finally:
            server.kill()
            heard += [line.decode().strip() for line in server.stdout if line.endswith(b"\n")]
            server.stdout.close()
            server.wait()
        assert server.returncode == -signal.SIGKILL
    runs = Counter(row["command_id"] for row in perform(database, "SELECT command_id FROM runs"))
    firings = perform(
        database,
        "SELECT f.recall_id, f.slot, f.status FROM firings f JOIN runs ON runs.id = f.run_id"
        " AND runs.command_id = f.command_id AND runs.session_id = f.session_id",
    )
    assert set(runs.values()) == {1}
    assert len(heard) == len(set(heard))
    assert set(heard) <= set(runs)
    assert len(runs) == len(firings) == len({recall_id for recall_id, *_ in firings}) == AT_ONCE
    assert {(row["slot"], row["status"]) for row in firings} == {(int(due.timestamp() * 1e6), "running")}


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2]))
