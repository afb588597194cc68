"""What bounds subagents in runs: tools, servers, profiles, limits, questions; steered prompts and recalls of theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from navi_jupyter.agent.mcp.run_tools import McpTools
from navi_jupyter.agent.run import conversation
from navi_jupyter.agent.run.backend import PydanticAIBackend
from navi_jupyter.errors import InvalidRequest
from navi_jupyter.model.runs import Permission, RunLimits
from tests.agent.test_recall_leave import MODEL, Lab, calls, new
from tests.agent.test_subagents import ASSISTANT, SCOUT, Book, names_of
from tests.support.agent_world import answered
from tests.support.providers import Reply, Serve

ALLOW, ASK, DENY = Permission.ALLOW, Permission.ASK, Permission.DENY
WORKER = replace(ASSISTANT, name="worker", permissions={"*": ALLOW})


def to(profile: str, task: str = "TASK") -> Reply:
    return calls("delegate", task=task, profile=profile)


async def test_a_subagent_is_offered_only_what_all_profiles_of_its_chain_offer(serve: Serve) -> None:
    narrow = replace(ASSISTANT, tools=("*", "!write_file"))
    lab = Lab(narrow, WORKER, replace(WORKER, name="deep", tools=("*", "!run_code")))
    async with serve(to("worker"), to("deep"), Reply("3"), Reply("2"), Reply("1")) as provider:
        await lab.go()
    offered = [names_of(request.body) for request in provider.requests]
    assert "write_file" not in offered[0] | offered[1] | offered[2]
    assert "run_code" in offered[0]
    assert "run_code" in offered[1]
    assert "run_code" not in offered[2]


async def test_a_subagent_delegates_only_to_profiles_that_its_whole_chain_delegates_to(serve: Serve) -> None:
    lab = Lab(replace(ASSISTANT, subagents=("worker",)), WORKER, SCOUT)
    async with serve(to("worker"), to("scout"), Reply("I may not."), Reply("Done.")) as provider:
        outcome = await lab.go()
    assert "You may not delegate to a subagent of the profile 'scout'. You may to: worker." in outcome.results[0]
    assert "Profiles: worker." in str(provider.requests[1].body)


async def test_a_deny_reaches_through_two_subagents_and_no_question_is_asked(serve: Serve) -> None:
    lab = Lab(replace(ASSISTANT, permissions={"run_code": DENY}), WORKER, replace(WORKER, name="deep"))
    async with serve(to("worker"), to("deep"), calls("run_code"), Reply("3"), Reply("2"), Reply("1")):
        outcome = await lab.go()
    assert lab.done == []
    assert "The profile 'assistant' denies run_code" in outcome.results[0]


async def test_the_limits_of_a_subagent_are_the_least_of_its_chain(serve: Serve) -> None:
    short = replace(WORKER, name="short", limits=RunLimits(max_iterations=2))
    deep = replace(WORKER, name="deep", limits=RunLimits(max_iterations=30, timeout=timedelta(minutes=5)))
    lab = Lab(ASSISTANT, short, deep)
    script = (to("short"), to("deep"), calls("list_recalls"), calls("list_recalls"), Reply("2"), Reply("1"))
    async with serve(*script):
        outcome = await lab.go()
    assert any("Stopped after 2 requests" in one for one in outcome.results)


class Servers:
    """``McpPool`` as far as its tools are concerned."""

    def __init__(self) -> None:
        self.used: list[str] = []

    async def use(self, own: object, admits: Callable[[str], bool], seconds: float) -> list[Any]:
        self.used += [name for name in ("shop", "mail") if admits(name)]
        return []


async def test_no_mcp_server_is_started_for_a_subagent_that_a_profile_of_its_chain_leaves_out(serve: Serve) -> None:
    session, worker = replace(ASSISTANT, mcp=("shop",)), replace(WORKER, mcp=("*", "!other"))
    lab, pool = Lab(session, worker), Servers()
    book = Book(session, worker)
    lab.parts = replace(lab.parts, sources=(*lab.parts.sources, McpTools(pool, lambda name, _: book.get(name))))  # type: ignore[arg-type]
    lab.bench.loop = PydanticAIBackend(lab.parts)
    async with serve(to("worker"), Reply("2"), Reply("1")):
        await lab.go()
    assert pool.used == ["shop", "shop"]


async def test_where_a_profile_of_the_chain_does_not_wait_a_recalls_subagent_asks_nothing(serve: Serve) -> None:
    lab = Lab(ASSISTANT, replace(WORKER, permissions={"run_code": ASK}, headless_asks="deny"))
    asked: list[object] = []

    async def ask(question: object) -> Any:
        asked.append(question)
        raise AssertionError("nothing is to be asked")

    lab.bench.ask = ask
    async with serve(to("worker"), calls("run_code"), Reply("2"), Reply("1")):
        outcome = await lab.go(await lab.recall())
    assert (lab.done, asked) == ([], [])
    assert outcome.result is not None
    assert outcome.result.failure is not None
    assert outcome.result.failure.message == "needed approval: run_code"


# --- prompts that join a run -----------------------------------------------------------------------------------------


async def test_a_recalls_leave_is_not_meant_for_what_a_user_wishes_who_joins_its_run(serve: Serve) -> None:
    lab = Lab()
    lab.bench.steering.say("delete it all")
    async with serve(calls("run_code"), Reply("Done.")):
        outcome = await lab.go(await lab.recall("run_code"))
        (ask,) = outcome.asks
        assert lab.done == []
        paused = outcome.result
        assert paused is not None
        assert conversation.load_paused(paused.conversation).joined, "also after a pause"
        origin = await lab.recall("run_code")
        await lab.bench.resume(outcome, answered(ask, {"approved": True}), model=MODEL, origin=origin)
    assert lab.done == ["1"]


async def test_after_a_pause_the_leave_does_not_count_either(serve: Serve) -> None:
    lab = Lab()
    lab.bench.steering.say("delete it all")
    origin = await lab.recall("run_code")
    async with serve(calls("run_code"), calls("run_code", code="2")):
        paused = await lab.go(origin)
        again = await lab.bench.resume(paused, answered(paused.asks[0], {"approved": True}), model=MODEL, origin=origin)
    assert lab.done == ["1"]
    assert [ask.tool for ask in again.asks] == ["run_code"]


async def test_a_prompt_of_the_same_recall_changes_nothing(serve: Serve) -> None:
    lab = Lab()
    origin = await lab.recall("run_code")
    lab.bench.steering.say("and that", origin=origin)
    async with serve(calls("run_code"), Reply("Done.")):
        assert (await lab.go(origin)).asks == ()
    assert lab.done == ["1"]


# --- pauses ----------------------------------------------------------------------------------------------------------


async def test_a_resumed_run_keeps_what_bounded_it_when_it_began(serve: Serve) -> None:
    strict = replace(ASSISTANT, permissions={"run_code": DENY}, limits=RunLimits(max_iterations=2))
    lab = Lab(strict, WORKER)
    async with serve(calls("write_file", text="x"), calls("run_code"), Reply("Done.")):
        paused = await lab.go()
        lab.bench.session = lab.bench.session.but(profile="worker", allowed_tools=("*",))
        resumed = await lab.bench.resume(paused, answered(paused.asks[0], {"approved": True}), model=MODEL)
    assert lab.done == ["x"]
    assert "The profile 'assistant' denies run_code" in resumed.results[1]
    assert resumed.result is not None
    assert resumed.result.failure is not None
    assert resumed.result.failure.code == "max_iterations"


async def test_what_an_earlier_version_stored_is_resumed_under_the_profile_that_the_session_has(serve: Serve) -> None:
    lab = Lab()
    async with serve(calls("run_code"), Reply("Done.")):
        paused = await lab.go()
        assert paused.result is not None
        stored = paused.result.conversation
        for added in (b'"profiles": ["assistant"], ', b'"session_allowed": [], '):
            assert added in stored
            stored = stored.replace(added, b"")
        paused.result = replace(paused.result, conversation=stored)
        await lab.bench.resume(paused, answered(paused.asks[0], {"approved": True}), model=MODEL)
    assert lab.done == ["1"]


# --- recalls of subagents --------------------------------------------------------------------------------------------


class Desk:
    """Answers no question, and keeps them."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def __call__(self, ask: Any) -> Any:
        self.asked.append(ask)
        return answered(ask, {"approved": False})


