"""Commands and runs: what each one does, and what the log tells about it."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from datetime import timedelta
from pathlib import Path

import pytest

from navi_jupyter.commands import Answer, Prompt
from navi_jupyter.errors import (
    CommandNotFound,
    InterruptNotFound,
    LimitReached,
    NotReady,
    SessionBusy,
    SessionNotFound,
    StoreError,
)
from navi_jupyter.model.sessions import SessionPatch
from navi_jupyter.orchestrator.active_run import ActiveRun
from navi_jupyter.orchestrator.command_handler import CommandHandler
from navi_jupyter.ports.agent import Turn
from tests.support.orchestrator_world import OWNER, ends, eventually, kinds, text_of, world

SAID = ["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"]


async def test_a_prompt_is_in_the_log_as_the_users_message_then_its_run_from_start_to_end(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        accepted = await w.prompt(sid, "say 3", command_id="c1", display="Say three")
        log = await w.until(sid, ends(accepted.run_id))
        assert kinds(log) == [*SAID, "RUN_STARTED", *SAID, "RUN_FINISHED"]
        assert [e["seq"] for e in log] == list(range(1, len(log) + 1))
        assert accepted.seq == 3
        assert log[0]["event"] == {"type": "TEXT_MESSAGE_START", "messageId": "c1", "role": "user"}
        assert text_of(log, "c1") == "Say three"
        assert text_of(log, f"m_{accepted.run_id}") == "0 1 2 "
        assert log[-1]["event"]["outcome"] == {"type": "success"}
        assert log[-1]["event"]["usage"][0]["outputTokens"] == 2
        assert {e["run_id"] for e in log} == {accepted.run_id}
        assert w.agent.turns[0].prompt == "say 3"
        assert await w.status(sid, accepted.run_id) == "completed"


async def test_a_prompt_to_a_busy_session_waits_and_is_run_afterwards(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        first = await w.prompt(sid, "wait")
        await w.streaming(sid, first.run_id)
        second = await w.prompt(sid, "say 1", command_id="c2")
        assert await w.status(sid, second.run_id) == "queued"
        w.agent.gate.set()
        log = await w.until(sid, ends(second.run_id))
        of_second = [e for e in log if e["run_id"] == second.run_id]
        queue = ["navi.queue:queued", "navi.queue:started"]
        assert kinds(of_second) == [*SAID, *queue, "RUN_STARTED", *SAID, "RUN_FINISHED"]
        first_end = next(i for i, e in enumerate(log) if ends(first.run_id)(e))
        assert log.index(of_second[4]) > first_end
        assert [turn.run_id for turn in w.agent.turns[1].history] == [first.run_id]
        assert w.agent.turns[1].history[0].conversation == b"{}"


async def test_a_prompt_in_mode_reject_to_a_busy_session_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        first = await w.prompt(sid, "wait")
        await w.streaming(sid, first.run_id)
        before = await w.log(sid)
        with pytest.raises(SessionBusy):
            await w.prompt(sid, "say 1", mode="reject", command_id="no")
        assert await w.log(sid) == before
        w.agent.gate.set()
        await w.until_end(sid, first.run_id)
        again = await w.prompt(sid, "say 1", mode="reject", command_id="no")
        await w.until_end(sid, again.run_id)


async def test_a_prompt_in_mode_interrupt_ends_the_run_and_goes_before_those_that_wait(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        first = await w.prompt(sid, "wait")
        await w.streaming(sid, first.run_id)
        waiting = await w.prompt(sid, "say 1")
        urgent = await w.prompt(sid, "say 2", mode="interrupt")
        log = await w.until(sid, ends(waiting.run_id))
        started = [e["run_id"] for e in log if e["event"]["type"] == "RUN_STARTED"]
        assert started == [first.run_id, urgent.run_id, waiting.run_id]
        assert next(e for e in log if ends(first.run_id)(e))["event"]["outcome"] == {"type": "cancelled"}
        partial = next(
            m for m in await w.orchestrator.sessions.messages(sid, owner=OWNER) if m.id == f"m_{first.run_id}"
        )
        assert (partial.content, partial.partial) == ("0 1 ", True)


async def test_a_command_sent_twenty_times_at_once_happens_once_and_all_get_the_same_answer(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        answers = await asyncio.gather(*(w.prompt(sid, "say 2", command_id="same") for _ in range(20)))
        assert len(set(answers)) == 1
        await w.until_end(sid, answers[0].run_id)
        assert await w.prompt(sid, "say 2", command_id="same") == answers[0]
        assert len(w.agent.turns) == 1
        assert kinds(await w.log(sid)).count("RUN_STARTED") == 1


async def test_stop_is_acknowledged_within_a_tenth_of_a_second_and_ends_the_run_within_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "say 1000000")
        await w.until(sid, lambda e: e["event"].get("messageId") == f"m_{run.run_id}" and "delta" in e["event"])
        began = time.perf_counter()
        stopped = await w.stop(sid)
        acknowledged = time.perf_counter() - began
        last = await w.until_end(sid, run.run_id)
        ended = time.perf_counter() - began
        assert (acknowledged < 0.1, ended < 1.0) == (True, True), (acknowledged, ended)
        assert stopped.run_id == run.run_id
        assert last["event"]["outcome"] == {"type": "cancelled"}
        log = await w.log(sid)
        assert [k for k in kinds(log) if k.startswith("navi.stop")] == ["navi.stop:requested", "navi.stop:acknowledged"]
        said = text_of(log, f"m_{run.run_id}")
        assert said.startswith("0 1 ")
        message = (await w.orchestrator.sessions.messages(sid, owner=OWNER))[-1]
        assert (message.content, message.partial) == (said, True)
        assert w.agent.cleaned == [run.run_id]
        following = await w.prompt(sid, "say 1")
        assert (await w.until_end(sid, following.run_id))["event"]["type"] == "RUN_FINISHED"
        assert await w.status(sid, run.run_id) == "stopped"


async def test_stop_of_a_run_that_does_not_let_go_is_forced_at_the_deadline(tmp_path: Path) -> None:
    async with world(tmp_path, stop_deadline=0.2) as w:
        sid = await w.session()
        run = await w.prompt(sid, "stubborn")
        await w.streaming(sid, run.run_id)
        await w.stop(sid)
        await w.until_end(sid, run.run_id)
        following = await w.prompt(sid, "say 1")
        await w.until_end(sid, following.run_id)
        w.agent.gate.set()  # it wakes up, and nobody listens
        await eventually(lambda: not w.agent.running)
        log = await w.log(sid)
        assert "navi.stop:forced" in kinds(log)
        assert text_of(log, f"m_{run.run_id}") == "0 1 "
        assert await w.status(sid, run.run_id) == "stopped"


async def test_stop_without_a_run_is_accepted_and_has_no_effect(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        assert (await w.stop(sid)).run_id is None
        assert (await w.stop(sid, "r_unknown")).run_id is None
        run = await w.prompt(sid, "say 1")
        assert (await w.until_end(sid, run.run_id))["event"]["type"] == "RUN_FINISHED"


async def test_stop_of_a_waiting_run_withdraws_its_prompt(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        first = await w.prompt(sid, "wait")
        second = await w.prompt(sid, "say 1")
        await w.stop(sid, second.run_id)
        assert await w.status(sid, second.run_id) == "stopped"
        w.agent.gate.set()
        await w.until_end(sid, first.run_id)
        assert [turn.run_id for turn in w.agent.turns] == [first.run_id]
        assert w.ended[0].id == second.run_id


async def test_a_withdrawn_prompt_is_not_run_and_no_part_of_the_conversation(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        first = await w.prompt(sid, "wait")
        await w.prompt(sid, "say 1", command_id="c2")
        third = await w.prompt(sid, "say 1", command_id="c3")
        await w.unqueue(sid, "c2")
        with pytest.raises(CommandNotFound):
            await w.unqueue(sid, "c2")
        w.agent.gate.set()
        await w.until_end(sid, third.run_id)
        with pytest.raises(CommandNotFound):
            await w.unqueue(sid, "c3")
        assert [turn.run_id for turn in w.agent.turns] == [first.run_id, third.run_id]
        assert "c2" not in [m.id for m in await w.orchestrator.sessions.messages(sid, owner=OWNER)]


async def test_an_answer_to_no_question_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        with pytest.raises(InterruptNotFound):
            await w.orchestrator.submit(sid, Answer(interrupt_id="i1", status="resolved"), user_id=OWNER)


async def test_too_many_waiting_prompts_are_refused(tmp_path: Path) -> None:
    async with world(tmp_path, max_queued_prompts=2) as w:
        sid = await w.session()
        first = await w.prompt(sid, "wait")
        for _ in range(2):
            last = await w.prompt(sid, "say 1")
        with pytest.raises(LimitReached):
            await w.prompt(sid, "say 1")
        w.agent.gate.set()
        await w.until_end(sid, last.run_id)
        assert await w.status(sid, first.run_id) == "completed"


async def test_somebody_elses_session_is_not_found_by_any_door(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        o = w.orchestrator
        for attempt in (
            o.submit(sid, Prompt(text="say 1"), user_id="eve"),
            o.sessions.view(sid, owner="eve"),
            o.sessions.messages(sid, owner="eve"),
            o.sessions.runs(sid, owner="eve", limit=5),
            o.page(sid, owner="eve", after=0, limit=5),
            o.delete_session(sid, owner="eve"),
            o.sessions.change(sid, SessionPatch(title="mine"), owner="eve"),
            anext(o.follow(sid, after=0, owner="eve")),
        ):
            with pytest.raises(SessionNotFound):
                await attempt


# --- how runs end


@pytest.mark.parametrize(
    ("prompt", "code", "status"),
    [
        ("fail", "model_unavailable", "failed"),
        ("crash", "internal_error", "failed"),
        ("limit", "max_iterations", "failed"),
        ("nothing", "internal_error", "failed"),
        ("orphan", "internal_error", "failed"),
        ("unknown", "internal_error", "failed"),
    ],
)
async def test_a_run_that_fails_says_so_in_the_log_and_the_session_goes_on(
    tmp_path: Path, prompt: str, code: str, status: str
) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, prompt)
        last = await w.until_end(sid, run.run_id)
        assert (last["event"]["type"], last["event"]["code"]) == ("RUN_ERROR", code)
        assert "Traceback" not in last["event"]["message"]
        assert "secret" not in last["event"]["message"]
        assert await w.status(sid, run.run_id) == status
        log = await w.log(sid)
        assert kinds(log).count("TEXT_MESSAGE_START") == kinds(log).count("TEXT_MESSAGE_END")
        following = await w.prompt(sid, "say 1")
        assert (await w.until_end(sid, following.run_id))["event"]["type"] == "RUN_FINISHED"


async def test_a_run_past_its_timeout_ends_timed_out(tmp_path: Path) -> None:
    async with world(tmp_path, run_timeout=0.1) as w:
        sid = await w.session()
        run = await w.prompt(sid, "wait")
        last = await w.until_end(sid, run.run_id)
        assert last["event"]["code"] == "timed_out"
        assert await w.status(sid, run.run_id) == "timed_out"


async def test_a_run_that_ignores_its_timeout_is_given_up_after_the_stop_deadline(tmp_path: Path) -> None:
    async with world(tmp_path, run_timeout=0.1, stop_deadline=0.1) as w:
        sid = await w.session()
        run = await w.prompt(sid, "stubborn")
        last = await w.until_end(sid, run.run_id)
        assert last["event"]["code"] == "timed_out"
        following = await w.prompt(sid, "say 1")
        await w.until_end(sid, following.run_id)


async def test_a_run_whose_launch_fails_is_ended_and_gives_its_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, max_concurrent_runs=1) as w:
        sid = await w.session()

        async def broken(session_id: str) -> None:
            raise RuntimeError("secret")

        with monkeypatch.context() as patch:
            patch.setattr(w.store, "past_turns", broken)
            run = await w.prompt(sid, "say 1")
            last = await w.until_end(sid, run.run_id)
        assert last["event"]["code"] == "internal_error"
        assert "secret" not in last["event"]["message"]
        following = await w.prompt(sid, "say 1")
        assert (await w.until_end(sid, following.run_id))["event"]["type"] == "RUN_FINISHED"


@pytest.mark.parametrize("prompt", ["say 3", "wait"])
async def test_what_a_run_had_is_freed_when_it_has_ended_and_not_by_a_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    had: list[weakref.ref[object]] = []
    begin = ActiveRun.begin

    def noted(run: ActiveRun, turn: Turn) -> None:
        begin(run, turn)
        had.extend((weakref.ref(run), weakref.ref(run.task)))

    monkeypatch.setattr(ActiveRun, "begin", noted)
    gc.collect()
    gc.disable()
    try:
        async with world(tmp_path) as w:
            sid = await w.session()
            run = await w.prompt(sid, prompt)
            if prompt == "wait":
                await w.streaming(sid, run.run_id)
                await w.stop(sid)
            await w.until_end(sid, run.run_id)
            await eventually(lambda: len(had) == 2 and not any(one() for one in had))
    finally:
        gc.enable()


async def test_the_end_of_a_run_is_written_as_soon_as_the_database_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "wait")
        await w.streaming(sid, run.run_id)
        write, refused = w.store.write, asyncio.Event()

        async def full(unit: object, *, durable: bool = False) -> None:
            refused.set()
            raise StoreError("The disk is full.")

        monkeypatch.setattr(w.store, "write", full)
        w.agent.gate.set()
        await refused.wait()
        monkeypatch.setattr(w.store, "write", write)
        assert (await w.until_end(sid, run.run_id))["event"]["type"] == "RUN_FINISHED"
        assert kinds(await w.log(sid)) == [*SAID, "RUN_STARTED", *SAID, "RUN_FINISHED"]


# --- many sessions


async def test_no_more_runs_than_allowed_are_in_progress(tmp_path: Path) -> None:
    async with world(tmp_path, max_concurrent_runs=2) as w:
        sessions = [await w.session() for _ in range(8)]
        runs = [(sid, await w.prompt(sid, "wait")) for sid in sessions for _ in range(2)]
        await eventually(lambda: w.agent.running == 2)
        assert w.orchestrator.stats().runs == 2
        w.agent.gate.set()
        for sid, run in runs:
            await w.until_end(sid, run.run_id)
        assert w.agent.most == 2
        assert len(w.agent.turns) == 16


async def test_a_prompt_that_the_database_did_not_let_start_is_started_as_soon_as_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        first = await w.prompt(sid, "wait")
        await w.streaming(sid, first.run_id)
        second = await w.prompt(sid, "say 1")
        refused = asyncio.Event()

        async def locked(self: CommandHandler, tx: object) -> None:
            refused.set()
            raise StoreError("The database was locked.")

        with monkeypatch.context() as patch:
            patch.setattr(CommandHandler, "begin_next", locked)
            w.agent.gate.set()
            await refused.wait()
        await w.until_end(sid, second.run_id)
        assert [turn.run_id for turn in w.agent.turns] == [first.run_id, second.run_id]


async def test_sessions_that_wait_for_a_place_get_it_in_their_order(tmp_path: Path) -> None:
    async with world(tmp_path, max_concurrent_runs=1) as w:
        sessions = [await w.session() for _ in range(6)]
        first = await w.prompt(sessions[0], "wait")
        await w.streaming(sessions[0], first.run_id)
        # The first session wants more at once, and has to wait for everybody else's turn.
        again = await w.prompt(sessions[0], "say 1")
        others = [await w.prompt(sid, "say 1") for sid in sessions[1:]]
        w.agent.gate.set()
        late = await w.prompt(await w.session(), "say 1")
        await w.until_end(sessions[0], again.run_id)
        ran = [turn.run_id for turn in w.agent.turns if turn.run_id != late.run_id]
        assert ran == [first.run_id, *(run.run_id for run in others), again.run_id]


async def test_a_place_that_was_kept_for_a_deleted_session_is_the_next_ones(tmp_path: Path) -> None:
    async with world(tmp_path, max_concurrent_runs=1) as w:
        one, two, three = [await w.session() for _ in range(3)]
        first = await w.prompt(one, "wait")
        await w.streaming(one, first.run_id)
        await w.prompt(two, "say 1")
        third = await w.prompt(three, "say 1")
        await w.orchestrator.delete_session(two, owner=OWNER)
        w.agent.gate.set()
        await w.until_end(three, third.run_id)


async def test_an_idle_session_leaves_memory_and_comes_back_with_its_conversation(tmp_path: Path) -> None:
    async with world(tmp_path, idle_after=0.02) as w:
        sid = await w.session()
        first = await w.prompt(sid, "say 2")
        await w.until_end(sid, first.run_id)
        await eventually(lambda: not w.orchestrator.stats().sessions)
        assert w.orchestrator.log.followers == 0
        second = await w.prompt(sid, "say 1")
        await w.until_end(sid, second.run_id)
        assert [turn.run_id for turn in w.agent.turns[1].history] == [first.run_id]


async def test_a_session_is_never_idle_while_it_runs(tmp_path: Path) -> None:
    async with world(tmp_path, idle_after=0.01) as w:
        sid = await w.session()
        run = await w.prompt(sid, "wait")
        await w.streaming(sid, run.run_id)
        await asyncio.sleep(0.05)  # several times idle_after
        assert w.orchestrator.stats().sessions == 1
        w.agent.gate.set()
        assert (await w.until_end(sid, run.run_id))["event"]["type"] == "RUN_FINISHED"


async def test_deleting_a_session_ends_its_run_and_its_followers(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "wait")
        await w.streaming(sid, run.run_id)

        async def follow_to_the_end() -> int:
            return len([page async for page in w.orchestrator.follow(sid, after=0, owner=OWNER)])

        follower = asyncio.create_task(follow_to_the_end())
        await eventually(lambda: w.orchestrator.log.followers == 1)
        await w.orchestrator.delete_session(sid, owner=OWNER)
        assert await asyncio.wait_for(follower, 5) >= 0
        assert w.agent.running == 0
        assert w.orchestrator.stats().sessions == 0
        with pytest.raises(SessionNotFound):
            await w.prompt(sid, "say 1")
        other = await w.session()
        run = await w.prompt(other, "say 1")
        await w.until_end(other, run.run_id)


async def test_deleting_a_session_while_prompts_arrive_leaves_nothing_behind(tmp_path: Path) -> None:
    async with world(tmp_path, max_concurrent_runs=4) as w:
        for _ in range(10):
            sid = await w.session()
            prompts = [asyncio.create_task(w.prompt(sid, "say 3")) for _ in range(5)]
            await asyncio.sleep(0)
            await w.orchestrator.delete_session(sid, owner=OWNER, forever=True)
            await asyncio.gather(*prompts, return_exceptions=True)
        other = await w.session()
        runs = [await w.prompt(other, "say 1") for _ in range(3)]
        await w.until_end(other, runs[-1].run_id)
        assert (await w.store.fetch_all("SELECT count(*) AS n FROM runs"))[0]["n"] == 3
        await eventually(lambda: w.orchestrator._slots._free == 4)


async def test_stopping_the_server_ends_runs_as_interrupted_and_keeps_prompts_for_the_next(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "wait")
        await w.streaming(sid, run.run_id)
        waiting = await w.prompt(sid, "say 1")
        orchestrator = w.orchestrator
    with pytest.raises(NotReady):
        orchestrator._actor(sid)
    async with world(tmp_path) as w:
        assert (await w.until_end(sid, waiting.run_id))["event"]["type"] == "RUN_FINISHED"
        assert await w.status(sid, run.run_id) == "interrupted"
        assert (await w.until_end(sid, run.run_id))["event"]["code"] == "interrupted"
        texts = {m.id: m.content for m in await w.orchestrator.sessions.messages(sid, owner=OWNER)}
        assert texts[f"m_{run.run_id}"] == "0 1 "


async def test_runs_and_sessions_are_paged_newest_first(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        ids = [await w.session() for _ in range(5)]
        for _ in range(5):
            last = await w.prompt(ids[0], "say 1")
        await w.until_end(ids[0], last.run_id)
        seen, cursor = [], None
        while True:
            page, cursor = await w.store.sessions(OWNER, limit=2, cursor=cursor)
            seen += [session.id for session in page]
            if cursor is None:
                break
        assert seen[0] == ids[0]
        assert sorted(seen) == sorted(ids)
        runs, more = await w.orchestrator.sessions.runs(ids[0], owner=OWNER, limit=3)
        rest, none = await w.orchestrator.sessions.runs(ids[0], owner=OWNER, limit=3, cursor=more)
        assert (len(runs), len(rest), none) == (3, 2, None)
        assert runs[0].id == last.run_id
        assert runs[0].created_at - rest[-1].created_at >= timedelta(0)
