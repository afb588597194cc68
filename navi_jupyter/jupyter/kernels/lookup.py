"""The kernel of a session of ours: found, or started so that the notebook's own front end finds it too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from jupyter_core.paths import jupyter_runtime_dir
from jupyter_core.utils import ensure_async

from ...errors import KernelUnavailable, NotebookNotFound
from ...log_setup import get_logger
from ...model.sessions import Session
from ...ports.jupyter import kernel_name_of
from ...text import joined
from ..files.tree import Tree
from ..notebooks.notebook_file import local_root, until_saved
from .jupyter_services import JupyterServices
from .transport import address_answers

log = get_logger("kernels")

START_WITHIN = 60.0  # seconds that Jupyter may take to start a kernel's process


Locate = Callable[[Session], Awaitable[str | None]]
"""The path of a session's notebook, verified; None: it has none. Raises NotebookNotFound."""


def without_drive(path: str) -> str:
    """A path as the contents manager names it: collaborative front ends put a drive (``RTC:``) before it."""
    drive, colon, rest = path.partition(":")
    return rest if colon and drive.isalnum() else path


async def has_page(parts: JupyterServices, path: str) -> bool:
    """Whether a front end is connected to the kernel of a notebook; one without a kernel is not known here."""
    return any(
        without_drive(str(row.get("path") or "")) == path and (row.get("kernel") or {}).get("connections", 0) > 0
        for row in await ensure_async(parts.session_manager.list_sessions())
    )


async def move_rows(parts: JupyterServices, source: str, target: str) -> None:
    """Have Jupyter's own sessions of a notebook that was renamed, or of those in a folder, name its new path."""
    for row in await ensure_async(parts.session_manager.list_sessions()):
        path = str(row.get("path") or "")
        plain = without_drive(path)
        if plain == source or plain.startswith(f"{source}/"):
            moved = path[: len(path) - len(plain)] + target + plain[len(source) :]
            await ensure_async(
                parts.session_manager.update_session(row["id"], path=moved, name=PurePosixPath(moved).name)
            )


async def cell_source(
    parts: JupyterServices, session: Session, cell_id: str, locate: Locate | None = None
) -> str | None:
    """The source of a cell of the session's notebook, as it is saved; None when there is no such cell."""
    path = session.notebook_path
    try:
        path = path if locate is None else await locate(session)
        if path is None:
            return None
        model = await _saved_notebook(parts, path)
        cells = [cell for cell in model["content"].get("cells") or () if isinstance(cell, Mapping)]
    except Exception as error:  # noqa: BLE001 - of any contents manager; what it cannot read has no such cell
        log.info("notebook_not_read", path=path, error=repr(error))
        return None
    found = next((cell for cell in cells if cell.get("id") == cell_id), None)
    return None if found is None else joined(found.get("source"))


