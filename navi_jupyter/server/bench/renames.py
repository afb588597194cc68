"""Notebooks and files that are renamed or deleted in the user's server: the service is notified, in order.

It keeps where the user's sessions have their notebooks, and which files recalls wait for. Events of the contents
manager alone: what is moved in a terminal is not noticed. Not responsible for what follows (``user_calls``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import NaviError
from ...jupyter.kernels.jupyter_services import JupyterServices
from ...jupyter.kernels.lookup import move_rows
from ...log_setup import get_logger
from .recall_watching import AnyProcess

log = get_logger("bench")


class Renames:
    """See the module. Between :meth:`start` and :meth:`stop`."""

    def __init__(
        self,
        jupyter: JupyterServices,
        events: asyncio.Queue[Mapping[str, Any]],
        service: AnyProcess,
        *,
        on_moved: Callable[[], None],
    ) -> None:
        """``events``: of the contents manager, since the server has started. ``on_moved``: called when the service has
        new paths."""
        self._jupyter = jupyter
        self._service = service
        self._on_moved = on_moved
        self._events = events
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Notify the service from now on; while there is no link, once there is one again."""
        self._task = asyncio.create_task(self._run(), name="navi-bench-renames")

    async def stop(self) -> None:
        """Notify no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            event = await self._events.get()
            try:
                await self._report(event)
            except NaviError as error:
                log.warning("rename_not_followed", change=dict(event), error=error.message)
            except Exception:  # the task is not awaited: it is its own supervisor
                log.exception("rename_not_followed", change=dict(event))

    async def _report(self, event: Mapping[str, Any]) -> None:
        path, source = (str(event.get(name) or "").strip("/") for name in ("path", "source_path"))
        if event["action"] == "delete":
            await self._service.call("paths.forget", {"path": path})
        elif source and source != path:
            await self._service.call("paths.follow", {"source": source, "target": path})
            # A page moves its own row in a moment; a kernel without a page has no one else to do it.
            await move_rows(self._jupyter, source, path)
        self._on_moved()
