"""Ids of tool calls as providers send them: twice, empty, too long, of odd characters, again in later answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.agent.test_backend import past
from tests.support.agent_world import Bench, Outcome
from tests.support.providers import Call, Reply, Request, Serve

GOOGLE = "google:gemini-3-flash"
MODELS = ("openai-chat:gpt-6-luna", "anthropic:claude-haiku-5-5", GOOGLE)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def remind(message: str, call_id: str) -> Call:
    return Call("create_recall", {"message": message, "when": "in 10 minutes"}, id=call_id)


def sent_ids(request: Request) -> tuple[list[str], list[str]]:
    """The ids of the calls, and of their results, in a request: in the form of any of the providers."""
    calls: list[str] = []
    results: list[str] = []

    def walk(node: Any) -> None:
        match node:
            case {"type": "tool_use", "id": str(found)} | {"type": "function", "id": str(found)}:
                calls.append(found)
            case {"functionCall": {"id": str(found)}}:
                calls.append(found)
            case {"role": "tool", "tool_call_id": str(found)} | {"tool_use_id": str(found)}:
                results.append(found)
            case {"functionResponse": {"id": str(found)}}:
                results.append(found)
            case dict():
                for one in node.values():
                    walk(one)
            case list():
                for one in node:
                    walk(one)

    walk(request.body)
    return calls, results


def log_ids(outcome: Outcome) -> list[str]:
    return [event.tool_call_id for event in outcome.events if event.type == "TOOL_CALL_START"]  # type: ignore[attr-defined]


PAIRS = [
    ("call_1", "call_1"),
    ("", ""),
    ("", "call_1"),
    ("x" * 500, "x" * 500),
    ("functions.create_recall:0", "functions.create_recall:0"),
    ("ä b\n\"'", "\U0001f600"),
    ("a" * 65, "b" * 65),
]


@pytest.mark.parametrize("ids", PAIRS, ids=lambda ids: repr(ids)[:30])
async def test_calls_of_one_answer_are_two_calls_whatever_their_ids(
    bench: Bench, serve: Serve, model: str, ids: tuple[str, str]
) -> None:
    calls = (remind("one", ids[0]), remind("two", ids[1]), Call("current_time", {}, id="call_3"))
    async with serve(Reply("Both. ", calls=calls), Reply("Done.")) as provider:
        outcome = await bench.run("both", model=model)
    assert outcome.text == "Both. Done."
    assert sorted(one.message for one in bench.desk.recalls.values()) == ["one", "two"]
    assert len(set(log_ids(outcome))) == 3
    assert sorted(event.tool_call_id for event in outcome.events if event.type == "TOOL_CALL_RESULT") == sorted(  # type: ignore[attr-defined]
        log_ids(outcome)
    )
    given, answered = sent_ids(provider.requests[1])
    assert sorted(given) == sorted(answered)
    assert len(set(given)) == 3
    assert all(one.replace("-", "_").replace("_", "a").isalnum() and one.isascii() and len(one) <= 64 for one in given)


async def test_ids_that_come_again_in_later_answers_and_runs_are_different_calls(
    bench: Bench, serve: Serve, model: str
) -> None:
    script = (
        Reply(calls=(remind("one", "call_0"),)),
        Reply(calls=(remind("two", "call_0"),)),
        Reply("Done."),
        Reply(calls=(remind("three", "call_0"),)),
        Reply("Done again."),
    )
    async with serve(*script) as provider:
        first = await bench.run("two", model=model)
        second = await bench.run("one more", model=model, history=(past(first, "two"),))
    assert len(bench.desk.recalls) == 3
    assert len({*log_ids(first), *log_ids(second)}) == 3
    given, answered = sent_ids(provider.requests[-1])
    assert len(set(given)) == len(given) == 3
    assert sorted(given) == sorted(answered)


async def test_a_usual_id_stays_the_providers(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply(calls=(remind("one", "call_abc-1"),)), Reply("Done.")) as provider:
        await bench.run("one", model=model)
    assert sent_ids(provider.requests[1]) == (["call_abc-1"], ["call_abc-1"])


async def test_questions_about_calls_with_one_id_are_answered_each(bench: Bench, serve: Serve, model: str) -> None:
    calls = (
        Call("write_file", {"path": "a.txt", "content": "1"}, id="call_1"),
        Call("write_file", {"path": "b.txt", "content": "2"}, id="call_1"),
    )
    async with serve(Reply(calls=calls), Reply("Done.")):
        outcome = await bench.run("write", model=model)
    assert len({ask.tool_call_id for ask in outcome.asks}) == len(outcome.asks)
