"""Processes of this machine, as far as they have to do with kernels: whether they live, and who has started them."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress


class LocalProcess:
    """A kernel's process on this machine."""

    def __init__(self, pid: int) -> None:
        import psutil  # late: a server without loans needs none of it

        self._gone: type[Exception] = psutil.Error
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.Error:
            self._process = None

    def lives(self) -> bool:
        """Whether it is still there. One that its parent has not waited for is not."""
        try:
            return self._process is not None and self._process.is_running() and self._process.status() != "zombie"
        except self._gone:
            return False

    async def lives_async(self) -> bool:
        return self.lives()


def has_connection(pid: int, port: int) -> bool:
    """Whether this process holds a TCP connection from that local port. Takes milliseconds: call it in a thread."""
    import psutil  # late: see above

    with suppress(psutil.Error):
        return any(getattr(each.laddr, "port", None) == port for each in psutil.Process(pid).net_connections("tcp"))
    return False


def lineage(pid: int) -> Collection[int]:
    """This process, those that it descends from, and the leader of its session, which an orphan keeps."""
    import psutil  # late: see above

    found = {pid}
    with suppress(psutil.Error):
        found.update(each.pid for each in psutil.Process(pid).parents())
    if hasattr(os, "getsid"):
        with suppress(OSError):
            found.add(os.getsid(pid))
    return found


def runs_script(pids: Collection[int], script: str) -> bool:
    """Whether one of these processes was started with that file. True where that cannot be seen of one that lives."""
    import psutil  # late: see above

    for pid in pids:
        try:
            if script in psutil.Process(pid).cmdline():
                return True
        except psutil.NoSuchProcess:
            continue
        except psutil.Error:
            return True
    return False


def started_by_kernel_of(pid: int, server: int) -> bool:
    """Whether its environment is that of a kernel which the server with that process id has started."""
    import psutil  # late: see above

    with suppress(psutil.Error):
        return psutil.Process(pid).environ().get("JPY_PARENT_PID") == str(server)
    return True
