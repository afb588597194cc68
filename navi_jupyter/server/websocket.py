"""The WebSockets: a session's log after a cursor out, and commands in; the notebooks that a page shows; a waiting cell
that lends its kernel.

A session's socket holds a cursor and nothing else. What the log has is written to it once the frame before has left: a
reader that stops reading gets no more, and memory does not grow. While it keeps up the log itself writes, else a task
of the socket. Commands of one socket are processed in order, one at a time.
Not responsible for the log (``orchestrator``) or for loans (``jupyter.kernels.loans``). Imported at extension load: no
pydantic.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from jupyter_server._tz import utcnow
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, stream_request_body
from tornado.websocket import WebSocketClosedError, WebSocketHandler, WebSocketProtocol, WebSocketProtocol13

from ..errors import Forbidden, InvalidRequest, KernelTokenScope, NaviError, SessionNotFound
from ..input.json_input import load_json
from .handler import NaviHandler, internal_error
from .http import check_query, read_cursor
from .transfers.unfinished import LARGEST_MESSAGE
from .transfers.websocket_protocol import BoundedProtocol, PageWriter

if TYPE_CHECKING:
    from ..jupyter.kernels.lent_kernel import LentKernel
    from ..jupyter.kernels.loans import KernelLoans
    from ..jupyter.notebooks.open_pages import OpenPages
    from .kernel_scope import KernelScope
    from .services import Services

PING = 20.0  # seconds between pings, and until the pong must come: nginx closes a silent connection after 60
GONE = 4404  # close code: the session was deleted; the client does not reconnect
BROKEN = 1011  # close code: an internal error; the client reconnects with its cursor
SLACK = 16 * 2**20
"""Bytes above ``max_message_bytes`` that a frame may have and still be answered; above, the socket is closed (1009)."""

MOST_NOTEBOOKS = 500  # that a page shows
LONGEST_PATH = 4096

BAD_FRAME = 4400  # close code: a frame that breaks the protocol; the other side does not reconnect
OVER = 4410  # close code: the loan is over; the kernel does not reconnect
TURN = 0.004  # seconds of taking frames that have come already, until others on the loop get their turn


@stream_request_body  # so that no body is kept: there is none with a request to upgrade
class SocketHandler(NaviHandler, WebSocketMixin, WebSocketHandler, JupyterHandler):
    """The base of all."""

    _services: Services
    _session_id: str
    _connected: str | None = None  # as whom

    async def prepare(self) -> None:  # type: ignore[override]
        """Raises Forbidden for a login's cookie alone: a page of another server below the same domain has it sent, too,
        and passes for this server by its origin."""
        await super().prepare()
        unforgeable = self._has_kernel_token or self.token_authenticated
        if not (unforgeable or self.settings.get("disable_check_xsrf", False) or self._has_xsrf_token()):
            raise Forbidden("A WebSocket with the cookie of a login needs the cookie _xsrf as _xsrf in its query, too.")

    def _has_xsrf_token(self) -> bool:
        """As for POST requests. Jupyter asks WebSockets for none, and JupyterHub's check leaves them out."""
        if hasattr(type(self), "_xsrf_token_id"):  # JupyterHub's: the token is the cookie, which it has signed
            given = self.get_query_argument("_xsrf", "")
            return bool(given) and hmac.compare_digest(given.encode(), self.xsrf_token)
        try:
            RequestHandler.check_xsrf_cookie(self)
        except HTTPError:
            return False
        return True

    def set_default_headers(self) -> None:
        """None: an upgrade carries no headers of ours."""

    def get_compression_options(self) -> dict[str, Any] | None:
        """None: most sockets are on loopback, and each would compress the one frame that all of them share."""
        return None

    async def _refuse(self, session_id: str) -> None:
        """Refuse what can be refused before the upgrade: afterwards there is no HTTP answer any more."""
        await self.authorize("execute")
        if self.request.headers.get("Upgrade", "").lower() != "websocket":
            raise InvalidRequest("This route is a WebSocket; send a request to upgrade.", field="Upgrade")
        self._services = await self.lifecycle.ready()
        self._session_id = session_id
        await self._require(session_id)
        self.lifecycle.unfinished.require_connection(self.owner)

    async def _require(self, session_id: str) -> None:
        """Raises SessionNotFound, SessionReadOnly where the socket is not for this user."""
        await self._services.sessions.find(session_id, owner=self.owner)

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        """tornado's, with bounds over all sockets of the user."""
        base = super().get_websocket_protocol()
        if not isinstance(base, WebSocketProtocol13):
            return base
        return BoundedProtocol(base, self.lifecycle.unfinished, self.owner)

    def _connect(self) -> None:
        self._connected = self.owner
        self.lifecycle.unfinished.connect(self._connected, self)
        self.set_nodelay(True)  # frames are small and each is a flush already; Nagle would delay them

    def on_close(self) -> None:
        """Either side closed the socket."""
        if self._connected is not None:
            self.lifecycle.unfinished.disconnect(self._connected, self)


