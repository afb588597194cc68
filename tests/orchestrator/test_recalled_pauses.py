"""Runs of recalls that ask: the real scheduler, service, orchestrator and store together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.model.recalls import OnceSpec, Policy, RecallCreate
from navi_jupyter.orchestrator.orchestrator import Orchestrator
from navi_jupyter.scheduling.scheduler import Scheduler
from navi_jupyter.scheduling.service import RecallService
from tests.support.database import open_store
from tests.support.orchestrator_world import (
    OWNER,
    PATIENCE,
    Agent,
    Envelope,
    World,
    ends,
    eventually,
    kinds,
    pauses,
    told,
)


class Asker(Agent):
    """Asks whatever it is prompted; ``inner`` and ``say`` as every agent of these tests."""

    async def run(self, turn: Any, context: Any) -> AsyncIterator[Any]:
        self.turns.append(turn)
        self.contexts[turn.run_id] = context
        word, *rest = turn.prompt.split()
        does = getattr(self, f"_{word}") if word in ("ask", "inner", "say", "twice", "wait") else self._ask
        async for item in does(turn, *(rest if does != self._ask or word == "ask" else ())):
            yield item


class Recalled(World):
    recalls: RecallService
    scheduler: Scheduler

    async def recall(self, sid: str, message: str = "look", **policy: Any) -> str:
        request = RecallCreate(
            session_id=sid,
            message=message,
            schedule=OnceSpec.model_validate({"kind": "once", "in": "50ms"}),
            policy=Policy(**policy),
        )
        return (await self.recalls.create(request, owner=OWNER, zone="UTC")).id

    async def outcome(self, recall_id: str) -> tuple[str, str | None]:
        """How its last firing ended, once it has; without a view of the session."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await self.recalls.firings(recall_id, owner=OWNER)
                if found and found[0].status.final:
                    break
                await asyncio.sleep(0.01)
        return found[0].status.value, found[0].reason

    @asynccontextmanager
    async def watched(self, sid: str) -> AsyncIterator[None]:
        """A view of the session is open meanwhile."""

        async def read() -> None:
            async for _ in self.orchestrator.follow(sid, after=0, owner=OWNER):
                pass

        reader = asyncio.create_task(read())
        await eventually(lambda: self.orchestrator.log.is_followed(sid))
        try:
            yield
        finally:
            reader.cancel()
            await asyncio.wait([reader])

    async def paused(self, sid: str) -> tuple[str, str]:
        """The run that the recall has started, and its question, once it asks."""
        log = await self.until(sid, lambda e: pauses(e["run_id"])(e))
        last = log[-1]
        return last["run_id"], last["event"]["outcome"]["interrupts"][0]["id"]


@asynccontextmanager
async def recalled(folder: Path) -> AsyncIterator[Recalled]:
    store = await open_store(folder / "navi.db")
    orchestrator = Orchestrator(store, agent := Asker())
    made = Recalled(store, orchestrator, agent)
    scheduler = Scheduler(
        store, orchestrator.submit, server_id=orchestrator.server.id, busy_delay=timedelta(seconds=0.1)
    )
    made.scheduler = scheduler
    made.recalls = RecallService(store, changed=scheduler.wake)
    await orchestrator.start(made.recalls, scheduler.on_run_ended, run_started=scheduler.on_run_started)
    await scheduler.start()
    try:
        yield made
    finally:
        await scheduler.stop()
        await orchestrator.stop()
        await store.close()


def action(name: str, recall_id: str) -> Any:
    def reported(envelope: Envelope) -> bool:
        event = envelope["event"]
        if event.get("name") != "navi.recall":
            return False
        return bool(event["value"]["action"] == name and event["value"]["recall"]["id"] == recall_id)

    return reported


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


NEEDED = ("failed", "needed approval: run_code")


async def test_a_recall_that_asks_where_no_view_is_open_fails_at_once_and_says_what_it_needed(tmp_path: Path) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        recall_id = await w.recall(sid, retries=3)
        assert await w.outcome(recall_id) == NEEDED
        (run,) = (await w.orchestrator.sessions.runs(sid, owner=OWNER, limit=9))[0]
        assert run.error is not None
        assert (run.status, run.error.code, run.error.message) == (
            "failed", "needed_approval", "needed approval: run_code",
        )  # fmt: skip
        assert (await w.recalls.queries.get(recall_id, owner=OWNER)).status == "failed"
        log = await w.log(sid)
        (reported,) = [e["event"]["value"] for e in log if action("failed", recall_id)(e)]
        handle = reported["reason"].split("%navi fire ")[1].split()[0]
        assert reported["reason"].startswith("needed approval: run_code. ")
        assert reported["reason"].endswith(f"%navi fire {handle} --allow run_code")
        assert handle in recall_id
        assert (await w.view(sid)).run is None, "it does not hold the session"
        assert not any(told("opened")(e) for e in log), "what cannot be answered is not asked"
        accepted = await w.prompt(sid, "say 1", mode="reject")
        await w.until_end(sid, accepted.run_id)


