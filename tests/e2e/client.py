"""What a program outside of the server uses: plain HTTP, a WebSocket made by hand, and followers in threads.

By hand, because tests cut connections in the middle of a frame, stop reading, and send what no library sends.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.support.server import JupyterServer

Envelope = dict[str, Any]
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
PATIENCE = 60.0
"""Seconds after which a test gives up; a loaded machine is slow."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(
    server: JupyterServer,
    method: str,
    path: str,
    body: Any = None,
    *,
    raw: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    timeout: float = PATIENCE,
) -> Answer:
    """One request under ``navi/api/``; any status is an answer. Raises OSError when the server is not there."""
    content = raw if raw is not None else None if body is None else json.dumps(body).encode()
    given = {"Authorization": f"token {server.token if token is None else token}"}
    if content is not None:
        given["Content-Type"] = "application/json"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        connection.request(
            method, f"{server.base_url}navi/api/{path}", body=content, headers=given | dict(headers or {})
        )
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(repr(error)) from error
    finally:
        connection.close()


def ok(server: JupyterServer, method: str, path: str, body: Any = None) -> Any:
    """The decoded answer of a request that must succeed."""
    answer = call(server, method, path, body)
    assert answer.status < 300, (method, path, answer.status, answer.body[:2000])
    return answer.json if answer.body else None


def new_session(server: JupyterServer, **fields: Any) -> str:
    """A new session's id. It has a title: another one would get one from its first exchange, in an event of its own."""
    return str(ok(server, "POST", "sessions", {"title": "Tested", **fields})["id"])


def prompt(server: JupyterServer, sid: str, text: str, **fields: Any) -> Any:
    """Send a prompt; its acceptance."""
    return ok(server, "POST", f"sessions/{sid}/commands", {"type": "prompt", "text": text, **fields})


def log_of(server: JupyterServer, sid: str, after: int = 0) -> list[Envelope]:
    """The session's log after a cursor, by pages, up to its present head."""
    seen: list[Envelope] = []
    while True:
        page = ok(server, "GET", f"sessions/{sid}/events?after={seen[-1]['seq'] if seen else after}&limit=1000")
        seen += page["events"]
        if not page["events"] or seen[-1]["seq"] >= page["head_seq"]:
            return seen


def pages(server: JupyterServer, path: str, what: str) -> list[Any]:
    """All items of a list, newest first or as it answers."""
    items: list[Any] = []
    cursor = ""
    while True:
        mark = "&" if "?" in path else "?"
        page = ok(server, "GET", f"{path}{mark}limit=1000{cursor and '&cursor=' + cursor}")
        items += page[what]
        if page["next"] is None:
            return items
        cursor = page["next"]


def ends(envelope: Envelope, run_id: str | None = None) -> bool:
    """Whether it is the last event of the run (of any run)."""
    last = envelope["event"]["type"] in ("RUN_FINISHED", "RUN_ERROR")
    return last and run_id in (None, envelope["run_id"])


def until(what: Callable[[], Any], patience: float = PATIENCE, every: float = 0.05) -> Any:
    """The first true answer of ``what``. For what can only be seen by asking again."""
    deadline = time.monotonic() + patience
    while True:
        found = what()
        if found or time.monotonic() > deadline:
            assert found, "it did not come true in time"
            return found
        time.sleep(every)


