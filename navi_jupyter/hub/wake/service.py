"""The process of ``navi hub --wake-only``: a login by the Hub, the reports of users' servers, and starts for recalls.

It is ``navi hub`` without sessions, models and keys: what users have is in their own servers. Several of these
processes share one PostgreSQL, as those of ``navi hub`` do.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin
from tornado import web

from ... import __version__
from ...clock import now
from ...errors import InvalidRequest, MethodNotAllowed, NaviError, NotFound, NotReady
from ...input.json_input import decoded, load_json, well_formed
from ...log_setup import send_to
from ...model.user_servers import ServerKey
from ...server.handler import ApiHandler
from ...server.http import HttpReply
from ...server.hub_proxy.revocation import watch_tokens
from ...server.identity import remember_secrets
from ...server.metrics import NaviCollector, ProcessMeasures
from ...settings import Settings, engine_of
from ..hub_api import HubApi
from ..service import HubExtension, HubServer, ReadyHandler

if TYPE_CHECKING:
    import logging

    from ...store.database import Database
    from ...store.hub.server_wakes import ServerWakeStore, WakeReport
    from .waker import Waker

RETRY_FIRST, RETRY_MOST = 1.0, 30.0  # seconds between two attempts to open the database
LONGEST_REPORT = 10_000  # bytes
LONGEST_NAME = 255  # characters of a server's name, as in the Hub's own table
LONGEST_NEED = 600.0  # seconds for which one report says that the server is at work
NEED = 60.0  # seconds, where a server that is at work does not say for how long
_FIELDS = {"server", "next_at", "busy", "needed_for", "in_use"}
_PAGE = """<!doctype html>
<html lang="en">
  <head><meta charset="utf-8" /><title>Navi</title></head>
  <body style="font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem">
    <h1>Navi</h1>
    <p>Navi is in your own server here: its sessions, its recalls and its keys are there.</p>
    <p>This service has no chat. It starts your server shortly before one of its recalls is due, and stops it again when
      that is done and you have not come.</p>
    <p><a href="{home}">Your server</a></p>
  </body>
</html>
"""


class WakeProcess:
    """What this process does, from the opening of the database on."""

    def __init__(self, settings: Settings, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self.settings = settings
        self.state: Literal["starting", "ok", "failed", "stopping"] = "starting"
        self.wakes: ServerWakeStore | None = None  # set while the state is ``ok``
        self.failure: NaviError | None = None  # why the state is ``failed``
        self._log = log
        self._waker: Waker | None = None
        self._database: Database | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    def start(self, measures: ProcessMeasures) -> None:
        """Begin the start, and return at once. ``measures``: filled, for the metrics."""
        self._task = asyncio.create_task(self._run(measures), name="navi-wake-process")

    async def stop(self) -> None:
        """End, and close the database."""
        self._stop.set()
        if self._task is not None:
            await self._task

    def look(self) -> None:
        """A server has reported."""
        if self._waker is not None:
            self._waker.look()

    async def health(self) -> dict[str, Any]:
        """For ``GET health``. Raises why nothing works, or can be saved."""
        if self._database is None or self.wakes is None:
            raise self.failure or NotReady("Navi is still starting. Try again in a moment.")
        if (failure := await self._database.failure()) is not None:
            raise failure
        return {
            "status": "ok",
            "version": __version__,
            "mode": "wake-only",
            "database": engine_of(self.settings.database_url),
            "message": self._database.notice,
        }

    async def _run(self, measures: ProcessMeasures) -> None:
        send_to(self._log)
        engine = engine_of(self.settings.database_url)
        async with AsyncExitStack() as stack:
            stack.enter_context(
                NaviCollector(state=lambda: self.state, process=measures, figures=lambda: None, database=engine)
            )
            stack.enter_context(measures.pauses.watched())
            lag = asyncio.create_task(measures.lag.watch(), name="navi-loop-lag")
            stack.callback(lag.cancel)
            try:
                if await self._enter(stack, measures):
                    self.state, self.failure = "ok", None
                    await self._stop.wait()
            except Exception as error:  # noqa: BLE001 - a failed start is reported, and must not end the server
                self._log.exception("navi_wake_process_failed")
                self.failure = error if isinstance(error, NaviError) else NotReady("Navi could not start.")
                self.state = "failed"
                await self._stop.wait()
            self.state, self.wakes, self._waker = "stopping", None, None

    async def _enter(self, stack: AsyncExitStack, measures: ProcessMeasures) -> bool:
        """Open and start everything. False where the process stops before the database can be used."""
        database = await self._opened()
        if database is None:
            return False
        stack.push_async_callback(database.close)
        database.observe_commits(lambda seconds, _: measures.commits.note(seconds))
        # Late: the store needs pydantic, which the server's start does not wait for.
        from ...store.hub.server_wakes import ServerWakeStore
        from ...store.hub.user_servers import UserServerStore
        from ..user_servers import UserServers
        from .waker import ReportedServers, Waker

        hub, settings, replica = HubApi.of_environment(os.environ), self.settings, secrets.token_hex(8)
        stack.callback(hub.close)
        before = timedelta(seconds=settings.wake_before)
        wakes = ServerWakeStore(database, replica)
        reported = ReportedServers(wakes, UserServerStore(database, replica), hub, before=before)
        servers = UserServers(database, hub, reported, settings=settings, spawns=measures.spawns)
        await servers.start()
        stack.push_async_callback(servers.stop)
        waker = Waker(wakes, servers, reported, before=before, most_starting=settings.max_starting_servers)
        waker.start()
        stack.push_async_callback(waker.stop)
        self._database, self.wakes, self._waker = database, wakes, waker
        return True

    async def _opened(self) -> Database | None:
        """The database, once it can be used; None when the process stops before."""
        from ...store.engines import open_database  # late: as above

        delay = RETRY_FIRST
        while not self._stop.is_set():
            try:
                return await open_database(self.settings)
            except NaviError as error:
                if self.failure is None or self.failure.message != error.message:
                    self._log.error("navi_not_available code=%s message=%r", error.code, error.message)
                self.failure, self.state = error, "failed"
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay)
            delay = min(2 * delay, RETRY_MOST)
        return None


class WakeApiHandler(ApiHandler):
    """``navi/api/…``: ``health`` and ``wake``; there is no agent, and so nothing else."""

    def _body_limit(self) -> int:
        return LONGEST_REPORT

    async def _serve(self, path: str) -> None:
        process: WakeProcess = self.settings["navi_wake"]
        methods = {"health": ("GET", "HEAD"), "wake": ("PUT",)}.get(path)
        if methods is None:
            raise NotFound("This service has no agent: Navi is in your own server. It takes reports of servers alone.")
        if self.request.method not in methods:
            raise MethodNotAllowed(f"{path} takes {methods[0]} alone.")
        if path == "health":
            await self.authorize("read")
            await self._write(HttpReply(content=json.dumps(await process.health())))
            return
        await self.authorize("write")
        if process.wakes is None:
            raise process.failure or NotReady("Navi is still starting. Try again in a moment.")
        body = b"" if self._body is None else self._body.content()
        await process.wakes.report(_read_report(self.owner, body), now=now())
        process.look()
        await self._write(HttpReply(content=None, status=204))


def _read_report(owner: str, body: bytes) -> WakeReport:
    """A report of one of the owner's servers, checked by hand: it is short. Raises InvalidRequest, with the field."""
    from ...store.hub.server_wakes import WakeReport  # late: the store needs pydantic

    try:
        given = load_json(decoded(body))
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not valid JSON.", field="body") from None
    if not isinstance(given, dict) or "next_at" not in given:
        raise InvalidRequest("The body must be a JSON object with next_at.", field="next_at")
    for unknown in sorted(str(name)[:100] for name in given.keys() - _FIELDS):
        raise InvalidRequest(f"There is no field {well_formed(unknown)!r}.", field=well_formed(unknown))
    server = given.get("server", "")
    if not isinstance(server, str) or len(server) > LONGEST_NAME or "/" in server or well_formed(server) != server:
        raise InvalidRequest(f"server must be a text of at most {LONGEST_NAME} characters.", field="server")
    is_busy = _flag(given, "busy")
    return WakeReport(
        key=ServerKey(owner, server),
        next_at=_instant(given["next_at"]),
        busy_for=timedelta(seconds=_seconds(given)) if is_busy else timedelta(0),
        in_use=_flag(given, "in_use"),
    )


