"""Long conversations: what is left out on the way to a model; and what is left is valid, recent, and short enough."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_ai.exceptions import ModelContextWindowExceededError
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters

from navi_jupyter.agent.providers.models import RetryPolicy, build_model
from navi_jupyter.agent.run import context_window, summarizer
from navi_jupyter.agent.run.context_window import ContextWindowModel, fit, turn_starts
from navi_jupyter.agent.run.summarizer import Summaries, transcript
from navi_jupyter.agent.run.token_estimates import tokens_of, window_of
from navi_jupyter.errors import RunFailed
from navi_jupyter.model.sessions import Usage
from tests.support.providers import Reply, Serve

IMAGE = BinaryContent(data=b"\x89PNG" + b"0" * 100, media_type="image/png")

# --- conversations ---------------------------------------------------------------------------------------------------


def turn(
    number: int, *, prompt: str = "", outputs: Sequence[str] = (), image: bool = False, answer: str = "ok"
) -> list[ModelMessage]:
    """A user's message, a call for each output, an answer."""
    text = prompt or f"question {number}"
    messages: list[ModelMessage] = [
        ModelRequest(parts=[UserPromptPart(content=[text, IMAGE] if image else text)], run_id=f"u_{number}")
    ]
    for index, output in enumerate(outputs):
        call_id = f"call_{number}_{index}"
        messages += [
            ModelResponse(parts=[ToolCallPart(tool_name="look", args={"n": index}, tool_call_id=call_id)]),
            ModelRequest(parts=[ToolReturnPart(tool_name="look", content=output, tool_call_id=call_id)]),
        ]
    return [*messages, ModelResponse(parts=[TextPart(content=answer)])]


@st.composite
def conversations(draw: st.DrawFn) -> list[ModelMessage]:
    """Some turns and the beginning of one more: it may have got any way."""
    sizes = st.integers(0, 6000)
    messages: list[ModelMessage] = []
    if draw(st.booleans()):
        messages.append(ModelRequest(parts=[SystemPromptPart(content="Be brief."), UserPromptPart(content="hi")]))
        messages.append(ModelResponse(parts=[TextPart(content="hello")]))
    for number in range(draw(st.integers(0, 6))):
        outputs = ["x" * size for size in draw(st.lists(sizes, max_size=4))]
        prompt = "p" * draw(st.integers(1, 3000))
        messages += turn(number, prompt=prompt, outputs=outputs, image=draw(st.booleans()), answer="a" * draw(sizes))
    last = turn(99, prompt="last", outputs=["y" * size for size in draw(st.lists(sizes, max_size=4))])
    return messages + last[:-1]


def check_valid(messages: Sequence[ModelMessage]) -> None:
    """What providers ask for: the user begins, the sides take turns, calls have results and results have calls."""
    assert isinstance(messages[0], ModelRequest)
    assert any(isinstance(part, UserPromptPart) for part in messages[0].parts)
    kinds = [message.kind for message in messages]
    assert all(one != other for one, other in pairwise(kinds))
    waiting: set[str] = set()
    for message in messages:
        if isinstance(message, ModelRequest):
            answered = {part.tool_call_id for part in message.parts if isinstance(part, ToolReturnPart)}
            assert answered == waiting
            waiting = set()
        else:
            waiting = {part.tool_call_id for part in message.parts if isinstance(part, ToolCallPart)}
    assert not waiting


class Scribe:
    """Summarises, and counts."""

    def __init__(self, text: str = "They talked.") -> None:
        self.text = text
        self.asked: list[list[ModelMessage]] = []

    async def __call__(self, messages: Sequence[ModelMessage]) -> str:
        self.asked.append(list(messages))
        return self.text


def run(messages: Sequence[ModelMessage], limit: int, scribe: Scribe | None = None) -> list[ModelMessage]:
    return asyncio.run(fit(messages, limit=limit, summarize=scribe, summaries=Fresh()))


class Fresh(Summaries):
    """Knows nothing of other tests."""

    def __init__(self) -> None:
        super().__init__()
        self._shared = type(Summaries._shared)()


def dump(messages: Sequence[ModelMessage]) -> bytes:
    return ModelMessagesTypeAdapter.dump_json(list(messages))


