"""Text that no UTF-8 can hold, from models: replaced where it comes in, and never the end of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from navi_jupyter.agent.providers.sse_text import WellFormedEvents
from navi_jupyter.model.sessions import RunStatus
from tests.agent.test_whole import ask, said, seen, services, session_of
from tests.support.agent_world import Bench
from tests.support.providers import Call, Reply, ScriptedProvider, Serve

MODELS = (
    "openai-chat:gpt-6-luna",
    "openai-responses:gpt-6-luna",
    "anthropic:claude-haiku-5-5",
    "google:gemini-3.8-flash",
)
HIGH, LOW = "\ud83d", "\ude00"
LONE = {
    "first half": (f"boom {HIGH} end", "boom \ufffd end"),
    "second half": (f"{LOW}boom", "\ufffdboom"),
    "at the end": (f"boom{HIGH}", "boom\ufffd"),
    "alone": (HIGH, "\ufffd"),
    "the wrong way round": (f"a{LOW}{HIGH}b", "a\ufffd\ufffdb"),
    "before a pair": (f"{HIGH}{HIGH}{LOW}", "\ufffd\U0001f600"),
    "a NUL": ("a\x00b", "a\ufffdb"),
    "a written escape": ("a\\ud83d \\u0000", "a\\ud83d \\u0000"),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(("sent", "kept"), LONE.values(), ids=LONE)
async def test_a_lone_surrogate_of_a_model_becomes_the_replacement_character(
    bench: Bench, serve: Serve, model: str, sent: str, kept: str
) -> None:
    async with serve(Reply(sent)):
        outcome = await bench.run("hi", model=model)
    assert outcome.text == kept
    assert outcome.result is not None
    assert kept in json.dumps(json.loads(outcome.result.conversation), ensure_ascii=False).replace("\\\\", "\\")


@pytest.mark.parametrize("delay", [0.0, 0.06], ids=["at once", "apart"])
async def test_a_pair_that_comes_in_two_pieces_is_its_character(
    bench: Bench, serve: Serve, model: str, delay: float
) -> None:
    async with serve(Reply("a", f"b{HIGH}", f"{LOW}c", HIGH, LOW, f"{HIGH}", "d", delay=delay)):
        outcome = await bench.run("hi", model=model)
    assert outcome.text == "ab\U0001f600c\U0001f600\ufffdd"


async def test_reasoning_is_repaired_as_text_is(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply("ok", reasoning=f"hm {HIGH}|x{HIGH}|{LOW}y")):
        outcome = await bench.run("hi", model=model)
    thought = "".join(one.delta for one in outcome.events if one.type == "REASONING_MESSAGE_CONTENT")  # type: ignore[attr-defined]
    assert thought in ("hm \ufffdx\U0001f600y", ""), "where the protocol shows any"


async def test_arguments_of_a_call_are_repaired_for_the_tool_the_log_and_the_next_request(
    bench: Bench, serve: Serve, model: str
) -> None:
    message = f"check {HIGH} {HIGH}{LOW} \x00{LOW}"
    call = Call("create_recall", {"message": message, "when": "in 10 minutes"})
    async with serve(Reply(calls=(call,)), Reply("I will.")) as provider:
        outcome = await bench.run("remind me", model=model)
    kept = "check \ufffd \U0001f600 \ufffd\ufffd"
    (recall,) = bench.desk.recalls.values()
    assert recall.message == kept
    assert json.loads(outcome.args)["message"] == kept
    sent = json.dumps(json.loads(json.dumps(provider.requests[1].body)), ensure_ascii=False)
    sent.encode()
    assert outcome.text == "I will."


async def test_names_of_tools_and_of_arguments_are_repaired(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply(calls=(Call(f"look{HIGH}", {f"a{LOW}": [{"b\x00": HIGH}]}),)), Reply("No such tool.")):
        outcome = await bench.run("hi", model=model)
    assert outcome.text == "No such tool."
    assert list(json.loads(outcome.args)) == ["a\ufffd"]


async def test_the_session_goes_on_after_such_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (Reply(f"boom {HIGH} end"), Reply("Going on."))
    async with ScriptedProvider(*script) as provider, services(tmp_path) as built:
        provider.point(monkeypatch)
        session_id = await session_of(built, MODELS[0])
        first = await ask(built, session_id, "hi")
        assert first.status is RunStatus.COMPLETED
        assert await said(built, session_id, first.id) == "boom \ufffd end"
        assert (await ask(built, session_id, "go on")).status is RunStatus.COMPLETED
        assert "boom \ufffd end" in json.dumps(provider.requests[1].body, ensure_ascii=False)
        await seen(built, session_id, lambda event: "\ufffd" in event.get("delta", ""))


async def test_an_error_of_a_provider_with_such_text_keeps_its_code(bench: Bench, serve: Serve) -> None:
    async with serve(Reply(status=400, error={"message": f"no {HIGH} \x00", "type": "invalid_request_error"})):
        with pytest.raises(Exception, match="no \ufffd \ufffd") as caught:
            await bench.run("hi", model=MODELS[0])
    assert caught.value.run_code == "provider_error"  # type: ignore[attr-defined]


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events_are_repaired_wherever_the_connection_cuts_them(ends: bytes, size: int) -> None:
    events = [{"t": f"a{HIGH}"}, {"t": f"{LOW}b"}, {"t": HIGH}, {"t": "c\\"}, {"t": f"\\{LOW}"}, {"n": 1}, {"t": HIGH}]
    raw = b"".join(b"data: " + json.dumps(event).encode() + ends + ends for event in events)
    stream = WellFormedEvents()
    out = b"".join([*(stream.add(raw[at : at + size]) for at in range(0, len(raw), size)), stream.rest()])
    found = [json.loads(event.removeprefix(b"data: ")) for event in out.decode().encode().split(b"\n\n") if event]
    assert "".join(event.get("t", "") for event in found) == "a\U0001f600b\ufffdc\\\\\ufffd\ufffd"
    assert len(found) == len(events)
