"""The chat in a cell: an anywidget around ``<navi-chat>``, and the MIME bundle that shows it everywhere.

JupyterLab and Notebook render ``application/vnd.navi.session+json`` with the lab extension, without any kernel; other
front ends show the widget; places without JavaScript the transcript. Imported only by ``navi.chat()``: ipywidgets is
slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anywidget
import traitlets

from ... import __version__
from ...text import truncate_start
from ..client.client import Client, Service
from ..client.io_thread import io_thread
from ..errors import KernelError, Refused
from ..shell import cell_claim, claim_as
from .render import TRANSCRIPT, transcript_html, transcript_plain

MIME = "application/vnd.navi.session+json"
SAVED_MESSAGES = 20
SAVED_HTML = 20_000  # characters
SAVED_PLAIN = 500  # characters: the HTML has more
NO_TRANSCRIPT = "A chat with Navi. Its transcript is not saved here (setting save_transcripts)."


def saves_transcripts(service: Service) -> bool:
    """Whether a notebook may have the transcript: as the server's setting says, and NAVI_SAVE_TRANSCRIPTS here."""
    here = os.environ.get("NAVI_SAVE_TRANSCRIPTS", "").strip().lower()
    if here in ("0", "false", "no", "off"):
        return False
    return bool(service.call("GET", "health").get("save_transcripts", True))


_LOADER = Path(__file__).parents[2] / "static" / "widget.js"


class Chat(anywidget.AnyWidget):
    """The chat on one session. Several on the same session show the same."""

    # a path to a file, so that it is read once; a few KB, because it is saved into notebooks per widget.
    _esm = _LOADER

    session_id = traitlets.Unicode(read_only=True).tag(sync=True)
    version = traitlets.Unicode(__version__, read_only=True).tag(sync=True)
    snapshot = traitlets.Unicode(read_only=True).tag(sync=True)
    """The end of the conversation at the time of the call, as HTML, for pages that find neither server nor kernel."""

    def __init__(self, service: Service, session_id: str) -> None:
        snapshot, self._plain = "", NO_TRANSCRIPT
        if saves_transcripts(service):
            # Saved with the notebook each time it is: what there is to read at once, not the conversation.
            page = service.call("GET", f"sessions/{session_id}/transcript?limit={SAVED_MESSAGES}")
            snapshot = transcript_html(page["messages"], is_end=page["earlier"] is not None, limit=SAVED_HTML)
            self._plain = truncate_start(transcript_plain(page["messages"]), SAVED_PLAIN)
        with self.hold_trait_notifications():
            self.set_trait("session_id", session_id)
            self.set_trait("snapshot", snapshot)
        super().__init__()
        self._relay = Relay(service.client, self._to_page)
        self.on_msg(lambda _widget, content, _buffers: self._relay.receive(content))

    def close(self) -> None:
        """Close the widget and its connections."""
        if self.comm is not None:
            self._relay.close()
        super().close()

    def _to_page(self, message: dict[str, Any]) -> None:
        if self.comm is not None:
            self.send(message)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_() or ({}, {})
        ours = {
            MIME: {"session_id": self.session_id, "version": self.version},
            "text/html": self.snapshot or f"<p>{NO_TRANSCRIPT}</p>",
            "text/plain": self._plain,
        }
        return {**data, **ours}, {**metadata, **TRANSCRIPT}


BUNDLE = Path(__file__).parents[2] / "static" / "navi-single.js.gz"

# The page is code in a browser, which may loop: a kernel must not keep sockets and tasks for it without end.
MAX_CONNECTIONS = 16
MAX_REQUESTS = 16
MAX_WAITING = 64  # commands of one connection that were not sent yet

_PATHS = re.compile(
    r"(health|sessions|recalls|models|profiles|prompts|tools|usage|mcp|memory)(/[A-Za-z0-9_.-]+)*(\?[^#\s]*)?"
)
_METHODS = ("GET", "POST", "PATCH", "DELETE")

Send = Callable[[dict[str, Any]], None]


