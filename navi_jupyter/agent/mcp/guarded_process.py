"""A program of others as a child process of the process guard: started, its stderr kept, ended within bounds.

Not responsible for what goes through its pipes (``stdio``, ``agent.acp.program``).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from ...lease_file import CallMark
from . import process_guard

# Seconds from the end of input to the end of the process, before we kill the guard (and so the program).
EXIT_GRACE = process_guard.EOF_GRACE + process_guard.TERM_GRACE + 1.0
CHUNK = 64 * 1024  # bytes of one read


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


async def start(
    command: Sequence[str], *, env: Mapping[str, str], cwd: str | None, mark: CallMark | None = None
) -> asyncio.subprocess.Process:
    """Start a program under the guard, in this environment and with pipes. May raise OSError.

    With a ``mark`` it is ended also when this process may not act any more while it has a call.
    """
    lease = () if mark is None else ("--lease", mark.lease_path, str(mark.path))
    script = str(Path(process_guard.__file__))
    guard = (sys.executable, "-I", "-S", script, str(os.getpid()), *lease, *command)
    pipe = asyncio.subprocess.PIPE
    spawn = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *guard, stdin=pipe, stdout=pipe, stderr=pipe, env=env, cwd=cwd, start_new_session=True
        )
    )
    try:
        return await asyncio.shield(spawn)
    except asyncio.CancelledError:
        if not spawn.cancelled():
            await complete(end(await spawn))
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


async def record(stderr: asyncio.StreamReader, trace: Trace) -> None:
    """Keep the last lines of what a program writes there; reading on also keeps its pipe from being full."""
    rest = b""
    while chunk := await stderr.read(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[-1000:]
        for line in lines:
            trace.add(line)
    trace.add(rest)


async def wait_exit(process: asyncio.subprocess.Process, seconds: float | None) -> int | None:
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


async def end(process: asyncio.subprocess.Process) -> None:
    """Close its input, wait, and kill what does not end."""
    if process.stdin is not None:
        process.stdin.close()
    if await wait_exit(process, EXIT_GRACE) is None:
        with suppress(ProcessLookupError):
            process.kill()
        await wait_exit(process, 1.0)
        await asyncio.to_thread(end_session, process.pid)
    # asyncio keeps the pipes open while another process has their other end; there is no public way to close them.
    if (transport := getattr(process, "_transport", None)) is not None:
        transport.close()


def end_session(leader: int) -> None:
    """Kill all processes in the session of a guard that was itself killed."""
    for pid in psutil.pids():
        with suppress(OSError):
            if os.getsid(pid) == leader:
                os.kill(pid, signal.SIGKILL)
