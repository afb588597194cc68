"""The contract's HTTP and WebSocket, as seen by a program. Async; lives on the loop that it is first used on.

Not responsible for waiting in a cell (``service``), for the notebook's session (``notebook``) or for showing anything.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import socket
import ssl
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from tornado.httpclient import HTTPClientError, HTTPRequest, HTTPResponse
from tornado.iostream import StreamClosedError
from tornado.netutil import Resolver
from tornado.simple_httpclient import HTTPStreamClosedError, HTTPTimeoutError, SimpleAsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from ..errors import Refused, Unreachable
from ..grammar.times import keep_reader_zone
from ..shell import cell_claim
from .connection import Connection, find_server
from .io_thread import io_thread

Envelope = dict[str, Any]  # one row of a session's log; see docs/protocol.md

Query = Mapping[str, str | float | None]  # of a URL; None leaves a parameter out

_LARGEST = 256 * 1024 * 1024  # a snapshot or an export; the default of 10 MiB is for requests
_CONNECT = 10.0
_BROKEN = (HTTPTimeoutError, HTTPStreamClosedError, StreamClosedError, WebSocketError, ssl.SSLError, OSError)


class _UnixResolver(Resolver):
    """Answers every name with one UNIX socket."""

    def initialize(self, sock: str) -> None:
        self._sock = sock

    async def resolve(self, host: str, port: int, family: int = 0) -> list[tuple[int, Any]]:  # noqa: ARG002
        return [(socket.AF_UNIX, self._sock)]


def new_command_id() -> str:
    """A new command id: 96 random bits. Sending a command again under the same id changes nothing."""
    return "c_" + secrets.token_hex(12)


class Client:
    """Requests, commands and follows on one server."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._resolver = _UnixResolver(sock=connection.sock) if connection.sock else None
        self._http: SimpleAsyncHTTPClient | None = None  # made at the first request, in the loop that runs then
        self._loop: asyncio.AbstractEventLoop | None = None  # that loop; a forked child has another one

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Query | None = None,
        timeout: float = 30.0,
    ) -> Any:
        """The decoded answer of ``<base>navi/api/<path>`` (None when empty). Raises Refused, Unreachable."""
        return _decode(await self.fetch(method, path, body, query=query, timeout=timeout))

    async def fetch(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Query | None = None,
        timeout: float = 30.0,
        content: bytes | None = None,
        media_type: str = "application/json",
    ) -> HTTPResponse:
        """The response, whatever its status; ``content`` is sent as it is. Raises Unreachable."""
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._loop = loop
            # One of its own instead of tornado's shared one: user code in this kernel may configure that.
            self._http = SimpleAsyncHTTPClient(
                force_instance=True, max_clients=32, max_body_size=_LARGEST, resolver=self._resolver
            )
        given = {name: value for name, value in (query or {}).items() if value is not None}
        request = HTTPRequest(
            self._api(path) + ("?" + urlencode(given) if given else ""),
            method=method,
            headers={**self._headers(), "Accept": "application/json", "Content-Type": media_type},
            body=content if content is not None else None if body is None else json.dumps(body),
            allow_nonstandard_methods=True,
            connect_timeout=_CONNECT,
            request_timeout=timeout,
            # a redirect leads to a login page, which is no answer of Navi; see ``_foreign_error``.
            follow_redirects=False,
            validate_cert=self.connection.verify,
            ca_certs=self.connection.ca_file,
        )
        try:
            return await self._http.fetch(request, raise_error=False)
        except _BROKEN as problem:
            raise self._unreachable(problem) from None

    async def text(self, path: str, *, query: Query | None = None) -> str:
        """A download. Raises Refused, Unreachable."""
        return bytes((await self._download(path, query)).body).decode()

    async def _download(self, path: str, query: Query | None = None) -> HTTPResponse:
        response = await self.fetch("GET", path, query=query)
        if response.code >= 300:
            _decode(response)  # raises its error
        return response

    async def upload(self, content: bytes, *, name: str, media_type: str) -> dict[str, Any]:
        """Store a file on the server; its record there. Raises Refused, Unreachable."""
        response = await self.fetch(
            "POST", "attachments", content=content, media_type=media_type, query={"name": name}, timeout=120
        )
        return dict(_decode(response))

    async def image(self, attachment_id: str) -> tuple[str, bytes]:
        """Media type and content of an attachment. Raises Refused, Unreachable."""
        response = await self._download(f"attachments/{_part(attachment_id)}")
        return str(response.headers.get("Content-Type", "")).partition(";")[0], bytes(response.body)

    async def command(self, session_id: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """Submit a command; its acceptance. Repeats it while the server starts: the command id makes that safe."""
        body = {"command_id": new_command_id(), **command}
        # a restarting Jupyter server refuses connections, then answers 503 for about a second.
        pauses = iter((0.2, 0.5, 1.0))
        while True:
            try:
                answer = await self.request("POST", f"sessions/{_part(session_id)}/commands", body)
            except (Unreachable, Refused) as problem:
                pause = next(pauses, None)
                if pause is None or not _is_transient(problem):
                    raise
                await asyncio.sleep(pause)
            else:
                return dict(answer)

    async def follow(
        self, session_id: str, after: int | None = None, *, patience: float = 120.0
    ) -> AsyncGenerator[list[Envelope], None]:
        """The session's envelopes with ``seq`` > ``after``, in order, each once, as they come; frame by frame.

        Without ``after``, first a snapshot (envelopes marked so). Reconnects by cursor; a snapshot comes again
        when the connection broke before it was complete, or when the server no longer keeps what was missed.
        Raises Unreachable when there was no server for ``patience`` seconds, Refused when the session is not (or no
        longer) there.
        """
        seen = after
        lost = time.monotonic()
        attempt = 0
        while True:
            try:
                stream = await self.open_stream(session_id, after=seen)
            except (Unreachable, Refused) as problem:
                if not _is_transient(problem) or time.monotonic() - lost > patience:
                    raise
            else:
                try:
                    async for page in _pages(stream):
                        attempt = 0
                        seen = max((envelope["seq"] for envelope in page), default=seen)
                        if page:
                            yield page
                finally:
                    stream.close()
                lost = time.monotonic()
            # Full jitter, so that many followers of a restarted server do not come back as one.
            await asyncio.sleep(random.uniform(0.05, min(5.0, 0.1 * 2**attempt)))  # noqa: S311
            attempt = min(attempt + 1, 6)

    async def open_stream(self, session_id: str, *, after: int | None = None) -> WebSocketClientConnection:
        """The session's WebSocket, open. Raises Refused, Unreachable."""
        path = f"sessions/{_part(session_id)}/ws" + ("" if after is None else f"?after={after}")
        return await self._open_socket(path, session_id)

    async def open_loan(self, kernel_id: str, session_id: str) -> WebSocketClientConnection:
        """The WebSocket by which a kernel is lent to a session, open. Raises Refused, Unreachable."""
        path = f"kernels/{_part(kernel_id)}/loan?" + urlencode({"session_id": session_id})
        return await self._open_socket(path, session_id)

    async def _open_socket(self, path: str, session_id: str) -> WebSocketClientConnection:
        request = HTTPRequest(
            "ws" + self._api(path).removeprefix("http"),
            headers=self._headers(),
            connect_timeout=_CONNECT,
            request_timeout=_CONNECT,
            validate_cert=self.connection.verify,
            ca_certs=self.connection.ca_file,
        )
        try:
            return await websocket_connect(
                request, ping_interval=30, ping_timeout=25, max_message_size=_LARGEST, resolver=self._resolver
            )
        except HTTPClientError as problem:
            if problem.code < 500:
                # The response to an upgrade has no message. Requesting the session raises the error with one.
                await self.request("GET", f"sessions/{_part(session_id)}")
            if isinstance(problem, _BROKEN):
                raise self._unreachable(problem) from None
            raise Refused(str(problem), server_code="stream_refused", server_status=problem.code) from None
        except _BROKEN as problem:
            raise self._unreachable(problem) from None

    def _api(self, path: str) -> str:
        return f"{self.connection.url}navi/api/{path}"

    def _headers(self) -> dict[str, str]:
        authorization = self.connection.authorization
        return {"Authorization": authorization, "Navi-Cell": cell_claim()} if authorization else {}

    def _unreachable(self, problem: BaseException) -> Unreachable:
        reason = str(problem) or type(problem).__name__
        return Unreachable(f"The Jupyter server at {self.connection.url} does not answer ({reason}). Is it running?")


def _part(text: str) -> str:
    return quote(text, safe="")


def _is_transient(problem: Unreachable | Refused) -> bool:
    """Whether the request may succeed when it is repeated."""
    return isinstance(problem, Unreachable) or problem.server_status in (502, 503, 504)


async def _pages(stream: WebSocketClientConnection) -> AsyncIterator[list[Envelope]]:
    """The envelopes of each frame, until the socket closes."""
    with suppress(StreamClosedError):
        while (text := await stream.read_message()) is not None:
            frame = json.loads(text)
            if "batch" in frame:
                yield frame["batch"]
            elif "event" in frame:
                yield [frame]


def _decode(response: HTTPResponse) -> Any:
    body = response.body or b""
    if response.code < 300:
        return json.loads(body) if body else None
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if isinstance(content, dict) and "code" in content:
        raise Refused(
            str(content.get("message") or response.reason),
            server_code=str(content["code"]),
            server_status=response.code,
            field=content.get("field"),
        )
    raise _foreign_error(response)


def _foreign_error(response: HTTPResponse) -> Refused:
    """The error of a response that is not Navi's: of Jupyter, a proxy or JupyterHub."""
    parts = urlsplit(response.effective_url)
    server = f"{parts.scheme}://{parts.netloc}"
    if response.code in (301, 302, 401, 403):
        text = (
            f"The server at {server} does not accept this token: check NAVI_TOKEN, or in a notebook restart the kernel."
        )
        return Refused(text, server_code="forbidden", server_status=403)
    if response.code == 404:
        text = f"The server at {server} has no Navi: install navi-jupyter where it runs and restart it."
        return Refused(text, server_code="not_found", server_status=404)
    text = f"The server at {server} answered {response.code} {response.reason}: see its log."
    return Refused(text, server_code="internal_error", server_status=response.code)


class Service:
    """Synchronous calls, run on the io thread. Ctrl-C ends any of them at once."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.client = Client(connection)
        self.session_id: str | None = None  # the notebook's session, as it was found last
        self.chosen_session: str | None = None  # what a kernel without a notebook uses instead of its own
        self.note: str | None = None  # what the user should know about the notebook's session, until it is shown
        self.lock = threading.Lock()
        """Held while the notebook's session is looked up: two threads must not both create one."""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, query: Query | None = None) -> Any:
        """One request; see :meth:`Client.request`."""
        answer = io_thread().wait(self.client.request(method, path, body, query=query))
        if isinstance(answer, dict) and "tz" not in (body or {}):
            for read in (answer, answer.get("session")):  # a session, or a preview in its zone
                if isinstance(read, dict) and ("timezone_source" in read or "meaning" in read):
                    keep_reader_zone(str(read.get("timezone")))
        return answer

    def pages(
        self,
        path: str,
        key: str,
        *,
        most: int = 10_000,
        query: Query | None = None,
        beside: Mapping[str, dict[str, Any]] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Every item of a paged list, ``most`` at most. ``beside``: what else each page has, by name, is added."""
        cursor: str | None = None
        while most > 0:
            page = self.call("GET", path, query={**(query or {}), "limit": min(most, 100), "cursor": cursor})
            most -= len(page[key])
            for name, found in (beside or {}).items():
                found.update(page.get(name) or {})
            yield from page[key]
            cursor = page.get("next")
            if cursor is None:
                return

    def command(self, session_id: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """Submit a command; its acceptance."""
        return io_thread().wait(self.client.command(session_id, command))

    def follow(self, session_id: str, after: int | None) -> Iterator[Envelope]:
        """The session's envelopes as they come. Ends with the iterator, or by Ctrl-C."""
        pages = self.client.follow(session_id, after)
        try:
            while True:
                yield from io_thread().wait(_next(pages))
        finally:
            io_thread().wait(pages.aclose())


async def _next(pages: AsyncIterator[list[Envelope]]) -> list[Envelope]:
    return await anext(pages)


_current: Service | None = None
_lock = threading.Lock()


def use_server(connection: Connection | None = None) -> Service:
    """Use that server from now on, else find the own one (again). Raises ServerNotFound."""
    global _current
    connection = connection or find_server()
    with _lock:
        if _current is None or _current.connection != connection:
            _current = Service(connection)
        return _current


_chosen: ContextVar[Service | None] = ContextVar("navi_service", default=None)  # what ``using`` set


def current_service() -> Service:
    """The one in use; found now if there is none yet. Raises ServerNotFound."""
    return _chosen.get() or _current or use_server()


@contextmanager
def using(service: Service) -> Iterator[None]:
    """Within it, in this thread or task, that one is in use: a program may have several servers."""
    token = _chosen.set(service)
    try:
        yield
    finally:
        _chosen.reset(token)


def _forget() -> None:
    """A forked child has no io thread yet, so it cannot use its parent's client."""
    global _current
    _current = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