def _flag(given: dict[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false.", field=name)
    return value


def _seconds(given: dict[str, Any]) -> float:
    value = given.get("needed_for", NEED)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST_NEED:
        raise InvalidRequest(f"needed_for must be a number from 0 to {LONGEST_NEED:.0f}.", field="needed_for")
    return float(value)


def _instant(value: object) -> datetime | None:
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) and len(value) <= 100 else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or not 1970 < found.year < 9000:
        raise InvalidRequest("next_at must be an instant with its zone, such as 2026-05-04T09:00:00Z.", field="next_at")
    return found


class WakePageHandler(ExtensionHandlerMixin, JupyterHandler):
    """The page: what this service is."""

    auth_resource = "navi"

    @web.authenticated
    @authorized("read")  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """A few sentences."""
        self.set_header("Cache-Control", "no-store")
        await self.finish(_PAGE.format(home=f"{os.environ.get('JUPYTERHUB_BASE_URL', '/')}hub/home"))


class WakeServer(HubServer):
    """The Jupyter server of ``navi hub --wake-only``."""

    extension_package = "navi_jupyter.hub.wake"


class WakeExtension(HubExtension):
    """Navi's service without an agent."""

    serverapp_class = WakeServer
    _wake: WakeProcess | None = None

    @classmethod
    def get_extension_package(cls) -> str:
        return WakeServer.extension_package

    @property
    def readiness(self) -> str:
        """See ``HubExtension``."""
        return "starting" if self._wake is None else self._wake.state

    def initialize_settings(self) -> None:
        """What handlers need; the runtime of an agent is never started."""
        super().initialize_settings()
        self._wake = self.settings["navi_wake"] = WakeProcess(self.read_settings(), self.log)

    def initialize_handlers(self) -> None:
        """The page, the two routes, and the answer to probes."""
        self.handlers.extend(
            [
                (r"/?", WakePageHandler),
                (r"/navi/?", WakePageHandler),
                (r"/navi/api(?:/(.*))?", WakeApiHandler),
                (r"/ready", ReadyHandler, {"extension": self}),
            ]
        )

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Called when the loop runs."""
        if self.lifecycle is None or self._wake is None:
            return
        remember_secrets(serverapp, self.lifecycle.kernel_token.value)
        self._wake.start(self.lifecycle.process)
        self._looking = watch_tokens(serverapp, self.lifecycle.unfinished, self.log)

    async def stop_extension(self) -> None:
        """Called when the server shuts down, also when it never started."""
        if self._wake is not None:
            await self._wake.stop()
        await super().stop_extension()
