"""``navi mcp``: the official SDK's stdio client reaches the MCP server through it, in both eras of the protocol."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client

from navi_jupyter.server.app import NaviExtension
from tests.conftest import Api
from tests.support.mcp_client import INITIALIZE, url_of
from tests.support.server import ROOT

from .test_run_secret import Tools, registry_of

BRIDGE = ["-m", "navi_jupyter.cli", "mcp"]


def environment(url: str, secret: str, home: Path) -> dict[str, str]:
    """What Navi gives an agent program for the bridge, and no server that could be found otherwise."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "JPY_"))}
    given = {"NAVI_MCP_URL": url, "NAVI_MCP_SECRET": secret, "JUPYTER_RUNTIME_DIR": str(home), "PYTHONPATH": str(ROOT)}
    return kept | given


class RawClient:
    """A client that writes what no library would."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def send(self, *messages: Any) -> None:
        assert self.process.stdin is not None
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.process.stdin.write(line + b"\n")
        await self.process.stdin.drain()

    async def read(self) -> Any:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            return json.loads(await self.process.stdout.readline())


@asynccontextmanager
async def raw_client(env: dict[str, str]) -> AsyncIterator[RawClient]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *BRIDGE, stdin=pipe, stdout=pipe, stderr=pipe, env=env, limit=2**26
    )
    try:
        yield RawClient(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(30):
            assert await process.wait() == 0


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_stdio_client_lists_calls_and_cancels_through_the_bridge(
    api: Api, navi: NaviExtension, jp_serverapp: ServerApp, tmp_path: Path, mode: str
) -> None:
    tools = Tools()
    registry = registry_of(navi)
    secret = registry.register(tools)
    progress: list[str | None] = []

    async def note(_count: float, _total: float | None, message: str | None) -> None:
        progress.append(message)

    env = environment(url_of(jp_serverapp), secret, tmp_path)
    parameters = StdioServerParameters(command=sys.executable, args=BRIDGE, env=env)
    async with Client(stdio_client(parameters), mode=mode) as client:
        assert [one.name for one in (await client.list_tools()).tools] == ["run", "wait"]
        result = await client.call_tool("run", {"code": "größer 𝄞"})
        assert result.content[0].text == "ran größer 𝄞"  # type: ignore[union-attr]
        assert result.content[1].mime_type == "image/png"  # type: ignore[union-attr]
        waiting = asyncio.ensure_future(client.call_tool("wait", {}, progress_callback=note))
        async with asyncio.timeout(60):
            await tools.began.wait()
            while "half way" not in progress:  # noqa: ASYNC110  the client has no event for it
                await asyncio.sleep(0.02)
            assert (await client.call_tool("run", {"code": "beside it"})).content[0].text == "ran beside it"  # type: ignore[union-attr]
            waiting.cancel()
            await tools.ended.wait()


async def test_bad_lines_and_what_the_server_refuses_are_errors_and_the_end_of_stdin_ends_what_was_called(
    api: Api, navi: NaviExtension, jp_serverapp: ServerApp, tmp_path: Path
) -> None:
    tools = Tools()
    registry = registry_of(navi)
    url, secret = url_of(jp_serverapp), registry.register(tools)
    async with raw_client(environment(url, secret, tmp_path)) as client:
        await client.send(b"garbage", b"[]", b'{"jsonrpc":"2.0","id":9,"x":"' + b"a" * 50_000_000 + b'"}')
        assert [(await client.read())["error"]["code"] for _ in range(3)] == [-32700, -32600, -32600]
        await client.send({"jsonrpc": "2.0", "id": 8, "method": "tools/list"})
        assert (await client.read())["id"] == 8, "the server refuses it, in whatever words: it has no session"
        await client.send({**INITIALIZE, "id": "one"})
        opened = await client.read()
        assert opened["id"] == "one"
        assert opened["result"]["serverInfo"]["name"] == "navi"
        await client.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        await client.send({"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
        assert [one["name"] for one in (await client.read())["result"]["tools"]] == ["run", "wait"]
        large = {"name": "run", "arguments": {"code": "a" * 3_000_000}}
        await client.send({"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": large})
        refused = await client.read()
        assert (refused["id"], "error" in refused) == (4, True), "above the server's own limit of a message"
        await client.send({"jsonrpc": "2.0", "id": 5, "method": "no/such"})
        assert (await client.read())["error"]["code"] == -32601
        for number in range(100):  # as many as would fill the room for requests, if cancelled ones kept their places
            await client.send(
                {"jsonrpc": "2.0", "id": 100 + number, "method": "tools/call", "params": {"name": "run"}},
                {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 100 + number}},
            )
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            for number in range(1000, 2000):  # refused while so many are being answered
                await client.send({"jsonrpc": "2.0", "id": number, "method": "ping"})
                while (answer := await client.read()).get("id") != number:
                    pass
                if "result" in answer:
                    break
                await asyncio.sleep(0.1)
        await client.send({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "wait"}})
        async with asyncio.timeout(60):
            await tools.began.wait()
    async with asyncio.timeout(60):
        await tools.ended.wait()

    registry.forget(secret)
    async with raw_client(environment(url, secret, tmp_path)) as client:
        await client.send(INITIALIZE)
        assert "401" in (await client.read())["error"]["message"]
