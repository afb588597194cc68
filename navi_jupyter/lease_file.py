"""The file that shows other processes of this machine until when this server may act.

Kernels and MCP servers go on while it is stopped or cut off, and read there when to end what they do for it.
``<runtime dir>/navi-<pid>.lease``, readable by its owner alone: the time (``clock.boot_time``), the process id and the
machine, separated by blanks. What cannot read it, or is on another machine, is not ended by it. Not responsible for how
long the server may act (``orchestrator.upkeep.servers``); read by ``injected/execution_guard.py`` and, without its
package, by ``agent/mcp/process_guard.py``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from .clock import boot_time
from .log_setup import get_logger

log = get_logger("server")


class LeaseFile:
    """See the module. Without a folder there is no file, and nothing is ended by it."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / f"navi-{os.getpid()}.lease"
        self._until = float("-inf")
        self._marks = itertools.count()
        self._head = f"{os.getpid()} {machine()}"
        self._written = False

    @property
    def path(self) -> str | None:
        """Where it is; None while it was not written."""
        return str(self._path) if self._written else None

    def write(self, until: float) -> None:
        """The server may act until then. Replaced as a whole: a reader never sees half of it."""
        self._until = until
        if self._path is None:
            return
        beside = self._path.with_suffix(".lease.new")
        try:
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(handle, "w", encoding="ascii") as file:  # noqa: PTH123  the handle has the mode from the start
                file.write(f"{until:.3f} {self._head}\n")
            beside.replace(self._path)
            self._written = True
        except OSError as error:
            # What runs elsewhere for this server ends early then, which is the safe side.
            log.error("lease_file_not_written", path=str(self._path), error=str(error))

    @property
    def held(self) -> bool:
        """Whether the server may act now."""
        return boot_time() < self._until

    def call_mark(self) -> CallMark | None:
        """A mark for the calls of one other process; None while there is no file."""
        if self._path is None or not self._written:
            return None
        return CallMark(self, self._path.with_suffix(f".call{next(self._marks)}"))

    def remove(self) -> None:
        """The server stops: what it began elsewhere has ended."""
        self._written = False
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


class CallMark:
    """A file that is there while another process does something for this server.

    It stays when that was given up because the server may not act any more: what it was asked for may go on there.
    """

    def __init__(self, lease: LeaseFile, path: Path) -> None:
        self.path = path
        self.lease_path = lease.path or ""
        self._lease = lease
        self._calls = 0

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """While it is entered, the other process has a call."""
        self._calls += 1
        with contextlib.suppress(OSError):
            self.path.touch(mode=0o600)
        answered = False
        try:
            yield
            answered = True
        finally:
            self._calls -= 1
            if not self._calls and (answered or self._lease.held):
                self.remove()

    def remove(self) -> None:
        """The other process has nothing to do for this server, or is gone."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def machine() -> str:
    """This machine since its last start, as far as process ids and the clock mean the same on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return f"{os.uname().nodename}/0" if hasattr(os, "uname") else "-"
