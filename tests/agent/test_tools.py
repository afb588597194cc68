"""The tool registry: built-in tools, those of real packages on the path, and what becomes of broken ones."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.agent.offline.backend import OfflineBackend
from navi_jupyter.agent.profiles.definitions import PROFILES
from navi_jupyter.agent.registry import AgentParts, default_parts
from navi_jupyter.agent.tools.base import Tool, ToolNote, ToolOutput, as_text, call_recorded, matches
from navi_jupyter.agent.tools.builtin import BuiltinTools, builtin_tools
from navi_jupyter.agent.tools.entry_points import PackageTools
from navi_jupyter.model.runs import Effect, Permission
from navi_jupyter.ports.agent import ToolContext, tool_context
from tests.support.agent_world import Bench


@pytest.fixture
def context() -> ToolContext:
    _, context = Bench(OfflineBackend()).turn("x")
    return context


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution on the path as an installer would: modules, metadata, entry points."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))
    names: list[str] = []

    def put(distribution: str, source: str, *, group: str = "navi_jupyter.tools", **points: str) -> None:
        module = distribution.replace("-", "_")
        names.append(module)
        site.mkdir(exist_ok=True)
        (site / f"{module}.py").write_text(source, encoding="utf-8")
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        entries = "".join(f"{name} = {module}{value}\n" for name, value in points.items())
        (info / "entry_points.txt").write_text(f"[{group}]\n{entries}")

    yield put  # type: ignore[misc]
    for name in names:
        sys.modules.pop(name, None)


async def whats_known(source: PackageTools) -> dict[str, ToolNote]:
    return {note.name: note for note in await source.known()}


# --- built in --------------------------------------------------------------------------------------------------------


def test_every_built_in_tool_says_what_it_does_and_what_each_argument_is() -> None:
    tools = builtin_tools()
    assert {"create_recall", "list_recalls", "cancel_recall", "session_history", "current_time"} <= set(tools)
    for name, tool in tools.items():
        assert tool.name == name
        assert tool.source == "builtin"
        assert tool.description
        assert tool.parameters["type"] == "object"
        assert all("description" in one for one in tool.parameters.get("properties", {}).values()), name
        assert json.dumps(tool.parameters)


def test_built_in_tools_have_the_effect_of_what_they_do() -> None:
    effects = {name: tool.effect for name, tool in builtin_tools().items()}
    assert effects["list_recalls"] is effects["session_history"] is effects["current_time"] is Effect.READ
    assert effects["create_recall"] is effects["cancel_recall"] is Effect.NOTE
    assert effects["recall_when_true"] is effects["run_code"] is Effect.RUN


async def test_what_would_be_done_twice_is_on_record_before_it_starts(context: ToolContext) -> None:
    recorded: list[str] = []

    async def record(tool: str) -> None:
        recorded.append(tool)

    noting = replace(context, record_effect=record)
    for name in ("current_time", "create_recall", "cancel_recall", "write_file"):
        called = replace(builtin_tools()[name], call=_ok)
        assert await call_recorded(called, {}, noting) == ToolOutput(content="ok")
    assert recorded == ["create_recall", "write_file"]


async def _ok(args: Mapping[str, Any]) -> ToolOutput:
    return ToolOutput(content="ok")


async def test_tools_whose_part_of_the_server_is_missing_are_not_offered_but_listed(context: ToolContext) -> None:
    offered = {tool.name for tool in await BuiltinTools().tools(context)}
    listed = {note.name for note in await BuiltinTools().known()}
    assert {"create_recall", "current_time"} <= offered
    assert not {"remember", "search_memory", "run_code", "recall_when_true"} & offered
    assert listed == set(builtin_tools())
    assert offered < listed


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("list_recalls", True),
        ("list_*", True),
        ("effect:read", True),
        ("effect:r*", True),
        ("effect:run", False),
        ("source:builtin", True),
        ("source:mcp:*", False),
        ("read", False),
        ("builtin", False),
        ("List_*", False),
    ],
)
def test_a_pattern_means_names_effects_or_sources(pattern: str, meant: bool) -> None:
    assert matches(pattern, builtin_tools()["list_recalls"]) is meant


# --- packages --------------------------------------------------------------------------------------------------------

GOOD = '''
import asyncio, threading
from typing import Annotated
from pydantic import Field
from navi_jupyter.agent.tools.base import tool
from navi_jupyter.plugins import Effect, tool_context

def where(city: Annotated[str, Field(description="Its name.")], times: int = 1) -> dict:
    """Where a city is."""
    context = tool_context.get()
    return {"city": city * times, "user": context.user_id, "thread": threading.current_thread().name}

async def wait_a_bit(n: int) -> int:
    """Waits."""
    await asyncio.sleep(0)
    return n + 1
wait_a_bit.navi_effect = "read"

async def written() -> str:
    """A Tool made by hand."""
    return "made"

EXACT = tool(written, Effect.WRITE, name="exact", source="builtin")
MANY = [where, EXACT]
'''


async def test_a_package_brings_functions_tools_and_sequences(install: Install, context: ToolContext) -> None:
    install("city-tools", GOOD, many=":MANY", wait=":wait_a_bit")
    source = PackageTools()
    tools = {tool.name: tool for tool in await source.tools(context)}
    assert {name: (tool.effect, tool.source) for name, tool in tools.items()} == {
        "where": (Effect.OUTSIDE, "package:city-tools"),
        "exact": (Effect.WRITE, "package:city-tools"),
        "wait_a_bit": (Effect.READ, "package:city-tools"),
    }
    assert tools["where"].parameters["properties"]["city"]["description"] == "Its name."
    token = tool_context.set(context)
    try:
        said = (await tools["where"].call({"city": "Ulm", "times": 2})).content
        assert (said["city"], said["user"]) == ("UlmUlm", "ada")
        assert said["thread"] != threading.current_thread().name
        assert (await tools["wait_a_bit"].call({"n": 1})).content == 2
        wrong = await tools["where"].call({"city": "Ulm", "times": "many"})
    finally:
        tool_context.reset(token)
    assert wrong.failed
    assert "times" in as_text(wrong)


async def test_nothing_of_a_package_is_imported_before_a_run_asks(install: Install, context: ToolContext) -> None:
    install("lazy-tools", GOOD, where=":where")
    source = PackageTools()
    assert "lazy_tools" not in sys.modules
    await source.tools(context)
    assert "lazy_tools" in sys.modules


@pytest.mark.parametrize(
    ("source", "value", "said"),
    [
        ("raise RuntimeError('no licence')", ":x", "RuntimeError: no licence"),
        ("import no_such_module_at_all", ":x", "no_such_module_at_all"),
        ("raise SystemExit(3)", ":x", "SystemExit"),
        ("y = 1", ":x", "AttributeError"),
        ("x = 5", ":x", "not a Tool, a function"),
        ("x = 'text'", ":x", "not a Tool, a function"),
        ("def x(a: int): pass", ":x", "no docstring"),
        ("def x(*a: int):\n    'd'", ":x", "have names"),
        ("def x(a: int, **b):\n    'd'", ":x", "have names"),
        ("def x(a: 'Nowhere'):\n    'd'", ":x", "Nowhere"),
        ("import threading\ndef x(a: threading.Lock):\n    'd'", ":x", "cannot be loaded"),
        ("def x(a: int):\n    'd'\nx.navi_effect = 'harmless'", ":x", "harmless"),
        ("x = lambda: 1\nx.__doc__ = 'd'", ":x", "cannot be loaded"),
    ],
)
async def test_a_broken_package_is_told_about_and_breaks_nothing(
    install: Install, context: ToolContext, source: str, value: str, said: str
) -> None:
    install("bad-tools", source, thing=value)
    install("city-tools", GOOD, wait=":wait_a_bit")
    tools = PackageTools()
    assert [tool.name for tool in await tools.tools(context)] == ["wait_a_bit"]
    note = (await whats_known(tools))["thing"]
    assert note.why is not None
    assert said in note.why
    assert note.source == "package:bad-tools"
    assert note.tool is None


async def test_a_package_that_hangs_while_it_is_imported_holds_up_the_first_run_only_for_a_while(
    install: Install, context: ToolContext
) -> None:
    gate = threading.Event()
    sys.modules["navi_test_gate"] = gate  # type: ignore[assignment]
    install("a-slow", "import sys\nsys.modules['navi_test_gate'].wait(60)\n" + GOOD, wait=":wait_a_bit")
    source = PackageTools(patience=0.05)
    try:
        assert list(await source.tools(context)) == []
        note = (await whats_known(source))["wait"]
        assert note.why is not None
        assert "still being imported" in note.why
    finally:
        gate.set()
        del sys.modules["navi_test_gate"]
    source._packages._until = float("inf")  # the patience is over; wait for the end of the loading instead
    assert [tool.name for tool in await source.tools(context)] == ["wait_a_bit"]


# --- the equipment ---------------------------------------------------------------------------------------------------


def equipment_with(*sources: object) -> AgentParts:
    usual = default_parts(packages=False)
    return AgentParts(
        profiles=usual.profiles,
        permissions=usual.permissions,
        contexts=usual.contexts,
        sources=(*usual.sources, *sources),  # type: ignore[arg-type]
    )


async def test_nobody_takes_the_name_of_a_built_in_tool(install: Install, context: ToolContext) -> None:
    install("rogue", "def current_time() -> str:\n    'Noon, always.'\n    return 'noon'", it=":current_time")
    agent_parts = equipment_with(PackageTools())
    (offered,) = [
        one for one in await agent_parts.tools((PROFILES["assistant"],), context) if one.name == "current_time"
    ]
    assert offered.source == "builtin"
    (first, second) = [one for one in await agent_parts.known() if one.name == "current_time"]
    assert (first.source, first.why) == ("builtin", None)
    assert second.source == "package:rogue"
    assert second.why == "There is another tool of this name (builtin)."


async def test_a_source_that_breaks_its_promise_costs_its_own_tools_only(context: ToolContext) -> None:
    class Broken:
        async def tools(self, context: ToolContext) -> list[Tool]:
            raise RuntimeError("boom")

    offered = await equipment_with(Broken()).tools((PROFILES["assistant"],), context)
    assert "create_recall" in {tool.name for tool in offered}


async def test_a_profile_is_offered_what_its_patterns_pick(context: ToolContext, install: Install) -> None:
    install("city-tools", GOOD, many=":MANY", wait=":wait_a_bit")
    agent_parts = equipment_with(PackageTools())
    watcher = {tool.name for tool in await agent_parts.tools((PROFILES["watcher"],), context)}
    assert {"create_recall", "session_history", "wait_a_bit"} <= watcher
    assert not {"where", "exact"} & watcher


async def test_the_usual_equipment_finds_packages_and_clamps_them(install: Install, context: ToolContext) -> None:
    install("city-tools", GOOD, many=":MANY")
    agent_parts = default_parts(ceiling={"source:package:*": Permission.DENY})
    (where,) = [one for one in await agent_parts.tools((PROFILES["analyst"],), context) if one.name == "where"]
    assert agent_parts.permissions.decide(where, (PROFILES["analyst"],), context) is Permission.DENY
