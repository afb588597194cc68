"""What a run works with, in a whole server: the user's profiles, packages, permissions, context, a real kernel."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.providers import Call, Reply, ScriptedProvider
from tests.support.server import ROOT, JupyterServer

from .client import call, new_session, ok

Start = Callable[..., JupyterServer]

PROFILE = """\
extends = "analyst"
model = "openai-chat:gpt-6-luna"
more_instructions = "Always mention the weather."

[permissions]
run_code = "allow"
"effect:outside" = "allow"

[limits]
max_iterations = 4
"""

PACKAGE = '''
def where(city: str) -> str:
    """Where a city is."""
    return f"{city} is on the Danube."

def weather(turn, context):
    return "Rain all day."
'''


CODE = """\
class Trap:
    def __getattr__(self, name):
        raise SystemError(name)
    def __len__(self):
        raise SystemError("len")
    __repr__ = __len__
trap = Trap()
rows = [1, 2, 3]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with an installed package that brings a tool, a context and a broken tool."""
    site = tmp_path / "site"
    info = site / "city_tools-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "city_tools.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: city-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[navi_jupyter.tools]\nwhere = city_tools:where\nlost = city_tools:lost\n"
        "[navi_jupyter.context]\nweather = city_tools:weather\n"
    )
    return site


def write_profile(server: Path, text: str) -> Path:
    """``mine.toml`` in the configuration of a server that lives there."""
    file = server / "config" / "navi" / "profiles" / "mine.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def listed(server: JupyterServer, path: str, plural: str | None = None) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in ok(server, "GET", path)[plural or path]}


def ask(server: JupyterServer, session_id: str, text: str) -> Mapping[str, Any]:
    """Prompt and wait for the run's end."""
    accepted = ok(server, "POST", f"sessions/{session_id}/commands", {"type": "prompt", "text": text})
    cursor = accepted["seq"]
    while True:
        page = ok(server, "GET", f"sessions/{session_id}/events?after={cursor}&wait=20")
        for one in page["events"]:
            cursor = one["seq"]
            if one["run_id"] == accepted["run_id"] and one["event"]["type"] in ("RUN_FINISHED", "RUN_ERROR"):
                return ok(server, "GET", f"sessions/{session_id}/runs/{one['run_id']}")  # type: ignore[no-any-return]


async def test_a_profile_of_the_user_works_with_packages_and_a_kernel(
    start: Start, tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profile(tmp_path / "server", PROFILE)
    script = (
        Reply(calls=(Call("run_code", {"code": CODE}), Call("where", {"city": "Ulm"}, id="call_2"))),
        Reply("Done."),
        Reply("I see."),
    )
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        env = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(site))), "NAVI_TOOL_CEILING": "effect:write=ask"}
        server = await asyncio.to_thread(start, env=env)

        def work() -> None:
            profile = listed(server, "profiles")["mine"]
            assert (profile["available"], profile["model"]) == (True, "openai-chat:gpt-6-luna")
            tools = listed(server, "tools")
            assert (tools["where"]["source"], tools["where"]["permission"]) == ("package:city-tools", "ask")
            assert tools["create_recall"]["permission"] == "allow"
            assert tools["run_code"]["effect"] == "run"
            assert tools["lost"]["available"] is False
            assert "AttributeError" in tools["lost"]["why"]

            kernel = server.request("POST", "api/kernels", {"name": "python3"})
            session_id = new_session(server, profile="mine", kernel_id=kernel["id"])
            assert ok(server, "GET", f"sessions/{session_id}")["model"] == "openai-chat:gpt-6-luna"
            here = listed(server, f"tools?session_id={session_id}", "tools")
            assert (here["run_code"]["permission"], here["where"]["permission"]) == ("allow", "allow")
            assert here["restart_kernel"]["permission"] == "ask"
            assert call(server, "GET", "tools?session_id=s_none").status == 404
            first = ask(server, session_id, "work")
            assert first["status"] == "completed", first
            assert ask(server, session_id, "what is there?")["status"] == "completed"

        await asyncio.to_thread(work)
        sent = [json.dumps(request.body, ensure_ascii=False) for request in provider.requests]
        assert "Always mention the weather." in sent[0]
        assert "Rain all day." in sent[0]
        assert "Ulm is on the Danube." in sent[1]
        assert "- rows: list (3)" not in sent[0]
        assert "Variables:\\n- trap: Trap\\n- rows: list (3)" in sent[2]


async def test_a_broken_profile_says_where_and_its_run_fails_clearly_until_it_is_mended(
    start: Start, tmp_path: Path
) -> None:
    file = write_profile(tmp_path / "server", 'description = "x"\nheadless = "never"\n')
    server = await asyncio.to_thread(start)

    def work() -> None:
        broken = listed(server, "profiles")["mine"]
        assert broken["available"] is False
        assert broken["why"].startswith(f"{file}:2: headless: ")
        refused = call(server, "POST", "sessions", {"profile": "mine"})
        assert refused.status == 400
        assert refused.json["field"] == "profile"
        assert f"{file}:2" in refused.json["message"]
        file.write_text('description = "mended"\n')
        session_id = new_session(server, profile="mine")
        assert ask(server, session_id, "hello")["status"] == "completed"
        file.unlink()
        failed = ask(server, session_id, "hello again")
        assert failed["status"] == "failed"
        assert "There is no profile 'mine'" in failed["error"]["message"]

    await asyncio.to_thread(work)
