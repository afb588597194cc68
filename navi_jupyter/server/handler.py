"""The base of all handlers: authentication, authorization, one shape for every error; the API, and its event streams.

Not responsible for what a route does (``rest``, ``websocket``). Imported at extension load: no pydantic.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import traceback
from collections.abc import Mapping
from contextlib import suppress
from http.client import responses
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin
from tornado.escape import utf8
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, stream_request_body

from .. import __version__
from ..errors import Forbidden, InvalidRequest, LimitReached, NaviError
from ..ports.tracing import caller_server, caller_trace
from ..text import read_traceparent
from .http import RESOURCE, Action, EventStream, HttpReply, Request
from .identity import LOCAL_USER, identifies_people, owner_of
from .kernel_caller import HEADER, LONGEST_SERVER, SERVER_HEADER, KernelCaller, read_caller
from .lifecycle import Lifecycle
from .transfers.event_stream import stream_events
from .transfers.request_body import RequestBody
from .transfers.unfinished import PATIENCE, Transfer

_STATUS_CODES: Mapping[int, str] = {
    400: "invalid_request",
    401: "forbidden",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    503: "not_ready",
}
"""The code for errors that Jupyter or tornado raise, by their status."""


_UNASSIGNED = (
    "Kernels have no access to Navi here: several people log in to this server, and it is not set whose they are. "
    "Use the chat, or ask the administrator to set NaviExtension.kernel_user."
)


def error_body(error: NaviError) -> dict[str, str]:
    """The contract's shape of an error."""
    body = {"message": error.message, "reason": responses.get(error.status, "Error"), "code": error.code}
    return body | ({"field": error.field} if error.field else {})


def internal_error(error: BaseException, log: logging.Logger, **context: object) -> NaviError:
    """The error for an unforeseen failure: the user gets an id, and the log has one line with the same id."""
    # The message itself may hold secrets or paths, so the client gets only the id.
    error_id = secrets.token_hex(4)
    place = next((f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)[-1:]), "?")
    details = " ".join(f"{key}={value!r}" for key, value in context.items())
    log.error("navi_internal_error id=%s error=%r at=%s %s", error_id, error, place, details)
    log.debug("navi_internal_error id=%s", error_id, exc_info=error)
    return NaviError(f"Something went wrong inside Navi. The server's log has more under the id {error_id}.")


if TYPE_CHECKING:
    # The mixin stands before Jupyter's classes in the bases; only the type checker needs to know that.
    class _Mixed(JupyterHandler): ...
else:
    _Mixed = object


class NaviHandler(ExtensionHandlerMixin, _Mixed):
    """Mixed into all handlers but the page.

    Every method is marked ``allow_unauthenticated``, because Jupyter would otherwise refuse the kernels' own token
    before it can be checked. So ``prepare`` refuses everyone who is not authenticated, also where Jupyter would not.
    """

    auth_resource = RESOURCE

    @property
    def lifecycle(self) -> Lifecycle:
        return cast("Lifecycle", self.settings["navi_lifecycle"])

    @property
    def owner(self) -> str:
        """Whose sessions and recalls this request can see. Only after ``prepare``."""
        if self._has_kernel_token:
            return self.lifecycle.kernel_token.user.username
        return owner_of(self.current_user, self.identity_provider)

    @property
    def _has_kernel_token(self) -> bool:
        return self.lifecycle.kernel_token.matches(self.request.headers)

    kernel: KernelCaller | None = None
    """Who sends the request with the kernels' token; None: the user's page or program. Only after ``prepare``."""

    body_has_come = False
    """Whether the request's body was received as a whole. Set by handlers that take one."""

    async def prepare(self) -> None:  # type: ignore[override]
        """Authenticate the request. Raises 403 when neither Jupyter nor the kernels' token knows the user."""
        await ensure_async(super().prepare())  # type: ignore[arg-type]
        if self._has_kernel_token:
            self.current_user = self.lifecycle.kernel_token.user
            if identifies_people(self.identity_provider) and self.current_user.username == LOCAL_USER:
                raise Forbidden(_UNASSIGNED)
        elif self.current_user is None and self.request.method != "OPTIONS":
            raise HTTPError(403, "Log in to this server, or send a token for it.")
        # Who says without that token that it is a kernel is believed: it may do less. The server of a user says so.
        if self._has_kernel_token or HEADER in self.request.headers:
            self.kernel = read_caller(self.request.headers.get(HEADER, ""), self.request.connection)
        self._note_server()
        caller_trace.set(read_traceparent(self.request.headers.get("traceparent")))  # of this request's task
        self.expect_body()

    def _note_server(self) -> None:
        """At a service for the users of a JupyterHub: through which of the user's servers the request comes."""
        name = unquote(self.request.headers.get(SERVER_HEADER, ""))
        if self.settings.get("navi_takes_links") and len(name) <= LONGEST_SERVER and name.isprintable():
            caller_server.set(name)

    def expect_body(self) -> None:
        """Called before the first byte of a body is read, once it is known who sends it. Here: none is wanted."""
        cast("Any", self.request.connection).set_body_timeout(PATIENCE)

    def data_received(self, chunk: bytes) -> None:
        """A part of the body. Dropped where none is wanted."""

    def check_xsrf_cookie(self) -> None:
        """Not needed with the kernels' token: a foreign page cannot know it, so the request cannot be forged."""
        if not self._has_kernel_token:
            super().check_xsrf_cookie()

    async def authorize(self, action: Action, resource: str = RESOURCE) -> None:
        """Ask Jupyter's authorizer. Raises Forbidden."""
        if not await ensure_async(self.authorizer.is_authorized(self, self.current_user, action, resource)):
            raise Forbidden(f"You are not allowed to {action} {resource} on this server.")

    # --- errors ------------------------------------------------------------------------------------------------------

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the contract's shape."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        self.set_header("Content-Type", "application/json")
        if not self.body_has_come:
            # tornado closes the connection then, also where there is no body. A proxy that does not know sends its next
            # request there, in vain.
            self.set_header("Connection", "close")
        _ = self.finish(json.dumps(self._body_of(status_code, error)))

    def _body_of(self, status_code: int, error: BaseException | None) -> dict[str, str]:
        if isinstance(error, NaviError):
            self.set_status(error.status)
            return error_body(error)
        if error is None or isinstance(error, HTTPError):
            reason = getattr(error, "reason", None) or responses.get(status_code, "Error")
            message = getattr(error, "log_message", None) or (reason if error is None else f"{reason}.")
            return {"message": message, "reason": reason, "code": _STATUS_CODES.get(status_code, "internal_error")}
        return error_body(internal_error(error, self.log, method=self.request.method, path=self.request.path))

    def _request_summary(self) -> str:
        """For the log: without the query, which may have a token."""
        return f"{self.request.method} {self.request.path} ({self.request.remote_ip})"

    def log_exception(self, *exc_info: Any) -> None:
        """Jupyter's own errors alone: a NaviError is an answer, and all others are logged by ``internal_error``."""
        if isinstance(exc_info[1], HTTPError):
            super().log_exception(*exc_info)


