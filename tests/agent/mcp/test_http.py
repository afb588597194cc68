"""Servers over HTTP that are away, refuse us, or come back; and lines of stdio in pieces."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from navi_jupyter.agent.mcp import http
from navi_jupyter.agent.mcp.config import ServerConfig
from navi_jupyter.agent.mcp.connection import ServerConnection, ServerTimeouts
from navi_jupyter.agent.mcp.stdio import Lines
from tests.agent.mcp.mcp_world import SCRIPT, SECONDS, McpWorld, until
from tests.support.server import free_port

Serve = Callable[[int], "subprocess.Popen[bytes]"]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts the server on a port, and waits until it takes connections."""
    started = []

    def one(port: int) -> subprocess.Popen[bytes]:
        import socket

        process = subprocess.Popen([sys.executable, str(SCRIPT), str(port)])
        started.append(process)
        for _ in range(int(SECONDS * 20)):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        raise AssertionError("it does not listen")

    yield one
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("protocol", ["auto", "legacy"])
async def test_a_server_that_goes_away_and_comes_back(world: McpWorld, serve: Serve, protocol: str) -> None:
    port = free_port()
    process = serve(port)
    world.configure(all={"url": f"http://127.0.0.1:{port}/mcp", "protocol": protocol})
    assert (await world.call("all__shout", {"text": "here"})).content == "HERE"
    tool = (await world.tools())["all__shout"]
    process.kill()
    process.wait()
    output = await world.run(tool, {"text": "gone"})
    assert output.failed
    await until(lambda: "failed" in [entry["status"] for entry in world.statuses])
    serve(port)

    async def works() -> bool:
        world.pool._servers["all"].ensure_started()
        return not (await world.run(tool, {"text": "back"})).failed

    for _ in range(20):
        if await works():
            break
    else:
        pytest.fail("it never came back")


async def test_a_server_that_is_not_there_says_so(world: McpWorld) -> None:
    world.configure(all={"url": f"http://127.0.0.1:{free_port()}/mcp"})
    await world.tools()
    (state,) = world.pool.states
    assert state.status == "failed"
    assert "connect" in str(state.message).lower()


class Refusing(RequestHandler):
    """Knows nobody."""

    seen: list[str] = []  # noqa: RUF012
    hosts: list[str] = []  # noqa: RUF012

    def post(self) -> None:
        self.seen.append(self.request.headers.get("Authorization", ""))
        self.hosts.append(self.request.host)
        self.set_status(401)
        self.write("who are you?")


async def test_a_server_that_refuses_us_says_so_and_the_key_is_not_shown(world: McpWorld) -> None:
    (socket,) = bind_sockets(0, "127.0.0.1")
    refusing = HTTPServer(Application([("/.*", Refusing)]))
    refusing.add_socket(socket)
    url = f"http://127.0.0.1:{socket.getsockname()[1]}/mcp?key=planted-secret-1234567"
    world.configure(all={"url": url, "headers": {"Authorization": "Bearer planted-secret-1234567"}})
    await world.tools()
    (state,) = world.pool.states
    assert state.status == "failed"
    assert "401" in str(state.message)
    assert Refusing.seen[0] == "Bearer planted-secret-1234567"
    assert "planted-secret" not in str(world.statuses)
    refusing.stop()


MESSAGE = {"jsonrpc": "2.0", "id": 7, "result": {"text": "ä" * 50}}


@given(st.lists(st.integers(1, 40), max_size=30))
def test_lines_are_the_same_however_they_come(sizes: list[int]) -> None:
    rest = b"".join(json.dumps(MESSAGE | {"id": number}).encode() + b"\n" for number in range(5))
    lines = Lines()
    found = []
    for size in [*sizes, 10_000]:
        found += lines.feed(rest[:size])
        rest = rest[size:]
    assert [message.message.id for message in found if isinstance(message, SessionMessage)] == list(range(5))  # type: ignore[union-attr]


