"""The stdio transport: an MCP server as a child process of the process guard, JSON-RPC as lines through its pipes.

Our own instead of the SDK's, because of the guard, because a line here is bounded in size and read in linear time (the
SDK joins a 50 MB line piece by piece on the event loop that kernels use, too), and because lines that are not JSON are
not logged. On Windows the SDK's own is used: its job object does what the guard does elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import psutil
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage

from ...lease_file import CallMark
from . import messages, process_guard
from .config import ServerConfig, environment

MAX_MESSAGE = 16 * 1024 * 1024  # Bytes of one message. A longer one is dropped, and the call that it answers fails.
# Seconds from the end of input to the end of the process, before we kill the guard (and so the server).
EXIT_GRACE = process_guard.EOF_GRACE + process_guard.TERM_GRACE + 1.0
Inbox = MemoryObjectSendStream[SessionMessage | Exception]
_CHUNK = 64 * 1024


class Trace:
    """For a message about a server's failure: the last lines of its stderr and its exit code, or its HTTP answer."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=20)
        self.exit_code: int | None = None  # set when it ended by itself
        self.answered = ""  # the HTTP status of its last answer, if that was an error

    @property
    def tail(self) -> str:
        return "\n".join(self._lines)[-2000:]

    def add(self, line: bytes) -> None:
        if text := line.decode("utf-8", "replace").rstrip()[:500]:
            self._lines.append(text)


@asynccontextmanager
async def connect(
    config: ServerConfig, trace: Trace, ended: Callable[[], None], mark: CallMark | None = None
) -> AsyncIterator[TransportStreams]:
    """Start the server, and end it on leaving. ``ended`` is called when it ends before that. May raise OSError.

    With a ``mark`` it is ended also when this process may not act any more while it has a call.
    """
    process = await _start(config, mark)
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if stdin is None or stdout is None or stderr is None:
        raise OSError("no pipes")  # never: _start asks for them
    inbox, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, outbox = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [
        asyncio.create_task(_read(stdout, inbox), name="navi-mcp-stdout"),
        asyncio.create_task(_write(stdin, outbox, inbox), name="navi-mcp-stdin"),
        asyncio.create_task(_record(stderr, trace), name="navi-mcp-stderr"),
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


async def _start(config: ServerConfig, mark: CallMark | None) -> asyncio.subprocess.Process:
    lease = () if mark is None else ("--lease", mark.lease_path, str(mark.path))
    script = str(Path(process_guard.__file__))
    guard = (sys.executable, "-I", "-S", script, str(os.getpid()), *lease, *config.command)
    pipe, env = asyncio.subprocess.PIPE, environment(config.env)
    spawn = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *guard, stdin=pipe, stdout=pipe, stderr=pipe, env=env, cwd=config.cwd, start_new_session=True
        )
    )
    try:
        return await asyncio.shield(spawn)
    except asyncio.CancelledError:
        if not spawn.cancelled():
            await complete(_end(await spawn))
        raise


async def complete(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work`` to its end although this task is cancelled meanwhile. ``work`` bounds its own time."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


async def _finish(process: asyncio.subprocess.Process, tasks: Sequence[asyncio.Task[None]]) -> None:
    """End the process, then its tasks: those of stdout, stdin and stderr, and the watch, in this order."""
    if tasks[0].done():  # it ended by itself: wait for its last lines and its exit code
        await asyncio.wait(tasks[2:], timeout=0.5)
    tasks[3].cancel()
    await _end(process)
    await asyncio.wait(tasks[2:3], timeout=0.2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _read(stdout: asyncio.StreamReader, inbox: Inbox) -> None:
    lines = Lines()
    try:
        async with inbox:
            while chunk := await stdout.read(_CHUNK):
                for message in lines.feed(chunk):
                    await inbox.send(message)
    except (anyio.ClosedResourceError, anyio.BrokenResourceError):
        # The session is closed. The server must not block on a full pipe, or it would not see the end of its input.
        while await stdout.read(_CHUNK):
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
        *ends, rest = chunk.split(b"\n")
        found: list[SessionMessage | Exception] = []
        for end in ends:
            self._add(end)
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


async def _record(stderr: asyncio.StreamReader, trace: Trace) -> None:
    rest = b""
    while chunk := await stderr.read(_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[-1000:]
        for line in lines:
            trace.add(line)
    trace.add(rest)


async def _watch(process: asyncio.subprocess.Process, inbox: Inbox, trace: Trace, ended: Callable[[], None]) -> None:
    code = await _wait(process, None)
    if code is not None and code < 0:
        await asyncio.to_thread(_end_session, process.pid)
    trace.exit_code = code
    inbox.close()
    ended()


async def _wait(process: asyncio.subprocess.Process, seconds: float | None) -> int | None:
    """Its exit code (below zero: a signal); None when it takes longer."""
    # asyncio's wait() also waits for the ends of the pipes, which a surviving child may hold: so poll the code, too.
    ended = asyncio.create_task(process.wait())
    loop = asyncio.get_running_loop()
    until = None if seconds is None else loop.time() + seconds
    try:
        while process.returncode is None and (until is None or loop.time() < until):
            await asyncio.wait({ended}, timeout=1.0 if until is None else 0.05)
    finally:
        ended.cancel()
    return process.returncode


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close its input, wait, and kill what does not end."""
    if process.stdin is not None:
        process.stdin.close()
    if await _wait(process, EXIT_GRACE) is None:
        with suppress(ProcessLookupError):
            process.kill()
        await _wait(process, 1.0)
        await asyncio.to_thread(_end_session, process.pid)
    # asyncio keeps the pipes open while another process has their other end; there is no public way to close them.
    if (transport := getattr(process, "_transport", None)) is not None:
        transport.close()


def _end_session(leader: int) -> None:
    """Kill all processes in the session of a guard that was itself killed."""
    for pid in psutil.pids():
        with suppress(OSError):
            if os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)