many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(conversations(), st.integers(200, 12_000), st.booleans())
def test_what_comes_out_is_valid_and_short_enough(messages: list[ModelMessage], limit: int, summary: bool) -> None:
    check_valid(messages)
    before = dump(messages)
    trimmed = run(messages, limit, Scribe() if summary else None)
    check_valid(trimmed)
    assert dump(messages) == before, "what is kept and logged is never changed"
    shortest = run(messages, 1)
    assert tokens_of(trimmed) <= max(limit, tokens_of(shortest) + 60)


@many
@given(conversations(), st.integers(200, 12_000))
def test_the_last_turn_is_left_as_it_is_when_it_fits(messages: list[ModelMessage], limit: int) -> None:
    start = turn_starts(messages)[-1]
    last = messages[start:]
    trimmed = run(messages, limit, Scribe())
    kept = trimmed[len(trimmed) - len(last) :]
    assert kept[0].parts[-1] is last[0].parts[-1], "the user's words always are"
    if tokens_of(last) + 100 <= limit:
        assert [message.parts[-1] for message in kept] == [message.parts[-1] for message in last]
        assert all(new is old for new, old in zip(kept[1:], last[1:], strict=True))


@many
@given(conversations(), st.integers(200, 12_000))
def test_a_conversation_that_fits_is_the_same(messages: list[ModelMessage], limit: int) -> None:
    trimmed = run(messages, max(limit, tokens_of(messages)))
    assert len(trimmed) == len(messages)
    assert all(new is old for new, old in zip(trimmed, messages, strict=True))


@many
@given(conversations(), st.integers(400, 12_000))
def test_system_texts_survive(messages: list[ModelMessage], limit: int) -> None:
    def systems(messages: Sequence[ModelMessage]) -> list[str]:
        return [part.content for one in messages for part in one.parts if isinstance(part, SystemPromptPart)]

    assert systems(run(messages, limit, Scribe())) == systems(messages)


# --- in which order --------------------------------------------------------------------------------------------------


def test_old_outputs_and_images_are_cut_before_anything_is_summarised() -> None:
    messages = [*turn(1, outputs=["x" * 20_000], image=True), *turn(2), *turn(3), *turn(4)]
    scribe = Scribe()
    trimmed = run(messages, 2000, scribe)
    assert not scribe.asked
    text = dump(trimmed).decode()
    assert "19400 more characters were here" in text
    assert "image that was here is left out" in text
    assert "question 1" in text


def test_outputs_of_recent_turns_are_kept_as_long_as_that_is_enough() -> None:
    messages = [
        *turn(1, outputs=["x" * 8000]),
        *turn(2, outputs=["y" * 8000]),
        *turn(3, outputs=["z" * 8000]),
        *turn(4),
    ]
    text = dump(run(messages, 4700)).decode()
    assert "x" * 700 not in text
    assert "y" * 8000 in text
    assert "z" * 8000 in text


def test_the_oldest_turns_give_way_to_a_summary_of_them() -> None:
    messages = [message for number in range(20) for message in turn(number, prompt=f"question {number} " + "p" * 800)]
    scribe = Scribe("They asked much.")
    trimmed = run(messages, 2000, scribe)
    (asked,) = scribe.asked
    text = dump(trimmed).decode()
    assert "They asked much." in text
    assert "question 19 " in text
    assert "question 0 " not in text
    assert "question 0 " in dump(asked).decode()
    assert len(asked) + len(trimmed) == len(messages), "nothing is lost between the summary and the rest"


def test_without_a_summary_the_model_reads_that_something_is_left_out() -> None:
    messages = [message for number in range(20) for message in turn(number, prompt="p" * 800)]

    class Broken(Scribe):
        async def __call__(self, messages: Sequence[ModelMessage]) -> str:
            raise RunFailed("no", run_code="provider_error")

    for scribe in (None, Broken(), Scribe("")):
        assert "is left out here" in dump(run(messages, 2000, scribe)).decode()


def test_a_last_turn_that_is_too_long_loses_its_oldest_outputs_first() -> None:
    messages = turn(1, outputs=[letter * 6000 for letter in "abcdef"])[:-1]
    text = dump(run(messages, 3500)).decode()
    assert "a" * 700 not in text
    assert "f" * 6000 in text, "what the model has just asked for is there"
    assert tokens_of(run(messages, 900)) <= 900, "and in need that is cut, too"


