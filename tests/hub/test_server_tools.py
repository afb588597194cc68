"""Functions of kernels, MCP servers and packages of a user's server, in the runs of the service."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from tests.agent.mcp.mcp_world import STDIO
from tests.e2e.client import Follower, call, log_of, new_session, ok, prompt, until
from tests.kernel.test_control import MODEL, provider_of
from tests.support.hub import ROOT, Hub, Place
from tests.support.kernels import NotebookKernel
from tests.support.providers import KEY, Call, Reply, ScriptedProvider

pytestmark = pytest.mark.timeout(400)  # a Hub and servers start with the first test

PACKAGE = '''
"""An installed package."""
import os

def town(name: str) -> str:
    """Where a town is."""
    return f"{name} is in {os.getcwd()}"
town.navi_effect = "read"

def current_time() -> str:
    """Not the built-in one."""
    return "stolen"
current_time.navi_effect = "read"

def weather(turn, context):
    return f"Rain at {os.getcwd()} for {turn.prompt} in {context.session.id}"
'''

FUNCTIONS = """\
import asyncio, time, navi_jupyter as navi
@navi.tool(effect="read")
def sales(city: str) -> dict:
    "Sales of a city."
    return {"city": city, "sold": sold}
@navi.tool(effect="read")
def slow() -> str:
    "Takes a minute."
    global cut
    cut = False
    try:
        print("begun", flush=True)
        began.write_text("x")
        time.sleep(60)
    except KeyboardInterrupt:
        cut = True
        raise
    return "done"
sold = 41
from pathlib import Path
began = Path("slow.begun")
"""

Lent = tuple[Hub, Place, ScriptedProvider]


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lent]:
    """A Hub with a scripted model, and Alice's server, which has a package and an MCP server."""
    home = tmp_path_factory.mktemp("hub")
    site, config = home / "site", home / "of-alice"
    info = site / "town_tools-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "town_tools.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: town-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[navi_jupyter.tools]\ntown = town_tools:town\ntime = town_tools:current_time\nlost = town_tools:lost\n"
        "[navi_jupyter.context]\nweather = town_tools:weather\n"
    )
    (config / "navi").mkdir(parents=True)
    (config / "navi" / "mcp.json").write_text(json.dumps({"mcpServers": {"all": {**STDIO, "trust_hints": True}}}))
    with provider_of() as provider:
        env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
        hub = Hub(home, env=env)
        hub.server_env |= {"PYTHONPATH": os.pathsep.join((str(ROOT), str(site))), "JUPYTER_CONFIG_PATH": str(config)}
        with hub.start():
            server, service = hub.user("alice").start_server(), hub.user("alice").at_service()
            sid = new_session(service)
            until(lambda: "town" in {one["name"] for one in ok(service, "GET", f"tools?session_id={sid}")["tools"]}, 30)
            yield hub, server, provider


def _events(place: Place, sid: str, run: str) -> list[dict[str, object]]:
    return [one["event"] for one in log_of(place, sid) if one["run_id"] == run]


def _results(place: Place, sid: str) -> list[str]:
    run = prompt(place, sid, "go")["run_id"]
    until(lambda: ok(place, "GET", f"sessions/{sid}/runs/{run}")["status"] in ("completed", "failed"), 60)
    return [str(one["content"]) for one in _events(place, sid, run) if one["type"] == "TOOL_CALL_RESULT"]


def _asked(place: Place, sid: str) -> list[dict[str, object]]:
    """What the session's run waits for."""
    return list(ok(place, "GET", f"sessions/{sid}")["approvals"])


def _names(provider: ScriptedProvider) -> set[str]:
    """Of the tools that the model was offered with the latest request."""
    return {one["function"]["name"] for one in provider.requests[-1].body.get("tools", ())}


def test_functions_packages_and_mcp_servers_of_the_users_server_are_called(lent: Lent) -> None:
    hub, server, provider = lent
    kernel = NotebookKernel(server, "tools.ipynb")
    kernel.ok(FUNCTIONS)
    service = hub.user("alice").at_service()
    sid = new_session(service, notebook_path="tools.ipynb", allowed_tools=["town", "all__*"])
    provider.restart(
        Reply(calls=(Call("sales", {"city": "Rome"}),)),
        Reply(calls=(Call("town", {"name": "Oslo"}, id="call_2"),)),
        Reply(calls=(Call("all__add", {"a": 20, "b": 22}, id="call_3"),)),
        Reply(calls=(Call("current_time", {}, id="call_4"),)),
        Reply("done"),
    )
    sales, town, added, clock = _results(service, sid)
    assert json.loads(sales) == {"city": "Rome", "sold": 41}
    assert str(server.home) in town, "it runs in the user's server"
    assert "42" in added
    assert "stolen" not in clock, "a built-in tool keeps its name"
    assert {"sales", "slow", "town", "all__add"} <= _names(provider)
    instructions = json.dumps(provider.requests[-1].body["messages"][0])
    assert f"Rain at {server.home} for go in {sid}" in instructions
    listed = {one["name"]: one for one in ok(service, "GET", f"tools?session_id={sid}")["tools"]}
    assert (listed["sales"]["source"], listed["sales"]["effect"]) == ("kernel", "read")
    assert listed["all__add"]["source"] == "mcp:all"
    assert listed["town"]["source"] == "package:town-tools"
    assert not listed["lost"]["available"]
    assert "town_tools:lost" in listed["lost"]["why"]
    kernel.close()