class KernelLookup:
    def __init__(self, parts: JupyterServices, locate: Locate | None = None) -> None:
        """``locate`` None: the paths of sessions are taken as they are."""
        self._parts = parts
        self._locate = locate
        self._starting: dict[str, asyncio.Lock] = {}

    def known(self, kernel_id: str | None) -> bool:
        """Whether Jupyter has this kernel."""
        return bool(kernel_id) and kernel_id in self._parts.kernel_manager

    async def find(self, session: Session) -> str | None:
        """The kernel's id; None when there is none.

        Never that of another notebook which is at the session's path now, or which has taken the kernel over.
        """
        known = self.known(session.kernel_id)
        if known and (self._locate is None or session.notebook_path is None):
            return session.kernel_id
        missing = False
        try:
            path = await self._path(session)
        except NotebookNotFound:
            path, missing = None, True
        # Only now: what is known of the notebook has moved these, too.
        rows: list[Mapping[str, Any]] = await ensure_async(self._parts.session_manager.list_sessions())
        places = _notebooks_of(rows, session.kernel_id)
        if missing:
            return session.kernel_id if known and not await self._any_exists(places) else None
        if known and (path is None or not places or path in places):
            return session.kernel_id
        place = path or f"navi-{session.id}"
        mine = [
            one
            for one in rows
            if without_drive(str(one.get("path") or "")) == place and self.known((one.get("kernel") or {}).get("id"))
        ]
        # A console may be attached to the same path; the notebook's kernel is meant.
        mine.sort(key=lambda one: one.get("type") != "notebook")
        return str(mine[0]["kernel"]["id"]) if mine else None

    async def lives(self, kernel_id: str) -> bool | None:
        """Whether a process answers at that kernel's address, of any server or program. None: no address is known here.

        By the file in which whatever starts a kernel writes how to reach it.
        """
        if PurePath(kernel_id).name != kernel_id:  # a path, from a request that was made by hand
            return None
        folder = getattr(self._parts.kernel_manager, "connection_dir", "") or jupyter_runtime_dir()
        return await address_answers(Path(folder) / f"kernel-{kernel_id}.json")

    async def runs_outside(self, session: Session) -> bool:
        """Whether the session's kernel lives, but was started by another program (``jupyter console``, nbclient)."""
        kernel_id = session.kernel_id
        return kernel_id is not None and not self.known(kernel_id) and bool(await self.lives(kernel_id))

    async def _path(self, session: Session) -> str | None:
        return session.notebook_path if self._locate is None else await self._locate(session)

    async def _any_exists(self, paths: Sequence[str]) -> bool:
        return any([await ensure_async(self._parts.contents_manager.file_exists(path)) for path in paths])

    async def start(self, session: Session) -> str:
        """The session's kernel; started when there is none. Raises KernelUnavailable, NotebookNotFound."""
        path = await self._path(session)
        place = path or f"navi-{session.id}"
        async with self._starting.setdefault(place, asyncio.Lock()):
            try:
                # Shielded: a start that was cancelled half way would leave a kernel of which no session knows.
                found = await self.find(session)
                if found is None:
                    found = await asyncio.shield(asyncio.wait_for(self._start(place, path), START_WITHIN))
                return found
            finally:
                self._starting.pop(place, None)

    async def _start(self, place: str, path: str | None) -> str:
        wanted = await self._kernel_name(path)
        try:
            model: Mapping[str, Any] = await ensure_async(
                self._parts.session_manager.create_session(
                    path=place,
                    name=PurePosixPath(place).name,
                    type="notebook" if path else "console",
                    kernel_name=wanted,
                )
            )
        except Exception as error:  # noqa: BLE001
            # Jupyter, its provisioners and gateways raise errors of any kind; to the user it is one.
            log.warning("kernel_not_started", path=place, kernel_name=wanted, error=repr(error))
            reason = getattr(error, "log_message", None) or str(error) or type(error).__name__
            raise KernelUnavailable(f"A kernel could not be started: {str(reason)[:300]}") from None
        return str(model["kernel"]["id"])

    async def _kernel_name(self, path: str | None) -> str | None:
        """The kernel that the notebook asks for, if it is installed here; None for the server's default."""
        if path is None:
            return None
        try:
            model = await _saved_notebook(self._parts, path)
            name = kernel_name_of(model["content"].get("metadata"))
            specs = await ensure_async(self._parts.kernel_manager.kernel_spec_manager.get_all_specs())
        except Exception as error:  # noqa: BLE001 - of any contents manager; the default kernel serves
            log.info("kernel_name_not_known", path=path, error=repr(error))
            return None
        return name if name in specs else None


async def _saved_notebook(parts: JupyterServices, path: str) -> dict[str, Any]:
    root = local_root(parts.contents_manager, parts.root_dir)
    await until_saved(None if root is None else Tree(root), path)
    return dict(await ensure_async(parts.contents_manager.get(path, content=True, type="notebook")))


def _notebooks_of(rows: Sequence[Mapping[str, Any]], kernel_id: str | None) -> list[str]:
    """The paths of the notebooks that have this kernel."""
    return [
        without_drive(str(row.get("path") or ""))
        for row in rows
        if row.get("type") == "notebook" and (row.get("kernel") or {}).get("id") == kernel_id
    ]