class Relay:
    """One widget's. ``send`` puts a message to the page; it is called on the io thread."""

    def __init__(self, client: Client, send: Send) -> None:
        self._client = client
        self._send = send
        self._connections: dict[str, _Connection] = {}
        self._requests: set[asyncio.Task[None]] = set()
        self._closed = False

    def receive(self, content: object) -> None:
        """Handle a message of the page. Any thread; returns at once."""
        if isinstance(content, dict) and content.get("navi") == 1:
            # Read here, where the page's message is the request that the kernel works on.
            io_thread().loop.call_soon_threadsafe(self._handle, content, cell_claim())

    def close(self) -> None:
        """Close every connection. Any thread."""
        io_thread().loop.call_soon_threadsafe(self._close)

    def _handle(self, content: dict[str, Any], claim: str) -> None:
        if self._closed:
            return
        claim_as(claim)
        conn = content.get("conn")
        match content.get("m"):
            case "get_bundle":
                self._start(self._bundle())
            case "open" if _short(conn):
                self._open(str(conn), content)
            case "send" if _short(conn) and str(conn) in self._connections:
                self._connections[str(conn)].send(content.get("data"), claim)
            case "close" if _short(conn) and str(conn) in self._connections:
                self._connections.pop(str(conn)).close()
            case "request":
                self._start(self._request(content))
            case _:
                pass  # another kind of message, or one of a newer page: dropped

    def _close(self) -> None:
        self._closed = True
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        for task in self._requests:
            task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._requests) >= MAX_REQUESTS:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _bundle(self) -> None:
        self._post("bundle", text=await asyncio.to_thread(_bundle_text))

    def _open(self, conn: str, content: dict[str, Any]) -> None:
        session_id, after = content.get("session_id"), content.get("after")
        if not _short(session_id) or not (after is None or isinstance(after, int)):
            self._post("closed", conn=conn, code=4400, reason="bad request")
            return
        if (old := self._connections.pop(conn, None)) is not None:
            old.close()
        while len(self._connections) >= MAX_CONNECTIONS:
            # a page that was reloaded closes nothing: the oldest connection is the likeliest to be dead.
            self._connections[next(iter(self._connections))].end(1013, "too many connections")
        self._connections[conn] = _Connection(self, self._client, conn, str(session_id), after)

    async def _request(self, content: dict[str, Any]) -> None:
        request_id, method, path, body = (content.get(key) for key in ("id", "method", "path", "body"))
        if method not in _METHODS or not isinstance(path, str) or not _allowed(path):
            answer: tuple[int, Any] = (403, {"code": "forbidden", "message": "The relay does not carry this request."})
        else:
            answer = await self.ask(str(method), path, body)
        self._post("response", id=request_id, status=answer[0], body=answer[1])

    async def ask(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and body of a request for the page."""
        try:
            response = await self._client.fetch(method, path, body)
        except KernelError as problem:
            return problem.status, {"code": problem.code, "message": problem.message}
        try:
            return response.code, json.loads(response.body) if response.body else None
        except ValueError:
            return response.code, response.body.decode(errors="replace")

    def _post(self, kind: str, **fields: Any) -> None:
        if not self._closed:
            self._send({"navi": 1, "m": kind, **fields})

    def emit(self, connection: _Connection, kind: str, **fields: Any) -> None:
        """Send a message of a connection to the page; nothing when the page has replaced or closed it."""
        if self._connections.get(connection.name) is connection:
            if kind == "closed":
                del self._connections[connection.name]
            self._post(kind, conn=connection.name, **fields)


def _bundle_text() -> str:
    return gzip.decompress(BUNDLE.read_bytes()).decode()


class _Connection:
    """One socket to the server on behalf of the page. It does not reconnect: the page does, with its cursor."""

    def __init__(self, relay: Relay, client: Client, name: str, session_id: str, after: int | None) -> None:
        self.name = name
        self._relay = relay
        self._client = client
        self._session_id = session_id
        self._waiting: asyncio.Queue[tuple[object, str]] = asyncio.Queue(MAX_WAITING)
        self._task = asyncio.get_running_loop().create_task(self._run(session_id, after), name=f"navi-relay {name}")

    def send(self, data: object, claim: str) -> None:
        try:
            self._waiting.put_nowait((data, claim))
        except asyncio.QueueFull:  # the page would wait for an acceptance in vain: let it reconnect
            self.end(1013, "too many commands at once")

    def end(self, code: int, reason: str) -> None:
        """Close it and notify the page, which may reconnect with its cursor."""
        self._relay.emit(self, "closed", code=code, reason=reason)
        self.close()

    def close(self) -> None:
        self._task.cancel()

    async def _run(self, session_id: str, after: int | None) -> None:
        try:
            stream = await self._client.open_stream(session_id, after=after)
        except KernelError as problem:
            gone = isinstance(problem, Refused) and problem.server_status == 404
            self._relay.emit(self, "closed", code=4404 if gone else 1006, reason=problem.message[:200])
            return
        sender = asyncio.get_running_loop().create_task(self._send_all())
        try:
            self._relay.emit(self, "opened")
            while (text := await stream.read_message()) is not None:
                self._relay.emit(self, "frame", data=text)
            self._relay.emit(self, "closed", code=stream.close_code or 1006, reason=stream.close_reason or "")
        finally:
            sender.cancel()
            stream.close()

    async def _send_all(self) -> None:
        # Over HTTP: each command is for another message of the page, and the socket was opened for an earlier one.
        while True:
            data, claim = await self._waiting.get()
            claim_as(claim)
            command = _decoded(data)
            path = f"sessions/{quote(self._session_id, safe='')}/commands"
            status, body = await self._relay.ask("POST", path, command)
            named = command if isinstance(command, dict) else {}
            if status < 300:
                answer = {"accepted": {**body, "type": named.get("type")}}
            else:
                problem = body if isinstance(body, dict) else {"code": "internal_error", "message": str(body)}
                kept = {name: problem[name] for name in ("code", "message", "field") if name in problem}
                answer = {"rejected": {"command_id": named.get("command_id"), **kept}}
            self._relay.emit(self, "frame", data=json.dumps(answer))


def _decoded(data: object) -> Any:
    """A command of the page; what is no JSON is refused by the server."""
    with contextlib.suppress(ValueError):
        return json.loads(data) if isinstance(data, str) else data
    return data


def _short(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 128


def _allowed(path: str) -> bool:
    """Whether a path is on the allow-list; one that climbs up is not."""
    return len(path) <= 2000 and bool(_PATHS.fullmatch(path)) and ".." not in path
