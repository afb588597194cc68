"""Calls of tools: whatever a tool does, the model is told and the run goes on; a stop reaches it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from navi_jupyter.agent.run.backend import PydanticAIBackend
from navi_jupyter.agent.tools.base import Tool, ToolOutput, tool
from navi_jupyter.agent.tools.result_text import LIMIT, render
from navi_jupyter.errors import KernelBusy, RunFailed
from navi_jupyter.events import ActivitySnapshot
from navi_jupyter.model.runs import Effect
from navi_jupyter.model.sessions import USER, Origin, OriginKind
from navi_jupyter.output_text import OutputImage
from navi_jupyter.ports.agent import tool_call, tool_context
from navi_jupyter.settings import Limits
from tests.support.agent_world import Bench, Outcome, agent_parts
from tests.support.providers import Call, Reply, ScriptedProvider

MODELS = ("openai-chat:gpt-6-luna", "anthropic:claude-haiku-5-5")
Serve = Callable[..., AbstractAsyncContextManager[ScriptedProvider]]
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 40


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    @asynccontextmanager
    async def serving(*script: Reply) -> AsyncIterator[ScriptedProvider]:
        async with ScriptedProvider(*script) as provider:
            provider.point(monkeypatch)
            yield provider

    return serving


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def bench_with(*tools: Tool) -> Bench:
    return Bench(PydanticAIBackend(agent_parts(*tools)))


def giving(content: Any, *, name: str = "get", effect: Effect = Effect.READ) -> Tool:
    """A tool that gives this, or raises it."""

    async def get() -> Any:
        """Get it."""
        if isinstance(content, BaseException):
            raise content
        return content

    return tool(get, effect, name=name)


async def told(serve: Serve, model: str, content: Any) -> tuple[Outcome, str]:
    """A run whose model calls a tool that gives this; and what the model then read."""
    bench = bench_with(giving(content))
    async with serve(Reply(calls=(Call("get", {}),)), Reply("Went on.")) as provider:
        outcome = await bench.run("go", model=model)
    assert outcome.text == "Went on."
    messages = provider.requests[1].body["messages"]
    return outcome, json.dumps(messages, ensure_ascii=False)


# --- what a tool gives -----------------------------------------------------------------------------------------------


async def test_a_tool_that_raises_is_reported_and_the_run_goes_on(serve: Serve, model: str) -> None:
    outcome, read = await told(serve, model, ValueError("no such column: 'prise'"))
    assert "tool_failed" in outcome.results[0]
    assert "no such column" in read


async def test_a_navi_error_is_reported_with_its_code(serve: Serve, model: str) -> None:
    outcome, read = await told(serve, model, KernelBusy("The kernel runs cell 3."))
    assert "kernel_busy" in outcome.results[0]
    assert "runs cell 3" in read


async def test_a_tool_that_cancels_itself_does_not_end_the_run(serve: Serve, model: str) -> None:
    outcome, _ = await told(serve, model, asyncio.CancelledError())
    assert "cancelled from within" in outcome.results[0]


async def test_a_secret_in_a_result_is_not_shown(serve: Serve, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_API_KEY", "hunter2hunter2hunter2")
    outcome, read = await told(serve, model, {"env": "PLANTED_API_KEY=hunter2hunter2hunter2"})
    assert "hunter2" not in outcome.results[0]
    assert "hunter2" not in read


async def test_fifty_megabytes_are_cut_with_their_head_and_tail(serve: Serve, model: str) -> None:
    text = "HEAD" + "x" * 50_000_000 + "TAIL"
    outcome, read = await told(serve, model, text)
    (result,) = outcome.results
    assert len(result) < LIMIT + 1000
    assert result.startswith("HEAD")
    assert result.endswith("TAIL")
    assert "50,000,008 characters" in result
    assert "Ask for a part" in read


async def test_binary_is_described_by_its_size(serve: Serve, model: str) -> None:
    outcome, read = await told(serve, model, bytes(range(256)) * 1000)
    assert outcome.results == ["(binary data, 256,000 bytes)"]
    assert "256,000" in read


async def test_text_that_no_parser_takes_is_made_readable(serve: Serve, model: str) -> None:
    outcome, _ = await told(serve, model, "a\x00b\ud800c")
    assert outcome.results == ["a\ufffdb\ufffdc"]


async def test_a_tool_that_reports_that_it_failed_is_marked_as_failed(serve: Serve) -> None:
    _, read = await told(serve, MODELS[1], ToolOutput(content="no kernel", failed=True))
    assert '"is_error": true' in read


def test_a_large_structure_is_pruned_before_it_is_encoded() -> None:
    text = render({"rows": [{"n": n} for n in range(1_000_000)], "blob": b"\x00" * 100, "after": "x" * 10**7})
    assert len(text) < LIMIT + 1000
    assert json.loads(render({"rows": list(range(20_000))}))["rows"][-1] == "… 15,002 more"


def test_a_structure_that_holds_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "…" in render(loop)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        (b"caf\xc3\xa9", "café"),
        ({"a": 1, 2: None}, '{"a": 1, "2": null}'),
        ({"s": {1}, "x": USER.kind, "e": ValueError("v")}, '{"s": [1], "x": "user", "e": "v"}'),
        (None, "null"),
    ],
)
def test_what_a_model_reads_of_a_result(content: Any, text: str) -> None:
    assert render(content) == text


def test_no_piece_of_a_secret_is_left_where_a_text_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "0123456789abcdef" * 4
    monkeypatch.setenv("PLANTED_API_KEY", secret)
    render(secret)  # looks at the environment
    text = render("x" * (int(LIMIT * 0.75) - 20) + secret + "y" * LIMIT)
    assert "0123456789" not in text


# --- pictures --------------------------------------------------------------------------------------------------------


async def test_a_picture_reaches_a_model_that_can_see(serve: Serve, model: str) -> None:
    shown = ToolOutput(content="a plot", images=(OutputImage(media_type="image/png", content=PNG),))
    outcome, read = await told(serve, model, shown)
    assert outcome.results == ["a plot"]
    assert "iVBORw0KGgo" in read


async def test_a_picture_is_left_out_with_a_note_for_a_model_that_cannot(serve: Serve) -> None:
    shown = ToolOutput(content="a plot", images=(OutputImage(media_type="image/png", content=PNG),))
    outcome, read = await told(serve, "openai-chat:gpt-3.5-turbo", shown)
    assert "cannot read images" in outcome.results[0]
    assert "iVBORw0KGgo" not in read


# --- who calls, and when ---------------------------------------------------------------------------------------------


async def test_a_tool_finds_its_call_and_what_it_emits_follows_that_call(serve: Serve, model: str) -> None:
    async def speak() -> str:
        """Speak."""
        call = tool_call.get()
        content: dict[str, Any] = {"toolCallId": call, "outputs": []}
        tool_context.get().emit(ActivitySnapshot(message_id="o_1", activity_type="navi.output", content=content))
        return "spoken"

    bench = bench_with(tool(speak, Effect.READ))
    async with serve(Reply(calls=(Call("speak", {}),)), Reply("Ok.")):
        outcome = await bench.run("go", model=model)
    kinds = [event.type for event in outcome.events]
    at = kinds.index("ACTIVITY_SNAPSHOT")
    assert kinds.index("TOOL_CALL_END") < at < kinds.index("TOOL_CALL_RESULT")
    start = outcome.events[kinds.index("TOOL_CALL_START")]
    assert outcome.events[at].content["toolCallId"] == start.tool_call_id  # type: ignore[attr-defined]


async def test_calls_that_only_read_run_at_the_same_time(serve: Serve, model: str) -> None:
    both = asyncio.Barrier(2)

    async def meet() -> str:
        """Return once two are here."""
        async with asyncio.timeout(10):
            await both.wait()
        return "met"

    bench = bench_with(tool(meet, Effect.READ))
    calls = (Call("meet", {}, id="call_0"), Call("meet", {}, id="call_1"))
    async with serve(Reply(calls=calls), Reply("Ok.")):
        outcome = await bench.run("go", model=model)
    assert outcome.results == ["met", "met"]


async def test_calls_that_change_something_run_one_after_another_in_their_order(serve: Serve, model: str) -> None:
    steps: list[str] = []

    async def step(name: str) -> str:
        """Do a step."""
        steps.append(f"begin {name}")
        for _ in range(5):
            await asyncio.sleep(0)
        steps.append(f"end {name}")
        return name

    bench = bench_with(tool(step, Effect.RUN))
    bench.session = bench.session.but(allowed_tools=("step",))
    calls = tuple(Call("step", {"name": name}, id=f"call_{name}") for name in "abc")
    async with serve(Reply(calls=calls), Reply("Ok.")):
        await bench.run("go", model=model)
    assert steps == [f"{what} {name}" for name in "abc" for what in ("begin", "end")]


async def test_a_tool_that_is_denied_is_not_called_and_the_model_reads_why(serve: Serve, model: str) -> None:
    called: list[int] = []

    async def danger() -> None:
        """Do it."""
        called.append(1)

    bench = bench_with(tool(danger, Effect.RUN))
    bench.session = bench.session.but(profile="watcher")
    # A recall's run under a profile that denies what would need it then then; the tool is offered all the same.
    bench.loop = PydanticAIBackend(agent_parts(tool(danger, Effect.RUN, name="run_code")))
    async with serve(Reply(calls=(Call("run_code", {}),)), Reply("Ok.")) as provider:
        outcome = await bench.run("go", model=model, origin=Origin(kind=OriginKind.RECALL, recall_id="r_1"))
    assert called == []
    assert outcome.asks == ()
    assert "denies what would need it then" in outcome.results[0]
    assert "denies what would need it then" in json.dumps(provider.requests[1].body)


async def test_an_unknown_tool_and_arguments_that_are_no_object_are_reported(serve: Serve, model: str) -> None:
    bench = bench_with()
    calls = (Call("no_such_tool", {}, id="call_0"), Call("current_time", ["x"], id="call_1"))  # type: ignore[arg-type]
    async with serve(Reply(calls=calls), Reply("Sorry.")):
        outcome = await bench.run("go", model=MODELS[0])
    assert len(outcome.results) == 2
    assert outcome.text == "Sorry."


async def test_a_model_that_never_gets_its_call_right_ends_by_the_limit_of_requests(serve: Serve) -> None:
    bench = bench_with()
    async with serve(Reply(calls=(Call("no_such_tool", {}),))) as provider:
        outcome = await bench.run("go", model=MODELS[0], limits=Limits(max_iterations=7, run_timeout=20))
    assert len(provider.requests) == 7
    assert outcome.result is not None
    assert outcome.result.failure is not None
    assert outcome.result.failure.code == "max_iterations"


# --- stop ------------------------------------------------------------------------------------------------------------


class Hanging:
    """A tool that hangs until it is cancelled, and then says so (or not)."""

    def __init__(self, *, says: bool) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self._says = says

    async def hang(self) -> str:
        """Hang."""
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self._says:
                tool_context.get().report_stop("kernel", "interrupted")
            self.ended.set()
            raise
        return "never"


def stops(events: list[Any]) -> list[str]:
    return [event.value["what"] for event in events if event.type == "CUSTOM" and event.name == "navi.stop"]


@pytest.mark.parametrize(("says", "what"), [(False, ["tool"]), (True, ["kernel"])])
async def test_a_stop_ends_a_tool_that_hangs_and_reports_what_it_reached(
    serve: Serve, model: str, says: bool, what: list[str]
) -> None:
    hanging = Hanging(says=says)
    bench = bench_with(tool(hanging.hang, Effect.READ))
    outcome = Outcome()
    async with serve(Reply("Working. ", calls=(Call("hang", {}),))):
        task = asyncio.create_task(outcome.take(bench.events("go", model=model)))
        await hanging.began.wait()
        bench.stop.set()
        task.cancel("stop")
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(hanging.ended.wait(), 2)
    assert not [one for one in asyncio.all_tasks() if one.get_name().startswith("navi-model")]
    assert stops([*outcome.events, *bench.straight]) == what
    usage = outcome.custom("navi.usage")
    assert usage[-1]["usage"]["requests"] == 1


async def test_a_tool_that_does_not_let_itself_be_cancelled_is_left_behind(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navi_jupyter.agent.run.backend._LINGER", 0.2)
    began, release = asyncio.Event(), asyncio.Event()

    async def cling() -> str:
        """Cling."""
        began.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        return "at last"

    bench = bench_with(tool(cling, Effect.READ))
    async with serve(Reply(calls=(Call("cling", {}),))):
        task = asyncio.create_task(Outcome().take(bench.events("go", model=MODELS[0])))
        await began.wait()
        bench.stop.set()
        task.cancel("stop")
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 3)
        release.set()
        left = [one for one in asyncio.all_tasks() if one.get_name().startswith("navi-model")]
        await asyncio.wait(left, timeout=3)


async def test_a_stop_in_mid_answer_reports_the_model_and_keeps_the_text(serve: Serve, model: str) -> None:
    bench = bench_with()
    outcome = Outcome()
    said = asyncio.Event()

    async def consume() -> None:
        async for item in bench.events("go", model=model):
            outcome.add(item)
            if outcome.text:
                said.set()

    async with serve(Reply("Partial", hold_end=True)) as provider:
        task = asyncio.create_task(consume())
        await said.wait()
        bench.stop.set()
        task.cancel("stop")
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for((await provider.request()).closed.wait(), 5)
    assert outcome.text == "Partial"
    assert stops([*outcome.events, *bench.straight]) == ["model"]


async def test_a_run_that_ends_otherwise_reports_no_stop(serve: Serve, model: str) -> None:
    bench = bench_with()
    async with serve(Reply("Partial", hold_end=True)):
        events = bench.events("go", model=model)
        await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
    assert stops(bench.straight) == []


# --- answers of every kind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [Reply(), Reply(""), Reply(reasoning="only thoughts")])
async def test_an_empty_answer_is_an_answer(serve: Serve, model: str, reply: Reply) -> None:
    bench = bench_with(giving("x"))
    async with serve(Reply(calls=(Call("get", {}),)), reply, Reply("again")) as provider:
        outcome = await bench.run("go", model=model)
    assert len(provider.requests) == 2, "nobody pays for another try"
    assert outcome.result is not None
    assert outcome.result.failure is None


async def test_a_filter_of_the_provider_ends_the_run_clearly(serve: Serve, model: str) -> None:
    bench = bench_with()
    async with serve(Reply(filtered=True)) as provider:
        with pytest.raises(RunFailed) as caught:
            await bench.run("go", model=model)
    assert caught.value.run_code == "content_refused"
    assert len(provider.requests) == 1


async def test_a_filter_in_mid_answer_keeps_the_text(serve: Serve, model: str) -> None:
    bench = bench_with()
    async with serve(Reply("As far as", filtered=True)):
        outcome = await bench.run("go", model=model)
    assert outcome.text == "As far as"


async def test_a_models_own_refusal_ends_the_run_without_another_try(serve: Serve) -> None:
    bench = bench_with()
    async with serve(Reply(refusal="I can not help with that.")) as provider:
        with pytest.raises(RunFailed) as caught:
            await bench.run("go", model=MODELS[0])
    assert caught.value.run_code == "content_refused"
    assert len(provider.requests) == 1
