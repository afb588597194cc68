"""What a prompt does to a session that is idle, that runs, and that waits for an answer: all six modes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.commands import Prompt, PromptMode
from navi_jupyter.errors import CommandNotFound, RunNotFound, SessionBusy
from navi_jupyter.model.attachments import Attachment
from navi_jupyter.orchestrator.prompts import RunSteering
from tests.support.log_reader import Reader
from tests.support.orchestrator_world import OWNER, Envelope, World, ends, eventually, kinds, text_of, told, world

MODES: tuple[PromptMode, ...] = ("reject", "enqueue", "interrupt", "rollback", "steer", "collect")


def queue(log: list[Envelope], run_id: str | None = None) -> list[str]:
    """What the log says of the queue."""
    events = [e["event"] for e in log if e["event"].get("name") == "navi.queue" and run_id in (None, e["run_id"])]
    return [event["value"]["action"] for event in events]


async def check(w: World, sid: str) -> None:
    reader = Reader()
    for envelope in await w.log(sid):
        reader.take(envelope)
    assert not reader.open


async def conversation(w: World, sid: str) -> list[tuple[str, str | None, str]]:
    return [(m.role, m.run_id, m.content) for m in await w.orchestrator.sessions.messages(sid, owner=OWNER)]


# --- the table


@pytest.mark.parametrize("mode", MODES)
async def test_in_an_idle_session_every_mode_is_a_plain_prompt(tmp_path: Path, mode: PromptMode) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "say 1", mode=mode)
        log = await w.until(sid, ends(run.run_id))
        assert log[-1]["event"]["outcome"] == {"type": "success"}
        assert queue(log) == []


@pytest.mark.parametrize(
    ("mode", "first", "order", "said"),
    [
        ("enqueue", "completed", "first second", ["queued", "started"]),
        ("interrupt", "stopped", "first second", ["queued", "started"]),
        ("rollback", "stopped", "first second", ["rolled_back", "queued", "started"]),
        ("steer", "completed", "first second", ["queued", "started"]),  # the agent did not take it
        ("collect", "completed", "first second", ["queued", "started"]),
    ],
)
async def test_what_each_mode_does_to_a_run_in_progress(
    tmp_path: Path, mode: PromptMode, first: str, order: str, said: list[str]
) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        one = await w.prompt(sid, "wait")
        await w.streaming(sid, one.run_id)
        two = await w.prompt(sid, "say 1", mode=mode)
        if first == "completed":
            assert await w.status(sid, two.run_id) == "queued"
            w.agent.gate.set()
        log = await w.until(sid, ends(two.run_id))
        names = {one.run_id: "first", two.run_id: "second"}
        started = [names[e["run_id"]] for e in log if e["event"]["type"] == "RUN_STARTED"]
        assert " ".join(started) == order
        assert await w.status(sid, one.run_id) == first
        assert queue(log) == said
        told_of = [turn.run_id for turn in w.agent.turns[-1].history]
        assert told_of == ([] if mode == "rollback" else [one.run_id])
        await check(w, sid)


@pytest.mark.parametrize(
    ("mode", "first"),
    [
        ("enqueue", "waiting"),
        ("collect", "waiting"),
        ("interrupt", "stopped"),
        ("rollback", "stopped"),
        ("steer", "completed"),
    ],
)
async def test_what_each_mode_does_to_a_run_that_waits_for_an_answer(
    tmp_path: Path, mode: PromptMode, first: str
) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, (question,) = await w.asking(sid)
        two = await w.prompt(sid, "say 1", mode=mode)
        if first == "waiting":
            assert await w.status(sid, run_id) == "waiting"
            assert await w.status(sid, two.run_id) == "queued"
            await w.answer(sid, question)
        if mode == "steer":
            await w.until_end(sid, run_id)
        else:
            await w.until_end(sid, two.run_id)
            assert (await w.log(sid))[-1]["event"]["outcome"] == {"type": "success"}
        assert await w.status(sid, run_id) == ("completed" if first == "waiting" else first)
        assert (await w.view(sid)).approvals == []
        await check(w, sid)


async def test_reject_refuses_while_a_run_goes_on_or_waits(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        await w.asking(sid)
        before = await w.log(sid)
        with pytest.raises(SessionBusy):
            await w.prompt(sid, "say 1", mode="reject")
        assert await w.log(sid) == before


# --- rollback


async def test_a_turn_that_was_rolled_back_stays_in_the_log_and_is_not_told_to_the_model(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        kept = await w.prompt(sid, "say 1")
        await w.until_end(sid, kept.run_id)
        gone = await w.prompt(sid, "wait")
        await w.streaming(sid, gone.run_id)
        after = await w.prompt(sid, "say 2", mode="rollback")
        log = await w.until(sid, ends(after.run_id))
        event = next(e for e in log if e["event"].get("value", {}).get("action") == "rolled_back")
        assert event["event"]["value"]["run_id"] == gone.run_id
        assert [turn.run_id for turn in w.agent.turns[-1].history] == [kept.run_id]
        run = await w.orchestrator.sessions.run(sid, gone.run_id or "", owner=OWNER)
        assert (run.status.value, run.rolled_back) == ("stopped", True)
        assert ("assistant", gone.run_id, "0 1 ") in await conversation(w, sid)


# --- replaces


async def test_a_prompt_that_replaces_a_finished_turn_takes_it_out_of_what_the_model_reads(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        kept = await w.prompt(sid, "say 1")
        await w.until_end(sid, kept.run_id)
        old = await w.prompt(sid, "say 2")
        await w.until_end(sid, old.run_id)
        new = await w.prompt(sid, "say 3", replaces=old.run_id, command_id="n")
        log = await w.until(sid, ends(new.run_id))
        assert [turn.run_id for turn in w.agent.turns[-1].history] == [kept.run_id]
        (event,) = [e["event"]["value"] for e in log if e["event"].get("value", {}).get("action") == "rolled_back"]
        assert event["run_id"] == old.run_id
        run = await w.orchestrator.sessions.run(sid, old.run_id or "", owner=OWNER)
        assert (run.status.value, run.rolled_back) == ("completed", True)
        assert await w.prompt(sid, "say 3", replaces=old.run_id, command_id="n") == new, "a repetition changes nothing"
        await check(w, sid)


async def test_only_a_run_of_the_session_that_is_over_can_be_replaced(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid, other = await w.session(), await w.session()
        foreign = await w.prompt(other, "say 1")
        await w.until_end(other, foreign.run_id)
        running = await w.prompt(sid, "wait")
        await w.streaming(sid, running.run_id)
        before = await w.log(sid)
        for run_id in (foreign.run_id, "r_000000000000000000000000", "\ufffd" * 300):
            with pytest.raises(RunNotFound):
                await w.prompt(sid, "say 1", replaces=run_id)
        with pytest.raises(SessionBusy, match="has not ended"):
            await w.prompt(sid, "say 1", replaces=running.run_id)
        assert await w.log(sid) == before, "what is refused leaves nothing"


# --- collect


async def test_collected_prompts_become_one_turn_once_the_run_has_ended(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        one = await w.prompt(sid, "wait")
        await w.streaming(sid, one.run_id)
        parts = [await w.prompt(sid, f"say {n}", mode="collect", command_id=f"c{n}") for n in (1, 2, 3)]
        assert len({part.run_id for part in parts}) == 1
        (queued,) = (await w.view(sid)).prompts
        assert [part.command_id for part in queued.parts] == ["c1", "c2", "c3"]
        w.agent.gate.set()
        log = await w.until(sid, ends(parts[0].run_id))
        assert w.agent.turns[1].prompt == "say 1\n\nsay 2\n\nsay 3"
        assert queue(log) == ["queued", "collected", "collected", "started"]
        users = [(role, text) for role, run, text in await conversation(w, sid) if run == parts[0].run_id][:3]
        assert users == [("user", "say 1"), ("user", "say 2"), ("user", "say 3")]
        again = await w.prompt(sid, "say 3", mode="collect", command_id="c3")
        assert again == parts[2]
        await check(w, sid)


async def test_one_of_the_collected_prompts_can_be_changed_and_one_withdrawn(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        one = await w.prompt(sid, "wait")
        await w.streaming(sid, one.run_id)
        for n in (1, 2, 3):
            last = await w.prompt(sid, f"say {n}", mode="collect", command_id=f"c{n}")
        await w.unqueue(sid, "c1")
        await w.edit(sid, "c2", "say 20", display="twenty")
        w.agent.gate.set()
        log = await w.until(sid, ends(last.run_id))
        assert w.agent.turns[1].prompt == "say 20\n\nsay 3"
        edited = next(e["event"]["value"] for e in log if e["event"].get("value", {}).get("action") == "edited")
        assert (edited["command_id"], edited["text"]) == ("c2", "twenty")
        users = [text for role, run, text in await conversation(w, sid) if run == last.run_id and role == "user"]
        assert users == ["twenty", "say 3"]
        await check(w, sid)


async def test_withdrawing_the_last_of_the_collected_prompts_withdraws_the_run(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        one = await w.prompt(sid, "wait")
        await w.streaming(sid, one.run_id)
        for n in (1, 2):
            last = await w.prompt(sid, f"say {n}", mode="collect", command_id=f"c{n}")
        await w.unqueue(sid, "c1")
        await w.unqueue(sid, "c2")
        assert await w.status(sid, last.run_id) == "stopped"
        assert (await w.view(sid)).queue == []
        fresh = await w.prompt(sid, "say 3", mode="collect")
        assert fresh.run_id != last.run_id
        w.agent.gate.set()
        await w.until_end(sid, fresh.run_id)


async def test_a_prompt_for_another_model_is_not_collected_with_the_others(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        one = await w.prompt(sid, "wait")
        await w.streaming(sid, one.run_id)
        first = await w.prompt(sid, "say 1", mode="collect")
        other = await w.prompt(sid, "say 2", mode="collect", model="else")
        assert first.run_id != other.run_id
        w.agent.gate.set()
        await w.until_end(sid, other.run_id)


# --- editing and withdrawing


@pytest.mark.parametrize("mode", ["enqueue", "steer", "collect"])
async def test_a_waiting_prompt_is_shown_can_be_changed_and_withdrawn(tmp_path: Path, mode: PromptMode) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        one = await w.prompt(sid, "wait")
        await w.streaming(sid, one.run_id)
        two = await w.prompt(sid, "say 1", mode=mode, command_id="c2")
        three = await w.prompt(sid, "say 3", command_id="c3")
        first = await w.edit(sid, "c2", "say 2", command_id="e1")
        assert await w.edit(sid, "c2", "say 2", command_id="e1") == first
        shown = {queued.run.id: [part.text for part in queued.parts] for queued in (await w.view(sid)).prompts}
        assert shown == {two.run_id: ["say 2"], three.run_id: ["say 3"]}
        await w.unqueue(sid, "c3")
        w.agent.gate.set()
        await w.until_end(sid, two.run_id)
        assert [turn.prompt for turn in w.agent.turns] == ["wait", "say 2"]
        assert ("user", two.run_id, "say 2") in await conversation(w, sid)
        with pytest.raises(CommandNotFound):
            await w.edit(sid, "c2", "too late")
        await check(w, sid)


# --- steer


async def test_a_steered_prompt_becomes_part_of_the_run_that_takes_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        one = await w.prompt(sid, "listen")
        await w.streaming(sid, one.run_id)
        two = await w.prompt(sid, "use logs", mode="steer", command_id="c2", display="Logs!")
        three = await w.prompt(sid, "never mind", mode="steer", command_id="c3")
        await w.unqueue(sid, "c3")
        assert two.run_id != one.run_id
        w.agent.gate.set()
        log = await w.until(sid, ends(one.run_id))
        assert text_of(log, f"m_{one.run_id}") == "0 1 use logs"
        steered = next(e for e in log if e["event"].get("value", {}).get("action") == "steered")
        assert steered["run_id"] == one.run_id
        assert steered["event"]["value"] == {
            "action": "steered",
            "command_id": "c2",
            "run_id": one.run_id,
            "text": "Logs!",
        }
        assert await conversation(w, sid) == [
            ("user", one.run_id, "listen"),
            ("assistant", one.run_id, "0 1 use logs"),
            ("user", one.run_id, "Logs!"),
        ]
        merged = await w.orchestrator.sessions.run(sid, two.run_id or "", owner=OWNER)
        assert (merged.status.value, merged.merged_into) == ("completed", one.run_id)
        assert await w.status(sid, three.run_id) == "stopped"
        assert len(w.agent.turns) == 1
        following = await w.prompt(sid, "say 1")
        await w.until_end(sid, following.run_id)
        assert [turn.run_id for turn in w.agent.turns[1].history] == [one.run_id]
        await eventually(
            lambda: {run.id for run in w.ended} == {one.run_id, two.run_id, three.run_id, following.run_id}
        )


async def test_a_prompt_that_joins_a_run_of_another_clock_names_its_own_to_the_model_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        one = await w.prompt(sid, "listen", client={"tz": "UTC", "source": "kernel"})
        await w.streaming(sid, one.run_id)
        await w.prompt(sid, "at 9", mode="steer", client={"tz": "Asia/Tokyo"})
        w.agent.gate.set()
        log = await w.until(sid, ends(one.run_id))
        assert text_of(log, f"m_{one.run_id}") == "0 1 at 9\n\n[Times here that name no zone are in Asia/Tokyo.]"
        steered = next(e for e in log if e["event"].get("value", {}).get("action") == "steered")
        assert steered["event"]["value"]["text"] == "at 9"


async def test_a_steered_prompt_that_a_stop_meets_while_it_is_taken_stays_in_the_transcript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seen to fail before: the prompt had joined the run in the database, and was missing in the run's transcript.
    committed, init = asyncio.Event(), RunSteering.__init__

    class SlowAfterCommit:
        def __init__(self, store: Any) -> None:
            self.store = store

        async def write(self, unit: Any, *, durable: bool, on: str | None = None) -> Any:
            result = await self.store.write(unit, durable=durable, on=on)
            committed.set()
            await asyncio.sleep(0.3)
            return result

    monkeypatch.setattr(
        RunSteering,
        "__init__",
        lambda self, run, *, store, **more: init(self, run, store=SlowAfterCommit(store), **more),
    )
    async with world(tmp_path) as w:
        sid = await w.session()
        one = await w.prompt(sid, "listen")
        await w.streaming(sid, one.run_id)
        await w.prompt(sid, "use logs", mode="steer", command_id="c2")
        w.agent.gate.set()
        await asyncio.wait_for(committed.wait(), 20)
        await w.stop(sid, one.run_id)
        await w.until_end(sid, one.run_id)
        assert ("user", one.run_id, "use logs") in await conversation(w, sid)


async def test_a_steered_prompt_that_comes_too_late_is_a_turn_of_its_own_before_those_that_wait(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        one = await w.prompt(sid, "wait")
        await w.streaming(sid, one.run_id)
        waiting = await w.prompt(sid, "say 1")
        two = await w.prompt(sid, "say 2", mode="steer")
        w.agent.gate.set()
        await w.until_end(sid, waiting.run_id)
        assert [turn.run_id for turn in w.agent.turns] == [one.run_id, two.run_id, waiting.run_id]


async def test_steering_a_run_that_waits_declines_its_questions_and_tells_it_why(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, questions = await w.asking(sid, "ask 2")
        two = await w.prompt(sid, "use the other file", mode="steer")
        log = await w.until(sid, ends(run_id))
        answers = w.agent.turns[1].answers
        assert [answer.id for answer in answers] == questions
        assert {(a.payload["approved"], a.payload["message"]) for a in answers} == {(False, "use the other file")}
        assert kinds(log).count("navi.interrupt:resolved") == 2
        assert text_of(log, f"n_{run_id}") == "done use the other file"
        assert (await w.orchestrator.sessions.run(sid, two.run_id or "", owner=OWNER)).merged_into == run_id
        assert any(told("resolved", questions[0])(e) for e in log)
        await check(w, sid)


# --- attachments


async def test_what_is_attached_to_a_prompt_reaches_the_run_the_log_and_later_turns(tmp_path: Path) -> None:
    plot = Attachment(
        id="a1",
        owner=OWNER,
        name="plot.png",
        media_type="image/png",
        size=10,
        sha256="00",
        created_at=datetime(2026, 11, 23, tzinfo=UTC),
    )
    shown: dict[str, Any] = {"id": "a1", "name": "plot.png", "media_type": "image/png", "size": 10}
    async with world(tmp_path) as w:
        sid = await w.session()
        prompt = Prompt(text="say 1", command_id="c1")
        run = await w.orchestrator.submit(sid, prompt, user_id=OWNER, attachments=[plot])
        log = await w.until(sid, ends(run.run_id))
        assert log[0]["event"]["metadata"] == {"attachments": [shown]}
        assert w.agent.turns[0].attachments == (plot,)
        message = (await w.orchestrator.sessions.messages(sid, owner=OWNER))[0]
        assert message.attachments == (shown,)
        second = await w.prompt(sid, "say 1")
        await w.until_end(sid, second.run_id)
        assert w.agent.turns[1].history[0].attachments == (plot,)
