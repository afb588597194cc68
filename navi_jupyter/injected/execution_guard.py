"""Ends code of an agent in this kernel when its server may not act for it any more; sent there as source.

The server writes until when it may into a file (``navi_jupyter/lease_file.py``), again and again while it can. Stopped,
cut off from its database or killed it cannot, and its run may be another server's by then; so the kernel itself looks.
What is interrupted is the code of the agent that runs at that moment, in the way of Jupyter's interrupt, and nothing
else. A kernel that is lent is looked after by ``kernel/lending``, with the same :class:`LeaseReader`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

POLL = 0.1  # seconds between looks at the clock and at the server's process
AGAIN = 0.7  # seconds until code that still runs is interrupted again: it may have caught the first interrupt
TIMES = 40  # after which code that ignores every interrupt is left alone
SIGNAL = getattr(signal, "SIGURG", None)  # Ignored by default, and used by nearly nothing else. None on Windows.


def machine() -> str:
    """As ``navi_jupyter.lease_file.machine``."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123
            return f"{file.read().strip()}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116
    except OSError:
        return f"{os.uname().nodename}/0"


def boot_time() -> float:
    """As ``navi_jupyter.clock.boot_time``."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class LeaseReader:
    """The server's lease, as its file has it. A file that is gone counts as a lease that is over."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.until, self.pid, self.machine = self._read()
        self._process = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else -1

    def _read(self) -> tuple[float, int, str]:
        with open(self.path) as file:  # noqa: PTH123
            until, pid, machine_ = file.read().split()
        return float(until), int(pid), machine_

    def over(self) -> bool:
        """Whether the server may not act now."""
        if self._exited():
            return True
        if boot_time() >= self.until:
            try:
                self.until = self._read()[0]
            except (OSError, ValueError):
                return True
        return boot_time() >= self.until

    def _exited(self) -> bool:
        if self._process >= 0:
            poll = select.poll()
            poll.register(self._process, select.POLLIN)
            return bool(poll.poll(0))
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        if self._process >= 0:
            os.close(self._process)
            self._process = -1


class GuardedCode:
    """Code of the agent that runs on the main thread."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.ending = False
        self.children = children()
        try:
            self.loop: Any = asyncio.get_running_loop()
        except RuntimeError:
            self.loop = None


class ExecutionGuard:
    """One for a kernel's process; :meth:`watch` is called again when the server has another file."""

    def __init__(self) -> None:
        self.path = ""
        self.current: GuardedCode | None = None
        self._before = signal.signal(SIGNAL, self._on_signal)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def execution(self) -> Iterator[None]:
        """While it is entered, code of the agent runs on this thread, which is the main one."""
        if self.current is not None or threading.current_thread() is not threading.main_thread():
            yield
            return
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        self.current = execution = GuardedCode()
        threading.Thread(target=self._watch, args=(execution,), name="navi-guard", daemon=True).start()

    def end(self) -> None:
        execution, self.current = self.current, None
        if execution is not None:
            execution.over.set()

    def _watch(self, execution: GuardedCode) -> None:
        try:
            lease = LeaseReader(self.path)
        except (OSError, ValueError):
            return  # removed by a server that has stopped in good order: it has ended what it began
        try:
            while not execution.over.wait(POLL):
                if lease.over():
                    self._interrupt(execution)
                    return
        finally:
            lease.close()

    def _interrupt(self, execution: GuardedCode) -> None:
        ident = threading.main_thread().ident
        execution.ending = True
        for turn in range(TIMES):
            # Programs that the code has started do not get the signal of the main thread.
            for pid in children() - execution.children:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGINT if turn < 2 else signal.SIGKILL)
            if ident is not None:
                signal.pthread_kill(ident, SIGNAL)  # type: ignore[arg-type]
            if execution.loop is not None:
                with contextlib.suppress(RuntimeError):
                    execution.loop.call_soon_threadsafe(lambda: None)  # its handler of SIGINT does not wake it
            if execution.over.wait(AGAIN):
                return

    def _on_signal(self, number: int, frame: Any) -> None:
        # On the main thread, between two of its instructions: so what runs at this moment is what is interrupted.
        if self.current is not None and self.current.ending:
            interrupt = signal.getsignal(signal.SIGINT)
            if callable(interrupt):
                interrupt(signal.SIGINT, frame)
        elif callable(self._before):
            self._before(number, frame)


def children() -> set[int]:
    """The processes that this one has started. Empty where the system has no such list."""
    found: set[int] = set()
    try:
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208
            with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/children") as file:  # noqa: PTH123
                found.update(map(int, file.read().split()))
    except OSError:
        pass
    return found


def guard(path: str, user: str) -> bool:
    """Guard what the agent, whose requests name this ``user``, executes from now on. False where that cannot be."""
    from IPython import get_ipython  # not at the top: this module is only ever source

    shell: Any = get_ipython()
    if SIGNAL is None or threading.current_thread() is not threading.main_thread():
        return False
    try:
        lease = LeaseReader(path)
    except (OSError, ValueError):
        return False
    lease.close()
    if lease.machine != machine():
        return False
    known = shell.__dict__.get("_navi_guard")
    if known is not None:
        known.path = path
        return True
    made = shell.__dict__["_navi_guard"] = ExecutionGuard()
    made.path = path

    def began() -> None:
        header = (shell.parent_header or {}).get("header") or {}
        if header.get("username") == user and threading.current_thread() is threading.main_thread():
            made.begin()

    shell.events.register("pre_execute", began)
    shell.events.register("post_execute", made.end)
    return True
