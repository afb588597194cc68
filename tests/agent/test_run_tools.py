"""A program calls the tools of a run: as Navi's own agent does, under the same rules, in the same log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from navi_jupyter.agent.acp.run_tools import ASKS, ProgramRun, ProgramTools, program_run
from navi_jupyter.agent.program_calls import ProgramCallBackend, ProgramCalls
from navi_jupyter.agent.registry import AgentParts
from navi_jupyter.agent.tools.base import Tool, ToolOutput, tool
from navi_jupyter.agent.tools.call_details import CallDescription
from navi_jupyter.agent.tools.permissions import ToolPermissions
from navi_jupyter.errors import ToolUnavailable
from navi_jupyter.events import ActivityDelta, ActivitySnapshot, Event
from navi_jupyter.model.runs import ClientTool, Effect, Permission
from navi_jupyter.model.sessions import Origin, OriginKind
from navi_jupyter.output_text import OutputImage
from navi_jupyter.ports.agent import Ask, ToolContext, Turn, TurnResult, tool_call, tool_context
from navi_jupyter.ports.run_tools import CallResult, RunToolsRegistry
from navi_jupyter.redaction import remember
from tests.support.agent_world import Bench, Outcome, agent_parts, answered
from tests.support.agui import check_bodies

Script = Callable[[ProgramRun], Awaitable[object]]
SECRET = "sk-run-tools-0123456789abcdef"


class Program:
    """An agent loop that is a program: what it does in a run is a function of the test's."""

    def __init__(self, parts: AgentParts, script: Script, tools: ProgramTools | None = None) -> None:
        self.parts = parts
        self.script = script
        self.tools = tools

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        run = await program_run(turn, context, self.parts)
        if self.tools is None:
            async with run:
                await self.script(run)
        else:
            async with self.tools.working_on(run):
                await self.script(run)
        yield TurnResult(conversation=b"{}", failure=run.failure)


def bench_of(script: Script, *tools: Tool, ceiling: dict[str, Permission] | None = None) -> Bench:
    parts = agent_parts(*tools)
    if ceiling is not None:
        parts = AgentParts(
            profiles=parts.profiles,
            permissions=ToolPermissions(ceiling=ceiling),
            contexts=parts.contexts,
            sources=parts.sources,
        )
    return Bench(Program(parts, script))


def ignore(_message: str) -> None: ...


def greeting(effect: Effect = Effect.READ, **more: Any) -> Tool:
    async def greet(name: str = "you") -> str:
        """Greet."""
        return f"Hello {name}, in {tool_call.get()}."

    return tool(greet, effect, **more)


def calls_of(bench: Bench) -> Outcome:
    """The log of the run, checked against AG-UI."""
    check_bodies(bench.straight, whole=True)
    outcome = Outcome()
    outcome.events = list(bench.straight)
    return outcome


async def test_a_call_of_a_program_stands_in_the_log_as_one_of_navis_own_agent() -> None:
    results: list[CallResult] = []

    async def script(run: ProgramRun) -> None:
        assert "greet" in {one.name for one in run.offered()}
        assert "delegate" not in {one.name for one in run.offered()}
        results.append(await run.call("greet", {"name": "Ada"}, progress=ignore))
        results.append(await run.call("greet", {"unknown": 1}, progress=ignore))
        results.append(await run.call("no_such_tool", {}, progress=ignore))

    bench = bench_of(script, greeting())
    await bench.run("go")
    log = calls_of(bench)
    assert log.tools == ["greet", "greet"]
    assert json.loads(log.args[: len('{"name": "Ada"}')]) == {"name": "Ada"}
    assert results[0].text == log.results[0]
    assert results[0].text.startswith("Hello Ada, in t")
    assert not results[0].failed
    assert "invalid_arguments" in results[1].text
    assert results[1].failed
    assert "tool_not_found" in results[2].text
    assert "greet" in results[2].text


