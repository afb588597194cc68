"""The demo's own Jupyter server and a kernel in it: private directories, a free loopback port, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import site
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.jsonutil import json_default
from jupyter_client.session import Session
from tornado.httpclient import HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

from ..kernel.client.connection import Connection

_DROPPED = ("JUPYTER", "JPY_", "NAVI_")
_STOP_WITHIN = 5.0


class ServerFailed(Exception):
    """The server did not start; ``str()`` is the reason."""


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
    """Start one in a temporary directory; both are removed at the end. Raises ServerFailed."""
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
        "--ServerApp.port=0",  # the system chooses one, and the server writes it into its runtime file
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
            # a process group of its own: Ctrl-C in the terminal must reach the demo alone, which then stops the server.
            start_new_session=True,
        )


def _environment(home: Path, token: str) -> dict[str, str]:
    """Without the user's Jupyter and Navi settings. The token is in it, since `ps` shows arguments to everybody."""
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
    raise ServerFailed(
        f"the server ended with status {process.returncode}. The end of its log:\n{tail(home / 'server.log')}"
    )


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_WITHIN)
    except TimeoutError:
        process.kill()
        await process.wait()


class CellFailed(Exception):
    """A cell ended with an error; ``str()`` is its last line."""


@dataclass(slots=True)
class CellOutput:
    """What a cell showed."""

    texts: dict[str, str] = field(default_factory=dict)
    """Plain text by display id, the latest of each; other outputs under numbers."""
    updates: int = 0  # how often something was shown or replaced

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.texts.values()).strip()


class RemoteKernel:
    """A kernel behind a Jupyter server's REST and WebSocket API, for a notebook that need not exist.

    As much of the protocol as the demo needs.
    """

    def __init__(self, connection: Connection, kernel_id: str, channels: WebSocketClientConnection) -> None:
        self._connection = connection
        self._id = kernel_id
        self._channels = channels
        self._session = Session()

    @classmethod
    async def start(cls, connection: Connection, path: str) -> RemoteKernel:
        """Start the default kernel for the notebook ``path`` and open its channels."""
        headers = {"Authorization": connection.authorization or ""}
        response = await SimpleAsyncHTTPClient(force_instance=True).fetch(
            HTTPRequest(
                f"{connection.url}api/sessions",
                method="POST",
                headers=headers,
                body=json.dumps({"path": path, "name": path, "type": "notebook", "kernel": {"name": ""}}),
                request_timeout=20,
            )
        )
        kernel_id = json.loads(response.body)["kernel"]["id"]
        url = "ws" + connection.url.removeprefix("http") + f"api/kernels/{kernel_id}/channels"
        return cls(connection, kernel_id, await websocket_connect(HTTPRequest(url, headers=headers)))

    async def execute(self, code: str, shown: Callable[[CellOutput], None] | None = None) -> CellOutput:
        """Run a cell; its outputs once it is done. ``shown`` is called after each one. Raises CellFailed."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        request = self._session.msg("execute_request", content) | {"channel": "shell", "buffers": []}
        msg_id = request["msg_id"]
        await self._channels.write_message(json.dumps(request, default=json_default))
        output, replied, idle = CellOutput(), False, False
        error = ""
        while not (replied and idle):
            frame = await self._channels.read_message()
            if frame is None:
                raise CellFailed("the kernel's channels were closed")
            message = json.loads(frame)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            replied = replied or kind == "execute_reply"
            idle = idle or (kind == "status" and content["execution_state"] == "idle")
            if kind == "error":
                error = f"{content['ename']}: {content['evalue']}"
            elif _add_output(output, kind, content) and shown:
                shown(output)
        if error:
            raise CellFailed(error)
        return output

    def close(self) -> None:
        """Close the channels; the kernel ends with its server."""
        self._channels.close()


def _add_output(output: CellOutput, kind: str, content: dict[str, Any]) -> bool:
    """Add a message of the kernel to the outputs; whether it was an output."""
    if kind == "stream":
        text = output.texts.get("stream", "") + content["text"]
        key = "stream"
    elif kind in ("display_data", "update_display_data", "execute_result"):
        text = content["data"].get("text/plain", "")
        key = (content.get("transient") or {}).get("display_id") or str(len(output.texts))
    else:
        return False
    output.texts[key] = text
    output.updates += 1
    return True
