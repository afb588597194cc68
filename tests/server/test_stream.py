"""Following a session over its socket, as server-sent events, and by pages: the same envelopes everywhere."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from socket import socketpair
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tornado.httpclient import HTTPClientError
from tornado.iostream import IOStream
from tornado.websocket import WebSocketClosedError, WebSocketHandler, WebSocketProtocol13

from navi_jupyter.orchestrator.followers import make_page
from navi_jupyter.server.app import NaviExtension
from navi_jupyter.server.transfers import websocket_protocol
from navi_jupyter.server.transfers.event_stream import encode, with_silences
from navi_jupyter.server.transfers.websocket_protocol import BoundedProtocol, PageWriter
from tests.conftest import Api, Envelope, ends


class Events:
    """A client of server-sent events."""

    def __init__(self) -> None:
        self.text = ""
        self.grown = asyncio.Event()

    def take(self, chunk: bytes) -> None:
        self.text += chunk.decode()
        self.grown.set()

    def all(self) -> list[tuple[str | None, Envelope]]:
        """(id, envelope) of every complete event so far."""
        blocks = self.text.split("\n\n")[:-1]
        fields = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
        return [(field.get("id"), json.loads(field["data"])) for field in fields if "data" in field]

    async def until_end(self, run_id: str) -> list[tuple[str | None, Envelope]]:
        while not any(ends(envelope, run_id) for _, envelope in self.all()):
            self.grown.clear()
            await asyncio.wait_for(self.grown.wait(), 20)
        return self.all()


@pytest.fixture
def sse(navi: NaviExtension, http_server_client: Any, jp_auth_header: dict[str, str], jp_base_url: str) -> Any:
    """``async with sse(session_id, after=…, headers=…) as events``."""

    @asynccontextmanager
    async def connect(session_id: str, headers: dict[str, str] | None = None, **query: int) -> AsyncIterator[Events]:
        events = Events()
        url = f"{jp_base_url}navi/api/sessions/{session_id}/events?" + "&".join(f"{k}={v}" for k, v in query.items())
        request = http_server_client.fetch(
            url,
            headers={**jp_auth_header, "Accept": "text/event-stream", **(headers or {})},
            streaming_callback=events.take,
            request_timeout=60,
        )
        try:
            yield events
        finally:
            # Deleting the session ends its streams: a client of tornado's cannot hang up by itself.
            del request

    return connect


async def test_socket_events_and_pages_carry_the_same_envelopes(api: Api, sse: Any) -> None:
    sid = await api.session()
    async with api.socket(sid, after=0) as socket, sse(sid, after=0) as events:
        run_id = (await api.prompt(sid, "what can you do?"))["run_id"]
        over_socket = await socket.until_run_ends(run_id)
        over_sse = await events.until_end(run_id)
        by_page = await api.until_run_ends(sid, run_id)
        await api("DELETE", f"sessions/{sid}")
    assert over_socket == by_page
    assert [envelope for _, envelope in over_sse] == by_page
    assert [int(str(event_id)) for event_id, _ in over_sse] == [envelope["seq"] for envelope in by_page]


async def test_an_event_source_that_comes_back_goes_on_after_its_last_event(api: Api, sse: Any) -> None:
    sid = await api.session()
    run_id = (await api.prompt(sid, "what can you do?"))["run_id"]
    everything = await api.until_run_ends(sid, run_id)
    seen = everything[2]["seq"]
    async with sse(sid, {"Last-Event-ID": str(seen)}, after=0) as events:
        got = await events.until_end(run_id)
        await api("DELETE", f"sessions/{sid}")
    assert [envelope for _, envelope in got] == everything[3:]


async def test_without_a_cursor_the_prelude_comes_first(api: Api) -> None:
    sid = await api.session()
    await api.until_run_ends(sid, (await api.prompt(sid, "what can you do?"))["run_id"])
    head = (await api.ok("GET", f"sessions/{sid}"))["head_seq"]
    async with api.socket(sid) as socket:
        first = await socket.envelopes()
        assert first[0]["event"]["type"] == "MESSAGES_SNAPSHOT"
        assert all((envelope["snapshot"], envelope["seq"]) == (True, head) for envelope in first)
        run_id = (await api.prompt(sid, "what can you do?"))["run_id"]
        live = await socket.until_run_ends(run_id)
    assert live[0]["seq"] > head
    assert not any("snapshot" in envelope for envelope in live)


async def test_commands_are_accepted_over_the_socket_in_order(api: Api) -> None:
    sid = await api.session()
    async with api.socket(sid, after=0) as socket:
        first = await socket.answer({"type": "prompt", "text": "what can you do?", "command_id": "c1"})
        assert first["accepted"] | {"seq": 0, "run_id": ""} == {
            "command_id": "c1",
            "type": "prompt",
            "seq": 0,
            "run_id": "",
        }
        await socket.until_run_ends(first["accepted"]["run_id"])
        repeated = await socket.answer({"type": "prompt", "text": "what can you do?", "command_id": "c1"})
        assert repeated == first
        stopped = await socket.answer({"type": "stop", "command_id": "c2"})
        assert stopped["accepted"]["type"] == "stop"


@pytest.mark.parametrize(
    ("command", "code", "command_id"),
    [
        ("{", "invalid_request", None),
        ("[]", "invalid_request", None),
        ("", "invalid_request", None),
        ("[" * 100_000, "invalid_request", None),
        ('{"type":"prompt","text":"\\ud80","command_id":"bad"}', "invalid_request", None),
        ({"type": "prompt", "command_id": "bad"}, "invalid_request", "bad"),
        ({"type": "prompt", "text": 5, "command_id": "bad"}, "invalid_request", "bad"),
        ({"type": "dance", "command_id": "bad"}, "invalid_request", "bad"),
        ({"type": "prompt", "text": "x", "user_id": "eve", "command_id": "bad"}, "invalid_request", "bad"),
        ({"type": "unqueue", "target": "nothing", "command_id": "bad"}, "command_not_found", "bad"),
        (b"\x00\xff", "invalid_request", None),
        ({"type": "prompt", "text": "x" * 10_000_000, "command_id": "big"}, "invalid_request", None),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_a_bad_command_is_rejected_on_its_socket_alone_which_stays_open(
    api: Api, command: Any, code: str, command_id: str | None
) -> None:
    sid = await api.session()
    async with api.socket(sid, after=0) as socket, api.socket(sid, after=0) as other:
        rejected = (await socket.answer(command))["rejected"]
        assert (rejected["code"], rejected["command_id"]) == (code, command_id)
        assert rejected["message"]
        accepted = await socket.answer({"type": "prompt", "text": "what can you do?"})
        run_id = accepted["accepted"]["run_id"]
        frames: list[dict[str, Any]] = []
        while not any(ends(frame, run_id) for part in frames for frame in part.get("batch", [part])):
            frames.append(await other.read())
        assert not any("rejected" in frame for frame in frames)


async def test_a_frame_beyond_all_measure_closes_the_socket_and_nothing_else(api: Api) -> None:
    sid = await api.session()
    async with api.socket(sid, after=0) as socket:
        with suppress(WebSocketClosedError):  # it is cut while it is still sending
            await socket.send("x" * (20 * 2**20))
        assert await socket.read() is None
    assert (await api("GET", "health")).status == 200


async def test_a_closed_socket_does_not_end_the_run(api: Api) -> None:
    sid = await api.session()
    async with api.socket(sid, after=0) as socket:
        run_id = (await socket.answer({"type": "prompt", "text": "what can you do?"}))["accepted"]["run_id"]
    events = await api.until_run_ends(sid, run_id)
    assert events[-1]["event"]["type"] == "RUN_FINISHED"


async def test_sockets_of_a_deleted_session_are_told_not_to_come_back(api: Api) -> None:
    sid = await api.session()
    async with api.socket(sid, after=0) as socket:
        await api("DELETE", f"sessions/{sid}")
        assert await socket.close_code() == 4404


async def test_sockets_are_closed_as_going_away_when_the_server_stops(api: Api, navi: NaviExtension) -> None:
    sid = await api.session()
    async with api.socket(sid, after=0) as socket:
        await navi.stop_extension()
        assert await socket.close_code() == 1001


async def test_what_a_closed_socket_followed_is_freed_without_a_collection(api: Api, navi: NaviExtension) -> None:
    assert navi.lifecycle is not None
    log = (await navi.lifecycle.ready()).sessions.orchestrator.log
    sid = await api.session()
    gc.disable()
    try:
        async with api.socket(sid, after=0) as socket:
            run_id = (await api.prompt(sid, "what can you do?"))["run_id"]
            await socket.until_run_ends(run_id)
            ring = weakref.ref(log._feeds[sid].ring)
        async with asyncio.timeout(20):
            while log.followers or ring() is not None:  # noqa: ASYNC110 - bounded; a follower's end has no event
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


async def test_no_following_is_left_behind_by_a_closed_socket(api: Api, navi: NaviExtension) -> None:
    sid = await api.session()
    async with api.socket(sid) as socket:
        await socket.envelopes()
        assert (await api.ok("GET", "health"))["followers"] == 1
    assert navi.lifecycle is not None
    while navi.lifecycle.sockets:
        await api.ok("GET", "health")
    assert (await api.ok("GET", "health"))["followers"] == 0


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("s_unknown", {}, 404, "session_not_found"),
        (None, {"after": "x"}, 400, "invalid_request"),
        (None, {"after": -1}, 400, "invalid_request"),
        (None, {"after": 2**70}, 400, "invalid_request"),
    ],
)
async def test_what_can_not_be_followed_is_refused_before_the_upgrade(
    api: Api, jp_http_port: int, jp_base_url: str, jp_auth_header: Any, path: Any, query: Any, status: int, code: str
) -> None:
    sid = path or await api.session()
    with pytest.raises(HTTPClientError) as refused:
        async with api.socket(sid, **query):
            pass
    assert refused.value.code == status
    plain = await api("GET", f"sessions/{sid}/ws", headers={"Upgrade": "websocket", "Connection": "Upgrade"}, **query)
    assert (plain.status, plain.json["code"]) == (status, code)


async def test_a_request_without_an_upgrade_gets_the_contracts_error(api: Api) -> None:
    answer = await api("GET", f"sessions/{await api.session()}/ws")
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


async def test_a_socket_that_stops_reading_holds_up_nobody_and_costs_one_frame(
    api: Api, navi: NaviExtension, jp_http_port: int, jp_base_url: str, jp_auth_header: dict[str, str]
) -> None:
    """Its task waits until the frame before has left; what the log gets meanwhile is not copied for it."""
    sid = await api.session()
    reader, writer = await asyncio.open_connection("localhost", jp_http_port, limit=1024)
    head = f"GET {jp_base_url}navi/api/sessions/{sid}/ws?after=0 HTTP/1.1"
    lines = [head, f"Host: localhost:{jp_http_port}", f"Authorization: {jp_auth_header['Authorization']}", *UPGRADE]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 101")
    # Nothing reads from here on: asyncio stops taking from the connection after two kilobytes.
    assert navi.lifecycle is not None
    (stuck,) = navi.lifecycle.sockets
    async with api.socket(sid, after=0) as other:
        text = "x" * 500_000
        for number in range(30):
            command = {"type": "prompt", "text": f"{number} {text}", "mode": "interrupt"}
            accepted = await api.ok("POST", f"sessions/{sid}/commands", command)
        await other.until_run_ends(accepted["run_id"])
        kept = len(stuck.ws_connection.stream._write_buffer)  # type: ignore[attr-defined]
        assert 0 < kept < 1_100_000
    writer.transport.abort()


async def test_a_socket_that_reads_again_finds_every_event_whole_and_in_order(
    api: Api, navi: NaviExtension, jp_http_port: int, jp_base_url: str, jp_auth_header: dict[str, str]
) -> None:
    """Frames that left in pieces, pings in between, and pages that were read from the store meanwhile."""
    sid = await api.session()
    reader, writer = await asyncio.open_connection("localhost", jp_http_port, limit=1024)
    head = f"GET {jp_base_url}navi/api/sessions/{sid}/ws?after=0 HTTP/1.1"
    lines = [head, f"Host: localhost:{jp_http_port}", f"Authorization: {jp_auth_header['Authorization']}", *UPGRADE]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    assert navi.lifecycle is not None
    (handler,) = navi.lifecycle.sockets
    stream = handler.ws_connection.stream  # type: ignore[union-attr]
    run_id, number = "", 0
    while number < 20 or not stream.writing():
        command = {"type": "prompt", "text": f"{number} " + "x" * 300_000, "mode": "interrupt"}
        run_id = (await api.ok("POST", f"sessions/{sid}/commands", command))["run_id"]
        number += 1
        if stream.writing():
            handler.ping(b"in between")
    expected = await api.until_run_ends(sid, run_id)
    seen: list[Envelope] = []
    pings = 0
    while len(seen) < len(expected):
        opcode, payload = await _frame(reader)
        if opcode == 9:
            pings += payload == b"in between"
            continue
        assert opcode == 1
        message = json.loads(payload)
        seen += message.get("batch", [message])
    assert seen == expected
    assert pings
    writer.transport.abort()


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next frame of a server: its opcode and payload."""
    first, size = await reader.readexactly(2)
    assert first & 0xF0 == 0x80
    if size > 125:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    payload = b""
    while len(payload) < size:
        payload += await reader.read(size - len(payload))
    return first & 0x0F, payload


