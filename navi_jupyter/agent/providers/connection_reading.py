"""Reading of a provider's connection: all that has come as one piece, without waiting for it.

A provider sends a piece for each token: a chunk of HTTP, in a record of TLS. The HTTP client reads one after the other,
each on a way through its packages that takes longer than all else that a token costs, and waits for each by registering
with the event loop. Here, what has come is read at once from the socket that asyncio waits on, and h11 returns all
complete chunks together. Only where nothing has come, the client waits as usual.

The one module that touches private attributes of httpx2, httpcore2, h11, anyio and asyncio's transports. Where a
version does not have them, the client reads as it does by itself. Imports h11: only modules that the runner loads may
import this one.
"""

from __future__ import annotations

import re
import ssl
from asyncio.trsock import TransportSocket
from typing import Any

import h11
import httpcore2

# Bytes that are read at once. More would have the system map and unmap memory for each read, however little comes.
_READ = 2**16
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")
# From httpx2's stream of a response to httpcore2's connection.
_CONNECTION = ("_stream", "_httpcore_stream", "_stream", "_connection")


def read_whole(stream: Any) -> bool:
    """Have each piece of this stream of a response be all that has come. Whether it is: the rest stays as it was."""
    connection = stream
    for name in _CONNECTION:
        connection = getattr(connection, name, None)
    parser, network = getattr(connection, "_h11_state", None), getattr(connection, "_network_stream", None)
    reader = getattr(parser, "_reader", None)
    if parser is None or not callable(reader) or type(reader).__name__ != "ChunkedReader":
        return False
    if not isinstance(network, _ReadyStream):
        ready = _ReadyStream.of(network)
        if ready is None:
            return False
        connection._network_stream = ready  # noqa: SLF001
    parser._reader = _JoinedChunks(reader)  # noqa: SLF001
    return True


class _JoinedChunks:
    """A reader of h11 for a body in chunks that returns all complete ones as one. What comes after them waits."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._next: Any = None

    def __call__(self, buffer: Any) -> Any:
        waiting, self._next = self._next, None
        if isinstance(waiting, Exception):
            raise waiting
        if waiting is not None:
            return waiting
        pieces = _whole_chunks(self._reader, buffer)
        event: Any = None
        try:
            while isinstance(event := self._reader(buffer), h11.Data):
                pieces.append(bytes(event.data))
        except h11.ProtocolError as error:
            if not pieces:
                raise
            self._next = error
        else:
            if not pieces:
                return event
            self._next = event
        return h11.Data(data=b"".join(pieces))

    def read_eof(self) -> Any:
        """Called by h11 when the connection has ended and nothing waits."""
        return self._reader.read_eof()


def _whole_chunks(reader: Any, buffer: Any) -> list[bytes]:
    """Take from the buffer the chunks at its beginning that are whole and have a size and nothing else.

    h11 takes ten times as long for each. What it has begun, or what is anything else, is left to it.
    """
    pieces: list[bytes] = []
    data, begun = getattr(buffer, "_data", None), getattr(reader, "_bytes_to_discard", None)
    between = getattr(reader, "_bytes_in_chunk", None) == 0 and getattr(reader, "_reading_trailer", None) is False
    if not between or begun not in (b"", b"\r\n") or not isinstance(data, bytearray) or not hasattr(buffer, "_extract"):
        return pieces
    if not data.startswith(begun):
        return pieces
    at = len(begun)
    while (size := _CHUNK_SIZE.match(data, at)) is not None:
        start = size.end()
        end = start + int(size[1], 16)
        if end == start or data[end : end + 2] != b"\r\n":
            break
        pieces.append(bytes(data[start:end]))
        at = end + 2
    if pieces:
        buffer._extract(at)  # noqa: SLF001
        reader._bytes_to_discard = b""  # noqa: SLF001
    return pieces


class _ReadyStream:
    """A connection of httpcore2 whose reads return at once when something has come."""

    def __init__(self, stream: Any, transport: Any, protocol: Any, tls: Any) -> None:
        self._stream = stream
        self._transport = transport  # of asyncio; paused while nothing reads
        self._protocol = protocol
        self._socket = transport.get_extra_info("socket")._sock  # noqa: SLF001
        self._tls = tls  # None without

    @classmethod
    def of(cls, stream: Any) -> _ReadyStream | None:
        """The connection; None where it is of another kind."""
        outer = getattr(stream, "_stream", None)
        tls = outer if hasattr(outer, "_ssl_object") and hasattr(outer, "_read_bio") else None
        inner = outer if tls is None else getattr(tls, "transport_stream", None)
        transport, protocol = getattr(inner, "_transport", None), getattr(inner, "_protocol", None)
        if transport is None or not all(hasattr(protocol, one) for one in ("read_event", "read_queue", "is_at_eof")):
            return None
        raw = transport.get_extra_info("socket")
        if type(raw) is not TransportSocket or not hasattr(raw, "_sock"):
            return None  # another kind of event loop
        return cls(stream, transport, protocol, tls)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """See ``httpcore2.AsyncNetworkStream``."""
        if ready := self._ready_plain() if self._tls is None else self._ready_tls(self._tls):
            return ready
        return await self._stream.read(max_bytes, timeout)  # type: ignore[no-any-return]

    def _ready_plain(self) -> bytes:
        """What has come; empty also at the end, which the usual way finds."""
        protocol = self._protocol
        if protocol.read_event.is_set() or protocol.is_at_eof or self._transport.is_closing():
            return b""  # asyncio has read it, or knows the end
        try:
            return self._socket.recv(_READ)  # type: ignore[no-any-return]
        except BlockingIOError:
            return b""
        except OSError as error:
            raise httpcore2.ReadError(error) from error

    def _ready_tls(self, tls: Any) -> bytes:
        """What has come, decrypted. Errors of TLS come again in the usual way, after what is whole."""
        pieces: list[bytes] = []
        try:
            while piece := tls._ssl_object.read(_READ):  # noqa: SLF001
                pieces.append(piece)
        except ssl.SSLWantReadError:
            if received := self._ready_plain():
                tls._read_bio.write(received)  # noqa: SLF001
                return b"".join(pieces) + self._ready_tls(tls)
        except ssl.SSLError:
            pass
        return b"".join(pieces)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """See ``httpcore2.AsyncNetworkStream``."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """See ``httpcore2.AsyncNetworkStream``."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        """See ``httpcore2.AsyncNetworkStream``."""
        return self._stream.get_extra_info(info)
