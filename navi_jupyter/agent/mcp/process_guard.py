"""Runs one program so that no process of it outlives the parent: ``process_guard.py <parent pid> command …``.

With ``--lease <file> <mark>`` before the command it is killed, too, when the parent may not act any more by its lease's
file (``navi_jupyter/lease_file.py``) while the mark is there: while the program has a call of the parent.

A process of its own, because a parent that is killed with ``kill -9`` cannot clean up. The program gets the guard's
stdin, stdout and stderr; the guard copies nothing, and waits for the first of: the program ends; the parent ends; its
stdin is closed at the other end (the orderly stop); SIGTERM. Then the program and all its descendants are ended: by the
end of input, SIGTERM and SIGKILL. On Linux the guard adopts orphaned grandchildren, so that none escapes by forking
twice, and the kernel kills the program when the guard dies.

Run as a script with ``python -I -S``: standard library only, no import of this package, about 30 ms and 10 MB.
Not for Windows, where a job object does the same.
"""

import os
import select
import signal
import sys
import time

EOF_GRACE = 2.0  # seconds that a program gets to end by itself after its input was closed
TERM_GRACE = 0.5  # seconds between SIGTERM and SIGKILL
LAST_GRACE = 2.0  # seconds after which what SIGKILL does not end (a process stuck in the kernel) is left alone
POLL = 500  # milliseconds between checks of the parent's id: the only sign of its end where there is no pidfd
LEASE_POLL = 100  # milliseconds between looks at a lease that is over: it may be renewed, or a call be in progress
LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    import ctypes  # late: only Linux gets here

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _start(command: list[str]) -> int:
    """Fork and become the program, in a process group of its own."""
    if LINUX:
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        if LINUX:
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:  # it died before prctl took effect
                os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606  no shell is the point
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
    os._exit(127)


def _children() -> list[int]:
    """The guard's children, adopted ones included. Linux only; empty where the kernel has no such list."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123  pathlib costs 5 ms to import
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _kill(pid: int, number: int) -> None:
    """Signal a process; with a number below zero, the group of that process."""
    try:  # noqa: SIM105  contextlib costs time to import
        os.kill(pid, number)
    except OSError:
        pass  # it has ended, or the id belongs to another user's process by now


class ProcessGuard:
    """One program and its descendants."""

    def __init__(self, parent: int, command: list[str], lease: str = "", mark: str = "") -> None:
        self._parent = parent
        self._lease = lease
        self._mark = mark
        self._until = float("-inf") if lease else float("inf")
        self._status: int | None = None
        self._wake, wake_end = os.pipe()
        for end in (self._wake, wake_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_end)
        self._terminated = False
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._program = _start(command)
        # Only the program may have stdout open: the parent sees the end of the output when the program ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)

    def run(self) -> int:
        """Wait until all processes have ended; the exit code of the program."""
        event = self._wait()
        if event == "input":
            event = self._wait(EOF_GRACE, watch_input=False)
        if self._status is None and event not in ("ended", "lease"):
            _kill(-self._program, signal.SIGTERM)
            self._wait(TERM_GRACE, watch_input=False, watch_parent=False)
        self._sweep()
        if self._status is None:
            return 1
        code = os.waitstatus_to_exitcode(self._status)
        return code if code >= 0 else 128 - code

    def _on_term(self, *_: object) -> None:
        self._terminated = True

    def _wait(self, seconds: float = 1e9, *, watch_input: bool = True, watch_parent: bool = True) -> str:
        """The first: ``ended``, ``input``, ``parent``, ``term``, ``lease`` or, after so many seconds, ``late``."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if watch_input:
            poll.register(0, 0)  # only its hang-up: the data is for the program
        parent = self._watch_parent(poll) if watch_parent else -1
        until = time.monotonic() + seconds
        try:
            while True:
                if not self._reap() or self._status is not None:
                    return "ended"
                if self._terminated and watch_parent:
                    return "term"
                if watch_parent and os.getppid() != self._parent:
                    return "parent"
                left = until - time.monotonic()
                if left <= 0:
                    return "late"
                lease = self._lease_left()
                if lease <= 0 and os.path.exists(self._mark):  # noqa: PTH110
                    return "lease"
                lease = lease * 1000 + 1 if lease > 0 else LEASE_POLL
                for fd, _ in poll.poll(min(POLL, left * 1000 + 1, lease)):
                    if fd == self._wake:
                        os.read(self._wake, 4096)
                    elif fd == parent:
                        return "parent"
                    else:
                        return "input"
        finally:
            if parent >= 0:
                os.close(parent)

    def _lease_left(self) -> float:
        """Seconds for which the parent may act. The file is read when the time that is known has passed."""
        clock = getattr(time, "CLOCK_BOOTTIME", None)
        now = time.monotonic() if clock is None else time.clock_gettime(clock)
        if now >= self._until:
            try:
                with open(self._lease) as file:  # noqa: PTH123
                    self._until = float(file.read().split()[0])
            except (OSError, ValueError, IndexError):
                pass  # the parent stops in good order, and ends its programs by itself
        return self._until - now

    def _watch_parent(self, poll: "select.poll") -> int:
        if not hasattr(os, "pidfd_open"):
            return -1
        try:
            fd = os.pidfd_open(self._parent)
        except OSError:
            return -1  # an old kernel, a sandbox, or it has ended: getppid notices
        poll.register(fd, select.POLLIN)
        return fd

    def _reap(self) -> bool:
        """Collect the children that have ended; whether any is left."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._program:
                    self._status = status
        except ChildProcessError:
            return False

    def _sweep(self) -> None:
        """Kill until no child is left: the children of a killed process become the guard's own."""
        until = time.monotonic() + LAST_GRACE
        _kill(-self._program, signal.SIGKILL)
        while self._reap() and time.monotonic() < until:
            for pid in _children() if LINUX else ():
                _kill(pid, signal.SIGKILL)
            time.sleep(0.005)


if __name__ == "__main__":
    if sys.argv[2] == "--lease":
        sys.exit(ProcessGuard(int(sys.argv[1]), sys.argv[5:], sys.argv[3], sys.argv[4]).run())
    sys.exit(ProcessGuard(int(sys.argv[1]), sys.argv[2:]).run())