async def test_several_calls_that_needed_approval_are_named_once_each(tmp_path: Path) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        assert await w.outcome(await w.recall(sid, "ask 3")) == NEEDED
        assert await w.outcome(await w.recall(sid, "twice")) == ("failed", "needed an answer: Which? 0")


async def test_a_recall_that_waits_for_an_answer_makes_way_for_another_one(tmp_path: Path) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        async with w.watched(sid):
            first = await w.recall(sid)
            run_id, question = await w.paused(sid)
            second = await w.recall(sid, "say 1")
            log = await w.until(sid, action("fired", second))
            assert await w.outcome(first) == NEEDED
            assert await w.outcome(second) == ("succeeded", None)
            assert await w.status(sid, run_id) == "failed"
            assert any(told("cancelled", question)(e) for e in log)
            assert sum(ends(run_id)(e) for e in log) == 1
            assert not any(action("deferred", second)(e) for e in log), "it did not have to wait"


@pytest.mark.parametrize("mode", ["enqueue", "reject", "collect"])
async def test_a_recall_that_waits_for_an_answer_makes_way_for_the_users_prompt(tmp_path: Path, mode: str) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        async with w.watched(sid):
            recall_id = await w.recall(sid)
            run_id, _ = await w.paused(sid)
            accepted = await w.prompt(sid, "say 1", mode=mode)
            assert accepted.run_id != run_id
            await w.until_end(sid, accepted.run_id)
            assert await w.outcome(recall_id) == NEEDED


async def test_a_prompt_that_came_before_the_question_is_not_kept_waiting_by_it(tmp_path: Path) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        async with w.watched(sid):
            await w.prompt(sid, "wait")
            first = await w.recall(sid)
            second = await w.recall(sid, "ask", busy="queue")
            await w.until(sid, action("deferred", first))
            # In the queue, too: else the deferred one may start before it, and nothing waits behind its question.
            await w.until(sid, lambda e: e["event"].get("delta") == "ask")
            w.agent.gate.set()
            assert await w.outcome(second) == NEEDED
            _, question = await w.paused(sid)
            await w.answer(sid, question)
            assert await w.outcome(first) == ("succeeded", None)


async def test_an_answer_in_time_counts_and_a_refusal_is_an_answer(tmp_path: Path) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        async with w.watched(sid):
            for payload in ({"approved": True}, {"approved": False, "message": "not now"}):
                recall_id = await w.recall(sid)
                log = await w.until(sid, action("started", recall_id))
                run_id = next(e["run_id"] for e in reversed(log) if e["event"]["type"] == "RUN_STARTED")
                (question,) = await w.questions(sid, run_id)
                await w.answer(sid, question, payload=payload)
                assert await w.outcome(recall_id) == ("succeeded", None)


async def test_a_question_of_a_recall_that_expires_ends_its_firing_as_failed(tmp_path: Path) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        async with w.watched(sid):
            recall_id = await w.recall(sid, "ask 2 0.2")
            assert await w.outcome(recall_id) == NEEDED
            log = await w.log(sid)
            assert "navi.interrupt:expired" in kinds(log)
            assert len(w.agent.turns) == 1, "its model is not asked again"
            asked = await w.prompt(sid, "ask 1 0.2")
            await w.until_end(sid, asked.run_id)
            assert await w.status(sid, asked.run_id) == "completed", "a user's own run goes on without"


async def test_a_question_of_a_recall_is_open_for_a_minute_at_most_though_a_view_is_open(tmp_path: Path) -> None:
    # Seen to fail before: a tab that was left open kept the run waiting for an hour.
    async with recalled(tmp_path) as w:
        sid = await w.session()
        async with w.watched(sid):
            await w.recall(sid, "ask 1")
            await w.until(sid, told("opened"))
            prompt = await w.prompt(sid, "ask 1")
            log = await w.until(sid, lambda e: told("opened")(e) and e["run_id"] == prompt.run_id)
    by_recall, by_user = [e["event"]["value"]["interrupt"] for e in log if told("opened")(e)]
    assert seconds_open(by_recall) == 60
    assert seconds_open(by_user) == 3600


