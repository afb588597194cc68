"""Workers: nested agents in parallel, with a profile and limits of their own, that live and die with their call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from navi_jupyter.agent.profiles.definitions import PROFILES, Profile
from navi_jupyter.agent.profiles.files import ProfileBook
from navi_jupyter.agent.registry import AgentParts
from navi_jupyter.agent.run.backend import PydanticAIBackend
from navi_jupyter.agent.tools.base import Tool, tool
from navi_jupyter.events import ActivitySnapshot
from navi_jupyter.model.runs import Effect, Interrupt, InterruptStatus, Permission, RunLimits
from navi_jupyter.ports.agent import Ask, subagent, tool_call, tool_context
from navi_jupyter.settings import Limits
from tests.support.agent_world import Bench, Outcome, agent_parts, answered
from tests.support.providers import Call, Reply, ScriptedProvider

MODELS = ("openai-chat:gpt-6-luna", "anthropic:claude-haiku-5-5")
Serve = Callable[..., AbstractAsyncContextManager[ScriptedProvider]]


class Book(ProfileBook):
    """A profile book over some profiles, without files."""

    def __init__(self, *profiles: Profile) -> None:
        super().__init__()
        self._profiles = {profile.name: profile for profile in profiles}

    def get(self, name: str) -> Profile:
        return self._profiles[name]

    def names(self) -> list[str]:
        return list(self._profiles)

    def model_of(self, name: str) -> str | None:
        return self._profiles[name].model

    def limits_of(self, name: str) -> RunLimits:
        return self._profiles[name].limits

    def describe(self) -> list[dict[str, Any]]:
        return [{"name": name} for name in self._profiles]


ASSISTANT = PROFILES["assistant"]
SCOUT = Profile(name="scout", description="Looks.", instructions="You are a scout.", tools=("look",))


def geared(*tools: Tool, profiles: tuple[Profile, ...] = (ASSISTANT, SCOUT)) -> AgentParts:
    return replace(agent_parts(*tools), profiles=Book(*profiles))


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


def delegate(task: str, call_id: str = "call_d", **more: Any) -> Call:
    return Call("delegate", {"task": task, **more}, id=call_id)


def kinds(outcome: Outcome, kind: str) -> list[Any]:
    return [event for event in outcome.events if event.type == kind]


def names_of(body: dict[str, Any]) -> set[str]:
    return {one.get("name") or one["function"]["name"] for one in body.get("tools", ())}


async def test_a_subagent_does_its_task_alone_and_its_answer_is_the_calls_result(serve: Serve, model: str) -> None:
    seen: list[tuple[str | None, str | None]] = []

    async def look() -> str:
        """Look."""
        seen.append((subagent.get(), tool_call.get()))
        content: dict[str, Any] = {"toolCallId": tool_call.get(), "outputs": []}
        tool_context.get().emit(ActivitySnapshot(message_id="o_1", activity_type="navi.output", content=content))
        return "three files"

    bench = Bench(PydanticAIBackend(geared(tool(look, Effect.READ))))
    script = (
        Reply("I ask. ", calls=(delegate("TASK count files", profile="scout", instructions="be terse"),)),
        Reply("looking", calls=(Call("look", {}),)),
        Reply("There are three."),
        Reply("Three files."),
    )
    async with serve(*script) as provider:
        outcome = await bench.run("the question", model=model)
    assert outcome.results[-1] == "There are three."
    (started,) = kinds(outcome, "SUBAGENT_STARTED")
    (finished,) = kinds(outcome, "SUBAGENT_FINISHED")
    assert started.name == "scout"
    assert "TASK count files" in started.description
    starts = kinds(outcome, "TOOL_CALL_START")
    assert [one.tool_call_name for one in starts] == ["delegate", "look"]
    assert started.parent_tool_call_id == starts[0].tool_call_id
    assert starts[1].subagent_run_id == started.subagent_run_id
    assert seen == [(started.subagent_run_id, starts[1].tool_call_id)]
    assert kinds(outcome, "ACTIVITY_SNAPSHOT")[0].subagent_run_id == started.subagent_run_id
    assert finished.result == "There are three."
    own = "".join(one.delta for one in kinds(outcome, "TEXT_MESSAGE_CONTENT") if one.subagent_run_id is None)
    assert own == "I ask. Three files."
    nested = provider.requests[1].body
    told = json.dumps(nested)
    for part in ("You are a scout", "You are a subagent", "be terse", "TASK count files"):
        assert part in told
    assert "the question" not in told
    assert names_of(nested) == {"look"}
    assert outcome.result is not None
    assert outcome.result.usage.requests == 4, "a subagent's usage is the run's"


async def test_several_subagents_of_one_answer_work_at_the_same_time(serve: Serve, model: str) -> None:
    both = asyncio.Barrier(2)

    async def meet() -> str:
        """Return once two are here."""
        async with asyncio.timeout(10):
            await both.wait()
        return "met"

    bench = Bench(PydanticAIBackend(geared(tool(meet, Effect.READ))))
    calls = (delegate("TASK-A", "call_a"), delegate("TASK-B", "call_b"))
    script = (
        Reply(calls=calls),
        Reply(calls=(Call("meet", {}),), when="TASK-A"),
        Reply(calls=(Call("meet", {}),), when="TASK-B"),
        Reply("done"),
    )
    async with serve(*script):
        outcome = await bench.run("go", model=model)
    assert len(kinds(outcome, "SUBAGENT_FINISHED")) == 2
    assert outcome.results.count("met") == 2
    seen = [event for event in outcome.events if event.type.startswith("SUBAGENT")]
    assert [one.type for one in seen[:2]] == ["SUBAGENT_STARTED"] * 2, "the second began before the first ended"


async def test_no_more_than_four_work_at_once(serve: Serve) -> None:
    bench = Bench(PydanticAIBackend(geared()))
    at_once: list[int] = []
    calls = tuple(delegate(f"TASK-{number}", f"call_{number}") for number in range(7))
    async with serve(Reply(calls=calls), Reply("done")):
        outcome = await bench.run("go", model=MODELS[0])
    running = 0
    for event in outcome.events:
        running += {"SUBAGENT_STARTED": 1, "SUBAGENT_FINISHED": -1}.get(event.type, 0)
        at_once.append(running)
    assert len(kinds(outcome, "SUBAGENT_FINISHED")) == 7
    assert max(at_once) == 4


async def test_subagents_may_have_subagents_and_those_may_not(serve: Serve, model: str) -> None:
    bench = Bench(PydanticAIBackend(geared()))
    script = (
        Reply(calls=(delegate("TASK one"),)),
        Reply(calls=(delegate("TASK two"),)),
        Reply("deepest"),
        Reply("middle"),
        Reply("top"),
    )
    async with serve(*script) as provider:
        outcome = await bench.run("go", model=model)
    first, second = kinds(outcome, "SUBAGENT_STARTED")
    assert first.parent_subagent_run_id is None
    assert second.parent_subagent_run_id == first.subagent_run_id
    offered = ["delegate" in names_of(request.body) for request in provider.requests]
    assert offered == [True, True, False, True, True]
    assert outcome.results == ["deepest", "middle"]


async def test_a_profile_says_whom_it_may_delegate_to(serve: Serve) -> None:
    bench = Bench(PydanticAIBackend(geared(profiles=(replace(ASSISTANT, subagents=("scout",)), SCOUT))))
    refused = delegate("TASK", "call_1", profile="assistant")
    async with serve(Reply(calls=(refused,)), Reply("Oh.")) as provider:
        outcome = await bench.run("go", model=MODELS[0])
    assert "may not delegate" in outcome.results[0]
    assert kinds(outcome, "SUBAGENT_STARTED") == []
    shown = json.dumps(provider.requests[0].body["tools"])
    assert "Profiles: scout." in shown


async def test_a_profile_without_subagents_does_not_see_the_tool(serve: Serve) -> None:
    bench = Bench(PydanticAIBackend(geared(profiles=(replace(ASSISTANT, subagents=()), SCOUT))))
    async with serve(Reply("Hi.")) as provider:
        await bench.run("go", model=MODELS[0])
    assert "delegate" not in names_of(provider.requests[0].body)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply(status=400, error={"message": "bad", "type": "invalid_request_error"}, when="TASK"), "provider_error"),
        (Reply("half", cut=True, when="TASK"), "provider_network"),
    ],
)
async def test_a_subagent_that_fails_is_a_failed_result_and_the_run_goes_on(
    serve: Serve, model: str, reply: Reply, code: str
) -> None:
    bench = Bench(PydanticAIBackend(geared()))
    # Its task is in the body of its own request alone: the run's has it in the call only after that.
    async with serve(Reply(calls=(delegate("TASK"),)), reply, Reply("Then without.")):
        outcome = await bench.run("go", model=model)
    (error,) = kinds(outcome, "SUBAGENT_ERROR")
    assert error.code == code
    assert json.loads(outcome.results[-1])["error"] == code
    assert outcome.text.endswith("Then without.")


async def test_a_subagent_at_its_limit_reports_how_far_it_came(serve: Serve, model: str) -> None:
    async def look() -> str:
        """Look."""
        return "seen"

    scout = replace(SCOUT, limits=RunLimits(max_iterations=1))
    bench = Bench(PydanticAIBackend(geared(tool(look, Effect.READ), profiles=(ASSISTANT, scout))))
    script = (
        Reply(calls=(delegate("TASK", profile="scout"),)),
        Reply("So far so good.", calls=(Call("look", {}),)),
        Reply("Ok."),
    )
    async with serve(*script) as provider:
        outcome = await bench.run("go", model=model)
    assert len(provider.requests) == 3
    result = json.loads(outcome.results[-1])
    assert result["error"] == "max_iterations"
    assert result["so_far"] == "So far so good."


async def test_a_subagent_that_takes_too_long_ends_alone(serve: Serve) -> None:
    scout = replace(SCOUT, limits=RunLimits(timeout=timedelta(seconds=1)))
    bench = Bench(PydanticAIBackend(geared(profiles=(ASSISTANT, scout))))
    script = (Reply(calls=(delegate("TASK", profile="scout"),)), Reply("...", hold_end=True), Reply("Without."))
    async with serve(*script):
        outcome = await bench.run("go", model=MODELS[0])
    (error,) = kinds(outcome, "SUBAGENT_ERROR")
    assert error.code == "timed_out"
    assert outcome.text.endswith("Without.")


async def test_subagents_count_against_the_budget_of_the_run(serve: Serve) -> None:
    bench = Bench(PydanticAIBackend(geared()))
    script = (Reply(calls=(delegate("TASK"),)), Reply("never"))
    async with serve(*script) as provider:
        outcome = await bench.run("go", model=MODELS[0], limits=Limits(run_token_budget=18, run_timeout=20))
    assert outcome.result is not None
    assert outcome.result.failure is not None
    assert outcome.result.failure.code == "budget_exceeded"
    assert len(provider.requests) <= 1


# --- stop ------------------------------------------------------------------------------------------------------------


async def test_subagents_are_stopped_with_their_parent_and_leave_nothing_open(serve: Serve, model: str) -> None:
    bench = Bench(PydanticAIBackend(geared()))
    outcome = Outcome()
    calls = (delegate("TASK-A", "call_a"), delegate("TASK-B", "call_b"))
    script = (Reply(calls=calls), Reply("half", hold_end=True), Reply("half", hold_end=True))
    async with serve(*script) as provider:
        task = asyncio.create_task(outcome.take(bench.events("go", model=model)))
        for index in (1, 2):
            await (await provider.request(index)).began.wait()
        bench.stop.set()
        task.cancel("stop")
        with pytest.raises(asyncio.CancelledError):
            await task
        for request in provider.requests[1:]:
            await asyncio.wait_for(request.closed.wait(), 5)
    whole = Outcome()
    whole.events = [*outcome.events, *bench.straight]
    whole.check(whole=False)
    assert [one.code for one in kinds(whole, "SUBAGENT_ERROR")] == ["stopped", "stopped"]
    reached = [value["what"] for value in whole.custom("navi.stop")]
    assert sorted(reached) == ["model", "model", "worker", "worker"]
    open_texts = {one.message_id for one in kinds(whole, "TEXT_MESSAGE_START")}
    assert {one.message_id for one in kinds(whole, "TEXT_MESSAGE_END")} == open_texts
    assert not [one for one in asyncio.all_tasks() if one.get_name().startswith("navi-model")]


# --- questions -------------------------------------------------------------------------------------------------------


class Desk:
    """Answers questions, as the user would, when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []
        self.withdrawn: list[Ask] = []
        self.arrived = asyncio.Condition()
        self._answers: list[asyncio.Future[Interrupt]] = []

    async def __call__(self, ask: Ask) -> Interrupt:
        answer: asyncio.Future[Interrupt] = asyncio.get_running_loop().create_future()
        async with self.arrived:
            self.asked.append(ask)
            self._answers.append(answer)
            self.arrived.notify_all()
        try:
            return await answer
        except asyncio.CancelledError:
            self.withdrawn.append(ask)
            raise

    async def wait_for(self, count: int) -> None:
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.asked) >= count)

    def answer(self, index: int, payload: object, status: InterruptStatus = InterruptStatus.RESOLVED) -> None:
        self._answers[index].set_result(answered(self.asked[index], payload, status))


