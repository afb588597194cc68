"""A user's server on a JupyterHub that has the service: its way there, and the bench that it lends.

Not responsible for what the service asks of the server (``bench``). Imported at extension load: no pydantic.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...errors import NotReady
from ...jupyter.kernels.jupyter_services import JupyterServices
from ..lifecycle import Lifecycle
from .revocation import watch_tokens
from .service import HubService

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

    from ..bench.server_end import Bench

READY_WITHIN = 20.0  # seconds until the bench is there: what it needs is imported when the server has started
CONTENTS = "https://events.jupyter.org/jupyter_server/contents_service/v1"
LINKED_WITHIN = 5.0  # seconds that a request which may be work for this server waits for its link


class HubUserServer:
    """See the module. One per process."""

    def __init__(self, url: str, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        """``url``: of the service. Raises ValueError where no JupyterHub has started this server for a user."""
        token = os.environ.get("JUPYTERHUB_API_TOKEN")
        if not token or not os.environ.get("JUPYTERHUB_USER"):
            raise ValueError("hub_service_url is for servers that a JupyterHub has started for a user.")
        self.service = HubService(url, token)
        self._log = log
        self._bench: asyncio.Future[Bench] | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._renames: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()

    def start(self, serverapp: ServerApp, lifecycle: Lifecycle) -> None:
        """Link this server to the service, and look for revoked tokens. On the running loop."""
        self._bench = asyncio.create_task(self._lend(serverapp, lifecycle), name="navi-bench-start")
        # At once: a page renames a notebook while the bench is still being imported.
        events: Any = serverapp.event_logger
        events.add_listener(schema_id=CONTENTS, listener=self._on_contents)
        looking = watch_tokens(serverapp, lifecycle.unfinished, self._log)
        self._tasks = [self._bench, *([] if looking is None else [looking])]

    async def _on_contents(self, *, data: Mapping[str, Any], **_: Any) -> None:
        if data.get("action") in ("rename", "delete"):
            self._renames.put_nowait(data)

    async def _lend(self, serverapp: ServerApp, lifecycle: Lifecycle) -> Bench:
        try:
            module = await asyncio.to_thread(import_module, "navi_jupyter.server.bench.server_end")
            bench: Bench = module.Bench(
                JupyterServices.of(serverapp),
                self.service,
                lifecycle.settings,
                self._log,
                self._renames,
                has_sockets=lambda: bool(lifecycle.sockets),
            )
            bench.start()
        except Exception:
            self._log.exception("navi_bench_failed")
            raise
        return bench

    async def bench(self) -> Bench:
        """This server's end of the link. Raises NotReady."""
        try:
            if self._bench is not None:
                async with asyncio.timeout(READY_WITHIN):
                    return await asyncio.shield(self._bench)
        except Exception as error:
            raise NotReady("This server cannot be used from a cell now. Its log has more.") from error
        raise NotReady("This server is still starting. Try again in a moment.")

    async def linked(self) -> None:
        """Return once the service can use this server, or cannot: what is sent there now may be work for it."""
        try:
            await (await self.bench()).settled(LINKED_WITHIN)
        except NotReady:
            return

    async def stop(self) -> None:
        """End the links, and what the service has begun here."""
        begun = self._bench is not None and self._bench.done() and not self._bench.cancelled()
        if self._bench is not None and begun and self._bench.exception() is None:
            await self._bench.result().stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.service.close()
