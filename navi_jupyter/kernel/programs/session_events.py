"""A session's events for a program: iterated over from any thread and any event loop.

The connection lives on the io thread. Not responsible for reconnecting (``client``) or for what the events mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Self, TypeVar

from ..client.client import Envelope
from ..client.io_thread import io_thread
from ..errors import KernelError

T = TypeVar("T")


async def on_io(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` on the io thread, where all connections live; cancelled with its caller, whose loop is any."""
    thread = io_thread()
    return await work if thread.current else await asyncio.wrap_future(thread.submit(work))


class SessionEvents:
    """Envelopes (docs/protocol.md), in order, each once, across reconnects.

    Raises Unreachable when there was no server for two minutes, Refused when the session is not there any more. By one
    task at a time.
    """

    def __init__(self, pages: AsyncGenerator[list[Envelope], None], after: int | None) -> None:
        """``pages``: frame by frame, as the client has them."""
        self._pages = pages
        self.cursor = after
        """``seq`` of the event that was read last: a program that starts again goes on after it."""
        self._pending: Future[list[Envelope] | None] | None = None
        self._ready: list[Envelope] = []
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Envelope:
        """The next event. A wait that is cancelled, or has a timeout, loses none."""
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            if self._pending is None:
                self._pending = io_thread().submit(self._next_page())
            # Shielded: a read that is cancelled half-way would end the generator, and with it the events.
            page = await asyncio.shield(asyncio.wrap_future(self._pending))
            self._pending = None
            if page is None:
                self._over = True
            else:
                self._ready += [envelope for envelope in page if self._concerns(envelope)]
        envelope = self._ready.pop(0)
        self.cursor = envelope["seq"]
        return envelope

    async def _next_page(self) -> list[Envelope] | None:
        return await anext(self._pages, None)

    def _concerns(self, envelope: Envelope) -> bool:  # noqa: ARG002 - of what is iterated over; here all
        return True

    async def close(self) -> None:
        """Read no more, and close the connection. Nothing is stopped by that."""
        self._over = True
        self._ready.clear()
        pending, self._pending = self._pending, None
        await on_io(self._close(pending))

    async def _close(self, pending: Future[list[Envelope] | None] | None) -> None:
        if pending is not None:
            pending.cancel()
            # It is cancelled in the next turn of this loop; until then its generator cannot be closed.
            for _ in range(3):
                await asyncio.sleep(0)
        with suppress(RuntimeError, KernelError):
            await self._pages.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
