"""Answers that are cut, filtered or empty: the run completes, and says what is the matter and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from navi_jupyter.errors import RunFailed
from navi_jupyter.kernel.display.render import run_bundle, run_plain
from navi_jupyter.kernel.display.run_view import RunView
from navi_jupyter.model.recalls import FiringStatus, OnceSpec, RecallCreate
from navi_jupyter.model.sessions import RunStatus
from navi_jupyter.server.export import download
from tests.agent.test_whole import ask, ended, seen, services, session_of
from tests.support.agent_world import Bench
from tests.support.providers import Call, Reply, ScriptedProvider, Serve

MODELS = (
    "openai-chat:gpt-6-luna",
    "openai-responses:gpt-6-luna",
    "anthropic:claude-haiku-5-5",
    "google:gemini-3.8-flash",
)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


KINDS = {
    "cut": (Reply("It is", full=True), "answer_cut", "Ask to go on"),
    "filtered": (Reply("It is", filtered=True), "answer_filtered", "other words"),
    "empty": (Reply(), "answer_empty", "without an answer"),
    "blank": (Reply(" ", "\n"), "answer_empty", "without an answer"),
    "a zero-width space": (Reply("\u200b"), "answer_empty", "without an answer"),
    "joiners": (Reply("\u2060", "\u200d\ufeff\n"), "answer_empty", "without an answer"),
    "controls": (Reply("\x1b\x07\u202e"), "answer_empty", "without an answer"),
    "NUL": (Reply("\x00"), "answer_empty", "without an answer"),
    "half a character": (Reply("\ud83d"), "answer_empty", "without an answer"),
    "a filler": (Reply("\u3164\u2800"), "answer_empty", "without an answer"),
    "one character": (Reply("\U0001f44d\ufe0f"), None, ""),
    "reasoning alone": (Reply(reasoning="hm"), "answer_empty", "without an answer"),
    "whole": (Reply("It is."), None, ""),
}


@pytest.mark.parametrize(("reply", "code", "says"), KINDS.values(), ids=KINDS)
async def test_an_answer_that_is_not_what_it_should_be_has_a_notice(
    bench: Bench, serve: Serve, model: str, reply: Reply, code: str | None, says: str
) -> None:
    async with serve(reply) as provider:
        outcome = await bench.run("hi", model=model)
    assert outcome.result is not None
    assert outcome.result.failure is None
    notice = outcome.result.notice
    assert (notice.code if notice else None) == code
    assert says in (notice.message if notice else "")
    assert len(provider.requests) == 1, "asking again is the user's to decide"


@pytest.mark.parametrize("reply", [Reply(full=True), Reply(reasoning="hm", full=True)], ids=["nothing", "reasoning"])
async def test_an_answer_that_is_cut_before_its_first_word_fails_with_what_to_do(
    bench: Bench, serve: Serve, model: str, reply: Reply
) -> None:
    async with serve(reply):
        with pytest.raises(RunFailed, match="Ask for less") as caught:
            await bench.run("hi", model=model)
    assert caught.value.run_code == "answer_cut"


async def test_an_empty_end_after_tool_calls_has_a_notice(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply("Let me see. ", calls=(Call("current_time", {}),)), Reply()):
        outcome = await bench.run("hi", model=model)
    assert outcome.result is not None
    assert outcome.result.notice is not None
    assert outcome.result.notice.code == "answer_empty"


async def test_a_subagents_answer_that_is_cut_says_so_to_the_agent_that_asked(bench: Bench, serve: Serve) -> None:
    task = Call("delegate", {"task": "count the sheep"})
    script = (Reply(calls=(task,)), Reply("One, two", full=True, when="You are a subagent"), Reply("Two."))
    async with serve(*script) as provider:
        outcome = await bench.run("how many?", model=MODELS[0])
    assert "One, two" in outcome.results[0]
    assert "cut off" in outcome.results[0]
    assert "cut off" in json.dumps(provider.requests[-1].body)


async def test_a_notice_is_in_the_log_the_runs_record_the_cell_and_every_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(Reply("It is", full=True)) as provider, services(tmp_path) as built:
        provider.point(monkeypatch)
        session_id = await session_of(built, MODELS[0])
        run = await ask(built, session_id, "hi")
        assert (run.status, run.error) == (RunStatus.COMPLETED, None)
        assert run.notice is not None
        assert run.notice.code == "answer_cut"
        told = await seen(built, session_id, lambda event: event.get("name") == "navi.notice", run.id)
        assert told["event"]["value"] == {"run_id": run.id, "code": "answer_cut", "message": run.notice.message}
        finished = await seen(built, session_id, lambda event: event["type"] == "RUN_FINISHED", run.id)
        assert finished["event"]["outcome"] == {"type": "success"}
        assert finished["seq"] > told["seq"]

        view = RunView(run.id, session_id=session_id)
        async for page in built.sessions.orchestrator.follow(session_id, after=0, owner="ada"):
            for _, text in page.envelopes:
                view.apply(json.loads(text))
            if view.over:
                break
        later = RunView(run.id, session_id=session_id)
        later.end(run.wire())
        for one in (view, later):
            assert one.notice == ("answer_cut", run.notice.message)
            assert "cut off" in run_plain(one)
            for content in run_bundle(one).values():
                assert "cut off" in str(content)
        orchestrator = built.sessions.orchestrator
        for kind in ("md", "ipynb", "json"):
            reply = await download(orchestrator, session_id, kind, owner="ada")
            assert "Ask to go on" in str(reply.content)


async def test_a_recall_whose_answer_is_empty_has_it_in_its_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = OnceSpec.model_validate({"kind": "once", "in": "1s"})
    async with ScriptedProvider(Reply()) as provider, services(tmp_path) as built:
        provider.point(monkeypatch)
        session_id = await session_of(built, MODELS[0])
        request = RecallCreate(session_id=session_id, message="look", schedule=soon)
        recall = await built.recalls.service.create(request, owner="ada", zone="UTC")
        started = await seen(built, session_id, lambda event: event["type"] == "RUN_STARTED")
        await ended(built, session_id, started["run_id"])
        await seen(
            built, session_id, lambda event: event.get("name") == "navi.recall" and event["value"]["action"] == "fired"
        )
        (firing,) = await built.recalls.service.firings(recall.id, owner="ada")
        assert firing.status is FiringStatus.SUCCEEDED
        assert "without an answer" in str(firing.reason)
        assert "without an answer" in str(firing.attempts[0].reason if firing.attempts else firing.reason)