@stream_request_body  # so that ``prepare`` comes before the body: nothing is kept of somebody who is not known
class ApiHandler(NaviHandler, APIHandler):
    """``navi/api/…``: finds the operation in the table of routes, calls it, writes its reply."""

    _body: RequestBody | None = None
    _refusal: HTTPError | NaviError | None = None  # why the request is refused once its body has come

    def initialize(self, name: str) -> None:
        super().initialize(name)
        self.gone = asyncio.Event()  # set when the client has closed the connection

    def on_connection_close(self) -> None:
        self.gone.set()
        self._end_body()
        super().on_connection_close()

    def on_finish(self) -> None:
        self._end_body()
        super().on_finish()

    async def prepare(self) -> None:  # type: ignore[override]
        """Who is refused has the answer after the body, if that is short or none, and else at once, on a connection
        that is closed: what a proxy sends there meanwhile is lost, and the answer with it."""
        try:
            await super().prepare()
        except (HTTPError, NaviError) as error:
            if self._announced > LONGEST_DROPPED or "Transfer-Encoding" in self.request.headers:
                raise
            self._refusal = error
            NaviHandler.expect_body(self)

    @property
    def _announced(self) -> int:
        length = self.request.headers.get("Content-Length", "")
        return int(length) if length.isascii() and length.isdecimal() else 0  # tornado has checked it

    def expect_body(self) -> None:
        """Keep what comes, up to the limit of the operation."""
        if self.current_user is None:
            super().expect_body()
        elif "Content-Length" in self.request.headers or "Transfer-Encoding" in self.request.headers:
            unfinished = self.lifecycle.unfinished
            self._body = RequestBody(unfinished, self.owner, limit=self._body_limit(), refuse=self._refuse_body)

    def _body_limit(self) -> int:
        settings = self.lifecycle.settings
        if self.lifecycle.services is None:  # it is starting, and may be ready when the body has come
            return max(settings.max_attachment_bytes, settings.max_message_bytes)
        try:
            operation, _ = self.lifecycle.routes.find(self._method, self.path_args[0] or "")
        except NaviError:
            return 0  # answered when the body has come
        return settings.max_attachment_bytes if operation.upload else settings.max_message_bytes

    def data_received(self, chunk: bytes) -> None:
        """A part of the body."""
        if self._body is not None:
            self._body.add(chunk)

    def _refuse_body(self, error: NaviError) -> None:
        if not self._finished:
            self.send_error(error.status, exc_info=(type(error), error, None))

    def _end_body(self) -> None:
        if self._body is not None:
            self._body.end()

    @property
    def _track_activity(self) -> bool:  # type: ignore[override]
        """Reading does not keep an idle server alive, since an open page polls; changes do."""
        return self.request.method not in {"GET", "HEAD", "OPTIONS"}

    @allow_unauthenticated
    async def get(self, path: str | None) -> None:
        self.body_has_come = True
        if self._refusal is not None:
            raise self._refusal
        if self._body is not None:
            self._body.complete()
        await self._serve(path or "")

    # Which methods a path has is decided by the table of routes, not here.
    head = post = put = patch = delete = get

    async def _serve(self, path: str) -> None:
        # Health must answer at once, also while the start is waiting for something.
        if path == "health":
            services = self.lifecycle.services
            failure = None if services is None else await services.sessions.store.failure()
            if services is None or failure is not None:
                await self.authorize("read")
                await self._write_unhealthy(failure)
                return
        services = await self.lifecycle.ready()
        # Found before it is authorized: what is asked for (read, write, execute) depends on the operation.
        operation, parameters = self.lifecycle.routes.find(self._method, path)
        for resource in operation.resources:
            await self.authorize(operation.action, resource)
        reply = await operation.call(self._request(upload=operation.upload), services, parameters)
        await (self._stream(reply) if isinstance(reply, EventStream) else self._write(reply))

    @property
    def _method(self) -> str:
        return "GET" if self.request.method == "HEAD" else str(self.request.method)

    def _request(self, *, upload: bool) -> Request:
        settings = self.lifecycle.settings
        limit = settings.max_attachment_bytes if upload else settings.max_message_bytes
        body = b"" if self._body is None else self._body.content()
        if len(body) > limit:  # it came while the server was starting
            raise InvalidRequest(f"The body is larger than {limit} bytes.", field="body")
        return Request(
            owner=self.owner,
            body=body,
            content_type=self.request.headers.get("Content-Type", ""),
            accept=self.request.headers.get("Accept", ""),
            last_event_id=self.request.headers.get("Last-Event-ID"),
            idempotency_key=self.request.headers.get("Idempotency-Key"),
            query={name: self.get_query_argument(name) for name in self.request.query_arguments},
            kernel=self.kernel,
        )

    async def _stream(self, stream: EventStream) -> None:
        unfinished, owner = self.lifecycle.unfinished, self.owner
        try:
            unfinished.require_connection(owner)
        except LimitReached:
            await stream.pages.aclose()
            raise
        unfinished.connect(owner, self)
        try:
            await stream_events(self, stream, self.gone)
        finally:
            unfinished.disconnect(owner, self)

    async def _write(self, reply: HttpReply) -> None:
        self.set_status(reply.status)
        for name, value in reply.headers.items():
            self.set_header(name, value)
        if reply.filename:
            self.set_attachment_header(reply.filename)
        if reply.content is None:
            await self.finish()
        elif len(reply.content) < SMALL or self.request.method == "HEAD":
            await self.finish(reply.content, set_content_type=reply.content_type)
        else:
            await self._write_large(utf8(reply.content), reply.content_type)

    async def _write_large(self, content: bytes, content_type: str) -> None:
        """Piece by piece, as the client reads: tornado would keep a second copy for one that does not."""
        transfer = Transfer(self.lifecycle.unfinished, self.owner, self._cut)
        try:
            transfer.hold(len(content))
            self.set_header("Content-Type", content_type)
            self.set_header("Content-Length", str(len(content)))
            self.set_header("Etag", f'"{hashlib.sha256(content).hexdigest()}"')
            if self.check_etag_header():
                self.clear_header("Content-Length")
                self.set_status(304)
                await self.finish(set_content_type=content_type)
                return
            with suppress(StreamClosedError):
                for start in range(0, len(content), SMALL):
                    piece = content[start : start + SMALL]
                    self.write(piece)
                    await self.flush()
                    transfer.move(len(piece))
                await self.finish()
        finally:
            transfer.end()

    def _cut(self, _: NaviError) -> None:
        cast("Any", self.request.connection).close()

    async def _write_unhealthy(self, failure: NaviError | None) -> None:
        """``failure``: why a server that has started cannot save anything."""
        lifecycle = self.lifecycle
        state = "starting" if lifecycle.state == "ok" else lifecycle.state
        state = "failed" if failure is not None else state
        failure = failure or lifecycle.failure or lifecycle.obstacle
        self.set_status(503)
        body = {
            "status": state,
            "version": __version__,
            "message": failure.message if failure else f"Navi is {lifecycle.state}.",
            "reason": responses[503],
            "code": failure.code if failure else "not_ready",
        }
        await self.finish(json.dumps(body))


LONGEST_DROPPED = 2**16  # bytes of a body that are read of somebody who is refused
SMALL = 2**18  # bytes of an answer, or a piece of one, that is not counted
