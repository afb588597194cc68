"""What a run leaves behind when its server ends, and how a recall's prompt is run once more."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from navi_jupyter.clock import now
from navi_jupyter.commands import Acceptance, Prompt
from navi_jupyter.errors import LeaseLost
from navi_jupyter.model.runs import InterruptStatus
from navi_jupyter.model.sessions import Origin, OriginKind, Run
from navi_jupyter.orchestrator.upkeep.servers import close_orphans
from navi_jupyter.ports.transactions import SessionTx
from tests.support.orchestrator_world import OWNER, World, text_of, world

RECALLED = Origin(kind=OriginKind.RECALL, recall_id="rec_1")


async def recalled(w: World, sid: str, text: str = "wait", mode: str = "reject") -> Acceptance:
    """A prompt as the scheduler delivers it."""
    prompt = Prompt.model_validate({"command_id": "recall:1", "text": text, "mode": mode})
    return await w.orchestrator.submit(sid, prompt, user_id=OWNER, origin=RECALLED)


async def taken_over(w: World, run_id: str | None) -> Run:
    """As another server does it that finds the run's server gone."""
    server = replace(w.orchestrator.server, id="heir")

    async def dead(tx: SessionTx) -> None:
        await tx.forget_server(w.orchestrator.server.id)

    await w.store.write(dead)
    await close_orphans(w.store, server)
    run = await w.store.run(run_id or "")
    assert run is not None
    return run


async def effect(w: World, run_id: str | None, tool: str) -> None:
    await w.agent.contexts[run_id or ""].record_effect(tool)


async def test_a_run_without_an_effect_is_repeated_for_its_recall_and_the_message_is_there_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        first = await recalled(w, sid)
        await w.streaming(sid, first.run_id)
        assert (await taken_over(w, first.run_id)).status == "interrupted"
        w.agent.gate.set()
        second = await recalled(w, sid)
        assert second.run_id != first.run_id
        assert (second.command_id, second.seq) == (first.command_id, first.seq)
        assert (await w.until_end(sid, second.run_id))["event"]["outcome"] == {"type": "success"}
        log = await w.log(sid)
        assert [e["run_id"] for e in log if e["event"].get("role") == "user"] == [first.run_id]
        restarted = [e for e in log if e["event"].get("value", {}).get("action") == "restarted"]
        assert [e["event"]["value"]["run_id"] for e in restarted] == [second.run_id]
        assert text_of(log, f"m_{second.run_id}")
        turn = w.agent.turns[-1]
        assert (turn.prompt, turn.history) == ("wait", ())  # not what the interrupted attempt said
        assert await recalled(w, sid) == second


async def test_a_run_that_has_started_a_tool_is_not_repeated_and_says_which(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        first = await recalled(w, sid)
        await w.streaming(sid, first.run_id)
        await effect(w, first.run_id, "run_cell")
        assert [e["event"]["value"]["tool"] for e in await w.log(sid) if e["event"].get("name") == "navi.tool"] == [
            "run_cell"
        ]
        run = await taken_over(w, first.run_id)
        assert run.error is not None
        assert "It had started run_cell" in run.error.message
        assert await recalled(w, sid) == first


async def test_a_run_of_the_users_is_not_repeated(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        first = await w.prompt(sid, "wait", command_id="c1")
        await w.streaming(sid, first.run_id)
        await taken_over(w, first.run_id)
        assert await w.prompt(sid, "wait", command_id="c1") == first


async def test_what_was_to_be_stopped_ends_as_stopped_when_its_server_is_gone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        first = await recalled(w, sid, "stubborn")
        await w.streaming(sid, first.run_id)
        await w.stop(sid)
        run = await taken_over(w, first.run_id)
        assert (run.status, run.error) == ("stopped", None)
        assert await recalled(w, sid, "stubborn") == first


async def test_a_tool_with_an_effect_does_not_start_in_a_run_that_another_server_has_taken_over(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        first = await recalled(w, sid, "stubborn")
        await w.streaming(sid, first.run_id)
        await taken_over(w, first.run_id)
        with pytest.raises(LeaseLost):
            await effect(w, first.run_id, "run_cell")
        assert not [e for e in await w.log(sid) if e["event"].get("name") == "navi.tool"]


async def test_a_run_that_was_interrupted_after_its_question_was_answered_is_repeated(tmp_path: Path) -> None:
    """It had waited in the database; that it asked is no effect."""
    async with world(tmp_path) as w:
        sid = await w.session()
        first = await recalled(w, sid, "ask")
        (question,) = await w.questions(sid, first.run_id)
        assert (await taken_over(w, first.run_id)).status == "waiting"  # no server has it: it outlives them
        assert await recalled(w, sid, "ask") == first
        assert question
        at = now()

        async def resumed_elsewhere(tx: SessionTx) -> None:
            (opened,) = await tx.open_interrupts(first.run_id or "")
            await tx.settle_interrupt(opened.id, status=InterruptStatus.RESOLVED, at=at, payload={"approved": True})
            until = at + timedelta(hours=1)
            assert await tx.resume_run(first.run_id or "", server_id="gone", lease_until=until)

        await w.store.write(resumed_elsewhere)
        assert (await taken_over(w, first.run_id)).status == "interrupted"
        second = await recalled(w, sid, "ask")
        assert second.run_id != first.run_id
        assert await w.questions(sid, second.run_id)
