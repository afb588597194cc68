"""Runs with a profile of their user's own: its instructions, tools, limits and subagents, and nothing of another's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from navi_jupyter.agent.profiles.files import ProfileBook
from navi_jupyter.agent.profiles.user_profiles import UserProfiles
from navi_jupyter.agent.run.backend import PydanticAIBackend
from navi_jupyter.errors import InvalidRequest
from navi_jupyter.ports.user_configuration import NOTHING_CONFIGURED, UserConfiguration
from tests.support.agent_world import Bench, agent_parts
from tests.support.providers import Call, Reply, Serve

MODEL = "openai-chat:gpt-6-luna"


def configured(**profiles: dict[str, Any]) -> UserConfiguration:
    return UserConfiguration(owner="ada", profiles={name: json.dumps(entry) for name, entry in profiles.items()})


def bench_of(configuration: UserConfiguration, profile: str) -> Bench:
    bench = Bench(PydanticAIBackend(agent_parts()))
    bench.configuration = configuration
    bench.session = bench.session.but(profile=profile)
    return bench


async def test_a_run_has_its_instructions_and_tools_and_may_delegate_to_another(serve: Serve) -> None:
    own = configured(
        mine={"more_instructions": "Speak of llamas.", "tools": ["delegate", "list_recalls"], "workers": ["helper"]},
        helper={"instructions": "You help with alpacas.", "tools": ["list_recalls"], "workers": []},
    )
    task = Call("delegate", {"task": "look", "profile": "helper"}, id="call_1")
    async with serve(Reply(calls=(task,)), Reply("looked"), Reply("done")) as provider:
        await bench_of(own, "mine").run("go", model=MODEL)
    first, second, _ = (json.dumps(request.body) for request in provider.requests)
    assert "Speak of llamas." in first
    assert "Profiles: helper." in first
    assert "alpacas" in second
    names = {one["function"]["name"] for one in provider.requests[0].body["tools"]}
    assert names == {"delegate", "list_recalls"}


async def test_a_run_of_somebody_else_does_not_find_it(serve: Serve) -> None:
    async with serve(Reply("done")) as provider:
        with pytest.raises(InvalidRequest, match="There is no profile 'mine'"):
            await bench_of(NOTHING_CONFIGURED, "mine").run("go", model=MODEL)
    assert provider.requests == []


async def test_its_limits_bound_the_run(serve: Serve) -> None:
    own = configured(mine={"limits": {"max_iterations": 2}})
    again = Reply(calls=(Call("list_recalls", {}, id="call_1"),))
    async with serve(again, Reply(calls=(Call("list_recalls", {}, id="call_2"),)), again) as provider:
        assert await bench_of(own, "mine").run_to_failure("go", model=MODEL) == "max_iterations"
    assert len(provider.requests) == 2


def test_parts_of_a_user_stay_those_of_the_user() -> None:
    own = configured(assistant={"extends": "assistant", "more_instructions": "Once."})
    parts = agent_parts().of(own)
    assert parts.of(own).profiles.get("assistant").instructions.count("Once.") == 1
    assert parts.profiles.names() == ["assistant", "analyst", "watcher"]


def test_what_another_version_has_stored_is_reported_and_hides_nothing_else() -> None:
    own = UserConfiguration(owner="ada", profiles={"odd": '{"colour": "red"}', "mine": "{}"})
    profiles = UserProfiles(ProfileBook(), own)
    assert profiles.get("mine").own
    with pytest.raises(InvalidRequest, match=r"odd.*colour"):
        profiles.get("odd")
    entries = {entry["name"]: entry for entry in profiles.describe()}
    assert (entries["odd"]["available"], entries["mine"]["available"]) == (False, True)
    assert profiles.model_of("odd") is None
