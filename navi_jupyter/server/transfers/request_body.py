"""The body of one request while it arrives: kept up to its limit and within its user's room, and ended when it stalls.

Without this, tornado keeps whatever anybody sends, up to half a gigabyte a connection and for as long as it takes,
before a handler knows of the request. Not responsible for what a body means (``bodies``) or for who may send one
(``handler``). Imported at extension load: no pydantic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ...errors import InvalidRequest, LimitReached, NaviError
from .unfinished import Transfer, Unfinished

LINGER = 2.0
"""Seconds from a refusal for want of room to its answer. What comes meanwhile is read and dropped: a client that is
still sending when the connection ends would not get the answer."""


class RequestBody:
    """The body of one request, whose sender is known. To be ended by ``end``."""

    def __init__(self, unfinished: Unfinished, owner: str, *, limit: int, refuse: Callable[[NaviError], None]) -> None:
        """``refuse`` answers before the body is complete. ``limit`` is in bytes; beyond it, nothing is kept."""
        self._limit = limit
        self._refuse = refuse
        self._error: NaviError | None = None
        self._chunks = bytearray()
        self._transfer = Transfer(unfinished, owner, refuse)
        self._lingering: asyncio.TimerHandle | None = None

    def add(self, chunk: bytes) -> None:
        """The next part of it."""
        self._transfer.move(len(chunk))
        if self._error is not None:
            return
        if len(self._chunks) + len(chunk) > self._limit:
            self._drop(InvalidRequest(f"The body is larger than {self._limit} bytes.", field="body"))
            return
        try:
            self._transfer.hold(len(chunk))
        except LimitReached as error:
            self._drop(error)
            self._lingering = asyncio.get_running_loop().call_later(LINGER, self._refuse, error)
        else:
            self._chunks += chunk

    def _drop(self, error: NaviError) -> None:
        self._error = error
        self._chunks = bytearray()
        self._transfer.hold_only(0)

    def complete(self) -> None:
        """It has arrived as a whole. Its room is taken until ``end``."""
        self._transfer.complete()
        self._stop_lingering()

    def content(self) -> bytes:
        """All of it. Raises InvalidRequest when it was too large, LimitReached when there was no room for it."""
        if self._error is not None:
            raise self._error
        return bytes(self._chunks)

    def end(self) -> None:
        """The request is over."""
        self._stop_lingering()
        self._transfer.end()
        self._chunks = bytearray()

    def _stop_lingering(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