async def test_a_call_asks_the_user_who_may_change_it_refuse_it_or_allow_the_tool_for_the_session() -> None:
    results: list[CallResult] = []
    progress: list[str] = []
    answers = [
        {"approved": True, "args": {"name": "Eve"}},
        {"approved": False, "message": "not now"},
        {"approved": True, "always": "session"},
    ]
    asks: list[Ask] = []

    async def ask(one: Ask) -> Any:
        asks.append(one)
        return answered(one, answers[len(asks) - 1])

    async def script(run: ProgramRun) -> None:
        for _ in range(4):
            results.append(await run.call("greet", {"name": "Ada"}, progress=progress.append))

    async def described(args: Any, context: ToolContext) -> CallDescription:
        return CallDescription()

    bench = bench_of(script, greeting(Effect.RUN, describes=described))
    bench.ask = ask
    await bench.run("go")
    assert results[0].text.startswith("(The user changed the arguments.")
    assert "Hello Eve" in results[0].text
    assert "not now" in results[1].text
    assert results[1].failed
    assert [result.failed for result in results[2:]] == [False, False]
    assert len(asks) == 3, "allowed for the session, it does not ask again"
    assert asks[0].tool == "greet"
    assert asks[0].args == {"name": "Ada"}
    assert progress == [ASKS] * 3
    started = [event for event in calls_of(bench).events if event.type == "TOOL_CALL_START"]
    assert [one.tool_call_id for one in asks] == [event.tool_call_id for event in started[:3]]  # type: ignore[attr-defined]


async def test_what_was_changed_since_the_user_was_asked_is_not_done() -> None:
    prints = iter(["one", "two"])

    async def described(args: Any, context: ToolContext) -> CallDescription:
        return CallDescription(fingerprint=next(prints))

    async def ask(one: Ask) -> Any:
        return answered(one, {"approved": True})

    results: list[CallResult] = []

    async def script(run: ProgramRun) -> None:
        results.append(await run.call("greet", {}, progress=ignore))

    bench = bench_of(script, greeting(Effect.RUN, describes=described))
    bench.ask = ask
    await bench.run("go")
    assert "changed_since_asked" in results[0].text


async def test_the_ceiling_and_a_recall_without_leave_refuse_a_call_with_the_reason() -> None:
    results: list[CallResult] = []

    async def script(run: ProgramRun) -> None:
        results.append(await run.call("greet", {}, progress=ignore))

    bench = bench_of(script, greeting(Effect.RUN), ceiling={"greet": Permission.DENY})
    await bench.run("go")
    assert "not_allowed" in results[0].text
    assert "administrator" in results[0].text

    bench = bench_of(script, greeting(Effect.RUN))
    outcome = await bench.run("go", origin=Origin(kind=OriginKind.RECALL, recall_id="none"))
    assert results[1].failed
    assert outcome.result is not None
    assert outcome.result.failure is not None
    assert outcome.result.failure.code == "needed_approval"


async def test_a_stop_ends_a_call_and_its_program_gets_a_result() -> None:
    began, ended = asyncio.Event(), asyncio.Event()
    results: list[CallResult] = []

    async def wait() -> str:
        """Wait."""
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return ""

    async def script(run: ProgramRun) -> None:
        results.append(await run.call("wait", {}, progress=ignore))
        with pytest.raises(ToolUnavailable):
            await run.call("wait", {}, progress=ignore)

    bench = bench_of(script, tool(wait, Effect.READ))
    running = asyncio.ensure_future(bench.run("go"))
    await began.wait()
    bench.stop.set()
    await running
    assert ended.is_set()
    assert results[0].failed
    assert "stopped" in results[0].text
    log = calls_of(bench)
    assert "stopped" in log.results[0]
    assert log.custom("navi.stop")[0]["action"] == "reached"


async def test_a_program_that_cancels_its_call_or_goes_leaves_nothing_running() -> None:
    began, ended = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def wait() -> str:
        """Wait."""
        began.release()
        try:
            await asyncio.sleep(60)
        finally:
            ended.release()
        return ""

    async def begin(run: ProgramRun) -> asyncio.Task[CallResult]:
        call = asyncio.create_task(run.call("wait", {}, progress=ignore))
        await began.acquire()
        return call

    async def script(run: ProgramRun) -> None:
        cancelled = await begin(run)
        cancelled.cancel()
        with suppress(asyncio.CancelledError):
            await cancelled
        await ended.acquire()
        left.append(await begin(run))

    left: list[asyncio.Task[CallResult]] = []
    bench = bench_of(script, tool(wait, Effect.READ))
    await bench.run("go")
    assert not ended.locked(), "the end of the run has ended the other one"
    assert "stopped" in (await left[0]).text
    assert ["cancelled" in text for text in calls_of(bench).results] == [True, True]


