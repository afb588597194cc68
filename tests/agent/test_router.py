"""Backends, catalog, profiles and tools: what is described, validated and called."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, get_args

import pytest

from navi_jupyter.agent.offline.answers import OfflineTools
from navi_jupyter.agent.offline.backend import OfflineBackend
from navi_jupyter.agent.profiles.definitions import DEFAULT_PROFILE, PROFILES, instructions
from navi_jupyter.agent.providers.catalog import OFFLINE, PROVIDERS
from navi_jupyter.agent.registry import default_parts
from navi_jupyter.agent.router import AgentRouter
from navi_jupyter.agent.run.backend import PydanticAIBackend
from navi_jupyter.agent.tools.builtin import builtin_tools
from navi_jupyter.agent.trigger import RecallTrigger
from navi_jupyter.clock import now
from navi_jupyter.errors import InvalidRequest
from navi_jupyter.installation import has_package
from navi_jupyter.model.recalls import RecallCreate
from navi_jupyter.model.sessions import Origin, OriginKind
from navi_jupyter.timetext.format import say, say_stretch, say_time
from tests.support.agent_world import Bench
from tests.support.providers import Reply, ScriptedProvider


@pytest.fixture
def bench() -> Bench:
    return Bench(AgentRouter())


@pytest.fixture
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in PROVIDERS.values():
        for name in (*provider.keys, *provider.instead):
            monkeypatch.delenv(name, raising=False)


# --- model strings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["offline", " offline ", "Offline"])
def test_offline_is_valid_in_any_case(model: str) -> None:
    assert AgentRouter.validate(model) == OFFLINE


@pytest.mark.parametrize("model", ["openai-chat:anything", "anthropic:x", "ollama:qwen3:8b"])
def test_a_known_provider_makes_a_valid_model_whatever_is_installed(model: str) -> None:
    assert AgentRouter.validate(model) == model


@pytest.mark.parametrize("model", ["gpt-6", "openai-chat:", ":x", "nobody:x", "test", "offline:x"])
def test_anything_else_is_refused_naming_the_field(model: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        AgentRouter.validate(model)
    assert caught.value.field == "model"


def test_the_router_picks_by_the_turns_model() -> None:
    router = AgentRouter()
    assert isinstance(router.backend_for("offline"), OfflineBackend)
    assert isinstance(router.backend_for("openai-chat:gpt-6-luna"), PydanticAIBackend)


async def test_the_router_answers_a_turn_with_its_model(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Hello" in (await bench.run("hello")).text
    async with ScriptedProvider(Reply("From afar.")) as provider:
        provider.point(monkeypatch)
        assert (await bench.run("hello", model="openai-chat:gpt-6-luna")).text == "From afar."


@pytest.mark.usefixtures("_bare")
def test_models_are_described_with_why_they_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    by_name = {entry["name"]: entry for entry in AgentRouter().describe("openai-chat:mine", "mistral:x")}
    assert list(by_name)[:2] == ["offline", "openai-chat:mine"]
    assert by_name["offline"]["usable"] is True
    assert by_name["offline"]["reason"] is None
    assert "OPENAI_API_KEY" in by_name["openai-chat:mine"]["reason"]
    assert 'pip install "pydantic-ai-slim[mistral]"' in by_name["mistral:x"]["reason"]
    assert "GOOGLE_API_KEY" in by_name["google:gemini-4-argon"]["reason"]
    assert "an address: give it in the settings of the chat, or set OLLAMA_BASE_URL" in str(
        AgentRouter().problem("ollama:x")
    )
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    assert AgentRouter().problem("openai-chat:mine") is None, "a server of one's own needs no key"


def test_the_catalog_knows_what_pydantic_ai_knows() -> None:
    from pydantic_ai.models import KnownModelName
    from pydantic_ai.providers import infer_provider_class

    for prefix in PROVIDERS:
        try:
            infer_provider_class(prefix)
        except ImportError:
            continue  # known, its package is not here
    known = set(get_args(KnownModelName.__value__))
    suggested = {f"{prefix}:{name}" for prefix, one in PROVIDERS.items() for name in one.models}
    assert suggested <= known


def test_looking_for_a_package_whose_parent_is_missing_is_no_error() -> None:
    assert has_package("no_such_package.below") is False


# --- profiles --------------------------------------------------------------------------------------------------------


async def test_the_instructions_say_when_who_and_why(bench: Bench) -> None:
    await bench.run("remind me every hour to look")
    (recall,) = bench.desk.recalls.values()
    turn, context = bench.turn("look", origin=Origin(kind=OriginKind.RECALL, recall_id=recall.id))
    wake = RecallTrigger(
        recall=recall, slot=turn.now - timedelta(minutes=5), lateness=timedelta(minutes=5), coalesced=2
    )
    text = instructions(PROFILES[DEFAULT_PROFILE], turn, context, wake)
    for part in ("Europe/Berlin", "ada", "a recall woke you", "every hour", recall.id, "5 min ago", "2 earlier times"):
        assert part in text


# --- tools -----------------------------------------------------------------------------------------------------------


def test_every_tool_has_a_description_and_a_schema_with_described_arguments() -> None:
    for tool in builtin_tools().values():
        assert tool.description
        assert tool.parameters["type"] == "object"
        assert all("description" in one for one in tool.parameters.get("properties", {}).values()), tool.name
        assert json.dumps(dict(tool.parameters))


async def test_a_tool_may_be_given_an_exact_schedule(bench: Bench) -> None:
    _, context = bench.turn("x")
    schedule = {"kind": "cron", "expr": "0 9 * * 1-5", "tz": "Asia/Tokyo"}
    result = json.loads(
        await OfflineTools(default_parts(), context).call("create_recall", {"message": "m", "schedule": schedule})
    )
    assert "Asia/Tokyo" in result["recall"]["schedule"]


async def test_limits_of_a_recurring_recall_reach_its_policy(bench: Bench) -> None:
    _, context = bench.turn("x")
    arguments = {"message": "m", "when": "every hour", "until": "tomorrow at 9", "max_fires": 3, "notify": ["phone"]}
    await OfflineTools(default_parts(), context).call("create_recall", arguments)
    (recall,) = bench.desk.recalls.values()
    assert recall.policy.max_fires == 3
    assert recall.policy.notify == ("phone",)
    assert recall.policy.until is not None
    assert recall.policy.until > now()


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("create_recall", {"message": "m", "when": "soon"}, "invalid_schedule"),
        ("create_recall", {"message": "m"}, "invalid_request"),
        ("create_recall", {"message": "m", "when": "10m", "until": "every day"}, "invalid_request"),
        ("cancel_recall", {"recall_id": "r_none"}, "recall_not_found"),
        ("current_time", {"timezone": "Mars/Olympus"}, "invalid_request"),
        ("session_history", {"since": "xyzzy"}, "invalid_request"),
    ],
)
async def test_what_a_tool_refuses_is_a_result(bench: Bench, name: str, arguments: dict[str, Any], code: str) -> None:
    _, context = bench.turn("x")
    result = json.loads(await OfflineTools(default_parts(), context).call(name, arguments))
    assert result["error"] == code
    assert result["message"]


@pytest.mark.parametrize(("name", "arguments"), [("current_time", {"x": 1}), ("cancel_recall", {})])
async def test_arguments_that_do_not_fit_are_a_result(bench: Bench, name: str, arguments: dict[str, Any]) -> None:
    _, context = bench.turn("x")
    result = json.loads(await OfflineTools(default_parts(), context).call(name, arguments))
    assert result["error"] == "invalid_arguments"
    assert result["message"]


async def test_a_tool_cancels_what_the_short_id_of_the_user_names(bench: Bench) -> None:
    _, context = bench.turn("x")
    request = {"session_id": context.session.id, "message": "m", "schedule": {"kind": "once", "in": "10m"}}
    mine = await bench.desk.create(RecallCreate.model_validate(request), owner=context.user_id, zone="UTC")
    tools = OfflineTools(default_parts(), context)
    assert json.loads(await tools.call("cancel_recall", {"recall_id": mine.id[-4:]}))["recall"]["id"] == mine.id


async def test_a_tool_works_in_its_own_session_only(bench: Bench) -> None:
    request = {"session_id": "s_other", "message": "m", "schedule": {"kind": "once", "in": "10m"}}
    other = await bench.desk.create(RecallCreate.model_validate(request), owner="ada", zone="UTC")
    _, context = bench.turn("x")
    result = json.loads(await OfflineTools(default_parts(), context).call("cancel_recall", {"recall_id": other.id}))
    assert result["error"] == "recall_not_found"
    assert json.loads(await OfflineTools(default_parts(), context).call("list_recalls", {}))["count"] == 0


# --- how things are said ---------------------------------------------------------------------------------------------


def test_times_stretches_and_schedules_are_written_plainly(bench: Bench) -> None:
    turn, _ = bench.turn("x")
    noon = turn.now.replace(hour=12, minute=0, second=0, microsecond=0)
    tomorrow = noon + timedelta(days=1)
    assert say_time(tomorrow, "Europe/Berlin", noon).startswith(f"Tomorrow, {tomorrow:%a}")
    assert say_time(tomorrow, "Europe/Berlin", noon).endswith("12:00 Europe/Berlin")
    assert say_time(noon + timedelta(seconds=30), "Europe/Berlin", noon).endswith("12:00:30 Europe/Berlin")
    assert say_time(tomorrow, "Europe/Berlin", noon, reader="Europe/Berlin").endswith("12:00")
    assert say_time(tomorrow, "Europe/Berlin", noon, reader="Asia/Tokyo").endswith("12:00 Europe/Berlin")
    assert say_stretch(timedelta(seconds=5400)) == "1 h 30 min"
    assert say_stretch(timedelta(seconds=86400)) == "1 d"
    assert say_stretch(timedelta(milliseconds=200)) == "less than a second"


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        ("0 9 * * *", "every day at 09:00 UTC"),
        ("30 14 * * 1,4", "every Monday and Thursday at 14:30 UTC"),
        ("0 9,17 * * 1-5", "weekdays at 09:00 and 17:00 UTC"),
        ("0 10 1 * *", "day 1 of each month at 10:00 UTC"),
        ("*/5 * * * *", "every 5 minutes UTC"),
        ("@daily", "every day at 00:00 UTC"),
        ("0 9 1 12 *", "day 1 of December at 09:00 UTC"),
        ("*/7 1-5/2 3 * *", "cron `*/7 1-5/2 3 * *` UTC"),
    ],
)
async def test_schedules_are_put_in_words_where_words_fit(bench: Bench, expr: str, said: str) -> None:
    request = {"session_id": "s_1", "message": "m", "schedule": {"kind": "cron", "expr": expr, "tz": "UTC"}}
    recall = await bench.desk.create(RecallCreate.model_validate(request), owner="ada", zone="UTC")
    assert say(recall.schedule) == said
