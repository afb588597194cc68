"""The model loop against a real HTTP server that speaks OpenAI's and Anthropic's streaming protocols."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from navi_jupyter.agent.run.backend import EventQueue
from navi_jupyter.errors import LeaseLost, RunFailed
from navi_jupyter.events import Custom
from navi_jupyter.model.runs import Interrupt, InterruptKind
from navi_jupyter.model.sessions import USER, Origin, OriginKind, RunStatus
from navi_jupyter.ports.agent import Ask, Message, PastTurn, ToolCall
from navi_jupyter.settings import Limits
from tests.support.agent_world import Bench, Outcome
from tests.support.providers import KEY, Call, Reply, ScriptedProvider, Serve

MODELS = ("openai-chat:gpt-6-luna", "anthropic:claude-haiku-5-5")
REMIND = Call("create_recall", {"message": "check the loss", "when": "in 10 minutes"})


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def failure(bench: Bench, model: str, prompt: str = "hello", **how: object) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        await bench.run(prompt, model=model, **how)
    return caught.value


async def test_text_streams_piece_by_piece(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply("Hello ", "dear ", "world.", delay=0.1)) as provider:  # what comes at once may be one piece
        outcome = await bench.run("hi", model=model)
    deltas = [event.delta for event in outcome.events if event.type == "TEXT_MESSAGE_CONTENT"]  # type: ignore[attr-defined]
    assert deltas == ["Hello ", "dear ", "world."]
    assert outcome.result is not None
    assert outcome.result.usage.requests == 1
    assert (outcome.result.usage.input_tokens, outcome.result.usage.output_tokens) == (11, 7)
    assert provider.requests[0].body["stream"] is True


async def test_nothing_reads_on_when_a_run_is_over(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply("Hello ", "there.")):
        assert (await bench.run("hi", model=model)).text == "Hello there."
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "navi-provider-stream"]


async def test_a_piece_is_yielded_while_the_provider_still_writes(bench: Bench, serve: Serve, model: str) -> None:
    reply = Reply("Hello ", "there", hold_end=True)
    async with serve(reply):
        outcome = Outcome()
        async for item in bench.events("hi", model=model):
            outcome.add(item)
            if outcome.text == "Hello there":
                reply.release.set()
    assert outcome.result is not None


async def test_the_model_gets_the_time_the_user_and_the_tools(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply("ok")) as provider:
        await bench.run("hi", model=model)
    body = provider.requests[0].body
    told = json.dumps(body)
    for part in ("Europe/Berlin", "ada", "You run because the user wrote to you", "create_recall"):
        assert part in told
    names = {tool.get("name") or tool["function"]["name"] for tool in body["tools"]}
    recalls = {f"{verb}_recall" for verb in ("create", "change", "pause", "resume", "cancel")}
    assert names == {*recalls, "list_recalls", "session_history", "current_time", "delegate", "ask_user"}


async def test_a_model_that_a_recall_triggered_knows_it(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply("", calls=(REMIND,)), Reply("ok")) as provider:
        await bench.run("remind me", model=model)
        (recall,) = bench.desk.recalls.values()
        await bench.run("check the loss", model=model, origin=Origin(kind=OriginKind.RECALL, recall_id=recall.id))
    assert f"id {recall.id}" in json.dumps(provider.requests[-1].body)


async def test_a_tool_call_goes_round_and_makes_a_recall(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply("Let me see. ", calls=(REMIND,)), Reply("I will.")) as provider:
        outcome = await bench.run("remind me in 10 minutes to check the loss", model=model)
    (recall,) = bench.desk.recalls.values()
    assert recall.message == "check the loss"
    assert outcome.tools == ["create_recall"]
    assert json.loads(outcome.args) == REMIND.args
    assert json.loads(outcome.results[0])["recall"]["id"] == recall.id
    assert outcome.text == "Let me see. I will."
    assert recall.id in json.dumps(provider.requests[1].body), "the model reads the real result"
    assert outcome.result is not None
    assert outcome.result.usage.requests == 2


async def test_two_calls_in_one_answer_are_both_answered(bench: Bench, serve: Serve, model: str) -> None:
    calls = (REMIND, Call("current_time", {}, id="call_2"))
    async with serve(Reply(calls=calls), Reply("Done.")):
        outcome = await bench.run("both", model=model)
    assert sorted(outcome.tools) == ["create_recall", "current_time"]
    assert len(outcome.results) == 2


async def test_the_same_ids_from_the_provider_are_different_calls_in_the_log(bench: Bench, serve: Serve) -> None:
    async with serve(Reply(calls=(REMIND,)), Reply(calls=(REMIND,)), Reply("Done.")):
        outcome = await bench.run("twice", model=MODELS[0])
    ids = {event.tool_call_id for event in outcome.events if event.type == "TOOL_CALL_START"}  # type: ignore[attr-defined]
    assert len(ids) == 2
    assert len(bench.desk.recalls) == 2


async def test_a_tools_refusal_is_a_result_that_the_model_can_act_on(bench: Bench, serve: Serve, model: str) -> None:
    bad = Call("create_recall", {"message": "x", "when": "yesterday at 5"})
    async with serve(Reply(calls=(bad,)), Reply("That was in the past.")) as provider:
        outcome = await bench.run("remind me", model=model)
    assert json.loads(outcome.results[0])["error"] == "invalid_schedule"
    assert "in the past" in json.dumps(provider.requests[1].body)
    assert not bench.desk.recalls


async def test_arguments_that_do_not_fit_are_sent_back_for_correction(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply(calls=(Call("cancel_recall", {"id": 7}),)), Reply(calls=(REMIND,)), Reply("Done.")):
        outcome = await bench.run("remind me", model=model)
    assert outcome.tools == ["cancel_recall", "create_recall"]
    assert len(bench.desk.recalls) == 1


async def test_reasoning_streams_as_reasoning(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply("42.", reasoning="Let me |think.")):
        outcome = await bench.run("think", model=model)
    assert outcome.reasoning == "Let me think."
    assert outcome.text == "42."


# --- the conversation goes on ----------------------------------------------------------------------------------------


def past(outcome: Outcome, prompt: str) -> PastTurn:
    assert outcome.result is not None
    return PastTurn(
        run_id="u_past",
        status=RunStatus.COMPLETED,
        prompt=prompt,
        messages=(),
        conversation=outcome.result.conversation,
    )


async def test_the_next_run_continues_the_conversation_with_its_tool_calls(
    bench: Bench, serve: Serve, model: str
) -> None:
    async with serve(Reply(reasoning="hm", calls=(REMIND,)), Reply("First answer."), Reply("Second.")) as provider:
        first = await bench.run("first question", model=model)
        await bench.run("second question", model=model, history=(past(first, "first question"),))
    sent = json.dumps([one for one in provider.requests[2].body["messages"] if one["role"] != "system"])
    order = ["first question", "check the loss", "First answer.", "second question"]
    assert sorted(order, key=sent.index) == order


async def test_the_conversation_goes_on_with_another_provider(bench: Bench, serve: Serve) -> None:
    async with serve(Reply("ok", reasoning="hm", calls=(REMIND,)), Reply("First."), Reply("Second.")) as provider:
        first = await bench.run("first question", model=MODELS[1])
        await bench.run("second question", model=MODELS[0], history=(past(first, "first question"),))
    assert "First." in json.dumps(provider.requests[2].body)


async def test_a_turn_without_conversation_is_rebuilt_from_its_transcript(
    bench: Bench, serve: Serve, model: str
) -> None:
    open_call = ToolCall(id="t_1", name="create_recall", args='{"mess', result=None)
    closed = ToolCall(id="t_2", name="list_recalls", args="{}", result='{"recalls":[]}')
    stopped = PastTurn(
        run_id="u_past",
        status=RunStatus.STOPPED,
        prompt="a long question",
        conversation=None,
        messages=(
            _message("user", "a long question"),
            _message("assistant", "Half an ans", calls=(closed, open_call)),
            _message("tool", '{"recalls":[]}', answers="t_2"),
        ),
    )
    async with serve(Reply("Going on.")) as provider:
        await bench.run("go on", model=model, history=(stopped,))
    sent = json.dumps(provider.requests[0].body)
    for part in ("a long question", "Half an ans", "recalls", "the run ended before", "the user stopped it", "go on"):
        assert part.lower() in sent.lower()


@pytest.mark.parametrize("conversation", [b"", b'{"format":"offline/1"}', b"not json", b'{"format":"pydantic-ai/2"}'])
async def test_a_conversation_that_is_not_ours_is_rebuilt_too(bench: Bench, serve: Serve, conversation: bytes) -> None:
    turn = PastTurn(
        run_id="u_past",
        status=RunStatus.COMPLETED,
        prompt="earlier",
        conversation=conversation,
        messages=(_message("assistant", "Answer."),),
    )
    async with serve(Reply("ok")) as provider:
        await bench.run("now", model=MODELS[0], history=(turn,))
    said = [message["content"] for message in provider.requests[0].body["messages"]]
    assert said[-3:] == ["earlier", "Answer.", "now"]


def _message(role: str, content: str, *, calls: tuple[ToolCall, ...] = (), answers: str | None = None) -> Message:
    return Message(
        id="m_1", role=role, content=content, run_id="u_past", origin=USER, at="2026-11-23T10:00:00Z",
        tool_calls=calls, tool_call_id=answers,
    )  # fmt: skip


# --- limits and stop -------------------------------------------------------------------------------------------------


async def test_the_limit_of_requests_ends_the_run_and_keeps_what_was_done(
    bench: Bench, serve: Serve, model: str
) -> None:
    async with serve(Reply("Again. ", calls=(REMIND,))) as provider:
        outcome = await bench.run("loop", model=model, limits=Limits(max_iterations=2, run_timeout=20))
    assert len(provider.requests) == 2
    assert outcome.result is not None
    assert outcome.result.failure is not None
    assert outcome.result.failure.code == "max_iterations"
    assert outcome.text == "Again. Again. "
    assert outcome.result.usage.requests == 2
    async with serve(Reply("On.")) as provider:
        await bench.run("continue", model=model, history=(past(outcome, "loop"),))
    sent = json.dumps(provider.requests[0].body)
    assert all(recall_id in sent for recall_id in bench.desk.recalls), "both results were kept"


async def test_cancelling_closes_the_connection_while_it_waits_for_the_first_byte(
    bench: Bench, serve: Serve, model: str
) -> None:
    async with serve(Reply("never", hold_first=True)) as provider:
        task = asyncio.create_task(bench.run("hi", model=model))
        request = await provider.request()
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < 1
        await asyncio.wait_for(request.closed.wait(), 5)


async def test_cancelling_in_mid_stream_closes_the_connection(bench: Bench, serve: Serve, model: str) -> None:
    outcome = Outcome()
    said = asyncio.Event()

    async def consume() -> None:
        async for item in bench.events("hi", model=model):
            outcome.add(item)
            if outcome.text:
                said.set()

    async with serve(Reply("Partial", hold_end=True)) as provider:
        task = asyncio.create_task(consume())
        await said.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for((await provider.request()).closed.wait(), 5)
    assert outcome.text == "Partial"


async def test_closing_the_iterator_closes_the_connection(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply("Partial", hold_end=True)) as provider:
        events = bench.events("hi", model=model)
        await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for((await provider.request()).closed.wait(), 5)


async def test_the_stop_signal_alone_ends_the_turn(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply("Partial", hold_end=True)) as provider:
        items = []
        async for item in bench.events("hi", model=model):
            items.append(item)
            bench.stop.set()
        await asyncio.wait_for((await provider.request()).closed.wait(), 5)
    assert getattr(items[-1], "conversation", None) == b""


async def test_no_task_outlives_its_run(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply("ok")):
        await bench.run("hi", model=model)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("navi-model")]


async def test_a_slow_reader_does_not_stall_the_provider(bench: Bench, serve: Serve, model: str) -> None:
    reply = Reply(*(f"{number} " for number in range(2000)))
    async with serve(reply) as provider:
        outcome = Outcome()
        events = bench.events("hi", model=model)
        outcome.add(await anext(events))
        request = await provider.request()
        await asyncio.wait_for(request.sent.wait(), 20)
        async for item in events:
            outcome.add(item)
    assert outcome.text.split()[-1] == "1999"


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (401, {"message": f"Incorrect API key provided: {KEY}.", "type": "authentication_error"}, "provider_auth"),
        (403, {"message": "no", "type": "permission_error"}, "provider_auth"),
        (402, {"message": "pay", "type": "billing_error"}, "provider_quota"),
        (404, {"message": "no such model", "type": "not_found_error"}, "model_unavailable"),
        (400, {"message": "temperature too high", "type": "invalid_request_error"}, "provider_error"),
    ],
)
async def test_a_refusal_has_a_stable_code_and_no_secret(
    bench: Bench, serve: Serve, model: str, status: int, error: dict[str, str], code: str
) -> None:
    async with serve(Reply(status=status, error=error)):
        failed = await failure(bench, model)
    assert failed.run_code == code
    assert KEY not in failed.message
    assert "SECRET" not in failed.message
    assert model in failed.message


async def test_a_used_up_quota_is_distinguished_from_a_rate_limit(bench: Bench, serve: Serve) -> None:
    error = {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}
    async with serve(Reply(status=429, error=error, headers={"x-should-retry": "false"})):
        assert (await failure(bench, MODELS[0])).run_code == "provider_quota"


async def test_a_conversation_that_is_too_long_is_reported(bench: Bench, serve: Serve, model: str) -> None:
    text = (
        "This model's maximum context length is 8 tokens"
        if "openai" in model
        else "prompt is too long: 9 tokens > 8 maximum"
    )
    error = {"message": text, "type": "invalid_request_error", "code": "context_length_exceeded"}
    async with serve(Reply(status=400, error=error)):
        assert (await failure(bench, model)).run_code == "context_too_long"


async def test_a_rate_limit_is_waited_out(bench: Bench, serve: Serve, model: str) -> None:
    busy = Reply(
        status=429, error={"message": "slow down", "type": "rate_limit_error"}, headers={"retry-after-ms": "20"}
    )
    async with serve(busy, Reply("Here.")) as provider:
        outcome = await bench.run("hi", model=model)
    assert outcome.text == "Here."
    assert len(provider.requests) == 2


async def test_a_rate_limit_that_lasts_is_reported(bench: Bench, serve: Serve, model: str) -> None:
    busy = Reply(
        status=429, error={"message": "slow down", "type": "rate_limit_error"}, headers={"retry-after-ms": "20"}
    )
    async with serve(busy):
        failed = await failure(bench, model)
    assert failed.run_code == "provider_rate_limited"


async def test_a_providers_own_trouble_is_a_provider_error(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply(status=500, headers={"retry-after-ms": "10"})):
        assert (await failure(bench, model)).run_code == "provider_error"


async def test_a_stream_that_is_cut_keeps_the_text_and_is_reported(bench: Bench, serve: Serve, model: str) -> None:
    outcome = Outcome()
    async with serve(Reply("Half an ", "answer", cut=True)):
        with pytest.raises(RunFailed) as caught:
            await outcome.take(bench.events("hi", model=model))
    assert caught.value.run_code == "provider_network"
    assert outcome.text == "Half an answer"
    outcome.check(whole=False)


async def test_a_chunk_that_is_no_json_is_a_provider_error(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply("Half", malformed=True)):
        assert (await failure(bench, model)).run_code == "provider_error"


async def test_a_closed_port_is_a_network_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    provider = ScriptedProvider()
    async with provider:
        provider.point(monkeypatch)
    assert (await failure(bench, model)).run_code == "provider_network"


async def test_a_silent_provider_is_given_up(bench: Bench, serve: Serve, model: str) -> None:
    async with serve(Reply(hold_first=True)):
        failed = await failure(bench, model, limits=Limits(run_timeout=0.5))
    assert failed.run_code == "provider_network"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("mistral:mistral-large-latest", 'install "pydantic-ai-slim[mistral]"'),
        ("google:gemini-4-argon", 'install "navi-jupyter[google]"'),
        ("openai-chat:gpt-6-luna", "set OPENAI_API_KEY"),
        ("nonsense", "provider:model"),
        ("nobody:gpt", "no model provider 'nobody'"),
    ],
)
async def test_a_model_that_cannot_work_here_names_the_one_thing_to_do(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, model: str, says: str
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "MISTRAL_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        "navi_jupyter.agent.providers.catalog.has_package", lambda package: package in ("openai", "anthropic")
    )
    failed = await failure(bench, model)
    assert failed.run_code == "model_unavailable"
    assert says in failed.message


def test_nothing_heavy_is_imported_before_the_first_run() -> None:
    code = (
        "import sys; import navi_jupyter.agent.router as b; r = b.AgentRouter(); r.describe(); "
        "print([m for m in ('pydantic_ai','openai','anthropic','croniter') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"


def test_the_schema_of_stored_conversations_is_made_by_the_import_which_is_in_a_thread() -> None:
    code = (
        "import navi_jupyter.agent.run.runner\n"
        "from pydantic_ai.messages import ModelMessagesTypeAdapter as adapter\n"
        "print(adapter.pydantic_complete)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "True", "else the end of the first run makes it, on the loop"


@pytest.mark.parametrize("left", [False, True])
async def test_a_question_comes_after_the_events_that_were_emitted_before_it(bench: Bench, left: bool) -> None:
    """Also when the consumer of the turn has not taken them yet, or has left."""
    log: list[object] = []

    async def ask(asked: Ask) -> Interrupt:
        log.append(asked)
        raise LeaseLost("This test has no user.")

    _, context = bench.turn("x")
    queue = EventQueue(log.append)
    inside = queue.within(replace(context, ask=ask))
    emitted, question = Custom(name="navi.notice", value={}), Ask(kind=InterruptKind.APPROVAL, message="May I?")
    inside.emit(emitted)
    if left:
        queue.detach()

    async def consume() -> None:
        while (event := await queue.get()) is not None:
            log.append(event)

    consumer = asyncio.create_task(consume())
    assert inside.ask is not None
    with pytest.raises(LeaseLost):
        await inside.ask(question)
    assert log == [emitted, question]
    queue.close()
    await consumer
