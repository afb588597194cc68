"""The notebook of this kernel and its session, which is found again after a kernel restart.

Not responsible for requests to the server (``client``) or for what is done in the session (``session``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ..handles import short_handle
from .client.client import Service
from .errors import Refused, UsageError
from .grammar.times import local_zone
from .shell import current_request, kernel_id

LONGEST_SOURCE = 100_000  # characters of a cell that the server takes
LONGEST_ID = 200


def notebook_path(root_dir: str | None, env: Mapping[str, str] | None = None) -> str | None:
    """The notebook's path as the server names it (relative to its root, with slashes); None outside of a notebook.

    Jupyter puts the path into ``JPY_SESSION_NAME``, absolute or relative depending on who started the kernel. Pages
    that give their sessions an empty name (nbclassic) have the notebook's folder there, which is no notebook.
    """
    name = (os.environ if env is None else env).get("JPY_SESSION_NAME")
    if not name or name.endswith(("/", os.sep)):
        return None
    return _below(root_dir, Path(name)) or str(PurePosixPath(name))


def _below(root_dir: str | None, path: Path) -> str | None:
    """An absolute path relative to the server's root; None outside of it."""
    if root_dir and path.is_absolute():
        for root in (Path(root_dir), Path(root_dir).resolve()):
            if path.is_relative_to(root):
                return PurePosixPath(path.relative_to(root)).as_posix()
    return None


VSCODE = "vscode-notebook-cell"  # the scheme of the addresses that it gives to cells


def vscode_path(root_dir: str | None, cell_id: str) -> str | None:
    """The notebook of a cell of VS Code, which names the file in the cell's address; None outside of the server's root.

    There its kernel has no notebook of Jupyter's: at most one with a made-up name, another one at each start.
    """
    address = urlsplit(cell_id)
    if address.scheme != VSCODE:
        return None
    path = unquote(address.path)
    return _below(root_dir, Path(path.lstrip("/") if os.name == "nt" else path))


def session_id(service: Service) -> str:
    """The notebook's session; made when there is none. ``NAVI_SESSION`` names one.

    Asked of the server each time: the notebook may have been moved since, and its session deleted or replaced.
    """
    # Two threads that ask at once must not create two sessions.
    with service.lock:
        named = os.environ.get("NAVI_SESSION")
        if named:
            service.session_id = named
        elif service.chosen_session is None or not _is_there(service, service.chosen_session):
            service.chosen_session = None
            found = find(service)
            service.session_id = str(found["session"]["id"])
            service.note = found["note"] or service.note
        else:
            service.session_id = service.chosen_session
        return service.session_id


def is_named(service: Service) -> bool:
    """Whether this kernel uses a session that was named, and not the notebook's own."""
    return bool(os.environ.get("NAVI_SESSION") or service.chosen_session)


def find(service: Service, *, create: bool = True) -> dict[str, Any]:
    """What the server answers about this notebook's session: ``session``, ``how``, ``path``, ``note``, ``earlier``."""
    body = _here(service) | _asking_cell() | {"create": create, "session_id": service.session_id}
    given = {name: value for name, value in body.items() if value is not None}
    for pause in (0.2, 0.5, 1.0, 2.0):
        try:
            return dict(service.call("POST", "sessions/find", given))
        except Refused as problem:  # the first request of a cell: a server that has just started is not ready yet
            if problem.server_code != "not_ready":
                raise
        time.sleep(pause)
    return dict(service.call("POST", "sessions/find", given))


def create(service: Service, **fields: Any) -> dict[str, Any]:
    """A new session for this notebook, which is the notebook's from now on."""
    body = _here(service) | {"notebook_path": find(service, create=False)["path"]} | fields
    created = dict(service.call("POST", "sessions", {name: value for name, value in body.items() if value is not None}))
    service.session_id, service.chosen_session = str(created["id"]), None
    return created


