"""The agent asks the user something: the question is durable, its answer is the result of the call."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.clock import now
from navi_jupyter.commands import Answer, Prompt
from navi_jupyter.errors import InvalidRequest
from navi_jupyter.input.json_schema import check
from navi_jupyter.model.recalls import OnceSpec, RecallCreate
from navi_jupyter.model.runs import Interrupt, InterruptKind, InterruptStatus
from navi_jupyter.model.sessions import Origin, OriginKind, RunStatus
from tests.support.agent_world import Bench, answered
from tests.support.providers import Call, Reply, ScriptedProvider, Serve

from .test_whole import OPENAI, seen, services, session_of

MODELS = ("openai-chat:gpt-6-luna", "anthropic:claude-haiku-5-5")


def question(**args: Any) -> Reply:
    return Reply(calls=(Call("ask_user", {"question": "Which column?", **args}),))


def fields_of(schema: dict[str, Any] | None) -> dict[str, Any]:
    assert schema is not None
    return schema["properties"]


@pytest.mark.parametrize("model", MODELS)
async def test_a_question_pauses_the_run_and_its_answer_is_the_result(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(question(), Reply("Price it is.")) as provider:
        paused = await bench.run("plot it", model=model)
        (ask,) = paused.asks
        assert (ask.kind, ask.message, ask.tool) == (InterruptKind.QUESTION, "Which column?", None)
        assert list(fields_of(ask.response_schema)) == ["answer"]
        outcome = await bench.resume(paused, answered(ask, {"answer": "price"}), model=model)
    assert [json.loads(result) for result in outcome.results] == [{"answer": "price"}]
    assert outcome.text == "Price it is."
    assert "price" in json.dumps(provider.requests[1].body)


async def test_choices_are_the_only_answers_unless_something_else_may_be_written(bench: Bench, serve: Serve) -> None:
    async with serve(question(choices=["price", "volume"]), question(choices=["price", "volume"], other=True)):
        strict = (await bench.run("plot", model=MODELS[0])).asks[0].response_schema or {}
        paused = await bench.run("plot", model=MODELS[0])
    assert fields_of(strict)["answer"]["enum"] == ["price", "volume"]
    assert check(strict, {"answer": "price"}).error is None
    assert check(strict, {"answer": "date"}).error is not None
    loose = paused.asks[0].response_schema or {}
    assert check(loose, {"other": "the date"}).error is None
    async with serve(Reply("Good.")):
        outcome = await bench.resume(paused, answered(paused.asks[0], {"other": "the date"}), model=MODELS[0])
    assert json.loads(outcome.results[0]) == {"answer": "the date"}


async def test_a_form_asks_for_several_values_at_once(bench: Bench, serve: Serve) -> None:
    form = [
        {"name": "rows", "label": "How many rows?", "type": "integer", "default": 10},
        {"name": "kind", "type": "choice", "choices": ["bar", "line"]},
        {"name": "since", "type": "date", "required": False},
        {"name": "log", "type": "boolean"},
    ]
    async with serve(question(fields=form), Reply("Good.")):
        paused = await bench.run("plot", model=MODELS[0])
        schema = paused.asks[0].response_schema or {}
        values = {"rows": 3, "kind": "bar", "log": True}
        outcome = await bench.resume(paused, answered(paused.asks[0], values), model=MODELS[0])
    assert schema["required"] == ["rows", "kind"]
    assert fields_of(schema)["rows"] == {"type": "integer", "title": "How many rows?", "default": 10}
    assert check(schema, values).error is None
    assert check(schema, {"rows": "many", "kind": "bar"}).error is not None
    assert json.loads(outcome.results[0]) == values


@pytest.mark.parametrize(
    "args",
    [
        {"question": ""},
        {"choices": ["one"]},
        {"choices": ["a", "b"], "fields": [{"name": "x"}]},
        {"fields": [{"name": "x"}, {"name": "x"}]},
        {"fields": [{"name": "x", "type": "choice"}]},
        {"fields": [{"name": "1 x"}]},
        {"unknown": 1},
    ],
)
async def test_what_makes_no_question_is_reported_to_the_model_and_nobody_is_asked(
    bench: Bench, serve: Serve, args: dict[str, Any]
) -> None:
    async with serve(question(**args), Reply("Sorry.")):
        outcome = await bench.run("plot", model=MODELS[0])
    assert not outcome.asks
    assert json.loads(outcome.results[0])["error"] == "invalid_request"
    assert outcome.text == "Sorry."


@pytest.mark.parametrize(
    ("status", "code"), [(InterruptStatus.CANCELLED, "declined"), (InterruptStatus.EXPIRED, "expired")]
)
async def test_a_question_without_an_answer_is_a_failed_call_and_the_run_goes_on(
    bench: Bench, serve: Serve, status: InterruptStatus, code: str
) -> None:
    async with serve(question(), Reply("Then not.")):
        paused = await bench.run("plot", model=MODELS[0])
        outcome = await bench.resume(paused, answered(paused.asks[0], status=status), model=MODELS[0])
    assert json.loads(outcome.results[0])["error"] == code
    assert outcome.text == "Then not."


async def test_a_subagent_asks_too_and_waits_in_memory(bench: Bench, serve: Serve) -> None:
    asked: list[Any] = []

    async def ask(one: Any) -> Interrupt:
        asked.append(one)
        return answered(one, {"answer": "price"})

    bench.ask = ask
    script = (Reply(calls=(Call("delegate", {"task": "TASK"}),)), question(), Reply("by price"), Reply("Done."))
    async with serve(*script) as provider:
        outcome = await bench.run("plot", model=MODELS[0])
    assert [one.subagent_run_id is not None for one in asked] == [True]
    assert "price" in json.dumps(provider.requests[2].body)
    assert outcome.text.endswith("Done.")


async def test_a_recalls_run_does_not_ask_unless_the_recall_may_wait(bench: Bench, serve: Serve) -> None:
    async def of_recall(*allow: str) -> Origin:
        when = OnceSpec(kind="once", at=now() + timedelta(hours=1))
        request = RecallCreate(session_id="s_1", message="m", schedule=when, allow=allow)
        return Origin(kind=OriginKind.RECALL, recall_id=(await bench.desk.create(request, owner="ada", zone="UTC")).id)

    for allow in ((), ("note",), ("run_code",)):
        async with serve(question(), Reply("I took the price.")):
            outcome = await bench.run("plot", model=MODELS[0], origin=await of_recall(*allow))
        assert not outcome.asks
        assert json.loads(outcome.results[0])["error"] == "tool_unavailable"
        assert outcome.result is not None
        assert outcome.result.failure is None, "it may go on with an assumption"
    async with serve(question()):
        paused = await bench.run("plot", model=MODELS[0], origin=await of_recall("ask_user"))
    assert [ask.waits for ask in paused.asks] == [True]


# --- in the whole server ----------------------------------------------------------------------------------------------


def opened(event: dict[str, Any]) -> bool:
    return event.get("name") == "navi.interrupt" and event["value"]["action"] == "opened"


def succeeded(event: dict[str, Any]) -> bool:
    return event["type"] == "RUN_FINISHED" and event["outcome"]["type"] == "success"


async def test_a_question_is_answered_after_a_restart_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(question(choices=["a", "b"]), Reply("B then.")) as provider:
        provider.point(monkeypatch)
        async with services(tmp_path) as built:
            session_id = await session_of(built, OPENAI)
            await built.sessions.orchestrator.submit(session_id, Prompt(text="go"), user_id="ada")
            interrupt = (await seen(built, session_id, opened))["event"]["value"]["interrupt"]
            await seen(built, session_id, lambda event: event["type"] == "RUN_FINISHED")
        async with services(tmp_path) as built:
            orchestrator = built.sessions.orchestrator
            wrong = Answer(interrupt_id=interrupt["id"], status="resolved", payload={"answer": "c"})
            with pytest.raises(InvalidRequest):
                await orchestrator.submit(session_id, wrong, user_id="ada")
            right = Answer(interrupt_id=interrupt["id"], status="resolved", payload={"answer": "b"})
            await orchestrator.submit(session_id, right, user_id="ada")
            await seen(built, session_id, lambda event: "B then." in event.get("delta", ""))
            await seen(built, session_id, succeeded)
    assert '\\"answer\\": \\"b\\"' in json.dumps(provider.requests[1].body).replace('\\\\"', '\\"')


async def test_the_run_of_a_recall_that_may_wait_waits_with_no_view_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(question(), Reply("Thanks.")) as provider, services(tmp_path) as built:
        provider.point(monkeypatch)
        session_id = await session_of(built, OPENAI)
        when = OnceSpec(kind="once", at=now() + timedelta(seconds=1))
        request = RecallCreate(session_id=session_id, message="go", schedule=when, allow=("ask_user",))
        await built.recalls.service.create(request, owner="ada", zone="UTC")
        sessions = built.sessions.orchestrator.sessions
        interrupt = (await seen(built, session_id, opened))["event"]["value"]["interrupt"]
        await seen(built, session_id, lambda event: event["type"] == "RUN_FINISHED")
        run = await sessions.run(session_id, interrupt["run_id"], owner="ada")
        assert (run.origin.kind, run.status) == (OriginKind.RECALL, RunStatus.WAITING)
        answer = Answer(interrupt_id=interrupt["id"], status="resolved", payload={"answer": "price"})
        await built.sessions.orchestrator.submit(session_id, answer, user_id="ada")
        await seen(built, session_id, succeeded)
