"""Whole runs: a model calls the tools of a real MCP server, in a real Jupyter server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.server.app import NaviExtension
from tests.agent.mcp.mcp_world import STDIO
from tests.conftest import Api
from tests.support.providers import Call, Reply, ScriptedProvider

MODEL = "openai-chat:gpt-test"


@pytest.fixture
def navi_config(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"all": STDIO}}))
    return {"mcp_config": str(file)}


def results(envelopes: list[dict[str, Any]]) -> list[str]:
    return [each["event"]["content"] for each in envelopes if each["event"]["type"] == "TOOL_CALL_RESULT"]


async def test_what_a_server_says_of_its_tools_counts_only_where_the_configuration_trusts_it(
    navi: NaviExtension, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``add`` says that it only reads."""
    async with ScriptedProvider(Reply(calls=(Call("all__add", {"a": 20, "b": 22}),))) as provider:
        provider.point(monkeypatch)
        session = await api.session(model=MODEL)
        await api.ok("POST", "mcp/all/restart")
        async with api.socket(session) as socket:
            accepted = await socket.answer({"type": "prompt", "text": "20 + 22?"})
            envelopes = await socket.until_run_ends(accepted["accepted"]["run_id"])
    assert results(envelopes) == []
    (asked,) = (await api.ok("GET", f"sessions/{session}"))["approvals"]
    assert asked["tool"] == "all__add"
    (listed,) = [one for one in (await api.ok("GET", "tools"))["tools"] if one["name"] == "all__add"]
    assert (listed["effect"], listed["permission"]) == ("outside", "ask")


async def test_a_model_uses_a_tool_that_only_reads_of_a_trusted_server_without_asking(
    navi: NaviExtension, api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trusted = {"mcpServers": {"all": STDIO | {"trust_hints": True}}}
    (tmp_path / "mcp.json").write_text(json.dumps(trusted))
    async with ScriptedProvider(Reply(calls=(Call("all__add", {"a": 20, "b": 22}),)), Reply("It is 42.")) as provider:
        provider.point(monkeypatch)
        session = await api.session(model=MODEL)
        await api.ok("POST", "mcp/all/restart")  # warm, so that the run need not wait
        async with api.socket(session) as socket:
            accepted = await socket.answer({"type": "prompt", "text": "20 + 22?"})
            envelopes = await socket.until_run_ends(accepted["accepted"]["run_id"])
    assert envelopes[-1]["event"]["outcome"]["type"] == "success"
    assert results(envelopes) == ["42"]


async def test_a_question_of_the_server_is_answered_in_the_session(
    navi: NaviExtension, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Call("all__delete", {"path": "old.csv"})
    async with ScriptedProvider(Reply(calls=(call,)), Reply("Gone.")) as provider:
        provider.point(monkeypatch)
        session = await api.session(model=MODEL, allowed_tools=["all__delete"])
        await api.ok("POST", "mcp/all/restart")
        async with api.socket(session) as socket:
            run_id = (await socket.answer({"type": "prompt", "text": "Delete it."}))["accepted"]["run_id"]
            opened = None
            while opened is None:
                for envelope in await socket.envelopes():
                    if envelope["event"].get("name") == "navi.interrupt":
                        opened = envelope["event"]["value"]["interrupt"]
            assert opened["message"] == "all: Delete old.csv?"
            assert (opened["kind"], opened["durable"]) == ("question", False)
            await socket.send(
                {"type": "answer", "interrupt_id": opened["id"], "status": "resolved", "payload": {"sure": True}}
            )
            envelopes = await socket.until_run_ends(run_id)
    assert results(envelopes) == ["deleted old.csv"]


async def test_stopping_a_run_reaches_the_call(
    navi: NaviExtension, api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    call = Call("all__hang", {"started": str(started), "ended": str(ended)})
    async with ScriptedProvider(Reply(calls=(call,)), Reply("never")) as provider:
        provider.point(monkeypatch)
        session = await api.session(model=MODEL, allowed_tools=["all__hang"])
        await api.ok("POST", "mcp/all/restart")
        async with api.socket(session) as socket:
            run_id = (await socket.answer({"type": "prompt", "text": "Wait."}))["accepted"]["run_id"]
            async with asyncio.timeout(30):
                while not started.exists():  # noqa: ASYNC110  it happens in another process
                    await asyncio.sleep(0.01)
            await socket.send({"type": "stop"})
            envelopes = await socket.until_run_ends(run_id)
        async with asyncio.timeout(10):
            while not ended.exists():  # noqa: ASYNC110  it happens in another process
                await asyncio.sleep(0.01)
    stops = [each["event"]["value"] for each in envelopes if each["event"].get("name") == "navi.stop"]
    assert ("reached", "mcp") in [(stop["action"], stop.get("what")) for stop in stops]
    assert envelopes[-1]["event"]["outcome"]["type"] == "cancelled"
    assert (await api.ok("GET", "mcp"))["mcp"][0]["status"] == "ready"