class Wire:
    """One WebSocket connection. Raises OSError (ConnectionError) once it is broken."""

    def __init__(
        self,
        server: JupyterServer,
        path: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        receive_buffer: int | None = None,
        timeout: float = PATIENCE,
    ) -> None:
        """``headers``: instead of the token."""
        self.close_code: int | None = None
        self.status = 0
        """Of the answer to the handshake; 101 when it is a WebSocket."""
        self._buffer = bytearray()
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect(("127.0.0.1", server.port))
            authorization = {"Authorization": f"token {server.token if token is None else token}"}
            self._shake_hands(server, path, authorization if headers is None else headers)
        except BaseException:
            self.socket.close()
            raise

    def _shake_hands(self, server: JupyterServer, path: str, headers: Mapping[str, str]) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {server.base_url}navi/api/{path} HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while b"\r\n\r\n" not in self._buffer:
            self._read_more()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        self.status = int(head.split(None, 2)[1])  # a proxy may leave out the reason
        if self.status != 101:
            raise ConnectionRefusedError(f"{head.decode()} {rest.decode(errors='replace')}")

    def _read_more(self) -> None:
        chunk = self.socket.recv(65536)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        self._buffer += chunk

    def frame(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload (the server does not fragment)."""
        header = self._take(2)
        size = header[1] & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._take(8))
        return header[0] & 0x0F, self._take(size)

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._read_more()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def read(self) -> Any:
        """The next message, decoded. Answers pings. Raises ConnectionError at the end."""
        while True:
            opcode, payload = self.frame()
            if opcode == TEXT:
                return json.loads(payload)
            if opcode == PING:
                self.send_frame(PONG, payload)
            elif opcode == CLOSE:
                self.close_code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else 1005
                raise ConnectionError(f"closed: {self.close_code} {payload[2:].decode()}")

    def send(self, command: Any) -> None:
        """Send a command, or text as it is."""
        self.send_frame(TEXT, (command if isinstance(command, str) else json.dumps(command)).encode())

    def send_frame(self, opcode: int, payload: bytes, *, first: int = 0x80, masked: bool = True) -> None:
        """Send a frame. ``first``: the high bits of its first byte (FIN by default)."""
        size = len(payload)
        bit = 0x80 if masked else 0
        if size < 126:
            head = struct.pack(">BB", first | opcode, bit | size)
        elif size < 65536:
            head = struct.pack(">BBH", first | opcode, bit | 126, size)
        else:
            head = struct.pack(">BBQ", first | opcode, bit | 127, size)
        self.socket.sendall(head + (b"\0\0\0\0" if masked else b"") + payload)  # a mask of zeros changes nothing

    def answer(self, command: Any) -> dict[str, Any]:
        """Send a command and return its ``accepted`` or ``rejected``; events before it are dropped."""
        self.send(command)
        while True:
            message = self.read()
            if "accepted" in message or "rejected" in message:
                return dict(message)

    def cut(self) -> None:
        """End it as a broken cable does: no close frame, no FIN."""
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Say good-bye and hang up."""
        with suppress(OSError):
            self.send_frame(CLOSE, struct.pack(">H", 1000))
        self.socket.close()


def unpack(message: dict[str, Any]) -> list[Envelope]:
    """The envelopes of a server's message; none in an ``accepted`` or ``rejected``."""
    if "batch" in message:
        return list(message["batch"])
    return [message] if "seq" in message else []


class Follower:
    """Follows a session in a thread of its own and records all; comes back with its cursor whenever it is cut."""

    def __init__(
        self, server: JupyterServer, sid: str, *, after: int | None = 0, receive_buffer: int | None = None
    ) -> None:
        self.prelude: list[Envelope] = []
        """All envelopes with ``snapshot``."""
        self.seen: list[Envelope] = []
        """All others, in the order of arrival."""
        self.at: list[float] = []
        """When each of ``seen`` arrived, by the monotonic clock."""
        self.connects = 0
        self._server = server
        self._sid = sid
        self._cursor = after
        self._receive_buffer = receive_buffer
        self._news = threading.Condition()
        self._wire: Wire | None = None
        self._closed = False
        self._answers: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"follower of {sid}")
        self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            try:
                after = "" if self._cursor is None else f"?after={self._cursor}"
                self._wire = Wire(self._server, f"sessions/{self._sid}/ws{after}", receive_buffer=self._receive_buffer)
                with self._news:
                    self.connects += 1
                    self._news.notify_all()
                while True:
                    self._take(self._wire.read())
            except (OSError, ValueError):
                time.sleep(0.02)  # the server is away; ask again soon
            finally:
                if self._wire is not None:
                    self._wire.cut()

    def _take(self, message: dict[str, Any]) -> None:
        now = time.monotonic()
        with self._news:
            for envelope in unpack(message):
                if envelope.get("snapshot"):
                    self.prelude.append(envelope)
                else:
                    self.seen.append(envelope)
                    self.at.append(now)
                self._cursor = envelope["seq"]
            if "accepted" in message or "rejected" in message:
                self._answers.append(message)
            self._news.notify_all()

    def connected(self) -> Follower:
        """Wait until it is."""
        self._wait(lambda: self.connects)
        return self

    def answer(self, command: Any) -> tuple[dict[str, Any], float]:
        """Send a command over this socket: the answer, and the seconds it took."""
        assert self._wire is not None
        before, count = time.monotonic(), len(self._answers)
        self._wire.send(command)
        self._wait(lambda: len(self._answers) > count)
        return self._answers[count], time.monotonic() - before

    def until(self, matches: Callable[[Envelope], bool], patience: float = PATIENCE) -> Envelope:
        """Wait for an envelope (a past one also counts)."""
        at = 0

        def found() -> Envelope | None:
            nonlocal at
            while at < len(self.seen):
                at += 1
                if matches(self.seen[at - 1]):
                    return self.seen[at - 1]
            return None

        envelope = self._wait(found, patience)
        assert envelope is not None
        return dict(envelope)

    def until_end(self, run_id: str, patience: float = PATIENCE) -> Envelope:
        """Wait for the last event of a run."""
        return self.until(lambda envelope: ends(envelope, run_id), patience)

    def until_seq(self, seq: int, patience: float = PATIENCE) -> None:
        """Wait until everything up to ``seq`` has come."""
        self._wait(lambda: self.seen and self.seen[-1]["seq"] >= seq, patience)

    def _wait(self, what: Callable[[], Any], patience: float = PATIENCE) -> Any:
        with self._news:
            found = self._news.wait_for(what, patience)
        seen = [envelope["event"] for envelope in self.seen[-3:]]
        assert found, f"it did not come in time; last seen: {seen}\n{self._server.log_tail()}"
        return found

    def arrivals(self) -> dict[int, float]:
        """When each ``seq`` arrived."""
        return {envelope["seq"]: at for envelope, at in zip(self.seen, self.at, strict=True)}

    def close(self) -> None:
        """Stop following."""
        self._closed = True
        if self._wire is not None:
            with suppress(OSError):
                self._wire.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)


def sse(
    server: JupyterServer, sid: str, *, after: int | None = None, last_event_id: int | None = None
) -> Generator[tuple[int | None, Envelope]]:
    """The session as server-sent events: (id, envelope). Close the generator to hang up."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    headers = {"Authorization": f"token {server.token}", "Accept": "text/event-stream"}
    if last_event_id is not None:
        headers["Last-Event-ID"] = str(last_event_id)
    query = "" if after is None else f"?after={after}"
    try:
        connection.request("GET", f"{server.base_url}navi/api/sessions/{sid}/events{query}", headers=headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.getheader("Content-Type", "").startswith("text/event-stream")
        fields: dict[str, str] = {}
        while line := response.readline():
            name, colon, value = line.decode().rstrip("\n").partition(": ")
            if not name and not colon:
                if "data" in fields:
                    yield int(fields["id"]) if "id" in fields else None, json.loads(fields["data"])
                fields = {}
            elif name:
                fields[name] = value
    finally:
        connection.close()