async def test_a_result_is_bounded_and_has_no_secret_and_progress_neither() -> None:
    remember(SECRET)
    progress: list[str] = []
    results: list[CallResult] = []

    async def dump() -> ToolOutput:
        """Dump."""
        emit = tool_context.get().emit
        text = {"output_type": "stream", "name": "stdout", "text": f"first\nkey {SECRET}\nhalf of {SECRET[:9]}"}
        patch = ({"op": "add", "path": "/outputs/-", "value": text},)
        emit(ActivitySnapshot(message_id="o", activity_type="navi.output", content={"outputs": []}))
        emit(ActivityDelta(message_id="o", activity_type="navi.output", patch=patch))
        picture = OutputImage(media_type="image/png", content=b"png")
        return ToolOutput(content=SECRET + "x" * 10_000_000, images=[picture] * 20)

    async def script(run: ProgramRun) -> None:
        results.append(await run.call("dump", {}, progress=progress.append))

    bench = bench_of(script, tool(dump, Effect.READ))
    await bench.run("go")
    assert len(results[0].text) < 50_000
    assert len(results[0].images) == 8
    assert SECRET not in results[0].text
    assert len(progress) == 1
    assert progress[0].startswith("key ")
    assert SECRET not in progress[0]


async def test_a_secret_leads_to_the_run_that_its_program_works_on_and_to_nothing_once_it_is_forgotten() -> None:
    registry, tools = RunToolsRegistry(), ProgramTools()
    secret = registry.register(tools)
    assert registry.find(secret) is tools
    assert registry.find(secret[:-1]) is None
    with pytest.raises(ToolUnavailable):
        await tools.call("greet", {}, progress=ignore)

    async def script(run: ProgramRun) -> None:
        assert "greet" in {one.name for one in await tools.offered()}
        assert "Hello" in (await tools.call("greet", {}, progress=ignore)).text

    await Bench(Program(agent_parts(greeting()), script, tools)).run("go")
    assert "greet" in {one.name for one in await tools.offered()}
    with pytest.raises(ToolUnavailable):
        await tools.call("greet", {}, progress=ignore)
    registry.forget(secret)
    assert registry.find(secret) is None


async def test_a_call_whose_program_is_gone_is_not_made() -> None:
    loop = ProgramCallBackend(agent_parts(greeting()), ProgramCalls())
    assert await Bench(loop).run_to_failure("(x calls greet)", model="mcp-call:x/p_1") == "caller_gone"


class ForClient(Program):
    """A program in a run whose prompt has brought a tool of its sender's."""

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        turn = replace(turn, client_tools=(ClientTool(name="show_chart", description="Shows a chart."),))
        async for item in super().run(turn, context):
            yield item


async def test_a_program_calls_tools_of_the_one_who_sent_the_prompt_and_reads_what_that_one_answers() -> None:
    asks: list[Ask] = []
    results: list[CallResult] = []

    async def ask(one: Ask) -> Any:
        asks.append(one)
        return answered(one, {"content": "shown"} if len(asks) == 1 else {"content": "", "error": "no screen"})

    async def script(run: ProgramRun) -> None:
        assert "show_chart" in {one.name for one in run.offered()}
        for column in ("a", "b"):
            results.append(await run.call("show_chart", {"column": column}, progress=ignore))

    bench = Bench(ForClient(agent_parts(), script))
    bench.ask = ask
    await bench.run("go")
    assert [(one.source, one.kind) for one in asks] == [("client", "question")] * 2
    assert results[0].text == "shown"
    assert not results[0].failed
    assert "no screen" in results[1].text
    assert results[1].failed
    assert calls_of(bench).tools == ["show_chart", "show_chart"]
