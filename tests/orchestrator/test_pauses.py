"""Runs that ask: they pause in the database, are answered from anywhere, and go on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.errors import InterruptNotFound, InvalidRequest
from navi_jupyter.events import Custom
from navi_jupyter.model.runs import InterruptStatus
from navi_jupyter.model.sessions import SessionPatch
from tests.support.log_reader import Reader
from tests.support.orchestrator_world import OWNER, World, ends, eventually, kinds, text_of, told, world

APPROVED = {"approved": True, "args": None, "always": None, "message": None}
CALL = ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"]
SAID = ["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"]


async def row(w: World, run_id: str) -> dict[str, Any]:
    (found,) = await w.store.fetch_all("SELECT * FROM runs WHERE id = ?", (run_id,))
    return dict(found)


async def check(w: World, sid: str) -> None:
    """The log is one that an AG-UI reader takes, and nothing is left open in it."""
    reader = Reader()
    for envelope in await w.log(sid):
        reader.take(envelope)
    assert not reader.open


# --- pause and resume


async def test_a_run_that_asks_pauses_with_its_questions_and_goes_on_once_they_are_answered(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, (question,) = await w.asking(sid)
        assert await w.status(sid, run_id) == "waiting"
        paused = await row(w, run_id)
        assert (paused["server_id"], paused["lease_until"], paused["conversation"]) == (None, None, b"paused")
        (open_,) = (await w.view(sid)).approvals
        assert (open_.id, open_.tool, open_.args, open_.durable) == (question, "run_code", {"code": "1"}, True)
        assert open_.expires_at is not None
        assert (open_.expires_at - open_.created_at).total_seconds() == 3600
        assert w.ended == []
        answered = await w.answer(sid, question)
        assert answered.run_id == run_id
        log = await w.until(sid, ends(run_id))
        assert kinds(log) == [
            *SAID,
            "RUN_STARTED",
            *SAID,
            *CALL,
            "navi.interrupt:opened",
            "RUN_FINISHED",
            "navi.interrupt:resolved",
            "RUN_STARTED",
            "TOOL_CALL_RESULT",
            *SAID,
            "RUN_FINISHED",
        ]
        assert {e["run_id"] for e in log} == {run_id}
        first, second = w.agent.turns
        assert (first.resumed, first.answers) == (None, ())
        assert second.resumed == b"paused"
        (given,) = second.answers
        assert (given.id, given.status, given.payload) == (question, InterruptStatus.RESOLVED, APPROVED)
        assert given.answered_by == OWNER
        assert (await w.view(sid)).approvals == []
        await eventually(lambda: bool(w.ended))
        assert [run.id for run in w.ended] == [run_id], "the end is told once, the pause is none"
        run = w.ended[0]
        assert (run.usage.input_tokens, run.usage.requests, run.usage.cost) == (7, 2, 0.75)
        assert run.started_at is not None
        await check(w, sid)


async def test_every_question_of_a_pause_must_be_answered_before_the_run_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, questions = await w.asking(sid, "ask 3")
        await w.answer(sid, questions[1], payload={"approved": False, "message": "no"})
        await w.answer(sid, questions[0], status="cancelled")
        assert await w.status(sid, run_id) == "waiting"
        await w.answer(sid, questions[2], payload={"approved": True, "args": {"code": "2"}})
        await w.until_end(sid, run_id)
        answers = w.agent.turns[1].answers
        assert [answer.id for answer in answers] == questions
        assert [answer.status.value for answer in answers] == ["cancelled", "resolved", "resolved"]
        assert answers[2].payload["args"] == {"code": "2"}
        await check(w, sid)


async def test_a_run_can_pause_again_and_is_given_the_answers_of_its_last_pause(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, (one,) = await w.asking(sid, "twice")
        await w.answer(sid, one, payload="a")
        await w.until(sid, lambda e: told("opened")(e) and e["event"]["value"]["interrupt"]["id"] != one)
        (two,) = (await w.view(sid)).approvals
        await w.answer(sid, two.id, payload="b")
        await w.until_end(sid, run_id)
        assert w.agent.asked == [[], ["a"], ["b"]]


async def test_the_first_answer_counts_and_its_repetition_gets_the_same_acceptance(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, (question, other) = await w.asking(sid, "ask 2")
        first = await w.answer(sid, question, command_id="a1")
        assert await w.answer(sid, question, command_id="a1") == first
        with pytest.raises(InterruptNotFound):
            await w.answer(sid, question, command_id="a2", status="cancelled")
        await w.answer(sid, other)
        await w.until_end(sid, run_id)
        assert await w.answer(sid, question, command_id="a1") == first
        assert kinds(await w.log(sid)).count("navi.interrupt:resolved") == 2


async def test_of_twenty_answers_at_once_exactly_one_is_taken(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, (question,) = await w.asking(sid)
        tried = [w.answer(sid, question, payload={"approved": bool(n % 2)}) for n in range(20)]
        outcomes = await asyncio.gather(*tried, return_exceptions=True)
        assert sum(isinstance(outcome, InterruptNotFound) for outcome in outcomes) == 19
        await w.until_end(sid, run_id)
        assert len(w.agent.turns) == 2


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"approved": "yes"}, "payload.approved"),
        ({}, "payload.approved"),
        ({"approved": True, "always": "forever"}, "payload.always"),
        ({"approved": True, "extra": 1}, "payload.extra"),
        ("yes", "payload"),
    ],
)
async def test_an_answer_to_an_approval_that_is_none_is_refused_and_the_question_stays_open(
    tmp_path: Path, payload: Any, field: str
) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        _, (question,) = await w.asking(sid)
        with pytest.raises(InvalidRequest) as refused:
            await w.answer(sid, question, payload=payload)
        assert refused.value.field == field
        assert [one.id for one in (await w.view(sid)).approvals] == [question]


async def test_an_answer_must_fit_the_schema_of_its_question(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, (question,) = await w.asking(sid, "twice")
        with pytest.raises(InvalidRequest) as refused:
            await w.answer(sid, question, payload=3)
        assert "'string'" in refused.value.message
        await w.answer(sid, question, payload="three")
        assert await w.status(sid, run_id) in ("running", "waiting")


async def test_always_allows_the_tool_in_this_session_and_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, (question,) = await w.asking(sid)
        await w.answer(sid, question, payload={"approved": True, "always": "session"})
        await w.until_end(sid, run_id)
        assert (await w.view(sid)).session.allowed_tools == ("run_code",)
        assert w.agent.turns[1].session.allowed_tools == ("run_code",)
        changed = next(e for e in await w.log(sid) if e["event"].get("name") == "navi.session")
        assert changed["event"]["value"]["changed"] == ["allowed_tools"]
        patched = await w.orchestrator.sessions.change(
            sid, SessionPatch(allowed_tools=(), context={"memory": False}), owner=OWNER
        )
        assert (patched.allowed_tools, patched.context) == ((), {"memory": False})


async def test_always_answers_the_other_open_questions_about_that_tool_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, questions = await w.asking(sid, "ask 3")
        await w.answer(sid, questions[1], payload={"approved": True, "always": "session"})
        await w.until_end(sid, run_id)
        answers = w.agent.turns[1].answers
        assert [answer.status for answer in answers] == [InterruptStatus.RESOLVED] * 3
        assert all(answer.payload["approved"] for answer in answers)
        await check(w, sid)


async def test_always_on_what_a_call_asks_in_its_own_words_is_for_this_call_only(tmp_path: Path) -> None:
    """Else leave for one recall would give the leave that another one asks for."""
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, questions = await w.asking(sid, "ask 2 60 May-it?")
        await w.answer(sid, questions[0], payload={"approved": True, "always": "session"})
        view = await w.view(sid)
        assert [one.id for one in view.approvals] == [questions[1]]
        await w.answer(sid, questions[1], payload={"approved": False})
        await w.until_end(sid, run_id)
        assert (await w.view(sid)).session.allowed_tools == ()


async def test_a_refusal_with_always_allows_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, (question,) = await w.asking(sid)
        await w.answer(sid, question, payload={"approved": False, "always": "session"})
        await w.until_end(sid, run_id)
        assert (await w.view(sid)).session.allowed_tools == ()


async def test_a_question_that_nobody_answers_expires_and_the_run_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path, approval_timeout=0.3) as w:
        sid = await w.session()
        run_id, (question,) = await w.asking(sid)
        log = await w.until(sid, ends(run_id))
        assert "navi.interrupt:expired" in kinds(log)
        assert w.agent.turns[1].answers[0].status is InterruptStatus.EXPIRED
        with pytest.raises(InterruptNotFound):
            await w.answer(sid, question)
        await check(w, sid)


async def test_an_answer_after_the_time_is_refused_although_nobody_has_looked_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navi_jupyter.orchestrator.upkeep.maintenance.QUESTIONS_EVERY", 3600.0)
    async with world(tmp_path) as w:
        sid = await w.session()
        _, (question,) = await w.asking(sid, "ask 1 0.01")
        await asyncio.sleep(0.02)  # past its time
        with pytest.raises(InterruptNotFound):
            await w.answer(sid, question)


async def test_a_waiting_run_holds_no_place_and_its_session_leaves_memory(tmp_path: Path) -> None:
    async with world(tmp_path, max_concurrent_runs=1, idle_after=0.02) as w:
        sid, other = await w.session(), await w.session()
        run_id, (question,) = await w.asking(sid)
        done = await w.prompt(other, "say 1")
        await w.until_end(other, done.run_id)
        await eventually(lambda: not w.orchestrator.stats().sessions)
        assert await w.status(sid, run_id) == "waiting"
        await w.answer(sid, question)
        await w.until_end(sid, run_id)


async def test_an_answered_run_waits_for_a_free_place_like_any_other(tmp_path: Path) -> None:
    async with world(tmp_path, max_concurrent_runs=1) as w:
        sid, other = await w.session(), await w.session()
        run_id, (question,) = await w.asking(sid)
        busy = await w.prompt(other, "wait")
        await w.streaming(other, busy.run_id)
        await w.answer(sid, question)
        assert await w.status(sid, run_id) == "waiting"
        w.agent.gate.set()
        await w.until_end(sid, run_id)
        assert w.agent.most == 1


async def test_a_run_waits_through_a_restart_and_goes_on_when_it_is_answered_afterwards(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, (question,) = await w.asking(sid)
        behind = await w.prompt(sid, "say 1")
    async with world(tmp_path) as w:
        assert await w.status(sid, run_id) == "waiting"
        assert [one.id for one in (await w.view(sid)).approvals] == [question]
        await w.answer(sid, question)
        await w.until_end(sid, run_id)
        await w.until_end(sid, behind.run_id)
        assert [turn.resumed for turn in w.agent.turns] == [b"paused", None]
        assert [turn.run_id for turn in w.agent.turns] == [run_id, behind.run_id]
        await check(w, sid)


async def test_a_run_that_was_answered_just_before_the_server_ended_goes_on_at_the_next_start(tmp_path: Path) -> None:
    async with world(tmp_path, max_concurrent_runs=1) as w:
        sid, other = await w.session(), await w.session()
        run_id, (question,) = await w.asking(sid)
        busy = await w.prompt(other, "wait")
        await w.streaming(other, busy.run_id)
        await w.answer(sid, question)
    async with world(tmp_path) as w:
        await w.until_end(sid, run_id)
        assert w.agent.turns[0].resumed == b"paused"


async def test_a_server_that_stops_while_a_run_pauses_leaves_it_waiting(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, _ = await w.asking(sid)
    async with world(tmp_path) as w:
        assert await w.status(sid, run_id) == "waiting"
        log = await w.log(sid)
        assert [k for k in kinds(log) if k.startswith("RUN_")] == ["RUN_STARTED", "RUN_FINISHED"]


# --- ending a run that waits


async def test_stopping_a_waiting_run_ends_it_at_once_and_withdraws_its_questions(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, (question,) = await w.asking(sid)
        behind = await w.prompt(sid, "say 1")
        await w.stop(sid)
        assert await w.status(sid, run_id) == "stopped"
        log = await w.until(sid, ends(behind.run_id))
        mine = [e for e in log if e["run_id"] == run_id]
        last = kinds(mine)[-5:]
        assert last == [
            "navi.stop:requested",
            "navi.stop:acknowledged",
            "navi.interrupt:cancelled",
            "RUN_STARTED",
            "RUN_FINISHED",
        ]
        assert mine[-1]["event"]["outcome"] == {"type": "cancelled"}
        assert mine[-1]["event"]["usage"][0]["outputTokens"] == 5, "what it had used up is not forgotten"
        assert w.ended[0].id == run_id
        with pytest.raises(InterruptNotFound):
            await w.answer(sid, question)
        await check(w, sid)


@pytest.mark.parametrize("forever", [False, True])
async def test_deleting_a_session_takes_its_questions_along(tmp_path: Path, forever: bool) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, _ = await w.asking(sid)
        await w.orchestrator.delete_session(sid, owner=OWNER, forever=forever)
        rows = await w.store.fetch_all("SELECT status FROM interrupts")
        assert {row["status"] for row in rows} == (set() if forever else {"cancelled"}), (
            "it may come back, without them"
        )
        run = await w.store.run(run_id)
        assert (run is None) if forever else (run is not None and run.status.value == "stopped")
        other = await w.session()
        done = await w.prompt(other, "say 1")
        await w.until_end(other, done.run_id)


async def test_a_stop_that_came_through_another_server_while_the_run_was_about_to_pause_ends_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        flushed = w.orchestrator._event_writer.flushed

        async def stop_first(session_id: str) -> None:
            await flushed(session_id)
            run = await w.store.fetch_one("SELECT id FROM runs")
            assert run is not None
            await w.store.write(lambda tx: tx.request_stop(run["id"], "elsewhere"))

        w.orchestrator._event_writer.flushed = stop_first  # type: ignore[method-assign]
        run = await w.prompt(sid, "ask")
        last = await w.until_end(sid, run.run_id)
        assert last["event"]["outcome"] == {"type": "cancelled"}
        assert (await w.view(sid)).approvals == []


# --- what a joiner is told


async def test_a_joiner_is_told_of_the_pause_and_its_open_questions(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run_id, questions = await w.asking(sid, "ask 2")
        await w.answer(sid, questions[0])
        told_now = await _prelude(w, sid)
        assert kinds(told_now) == [
            "MESSAGES_SNAPSHOT",
            "RUN_STARTED",
            *SAID,
            *CALL,
            *CALL,
            "navi.interrupt:opened",
            "RUN_FINISHED",
        ]
        assert told_now[-2]["event"]["value"]["interrupt"]["id"] == questions[1]
        assert all(e["snapshot"] for e in told_now)
        joiner, whole = Reader(), Reader()
        for envelope in told_now:
            joiner.take(envelope)
        await w.answer(sid, questions[1])
        head = told_now[-1]["seq"]
        log = await w.until(sid, ends(run_id))
        for envelope in log:
            whole.take(envelope)
            if envelope["seq"] > head:
                joiner.take(envelope)
        assert joiner.conversation() == whole.conversation()


async def test_a_joiner_is_told_what_goes_on_beside_the_messages(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "busy")
        await w.until(sid, lambda e: e["event"].get("name") == "navi.usage")
        (shown,) = [e["event"] for e in await _prelude(w, sid) if e["event"]["type"] == "ACTIVITY_SNAPSHOT"]
        assert shown["content"] == {"list": [0, 1, 2]}
        w.agent.gate.set()
        await w.until_end(sid, run.run_id)


async def _prelude(w: World, sid: str) -> list[dict[str, Any]]:
    async for page in w.orchestrator.follow(sid, after=None, owner=OWNER):
        return [json.loads(frame) for _, frame in page.envelopes]
    raise AssertionError


# --- questions that wait in memory


async def test_a_question_from_within_a_run_is_answered_without_a_pause(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "inner")
        opened = (await w.until(sid, told("opened")))[-1]["event"]["value"]["interrupt"]
        assert opened["durable"] is False
        assert await w.status(sid, run.run_id) == "running"
        with pytest.raises(InvalidRequest):
            await w.answer(sid, opened["id"], payload={"n": "many"})
        await w.answer(sid, opened["id"], payload={"n": 3})
        log = await w.until(sid, ends(run.run_id))
        assert text_of(log, f"m_{run.run_id}") == '0 1 resolved {"n": 3}'
        assert kinds(log).count("RUN_STARTED") == 1
        positions = [kinds(log).index(k) for k in ("TEXT_MESSAGE_CONTENT", "navi.interrupt:opened")]
        assert positions == sorted(positions)
        await check(w, sid)


async def test_a_question_from_within_a_run_expires_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "inner 0.05")
        log = await w.until(sid, ends(run.run_id))
        assert text_of(log, f"m_{run.run_id}") == "0 1 expired null"
        assert (await w.view(sid)).approvals == []


async def test_a_stop_withdraws_what_the_run_asks_within(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "inner")
        opened = (await w.until(sid, told("opened")))[-1]["event"]["value"]["interrupt"]
        await w.stop(sid)
        log = await w.until(sid, ends(run.run_id))
        assert kinds(log).count("navi.interrupt:cancelled") == 1
        with pytest.raises(InterruptNotFound):
            await w.answer(sid, opened["id"], payload={"n": 3})
        await check(w, sid)


async def test_the_time_in_which_the_user_is_asked_does_not_count_as_the_runs(tmp_path: Path) -> None:
    async with world(tmp_path, run_timeout=0.4, stop_deadline=0.05) as w:
        sid = await w.session()
        run = await w.prompt(sid, "inner")
        opened = (await w.until(sid, told("opened")))[-1]["event"]["value"]["interrupt"]
        await asyncio.sleep(0.8)  # longer than a run may take
        assert await w.status(sid, run.run_id) == "running"
        await w.answer(sid, opened["id"], payload={"n": 3})
        last = await w.until_end(sid, run.run_id)
        assert last["event"]["type"] == "RUN_FINISHED"


async def test_a_server_that_stops_withdraws_what_was_asked_within_its_runs(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "inner")
        await w.until(sid, told("opened"))
    async with world(tmp_path) as w:
        assert await w.status(sid, run.run_id) == "interrupted"
        assert (await w.view(sid)).approvals == []
        assert "navi.interrupt:cancelled" in kinds(await w.log(sid))


# --- what a run says besides


async def test_what_a_tool_says_while_it_is_stopped_is_in_the_log_before_the_runs_end(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "busy")
        await w.until(sid, lambda e: e["event"].get("name") == "navi.usage")
        await w.stop(sid)
        log = await w.until(sid, ends(run.run_id))
        order = [k for k in kinds(log) if k.startswith(("navi.stop", "RUN_F"))]
        assert order == ["navi.stop:requested", "navi.stop:acknowledged", "navi.stop:reached", "RUN_FINISHED"]
        assert log[-1]["event"]["usage"][0]["outputTokens"] == 4
        await eventually(lambda: bool(w.ended))
        (ended,) = w.ended
        assert (ended.usage.input_tokens, ended.usage.cost) == (3, 0.25)
        view = await w.view(sid)
        assert view.usage.cost == 0.25
        late = Custom(name="navi.stop", value={"action": "reached", "run_id": run.run_id})
        w.agent.contexts[run.run_id or ""].emit(late)  # it is over: this goes nowhere
        assert len(await w.log(sid)) == len(log)


async def test_what_was_used_up_is_summed_by_session_and_by_user(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid, other = await w.session(), await w.session()
        start = (await w.view(sid)).session.created_at
        for where in (sid, sid, other):
            done = await w.prompt(where, "say 1")
            await w.until_end(where, done.run_id)
        run_id, (question,) = await w.asking(other)
        assert (await w.view(sid)).usage.requests == 2
        assert (await w.view(other)).usage.requests == 2, "what a waiting run has used up counts"
        everything = await w.orchestrator.sessions.usage_of(OWNER, since=start)
        assert (everything.input_tokens, everything.output_tokens, everything.cost) == (8, 11, 0.5)
        assert (await w.orchestrator.sessions.usage_of("eve", since=start)).requests == 0
        await w.answer(other, question)
        await w.until_end(other, run_id)
        assert (await w.view(other)).usage.cost == 0.75


async def test_followers_of_all_sessions_can_be_told_something_and_others_are_not(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        followed, other = await w.session(), await w.session()
        seen = asyncio.create_task(w.until(followed, lambda e: e["event"].get("name") == "navi.mcp"))
        await eventually(lambda: w.orchestrator.log.followers == 1)
        await w.orchestrator.emit_to_followers(Custom(name="navi.mcp", value={"server": "x", "status": "ready"}))
        assert (await seen)[-1]["run_id"] is None
        assert await w.log(other) == []


# --- options of an agent program


ALL_KINDS = "allow_once allow_always reject_once reject_always"


@pytest.mark.parametrize(
    ("kinds", "answer", "chosen"),
    [
        (ALL_KINDS, {"option": "o-allow_always"}, (True, "o-allow_always")),
        (ALL_KINDS, {"option": "o-reject_always"}, (False, "o-reject_always")),
        (ALL_KINDS, {}, (True, "o-allow_once")),
        (ALL_KINDS, {"payload": {"approved": True, "always": "session"}}, (True, "o-allow_always")),
        (ALL_KINDS, {"payload": {"approved": False, "message": "not now"}}, (False, "o-reject_once")),
        ("allow_always", {"payload": {"approved": True}}, (True, "o-allow_always")),
        ("allow_once", {"payload": {"approved": False}}, (False, None)),
    ],
)
async def test_the_answer_to_an_agent_program_chooses_one_of_its_options(
    tmp_path: Path, kinds: str, answer: dict[str, Any], chosen: tuple[bool, str | None]
) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        accepted = await w.prompt(sid, f"permission {kinds}")
        log = await w.until(sid, lambda e: e["event"].get("name") == "navi.interrupt")
        asked = log[-1]["event"]["value"]["interrupt"]
        assert [option["kind"] for option in asked["options"]] == kinds.split()
        (stored,) = (await w.view(sid)).approvals
        assert stored.wire() == asked
        for wrong in ({"option": "other"}, {"payload": {"approved": True, "args": {}}}):
            with pytest.raises(InvalidRequest, match=r"option|payload\.args"):
                await w.answer(sid, asked["id"], **wrong)
        await w.answer(sid, asked["id"], **answer)
        await w.until(sid, ends(accepted.run_id or ""))
        assert (await w.view(sid)).session.allowed_tools == (), "the rule is the program's own"
        (settled,) = await w.store.session_interrupts(sid)
        assert (settled.payload["approved"], settled.payload.get("option")) == chosen


async def test_an_answer_that_contradicts_its_option_is_refused_and_one_without_options_takes_none(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        _, (question,) = await w.asking(sid)
        with pytest.raises(InvalidRequest, match="offers no options"):
            await w.answer(sid, question, option="o-allow_once")
        with pytest.raises(InvalidRequest, match="offers no options"):
            await w.answer(sid, question, payload={"approved": True, "option": "x"})
        sid = await w.session()
        await w.prompt(sid, f"permission {ALL_KINDS}")
        await w.until(sid, lambda e: e["event"].get("name") == "navi.interrupt")
        (asked,) = (await w.view(sid)).approvals
        with pytest.raises(InvalidRequest, match="means this answer"):
            await w.answer(sid, asked.id, option="o-reject_once", payload={"approved": True})
        with pytest.raises(InvalidRequest, match="names another one"):
            await w.answer(sid, asked.id, option="o-allow_once", payload={"approved": True, "option": "o-allow_always"})
        await w.prompt(sid, "say 1", mode="steer")
        await w.answer(sid, asked.id)
