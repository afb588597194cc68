"""Servers as they are found: odd tools, odd results, answers that cannot be read, sessions that are forgotten."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from navi_jupyter.agent.mcp.stdio import Lines
from navi_jupyter.agent.tools.argument_schemas import argument_schema
from navi_jupyter.agent.tools.kernel_functions import with_usable_schemas
from navi_jupyter.errors import InvalidRequest
from navi_jupyter.model.runs import KernelFunction
from tests.agent.mcp.mcp_world import McpWorld, until
from tests.agent.mcp.strange import INITIALIZED, OBJECT, answer_of

SCRIPT = Path(__file__).with_name("strange.py")
EVIL = "^(a+)+$"
A40 = "a" * 40 + "!"
GOOD = {"name": "good", "inputSchema": OBJECT}
TEXT = {"content": [{"type": "text", "text": "fine"}]}


class StrangeHttp:
    """The server in this process. Each session has an id; what it knows can be forgotten."""

    def __init__(self, doing: dict[str, Any]) -> None:
        self.doing = doing
        self.known: set[str] = set()
        self.forgotten: tuple[int, str] = (404, "")  # the answer to an unknown session
        self.requests: list[str] = []
        self.headers: dict[str, str] = {}
        self.as_events = False

    def forget(self, status: int, body: str) -> None:
        self.known.clear()
        self.forgotten = (status, body)


class _Handler(RequestHandler):
    def initialize(self, server: StrangeHttp) -> None:
        self.server = server

    def get(self) -> None:
        self.set_status(405)

    def delete(self) -> None:
        self.set_status(405)

    def post(self) -> None:
        server, message = self.server, json.loads(self.request.body)
        method = message.get("method", "")
        server.requests.append(message.get("params", {}).get("name", method))
        if method == "initialize":
            session = f"session-{len(server.requests)}"
            server.known.add(session)
            self.set_header("Mcp-Session-Id", session)
        elif self.request.headers.get("Mcp-Session-Id") not in server.known:
            self.set_status(server.forgotten[0])
            self.set_header("Content-Type", "application/json")
            self.finish(server.forgotten[1])
            return
        answer = answer_of(server.doing, message)
        if answer is None:
            self.set_status(202)
            return
        for name, value in server.headers.items():
            self.set_header(name, value)
        if server.as_events and method == "tools/call":
            self.set_header("Content-Type", "text/event-stream")
            self.finish(f"event: message\ndata: {answer}\n\n".encode("utf-8", "surrogatepass"))
        else:
            self.set_header("Content-Type", "application/json")
            self.finish(answer.encode("utf-8", "surrogatepass"))


@pytest.fixture
def http(jp_asyncio_loop: asyncio.AbstractEventLoop) -> Iterator[tuple[StrangeHttp, str]]:
    server = StrangeHttp({"tools": [GOOD]})

    async def start() -> HTTPServer:
        (socket,) = bind_sockets(0, "127.0.0.1")
        http = HTTPServer(Application([("/mcp", _Handler, {"server": server})]))
        http.add_socket(socket)
        http.url = f"http://127.0.0.1:{socket.getsockname()[1]}/mcp"  # type: ignore[attr-defined]
        return http

    listening = jp_asyncio_loop.run_until_complete(start())
    yield server, listening.url  # type: ignore[attr-defined]
    listening.stop()


class Strange:
    """A strange server in a world, over either transport."""

    def __init__(self, world: McpWorld, http: tuple[StrangeHttp, str], transport: str) -> None:
        self.world = world
        self.http, self.url = http
        self.transport = transport
        self.file = world.directory / "doing.json"

    async def does(self, doing: dict[str, Any]) -> None:
        self.http.doing = doing
        self.http.as_events = self.transport == "events"
        self.file.write_text(json.dumps(doing))
        stdio = {"command": sys.executable, "args": [str(SCRIPT), str(self.file)]}
        config = stdio if self.transport == "stdio" else {"type": "http", "url": self.url}
        self.world.configure(it=config | {"protocol": "legacy", "call_timeout": 20})
        self.tools = await self.world.tools()


@pytest.fixture(params=["stdio", "http", "events"])
def strange(request: pytest.FixtureRequest, world: McpWorld, http: tuple[StrangeHttp, str]) -> Strange:
    return Strange(world, http, request.param)


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def doubling(depth: int) -> dict[str, Any]:
    links = {f"d{at}": {"anyOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(depth)}
    defs = {**links, f"d{depth}": {"type": "string"}}
    return {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs}


ODD_TOOLS: list[Any] = [
    {"name": "odd", "inputSchema": {"anyOf": [{"type": "object"}, {"type": "object"}]}},
    {"name": "odd", "inputSchema": OBJECT, "outputSchema": {"properties": {"a": {"type": "string"}}}},
    {"name": "odd", "inputSchema": OBJECT, "outputSchema": {"type": "array"}},
    {"name": "odd", "inputSchema": OBJECT, "outputSchema": "string"},
    {"name": "odd", "inputSchema": OBJECT, "outputSchema": deep(200)},
    {"name": "odd"},
    {"name": "odd", "inputSchema": None},
    {"name": "odd", "inputSchema": []},
    {"name": "odd", "inputSchema": "object"},
    {"name": "odd", "inputSchema": {"type": "string"}},
    {"name": "odd", "inputSchema": {"type": "object", "description": "x" * 200_000}},
    {"name": "odd", "inputSchema": {"type": "object", "properties": {f"p{n}": {} for n in range(20_000)}}},
    {"name": "odd", "inputSchema": deep(100)},
    {"name": "odd", "inputSchema": doubling(30)},
    {"name": "odd", "inputSchema": {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}},
    {"name": "odd", "inputSchema": {"type": "object", "properties": {"a": {"type": "integer", "minimum": "1"}}}},
    {"name": "odd", "inputSchema": OBJECT, "annotations": "reads"},
    {"name": "x" * 2000, "inputSchema": OBJECT},
    {"name": "", "inputSchema": OBJECT},
    {"name": 5, "inputSchema": OBJECT},
    {"inputSchema": OBJECT},
    GOOD,  # a second one of this name
    "odd",
    None,
    [],
]


@pytest.mark.parametrize("odd", ODD_TOOLS, ids=lambda odd: json.dumps(odd)[:60])
async def test_an_odd_tool_is_left_out_alone_and_the_server_says_why(
    world: McpWorld, http: tuple[StrangeHttp, str], odd: Any
) -> None:
    strange = Strange(world, http, "http")
    await strange.does({"tools": [GOOD, odd, {"name": "last", "inputSchema": OBJECT}]})
    assert set(strange.tools) == {"it__good", "it__last"}
    (state,) = world.pool.states
    assert (state.status, len(state.notes)) == ("ready", 1)
    assert state.notes[0].why
    assert (await world.call("it__last", {"a": 1})).content == 'last {"a": 1}'


async def test_an_odd_tool_is_left_out_over_every_transport(strange: Strange) -> None:
    await strange.does({"tools": [ODD_TOOLS[0], GOOD, ODD_TOOLS[1]]})
    assert set(strange.tools) == {"it__good"}
    (state,) = strange.world.pool.states
    assert [(note.name, '"type": "object"' in note.why) for note in state.notes] == [("odd", True)] * 2


ARGUMENTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"a": {"type": "array"}}, {"a": {"type": "array", "items": {}}}),
    (
        {"a": {"type": "array", "items": [{"type": "number"}]}},
        {"a": {"type": "array", "prefixItems": [{"type": "number"}]}},
    ),
    (
        {"a": {"type": "number", "minimum": 1, "exclusiveMinimum": True}},
        {"a": {"type": "number", "exclusiveMinimum": 1}},
    ),
    ({"a": {"type": "string", "required": True}}, {"a": {"type": "string"}}),
    ({"a": {"type": "any"}}, {"a": {}}),
    ({"a": {"type": "string", "enum": None}}, {"a": {"type": "string"}}),
    ({"a": {"type": "string", "pattern": "(?!x)"}}, {"a": {"type": "string"}}),
    ({"a": {"type": "string", "pattern": EVIL}}, {"a": {"type": "string", "pattern": EVIL}}),
    ({"a": {"$schema": "http://json-schema.org/draft-07/schema#", "type": "string"}}, {"a": {"type": "string"}}),
    ({"a": True, "b": 5}, {"a": True, "b": {}}),
]


@pytest.mark.parametrize(("given", "taken"), ARGUMENTS)
def test_what_is_written_in_an_older_dialect_is_rewritten_for_the_providers(
    given: dict[str, Any], taken: dict[str, Any]
) -> None:
    assert argument_schema({"type": "object", "properties": given})["properties"] == taken


def test_what_providers_refuse_at_the_root_is_among_the_properties() -> None:
    branch = {"properties": {"b": {"type": "string"}}, "required": ["b"]}
    for keyword in ("anyOf", "oneOf", "allOf"):
        schema = {"$schema": "x", "type": "object", "properties": {"a": {}}, "required": ["a", "z"], keyword: [branch]}
        found = argument_schema(schema)
        assert found["properties"] == {"b": {"type": "string"}, "a": {}}
        assert found["required"] == (["a", "b"] if keyword == "allOf" else ["a"])
        assert set(found) == {"type", "properties", "required"}


RESULTS: list[tuple[Any, Any]] = [
    ({"structuredContent": {"a": 1}}, {"a": 1}),
    ({"structuredContent": {"a": 1}, "content": None}, {"a": 1}),
    ({"structuredContent": [1, 2]}, {"result": [1, 2]}),
    ({}, "Done; it returned nothing."),
    ({"content": None}, "Done; it returned nothing."),
    ({"content": "plain"}, "plain"),
    ({"content": {"type": "text", "text": "one"}}, "one"),
    ({"content": ["a", {"type": "text", "text": "b"}]}, "a\n\nb"),
    ({"content": [{"type": "text", "text": "b", "annotations": 5}]}, "b"),
    ({"content": [{"type": "chart", "data": [1]}]}, '[content of type \'chart\': {"type": "chart", "data": [1]}]'),
    ({"content": [{"text": "b"}]}, '[content without a type: {"text": "b"}]'),
    ({"content": [{"type": "text", "text": None}]}, '[content of type \'text\': {"type": "text", "text": null}]'),
    ({"content": [{"type": "image", "data": "x"}]}, '[content of type \'image\': {"type": "image", "data": "x"}]'),
    ({"toolResult": "old"}, "old"),
    ({**TEXT, "isError": None}, "fine"),
    ({**TEXT, "_meta": None}, "fine"),
    ({**TEXT, "isError": "false"}, "fine"),
]


@pytest.mark.parametrize(("result", "content"), RESULTS, ids=lambda one: json.dumps(one)[:60])
async def test_a_result_is_an_answer_whatever_its_form(
    world: McpWorld, http: tuple[StrangeHttp, str], result: Any, content: Any
) -> None:
    strange = Strange(world, http, "http")
    await strange.does({"tools": [GOOD], "results": {"good": result}})
    output = await world.call("it__good")
    assert (output.content, output.failed) == (content, False)


async def test_structured_content_alone_is_an_answer_over_every_transport(strange: Strange) -> None:
    await strange.does({"tools": [GOOD], "results": {"good": {"structuredContent": {"n": 3}}}})
    assert (await strange.world.call("it__good")).content == {"n": 3}


UNREADABLE = [
    '{"jsonrpc": "2.0", "id": $ID, "result": {"content": [{"type": "te',
    '{"jsonrpc": "2.0", "result": {"content": [{"id": 77, "x": tru, "id": "z"}]}, "id": $ID}',
    '{"jsonrpc": "2.0", "id": $ID, "result": ' + "[" * 5000 + "]" * 5000 + "}",
    '{"jsonrpc": "2.0", "id": $ID, "result": {"n": ' + "9" * 5000 + "}}",
    "{'jsonrpc': '2.0', 'id': $ID, 'result': {'content': []}}",
    '{"jsonrpc": "2.0", "id": $ID}',
    '{"jsonrpc": "2.0", "id": $ID, "results": {"content": []}}',
    '{\n  "jsonrpc": "2.0",\n  "id": $ID,\n  "result": {\n    "content": [],\n  }\n}',
]


@pytest.mark.parametrize(
    "line", UNREADABLE, ids=["cut", "id at the end", "deep", "long number", "Python", "bare", "misspelt", "lines"]
)
async def test_an_answer_that_cannot_be_read_fails_its_call_at_once(strange: Strange, line: str) -> None:
    await strange.does({"tools": [GOOD, {"name": "bad", "inputSchema": OBJECT}], "lines": {"bad": line}})
    began = time.monotonic()
    output = await strange.world.call("it__bad")
    assert output.failed
    assert time.monotonic() - began < 10, "the time-out is 20 s"
    assert not (await strange.world.call("it__good")).failed


READABLE = [
    ('{"id": $ID, "result": {"content": [{"type": "text", "text": "no version"}]}}', "no version"),
    ('{"jsonrpc": "2.0", "id": $ID, "result": {"content": [{"type": "text", "text": "1.0"}]}, "error": null}', "1.0"),
    ('{"jsonrpc": "2.0", "id": $ID, "result": {"content": [{"type": "text", "text": "x \\ud83d y"}]}}', "x \ufffd y"),
    ('{"jsonrpc": "2.0", "id": $ID, "result": {"content": [{"type": "text", "text": "x \ud83d y"}]}}', "x \ufffd y"),
    ('{"jsonrpc": "2.0", "id": $ID.0, "result": {"content": [{"type": "text", "text": "float"}]}}', "float"),
    ('{"jsonrpc": "2.0", "id": $ID, "result": "bare"}', "bare"),
    ('\ufeff{"jsonrpc": "2.0", "id": $ID, "result": {"content": [{"type": "text", "text": "mark"}]}}', "mark"),
    ('{"jsonrpc": "2.0", "id": $ID, "result": null}', "Done; it returned nothing."),
    ('[{"jsonrpc": "2.0", "id": $ID, "result": {"content": [{"type": "text", "text": "batch"}]}}]', "batch"),
]


@pytest.mark.parametrize(
    ("line", "content"), READABLE, ids=lambda one: str(one)[-30:].encode("ascii", "replace").decode()
)
async def test_an_answer_that_is_almost_as_it_should_be_is_read(strange: Strange, line: str, content: Any) -> None:
    await strange.does({"tools": [GOOD], "lines": {"good": line}})
    output = await strange.world.call("it__good")
    assert (output.content, output.failed) == (content, False)


@pytest.mark.parametrize(
    "line",
    [
        '{"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "what?"}}',
        '{"jsonrpc": "2.0", "id": $ID, "error": "what?"}',
        '{"jsonrpc": "2.0", "id": $ID, "error": {"message": "what?"}}',
        '{"jsonrpc": "2.0", "id": $ID, "error": {"code": "E_WHAT", "message": ["what?"]}}',
    ],
)
async def test_an_odd_error_fails_its_call_at_once(strange: Strange, line: str) -> None:
    await strange.does({"tools": [GOOD], "lines": {"good": line}})
    began = time.monotonic()
    output = await strange.world.call("it__good")
    assert output.failed
    assert "what?" in output.content
    assert time.monotonic() - began < 10


def test_a_line_of_a_log_fails_no_call() -> None:
    lines = Lines()
    log = b'{"level": "info", "id": 7, "msg": "started"}\nINFO id: 7 {"id": 7\n{"id": 7, "method": "ping", oops}\n'
    log += b'{"level": "info", "id": 7}\n{"id": 7}\n'
    assert all(isinstance(one, Exception) for one in lines.feed(log))


FORGOTTEN = [
    (404, '{"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": "Session not found"}}'),
    (404, '{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}'),
    (404, "whatever words"),
    (404, ""),
    (410, '{"jsonrpc":"2.0","error":{"code":-32000,"message":"gone"},"id":null}'),
    (400, '{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}'),
    (400, '{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}'),
    (400, '{"error": "Mcp-Session-Id: unknown session id"}'),
]


@pytest.mark.parametrize(("status", "body"), FORGOTTEN)
async def test_a_server_that_forgot_the_session_gets_a_new_one_and_the_call_is_made(
    world: McpWorld, http: tuple[StrangeHttp, str], status: int, body: str
) -> None:
    strange = Strange(world, http, "http")
    await strange.does({"tools": [GOOD]})
    assert not (await world.call("it__good")).failed
    tool = strange.tools["it__good"]
    strange.http.forget(status, body)

    outputs = await asyncio.gather(*(world.run(tool, {"n": n}, run_id=f"r_{n}") for n in range(5)))

    assert [output.content for output in outputs] == [f'good {{"n": {n}}}' for n in range(5)]
    assert strange.http.requests.count("initialize") == 2
    await until(lambda: world.statuses[-1]["status"] == "ready")
    assert "failed" not in [entry["status"] for entry in world.statuses]
    assert world.status("it") == "ready"


async def test_a_server_that_knows_no_session_at_all_is_not_asked_for_ever(
    world: McpWorld, http: tuple[StrangeHttp, str]
) -> None:
    strange = Strange(world, http, "http")
    await strange.does({"tools": [GOOD]})
    tool = strange.tools["it__good"]
    strange.http.forget(404, "no")
    strange.http.doing = {"tools": [GOOD]}
    forget = strange.http.known.add
    strange.http.known = type("Forgetful", (set,), {"add": lambda self, one: None})()
    output = await world.run(tool, {})
    assert output.failed
    assert strange.http.requests.count("initialize") <= 3
    strange.http.known = set()
    del forget


@pytest.mark.parametrize(
    "body", ["no such table", '{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"session id?"}}']
)
async def test_another_refusal_opens_no_new_session(world: McpWorld, http: tuple[StrangeHttp, str], body: str) -> None:
    strange = Strange(world, http, "http")
    await strange.does({"tools": [GOOD]})
    strange.http.forget(400, body)
    assert (await world.run(strange.tools["it__good"], {})).failed
    assert strange.http.requests.count("initialize") == 1


@pytest.mark.parametrize(
    "initialized",
    [
        {**INITIALIZED, "serverInfo": None},
        {**INITIALIZED, "serverInfo": {"name": "x"}},
        {**INITIALIZED, "capabilities": {"tools": True, "prompts": None}},
        {**INITIALIZED, "instructions": 5},
        {"protocolVersion": "2024-11-05"},
    ],
)
async def test_a_server_that_introduces_itself_oddly_is_used(strange: Strange, initialized: dict[str, Any]) -> None:
    await strange.does({"tools": [GOOD], "initialized": initialized})
    assert set(strange.tools) == {"it__good"}


@pytest.mark.parametrize("listing", [{"tools": None}, {}, {"tools": "none"}, {"tools": [], "nextCursor": 5}])
async def test_a_listing_of_nothing_is_a_server_without_tools(strange: Strange, listing: dict[str, Any]) -> None:
    await strange.does({"listing": listing})
    assert strange.world.status("it") == "ready"


async def test_a_compressed_answer_that_was_not_asked_for_is_not_unpacked(
    world: McpWorld, http: tuple[StrangeHttp, str]
) -> None:
    strange = Strange(world, http, "http")
    await strange.does({"tools": [GOOD]})
    strange.http.headers = {"Content-Encoding": "gzip"}
    output = await world.run(strange.tools["it__good"], {})
    assert output.failed
    assert "compressed" in output.content


def test_the_schema_of_a_function_of_a_kernel_is_one_that_providers_take_or_the_function_is_refused() -> None:
    def function(parameters: dict[str, Any]) -> KernelFunction:
        return KernelFunction(name="f", parameters=parameters)

    usable = with_usable_schemas([function({"type": "object", "properties": {"a": {"type": "array"}}})])
    assert usable[0].parameters["properties"] == {"a": {"type": "array", "items": {}}}
    for odd in ({"anyOf": [OBJECT]}, doubling(30), deep(100), {"type": "array"}):
        with pytest.raises(InvalidRequest, match="f cannot be a tool"):
            with_usable_schemas([function(odd)])
