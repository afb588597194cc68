"""A TCP proxy in front of a server: connections that are cut, held up, or cut just before an answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Literal


class CutProxy:
    """Passes bytes on, both ways. Used on one event loop."""

    def __init__(self) -> None:
        self.port = 0
        self.refuses = False
        self.silent = False  # nothing is passed on any more, and nothing is closed: as a network that is gone
        self.loses: Callable[[bytes], Literal["nothing", "statement", "answer"]] = lambda _: "nothing"
        """Of what a client has sent: what the connection is cut before, that the server gets it or the client its
        answer."""
        self.delay = 0.0  # seconds that each answer takes longer
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def to(self, port: int) -> AsyncIterator[CutProxy]:
        """In front of a port of this machine."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            try:
                if not self.refuses:
                    await self._pass_on(reader, writer, port)
            except OSError:
                pass
            finally:
                self._connections.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def cut(self) -> None:
        """All connections that there are."""
        for task in self._connections:
            task.cancel()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        to_server = await asyncio.open_connection("127.0.0.1", port)
        loses = False

        async def forward() -> None:
            nonlocal loses
            while data := await reader.read(65536):
                await self._while_silent()
                lost = self.loses(data)
                if lost == "statement":
                    return
                loses = loses or lost == "answer"
                to_server[1].write(data)
                await to_server[1].drain()

        async def back() -> None:
            while data := await to_server[0].read(65536):
                await self._while_silent()
                if loses:
                    return
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()

        ways = [asyncio.create_task(forward()), asyncio.create_task(back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            with contextlib.suppress(OSError):
                to_server[1].transport.abort()

    async def _while_silent(self) -> None:
        while self.silent:  # noqa: ASYNC110 - a test sets and clears it
            await asyncio.sleep(0.01)


@contextmanager
def proxied(port: int) -> Iterator[CutProxy]:
    """A proxy in front of a port, on an event loop in a thread of its own."""
    proxy, ready, over = CutProxy(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def work() -> None:
        async with proxy.to(port):
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(work()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