def risky(done: list[str]) -> Tool:
    async def run_thing(code: str) -> str:
        """Run it."""
        done.append(code)
        return f"ran {code}"

    return tool(run_thing, Effect.RUN)


async def test_a_subagent_asks_in_memory_and_goes_on_with_the_answer(serve: Serve, model: str) -> None:
    done: list[str] = []
    bench = Bench(PydanticAIBackend(geared(risky(done))))
    desk = bench.ask = Desk()
    script = (
        Reply(calls=(delegate("TASK"),)),
        Reply(calls=(Call("run_thing", {"code": "a"}),)),
        Reply("ran it"),
        Reply("Done."),
    )
    async with serve(*script):
        task = asyncio.create_task(bench.run("go", model=model))
        await desk.wait_for(1)
        desk.answer(0, {"approved": True, "args": {"code": "b"}})
        outcome = await task
    assert done == ["b"]
    (ask,) = desk.asked
    (started,) = kinds(outcome, "SUBAGENT_STARTED")
    assert ask.subagent_run_id == started.subagent_run_id
    assert ask.tool_call_id in {one.tool_call_id for one in kinds(outcome, "TOOL_CALL_START")}
    assert outcome.asks == ()
    assert any("changed the arguments" in one for one in outcome.results)


@pytest.mark.parametrize(
    ("payload", "status", "says"),
    [
        ({"approved": False, "message": "not that"}, InterruptStatus.RESOLVED, "not that"),
        (None, InterruptStatus.EXPIRED, "expired without an answer"),
    ],
)
async def test_what_a_subagent_may_not_do_is_a_result_that_it_reads(
    serve: Serve, payload: object, status: InterruptStatus, says: str
) -> None:
    done: list[str] = []
    bench = Bench(PydanticAIBackend(geared(risky(done))))
    desk = bench.ask = Desk()
    script = (Reply(calls=(delegate("TASK"),)), Reply(calls=(Call("run_thing", {"code": "a"}),)), Reply("ok"))
    async with serve(*script):
        task = asyncio.create_task(bench.run("go", model=MODELS[0]))
        await desk.wait_for(1)
        desk.answer(0, payload, status)
        outcome = await task
    assert done == []
    assert says in outcome.results[0]