def seconds_open(question: dict[str, Any]) -> float:
    began, ends = (datetime.fromisoformat(question[name]) for name in ("created_at", "expires_at"))
    return (ends - began).total_seconds()


async def test_a_question_in_memory_of_a_recall_is_not_waited_for_either(tmp_path: Path) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        needed = ("failed", "needed an answer: How many?")
        assert await w.outcome(await w.recall(sid, "inner 60")) == needed
        async with w.watched(sid):
            assert await w.outcome(await w.recall(sid, "inner 0.2")) == needed
            waiting = await w.recall(sid, "inner 60")
            await w.until(
                sid, lambda e: told("opened")(e) and e["event"]["value"]["interrupt"]["run_id"] == e["run_id"]
            )
            await w.until(sid, action("started", waiting))
            second = await w.recall(sid, "say 1")
            assert await w.outcome(waiting) == needed
            assert await w.outcome(second) == ("succeeded", None)
            answered = await w.recall(sid, "inner 60")
            log = await w.until(sid, action("started", answered))
            run_id = [e["run_id"] for e in log if e["event"]["type"] == "RUN_STARTED"][-1]
            log = await w.until(sid, lambda e: told("opened")(e) and e["run_id"] == run_id)
            await w.answer(sid, log[-1]["event"]["value"]["interrupt"]["id"], payload={"n": 3})
            assert await w.outcome(answered) == ("succeeded", None)


@pytest.mark.parametrize("heard", [True, False])
async def test_a_recall_in_its_sessions_queue_has_started_when_its_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    """``heard``: the scheduler is notified of the start; else its sweep finds it."""
    if not heard:
        monkeypatch.setattr(Scheduler, "on_run_started", lambda *_: asyncio.sleep(0))
    async with recalled(tmp_path) as w:
        sid = await w.session()
        users = await w.prompt(sid, "wait")
        await w.streaming(sid, users.run_id)
        recall_id = await w.recall(sid, "wait", busy="queue")
        log = await w.until(sid, action("deferred", recall_id))
        (queued,) = [e["event"]["value"] for e in log if action("deferred", recall_id)(e)]
        assert queued["reason"] == "it waits in its session's queue"
        assert queued["status"] == "pending"
        (firing,) = await w.recalls.firings(recall_id, owner=OWNER)
        assert (firing.status, firing.started_at, firing.lateness_ms) == ("claimed", None, None)
        assert firing.reason == "it waits in its session's queue"
        assert (await w.recalls.queries.get(recall_id, owner=OWNER)).fired == 0
        await asyncio.sleep(0.5)  # so that the two times differ
        w.agent.gate.set()
        await w.until_end(sid, users.run_id)
        if not heard:
            await w.scheduler.sweep()
        log = await w.until(sid, action("fired", recall_id))
        assert await w.outcome(recall_id) == ("succeeded", None)
        (firing,) = await w.recalls.firings(recall_id, owner=OWNER)
        run = await w.orchestrator.sessions.run(sid, firing.run_id or "", owner=OWNER)
        assert firing.started_at == run.started_at
        assert firing.lateness_ms is not None
        assert firing.lateness_ms >= 500
        order = [e["event"]["value"]["action"] for e in log if e["event"].get("name") == "navi.recall"]
        assert order == ["created", "deferred", "started", "fired"]


async def test_a_recalls_prompt_that_is_taken_out_of_the_queue_has_not_started(tmp_path: Path) -> None:
    async with recalled(tmp_path) as w:
        sid = await w.session()
        users = await w.prompt(sid, "wait")
        await w.streaming(sid, users.run_id)
        recall_id = await w.recall(sid, "say 1", busy="queue")
        await w.until(sid, action("deferred", recall_id))
        ((queued,),) = [item.parts for item in (await w.view(sid)).prompts]
        await w.unqueue(sid, queued.command_id)
        assert await w.outcome(recall_id) == ("cancelled", "its prompt was taken out of the queue")
        (firing,) = await w.recalls.firings(recall_id, owner=OWNER)
        assert (firing.started_at, firing.run_id) == (None, None)
        w.agent.gate.set()
