"""Real Jupyter servers in processes of their own, each in private directories.

``JupyterServer`` is started, killed and started again on the same directories, as a user's server is.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import site
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from socket import socket
from typing import Any, Literal, Self

ROOT = Path(__file__).parents[2]
READY_WITHIN = 60.0
"""Seconds from start to the first good answer; a loaded machine is slow."""

App = Literal["server", "lab", "notebook", "navi"]
_DROPPED = ("JUPYTER", "JPY_", "NAVI_", "PYTEST_CURRENT_TEST")  # by the last ipykernel captures no subprocesses


class ServerDied(AssertionError):
    """The process ended or stayed silent; the message has its log's tail."""


_COLLABORATION = ("jupyter_server_ydoc", "jupyter_server_fileid")
_COLLABORATION_IN_LAB = ("@jupyter/collaboration-extension", "@jupyter/docprovider-extension")

_APPLICATIONS = ("jupyterlab", "notebook", "nbclassic", "notebook_shim", "jupyter_lsp")
"""Off where no page is opened: each start of JupyterLab's costs two seconds of a core, half of them for Node."""


def free_port() -> int:
    """A port of the loopback interface that is free now, and that the system gives to none that asks for any port.

    Those it gives (from 32768 on) are taken by kernels of other tests between this answer and the server's start, and
    between a server that is killed and the next one.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with closing(socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class JupyterServer:
    """One server process and its directories below ``home``."""

    def __init__(
        self, home: Path, *, token: str | None = None, env: Mapping[str, str] | None = None, collaboration: bool = False
    ) -> None:
        self.home = home
        self._collaboration = collaboration
        """Whether notebooks are edited together (jupyter-collaboration), where that is installed."""
        self.root = home / "notebooks"
        self.token = secrets.token_hex(16) if token is None else token
        """Empty: the server is started without a token (give it a password, or nothing is asked)."""
        self.port = free_port()
        self.base_url = "/"
        self.log = home / "server.log"
        self._extra_env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    # --- life --------------------------------------------------------------------------------------------------------

    def start(
        self, app: App = "server", *, base_url: str = "/", args: Sequence[str] = (), wait: bool = True
    ) -> JupyterServer:
        """Start the process; return once Navi answers ``health``. Raises ServerDied."""
        for folder in (self.root, self.home / "config"):
            folder.mkdir(parents=True, exist_ok=True)
        extensions = {"navi_jupyter": True} | dict.fromkeys(_COLLABORATION, self._collaboration)
        if app in ("server", "navi"):
            extensions |= dict.fromkeys(_APPLICATIONS, False)
        enabled = {"ServerApp": {"jpserver_extensions": extensions}}
        (self.home / "config" / "jupyter_server_config.json").write_text(json.dumps(enabled))
        pages = self.home / "config" / "labconfig" / "page_config.json"
        pages.parent.mkdir(exist_ok=True)
        known = json.loads(pages.read_text())["disabledExtensions"] if pages.exists() else {}
        disabled = known | dict.fromkeys(_COLLABORATION_IN_LAB, not self._collaboration)
        pages.write_text(json.dumps({"disabledExtensions": disabled}))
        self.base_url = base_url
        module = {
            "server": "jupyter_server",
            "lab": "jupyterlab",
            "notebook": "notebook",
            "navi": "navi_jupyter.server.app",
        }
        address = [f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1"]
        command = [
            *(sys.executable, "-m", module[app]),
            "--no-browser",
            *([] if any("ServerApp.sock=" in each for each in args) else address),
            f"--ServerApp.root_dir={self.root}",
            f"--ServerApp.base_url={base_url}",
            f"--IdentityProvider.token={self.token}",
            *(["--ServerApp.allow_root=True"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            *args,
        ]
        if app == "navi":
            command[1:3] = ["-c", "from navi_jupyter.server.app import main; main()"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self.env(), cwd=self.root, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Return once ``health`` says ok. Raises ServerDied."""
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise ServerDied(f"the server ended early:\n{self.log_tail()}")
            try:
                if self.get("navi/api/health")["status"] == "ok":
                    return
            except urllib.error.HTTPError as error:
                if error.code in (401, 403):  # it runs, and lets nobody in without a login
                    return
                if b'"failed"' in error.read():
                    raise ServerDied(f"Navi could not start:\n{self.log_tail()}") from None
            except (OSError, ValueError):
                pass
            time.sleep(0.05)
        raise ServerDied(f"the server did not get ready:\n{self.log_tail()}")

    def wait_for(self, condition: Callable[[], bool], *, within: float = 20.0) -> None:
        """Return once ``condition`` holds. Raises ServerDied when the process ends or the time is over."""
        deadline = time.monotonic() + within
        while not condition():
            if not self.running or time.monotonic() > deadline:
                raise ServerDied(f"it did not come to pass:\n{self.log_tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Let it shut down (SIGTERM); kill it when it does not."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill9()
        self._process = None

    def kill9(self) -> None:
        """End it as a power cut would. Its kernels notice by themselves."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(20)
        self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- facts -------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The base URL; ends with a slash."""
        return f"http://127.0.0.1:{self.port}{self.base_url}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def connection_file(self) -> Path:
        """The file with which kernels find it."""
        return self.home / "runtime" / f"navi-{self.pid}.json"

    def env(self) -> dict[str, str]:
        """The environment of the server: nothing of the developer's Jupyter, all directories below ``home``."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}
        places = {
            "HOME": self.home,
            "PYTHONUSERBASE": site.getuserbase(),
            "JUPYTER_CONFIG_DIR": self.home / "config",
            "JUPYTER_DATA_DIR": self.home / "data",
            "JUPYTER_RUNTIME_DIR": self.home / "runtime",
            "JUPYTERLAB_SETTINGS_DIR": self.home / "lab-settings",
            "JUPYTERLAB_WORKSPACES_DIR": self.home / "lab-workspaces",
            "IPYTHONDIR": self.home / "ipython",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
        }
        return kept | {name: str(value) for name, value in places.items()} | self._extra_env

    def log_tail(self, lines: int = 40) -> str:
        """The end of the log of all starts."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    # --- small HTTP --------------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """The decoded answer to a GET below the base URL. Raises urllib's HTTPError."""
        return self.request("GET", path)

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """A request with the server's token. Raises urllib's HTTPError."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def download(self, path: str) -> bytes:
        """The content of a GET below the base URL. Raises urllib's HTTPError."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())
