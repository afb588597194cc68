"""The WebSocket ``bench`` of the service: the link that a user's server opens. Imported at extension load: no pydantic.

Its first message is ``{"hello": {"bench", "server", "version", "received", "attached"}}``, the answer ``{"welcome":
{"process", "processes", "duplicate"?, "resumes"?, "received"?}}``; then the messages of ``channel``.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from jupyter_server._tz import utcnow
from jupyter_server.auth.decorator import allow_unauthenticated
from tornado.websocket import WebSocketClosedError

from ...errors import Forbidden, LimitReached, NaviError, NotFound
from ..http import check_query
from ..transfers.unfinished import LARGEST_MESSAGE
from ..websocket import BAD_FRAME, SocketHandler

if TYPE_CHECKING:
    from .channel import Channel

HELLO_WITHIN = 10.0  # seconds
AROUND = 1024  # bytes that a message takes besides its text while it is not sent: a task, futures


class BenchHandler(SocketHandler):
    """``bench``. Only for users' servers; a kernel may not say what a user's server is."""

    ping_interval = 0  # the channel has messages of its own that show whether the other side is there

    _channel: Channel | None = None

    @property
    def max_message_size(self) -> int:
        return LARGEST_MESSAGE

    @allow_unauthenticated
    async def get(self) -> None:
        check_query(self.request.query_arguments, [])
        await self._refuse("")
        await super().get()

    async def _require(self, session_id: str) -> None:  # noqa: ARG002 - it is of no session
        if self._services.links is None:
            raise NotFound("This server has its own kernels, notebooks and files: it takes no links.")
        if self.kernel is not None:
            raise Forbidden("A kernel lends itself while a cell waits; it is no server.")

    async def open(self) -> None:
        """Wait for the first message. Not among the lifecycle's sockets: runs that are stopped still need it."""
        self._connect()
        asyncio.get_running_loop().call_later(HELLO_WITHIN, self._end_silent)

    def _end_silent(self) -> None:
        if self._channel is None:
            self.close(BAD_FRAME, "no hello came")

    async def on_message(self, message: str | bytes) -> None:
        """One message of the server's."""
        self.settings["api_last_activity"] = utcnow()
        try:
            text = message if isinstance(message, str) else message.decode()
            if self._channel is not None:
                self._channel.take(self, text)
            else:
                self._greet(text)
        except ValueError as error:
            self.close(BAD_FRAME, str(error)[:100])
        except NaviError as error:
            self.close(BAD_FRAME, error.message[:100])

    def _greet(self, text: str) -> None:
        links = self._services.links
        first = json.loads(text)
        hello = first.get("hello") if isinstance(first, dict) else None
        if links is None or not isinstance(hello, dict):
            raise ValueError("the first message is a hello")
        self._channel = links.open(hello, self, owner=self.owner)

    def emit(self, text: str) -> None:
        """A message for the server. Not awaited: the channel keeps what is not confirmed. A server that does not read,
        whatever it confirms, has its link ended."""
        owner, size, unfinished = self.owner, len(text) + AROUND, self.lifecycle.unfinished
        try:
            unfinished.take(owner, size)
        except LimitReached:
            if self._channel is not None:
                # Not at once: the channel may be in the middle of something.
                asyncio.get_running_loop().call_soon(self._channel.end, "the server does not read what it is sent")
            return
        try:
            written = self.write_message(text)
        except WebSocketClosedError:
            unfinished.give_back(owner, size)
            return

        def left(future: asyncio.Future[None]) -> None:
            unfinished.give_back(owner, size)
            _ = future.cancelled() or future.exception()

        written.add_done_callback(left)

    def hang_up(self, reason: str) -> None:
        """It is used no more."""
        self.close(1001, reason[:100])

    def on_close(self) -> None:
        """Either side closed the socket."""
        super().on_close()
        if self._channel is not None:
            self._channel.detach(self)
