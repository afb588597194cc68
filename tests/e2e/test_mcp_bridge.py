"""``navi mcp`` and a real server: a stdio client calls every tool, cancels one, and outlives the server's death."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequestParams, ElicitResult, Implementation

from tests.support.server import JupyterServer

from .client import ok

Start = Callable[..., JupyterServer]
GIVEN: Mapping[str, Any] = {
    "path": "note.txt",
    "content": "hello",
    "code": "print(6 * 7)",
    "prompt": "hello",
    "message": "look",
    "when": "in 3 hours",
    "query": "hello",
    "text": "the sky is blue",
    "source": "1 + 1",
    "name": "answer",
    "notebook": "work.ipynb",
}
"""Arguments by name; those without are made of their schema."""
WORKS = ("run_code", "write_file", "create_recall", "list_recalls", "ask_session")
AT_THE_END = ("interrupt_kernel", "restart_kernel")
PATIENCE = 120.0


def arguments(schema: Mapping[str, Any], session: str) -> dict[str, Any]:
    """Something for each argument that is required, and the notebook where one can be named."""
    made: dict[str, Any] = {}
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        values = properties[name].get("enum")
        kinds = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}
        made[name] = GIVEN.get(name) or (values[0] if values else kinds.get(properties[name].get("type"), "x"))
    if "schedule" in properties:
        made["when"] = GIVEN["when"]
    if "session" in made:
        made["session"] = session
    elif "notebook" in properties:
        made["notebook"] = GIVEN["notebook"]
    return made


async def allow(context: Any, params: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="accept", content={"allow": True})


def text_of(result: Any) -> str:
    return "".join(part.text for part in result.content if part.type == "text")


async def test_a_stdio_client_calls_every_tool_cancels_one_and_goes_on_when_the_server_is_killed(start: Start) -> None:
    server = await asyncio.to_thread(start)
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "navi_jupyter.cli", "mcp"], env=server.env())
    program = Implementation(name="desk-lamp", title="Desk Lamp", version="1")
    async with Client(
        stdio_client(parameters, errlog=(server.home / "mcp.log").open("a")),
        mode="legacy",
        client_info=program,
        elicitation_callback=allow,
    ) as client:
        tools = {one.name: one for one in (await client.list_tools()).tools}
        assert {"run_code", "write_file", "create_recall", "ask_session", "list_sessions"} <= set(tools)
        code = await client.call_tool("run_code", {"code": "answer = 42; print(6 * 7)", "notebook": "work.ipynb"})
        assert "42" in text_of(code), text_of(code)
        listed = json.loads(text_of(await client.call_tool("list_sessions", {})))["sessions"]
        session = listed[0]["id"]
        failed = {}
        for name in [*(name for name in tools if name not in AT_THE_END), *AT_THE_END]:
            async with asyncio.timeout(PATIENCE):
                result = await client.call_tool(name, arguments(tools[name].input_schema, session))
            if result.is_error:
                failed[name] = text_of(result)
        # Some name things that are not there; none is refused by the bridge or hangs.
        assert {name: failed[name] for name in WORKS if name in failed} == {}
        assert (server.root / "note.txt").read_text() == "hello"

        endless = {"code": "import time; open('began', 'w').close(); time.sleep(600)", "notebook": "work.ipynb"}
        calling = asyncio.ensure_future(client.call_tool("run_code", endless))
        await asyncio.to_thread(server.wait_for, (server.root / "began").exists, within=PATIENCE)
        calling.cancel()
        await asyncio.to_thread(server.wait_for, lambda: not running(server), within=PATIENCE)

        # Killed in mid-call: that call fails with the reason, and the next one finds the server with its new token.
        (server.root / "began").unlink()
        calling = asyncio.ensure_future(client.call_tool("run_code", endless))
        await asyncio.to_thread(server.wait_for, (server.root / "began").exists, within=PATIENCE)
        server.kill9()
        with pytest.raises(MCPError, match="does not answer"):
            await calling
        server.token = "another-token-of-the-next-start"
        again = asyncio.ensure_future(client.list_tools())
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(PATIENCE):
            assert {one.name for one in (await again).tools} == set(tools)
            result = await client.call_tool("write_file", {"path": "note.txt", "content": "again"})
        assert not result.is_error
        assert (server.root / "note.txt").read_text() == "again"

    # Without a token of the user there is an error for each request, and an end.
    for given in (["--url", server.url, "--token", "wrong"], ["--url", "http://127.0.0.1:9/"]):
        assert "error" in await asyncio.to_thread(answer_of_bridge, server, *given)
    assert "Traceback" not in (server.home / "mcp.log").read_text()


def answer_of_bridge(server: JupyterServer, *args: str) -> Any:
    """Its answer to one request; it has ended by then."""
    command = [sys.executable, "-m", "navi_jupyter.cli", "mcp", *args]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=server.env()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}\n')
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
    return answer


def running(server: JupyterServer) -> bool:
    """Whether a session has a run in progress."""
    listed = ok(server, "GET", "sessions")["sessions"]
    return any(ok(server, "GET", f"sessions/{one['id']}")["run"] for one in listed)
