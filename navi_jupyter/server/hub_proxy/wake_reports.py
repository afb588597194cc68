"""What a user's server that keeps its own Navi reports to ``navi hub --wake-only``: when it is needed next.

The service starts the server shortly before that, and stops it again when it is not at work and its user has not come;
so these are reported, too. Imported at extension load: no pydantic, and httpx only when it is used.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from ...clock import now
from ...errors import NaviError, NotReady
from ...jupyter.kernels.jupyter_services import JupyterServices
from .service import UNREACHABLE, HubService
from .user_activity import is_used_by_user

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

    from ..lifecycle import Lifecycle
    from ..services import Services

LOOK_EVERY = 2.0  # seconds between two looks at what there is to report: no report follows another one sooner
NEEDED_FOR = 60.0  # seconds for which a report says that the server is at work
RENEW_EVERY = 20.0  # seconds between two such reports
REPEAT_EVERY = 900.0  # seconds after which the same is reported again, for a service whose database was restored
ANSWER_WITHIN = 10.0  # seconds
LONGEST_PAUSE = 60.0  # seconds between two attempts while the service is away
LAST_WITHIN = 2.0  # seconds that the end of the server waits for the last report
ONE_A_SECOND = 1.05  # seconds until a report is taken again that came too soon after another one

Seen = tuple[datetime | None, bool, bool]
"""What is next, as the scheduler knows it; whether runs are in progress; whether the user has come."""


class _Watched(NamedTuple):
    """What there is to look at."""

    lifecycle: Lifecycle
    jupyter: JupyterServices


class WakeReports:
    """See the module. One per process, between :meth:`start` and :meth:`stop`."""

    def __init__(self, url: str, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        """``url``: of the service. Raises ValueError where no JupyterHub has started this server for a user."""
        token = os.environ.get("JUPYTERHUB_API_TOKEN")
        if not token or not os.environ.get("JUPYTERHUB_USER"):
            raise ValueError("hub_wake_url is for servers that a JupyterHub has started for a user.")
        self._service = HubService(url, token)
        self._log = log
        self._started = now()
        self._reported: Seen | None = None  # None: nothing yet
        self._repeat_at = 0.0  # by ``time.monotonic``
        self._task: asyncio.Task[None] | None = None
        self._watched: _Watched | None = None
        self._obstacle = ""  # why the last report was not taken

    def start(self, serverapp: ServerApp, lifecycle: Lifecycle) -> None:
        """Begin to look. On the running loop."""
        self._watched = _Watched(lifecycle, JupyterServices.of(serverapp))
        self._task = asyncio.create_task(self._report_forever(), name="navi-wake-reports")
        _end_orderly(serverapp)

    async def stop(self) -> None:
        """Report once more, where there is something new, for two seconds at most. Before the runtime ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            try:
                async with asyncio.timeout(LAST_WITHIN):
                    await self._report_last()
            except (NaviError, TimeoutError) as error:
                self._log.warning("navi_last_wake_report_not_taken message=%r", getattr(error, "message", "no answer"))
        with suppress(Exception):  # a connection that is broken: the process ends anyway
            await self._service.close()

    @property
    def _services(self) -> Services | None:
        return None if self._watched is None else self._watched.lifecycle.services

    async def _report_forever(self) -> None:
        pause = 0.0
        while True:
            await asyncio.sleep(max(pause * random.uniform(0.5, 1.0), LOOK_EVERY))  # noqa: S311 - spreads the load
            try:
                await self._report_changes()
                pause, self._obstacle = 0.0, ""
            except NaviError as error:
                pause = min(LONGEST_PAUSE, max(2 * pause, 2 * LOOK_EVERY))
                if self._obstacle != error.message:  # one line for as long as it lasts
                    self._log.warning("navi_wake_report_not_taken message=%r", error.message)
                self._obstacle = error.message
            except Exception:  # noqa: BLE001 - the task is its own supervisor
                pause = LONGEST_PAUSE
                self._log.exception("navi_wake_report_failed")

    async def _report_changes(self) -> None:
        if (services := self._services) is None:
            return
        seen = await self._look(services)
        if seen != self._reported or time.monotonic() >= self._repeat_at:
            await self._report(services, seen)

    async def _report_last(self) -> None:
        """It is not at work from now on, and its user may come back to another one."""
        if (services := self._services) is None:
            return
        last: Seen = (services.recalls.scheduler.due, False, False)
        # Asked of the database: what was made a moment ago is not known to the scheduler's last turn.
        next_at = await services.sessions.store.next_wake()
        if self._reported == last and next_at == last[0]:
            return
        if await self._put(next_at, last) == 429:
            await asyncio.sleep(ONE_A_SECOND)
            _require_taken(await self._put(next_at, last))

    async def _look(self, services: Services) -> Seen:
        in_use = self._watched is not None and await is_used_by_user(
            self._watched.jupyter,
            has_sockets=bool(self._watched.lifecycle.sockets),
            runs_ours=services.runs_ours,
            since=self._started,
        )
        return services.recalls.scheduler.due, services.sessions.orchestrator.stats().runs > 0, in_use

    async def _report(self, services: Services, seen: Seen) -> None:
        # Of the database: before its first turn the scheduler knows of nothing.
        _require_taken(await self._put(await services.sessions.store.next_wake(), seen))
        self._reported = seen
        every = RENEW_EVERY if seen[1] else REPEAT_EVERY * random.uniform(0.8, 1.0)  # noqa: S311 - as above
        self._repeat_at = time.monotonic() + every

    async def _put(self, next_at: datetime | None, seen: Seen) -> int:
        """Send one report; the status of the answer. Raises NotReady."""
        _, is_busy, in_use = seen
        body: dict[str, Any] = {
            "server": os.environ.get("JUPYTERHUB_SERVER_NAME", ""),
            "next_at": None if next_at is None else next_at.astimezone(UTC).isoformat(),
            "busy": is_busy,
            "in_use": in_use,
        }
        if is_busy:
            body["needed_for"] = NEEDED_FOR
        headers = {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(ANSWER_WITHIN),
                self._service.request("PUT", "/navi/api/wake", headers=headers, body=json.dumps(body).encode()) as it,
            ):
                return it.status_code
        except TimeoutError as error:
            raise NotReady(UNREACHABLE) from error


def _end_orderly(serverapp: ServerApp) -> None:
    """Have SIGINT, which JupyterHub's spawners of processes send first, end the server as SIGTERM does.

    Without a terminal Jupyter leaves it to Python, which ends the event loop at once: nothing could be reported.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: serverapp.stop(from_signal=True))


def _require_taken(status: int) -> None:
    """Raises NotReady for an answer that is none of a service which has stored the report."""
    if status == 404:
        raise NotReady(
            "The service at hub_wake_url takes no reports: it is not there, or it is `navi hub` without --wake-only."
        )
    if status in (401, 403):
        raise NotReady(
            "The service at hub_wake_url does not take this server's token: server_token_scopes of the JupyterHub must"
            " have access:services!service=navi."
        )
    if status >= 300:
        raise NotReady(f"The service at hub_wake_url has answered with the status {status}.")
