"""Results of MCP servers with text that no UTF-8 can hold, or nested without measure."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from navi_jupyter.agent.tools.result_text import render
from tests.agent.mcp import raw_server
from tests.agent.mcp.mcp_world import McpWorld


@pytest.fixture(params=["stdio", "http", "events"])
def raw(request: pytest.FixtureRequest, world: McpWorld) -> Iterator[McpWorld]:
    if request.param == "stdio":
        environment = {"PYTHONPATH": str(Path(raw_server.__file__).parents[3])}
        world.configure(all={"command": sys.executable, "args": [raw_server.__file__], "env": environment})
        yield world
        return
    (socket,) = bind_sockets(0, "127.0.0.1")
    http = HTTPServer(Application([("/.*", raw_server.RawHandler, {"as_events": request.param == "events"})]))
    http.add_socket(socket)
    world.configure(all={"url": f"http://127.0.0.1:{socket.getsockname()[1]}/mcp", "protocol": "legacy"})
    yield world
    http.stop()


async def test_lone_surrogates_of_a_server_become_the_replacement_character(raw: McpWorld) -> None:
    (tool,) = (await raw.tools()).values()
    assert tool.description.endswith("Says boom \ufffd end \ufffd")
    output = await raw.run(tool, {"what": "it"})
    assert not output.failed
    kept = "boom \ufffd end \ufffd"
    assert json.loads(render(output.content)) == {"text": kept, "structured": {kept: [kept]}}


@pytest.mark.parametrize("raw", ["http", "events"], indirect=True)
async def test_a_result_that_is_nested_too_deeply_fails_its_call_alone(raw: McpWorld) -> None:
    raw_tools = await raw.tools()
    output = await raw.run(raw_tools["all__say"], {"what": "deep"})
    assert output.failed
    assert "nest" in str(output.content) or "recursion" in str(output.content), output.content
    assert not (await raw.run(raw_tools["all__say"], {"what": "it"})).failed
