"""The routes of Navi in a user's server that keeps nothing itself: each request and socket goes to the service.

They are the service's own, under the address of this server, so the page, kernels and programs need not know. A request
of anybody but the server's user is refused: with the token of this server a visitor would act as its user.
Not responsible for what the service answers. Imported at extension load: no pydantic.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote, unquote_plus

from jupyter_server._tz import utcnow
from jupyter_server.auth.decorator import allow_unauthenticated
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError

from ...errors import Forbidden, InvalidRequest, KernelTokenScope, NotFound, NotReady
from ..handler import ApiHandler, NaviHandler
from ..kernel_caller import HEADER, SERVER_HEADER
from ..transfers.event_stream import KEEP_ALIVE
from ..transfers.unfinished import LARGEST_MESSAGE
from ..websocket import PING, LoanHandler, NotebooksHandler, SocketHandler
from .service import UNREACHABLE, HubService
from .user_server import HubUserServer

if TYPE_CHECKING:
    from tornado.websocket import WebSocketClientConnection

    from ...jupyter.kernels.loans import KernelLoans
    from ...jupyter.notebooks.open_pages import OpenPages
    from ..kernel_scope import KernelScope

PASSED_ON = (
    "Accept",
    "Accept-Encoding",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Mcp-Protocol-Version",
    "Mcp-Session-Id",
    "traceparent",
)
"""Headers of a request that mean something to the service; cookies and tokens are this server's."""
HELD_BACK = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"} | {
    "set-cookie",
    "x-jupyterhub-version",
}
"""Headers of an answer that are the web server's own."""

SILENT = 3 * KEEP_ALIVE  # seconds without a byte after which an event stream has ended, whatever its connection says


def _unquoted(text: str) -> str:
    """Without its percent signs, however often it was quoted."""
    while (plain := unquote(text)) != text:
        text = plain
    return text


class _Forwarding(NaviHandler):
    """What requests and sockets have in common."""

    @property
    def hub(self) -> HubUserServer:
        return cast("HubUserServer", self.settings["navi_hub"])

    @property
    def service(self) -> HubService:
        return self.hub.service

    async def prepare(self) -> None:  # type: ignore[override]
        """Raises Forbidden for a user whose server this is not."""
        await super().prepare()
        user = os.environ.get("JUPYTERHUB_USER", "")
        if self.request.method != "OPTIONS" and self.owner != user:
            raise Forbidden(f"This is the server of {user}: Navi acts here for {user} alone. Use your own server.")

    @property
    def path(self) -> str:
        """Below the service's address, as it was asked for, without this server's token."""
        path = str(self.request.uri).partition("?")[0].removeprefix(self.base_url)
        # The address is put together from it: what goes up from there would be another one, with this server's token.
        if not {".", ".."}.isdisjoint(re.split(r"[/\\]", _unquoted(path))):
            raise NotFound("There is no such address.")
        query = "&".join(
            part
            for part in self.request.query.split("&")
            if part and unquote_plus(part.partition("=")[0]) not in ("token", "_xsrf")
        )
        return f"/{path}" + (f"?{query}" if query else "")

    def headers_on(self) -> dict[str, str]:
        """The headers that are passed on. A kernel's request says that it is one: it may do less."""
        found = {name: self.request.headers[name] for name in PASSED_ON if name in self.request.headers}
        if server := os.environ.get("JUPYTERHUB_SERVER_NAME"):
            found[SERVER_HEADER] = quote(server)
        return found if self.kernel is None else {**found, HEADER: self.request.headers.get(HEADER, "- - 0 -")}


class ForwardedRequests(ApiHandler, _Forwarding):
    """``navi/api/…`` and ``navi/mcp``."""

    def skip_check_origin(self) -> bool:
        """For MCP the origin is looked at also with a token, as its protocol wants it: the service sees this server."""
        return not self.request.path.startswith(f"{self.base_url}navi/mcp") and super().skip_check_origin()

    async def _serve(self, path: str) -> None:
        try:
            await self._serve_by_service()
        except NotReady as error:
            if path != "api/health":
                raise
            await self._write_unhealthy(error)

    async def _serve_by_service(self) -> None:
        reads = self.request.method in ("GET", "HEAD")
        await self.authorize("read" if reads else "execute")
        if not reads:
            await self.hub.linked()
        body = None if self._body is None else self._body.content()
        forwarding = asyncio.ensure_future(self._forward(body))
        leaving = asyncio.ensure_future(self.gone.wait())
        try:
            await asyncio.wait((forwarding, leaving), return_when=asyncio.FIRST_COMPLETED)
            if forwarding.done():
                forwarding.result()
        finally:
            forwarding.cancel()
            leaving.cancel()
            await asyncio.gather(forwarding, leaving, return_exceptions=True)
            self.lifecycle.unfinished.disconnect(self.owner, self)

    async def _forward(self, body: bytes | None) -> None:
        import httpx  # late: costs time at the server's start

        async with self.service.request(
            str(self.request.method), self.path, headers=self.headers_on(), body=body
        ) as it:
            if it.status_code in (502, 503, 504) and "json" not in it.headers.get("Content-Type", ""):
                raise NotReady(UNREACHABLE)  # of the Hub's proxy, which has no service to send it to
            streams = it.headers.get("Content-Type", "").startswith("text/event-stream")
            if streams:
                self.lifecycle.unfinished.require_connection(self.owner)
                self.lifecycle.unfinished.connect(self.owner, self)
            self.set_status(it.status_code, it.reason_phrase or None)
            self.clear_header("Content-Type")
            for name, value in it.headers.items():
                if name.lower() not in HELD_BACK:
                    self.set_header(name, value)
            with suppress(StreamClosedError):
                try:
                    await self.flush()
                    # As it comes, also while it is compressed: no faster than the client reads.
                    pieces = aiter(it.aiter_raw())
                    while True:
                        async with asyncio.timeout(SILENT if streams else None):
                            piece = await anext(pieces, None)
                        if piece is None:
                            break
                        self.write(piece)
                        await self.flush()
                except (httpx.HTTPError, TimeoutError):
                    self._cut(NotReady(UNREACHABLE))  # a broken answer must not look whole
                    return
                await self.finish(set_content_type=it.headers.get("Content-Type"))


