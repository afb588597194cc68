"""What a recall's run may do without asking: its leave, at each call anew; and how an agent comes to give some."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from navi_jupyter.agent.offline.backend import OfflineBackend
from navi_jupyter.agent.profiles.definitions import PROFILES, Profile
from navi_jupyter.agent.registry import AgentParts
from navi_jupyter.agent.run.backend import PydanticAIBackend
from navi_jupyter.agent.tools import recalls
from navi_jupyter.agent.tools.base import tool
from navi_jupyter.agent.tools.delegate import DELEGATE
from navi_jupyter.agent.tools.permissions import ToolPermissions
from navi_jupyter.errors import InvalidRequest
from navi_jupyter.model.recalls import Recall, RecallCreate, RecallPatch
from navi_jupyter.model.runs import Effect, Permission
from navi_jupyter.model.sessions import Origin, OriginKind
from tests.agent.test_subagents import ASSISTANT, Book
from tests.support.agent_world import Bench, Outcome, agent_parts, answered
from tests.support.providers import Call, Reply, Serve

MODEL = "openai-chat:gpt-6-luna"
IN_AN_HOUR = {"kind": "once", "in": "1h"}


class Lab:
    """A bench with a tool that runs something, one that writes, and those for recalls."""

    def __init__(self, *profiles: Profile, ceiling: dict[str, Permission] | None = None) -> None:
        self.done: list[str] = []
        self.after: Callable[[], None] = lambda: None
        parts = agent_parts(
            tool(self.run_code, Effect.RUN), tool(self.write_file, Effect.WRITE), DELEGATE, *recalls.TOOLS
        )
        self.parts: AgentParts = replace(
            parts, profiles=Book(*(profiles or (ASSISTANT,))), permissions=ToolPermissions(ceiling=ceiling or {})
        )
        self.bench = Bench(PydanticAIBackend(self.parts))
        self.bench.session = self.bench.session.but(profile=(profiles or (ASSISTANT,))[0].name)

    async def run_code(self, code: str) -> str:
        """Run it."""
        self.done.append(code)
        self.after()
        return f"ran {code}"

    async def write_file(self, text: str) -> str:
        """Write it."""
        self.done.append(text)
        return f"wrote {text}"

    async def recall(self, *allow: str) -> Origin:
        """Of a run of a new recall with this leave."""
        request = RecallCreate.model_validate(
            {"session_id": "s_1", "message": "look", "schedule": IN_AN_HOUR, "allow": allow}
        )
        made = await self.bench.desk.create(request, owner="ada", zone="UTC")
        return Origin(kind=OriginKind.RECALL, recall_id=made.id)

    async def go(self, origin: Origin | None = None) -> Outcome:
        how: dict[str, Any] = {} if origin is None else {"origin": origin}
        return await self.bench.run("go", model=MODEL, **how)


def calls(*names: str, **arguments: Any) -> Reply:
    given = arguments or {"code": "1"}
    return Reply(calls=tuple(Call(name, given, id=f"call_{n}") for n, name in enumerate(names)))


# --- a recall's run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allow", ["run_code", "run"])
async def test_a_run_of_a_recall_does_what_the_recall_was_allowed_without_asking(serve: Serve, allow: str) -> None:
    lab = Lab()
    async with serve(calls("run_code"), Reply("Done.")):
        outcome = await lab.go(await lab.recall(allow))
    assert outcome.asks == ()
    assert (lab.done, outcome.text) == (["1"], "Done.")
    assert outcome.result is not None
    assert outcome.result.failure is None


async def test_it_asks_for_everything_else_and_a_users_run_gets_nothing_of_it(serve: Serve) -> None:
    lab = Lab()
    origin = await lab.recall("run_code")
    async with serve(calls("write_file", text="x"), calls("run_code")):
        assert [ask.tool for ask in (await lab.go(origin)).asks] == ["write_file"]
        assert [ask.tool for ask in (await lab.go()).asks] == ["run_code"]
    assert lab.done == []


async def test_leave_that_is_revoked_while_the_run_goes_on_is_gone_for_its_next_call(serve: Serve) -> None:
    lab = Lab()
    origin = await lab.recall("run_code")
    assert origin.recall_id is not None
    recall_id = origin.recall_id
    lab.after = lambda: lab.bench.desk.recalls.update({recall_id: lab.bench.desk.recalls[recall_id].but(allow=())})
    async with serve(calls("run_code"), calls("run_code", code="2")):
        outcome = await lab.go(origin)
    assert lab.done == ["1"]
    assert [ask.tool for ask in outcome.asks] == ["run_code"]


@pytest.mark.parametrize("allow", [("run_code",), ("run", "run_code")])
async def test_a_deny_of_the_profile_and_the_administrators_ceiling_win(serve: Serve, allow: tuple[str, ...]) -> None:
    for lab in (
        Lab(replace(ASSISTANT, permissions={"run_code": Permission.DENY})),
        Lab(ceiling={"effect:run": Permission.DENY}),
    ):
        async with serve(calls("run_code"), Reply("No.")):
            outcome = await lab.go(await lab.recall(*allow))
        assert lab.done == []
        assert "not_allowed" in outcome.results[0]
    lab = Lab(ceiling={"run_code": Permission.ASK})
    async with serve(calls("run_code")):
        assert [ask.tool for ask in (await lab.go(await lab.recall(*allow))).asks] == ["run_code"]


async def test_a_subagent_of_a_recalls_run_may_what_the_recall_may_and_no_more(serve: Serve) -> None:
    scout = Profile(name="scout", description="Looks.", instructions="You are a scout.")
    quiet = replace(scout, name="quiet", permissions={"run_code": Permission.DENY})
    lab = Lab(ASSISTANT, scout, quiet)
    delegate = {"task": "TASK", "profile": "scout"}
    async with serve(calls("delegate", **delegate), calls("run_code"), Reply("Ran."), Reply("Done.")):
        assert (await lab.go(await lab.recall("run_code"))).text.endswith("Done.")
    assert lab.done == ["1"]
    async with serve(calls("delegate", **delegate), calls("write_file", text="x"), Reply("No."), Reply("Done.")):
        outcome = await lab.go(await lab.recall("run_code"))
    async with serve(calls("delegate", task="TASK", profile="quiet"), calls("run_code"), Reply("No."), Reply("Done.")):
        await lab.go(await lab.recall("run_code"))
    assert lab.done == ["1"]
    assert outcome.result is not None
    assert outcome.result.failure is not None
    assert outcome.result.failure.message == "needed approval: write_file"


async def test_where_the_profile_denies_what_would_ask_the_run_says_what_it_needed(serve: Serve) -> None:
    lab = Lab(replace(ASSISTANT, headless_asks="deny"))
    async with serve(calls("run_code", "write_file", "run_code"), Reply("I could not.")):
        outcome = await lab.go(await lab.recall())
    assert outcome.text == "I could not."
    assert outcome.result is not None
    assert outcome.result.conversation, "what was said is kept"
    assert outcome.result.failure is not None
    assert (outcome.result.failure.code, outcome.result.failure.message) == (
        "needed_approval", "needed approval: run_code, write_file",
    )  # fmt: skip
    async with serve(calls("run_code"), Reply("Done.")):
        outcome = await lab.go(await lab.recall("run"))
    assert outcome.result is not None
    assert outcome.result.failure is None


# --- an agent that makes and changes recalls --------------------------------------------------------------------------


def new(**more: Any) -> dict[str, Any]:
    return {"message": "look", "when": "in 1 hour", **more}


async def test_a_recall_with_leave_is_made_only_when_the_user_has_approved_it(serve: Serve) -> None:
    lab = Lab()
    lab.bench.session = lab.bench.session.but(allowed_tools=("create_recall",))
    async with serve(calls("create_recall", **new(allow=["run"])), Reply("Made.")):
        paused = await lab.go()
        (ask,) = paused.asks
        assert (ask.tool, ask.message) == ("create_recall", "May this recall run code in your kernel without asking?")
        assert lab.bench.desk.recalls == {}
        outcome = await lab.bench.resume(paused, answered(ask, {"approved": True}), model=MODEL)
    (made,) = lab.bench.desk.recalls.values()
    assert made.allow == ("effect:run",)
    assert json.loads(outcome.results[0])["recall"]["allow"] == ["effect:run"]


async def test_a_recall_without_leave_is_made_without_a_question(serve: Serve) -> None:
    lab = Lab()
    async with serve(calls("create_recall", **new(allow=[], policy={"busy": "queue", "retries": 2})), Reply("Made.")):
        assert (await lab.go()).asks == ()
    (made,) = lab.bench.desk.recalls.values()
    assert (made.allow, made.policy.busy, made.policy.retries) == ((), "queue", 2)


async def test_leave_that_does_not_exist_is_refused_before_the_user_is_asked(serve: Serve) -> None:
    lab = Lab()
    async with serve(calls("create_recall", **new(allow=["no_such"])), Reply("Sorry.")):
        outcome = await lab.go()
    assert outcome.asks == ()
    assert "There is no tool or effect 'no_such'" in outcome.results[0]


@pytest.mark.parametrize("own", [(), ("write",)])
async def test_a_recalls_run_cannot_give_a_recall_more_leave_than_it_has(serve: Serve, own: tuple[str, ...]) -> None:
    lab = Lab()
    origin = await lab.recall(*own)
    async with serve(calls("create_recall", **new(allow=["run_code"])), Reply("Sorry.")):
        outcome = await lab.go(origin)
    assert outcome.asks == ()
    assert "cannot give a recall leave to run code in your kernel" in outcome.results[0]
    async with serve(calls("change_recall", recall_id=origin.recall_id, allow=["run_code"]), Reply("Sorry.")):
        outcome = await lab.go(origin)
    assert "cannot give" in outcome.results[0]
    assert len(lab.bench.desk.recalls) == 1


async def test_changing_what_a_recall_with_leave_does_asks_and_taking_leave_away_does_not(serve: Serve) -> None:
    lab = Lab()
    origin = await lab.recall("run_code")
    assert origin.recall_id is not None
    which = {"recall_id": origin.recall_id}
    for change in ({"message": "delete all"}, {"when": "every minute"}, {"policy": {"retries": 3}}):
        async with serve(calls("change_recall", **which, **change)):
            (ask,) = (await lab.go()).asks
        assert "which may run code in your kernel without asking?" in ask.message
    async with serve(calls("change_recall", **which, allow=["run_code", "write"])):
        (ask,) = (await lab.go()).asks
    assert ask.message == "May this recall change notebooks and files without asking?"
    async with serve(calls("change_recall", **which, allow=[], message="another"), Reply("Done.")):
        assert (await lab.go()).asks == ()
    changed = lab.bench.desk.recalls[origin.recall_id]
    assert (changed.allow, changed.message) == ((), "another")


async def test_a_recall_is_changed_paused_and_resumed(serve: Serve) -> None:
    lab = Lab()
    origin = await lab.recall()
    assert origin.recall_id is not None
    which = {"recall_id": "1"}
    change = {**which, "when": "every weekday at 9", "policy": {"retries": 2, "busy": "skip"}, "max_fires": 3}
    async with serve(calls("change_recall", **change), Reply("Done.")):
        await lab.go()
    changed = lab.bench.desk.recalls[origin.recall_id]
    assert (changed.schedule.kind, changed.policy.retries, changed.policy.busy, changed.policy.max_fires) == (
        "cron", 2, "skip", 3,
    )  # fmt: skip
    async with serve(
        calls("change_recall", **which, policy={"retries": 0}), calls("pause_recall", **which), Reply(".")
    ):
        await lab.go()
    changed = lab.bench.desk.recalls[origin.recall_id]
    assert (changed.policy.retries, changed.policy.busy, changed.status) == (0, "skip", "paused")
    async with serve(calls("resume_recall", **which), Reply("Done.")):
        assert (await lab.go()).asks == ()
    assert lab.bench.desk.recalls[origin.recall_id].status == "pending"
    await lab.bench.desk.patch(origin.recall_id, RecallPatch(allow=("run",)), owner="ada")
    await lab.bench.desk.pause(origin.recall_id, owner="ada")
    async with serve(calls("resume_recall", **which)):
        (ask,) = (await lab.go()).asks
    assert "may run code in your kernel without asking" in ask.message


async def test_what_a_call_has_changed_is_in_the_list_that_the_same_answer_reads(serve: Serve) -> None:
    lab = Lab()
    create = lab.bench.desk.create

    async def slow(*given: Any, **named: Any) -> Recall:
        await asyncio.sleep(0.2)
        return await create(*given, **named)

    lab.bench.desk.create = slow  # type: ignore[method-assign]
    both = Reply(calls=(Call("create_recall", new(), id="a"), Call("list_recalls", {}, id="b")))
    async with serve(both, Reply("Done.")):
        outcome = await lab.go()
    assert json.loads(outcome.results[1])["count"] == 1


# --- what can be allowed ----------------------------------------------------------------------------------------------


async def test_leave_that_could_never_be_used_is_refused_when_it_is_given() -> None:
    denying = replace(PROFILES["assistant"], permissions={"run_code": Permission.DENY})
    without = replace(PROFILES["assistant"], tools=("*", "!run_code"))
    for lab, why, names in (
        (Lab(ceiling={"effect:run": Permission.ASK}), "administrator", ("run_code", "effect:run")),
        (Lab(denying), "The profile 'assistant' denies run_code", ("run_code",)),
        (Lab(without), "has no run_code", ("run_code",)),
    ):
        _, context = lab.bench.turn("go")
        for name in names:
            with pytest.raises(InvalidRequest, match=why):
                await lab.parts.check_leave([name], context)
        await lab.parts.check_leave(["write_file", "effect:write"], context)
        with pytest.raises(InvalidRequest, match=r"Did you mean 'note'\?"):
            await lab.parts.check_leave(["nope"], context)


async def test_the_offline_backend_says_what_a_recall_needed_too() -> None:
    lab = Lab(ceiling={"list_variables": Permission.ASK})
    lab.bench.loop = OfflineBackend(lab.parts)
    origin = await lab.recall()
    assert origin.recall_id is not None
    await lab.bench.desk.patch(origin.recall_id, RecallPatch(message="what variables are there?"), owner="ada")
    by_recall = await lab.bench.run("what variables are there?", origin=origin)
    assert by_recall.result is not None
    assert by_recall.result.failure is not None
    assert by_recall.result.failure.message == "needed approval: list_variables"
    by_user = await lab.bench.run("what variables are there?")
    assert by_user.result is not None
    assert by_user.result.failure is None, "they read in the answer that it needs their approval"
