"""The notebook of this kernel and its session, which is found again after a kernel restart.

Not responsible for requests to the server (``client``) or for what is done in the session (``session``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from .client.client import Service
from .grammar.times import local_zone
from .shell import kernel_id


def notebook_path(root_dir: str | None, env: Mapping[str, str] | None = None) -> str | None:
    """The notebook's path as the server names it (relative to its root, with slashes); None outside of a notebook.

    Jupyter puts the path into ``JPY_SESSION_NAME``, absolute or relative depending on who started the kernel.
    """
    name = (os.environ if env is None else env).get("JPY_SESSION_NAME")
    if not name:
        return None
    path = Path(name)
    if root_dir and path.is_absolute():
        for root in (Path(root_dir), Path(root_dir).resolve()):
            if path.is_relative_to(root):
                return str(PurePosixPath(path.relative_to(root)))
    return str(PurePosixPath(path))


def session_id(service: Service) -> str:
    """The notebook's session: looked up once per kernel, created when there is none.

    ``NAVI_SESSION`` names one; else the newest with this notebook's path; without a notebook the one of this kernel.
    """
    # Two threads that ask at once must not create two sessions.
    with service.lock:
        if service.session_id is None:
            service.session_id = os.environ.get("NAVI_SESSION") or _existing(service) or create(service)["id"]
        return service.session_id


def create(service: Service, **fields: Any) -> dict[str, Any]:
    """A new session for this notebook."""
    path = notebook_path(service.connection.root_dir)
    here = {"notebook_path": path, "kernel_id": kernel_id(), "timezone": local_zone(), **fields}
    return dict(service.call("POST", "sessions", {name: value for name, value in here.items() if value is not None}))


def _existing(service: Service) -> str | None:
    path, kernel = notebook_path(service.connection.root_dir), kernel_id()
    if path is None and kernel is None:
        return None
    # The server filters by path. A kernel without a notebook has none to filter by, and reads all sessions.
    mine = [
        session
        for session in service.pages("sessions", "sessions", query={"notebook_path": path})
        if path or (session["kernel_id"] == kernel and session["notebook_path"] is None)
    ]
    newest = max(mine, key=lambda session: str(session["created_at"]), default=None)
    return newest["id"] if newest else None
