"""The WebSocket protocol of tornado, with bounds for messages that are not complete.

tornado bounds one message, by its size. It keeps the beginning of a message for as long as the socket lives, of as many
sockets as there are. Here what has arrived is counted while it arrives, and a message that does not go on ends its
socket. To send, tornado makes a frame, two futures and a task for each socket and message; ``PageWriter`` does not.
Not responsible for what the bounds are (``unfinished``). Imported at extension load: no pydantic.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler, WebSocketProtocol13

from ...errors import LimitReached, NaviError
from .unfinished import Transfer, Unfinished

if TYPE_CHECKING:
    from ...orchestrator.followers import Page

STALLED = 1008  # close code: a message did not go on
TOO_MUCH = 1009  # close code: what the user's sockets hold is too much
_PIECE = 65536  # bytes that are read at once, as tornado's streams do


class BoundedProtocol(WebSocketProtocol13):
    """One socket of ``owner``. A message lasts from its first byte until the handler is done with it.

    Overrides two methods of tornado's that have no public names; ``tests/e2e/test_unfinished_input.py`` fails if
    another version calls them otherwise.
    """

    def __init__(self, base: WebSocketProtocol13, unfinished: Unfinished, owner: str) -> None:
        """``base`` has the handler and its parameters, and is not used itself."""
        super().__init__(base.handler, mask_outgoing=False, params=base.params)
        self._unfinished = unfinished
        self._owner = owner
        self._message: Transfer | None = None
        self._refused = False

    async def _read_bytes(self, n: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < n:
            piece = await self.stream.read_bytes(min(n - len(pieces), _PIECE), partial=True)
            self._note_life()
            if self._refused:
                await self._drain()
            if self._message is None:
                self._message = Transfer(self._unfinished, self._owner, self._stall)
            self._message.move(len(piece))
            try:
                self._message.hold(len(piece))
            except LimitReached as error:
                pieces.clear()
                self._fragmented_message_buffer = None
                self._end_message()
                self._refuse(TOO_MUCH, error)
                await self._drain()
            pieces += piece
        self._wire_bytes_in += n
        return bytes(pieces)

    async def _receive_frame(self) -> None:
        try:
            await super()._receive_frame()
        except BaseException:
            self._end_message()
            raise
        begun = self._fragmented_message_buffer
        if begun is None or self.client_terminated:
            self._end_message()
        elif self._message is not None:
            self._message.hold_only(len(begun))

    def _handle_message(self, opcode: int, data: bytes) -> Any:
        # A handler may take long, for which the client can do nothing; frames of control come within a message.
        if self._message is not None:
            if opcode & 8:
                self._message.move(-len(data))  # pings are no progress
            else:
                self._message.complete()
        return super()._handle_message(opcode, data)

    def _note_life(self) -> None:
        # A client in the middle of a large frame cannot answer pings: what arrives is a sign of life as good as that.
        self._received_pong = True  # tornado 6.5
        self.last_pong = time.time()  # before

    def _stall(self, error: NaviError) -> None:
        self._refuse(STALLED, error)

    def _refuse(self, code: int, error: NaviError) -> None:
        self._refused = True
        self.close(code, error.message[:120])

    async def _drain(self) -> None:
        """Read and drop what comes until the connection is closed; ``close`` sees to that after five seconds.

        The client would not get the close code if the connection ended while something of it had not been read.
        Raises StreamClosedError.
        """
        while True:
            await self.stream.read_bytes(_PIECE, partial=True)
            await asyncio.sleep(0.001)  # a client that sends without end must not keep the loop

    def _end_message(self) -> None:
        if self._message is not None:
            self._message.end()
            self._message = None


class PageWriter:
    """Writes pages to one socket: their frames straight to its stream, where that can be done.

    That takes what tornado documents for streams (``write``, ``writing``, ``write_to_fd``), and of the protocol its
    ``stream`` and that it neither masks nor compresses. Where another version has that otherwise, pages are written as
    any message is: slower, the same bytes.
    """

    def __init__(self, handler: WebSocketHandler) -> None:
        """``handler`` is open."""
        self._handler = handler
        self._stream = _plain_stream(handler.ws_connection)

    def write(self, page: Page) -> asyncio.Future[None] | None:
        """None: it has left. Else done when it has, with StreamClosedError or WebSocketClosedError when it cannot.

        Raises WebSocketClosedError.
        """
        connection, stream = self._handler.ws_connection, self._stream
        if stream is None:
            return self._handler.write_message(page.text, binary=False)
        if connection is None or connection.is_closing():
            raise WebSocketClosedError
        frame, sent = page.frame, 0
        if not stream.writing():
            try:
                sent = stream.write_to_fd(memoryview(frame))
            except OSError:
                sent = 0  # no room now, or broken: ``write`` finds that, too, and closes the stream then
            if sent == len(frame):
                return None
        try:
            return stream.write(memoryview(frame)[sent:])
        except StreamClosedError:
            raise WebSocketClosedError from None


def _plain_stream(connection: object) -> IOStream | None:
    """The stream of a connection to which frames can be written as they are; None when that is not certain."""
    stream = getattr(connection, "stream", None)
    plain = (
        isinstance(stream, IOStream)
        and all(callable(getattr(stream, name, None)) for name in ("write", "writing", "write_to_fd"))
        and getattr(connection, "mask_outgoing", True) is False
        and getattr(connection, "_compressor", False) is None
    )
    return stream if plain else None
