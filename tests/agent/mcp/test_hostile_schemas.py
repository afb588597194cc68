"""Schemas of MCP servers that are made to hang their reader: the Jupyter server goes on, and ends when asked."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.model.runs import InterruptStatus
from tests.agent.mcp.mcp_world import McpWorld
from tests.agent.mcp.strange import OBJECT
from tests.agent.mcp.test_calls import answering
from tests.agent.mcp.test_strange_servers import Strange, StrangeHttp, doubling, http, strange  # noqa: F401  fixtures
from tests.e2e.client import call, new_session, ok, until
from tests.support.event_loop import loop_watched
from tests.support.providers import KEY, Call, Reply, ScriptedProvider
from tests.support.server import JupyterServer

SCRIPT = Path(__file__).with_name("strange.py")
EVIL = "^(a+)+$"
A40 = "a" * 40 + "!"
TEXT = {"type": "string"}


def of(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}}


# Output schemas, results, and what is said: of the value, or that it was not checked.
OUTPUTS: list[tuple[dict[str, Any], Any, str]] = [
    (of({"type": "string", "pattern": EVIL}), {"a": A40}, "does not match"),
    (of({"type": "string", "pattern": "(a|a)*$b"}), {"a": A40 * 100}, "does not match"),
    ({"type": "object", "patternProperties": {EVIL: TEXT}, "additionalProperties": False}, {A40: "x"}, "unexpected"),
    ({"type": "object", "propertyNames": {"pattern": EVIL}}, {A40: "x"}, "does not match"),
    (of({"type": "string", "pattern": "(a{1000}){1000}"}), {"a": A40}, "not checked"),
    (of({"type": "string", "pattern": "(?=(a+)+$)b"}), {"a": A40}, "not checked"),
    (of({"format": "regex"}), {"a": "(" * 200}, "fits"),
    (of({"type": "array", "uniqueItems": True}), {"a": [[n] for n in range(5_000)]}, "fits"),
    ({"type": "object", "$ref": "#/$defs/d0", "$defs": doubling(40)["$defs"]}, {"a": "x"}, "not valid under any"),
    ({"type": "object", "allOf": [{"$ref": "#"}, {"$ref": "#"}]}, {"a": "x"}, "not checked"),
    (of({"anyOf": [{"items": TEXT}] * 300}), {"a": list(range(20_000))}, "not valid under any"),
    (of({"items": {"allOf": [{"minimum": 0}] * 100}}), {"a": list(range(20_000))}, "not checked"),
    (of({"$ref": "http://127.0.0.1:1/x"}), {"a": "x"}, "not checked"),
    (of(TEXT), {"a": 5}, "is not of type"),
    (of(TEXT), {"a": "x"}, "fits"),
]


@pytest.mark.parametrize(("schema", "value", "says"), OUTPUTS, ids=lambda one: json.dumps(one)[:50])
async def test_a_result_is_checked_within_bounds_and_off_the_loop(
    world: McpWorld,
    http: tuple[StrangeHttp, str],  # noqa: F811
    schema: dict[str, Any],
    value: Any,
    says: str,
) -> None:
    strange = Strange(world, http, "stdio")  # noqa: F811
    tools = [{"name": "t", "inputSchema": OBJECT, "outputSchema": schema}]
    await strange.does({"tools": tools, "results": {"t": {"structuredContent": value}}})
    with loop_watched(0.5):
        output = await asyncio.wait_for(world.call("it__t"), 10)
    notes = [note.why for state in world.pool.states for note in state.notes]
    match says:
        case "fits":
            assert (output.failed, notes) == (False, [])
        case "not checked":
            assert not output.failed
            assert "not checked" in notes[0]
        case _:
            assert output.failed
            assert says in output.content


@pytest.mark.parametrize("head", ['"id": $ID', '"jsonrpc": "1.0", "id": $ID', '"jsonrpc": "2.0", "id": [$ID]'])
async def test_a_large_answer_with_an_odd_head_does_not_hold_the_loop(
    world: McpWorld,
    http: tuple[StrangeHttp, str],  # noqa: F811
    head: str,
) -> None:
    strange = Strange(world, http, "stdio")  # noqa: F811
    many = ", ".join(["[]"] * 300_000)
    line = f'{{{head}, "result": {{"content": [], "structuredContent": {{"a": [{many}]}}}}}}'
    await strange.does({"tools": [{"name": "t", "inputSchema": OBJECT}], "lines": {"t": line}})
    with loop_watched(2.0):
        await asyncio.wait_for(strange.world.call("it__t"), 30)


@pytest.mark.parametrize("head", ['"jsonrpc": "2.0", "id": $ID', '"id": $ID'])
async def test_an_answer_of_millions_of_values_is_not_read_on_the_loop(
    world: McpWorld,
    http: tuple[StrangeHttp, str],  # noqa: F811
    head: str,
) -> None:
    strange = Strange(world, http, "stdio")  # noqa: F811
    many = ",".join(["[]"] * 3_300_000)
    line = f'{{{head}, "result": {{"content": [], "structuredContent": {{"a": [{many}]}}}}}}'
    await strange.does({"tools": [{"name": "t", "inputSchema": OBJECT}], "lines": {"t": line}})
    with loop_watched(1.5):
        output = await asyncio.wait_for(strange.world.call("it__t"), 30)
    assert output.failed
    assert "lists and objects" in str(output.content)


async def test_a_hostile_output_schema_does_no_harm_over_any_transport(strange: Strange) -> None:  # noqa: F811
    tools = [{"name": "t", "inputSchema": OBJECT, "outputSchema": OUTPUTS[0][0]}]
    await strange.does({"tools": tools, "results": {"t": {"structuredContent": {"a": A40}}}})
    with loop_watched(0.5):
        assert (await asyncio.wait_for(strange.world.call("it__t"), 10)).failed


async def test_a_question_with_a_hostile_schema_is_asked_and_one_that_is_too_deep_is_not(
    world: McpWorld,
    http: tuple[StrangeHttp, str],  # noqa: F811
) -> None:
    strange = Strange(world, http, "stdio")  # noqa: F811
    asks = of({"type": "string", "pattern": EVIL})
    asked: list[Any] = []
    await strange.does({"tools": [{"name": "ask", "inputSchema": OBJECT}], "asks": asks})
    with loop_watched(0.5):
        output = await world.call("it__ask", ask=answering(asked, InterruptStatus.RESOLVED, {"a": "aa"}))
    assert json.loads(output.content)["action"] == "accept"
    assert asked[0].response_schema["properties"]["a"]["pattern"] == EVIL


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    """In a thread of its own: the server is another process."""
    scripted = ScriptedProvider(
        Reply(calls=(Call("it__out", {}, id="c1"),), when="the result"),
        Reply(calls=(Call("it__ask", {}, id="c2"),), when="the question"),
        Reply("Done."),
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(scripted.__aenter__(), loop).result(20)
    yield scripted
    asyncio.run_coroutine_threadsafe(scripted.__aexit__(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture
def server(tmp_path: Path, provider: ScriptedProvider) -> Iterator[JupyterServer]:
    doing = tmp_path / "doing.json"
    schema = of({"type": "string", "pattern": EVIL})
    tools = [
        {"name": "out", "inputSchema": OBJECT, "outputSchema": schema, "annotations": {"readOnlyHint": True}},
        {"name": "ask", "inputSchema": OBJECT, "annotations": {"readOnlyHint": True}},
        {"name": "odd", "inputSchema": {"anyOf": [OBJECT]}},
    ]
    results = {"out": {"structuredContent": {"a": A40}}}
    doing.write_text(json.dumps({"tools": tools, "results": results, "asks": schema}))
    entry = {"command": sys.executable, "args": [str(SCRIPT), str(doing)], "protocol": "legacy"}
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"it": entry}}))
    env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_MCP_CONFIG": str(file)}
    running = JupyterServer(tmp_path / "server", env=env).start()
    try:
        yield running
    finally:
        running.stop()


def test_a_whole_server_answers_others_meanwhile_and_ends_when_asked(server: JupyterServer) -> None:
    session = new_session(server, model="openai-chat:gpt-test", allowed_tools=["it__out", "it__ask"])

    def prompted(text: str) -> str:
        command = {"type": "prompt", "text": text}
        return str(ok(server, "POST", f"sessions/{session}/commands", command)["run_id"])

    def ended(run: str) -> bool:
        began = time.monotonic()
        assert call(server, "GET", "health", timeout=5).status == 200
        assert time.monotonic() - began < 3, "others are answered"
        found = ok(server, "GET", f"sessions/{session}/runs/{run}")
        return found["status"] not in ("running", "queued")

    run = prompted("the result")
    until(lambda: ended(run))
    (listed,) = ok(server, "GET", "mcp")["mcp"]
    assert (listed["status"], listed["tools"], [note["tool"] for note in listed["notes"]]) == ("ready", 2, ["odd"])
    messages = json.dumps(ok(server, "GET", f"sessions/{session}/messages"))
    assert "does not match" in messages

    asking = prompted("the question")
    opened: list[dict[str, Any]] = []

    def asked() -> bool:
        opened[:] = ok(server, "GET", f"sessions/{session}")["approvals"]
        return bool(opened)

    until(asked)
    answer = {"type": "answer", "interrupt_id": opened[0]["id"], "status": "resolved", "payload": {"a": A40}}
    began = time.monotonic()
    refused = call(server, "POST", f"sessions/{session}/commands", answer)
    assert (refused.status, "does not match" in refused.json["message"]) == (400, True)
    assert time.monotonic() - began < 5
    ok(server, "POST", f"sessions/{session}/commands", {**answer, "payload": {"a": "aa"}})
    until(lambda: ended(asking))

    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 15
