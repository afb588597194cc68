"""The kernel of a session of ours: found, or started so that the notebook's own front end finds it too."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from jupyter_core.paths import jupyter_runtime_dir
from jupyter_core.utils import ensure_async

from ...errors import KernelUnavailable
from ...log_setup import get_logger
from ...model.sessions import Session
from ...text import joined
from .jupyter_services import JupyterServices
from .transport import address_answers

log = get_logger("kernels")

START_WITHIN = 60.0  # seconds that Jupyter may take to start a kernel's process


def place_of(session: Session) -> str:
    """The path under which Jupyter knows the session's kernel: its notebook's, or one of its own."""
    return session.notebook_path or f"navi-{session.id}"


def without_drive(path: str) -> str:
    """A path as the contents manager names it: collaborative front ends put a drive (``RTC:``) before it."""
    drive, colon, rest = path.partition(":")
    return rest if colon and drive.isalnum() else path


async def cell_source(parts: JupyterServices, session: Session, cell_id: str) -> str | None:
    """The source of a cell of the session's notebook, as it is saved; None when there is no such cell."""
    if session.notebook_path is None:
        return None
    try:
        model = await ensure_async(parts.contents_manager.get(session.notebook_path, content=True, type="notebook"))
        cells: list[dict[str, Any]] = model["content"]["cells"]
    except Exception as error:  # noqa: BLE001 - of any contents manager; what it cannot read has no such cell
        log.info("notebook_not_read", path=session.notebook_path, error=repr(error))
        return None
    found = next((cell for cell in cells if cell.get("id") == cell_id), None)
    return None if found is None else joined(found.get("source"))


class KernelLookup:
    def __init__(self, parts: JupyterServices) -> None:
        self._parts = parts
        self._starting: dict[str, asyncio.Lock] = {}

    def known(self, kernel_id: str | None) -> bool:
        """Whether Jupyter has this kernel."""
        return bool(kernel_id) and kernel_id in self._parts.kernel_manager

    async def find(self, session: Session) -> str | None:
        """The kernel's id; None when there is none."""
        if self.known(session.kernel_id):
            return session.kernel_id
        place = place_of(session)
        mine = [
            one
            for one in await ensure_async(self._parts.session_manager.list_sessions())
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

    async def start(self, session: Session) -> str:
        """The session's kernel; started when there is none. Raises KernelUnavailable."""
        place = place_of(session)
        async with self._starting.setdefault(place, asyncio.Lock()):
            try:
                # Shielded: a start that was cancelled half way would leave a kernel of which no session knows.
                found = await self.find(session)
                if found is None:
                    found = await asyncio.shield(asyncio.wait_for(self._start(session, place), START_WITHIN))
                return found
            finally:
                self._starting.pop(place, None)

    async def _start(self, session: Session, place: str) -> str:
        kind = "notebook" if session.notebook_path else "console"
        wanted = await self._kernel_name(session.notebook_path)
        try:
            model: Mapping[str, Any] = await ensure_async(
                self._parts.session_manager.create_session(
                    path=place, name=PurePosixPath(place).name, type=kind, kernel_name=wanted
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
            model = await ensure_async(self._parts.contents_manager.get(path, content=True, type="notebook"))
            name = model["content"]["metadata"].get("kernelspec", {}).get("name")
            specs = await ensure_async(self._parts.kernel_manager.kernel_spec_manager.get_all_specs())
        except Exception as error:  # noqa: BLE001 - of any contents manager; the default kernel serves
            log.info("kernel_name_not_known", path=path, error=repr(error))
            return None
        return name if name in specs else None
