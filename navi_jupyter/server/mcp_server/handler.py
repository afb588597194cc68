"""The route of the MCP server: who may come in, what is kept of a body, and the bytes that go out.

Two callers: an agent program with its run secret, which has the tools of the run that it works on and nothing else; and
a program of a user's, known by Jupyter's own authentication. The kernels' token is refused: a cell has ``%navi``.
Not responsible for the protocol (``endpoint``, ``protocol``). Imported at extension load: neither pydantic nor the SDK.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jupyter_server.auth import User
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import APIHandler
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, stream_request_body

from ...errors import KernelTokenScope, NaviError, NotFound
from ...input.json_input import load_json
from ..handler import NaviHandler
from ..transfers.request_body import RequestBody
from .offers import McpCaller

if TYPE_CHECKING:
    from ...ports.run_tools import RunTools


_UNKNOWN = "Send a token of this server: `Authorization: Bearer <token>`."
_NOT_FOR_KERNELS = "A kernel cannot use the MCP server. Use %navi, or a token of the server."
_BEARER = "bearer "
_PARSE_ERROR, _INVALID_REQUEST = -32700, -32600  # of JSON-RPC
_HELD = {"server", "date", "content-length", "transfer-encoding", "connection"}
"""Headers of an answer that are the web server's own."""


@stream_request_body  # so that ``prepare`` comes before the body: nothing is kept of a sender who is not known
class McpHandler(NaviHandler, APIHandler):
    """``navi/mcp``."""

    _body: RequestBody | None = None
    _run_tools: RunTools | None = None  # of the run secret that the request carries
    _gone: asyncio.Event | None = None  # set when the client has closed the connection, or has its answer

    async def prepare(self) -> None:  # type: ignore[override]
        """Find out who calls. Raises 403 for a wrong origin or host, 401 where that is not known."""
        # Also where a token is sent, which Jupyter would let in from any page: the protocol wants it so.
        if not self.check_origin():
            raise HTTPError(403, "Requests from pages of another origin are refused.")
        secret = self.request.headers.get("Authorization", "")
        services = self.lifecycle.services
        if services is not None and secret.lower().startswith(_BEARER):
            self._run_tools = services.run_tools.find(secret[len(_BEARER) :].strip())
        if self._run_tools is not None:
            await self._enter_program()
            return
        try:
            await super().prepare()
        except HTTPError as error:
            if error.status_code == 403 and self.current_user is None:
                raise HTTPError(401, _UNKNOWN) from None
            raise

    async def _enter_program(self) -> None:
        """An agent program's request: its secret is all that counts, so Jupyter's authentication is not asked."""
        if not self.check_host():
            raise HTTPError(403, "This name of the server is not known.")
        self.current_user = User(username="agent program")
        self.expect_body()

    def skip_check_origin(self) -> bool:
        return False

    def check_xsrf_cookie(self) -> None:
        """Not needed with a run secret, as with Jupyter's token: a foreign page cannot know it."""
        if self._run_tools is None:
            super().check_xsrf_cookie()

    def expect_body(self) -> None:
        """Keep what comes, up to the limit of a message."""
        if self.current_user is None:
            super().expect_body()
        elif "Content-Length" in self.request.headers or "Transfer-Encoding" in self.request.headers:
            owner = "" if self._run_tools is not None else self.owner
            limit = self.lifecycle.settings.max_message_bytes
            self._body = RequestBody(self.lifecycle.unfinished, owner, limit=limit, refuse=self._refuse_body)

    def data_received(self, chunk: bytes) -> None:
        """A part of the body."""
        if self._body is not None:
            self._body.add(chunk)

    def _refuse_body(self, error: NaviError) -> None:
        if not self._finished:
            self.send_error(error.status, exc_info=(type(error), error, None))

    def on_connection_close(self) -> None:
        self._leave()
        super().on_connection_close()

    def on_finish(self) -> None:
        self._leave()
        super().on_finish()

    def _leave(self) -> None:
        if self._gone is not None:
            self._gone.set()
        if self._body is not None:
            self._body.end()

    @property
    def _track_activity(self) -> bool:  # type: ignore[override]
        """An open stream does not keep an idle server alive; calls do."""
        return self.request.method == "POST"

    @allow_unauthenticated
    async def get(self) -> None:
        await self._serve()

    post = delete = get

    async def _serve(self) -> None:
        self._gone = asyncio.Event()
        self.body_has_come = True
        if self._body is not None:
            self._body.complete()
        services = await self.lifecycle.ready()
        body = b"" if self._body is None else self._body.content()
        try:
            message = load_json(body) if body else None
        except ValueError as error:
            await self._refuse_message(_PARSE_ERROR, f"The body is not JSON that can be read: {error}"[:300])
            return
        if isinstance(message, dict) and not isinstance(message.get("id", 0), str | int):
            # The SDK takes it for a notification, and what waits for an answer to it would wait for ever.
            await self._refuse_message(_INVALID_REQUEST, "The id of a request is a text or a whole number.")
            return
        if message is not None:  # what the SDK reads holds no half of a character
            body = json.dumps(message, ensure_ascii=False).encode()
        if self._run_tools is not None:
            caller = McpCaller(owner="", run_tools=self._run_tools)
        else:
            if not self.lifecycle.settings.mcp_server:
                raise NotFound("This server has no MCP server (setting mcp_server).")
            if self.kernel is not None:
                raise KernelTokenScope(_NOT_FOR_KERNELS)
            await self.authorize("execute" if _does(message) else "read")
            caller = McpCaller(owner=self.owner)
        unfinished = self.lifecycle.unfinished
        unfinished.require_connection(caller.owner)
        unfinished.connect(caller.owner, self)
        try:
            with suppress(StreamClosedError, OSError):
                await services.mcp_endpoint.serve(caller, self._scope(), body, self._gone, self.send_asgi)
                await self.finish(set_content_type=self._headers.get("Content-Type", "application/json"))
        finally:
            unfinished.disconnect(caller.owner, self)

    async def _refuse_message(self, code: int, message: str) -> None:
        """The protocol's own error for a body that is none of its messages."""
        self.set_status(400)
        await self.finish(json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Says how to authenticate where that is what is missing."""
        if status_code == 401:
            self.set_header("WWW-Authenticate", 'Bearer realm="Jupyter"')
        super().write_error(status_code, **kwargs)

    def _scope(self) -> dict[str, Any]:
        """The request as ASGI has it."""
        headers = [
            (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
            for name, value in self.request.headers.get_all()
            if name.lower() not in ("authorization", "cookie", "content-length", "transfer-encoding")
        ]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": self.request.method,
            "scheme": self.request.protocol,
            "path": self.request.path,
            "raw_path": self.request.path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": None,
            "server": None,
        }

    async def send_asgi(self, message: Mapping[str, Any]) -> None:
        """Write what the SDK sends. Raises OSError once the client is gone, as ASGI servers do."""
        try:
            if message["type"] == "http.response.start":
                self.set_status(message["status"])
                for name, value in message.get("headers", ()):
                    if name.decode("latin-1").lower() not in _HELD:
                        self.set_header(name.decode("latin-1"), value.decode("latin-1"))
                return
            if body := message.get("body", b""):
                self.write(body)
            if message.get("more_body"):
                await self.flush()
        except StreamClosedError as error:
            raise OSError("the client is gone") from error


def _does(message: Any) -> bool:
    """Whether a message makes the agent or a tool work: what Jupyter's authorizer calls ``execute``."""
    return isinstance(message, dict) and message.get("method") == "tools/call"