@given(st.integers(1, 5000), st.booleans())
def test_a_line_that_is_too_long_fails_the_request_that_it_answers(step: int, id_first: bool) -> None:
    big = {"jsonrpc": "2.0", "id": 7} if id_first else {"jsonrpc": "2.0"}
    text = json.dumps(big | {"result": {"text": "x" * 20_000}} | ({} if id_first else {"id": 7})).encode() + b"\n"
    text += json.dumps(MESSAGE | {"id": 8}).encode() + b"\n"
    lines = Lines(limit=10_000)
    found = [message for at in range(0, len(text), step) for message in lines.feed(text[at : at + step])]
    assert len(found) == 2
    first, second = found
    assert isinstance(first, SessionMessage)
    assert isinstance(first.message, JSONRPCError)
    assert first.message.id == 7
    assert "too large" in first.message.error.message
    assert isinstance(second, SessionMessage)


def _guarded(url: str, **fields: Any) -> ServerConfig:
    return ServerConfig(name="mine", file="your own", own=True, guarded=True, url=url, **fields)


async def test_a_guarded_connection_goes_to_the_address_that_was_looked_at(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, timeouts: ServerTimeouts
) -> None:
    port = free_port()
    serve(port)
    looked_at: list[str] = []
    monkeypatch.setattr(http, "why_refused", lambda address: looked_at.append(address))
    # What a second look at the name would find is another machine.
    monkeypatch.setattr(http, "resolve", lambda host, port: ["127.0.0.1"] if host == "localhost" else [])
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server = ServerConnection(_guarded(f"http://localhost:{port}/mcp"), emit=lambda _: None, timeouts=timeouts)
    server.ensure_started()
    assert await server.wait_started(SECONDS), server.state.message
    assert "shout" in {tool.name for tool in server.state.tools}
    assert set(looked_at) == {"127.0.0.1"}
    await server.stop()


async def test_a_guarded_connection_asks_no_second_time_for_the_name(
    monkeypatch: pytest.MonkeyPatch, timeouts: ServerTimeouts
) -> None:
    monkeypatch.setattr(http, "why_refused", lambda _: None)
    monkeypatch.setattr(http, "resolve", lambda host, port: ["127.0.0.1"] if host == "mcp.invalid" else [])
    (socket,) = bind_sockets(0, "127.0.0.1")
    refusing = HTTPServer(Application([("/.*", Refusing)]))
    refusing.add_socket(socket)
    Refusing.hosts.clear()
    url = f"http://mcp.invalid:{socket.getsockname()[1]}/mcp"
    server = ServerConnection(_guarded(url), emit=lambda _: None, timeouts=timeouts)
    server.ensure_started()
    await server.wait_started(SECONDS)
    assert "401" in str(server.state.message)
    assert set(Refusing.hosts) == {f"mcp.invalid:{socket.getsockname()[1]}"}  # it is called by its name
    refusing.stop()
    await server.stop()


@pytest.mark.parametrize("found", [["127.0.0.1"], ["1.1.1.1", "10.0.0.8"], ["::ffff:169.254.169.254"]])
async def test_a_guarded_connection_is_not_made_to_a_name_that_leads_inwards_too(
    monkeypatch: pytest.MonkeyPatch, found: list[str], timeouts: ServerTimeouts
) -> None:
    monkeypatch.setattr(http, "resolve", lambda host, port: found)
    (socket,) = bind_sockets(0, "127.0.0.1")
    url = f"http://name.example:{socket.getsockname()[1]}/mcp"
    server = ServerConnection(_guarded(url), emit=lambda _: None, timeouts=timeouts)
    server.ensure_started()
    assert not await server.wait_started(SECONDS)
    assert "mcp_allow_private" in str(server.state.message)
    socket.setblocking(False)
    with pytest.raises(BlockingIOError):  # none has connected
        socket.accept()
    socket.close()
    await server.stop()