async def test_always_for_this_session_spares_the_other_subagents_their_question(serve: Serve, model: str) -> None:
    done: list[str] = []
    bench = Bench(PydanticAIBackend(geared(risky(done))))
    desk = bench.ask = Desk()
    script = (
        Reply(calls=(delegate("TASK-A", "call_a"), delegate("TASK-B", "call_b"))),
        Reply(calls=(Call("run_thing", {"code": "a"}),), when="TASK-A"),
        Reply(calls=(Call("run_thing", {"code": "b"}),), when="TASK-B"),
        Reply("ok"),
    )
    async with serve(*script):
        task = asyncio.create_task(bench.run("go", model=model))
        await desk.wait_for(2)
        desk.answer(0, {"approved": True, "always": "session"})
        await task
    assert sorted(done) == ["a", "b"]
    assert desk.withdrawn == [desk.asked[1]]


async def test_where_the_user_cannot_be_asked_a_subagent_may_not(serve: Serve) -> None:
    done: list[str] = []
    bench = Bench(PydanticAIBackend(geared(risky(done))))
    script = (Reply(calls=(delegate("TASK"),)), Reply(calls=(Call("run_thing", {"code": "a"}),)), Reply("ok"))
    async with serve(*script):
        outcome = await bench.run("go", model=MODELS[0])
    assert done == []
    assert "cannot ask the user" in outcome.results[0]


async def test_a_subagent_may_without_asking_what_its_profile_and_that_of_the_session_allow(serve: Serve) -> None:
    done: list[str] = []
    allowed = {"run_thing": Permission.ALLOW}
    free, trusting = replace(SCOUT, tools=("*",), permissions=allowed), replace(ASSISTANT, permissions=allowed)
    bench = Bench(PydanticAIBackend(geared(risky(done), profiles=(trusting, free))))
    script = (
        Reply(calls=(delegate("TASK", profile="scout"),)),
        Reply(calls=(Call("run_thing", {"code": "a"}),)),
        Reply("ok"),
    )
    async with serve(*script):
        await bench.run("go", model=MODELS[0])
    assert done == ["a"]
