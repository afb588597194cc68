"""An agent program reaches the tools of its run by MCP, with its secret, and nothing else of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp
from mcp.shared.exceptions import MCPError

from navi_jupyter.errors import ToolUnavailable
from navi_jupyter.output_text import OutputImage
from navi_jupyter.ports.run_tools import CallResult, OfferedTool, Progress, RunToolsRegistry
from navi_jupyter.server.app import NaviExtension
from tests.conftest import Api
from tests.support.mcp_client import INITIALIZE, answer_in, client_of, post, url_of


class Tools:
    """``RunTools`` that the test looks into."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.began, self.ended = asyncio.Event(), asyncio.Event()

    async def offered(self) -> Sequence[OfferedTool]:
        schema = {"type": "object", "properties": {"code": {"type": "string"}}}
        return [OfferedTool(name=name, description=f"It is {name}.", parameters=schema) for name in ("run", "wait")]

    async def call(self, name: str, arguments: Mapping[str, Any], *, progress: Progress) -> CallResult:
        self.calls.append((name, arguments))
        if name == "gone":
            raise ToolUnavailable("No run is in progress.")
        if name == "wait":
            self.began.set()
            progress("half way")
            try:
                await asyncio.sleep(60)
            finally:
                self.ended.set()
        if name == "count":
            return CallResult(text=str(arguments["text"]))
        images = [OutputImage(media_type="image/png", content=b"png")]
        return CallResult(text=f"ran {arguments.get('code')}", images=images, failed=name != "run")


def registry_of(navi: NaviExtension) -> RunToolsRegistry:
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    return navi.lifecycle.services.run_tools


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_agent_program_lists_calls_and_cancels_the_tools_of_its_run(
    api: Api, navi: NaviExtension, jp_serverapp: ServerApp, mode: str
) -> None:
    tools = Tools()
    registry = registry_of(navi)
    secret = registry.register(tools)
    progress: list[str | None] = []

    async def note(_count: float, _total: float | None, message: str | None) -> None:
        progress.append(message)

    async with client_of(url_of(jp_serverapp), secret, mode=mode) as client:
        listed = await client.list_tools()
        assert [one.name for one in listed.tools] == ["run", "wait"]
        result = await client.call_tool("run", {"code": "1 + \ud83d"[:4] + "1"})
        assert not result.is_error
        assert result.content[0].text == "ran 1 + 1"  # type: ignore[union-attr]
        assert result.content[1].mime_type == "image/png"  # type: ignore[union-attr]
        # A client may take JSON that is no object for wrong data.
        for text, told in (
            ("42", "The result is: 42"),
            ('[1, "a"]', 'The result is: [1, "a"]'),
            ('{"a": 1}', '{"a": 1}'),
        ):
            count = await client.call_tool("count", {"text": text})
            assert count.content[0].text == told  # type: ignore[union-attr]
        gone = await client.call_tool("gone", {})
        assert gone.is_error
        assert "No run is in progress" in gone.content[0].text  # type: ignore[union-attr]
        waiting = asyncio.ensure_future(client.call_tool("wait", {}, progress_callback=note))
        async with asyncio.timeout(20):
            await tools.began.wait()
            while "half way" not in progress:  # noqa: ASYNC110  the client has no event for it
                await asyncio.sleep(0.02)
            waiting.cancel()
            await tools.ended.wait()
        with pytest.raises(MCPError):
            await client.list_prompts()
    registry.forget(secret)
    refused = await post(url_of(jp_serverapp), INITIALIZE, bearer=secret)
    assert refused.code == 401


async def test_a_run_secret_opens_nothing_but_the_tools_of_its_run(
    api: Api, navi: NaviExtension, jp_serverapp: ServerApp
) -> None:
    registry, url = registry_of(navi), url_of(jp_serverapp)
    mine, other = Tools(), Tools()
    secret, second = registry.register(mine), registry.register(other)
    # Not the API, and not with another secret's session.
    assert (await api("GET", "sessions", headers={"Authorization": f"Bearer {secret}"})).status == 403
    opened = await post(url, INITIALIZE, bearer=secret)
    session = opened.headers["Mcp-Session-Id"]
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    assert (await post(url, call, bearer=secret, Mcp_Session_Id=session)).code == 200
    assert (await post(url, call, bearer=second, Mcp_Session_Id=session)).code == 404
    assert (await post(url, call, bearer=secret[:-1] + "x", Mcp_Session_Id=session)).code == 401
    foreign = await post(url, call, bearer=secret, Mcp_Session_Id=session, Origin="https://evil.example")
    assert foreign.code == 403
    assert answer_in(opened)["result"]["serverInfo"]["name"] == "navi"
    assert other.calls == []
