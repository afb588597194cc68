"""Text that goes to the log ahead of pydantic-ai: the log and the conversation are those of the usual way, event for
event, whatever the provider sends and wherever its bytes are split."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import httpx2
import pytest
from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

from navi_jupyter.agent.providers import sse_coalescing
from navi_jupyter.agent.providers.sse_coalescing import CoalescedStream, DirectText
from navi_jupyter.agent.run.backend import PydanticAIBackend
from navi_jupyter.agent.run.event_translation import Translator
from navi_jupyter.agent.run.graph import _GraphRun
from navi_jupyter.errors import RunFailed
from navi_jupyter.event_redaction import EventRedactor
from navi_jupyter.orchestrator.event_writer import merge_deltas
from tests.agent.test_sse_coalescing import Script, chat, event
from tests.support.agent_world import Bench, Outcome, agent_parts
from tests.support.providers import KEY, Reply, ScriptedProvider

WORDS = (
    "Hello ", "world", " 3 < 4", "\n\n", " ", "", "<think>", "</think>", "<br>", "größer ", "👩\u200d🔬",
    "<\u200d", "|im_start|>",
    "\u200b", "\\", '"quoted"', "\t", "\x7f", KEY[:9], KEY[9:20], KEY[20:],
    "a" * 300, "half \ud83d", "\ude00 pair", "\x00",
)  # fmt: skip


class Chat:
    """OpenAI's chat completions."""

    model = "openai-chat:gpt-6-luna"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._more = rng.choice(({}, {"usage": None}, {"obfuscation": True}))

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        body = {"id": "c", "object": "chat.completion.chunk", "created": 1795000000, "model": "scripted"}
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        varying = {"obfuscation": "x" * self._rng.randrange(9)} if self._more.get("obfuscation") else self._more
        return event({**body, "choices": choices, **varying, **more})

    def begin(self) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})

    def text(self, pieces: Sequence[str]) -> Iterator[bytes]:
        return (self._chunk({"content": piece}) for piece in pieces)

    def reasoning(self, pieces: Sequence[str]) -> Iterator[bytes]:
        return (self._chunk({"reasoning_content": piece}) for piece in pieces)

    def call(self, number: int) -> Iterator[bytes]:
        head = {"index": number, "id": f"call_{number}", "function": {"name": "current_time", "arguments": "{"}}
        yield self._chunk({"tool_calls": [head]})
        yield self._chunk({"tool_calls": [{"index": number, "function": {"arguments": "}"}}]})

    def between(self) -> bytes:
        return self._rng.choice((b": keep-alive\n\n", self._chunk({}), self._chunk({"content": "x"}, logprobs={})))

    def end(self, *, called: bool) -> Iterator[bytes]:
        yield self._chunk({}, "tool_calls" if called else "stop")
        yield event({"id": "c", "choices": [], "model": "scripted", "usage": {
            "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}})  # fmt: skip
        yield b"data: [DONE]\n\n"

    def error(self) -> bytes:
        return event({"error": {"message": "overloaded", "code": 503}})


class Anthropic:
    """Anthropic's messages; blocks may be open beside each other."""

    model = "anthropic:claude-haiku-5-5"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._index = -1

    def _frame(self, kind: str, **body: Any) -> bytes:
        return event({"type": kind, **body}, kind)

    def begin(self) -> Iterator[bytes]:
        message = {"id": "m", "type": "message", "role": "assistant", "model": "scripted", "content": [],
                   "stop_reason": None, "stop_sequence": None,
                   "usage": {"input_tokens": 3, "output_tokens": 1}}  # fmt: skip
        yield self._frame("message_start", message=message)

    def _block(self, block: dict[str, Any], deltas: Sequence[dict[str, Any]]) -> Iterator[bytes]:
        self._index += 1
        yield self._frame("content_block_start", index=self._index, content_block=block)
        for delta in deltas:
            yield self._frame("content_block_delta", index=self._index, delta=delta)
        yield self._frame("content_block_stop", index=self._index)

    def text(self, pieces: Sequence[str]) -> Iterator[bytes]:
        return self._block({"type": "text", "text": ""}, [{"type": "text_delta", "text": one} for one in pieces])

    def reasoning(self, pieces: Sequence[str]) -> Iterator[bytes]:
        deltas = [{"type": "thinking_delta", "thinking": one} for one in pieces]
        sign = {"type": "signature_delta", "signature": "c2ln"}
        return self._block({"type": "thinking", "thinking": "", "signature": ""}, [*deltas, sign])

    def call(self, number: int) -> Iterator[bytes]:
        block = {"type": "tool_use", "id": f"call_{number}", "name": "current_time", "input": {}}
        return self._block(block, [{"type": "input_json_delta", "partial_json": one} for one in ("{", "}")])

    def between(self) -> bytes:
        return self._frame("ping")

    def end(self, *, called: bool) -> Iterator[bytes]:
        delta = {"stop_reason": "tool_use" if called else "end_turn", "stop_sequence": None}
        yield self._frame("message_delta", delta=delta, usage={"output_tokens": 9})
        yield self._frame("message_stop")

    def error(self) -> bytes:
        return self._frame("error", error={"type": "overloaded_error", "message": "overloaded"})


class Responses:
    """OpenAI's responses: two items may be written at once."""

    model = "openai-responses:gpt-6-luna"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._number = self._index = -1

    def _frame(self, kind: str, **body: Any) -> bytes:
        self._number += 1
        return event({"type": kind, "sequence_number": self._number, **body}, kind)

    def _response(self, status: str, **more: Any) -> dict[str, Any]:
        return {"id": "r", "object": "response", "created_at": 1795000000, "model": "scripted", "status": status,
                "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], **more}  # fmt: skip

    def begin(self) -> Iterator[bytes]:
        yield self._frame("response.created", response=self._response("in_progress"))

    def _add(self, item: dict[str, Any]) -> dict[str, Any]:
        self._index += 1
        self._item = {"id": f"i_{self._index}", **item}
        return {"item_id": self._item["id"], "output_index": self._index}

    def text(self, pieces: Sequence[str]) -> Iterator[bytes]:
        where = self._add({"type": "message", "role": "assistant", "status": "in_progress", "content": []})
        yield self._frame("response.output_item.added", output_index=self._index, item=self._item)
        part = {"type": "output_text", "text": "", "annotations": []}
        yield self._frame("response.content_part.added", **where, content_index=0, part=part)
        for piece in pieces:
            yield self._frame("response.output_text.delta", **where, content_index=0, delta=piece, logprobs=[])

    def reasoning(self, pieces: Sequence[str]) -> Iterator[bytes]:
        where = {**self._add({"type": "reasoning", "summary": []}), "summary_index": 0}
        yield self._frame("response.output_item.added", output_index=self._index, item=self._item)
        part = {"type": "summary_text", "text": ""}
        yield self._frame("response.reasoning_summary_part.added", **where, part=part)
        for piece in pieces:
            yield self._frame("response.reasoning_summary_text.delta", **where, delta=piece)
        whole = {**self._item, "summary": [{"type": "summary_text", "text": "".join(pieces)}]}
        yield self._frame("response.output_item.done", output_index=self._index, item=whole)

    def call(self, number: int) -> Iterator[bytes]:
        item = {"type": "function_call", "call_id": f"call_{number}", "name": "current_time", "arguments": "",
                "status": "in_progress"}  # fmt: skip
        where = self._add(item)
        yield self._frame("response.output_item.added", output_index=self._index, item=self._item)
        yield self._frame("response.function_call_arguments.delta", **where, delta="{}")
        yield self._frame("response.function_call_arguments.done", **where, arguments="{}", name="current_time")
        done = {**self._item, "arguments": "{}", "status": "completed"}
        yield self._frame("response.output_item.done", output_index=self._index, item=done)

    def between(self) -> bytes:
        return b": keep-alive\n\n"

    def end(self, *, called: bool) -> Iterator[bytes]:
        usage = {"input_tokens": 3, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 4,
                 "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 7}  # fmt: skip
        yield self._frame("response.completed", response=self._response("completed", usage=usage))

    def error(self) -> bytes:
        return self._frame("error", param=None, code="server_error", message="overloaded")


def stream(rng: random.Random, api: Any) -> tuple[list[bytes], bool]:
    """One answer as the provider's events, and whether the connection breaks at its end."""
    provider = api(rng)
    events = [*provider.begin()]
    calls, strange = 0, rng.choice((0.02, 0.1, 0.6))
    for _ in range(rng.randrange(1, 5)):
        kind = rng.choices(("text", "reasoning", "call"), (5, 2, 1))[0]
        if kind == "call":
            events += provider.call(calls)
            calls += 1
            continue
        count = rng.randrange(60)
        pieces = [rng.choice(WORDS) if rng.random() < strange else f"word{number} " for number in range(count)]
        part = list(getattr(provider, kind)(pieces))
        if rng.random() < 0.3:
            part.insert(rng.randrange(len(part) + 1), provider.between())
        if rng.random() < 0.2 and kind == "text":  # two parts at once
            other = list(provider.text(["beside "] * 5))
            middle = len(part) // 2
            pairs = zip(part[middle:], other, strict=False)
            part = [*part[:middle], *(one for pair in pairs for one in pair), *part[middle + len(other) :],
                    *other[len(part) - middle :]]  # fmt: skip
        events += part
    match rng.choices(("end", "no end", "cut", "error", "malformed"), (6, 1, 1, 1, 1))[0]:
        case "end":
            return [*events, *provider.end(called=calls > 0)], False
        case "no end":
            return events, False
        case "cut":
            return [*events, events[-1][: len(events[-1]) // 2]], True
        case "error":
            return [*events, provider.error()], False
        case _:
            return [*events, b'data: {"id": "c", "choices": [{"de\n\n'], False


def split(rng: random.Random, events: Sequence[bytes]) -> list[bytes]:
    """The bytes of these in pieces that end anywhere."""
    data = b"".join(events)
    ends = sorted(rng.sample(range(1, len(data)), min(len(data) - 1, rng.randrange(10, 50))))
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


class Ways:
    """The two ways of a text, chosen by the run: its prompt says which."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written = 0
        write = _GraphRun._write

        def chosen(run: _GraphRun, text: str) -> bool:
            if "usual way" in str(run.task.prompt) or not write(run, text):
                return False
            self.written += 1
            return True

        monkeypatch.setattr(_GraphRun, "_write", chosen)
        monkeypatch.setattr(sse_coalescing, "_SHORTEST_PAUSE", 0.001)
        monkeypatch.setattr(sse_coalescing, "_READS_PER_SECOND", 10**6)
        monkeypatch.setattr(sse_coalescing, "_HELD", 0.03)


async def outcome_of(prompt: str, model: str) -> list[str]:
    """What comes of a run: its log as it is folded and redacted, its conversation, usage, and how it ended."""
    bench, outcome = Bench(PydanticAIBackend(agent_parts())), Outcome()
    ended = ""
    try:
        await outcome.take(bench.events(prompt, model=model))
    except RunFailed as error:
        ended = f"{error.run_code}: {error.message}"
    redactor = EventRedactor()
    passed = [one for event in [*outcome.events, *bench.straight] for one in redactor.passed(event)]
    found = [ended, *(one.wire() for one in merge_deltas([*passed, *redactor.rest()]))]
    if (result := outcome.result) is not None:
        found += [str((result.usage, result.failure, result.notice))]
        conversation = json.loads(result.conversation)["messages"]
        found += [json.dumps(part) for message in conversation for part in message["parts"]]
        found += [json.dumps([message.get("usage"), message.get("finish_reason")]) for message in conversation]
    ids: dict[str, str] = {}
    text = re.sub(r"\b[mt]_\w+", lambda found: ids.setdefault(found[0], f"id{len(ids)}"), "\n".join(found))
    return re.sub(r"\d{4}-\d\d-\d\d\S*|\d\d:\d\d\S*|(usual|direct) way", "", text).split("\n")


@pytest.mark.parametrize("api", [Chat, Anthropic, Responses])
async def test_a_stream_gives_the_same_log_and_conversation_as_without_the_direct_way(
    monkeypatch: pytest.MonkeyPatch, api: Any
) -> None:
    ways = Ways(monkeypatch)
    for first in range(0, 12, 4):
        seeds = range(first, first + 4)
        replies = [reply for seed in seeds for reply in replies_of(seed, api)]
        async with ScriptedProvider(*replies, Reply("That is the time.")) as provider:
            provider.point(monkeypatch)
            both = await asyncio.gather(
                *(outcome_of(f"{name(seed)} {way} way", api.model) for seed in seeds for way in ("direct", "usual"))
            )
        for seed, direct, usual in zip(seeds, both[::2], both[1::2], strict=True):
            differing = [pair for pair in zip(direct, usual, strict=False) if pair[0] != pair[1]]
            assert not differing, f"seed {seed}: {differing[0]}"
            assert len(direct) == len(usual)
    assert ways.written > 30, "most of the streams went directly for a part of the way"


def name(seed: int) -> str:
    return f"[stream {seed:04}]"


def replies_of(seed: int, api: Any) -> Iterator[Reply]:
    """The answer for each way: the same events, split by chance."""
    rng = random.Random(seed)
    events, cut = stream(rng, api)
    for way in ("direct", "usual"):
        yield Reply(pieces=split(rng, events), delay=0.003, cut=cut, when=f"{name(seed)} {way} way")


class Packages:
    """What reads a stream, in place of the packages: notes the text that is written directly, and what it gets."""

    def __init__(self) -> None:
        self.log = ""  # as the user sees it
        self.ahead = ""
        self.writes = 0
        self.events: list[bytes] = []
        self._read = ""
        self._given: str | None = None

    def given(self, text: str | None) -> None:
        self._given, self._read = text, ""

    def write(self, text: str) -> bool:
        if not self._given or not self._read.endswith(self._given):
            return False
        self.log += text
        self.ahead += text
        self.writes += 1
        return True

    async def read(self, *pieces: bytes | float | Exception) -> None:
        stream = CoalescedStream(Script(*pieces), DirectText(given=self.given, write=self.write))
        async with aclosing(stream):
            async for data in stream:
                self.take(data)

    def take(self, data: bytes) -> None:
        for one in data.split(b"\n\n")[:-1]:
            self.events.append(one)
            if b'"content": ' not in one:
                assert not self.ahead, "all text before an event that is none has been passed on"
                continue
            text = json.loads(one[6:])["choices"][0]["delta"]["content"]
            self._read += text
            assert text.startswith(self.ahead)
            self.log += text.removeprefix(self.ahead)
            self.ahead = ""


END = event({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


@pytest.mark.parametrize("whole", [False, True])
async def test_wherever_the_bytes_are_split_the_text_is_written_once_and_the_packages_get_all_of_it(
    monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr(sse_coalescing, "read_whole", lambda _: whole)
    monkeypatch.setattr(sse_coalescing, "_SHORTEST_PAUSE", 0.0)
    monkeypatch.setattr(sse_coalescing, "_READING", 0.0)
    first, body = chat("a") + chat("b"), chat("größer ") + chat("c", created=1) + chat('"') + END

    async def split_at(at: int) -> Packages:
        packages = Packages()
        await packages.read(first, 0.001, body[:at], 0.001, body[at:])
        return packages

    for packages in await asyncio.gather(*map(split_at, range(len(body) + 1))):
        assert packages.log == 'abgrößer c"'
        assert not packages.ahead
        assert packages.events[-1] == END.removesuffix(b"\n\n")
        assert packages.writes


async def test_the_packages_get_what_was_written_after_some_seconds_and_before_a_connection_breaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packages = Packages()
    texts = [piece for _ in range(20) for piece in (chat("b"), 0.02)]
    with pytest.raises(httpx2.ReadError):
        await packages.read(chat("a"), 0.05, *texts, httpx2.ReadError("cut"))
    assert packages.log == "a" + "b" * 20
    assert not packages.ahead
    assert len(packages.events) == 2, "one event for all that was written"
    monkeypatch.setattr(sse_coalescing, "_HELD", 0.01)
    steps: list[str] = []
    pause, passed = CoalescedStream._pause, sse_coalescing._Texts.passed

    def noted(texts: sse_coalescing._Texts, events: bytes) -> bytes:
        steps.append("events" if events else "nothing")
        return passed(texts, events)

    async def rest(stream: CoalescedStream) -> None:
        steps.append("pause")
        await pause(stream)

    monkeypatch.setattr(sse_coalescing._Texts, "passed", noted)
    monkeypatch.setattr(CoalescedStream, "_pause", rest)
    packages = Packages()
    await packages.read(chat("a"), 0.05, chat("b"), 0.1, chat("c"), 0.1)
    assert len(packages.events) == 3
    assert "nothing" in steps, "held text was due"
    assert ("nothing", "pause") not in itertools.pairwise(steps), "what is read then waits for no other pause"


async def test_what_packages_may_change_or_take_for_a_tag_is_not_written_ahead_of_them() -> None:
    packages = Packages()
    odd = ("b\u200bc", "<think>", " ", "in a thought", "</think>", "<\u200d", "|im_start|>", " ")
    await packages.read(chat("a"), 0.05, *(part for text in odd for part in (chat(text), 0.05)), END)
    assert packages.log == "a" + "".join(odd)
    assert packages.writes == 1, "the space after a text; one at the beginning may be dropped"
    assert [one for one in packages.events if b"think" in one] == [
        chat(text).removesuffix(b"\n\n") for text in ("<think>", "</think>")
    ], "a tag is an event of its own"


def test_text_that_comes_back_as_another_is_not_dropped_and_no_more_goes_ahead() -> None:
    translator = Translator()
    events = [*translator.translate(PartStartEvent(index=0, part=TextPart("a")))]
    translator.given("b")
    events += translator.translate(PartDeltaEvent(index=0, delta=TextPartDelta("b")))
    assert translator.can_go_ahead
    events += translator.ahead("c")
    events += translator.translate(PartDeltaEvent(index=0, delta=TextPartDelta("x")))
    translator.given("d")
    events += translator.translate(PartDeltaEvent(index=0, delta=TextPartDelta("d")))
    assert not translator.can_go_ahead
    assert [getattr(one, "delta", "") for one in events] == ["", "a", "b", "c", "x", "d"]
    assert [*translator.end_response()]
    translator.translate(PartStartEvent(index=0, part=TextPart("a")))


def steps_of_reader(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What its reader takes of a stream whose reads get all that has come, each time that it is woken."""
    monkeypatch.setattr(sse_coalescing, "read_whole", lambda _: True)
    monkeypatch.setattr(sse_coalescing, "_SHORTEST_PAUSE", 0.001)
    steps: list[bytes] = []
    passed = sse_coalescing._Texts.passed

    def noted(texts: sse_coalescing._Texts, events: bytes) -> bytes:
        steps.append(events)
        return passed(texts, events)

    monkeypatch.setattr(sse_coalescing._Texts, "passed", noted)
    return steps


async def test_who_reads_a_stream_is_not_woken_while_only_text_comes_and_gets_what_is_else_after_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps, packages = steps_of_reader(monkeypatch), Packages()
    body = b"".join(chat(f"{number} ") for number in range(60))
    middle, other = chat("c", created=1, id="d"), event({"choices": [{"index": 0, "delta": {"tool_calls": [1]}}]})
    pieces = [part for at in range(0, len(body), 70) for part in (body[at : at + 70], 0.002)]  # ends within events
    await packages.read(chat("a"), 0.05, *pieces, 0.05, chat("b") + other + chat("x"), 0.05, middle, END)
    assert packages.log == "a" + "".join(f"{number} " for number in range(60)) + "bxc"
    assert packages.writes > 20
    assert steps[:2] == [chat("a"), other + chat("x")], "not for the text, nor for what was a part of an event"
    assert len(steps) <= 5
    assert json.loads(packages.events[1][6:])["choices"][0]["delta"]["content"].endswith("59 b"), "then all of it"
    assert packages.events[2] == other.removesuffix(b"\n\n")


async def test_an_event_that_is_too_large_ends_a_stream_whose_reader_sleeps_and_the_text_before_it_is_written_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps_of_reader(monkeypatch)
    packages, large, read = Packages(), b"data: " + b"x" * 2**20, list[int]()
    add = sse_coalescing.WellFormedEvents.add

    def counted(events: sse_coalescing.WellFormedEvents, data: bytes) -> bytes:
        read.append(len(data))
        return add(events, data)

    monkeypatch.setattr(sse_coalescing.WellFormedEvents, "add", counted)
    with pytest.raises(RunFailed) as failed:
        await packages.read(chat("a"), 0.05, chat("b"), 0.02, chat("c"), 0.02, *[large] * 40, chat("never"), END)
    assert failed.value.run_code == "answer_too_long"
    assert packages.log == "abc"
    assert sum(read) < 12 * 2**20, "no more is read"


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_no_text_is_written_once_a_run_is_to_end_though_its_task_has_not_left_the_stream(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    bench, outcome = Bench(PydanticAIBackend(agent_parts())), Outcome()
    ahead, count = sse_coalescing._Texts.ahead, itertools.count()

    def ending(texts: sse_coalescing._Texts, events: bytes) -> bytes:
        if b"last" in events:  # in the turn of the loop in which the stream is read
            if how == "stopped":
                bench.stop.set()
            else:
                run = next(task for task in asyncio.all_tasks() if task.get_name() == "navi-model-u_now")
                run.cancel()
        elif events:
            next(count)
        return ahead(texts, events)

    monkeypatch.setattr(sse_coalescing._Texts, "ahead", ending)
    events = Chat(random.Random(3))
    pieces = [*events.begin(), *events.text(["first ", "second ", "third "]), *events.text(["last "] * 9)]
    async with ScriptedProvider(Reply(pieces=pieces, delay=0.1)) as provider:
        provider.point(monkeypatch)
        with suppress(asyncio.CancelledError):
            await outcome.take(bench.events("hi", model=Chat.model))
    texts = [one.delta for one in [*outcome.events, *bench.straight] if one.type == "TEXT_MESSAGE_CONTENT"]  # type: ignore[attr-defined]
    assert "".join(texts) == "first second third "
    assert next(count) > 0, "text was written while the run's task slept"


async def test_many_streams_rest_until_the_same_moments_and_few_for_as_long_as_each_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    for streams, moments in ((5, 1000), (50, 52), (200, 202)):
        monkeypatch.setattr(sse_coalescing, "_open", streams)
        due = set[float]()
        for now in range(1000):
            with monkeypatch.context() as at:
                at.setattr(loop, "time", lambda now=now: 7.0 + now / 1000)
                rest = sse_coalescing._rest()
            assert 0 < rest < 1.6 * sse_coalescing.pause_of(streams)
            due.add(round(7.0 + now / 1000 + rest, 6))
        assert len(due) <= moments + 10
        assert streams > 10 or len(due) == 1000