class ForwardedSockets(_Forwarding, SocketHandler):
    """The WebSockets of sessions."""

    # Seconds; Jupyter's mixin has the same names in milliseconds, which turns pings off. The service's own pings are
    # answered here, so only these find a page that is gone without a word.
    ping_interval = PING
    ping_timeout = PING

    _other: WebSocketClientConnection | None = None
    _passing: asyncio.Task[None] | None = None

    @property
    def max_message_size(self) -> int:
        return LARGEST_MESSAGE

    @allow_unauthenticated
    async def get(self, *args: str) -> None:
        """Upgrade once the service has; else answer as it does."""
        await self.authorize("execute")
        self.lifecycle.unfinished.require_connection(self.owner)
        await self.hub.linked()
        kept = (HEADER, SERVER_HEADER, "traceparent")
        headers = {name: value for name, value in self.headers_on().items() if name in kept}
        self._other = await self.service.socket(self.path, headers)
        if self._other is None:
            await self._refuse_as_service(headers)
            return
        await super().get(*args)
        if self.ws_connection is None:  # it was no request to upgrade
            self._other.close()

    async def _refuse_as_service(self, headers: dict[str, str]) -> None:
        """Answer what the service answers to a request that asks for a WebSocket, and cannot become one."""
        asking = {**headers, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        async with self.service.request("GET", self.path, headers=asking) as answer:
            content = await answer.aread()
            if answer.status_code < 400 or "json" not in answer.headers.get("Content-Type", ""):
                raise NotReady(UNREACHABLE)
            self.set_status(answer.status_code)
            self.set_header("Content-Type", "application/json")
            await self.finish(content)

    async def open(self, *_: str) -> None:
        """Pass on what comes from the service, in its order and no faster than it is read."""
        self._connect()
        self.lifecycle.sockets.add(self)
        self._passing = asyncio.create_task(self._pass_back(), name="navi-hub-socket")

    async def _pass_back(self) -> None:
        if (other := self._other) is None:
            return
        with suppress(WebSocketClosedError, StreamClosedError):
            while (message := await other.read_message()) is not None:
                await self.write_message(message, binary=isinstance(message, bytes))
        # 1006 stands for a connection that broke, and cannot be sent.
        code = other.close_code or 1001
        self.close(
            1001 if code == 1006 else code, (other.close_reason or "the connection to Navi's service ended")[:100]
        )

    async def on_message(self, message: str | bytes) -> None:
        """Pass it on. tornado reads the next one when this is done."""
        self.settings["api_last_activity"] = utcnow()
        if self._other is not None:
            with suppress(WebSocketClosedError, StreamClosedError):
                await self._other.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        """Either side closed the socket."""
        super().on_close()
        self.lifecycle.sockets.discard(self)
        if self._passing is not None:
            self._passing.cancel()
        if self._other is not None:
            self._other.close(self.close_code if self.close_code in (1000, 1001) else 1000)


class LocalLoans(_Forwarding, LoanHandler):
    """A waiting cell lends its kernel to this server, which executes what the service wants of it."""

    async def _refuse(self, session_id: str) -> None:
        await _require_upgrade(self)
        self._bench = await self.hub.bench()
        self._session_id = session_id  # one of another user's gets nothing: the service calls for this user alone

    @property
    def loans(self) -> KernelLoans:
        return self._bench.loans

    @property
    def kernel_scope(self) -> KernelScope:
        return self._bench.kernel_scope


class LocalNotebooks(_Forwarding, NotebooksHandler):
    """A page says which notebooks it shows: to this server, which changes them."""

    async def _refuse(self, session_id: str) -> None:
        if self.kernel is not None:
            raise KernelTokenScope("A kernel is no page: it shows no notebooks.")
        await _require_upgrade(self)
        self._bench = await self.hub.bench()
        self._session_id = session_id

    @property
    def pages(self) -> OpenPages:
        return self._bench.pages


async def _require_upgrade(handler: SocketHandler) -> None:
    """Raises what a socket is refused with before it is opened."""
    await handler.authorize("execute")
    if handler.request.headers.get("Upgrade", "").lower() != "websocket":
        raise InvalidRequest("This route is a WebSocket; send a request to upgrade.", field="Upgrade")
    handler.lifecycle.unfinished.require_connection(handler.owner)


class LocalFunctions(_Forwarding, ApiHandler):
    """``kernels/{kid}/tools``: functions of this server's kernels, which the service asks for when a run begins."""

    async def _serve(self, path: str) -> None:
        await self.authorize("read" if self._method == "GET" else "execute")
        bench = await self.hub.bench()
        await self._write(await bench.functions.serve(self._method, path, self._request(upload=False)))


FORWARDING: Sequence[tuple[str, type]] = (
    (r"/navi/api/kernels/([^/]+)/loan", LocalLoans),
    (r"/navi/api/notebooks/ws", LocalNotebooks),
    (r"/navi/api/sessions/[^/]+/ws", ForwardedSockets),
    (r"/navi/api/(kernels/[^/]+/tools(?:/[^/]+)?)", LocalFunctions),
    (r"/navi/(mcp/?|api(?:/.*)?)", ForwardedRequests),
)
