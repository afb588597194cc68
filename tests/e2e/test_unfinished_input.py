"""What clients begin to send and do not finish, or do not read: bounded in bytes and time, and others go on."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from typing import Any

import psutil
import pytest

from tests.e2e.client import BINARY, PING, PONG, TEXT, Wire, call, new_session, ok, prompt, until
from tests.e2e.conftest import Start
from tests.kernel.test_control import MODEL, provider_of
from tests.support.providers import KEY, Reply
from tests.support.server import JupyterServer

MB = 2**20
PIECE = bytes(MB)
GROWTH = 260 * MB
"""Bytes that the server may grow by while one user holds unfinished input: twice what is allowed, for copies."""


@pytest.fixture
def server(start: Start) -> JupyterServer:
    return start()


def memory(server: JupyterServer) -> int:
    return int(psutil.Process(server.pid).memory_info().rss)


def most_memory(server: JupyterServer, work: Callable[[], None]) -> int:
    """The most that the server's memory grew by while ``work`` was done and for a second after."""
    before = most = memory(server)
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    until = None
    while until is None or time.monotonic() < until:
        most = max(most, memory(server))
        time.sleep(0.05)
        if until is None and not worker.is_alive():
            until = time.monotonic() + 1
    return most - before


def begin_frame(wire: Wire, size: int, opcode: int = TEXT, first: int = 0x80) -> None:
    """The header of a frame that announces ``size`` bytes."""
    wire.socket.sendall(bytes([first | opcode, 0xFF]) + size.to_bytes(8, "big") + b"\0\0\0\0")


