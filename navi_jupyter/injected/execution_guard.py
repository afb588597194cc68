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
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

POLL = 0.1  # seconds between looks at the clock and at the server's process
AGAIN = 0.7  # seconds until code that still runs is interrupted again: it may have caught the first interrupt
TIMES = 40  # after which code that ignores every interrupt is left alone
REFUSED = "This code did not begin: the server that sent it may not act for its run any more."
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

    def wait(self, wake: int) -> bool:
        """Wait for a moment, or until the server's process ends; whether there is something to read at ``wake``."""
        poll = select.poll()
        for handle in (wake, self._process) if self._process >= 0 else (wake,):
            poll.register(handle, select.POLLIN)
        return any(handle == wake for handle, _ in poll.poll(POLL * 1000))

    def over(self) -> bool:
        """Whether the server may not act now."""
        if self.exited():
            return True
        if boot_time() >= self.until:
            try:
                self.until = self._read()[0]
            except (OSError, ValueError):
                return True
        return boot_time() >= self.until

    def exited(self) -> bool:
        """Whether the server's process has ended."""
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


class Programs:
    """The programs that were started since this was made, and what these have started; none of before.

    Jupyter's interrupt reaches those of the kernel's process group that do not ignore it. What has another group, what
    ignores it, and what a shell has started that it ends goes on, and acts.
    """

    def __init__(self) -> None:
        self._before = children() | _group()
        self._known: dict[int, str] = {}  # by process id, when it was started: ids are used again

    def send(self, number: int) -> bool:
        """Send all of them a signal; whether there are any."""
        for pid in (children() | _group() | set(self._known)) - self._before:
            self._add(pid)
        self._known = {pid: started for pid, started in self._known.items() if _started(pid) == started}
        for pid in self._known:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
        return bool(self._known)

    def _add(self, pid: int) -> None:
        if not (started := _started(pid)):
            return
        self._known[pid] = started
        for child in children(str(pid)):
            self._add(child)


class GuardedCode:
    """Code of the agent that runs on the main thread."""

    def __init__(self, frame: Any) -> None:
        """``frame``: the call that runs it, where there is no other notice of its end than an event of IPython."""
        self.over = threading.Event()
        self._frame = frame
        self.ended, self._end = os.pipe()  # has something to read once it is over
        self.refused = False  # it must not begin
        self.ending = False
        self.programs = Programs()
        try:
            self.loop: Any = asyncio.get_running_loop()
        except RuntimeError:
            self.loop = None

    def calls(self) -> bool:
        """Whether the caller is called by it: a cell within it (%%capture, get_ipython().run_cell) is no end of it."""
        frame: Any = sys._getframe(1)  # noqa: SLF001
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return self._frame is None or frame is not None

    def end(self) -> None:
        self._frame = None
        self.over.set()
        os.close(self._end)


class ExecutionGuard:
    """One for a kernel's process; :meth:`watch` is called again when the server has another file."""

    def __init__(self) -> None:
        self.path = ""
        self.current: GuardedCode | None = None
        self._before = signal.signal(SIGNAL, self._on_signal)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def execution(self) -> Iterator[None]:
        """While it is entered, code of the agent runs on this thread, which is the main one. Raises RuntimeError."""
        if self.current is not None or threading.current_thread() is not threading.main_thread():
            yield
            return
        execution = self.begin(None)
        try:
            if execution.refused:
                raise RuntimeError(REFUSED)
            yield
        finally:
            self.end()

    def begin(self, frame: Any) -> GuardedCode:
        """Code of the agent begins; it may have waited in the queue while the time of its server ran out."""
        if self.current is not None and self.current.calls():
            return self.current
        self.end()  # of code that was left without notice
        self.current = execution = GuardedCode(frame)
        try:
            lease = LeaseReader(self.path)
        except (OSError, ValueError):  # the server has stopped, or was killed
            execution.refused = True
            os.close(execution.ended)
            return execution
        execution.refused = lease.over()
        thread = threading.Thread(target=self._watch, args=(execution, lease), name="navi-guard", daemon=True)
        thread.start()
        return execution

    def end(self) -> None:
        """It has ended."""
        execution, self.current = self.current, None
        if execution is not None:
            execution.end()

    def cell_ended(self) -> None:
        """A cell has ended: that of the agent, or one within it."""
        if self.current is not None and not self.current.calls():
            self.end()

    def visit(self, tree: Any) -> Any:
        """Where IPython would transform a cell: the only place from which one can be kept from running."""
        if self.current is not None and self.current.refused:
            from IPython.core.error import InputRejected  # not at the top: this module is only ever source

            raise InputRejected(REFUSED)
        return tree

    def _watch(self, execution: GuardedCode, lease: LeaseReader) -> None:
        try:
            while not lease.wait(execution.ended):
                if lease.over():
                    self._interrupt(execution, lease)
                    return
        finally:
            lease.close()
            os.close(execution.ended)

    def _interrupt(self, execution: GuardedCode, lease: LeaseReader) -> None:
        ident = threading.main_thread().ident
        execution.ending = True
        for turn in range(TIMES):
            # The kernel ends within a second after its server, and could not end anything later.
            last = turn > 0 or lease.exited()
            programs = execution.programs.send(signal.SIGKILL if last else signal.SIGINT)
            if not execution.over.is_set():
                if ident is not None:
                    signal.pthread_kill(ident, SIGNAL)  # type: ignore[arg-type]
                if execution.loop is not None:
                    with contextlib.suppress(RuntimeError):
                        execution.loop.call_soon_threadsafe(lambda: None)  # its handler of SIGINT does not wake it
            elif last or not programs:
                return
            # Code that has ended leaves those that ignore an interrupt: they get the time that it would have got.
            if execution.over.wait(AGAIN):
                time.sleep(0 if last else AGAIN / 2)

    def _on_signal(self, number: int, frame: Any) -> None:
        # On the main thread, between two of its instructions: so what runs at this moment is what is interrupted.
        if self.current is not None and self.current.ending:
            interrupt = signal.getsignal(signal.SIGINT)
            if callable(interrupt):
                interrupt(signal.SIGINT, frame)
        elif callable(self._before):
            self._before(number, frame)


def children(pid: str = "self") -> set[int]:
    """The processes that a process, this one, has started. Empty where the system has no such list."""
    found: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:  # noqa: PTH123
                found.update(map(int, file.read().split()))
    except OSError:
        pass
    return found


def _stat(pid: int) -> list[str]:
    """What the system says of a process, from its state on; empty when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _started(pid: int) -> str:
    stat = _stat(pid)
    return stat[19] if stat and stat[0] not in "ZX" else ""


def _group() -> set[int]:
    """The processes of this one's group, where it is its own: also those whose parents have ended."""
    own = os.getpid()
    if os.getpgrp() != own or not os.path.isdir("/proc/self"):  # noqa: PTH112
        return set()
    found: set[int] = set()
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):  # noqa: PTH208
        with contextlib.suppress(OSError):
            if pid != own and os.getpgid(pid) == own:
                found.add(pid)
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
            made.begin(sys._getframe(2))  # noqa: SLF001  that of run_cell_async, which triggers the event

    shell.events.register("pre_execute", began)
    shell.events.register("post_execute", made.cell_ended)
    shell.ast_transformers.append(made)
    return True