@pytest.mark.parametrize(
    ("tool", "args"),
    [
        ("create_recall", new()),
        ("change_recall", {"recall_id": "1", "message": "run the other thing"}),
        ("change_recall", {"recall_id": "1", "when": "in 1 minute"}),
        ("resume_recall", {"recall_id": "1"}),
    ],
)
async def test_a_subagent_that_another_profile_bounds_asks_before_it_makes_or_changes_a_recall(
    serve: Serve, tool: str, args: dict[str, Any]
) -> None:
    """The recall's run has the session's permissions, which may be more than those of the subagent."""
    lab = Lab(replace(ASSISTANT, permissions={"run_code": ALLOW}), replace(WORKER, permissions={"run_code": DENY}))
    await lab.recall()
    before = dict(lab.bench.desk.recalls)
    desk = lab.bench.ask = Desk()
    async with serve(to("worker"), calls(tool, **args), Reply("2"), Reply("1")):
        await lab.go()
    (ask,) = desk.asked
    assert "It runs with the permissions of this session's profile, assistant" in ask.message
    assert lab.bench.desk.recalls == before
    async with serve(calls("delegate", task="TASK"), calls(tool, **args), Reply("2"), Reply("1")):
        await lab.go()
    assert len(desk.asked) == 1, "one of the session's own profile does not ask"


async def test_no_agent_gives_a_recall_leave_that_a_profile_of_its_chain_denies() -> None:
    lab = Lab(ASSISTANT, replace(WORKER, permissions={"run_code": DENY}), replace(WORKER, name="bare", tools=("look",)))
    _, context = lab.bench.turn("go")
    for names in (["run_code"], ["effect:run"]):
        await lab.parts.check_leave(names, context)
        for other in ("worker", "bare"):
            with pytest.raises(InvalidRequest, match=f"profile '{other}'"):
                await lab.parts.check_leave(names, replace(context, profiles=("assistant", other)))
    await lab.parts.check_leave(["write_file"], replace(context, profiles=("assistant", "worker")))