class StreamHandler(SocketHandler):
    """``sessions/{sid}/ws?after=N``."""

    # Seconds, as tornado reads them; Jupyter's mixin has the same names in milliseconds, which turns pings off.
    ping_interval = PING
    ping_timeout = PING

    _follower: asyncio.Task[None] | None = None

    @property
    def max_message_size(self) -> int:
        return self.lifecycle.settings.max_message_bytes + SLACK

    @allow_unauthenticated
    async def get(self, session_id: str) -> None:
        self._after = self._read_after()
        await self._refuse(session_id)
        await super().get(session_id)

    async def _require(self, session_id: str) -> None:
        """Who it is shared with may follow it; a command of theirs is refused."""
        await self._services.sessions.directory.readable(session_id, self.owner)

    def _read_after(self) -> int | None:
        check_query(self.request.query_arguments, ["after"])
        text = self.get_query_argument("after", None)
        return None if not text else read_cursor(text)

    async def open(self, session_id: str) -> None:  # noqa: ARG002
        """Start following. Jupyter's ``open`` is not called: it would start a second pinger, in milliseconds."""
        self._connect()
        self.lifecycle.sockets.add(self)
        self._follower = asyncio.create_task(self._follow(), name=f"navi-socket {self._session_id}")

    def on_close(self) -> None:
        """Either side closed the socket. Only the following ends; a run goes on."""
        super().on_close()
        self.lifecycle.sockets.discard(self)
        if self._follower is not None:
            self._follower.cancel()

    async def _follow(self) -> None:
        # The log ends a follower in two cases only, and both close codes tell the client whether to come back.
        code, reason = 1001, "the server is stopping"
        try:
            push = PageWriter(self).write
            follow = self._services.sessions.orchestrator.follow
            async with aclosing(follow(self._session_id, after=self._after, owner=self.owner, push=push)) as pages:
                async for page in pages:
                    left = push(page)
                    del page  # not kept for as long as pages are pushed: a snapshot is large
                    if left is not None:
                        await left
            if self.lifecycle.state == "ok":
                code, reason = GONE, "the session was deleted"
        except (WebSocketClosedError, StreamClosedError, asyncio.CancelledError):
            # A cancellation by on_close ends here, too: a cancelled task keeps its traceback, and with it this handler
            # and the session's recent events, until a full collection, which is rare.
            return
        except SessionNotFound:
            code, reason = GONE, "the session was deleted"
        except Exception as error:  # noqa: BLE001 - the supervisor: the client learns of it by a close code
            code, reason = BROKEN, internal_error(error, self.log, session_id=self._session_id).message[:120]
        self.close(code, reason)

    async def on_message(self, message: str | bytes) -> None:
        """One command. tornado reads the next frame when this is done."""
        self.settings["api_last_activity"] = utcnow()
        answer = await self._answer(message)
        # a client that has gone meanwhile finds the accepted command in the log when it comes back.
        with suppress(WebSocketClosedError):
            await self.write_message(json.dumps(answer))

    async def _answer(self, message: str | bytes) -> dict[str, Any]:
        try:
            accepted = await self._submit(message)
        except NaviError as error:
            return _rejected(message, error)
        except Exception as error:  # noqa: BLE001 - the supervisor: one bad command must not end the socket
            return _rejected(message, internal_error(error, self.log, session_id=self._session_id))
        return {"accepted": accepted}

    async def _submit(self, message: str | bytes) -> Mapping[str, Any]:
        limit = self.lifecycle.settings.max_message_bytes
        if isinstance(message, bytes):
            raise InvalidRequest("Send commands as text frames, not binary ones.", field="body")
        if len(message) > limit or len(message.encode(errors="replace")) > limit:
            raise InvalidRequest(f"The command is larger than {limit} bytes.", field="body")
        sessions = self._services.sessions
        return await sessions.submit_text(self._session_id, message, owner=self.owner, kernel=self.kernel)


def _rejected(message: str | bytes, error: NaviError) -> dict[str, Any]:
    why = {"command_id": _command_id(message), "code": error.code, "message": error.message}
    return {"rejected": why | ({"field": error.field} if error.field else {})}


def _command_id(message: str | bytes) -> str | None:
    """The command's id in a refused frame, so that the client knows which one it was; None when it has none."""
    if len(message) > 1_100_000:  # beyond the default size limit: too expensive to parse only for an id
        return None
    try:
        command = load_json(message)
    except ValueError:
        return None
    found = command.get("command_id") if isinstance(command, dict) else None
    return found if isinstance(found, str) and len(found) <= 128 else None


