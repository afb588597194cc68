"""The stdio transport: an MCP server as a child process of the process guard, JSON-RPC as lines through its pipes.

Our own instead of the SDK's, because of the guard, because a line here is bounded in size and read in linear time (the
SDK joins a 50 MB line piece by piece on the event loop that kernels use, too), and because lines that are not JSON are
not logged. On Windows the SDK's own is used: its job object does what the guard does elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage

from ...lease_file import CallMark
from . import messages
from .config import ServerConfig, environment
from .guarded_process import CHUNK, Trace, complete, end, end_session, record, start, wait_exit

MAX_MESSAGE = 16 * 1024 * 1024  # Bytes of one message. A longer one is dropped, and the call that it answers fails.
Inbox = MemoryObjectSendStream[SessionMessage | Exception]


@asynccontextmanager
async def connect(
    config: ServerConfig, trace: Trace, ended: Callable[[], None], mark: CallMark | None = None
) -> AsyncIterator[TransportStreams]:
    """Start the server, and end it on leaving. ``ended`` is called when it ends before that. May raise OSError.

    With a ``mark`` it is ended also when this process may not act any more while it has a call.
    """
    process = await start(config.command, env=environment(config.env), cwd=config.cwd, mark=mark)
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if stdin is None or stdout is None or stderr is None:
        raise OSError("no pipes")  # never: start asks for them
    inbox, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, outbox = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.create_task(_read(stdout, inbox), name="navi-mcp-stdout"),
        asyncio.create_task(_write(stdin, outbox, inbox), name="navi-mcp-stdin"),
        asyncio.create_task(record(stderr, trace), name="navi-mcp-stderr"),
        asyncio.create_task(_watch(process, inbox, trace, ended), name="navi-mcp-exit"),
    ]
    try:
        yield read_stream, write_stream
    finally:
        with anyio.CancelScope(shield=True):
            await complete(_finish(process, tasks))
            if mark is not None:
                mark.remove()
            for stream in (inbox, read_stream, write_stream, outbox):
                stream.close()


async def _finish(process: asyncio.subprocess.Process, tasks: Sequence[asyncio.Task[None]]) -> None:
    """End the process, then its tasks: those of stdout, stdin and stderr, and the watch, in this order."""
    if tasks[0].done():  # it ended by itself: wait for its last lines and its exit code
        await asyncio.wait(tasks[2:], timeout=0.5)
    tasks[3].cancel()
    await end(process)
    await asyncio.wait(tasks[2:3], timeout=0.2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _read(stdout: asyncio.StreamReader, inbox: Inbox) -> None:
    lines = Lines()
    try:
        async with inbox:
            while chunk := await stdout.read(CHUNK):
                for message in lines.feed(chunk):
                    await inbox.send(message)
    except (anyio.ClosedResourceError, anyio.BrokenResourceError):
        # The session is closed. The server must not block on a full pipe, or it would not see the end of its input.
        while await stdout.read(CHUNK):
            pass


class Lines:
    """Splits bytes into messages, in linear time and bounded memory."""

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._head = b""  # the beginning of a line that is too long: its `id` is there, or in the last bytes

    def feed(self, chunk: bytes) -> list[SessionMessage | Exception]:
        """The messages that this chunk completes; an exception for each line that is not a message."""
        *parts, rest = chunk.split(b"\n")
        found: list[SessionMessage | Exception] = []
        for part in parts:
            self._add(part)
            if self._size:
                found += self._finish()
        self._add(rest)
        return found

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        self._parts.append(part)
        if self._size > self._limit:
            kept = b"".join(self._parts)
            self._head = self._head or kept[:1000]
            self._parts = [kept[-1000:]]

    def _finish(self) -> list[SessionMessage | Exception]:
        line = b"".join(self._parts)
        head, size = self._head, self._size
        self._parts, self._size, self._head = [], 0, b""
        if head:
            why = f"the answer is too large ({size // 1_000_000} MB; at most {MAX_MESSAGE // 1_000_000} MB)"
            failed = messages.unreadable(head, line, why)
            return [SessionMessage(failed) if failed is not None else ValueError(why)]
        found = messages.read(line) if line.strip() else []
        return [one if isinstance(one, Exception) else SessionMessage(one) for one in found]


async def _write(stdin: asyncio.StreamWriter, outbox: MemoryObjectReceiveStream[SessionMessage], inbox: Inbox) -> None:
    try:
        async with outbox:
            async for item in outbox:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                stdin.write(text.encode() + b"\n")
                await stdin.drain()
    except OSError:
        inbox.close()  # the session sees the end, instead of waiting for answers to requests that were never read


async def _watch(process: asyncio.subprocess.Process, inbox: Inbox, trace: Trace, ended: Callable[[], None]) -> None:
    code = await wait_exit(process, None)
    if code is not None and code < 0:
        await asyncio.to_thread(end_session, process.pid)
    trace.exit_code = code
    inbox.close()
    ended()
