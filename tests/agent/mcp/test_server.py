"""MCP servers of a whole Jupyter server: what is reported about them, and that they end with it, however it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from navi_jupyter.server.app import NaviExtension
from tests.agent.mcp.mcp_world import SCRIPT, STDIO
from tests.agent.mcp.test_process_guard import gone_within, wait_for
from tests.conftest import Api
from tests.e2e.client import ok, until
from tests.support.server import JupyterServer


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "explicit.json"
    file.write_text(json.dumps({"mcpServers": {"all": STDIO, "off": STDIO | {"disabled": True}, "bad": {}}}))
    return file


@pytest.fixture
def navi_config(config_file: Path) -> dict[str, Any]:
    return {"mcp_config": str(config_file)}


async def test_the_list_says_what_can_be_used_and_why_not(navi: NaviExtension, api: Api, config_file: Path) -> None:
    page = await api.ok("GET", "mcp")
    servers = {server["name"]: server for server in page["mcp"]}
    assert (servers["all"]["status"], servers["all"]["available"], servers["all"]["why"]) == ("configured", True, None)
    assert (servers["off"]["status"], servers["off"]["available"]) == ("disabled", False)
    assert servers["bad"]["status"] == "failed"
    assert "mcpServers.bad: give either" in servers["bad"]["why"]
    assert servers["all"]["file"] == str(config_file)
    config_file.write_text("{")
    page = await api.ok("GET", "mcp")
    assert {server["name"] for server in page["mcp"]} == {"all", "off", "bad"}  # those of the last good version
    assert "not JSON" in page["problems"][0]["message"]


async def test_every_open_client_sees_how_a_server_is(navi: NaviExtension, api: Api) -> None:
    one, two = await api.session(), await api.session()
    async with api.socket(one) as first, api.socket(two) as second:
        for socket in (first, second):
            await socket.answer({"type": "unqueue", "target": "nothing"})  # it follows by now
        server = await api.ok("POST", "mcp/all/restart")
        assert server["status"] in ("configured", "starting")
        for socket in (first, second):
            reported: list[dict[str, Any]] = []
            while not reported or reported[-1]["status"] != "ready":
                reported += [
                    envelope["event"]["value"]
                    for envelope in await socket.envelopes()
                    if envelope["event"].get("name") == "navi.mcp"
                ]
            assert {entry["server"] for entry in reported} == {"all"}
            assert [entry["status"] for entry in reported][-2:] == ["starting", "ready"]
    page = await api.ok("GET", "mcp")
    ready = next(server for server in page["mcp"] if server["name"] == "all")
    assert (ready["status"], ready["transport"]) == ("ready", "stdio")
    assert ready["tools"] > 5
    tools = await api.ok("GET", "tools")
    assert "mcp:all" in {tool["source"] for tool in tools["tools"]}


async def test_a_server_that_is_not_configured_can_not_be_restarted(navi: NaviExtension, api: Api) -> None:
    answer = await api("POST", "mcp/nothing/restart")
    assert (answer.status, answer.json["code"]) == (404, "not_found")


def test_nothing_of_the_sdk_is_imported_before_a_server_is_used(config_file: Path) -> None:
    code = (
        "import sys; import navi_jupyter.server.runtime; "
        "from navi_jupyter.agent.mcp.config import ConfigFiles; "
        f"assert ConfigFiles({str(config_file)!r}).read().servers; "
        "print([name for name in sys.modules if name.partition('.')[0] in ('mcp', 'mcp_types', 'httpx2')])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_without_the_sdk_the_list_says_what_to_install(config_file: Path, tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "sys.modules['mcp'] = None\n"
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        "from navi_jupyter.agent.mcp import connection\n"
        "connection.find_spec = lambda name: None if name == 'mcp' else real(name)\n"
        "from navi_jupyter.agent.mcp.config import ConfigFiles\n"
        "from navi_jupyter.agent.mcp.pool import McpPool\n"
        "async def main():\n"
        f"    pool = McpPool(ConfigFiles({str(config_file)!r}))\n"
        "    await pool.use(lambda name: name == 'all', 30)\n"
        "    print(pool.states[0].status, pool.states[0].message)\n"
        "    await pool.stop()\n"
        "asyncio.run(main())"
    )
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said.startswith("failed The MCP client is not installed here")
    assert 'pip install "navi-jupyter[mcp]"' in said


@pytest.fixture
def server_with_stubborn(tmp_path: Path) -> Iterator[tuple[JupyterServer, list[int]]]:
    """A Jupyter server in a process of its own, whose MCP server ignores the end of its input and SIGTERM."""
    pids = tmp_path / "pids"
    file = tmp_path / "stubborn.json"
    entry = {"command": sys.executable, "args": [str(SCRIPT), "stubborn", str(pids)]}
    file.write_text(json.dumps({"mcpServers": {"stubborn": entry}}))
    server = JupyterServer(tmp_path / "server", env={"NAVI_MCP_CONFIG": str(file)}).start()
    try:
        ok(server, "POST", "mcp/stubborn/restart")
        until(lambda: ok(server, "GET", "mcp")["mcp"][0]["status"] == "ready")
        family = [int(pid) for pid in wait_for(pids).split()]
        yield server, [psutil.Process(family[0]).ppid(), *family]
    finally:
        server.stop()


def test_kill_9_of_the_jupyter_server_leaves_no_mcp_server(
    server_with_stubborn: tuple[JupyterServer, list[int]],
) -> None:
    server, family = server_with_stubborn
    assert len(family) == 4  # the guard, the server, its child, its daemon
    server.kill9()
    assert gone_within(family, 2.0)


def test_an_orderly_stop_of_the_jupyter_server_leaves_no_mcp_server(
    server_with_stubborn: tuple[JupyterServer, list[int]],
) -> None:
    server, family = server_with_stubborn
    server.stop()
    assert gone_within(family, 2.0)