def use(service: Service, session: Mapping[str, Any], *, move: bool = False) -> str:
    """Link this notebook to that session; a sentence about it.

    Raises UsageError for a session of another notebook that is still there, unless ``move``. A kernel without a
    notebook uses such a session until it restarts.
    """
    found, other = find(service, create=False), session["notebook_path"]
    here, mine = found["path"], found["session"]
    sentence = f"This notebook's session is now {session['title']!r}."
    if here is None and other is not None:
        service.session_id = service.chosen_session = str(session["id"])
        return f"This session belongs to {other}: after a restart this kernel uses its own again."
    if other not in (None, here) and not move:
        there = service.call("POST", "sessions/find", {"notebook_path": other})["session"]
        if there and there["id"] == session["id"]:
            raise UsageError(
                f"This session belongs to {other}, which would get a new one. To move it to this notebook: add --move"
            )
    if mine is None or mine["id"] != session["id"]:
        change = {"kernel_id": kernel_id()} if here is None else {"kernel_id": kernel_id(), "notebook_path": here}
        service.call("PATCH", f"sessions/{session['id']}", change)
    service.session_id, service.chosen_session = str(session["id"]), None
    return sentence if here is not None else sentence.replace("notebook", "kernel")


def unlink(service: Service) -> str:
    """End the link between this notebook and its session, which stays in the list; a sentence about it."""
    session = find(service, create=False)["session"]
    service.session_id = service.chosen_session = None
    if session is None:
        return "This notebook has no session."
    service.call("PATCH", f"sessions/{session['id']}", {"notebook_path": None, "kernel_id": None})
    return f"{session['title']!r} belongs to no notebook any more; the next question here starts a new session."


def describe(found: Mapping[str, Any]) -> str:
    """This notebook's session and how the two are linked, in a few lines."""
    session = found["session"]
    lines = ["session   none yet: the next question here starts one"]
    if session is not None:
        lines = [f"session   {session['title']!r} ({short_handle(session['id'])})"]
    if session is None:
        lines += [f"notebook  {found['path']}"] if found["path"] else []
    elif found["path"] is None:
        lines.append("notebook  none: the session is known by this kernel, until the kernel ends")
    elif session["notebook_link"] == "linked":
        lines.append(f"notebook  {found['path']}, linked: the notebook carries the session's id")
    elif _cell_id().startswith(f"{VSCODE}:"):
        lines.append(f"notebook  {found['path']}, known by its cells: VS Code does not save the session's id with it")
    else:
        lines.append(
            f"notebook  {found['path']}, not saved yet: save the notebook, so that it carries the session's id"
        )
    if found["earlier"]:
        lines.append("Other sessions of a notebook at this path; to continue one here: %navi session use 1")
    return "\n".join(lines)


def _here(service: Service) -> dict[str, Any]:
    """This kernel and its notebook, as far as the kernel knows: its environment keeps the path of its start."""
    root_dir = service.connection.root_dir
    here = {"notebook_path": notebook_path(root_dir), "kernel_id": kernel_id(), "timezone": local_zone()}
    named = vscode_path(root_dir, _cell_id())
    return here if named is None else here | {"notebook_path": named}


def _cell_id() -> str:
    """What the front end calls the running cell; empty where it does not say."""
    metadata = current_request().get("metadata") or {}
    return str(metadata.get("cellId") or metadata.get("cell_id") or "")


def _asking_cell() -> dict[str, Any]:
    """The running cell: its source, and its id where the front end sends the one that the notebook has."""
    source, cell_id = str((current_request().get("content") or {}).get("code") or ""), _cell_id()
    is_vscode = cell_id.startswith(f"{VSCODE}:")
    return {
        "cell_id": cell_id if 0 < len(cell_id) <= LONGEST_ID and not is_vscode else None,
        "is_open": True if is_vscode else None,  # it asks what to do when a file that it shows is changed
        "cell_source": source if 0 < len(source) <= LONGEST_SOURCE else None,
    }


def _is_there(service: Service, session_id: str) -> bool:
    return service.call("POST", "sessions/find", {"session_id": session_id})["session"] is not None