@pytest.mark.parametrize("known", [True, False], ids=["tornado", "another version of tornado"])
async def test_pages_are_not_written_as_messages_but_where_the_stream_of_a_socket_is_not_known(
    api: Api, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    messages = 0
    write_message = WebSocketProtocol13.write_message

    def counted(self: WebSocketProtocol13, message: Any, binary: bool = False) -> Any:
        nonlocal messages
        messages += isinstance(self, BoundedProtocol)
        return write_message(self, message, binary)

    monkeypatch.setattr(WebSocketProtocol13, "write_message", counted)
    if not known:
        monkeypatch.setattr(websocket_protocol, "IOStream", type("Unknown", (), {}))
    sid = await api.session()
    async with api.socket(sid, after=0) as socket:
        run_id = (await api.prompt(sid, "what can you do?"))["run_id"]
        assert await socket.until_run_ends(run_id) == await api.until_run_ends(sid, run_id)
        assert (messages == 0) == known
        await api("DELETE", f"sessions/{sid}")
        assert await socket.close_code() == 4404


async def test_a_page_goes_behind_what_has_not_left_a_stream_yet() -> None:
    ours, theirs = socketpair()
    stream = IOStream(ours)
    connection = SimpleNamespace(stream=stream, mask_outgoing=False, _compressor=None, is_closing=stream.closed)
    writer = PageWriter(cast("WebSocketHandler", SimpleNamespace(ws_connection=connection)))
    page = make_page([(1, '{"seq":1}')])
    assert writer.write(page) is None
    large = b"a message" * 1_000_000
    stream.write(large)
    first = theirs.recv(300_000)  # now there is room, and the stream does not know of it
    left = writer.write(page)
    assert left is not None
    assert not left.done()
    expected = page.frame + large + page.frame
    assert first + await asyncio.to_thread(_received, theirs, len(expected) - len(first)) == expected
    await left
    stream.close()
    with pytest.raises(WebSocketClosedError):
        writer.write(page)
    theirs.close()


def _received(connection: Any, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        got += connection.recv(size - len(got))
    return bytes(got)


UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


# --- the encoding


def test_only_the_last_event_of_a_prelude_says_its_id() -> None:
    prelude = [(7, '{"seq":7,"event":{},"snapshot":true}'), (7, '{"seq":7,"event":{"a":1},"snapshot":true}')]
    assert encode(prelude).split("\n\n")[:2] == [f"data: {prelude[0][1]}", f"id: 7\ndata: {prelude[1][1]}"]
    live = [(8, '{"seq":8}'), (9, '{"seq":9}')]
    assert encode(live) == 'id: 8\ndata: {"seq":8}\n\nid: 9\ndata: {"seq":9}\n\n'


async def test_silence_becomes_empty_pages_and_loses_none() -> None:
    more = asyncio.Event()

    async def pages() -> AsyncIterator[list[tuple[int, str]]]:
        yield [(1, "a")]
        await more.wait()
        yield [(2, "b")]

    got: list[Any] = []
    async for page in with_silences(pages(), 0.001, asyncio.Event()):  # type: ignore[arg-type]
        got.append(page)
        if page == ():
            more.set()
    assert [page for page in got if page] == [[(1, "a")], [(2, "b")]]
    assert () in got


async def test_following_ends_when_the_client_is_gone() -> None:
    gone, left = asyncio.Event(), asyncio.Event()

    async def pages() -> AsyncIterator[list[tuple[int, str]]]:
        try:
            yield [(1, "a")]
            await asyncio.Event().wait()
        finally:
            left.set()

    async for _ in with_silences(pages(), 60, gone):  # type: ignore[arg-type]
        gone.set()
    assert left.is_set()


async def test_no_following_is_left_behind_by_a_stream_whose_client_is_gone(
    api: Api, jp_http_port: int, jp_base_url: str, jp_auth_header: dict[str, str]
) -> None:
    sid = await api.session()
    reader, writer = await asyncio.open_connection("localhost", jp_http_port)
    head = f"GET {jp_base_url}navi/api/sessions/{sid}/events HTTP/1.1"
    lines = [head, f"Host: localhost:{jp_http_port}", f"Authorization: {jp_auth_header['Authorization']}"]
    writer.write(("\r\n".join([*lines, "Accept: text/event-stream"]) + "\r\n\r\n").encode())
    headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert "content-type: text/event-stream" in headers
    assert "x-accel-buffering: no" in headers
    await reader.readuntil(b"\n\n")  # the prelude
    assert (await api.ok("GET", "health"))["followers"] == 1
    writer.transport.abort()
    while (await api.ok("GET", "health"))["followers"]:
        pass