class NotebooksHandler(SocketHandler):
    """``notebooks/ws``: a page says which notebooks it shows, and is asked for what is not saved in them.

    A frame in is ``{"notebooks": [{"path", "unsaved"}, …]}``, the whole list each time; those out are of ``OpenPages``.
    """

    ping_interval = PING
    ping_timeout = PING

    @property
    def max_message_size(self) -> int:
        return self.lifecycle.settings.max_message_bytes

    @allow_unauthenticated
    async def get(self) -> None:
        check_query(self.request.query_arguments, [])
        await self._refuse("")
        await super().get()

    async def _require(self, session_id: str) -> None:  # noqa: ARG002 - it is of no session
        if self.kernel is not None:  # it could say what a page of the user shows
            raise KernelTokenScope("A kernel is no page: it shows no notebooks.")

    @property
    def pages(self) -> OpenPages:
        return self._services.sessions.pages

    async def open(self) -> None:
        """Until its first frame a page shows nothing."""
        self._connect()
        self.lifecycle.sockets.add(self)

    def on_close(self) -> None:
        """Either side closed the socket."""
        super().on_close()
        self.lifecycle.sockets.discard(self)
        if self._connected is not None:  # else it was refused
            self.pages.closed(self.emit)

    def on_message(self, message: str | bytes) -> None:
        """What the page shows now."""
        try:
            notebooks = _notebooks_in(load_json(message))
        except ValueError as error:
            self.close(BAD_FRAME, str(error)[:100])
            return
        self.pages.shows(self.emit, self.owner, notebooks)

    def emit(self, message: Mapping[str, Any]) -> None:
        """A frame for the page. Not awaited: they are few and small."""
        with suppress(WebSocketClosedError):
            written = self.write_message(json.dumps(message))
            written.add_done_callback(lambda future: future.cancelled() or future.exception())


def _notebooks_in(frame: object) -> dict[str, bool]:
    """By path, whether something is not saved. Raises ValueError for what is no such frame."""
    listed = frame.get("notebooks") if isinstance(frame, dict) else None
    if not isinstance(listed, list) or len(listed) > MOST_NOTEBOOKS:
        raise ValueError("A frame is an object with a list of notebooks.")
    found: dict[str, bool] = {}
    for one in listed:
        path, unsaved = (one.get("path"), one.get("unsaved")) if isinstance(one, dict) else (None, None)
        if not isinstance(path, str) or not isinstance(unsaved, bool) or len(path) > LONGEST_PATH:
            raise ValueError("A notebook has a path, and is unsaved or not.")
        found[path] = unsaved or found.get(path, False)
    return found


class LoanHandler(SocketHandler):
    """``kernels/{kid}/loan?session_id=…``: the kernel that a waiting cell lends to the runs of its session."""

    # Pings keep proxies from closing it, but no pong is waited for: a kernel that computes in C for minutes sends none.
    ping_interval = 0

    _pinging: asyncio.Task[None] | None = None
    _loan: LentKernel | None = None
    _turn = 0.0

    @property
    def max_message_size(self) -> int:
        return LARGEST_MESSAGE

    @allow_unauthenticated
    async def get(self, kernel_id: str) -> None:
        check_query(self.request.query_arguments, ["session_id"])
        await self._refuse(self.get_query_argument("session_id"))
        await super().get(kernel_id)

    @property
    def loans(self) -> KernelLoans:
        return self._services.loans

    @property
    def kernel_scope(self) -> KernelScope:
        return self._services.kernel_scope

    async def open(self, kernel_id: str) -> None:
        """Wait for the first frame. Not among the lifecycle's sockets: runs that are stopped still need it."""
        self._connect()
        self._kernel_id = kernel_id
        if self.kernel is not None:  # before the first frame: a run's code comes after that
            await self.kernel_scope.note_cell(self.kernel)
        self._pinging = asyncio.create_task(self._ping(), name=f"navi-loan-ping {kernel_id[:8]}")

    async def _ping(self) -> None:
        with suppress(WebSocketClosedError):
            while True:
                await asyncio.sleep(PING)
                self.ping(b"")

    async def on_message(self, message: str | bytes) -> None:
        """One frame. tornado reads the next one when this is done."""
        self.settings["api_last_activity"] = utcnow()
        try:
            frame = load_json(message)
            if not isinstance(frame, dict):
                raise InvalidRequest("A frame is a JSON object.", field="body")
            if self._loan is None:
                self._loan = self.loans.open(
                    frame,
                    self,
                    kernel_id=self._kernel_id,
                    session_id=self._session_id,
                    key=self.kernel.key if self.kernel else None,
                )
            else:
                self._loan.take(frame)
        except ValueError:
            self.close(BAD_FRAME, "a frame is no JSON")
        except NaviError as error:
            self.close(BAD_FRAME, error.message[:100])
        if time.monotonic() - self._turn > TURN:
            # A flood is always ready to be read, and would starve everything else on the loop.
            await asyncio.sleep(0)
            self._turn = time.monotonic()

    def emit(self, frame: Mapping[str, Any]) -> None:
        """A frame for the kernel. Not awaited: it gets one request at a time, and again when it comes back."""
        with suppress(WebSocketClosedError):
            written = self.write_message(json.dumps(frame))
            written.add_done_callback(lambda future: future.cancelled() or future.exception())

    def hang_up(self, *, for_good: bool) -> None:
        """The loan is over, or has another socket."""
        self.close(OVER if for_good else 1001, "the loan is over")

    def on_close(self) -> None:
        """Either side closed the socket; the kernel in good order when its cell has ended."""
        super().on_close()
        if self._pinging is not None:
            self._pinging.cancel()
        if self._loan is not None:
            self._loan.detach(self, closed=self.close_code in (1000, 1001))