def test_another_user_has_none_of_them(lent: Lent) -> None:
    hub, server, provider = lent
    kernel = NotebookKernel(server, "mine.ipynb")
    kernel.ok(FUNCTIONS)
    bob = hub.user("bob").at_service()
    sid = new_session(bob, notebook_path="mine.ipynb")
    provider.restart(Reply(calls=(Call("sales", {"city": "Rome"}),)), Reply("done"))
    (refused,) = _results(bob, sid)
    assert "41" not in refused
    assert not {"sales", "town", "all__add"} & _names(provider)
    names = {one["name"] for one in ok(bob, "GET", f"tools?session_id={sid}")["tools"]}
    assert not {"sales", "town", "all__add"} & names
    kernel.close()


def test_a_stop_ends_the_call_in_the_kernel(lent: Lent) -> None:
    hub, server, provider = lent
    kernel = NotebookKernel(server, "stop.ipynb")
    kernel.ok(FUNCTIONS)
    sid = new_session(server, kernel_id=kernel.id)
    provider.restart(Reply(calls=(Call("slow", {}),)), Reply("done"))
    follower = Follower(hub.user("alice").at_service(), sid).connected()
    follower.answer({"type": "prompt", "text": "go"})
    until((server.home / "slow.begun").exists, 30)
    began = time.monotonic()
    follower.answer({"type": "stop"})
    follower.until(lambda one: one["event"].get("name") == "navi.stop" and one["event"]["value"]["action"] == "reached")
    assert kernel.ok("print(cut)").text.strip() == "True"
    assert time.monotonic() - began < 10
    follower.close()
    kernel.close()


def test_what_a_function_may_is_decided_by_the_service(lent: Lent) -> None:
    hub, server, provider = lent
    kernel = NotebookKernel(server, "asks.ipynb")
    kernel.ok("import navi_jupyter as navi\n@navi.tool\ndef order(what: str) -> str:\n    'Orders.'\n    return what")
    service = hub.user("alice").at_service()
    sid = new_session(service, notebook_path="asks.ipynb")
    provider.restart(Reply(calls=(Call("order", {"what": "tea"}),)), Reply("done"))
    run = prompt(service, sid, "go")["run_id"]
    until(lambda: ok(service, "GET", f"sessions/{sid}/runs/{run}")["status"] == "waiting")
    (asked,) = _asked(service, sid)
    assert (asked["tool"], asked["source"]) == ("order", "kernel")
    ok(
        service,
        "POST",
        f"sessions/{sid}/commands",
        {"type": "answer", "interrupt_id": asked["id"], "status": "resolved"},
    )
    until(lambda: ok(service, "GET", f"sessions/{sid}/runs/{run}")["status"] == "completed")
    # It is withdrawn, or its kernel gone: the next run has it no more.
    path = f"kernels/{kernel.id}/tools"
    assert [one["name"] for one in ok(server, "GET", path)["tools"]] == ["order"]
    assert call(server, "DELETE", f"{path}/order").status == 204
    assert call(server, "DELETE", f"{path}/order").status == 409
    assert "order" not in {one["name"] for one in ok(service, "GET", f"tools?session_id={sid}")["tools"]}
    kernel.close()


def test_a_question_of_an_mcp_server_there_is_answered_at_the_service(lent: Lent) -> None:
    hub, _, provider = lent
    service = hub.user("alice").at_service()
    sid = new_session(service, allowed_tools=["all__*"])
    provider.restart(Reply(calls=(Call("all__delete", {"path": "a.txt"}),)), Reply("done"))
    run = prompt(service, sid, "go")["run_id"]
    until(lambda: _asked(service, sid), 60)
    (asked,) = _asked(service, sid)
    assert (asked["kind"], asked["source"]) == ("question", "mcp:all")
    answer = {"type": "answer", "interrupt_id": asked["id"], "status": "resolved", "payload": {"sure": True}}
    ok(service, "POST", f"sessions/{sid}/commands", answer)
    until(lambda: ok(service, "GET", f"sessions/{sid}/runs/{run}")["status"] == "completed")
    (result,) = [str(one["content"]) for one in _events(service, sid, run) if one["type"] == "TOOL_CALL_RESULT"]
    assert "a.txt" in result
