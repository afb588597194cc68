"""A private PostgreSQL for tests, started from the installed programs, with a folder and a port of its own.

It ends with the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.database import URL

_ACCOUNT = "postgres" if sys.platform != "win32" and os.geteuid() == 0 else None  # the server refuses to be root
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_SETTINGS = {
    "max_connections": "300",
    "shared_buffers": "64MB",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "warning",
    "autovacuum_naptime": "10s",
}


def find_programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres``, of the newest version; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).resolve().parent


class PrivatePostgres:
    """A server, made and started; ended by :meth:`remove`."""

    def __init__(self, programs: Path, *, durable: bool = False, copy_of: PrivatePostgres | None = None) -> None:
        """``durable``: what is committed is on the disk. ``copy_of``: a standby of that server."""
        self._programs = programs
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        # A short path: that of a socket has at most some hundred characters.
        self.folder = Path(tempfile.mkdtemp(prefix="navi-pg-"))
        self.port = _free_port()
        if _ACCOUNT is not None:
            shutil.chown(self.folder, _ACCOUNT, _ACCOUNT)
        data = str(self.folder / "data")
        if copy_of is None:
            self._call("initdb", "-D", data, "-A", "trust", "-U", "navi", "--locale=C", "-E", "UTF8", "--no-sync")
        else:
            self._call("pg_basebackup", "-D", data, "-d", copy_of.url("postgres"), "-R", "--no-sync")
        self.start()

    def url(self, database: str = "postgres") -> str:
        """By TCP: connections can then be cut."""
        return f"postgresql://navi@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it (again); returns once it takes connections."""
        options = _SETTINGS | {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        if not self._durable:
            options |= {"fsync": "off", "full_page_writes": "off"}
        words = [str(self._programs / "postgres"), "-D", str(self.folder / "data")]
        for name, value in options.items():
            words += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            account = {"user": _ACCOUNT, "group": _ACCOUNT, "extra_groups": []}
            self._process = subprocess.Popen(
                words, stdout=log, stderr=log, cwd=self.folder, preexec_fn=_die_with_parent, **account
            )
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        until = time.monotonic() + 30
        while subprocess.run(ready, check=False).returncode != 0:
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL does not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def create_database(self, name: str) -> None:
        """A database of its own."""
        self._call("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "navi", name)

    def stop(self, *, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends what goes on; SIGQUIT is as a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def promote(self) -> None:
        """Make a standby the server that takes changes."""
        self._call("pg_ctl", "promote", "-D", str(self.folder / "data"), "-w")

    def remove(self) -> None:
        """End it and remove its folder."""
        with contextlib.suppress(ProcessLookupError):
            self.stop(how=signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, program: str, *words: str) -> None:
        subprocess.run(
            [str(self._programs / program), *words], check=True, user=_ACCOUNT, group=_ACCOUNT, extra_groups=[],
            capture_output=True, cwd=self.folder,
        )  # fmt: skip


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGQUIT)


def _free_port() -> int:
    """Below those that Linux gives to outgoing connections: it is taken again after a restart."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


def started_for_all() -> PrivatePostgres | None:
    """The server of a whole run of tests, also for the workers of it: ``NAVI_TEST_DATABASE=postgres`` asks for one.

    None where none is asked for. Raises RuntimeError where it cannot be started.
    """
    if os.environ.get("NAVI_TEST_DATABASE") != "postgres" or URL in os.environ:
        return None
    programs = find_programs()
    if programs is None:
        raise RuntimeError(f"NAVI_TEST_DATABASE=postgres needs {MISSING}")
    server = PrivatePostgres(programs)
    os.environ[URL] = server.url()
    return server


MISSING = "PostgreSQL's programs (Debian: apt-get install postgresql)"
