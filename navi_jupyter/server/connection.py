"""The connection file: how a kernel of this server finds it, whatever the authentication.

``<runtime dir>/navi-<pid>.json``, readable by its owner alone, holds ``{"url", "token", "pid", "sock"}``. Only its path
goes into the environment that kernels inherit (``NAVI_CONNECTION_FILE``): notebook outputs print environments.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_core.paths import jupyter_runtime_dir, secure_write

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

VARIABLE = "NAVI_CONNECTION_FILE"


def connection_file() -> Path:
    """Where this process's file is."""
    return Path(jupyter_runtime_dir()) / f"navi-{os.getpid()}.json"


def announce() -> None:
    """Point the kernels that will be started to the file. The file may come later: it needs the final port."""
    os.environ[VARIABLE] = str(connection_file())


def write(serverapp: ServerApp, token: str) -> None:
    """Write the file for a server that has its port."""
    path = connection_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "url": serverapp.connection_url,
        "token": token,
        "pid": os.getpid(),
        "sock": serverapp.sock,
    }
    with secure_write(str(path)) as file:
        file.write(json.dumps(content))


def remove() -> None:
    """Take the file back, and the word about it."""
    path = connection_file()
    path.unlink(missing_ok=True)
    if os.environ.get(VARIABLE) == str(path):
        del os.environ[VARIABLE]