async def test_a_summary_is_made_once_for_all_turns_that_follow() -> None:
    summaries, scribe = Fresh(), Scribe()
    messages = [message for number in range(20) for message in turn(number, prompt="p" * 800)]
    for number in range(20, 24):
        trimmed = await fit(messages, limit=2500, summarize=scribe, summaries=summaries)
        assert tokens_of(trimmed) <= 2500
        messages += turn(number)
    assert len(scribe.asked) == 1


async def test_a_later_summary_is_made_from_the_earlier_one() -> None:
    summaries, scribe = Fresh(), Scribe("THE FIRST")
    messages = [message for number in range(20) for message in turn(number, prompt=f"n{number} " + "p" * 800)]
    await fit(messages, limit=2500, summarize=scribe, summaries=summaries)
    messages += [message for number in range(20, 40) for message in turn(number, prompt=f"n{number} " + "p" * 800)]
    scribe.text = "THE SECOND"
    text = dump(await fit(messages, limit=2500, summarize=scribe, summaries=summaries)).decode()
    assert len(scribe.asked) == 2
    asked = dump(scribe.asked[1]).decode()
    assert "THE FIRST" in asked
    assert "n0 " not in asked
    assert "THE SECOND" in text
    assert "THE FIRST" not in text


async def test_a_summary_goes_along_with_the_conversation_over_a_restart() -> None:
    summaries, scribe = Fresh(), Scribe("KEPT")
    messages = [message for number in range(20) for message in turn(number, prompt="p" * 800)]
    await fit(messages, limit=2500, summarize=scribe, summaries=summaries)
    kept = json.loads(json.dumps(summaries.dump()))
    later = Fresh()
    later.load(kept)
    reread = ModelMessagesTypeAdapter.validate_json(dump(messages))
    assert "KEPT" in dump(await fit(reread, limit=2500, summarize=scribe, summaries=later)).decode()
    assert len(scribe.asked) == 1


@pytest.mark.parametrize("dumped", [None, 3, "x", [1], [{"covers": 1, "text": "x"}], {"covers": "a"}])
def test_what_is_no_summary_is_passed_over(dumped: object) -> None:
    summaries = Fresh()
    summaries.load(dumped)
    assert summaries.dump() == []


async def test_another_conversation_has_another_summary() -> None:
    summaries, scribe = Fresh(), Scribe()
    for letter in "pq":
        messages = [message for number in range(20) for message in turn(number, prompt=letter * 800)]
        await fit(messages, limit=2500, summarize=scribe, summaries=summaries)
    assert len(scribe.asked) == 2


def test_a_summary_is_cut_to_its_share() -> None:
    messages = [message for number in range(20) for message in turn(number, prompt="p" * 800)]
    assert tokens_of(run(messages, 2500, Scribe("blah " * 10_000))) <= 2500


# --- on the way to a provider ----------------------------------------------------------------------------------------

MODELS = ("openai-chat:some-model", "openai-responses:some-model", "anthropic:some-model", "google:some-model")
LONG = [m for n in range(30) for m in turn(n, prompt=f"question {n} " + "p" * 4000, outputs=["x" * 3000])]
NOW = ModelRequest(parts=[UserPromptPart(content="and now?")])


@pytest.fixture(autouse=True)
def _nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_window, "_corrections", {})
    monkeypatch.setattr(context_window, "_windows", {})


async def ask(name: str, messages: Sequence[ModelMessage], *, spent: Callable[[Usage], None] | None = None) -> str:
    model = ContextWindowModel(await build_model(name, policy=RetryPolicy(tries=1)), Fresh(), spent)
    async with model, model.request_stream(list(messages), None, ModelRequestParameters()) as stream:
        async for _ in stream:
            pass
        return "".join(part.content for part in stream.get().parts if isinstance(part, TextPart))