def begin_body(
    server: JupyterServer, *headers: str, path: str = "attachments?name=a.txt", token: str | None = None
) -> socket.socket:
    """A connection with the head of a POST; its body is for the caller to send."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    lines = [
        f"POST {server.base_url}navi{path and '/api/' + path} HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        f"Authorization: token {server.token if token is None else token}",
        *headers,
    ]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return connection


def answer_of(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Status and error of a connection whose request was refused."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def close_code(wire: Wire) -> int | None:
    with suppress(ConnectionError):
        while True:
            wire.read()
    return wire.close_code


def send_quietly(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # the server may have closed it: the point
        connection.sendall(data)


# --- bytes


@pytest.mark.parametrize("kind", ["announced", "fragments", "loans"])
def test_two_hundred_sockets_with_unfinished_frames_leave_memory_flat(server: JupyterServer, kind: str) -> None:
    sid = new_session(server)
    path = f"kernels/k1/loan?session_id={sid}" if kind == "loans" else f"sessions/{sid}/ws?after=0"
    with ExitStack() as stack:
        wires = [stack.enter_context(closing(Wire(server, path))) for _ in range(190)]

        def flood() -> None:
            for wire in wires:
                wire.socket.settimeout(5)
                with suppress(OSError):
                    if kind == "fragments":
                        for number in range(8):
                            wire.send_frame(BINARY if not number else 0, PIECE, first=0)
                    else:
                        begin_frame(wire, 16 * MB)
                        for _ in range(8):
                            wire.socket.sendall(PIECE)

        assert most_memory(server, flood) < GROWTH
        assert ok(server, "GET", "health")["status"] == "ok"
    # what was held is given back: the next one has its room
    with closing(Wire(server, f"sessions/{sid}/ws?after=0")) as wire:
        assert "accepted" in wire.answer({"type": "prompt", "text": "x" * 900_000})


def test_bodies_of_many_connections_leave_memory_flat_and_uploads_go_on_after(server: JupyterServer) -> None:
    with ExitStack() as stack:
        bodies = [stack.enter_context(closing(begin_body(server, "Content-Length: 20000000"))) for _ in range(60)]

        def flood() -> None:
            for body in bodies:
                for _ in range(15):
                    send_quietly(body, PIECE)

        assert most_memory(server, flood) < GROWTH
        status, error = answer_of(next(body for body in reversed(bodies)))
        assert (status, error["code"]) == (429, "limit_reached")
    assert call(server, "POST", "attachments?name=a.txt", raw=b"a" * (20 * MB)).status == 201


@pytest.mark.parametrize("path", ["attachments", "sessions/s1/ws", "kernels/k1/loan", "no/such", ""])
def test_no_body_of_somebody_without_a_token_is_kept(server: JupyterServer, path: str) -> None:
    with ExitStack() as stack:

        def flood() -> None:
            for _ in range(8):
                body = stack.enter_context(
                    closing(begin_body(server, "Content-Length: 60000000", path=path, token="no"))
                )
                for _ in range(50):
                    send_quietly(body, PIECE)

        assert most_memory(server, flood) < 60 * MB


@pytest.mark.parametrize("head", ["Content-Length: 400000000", "Transfer-Encoding: chunked"])
def test_a_body_beyond_its_limit_is_not_kept(server: JupyterServer, head: str) -> None:
    with closing(begin_body(server, head, path="sessions")) as body:

        def flood() -> None:
            for _ in range(300):
                send_quietly(body, b"100000\r\n" + PIECE + b"\r\n" if "chunked" in head else PIECE)

        assert most_memory(server, flood) < 60 * MB


def test_a_body_that_is_a_little_too_large_gets_an_answer_with_the_reason(server: JupyterServer) -> None:
    answer = call(server, "POST", "sessions", raw=b" " * (3 * MB))
    assert (answer.status, answer.json["field"]) == (400, "body")
    answer = call(server, "POST", "attachments?name=a.txt", raw=b"a" * (21 * MB))
    assert (answer.status, answer.json["field"]) == (400, "body")


def test_answers_that_are_not_read_leave_memory_flat(server: JupyterServer) -> None:
    found = call(server, "POST", "attachments?name=a.txt", raw=b"a" * (20 * MB)).json["id"]
    with ExitStack() as stack:

        def ask() -> None:
            for _ in range(60):
                reader = socket.socket()
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                reader.connect(("127.0.0.1", server.port))
                stack.enter_context(closing(reader))
                head = f"GET {server.base_url}navi/api/attachments/{found} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                reader.sendall(f"{head}Authorization: token {server.token}\r\n\r\n".encode())

        # and what threads read from the disk at once for those who are refused then
        assert most_memory(server, ask) < GROWTH + 140 * MB
        assert ok(server, "GET", "health")["status"] == "ok"


def test_a_model_that_streams_without_end_leaves_memory_flat(start: Start) -> None:
    endless = Reply(*["x" * (MB // 4)] * 400)
    with provider_of(endless) as provider:
        env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
        server = start(env=env)
        sid = new_session(server)

        def ask() -> None:
            run_id = prompt(server, sid, "hi")["run_id"]
            run = until(lambda: _ended(ok(server, "GET", f"sessions/{sid}/runs/{run_id}")))
            assert run["error"]["code"] == "answer_too_long"
            ended.append(run_id)

        ended: list[str] = []
        with ExitStack() as stack:
            for _ in range(5):  # followers that never read
                stack.enter_context(closing(Wire(server, f"sessions/{sid}/ws?after=0")))
            assert most_memory(server, ask) < 200 * MB  # pydantic-ai itself, and 4 MB of answer a few times
        assert ended


def _ended(run: dict[str, Any]) -> dict[str, Any] | None:
    return run if run["status"] == "failed" else None


# --- numbers


def test_a_user_has_two_hundred_sockets_and_streams_and_is_told_at_the_next(server: JupyterServer) -> None:
    sid = new_session(server)
    with ExitStack() as stack:
        wires = [stack.enter_context(closing(Wire(server, f"sessions/{sid}/ws?after=0"))) for _ in range(200)]
        with pytest.raises(ConnectionRefusedError, match=r"(?s)429.*limit_reached"):
            Wire(server, f"sessions/{sid}/ws?after=0")
        answer = call(server, "GET", f"sessions/{sid}/events", headers={"Accept": "text/event-stream"})
        assert (answer.status, answer.json["code"]) == (429, "limit_reached")
        assert ok(server, "GET", "health")["status"] == "ok"
        wires[0].close()
        server.wait_for(lambda: _has_room(server, sid))


def _has_room(server: JupyterServer, sid: str) -> bool:
    try:
        Wire(server, f"sessions/{sid}/ws?after=0").close()
    except ConnectionRefusedError:
        return False
    return True


# --- time


def test_what_makes_no_progress_is_ended_and_what_is_slow_goes_on(server: JupyterServer) -> None:
    sid = new_session(server)
    with ExitStack() as stack:

        def follow() -> Wire:
            return stack.enter_context(closing(Wire(server, f"sessions/{sid}/ws?after=0")))

        silent = {name: follow() for name in ("half a header", "half a frame", "a fragment")}
        silent["half a header"].socket.sendall(b"\x81")
        silent["half a frame"].socket.sendall(b"\x81\xfe\x10")
        silent["a fragment"].send_frame(TEXT, b'{"type"', first=0)
        slow = {name: follow() for name in ("a byte at a time", "empty fragments", "pings in between")}
        begin_frame(slow["a byte at a time"], 100_000)
        for name in ("empty fragments", "pings in between"):
            slow[name].send_frame(TEXT, b"{", first=0)
        bodies = {
            "no byte": stack.enter_context(closing(begin_body(server, "Content-Length: 1000000"))),
            "a byte at a time": stack.enter_context(closing(begin_body(server, "Content-Length: 1000000"))),
            "no end of chunks": stack.enter_context(closing(begin_body(server, "Transfer-Encoding: chunked"))),
        }
        idle = follow()  # nothing begun: nothing to end
        # 16 kB a second, as a bad network has: each takes longer than what is silent may
        upload = stack.enter_context(closing(begin_body(server, f"Content-Length: {40 * 16_000}")))
        large = follow()
        text = json.dumps({"type": "prompt", "text": "y" * (40 * 16_000)})
        begin_frame(large, len(text))
        for second in range(40):
            upload.sendall(b"z" * 16_000)
            large.socket.sendall(text[second * 16_000 : (second + 1) * 16_000].encode())
            if second < 29:  # who sends to a connection that is closed may lose what came before
                slow["a byte at a time"].socket.sendall(b" ")
                slow["empty fragments"].send_frame(0, b"", first=0)
                slow["pings in between"].send_frame(PING, b"x" * 100)
                bodies["a byte at a time"].sendall(b"x")
                bodies["no end of chunks"].sendall(b"1\r\nx\r\n")
            idle.send_frame(PONG, b"")  # nothing reads the pings here; the large frame is itself a sign of life
            time.sleep(1)
        large.socket.sendall(text[40 * 16_000 :].encode())
        while "accepted" not in (message := large.read()):
            assert "rejected" not in message
        response = http.client.HTTPResponse(upload)
        response.begin()
        assert response.status == 201
        for name, wire in (silent | slow).items():
            assert (name, close_code(wire)) == (name, 1008)
        for name, body in bodies.items():
            status, error = answer_of(body)
            assert (name, status, error["code"]) == (name, 408, "request_timeout")
        assert "accepted" in idle.answer({"type": "prompt", "text": "what can you do?", "mode": "enqueue"})


def test_a_connection_of_a_proxy_stays_open_after_refusals(server: JupyterServer) -> None:
    """A proxy sends the next request of another user on the same connection, and may have begun to."""
    wrong = {"Authorization": "token wrong", "Content-Type": "application/json"}
    right = {"Authorization": f"token {server.token}"}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.connect()
        used = connection.sock
        for method, headers, body, status in (
            ("GET", wrong, None, 403),
            ("POST", wrong, b'{"x": 1}', 403),
            ("POST", wrong, bytes(60_000), 403),
            ("PUT", right, b"{}", 405),
            ("GET", right, None, 200),
        ):
            connection.request(method, f"{server.base_url}navi/api/sessions", body=body, headers=headers)
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read()) is not None) == (status, True)
            assert connection.sock is used
    for announced in (["Content-Length: 10000000"], ["Transfer-Encoding: chunked"]):
        with begin_body(server, *announced, path="sessions", token="wrong") as refused:
            assert b"\r\nConnection: close\r\n" in refused.recv(65_536)
