"""Runs of recalls that ask: the real scheduler, service, orchestrator and store together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.model.recalls import OnceSpec, Policy, RecallCreate
from navi_jupyter.orchestrator.orchestrator import Orchestrator
from navi_jupyter.scheduling.scheduler import Scheduler
from navi_jupyter.scheduling.service import RecallService
from navi_jupyter.store.sqlite import SqliteStore
from tests.support.orchestrator_world import OWNER, Agent, Envelope, World, ends, kinds, pauses


class Asker(Agent):
    """Asks whatever it is prompted."""

    async def run(self, turn: Any, context: Any) -> AsyncIterator[Any]:
        self.turns.append(turn)
        self.contexts[turn.run_id] = context
        async for item in self._ask(turn):
            yield item


class Recalled(World):
    recalls: RecallService

    async def recall(self, sid: str, **policy: Any) -> str:
        request = RecallCreate(
            session_id=sid,
            message="look",
            schedule=OnceSpec.model_validate({"kind": "once", "in": "50ms"}),
            policy=Policy(**policy),
        )
        return (await self.recalls.create(request, owner=OWNER, zone="UTC")).id

    async def paused(self, sid: str) -> tuple[str, str]:
        """The run that the recall has started, and its question, once it asks."""
        log = await self.until(sid, lambda e: pauses(e["run_id"])(e))
        last = log[-1]
        return last["run_id"], last["event"]["outcome"]["interrupts"][0]["id"]


@asynccontextmanager
async def recalled(folder: Path) -> AsyncIterator[Recalled]:
    store = await SqliteStore.open(folder / "navi.db")
    orchestrator = Orchestrator(store, agent := Asker())
    made = Recalled(store, orchestrator, agent)
    scheduler = Scheduler(
        store, orchestrator.submit, server_id=orchestrator.server.id, busy_delay=timedelta(seconds=0.1)
    )
    made.recalls = RecallService(store, changed=scheduler.wake)
    await orchestrator.start(made.recalls, scheduler.on_run_ended)
    await scheduler.start()
    try:
        yield made
    finally:
        await scheduler.stop()
        await orchestrator.stop()
        await store.close()


def action(name: str, recall_id: str) -> Any:
    def told(envelope: Envelope) -> bool:
        event = envelope["event"]
        if event.get("name") != "navi.recall":
            return False
        return bool(event["value"]["action"] == name and event["value"]["recall"]["id"] == recall_id)

    return told


async def test_a_recall_whose_run_waits_is_running_until_the_run_has_ended(tmp_path: Path) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        recall_id = await w.recall(sid)
        run_id, question = await w.paused(sid)
        await w.until(sid, action("started", recall_id))
        (firing,) = await w.recalls.firings(recall_id, owner=OWNER)
        assert (firing.status, firing.run_id) == ("running", run_id)
        await w.answer(sid, question)
        log = await w.until(sid, action("fired", recall_id))
        assert any(ends(run_id)(e) for e in log)
        (firing,) = await w.recalls.firings(recall_id, owner=OWNER)
        assert firing.status == "succeeded"


async def test_a_recall_whose_run_waits_survives_a_restart(tmp_path: Path) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        recall_id = await w.recall(sid)
        run_id, question = await w.paused(sid)
        await w.until(sid, action("started", recall_id))
    async with recalled(tmp_path) as w:
        (firing,) = await w.recalls.firings(recall_id, owner=OWNER)
        assert (firing.status, firing.run_id) == ("running", run_id)
        await w.answer(sid, question)
        await w.until(sid, action("fired", recall_id))
        assert await w.status(sid, run_id) == "completed"
        assert len(w.agent.turns) == 1


@pytest.mark.timeout(60)
async def test_the_time_limit_of_a_recall_ends_its_run_while_that_waits(tmp_path: Path) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        recall_id = await w.recall(sid, timeout=timedelta(milliseconds=700))
        run_id, _ = await w.paused(sid)
        log = await w.until(sid, action("failed", recall_id))
        assert "navi.interrupt:cancelled" in kinds(log)
        assert await w.status(sid, run_id) == "stopped"
        (firing,) = await w.recalls.firings(recall_id, owner=OWNER)
        assert (firing.status, firing.reason) == ("failed", "timed_out")


async def test_a_recall_that_finds_a_run_waiting_is_deferred_until_that_has_ended(tmp_path: Path) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        run_id, (question,) = await w.asking(sid, "ask")
        recall_id = await w.recall(sid)
        await w.until(sid, action("deferred", recall_id))
        await w.answer(sid, question)
        log = await w.until(sid, lambda e: pauses(e["run_id"])(e) and e["run_id"] != run_id)
        second = log[-1]["run_id"]
        await w.answer(sid, log[-1]["event"]["outcome"]["interrupts"][0]["id"])
        await w.until(sid, ends(second))
        await w.until(sid, action("fired", recall_id))