@pytest.mark.parametrize("model", MODELS)
async def test_a_long_conversation_is_summarised_by_the_same_model_and_every_provider_takes_the_rest(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    for module in (context_window, summarizer):
        monkeypatch.setattr(module, "window_of", lambda _: 10_000)
    spent: list[Usage] = []
    async with serve(Reply("THE SUMMARY", usage=(5000, 50)), Reply("Here.")) as provider:
        assert await ask(model, [*LONG, NOW], spent=spent.append) == "Here."
    summary, answer = (json.dumps(request.body) for request in provider.requests)
    assert "It is to be replaced by your summary" in summary
    assert "question 0 " in summary
    assert "THE SUMMARY" in answer
    assert "question 0 " not in answer
    assert "and now?" in answer
    assert len(answer) // 4 < 10_000 * 0.75
    (used,) = spent
    assert (used.input_tokens, used.output_tokens, used.requests) == (5000, 50, 1)


def refusal(model: str, window: int) -> Reply:
    if model.startswith("google"):
        text = f"The input token count (99999) exceeds the maximum number of tokens allowed ({window})."
    elif model.startswith("anthropic"):
        text = f"prompt is too long: 99999 tokens > {window} maximum"
    else:
        text = f"This model's maximum context length is {window} tokens."
    code = {"code": "context_length_exceeded"} if model.startswith("openai") else {}
    return Reply(status=400, error={"message": text, "type": "invalid_request_error", **code})


@pytest.mark.parametrize("model", MODELS)
async def test_what_the_provider_finds_too_long_is_trimmed_harder_and_tried_once_more(serve: Serve, model: str) -> None:
    async with serve(refusal(model, 8000), Reply("SUMMARY"), Reply("Here."), Reply("Again.")) as provider:
        assert await ask(model, [*LONG, NOW]) == "Here."
        first, _, second = (json.dumps(request.body) for request in provider.requests)
        assert len(second) < len(first) / 2
        assert "and now?" in second
        assert await ask(model, [*LONG, NOW])
    last = json.dumps(provider.requests[-1].body)
    assert len(last) // 4 < 8000, "the window that the provider told is known from then on"


async def test_it_is_tried_once_more_and_not_for_ever(serve: Serve) -> None:
    long = refusal(MODELS[0], 8)
    async with serve(long, Reply("SUMMARY"), long, long, long) as provider:
        with pytest.raises(ModelContextWindowExceededError):
            await ask(MODELS[0], [*LONG, NOW])
    assert len(provider.requests) == 3


async def test_where_nothing_can_be_left_out_the_provider_has_the_last_word(serve: Serve) -> None:
    async with serve(refusal(MODELS[0], 8)) as provider:
        with pytest.raises(ModelContextWindowExceededError):
            await ask(MODELS[0], [NOW])
    assert len(provider.requests) == 1


async def test_the_estimate_is_corrected_by_what_the_provider_counts(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (context_window, summarizer):
        monkeypatch.setattr(module, "window_of", lambda _: 100_000)
    messages = [*LONG[: len(LONG) // 2], NOW]
    counted = tokens_of(messages) * 3
    async with serve(Reply("One.", usage=(counted, 5)), Reply("SUMMARY", usage=(9, 9)), Reply("Two.")) as provider:
        assert await ask(MODELS[0], messages) == "One."
        await ask(MODELS[0], messages)
    first, last = provider.requests[0], provider.requests[-1]
    assert len(json.dumps(last.body)) < len(json.dumps(first.body))


async def test_the_window_is_the_models_or_what_is_set_for_it(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve():
        assert window_of(await build_model("anthropic:claude-haiku-5-5")) == 1_000_000
        assert window_of(await build_model("lab:nobody-knows-it")) == 128_000
        monkeypatch.setenv("NAVI_ENDPOINT_LAB_WINDOW", "5000")
        assert window_of(await build_model("lab:nobody-knows-it")) == 5000
        monkeypatch.setenv("OLLAMA_CONTEXT_LENGTH", "8192")
        assert window_of(await build_model("ollama:qwen3:8b")) == 8192


def test_a_transcript_is_bounded_and_keeps_both_ends() -> None:
    text = transcript(LONG, limit=3000)
    assert len(text) <= 3010
    assert text.startswith("User: question 0 ")
    assert text.endswith("Assistant: ok")


def test_a_huge_conversation_is_trimmed_quickly() -> None:
    messages = [m for n in range(2000) for m in turn(n, prompt="p" * 2000, outputs=["x" * 2000])]
    began = time.thread_time()
    run(messages, 50_000, Scribe())
    assert time.thread_time() - began < 3
