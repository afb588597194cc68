"""Answers without measure: bounded in memory, log and database, ended with a clear code, and what came is kept."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from navi_jupyter.agent.run.graph import MAX_ANSWER, MAX_RUN
from navi_jupyter.errors import RunFailed
from navi_jupyter.events import MAX_DELTA, TextMessageContent
from navi_jupyter.model.sessions import RunStatus
from navi_jupyter.orchestrator.event_writer import merge_deltas
from tests.agent.test_whole import ask, said, services, session_of
from tests.support.agent_world import Bench
from tests.support.providers import Call, Reply, ScriptedProvider, Serve

MODELS = (
    "openai-chat:gpt-6-luna",
    "openai-responses:gpt-6-luna",
    "anthropic:claude-haiku-5-5",
    "google:gemini-3.8-flash",
)
MB = 2**20


@pytest.mark.parametrize("model", MODELS)
async def test_a_text_without_end_is_cut_and_the_session_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    endless = Reply(*["x" * (MB // 4)] * 200)
    async with ScriptedProvider(endless, Reply("Going on.")) as provider, services(tmp_path) as built:
        provider.point(monkeypatch)
        session_id = await session_of(built, model)
        run = await ask(built, session_id, "hi")
        assert run.status is RunStatus.FAILED
        assert run.error is not None
        assert run.error.code == "answer_too_long"
        text = await said(built, session_id, run.id)
        assert MAX_ANSWER * 0.9 < len(text) <= MAX_ANSWER
        assert provider.requests[0].closed.is_set() or not provider.requests[0].sent.is_set()
        assert (await ask(built, session_id, "go on")).status is RunStatus.COMPLETED
        sent = json.dumps(provider.requests[1].body)
        assert "it was too long" in sent
        assert len(sent) < 200_000, "what is kept for the model is short"
        written = sum(file.stat().st_size for file in tmp_path.glob("navi.db*"))
        assert written < 30 * MB


@pytest.mark.parametrize(
    "reply",
    [
        Reply(reasoning="|".join(["r" * (MB // 4)] * 30)),
        Reply(calls=(Call("create_recall", {"message": "m" * 7 * MB, "when": "in 10 minutes"}),)),
        Reply("t" * 2 * MB, "t" * 3 * MB),
    ],
    ids=["reasoning", "arguments", "few large pieces"],
)
async def test_whatever_is_without_measure_ends_the_run_with_its_code(bench: Bench, serve: Serve, reply: Reply) -> None:
    async with serve(reply):
        outcome = await bench.run_to_failure("hi", model=MODELS[0])
    assert outcome == "answer_too_long"
    assert not bench.desk.recalls


async def test_a_piece_without_an_end_fails_the_run_and_fills_no_memory(bench: Bench, serve: Serve) -> None:
    async with serve(Reply("y" * 60 * MB)):
        tracemalloc.start()
        try:
            assert await bench.run_to_failure("hi", model=MODELS[0]) == "answer_too_long"
        finally:
            tracemalloc.stop()


async def test_all_answers_of_a_run_together_are_bounded(bench: Bench, serve: Serve) -> None:
    again = Reply(*["z" * MB] * 3, calls=(Call("current_time", {}),))
    async with serve(again) as provider:
        assert await bench.run_to_failure("hi", model=MODELS[0]) == "answer_too_long"
    assert len(provider.requests) == MAX_RUN // (3 * MB) + 1


async def test_a_large_piece_comes_as_several_events_and_merging_keeps_the_bound(bench: Bench, serve: Serve) -> None:
    async with serve(Reply("a" * (MAX_DELTA * 3 + 5))):
        outcome = await bench.run("hi", model=MODELS[0])
    deltas = [one.delta for one in outcome.events if isinstance(one, TextMessageContent)]
    assert [len(one) for one in deltas] == [MAX_DELTA] * 3 + [5]
    small = [TextMessageContent(message_id="m", delta="b" * 1000) for _ in range(500)]
    merged = merge_deltas(small)
    assert max(len(one.delta) for one in merged if isinstance(one, TextMessageContent)) <= MAX_DELTA
    assert "".join(one.delta for one in merged if isinstance(one, TextMessageContent)) == "b" * 500_000
    assert len(merged) < 12


DEEP = "[" * 100_000
BAD_ARGUMENTS = (DEEP, f'{{"message": {DEEP}', '{"message": ' + "[" * 5000 + "]" * 5000 + "}", '{"mess')


@pytest.mark.parametrize("model", MODELS[:3])
@pytest.mark.parametrize("raw", BAD_ARGUMENTS, ids=["deep", "unfinished deep", "closed deep", "unfinished"])
async def test_arguments_that_are_nested_too_deeply_or_unfinished_are_told_to_the_model(
    bench: Bench, serve: Serve, model: str, raw: str
) -> None:
    async with serve(Reply(calls=(Call("create_recall", {}, raw=raw),)), Reply("I see.")) as provider:
        outcome = await bench.run("hi", model=model)
    assert outcome.text == "I see."
    assert not bench.desk.recalls
    assert len(provider.requests) == 2


@pytest.mark.parametrize("model", MODELS)
async def test_an_event_that_is_nested_too_deeply_is_the_providers_error(
    bench: Bench, serve: Serve, model: str
) -> None:
    async with serve(Reply("a", raw_event=DEEP)):
        if model.startswith("anthropic"):  # its package passes over events of a kind that it does not know, unread
            assert (await bench.run("hi", model=model)).text == "a"
            return
        with pytest.raises(RunFailed, match="nested") as caught:
            await bench.run("hi", model=model)
    assert caught.value.run_code == "provider_error"
