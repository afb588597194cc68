"""A Jupyter server of its own for the demo: private directories, a free loopback port, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import site
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from ..kernel.connection import Connection

_DROPPED = ("JUPYTER", "JPY_", "NAVI_")
_STOP_WITHIN = 5.0


class ServerFailed(Exception):
    """The server did not come up; ``str()`` says why."""


@dataclass(frozen=True, kw_only=True)
class PrivateServer:
    """The running server."""

    process: asyncio.subprocess.Process
    home: Path
    connection: Connection

    @property
    def log_tail(self) -> str:
        """The last lines of its log."""
        return tail(self.home / "server.log")


def tail(log: Path, lines: int = 30) -> str:
    """The end of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


@contextlib.asynccontextmanager
async def private_server() -> AsyncIterator[PrivateServer]:
    """Start one in a temporary directory; it and the directory are gone afterwards. Raises ServerFailed."""
    with tempfile.TemporaryDirectory(prefix="navi-demo-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        token = secrets.token_hex(24)
        process = await _launch(home, token)
        try:
            url = await _announced_url(home, process)
            connection = Connection(url=url, authorization=f"token {token}", source="the demo")
            yield PrivateServer(process=process, home=home, connection=connection)
        finally:
            await _stop(process)


async def _launch(home: Path, token: str) -> asyncio.subprocess.Process:
    for name in ("config", "notebooks", "runtime"):
        (home / name).mkdir()
    settings = {"ServerApp": {"jpserver_extensions": {"navi_jupyter": True}}}
    (home / "config" / "jupyter_server_config.json").write_text(json.dumps(settings))
    command = [
        *(sys.executable, "-m", "jupyter_server"),
        "--no-browser",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",  # the system chooses; the server tells in its runtime file
        f"--ServerApp.root_dir={home / 'notebooks'}",
        *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
    ]
    with (home / "server.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *command,
            env=_environment(home, token),
            cwd=home / "notebooks",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Its own group: a Ctrl-C in the terminal is ours to handle, then we stop the server.
            start_new_session=True,
        )


def _environment(home: Path, token: str) -> dict[str, str]:
    """Nothing of the user's Jupyter, none of the user's Navi settings; the token where `ps` does not show it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}
    private = {
        "HOME": home,
        "USERPROFILE": home,
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_CONFIG_PATH": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "IPYTHONDIR": home / "ipython",
        "PYTHONUSERBASE": site.getuserbase(),  # follows HOME, and may be where this package is installed
        "PYTHONPATH": os.pathsep.join(filter(None, [_import_root(), os.environ.get("PYTHONPATH", "")])),
        "JUPYTER_TOKEN": token,
    }
    return kept | {name: str(value) for name, value in private.items()}


def _import_root() -> str:
    """Where this package was imported from, for a checkout that is not installed."""
    return str(Path(__file__).resolve().parents[2])


async def _announced_url(home: Path, process: asyncio.subprocess.Process) -> str:
    """The URL in the server's runtime file, as soon as that is there."""
    path = home / "runtime" / f"jpserver-{process.pid}.json"
    while process.returncode is None:
        with contextlib.suppress(OSError, ValueError):
            return str(json.loads(path.read_text())["url"])
        await asyncio.sleep(0.05)
    raise ServerFailed(f"the server ended with status {process.returncode}\n{tail(home / 'server.log')}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_WITHIN)
    except TimeoutError:
        process.kill()
        await process.wait()
