"""The composition root: builds every part, gives each what it needs, starts and stops them in order.

The one place that knows which store, which agent, which scheduler. Not responsible for when it is entered and left:
that is ``lifecycle``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..agent import profiles
from ..agent.backends import AgentRouter, Backends
from ..commands import Acceptance, Command
from ..errors import SessionNotFound, StoreError
from ..logs import send_to
from ..model import USER, Session
from ..orchestrator.orchestrator import Orchestrator
from ..orchestrator.session import Settings as SessionSettings
from ..recalls.scheduler import Scheduler
from ..recalls.service import RecallService
from ..store.sqlite import SqliteStore
from . import wire
from .lifecycle import LoopLag
from .metrics import NaviCollector
from .rest.routes import ROUTES
from .rest.table import parse, read_cursor
from .settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """What handlers work with."""

    settings: Settings
    store: SqliteStore
    orchestrator: Orchestrator
    recalls: RecallService
    scheduler: Scheduler
    backends: Backends
    lag: LoopLag
    routes = ROUTES

    async def submit(self, session_id: str, text: str, *, owner: str) -> dict[str, Any]:
        """A command as JSON text, from a socket: what ``accepted`` says. Raises any NaviError."""
        command: Command = parse("Command", text)
        acceptance: Acceptance = await self.orchestrator.submit(session_id, command, user_id=owner, origin=USER)
        return acceptance.wire() | {"type": command.type}

    def read_cursor(self, text: str) -> int:
        """``after`` of a socket. Raises InvalidRequest."""
        return read_cursor(text)

    async def session(self, session_id: str, *, owner: str) -> Session:
        """The session alone, without what goes on in it. Raises SessionNotFound, also for other people's."""
        session = await self.store.session(session_id)
        if session is None or session.owner != owner:
            raise SessionNotFound(f"There is no session {session_id[:100]}.")
        return session

    def activity(self) -> Mapping[str, int]:
        """What speaks against shutting an idle server down; empty when nothing does."""
        counts = {"runs": self.orchestrator.stats().runs}
        if self.settings.keep_alive_for_recalls:
            counts["recalls"] = self.scheduler.open
        return {name: count for name, count in counts.items() if count}

    def profiles(self) -> tuple[wire.ProfileInfo, ...]:
        """For ``GET profiles``."""
        return tuple(
            wire.ProfileInfo.model_validate(entry | {"available": True, "why": None}) for entry in profiles.describe()
        )

    def models(self) -> tuple[wire.ModelInfo, ...]:
        """For ``GET models``: what is in use here comes first."""
        return tuple(
            wire.ModelInfo(
                name=entry["name"], provider=entry["provider"], available=entry["usable"], why=entry["reason"]
            )
            for entry in self.backends.describe(self.settings.default_model)
        )

    def tools(self) -> tuple[wire.ToolInfo, ...]:
        """For ``GET tools``."""
        return tuple(
            wire.ToolInfo.model_validate(entry | {"available": True, "why": None})
            for entry in profiles.describe_tools()
        )

    def mcp(self) -> tuple[wire.McpServerInfo, ...]:
        """For ``GET mcp``."""
        return tuple(wire.McpServerInfo.model_validate(entry) for entry in profiles.describe_mcp())


def database_path(url: str) -> Path:
    """The file of a ``sqlite:///`` URL, or a plain path. Raises StoreError for other databases."""
    if "://" not in url:
        return Path(url).expanduser()
    parts = urlsplit(url)
    if parts.scheme not in ("sqlite", "sqlite+aiosqlite") or parts.netloc or not parts.path.strip("/"):
        raise StoreError(f"database_url must be like sqlite:////home/me/navi.db; it is {parts.scheme}://…")
    # As SQLAlchemy reads it: three slashes before a relative path, four before an absolute one.
    return Path(unquote(parts.path[1:])).expanduser()


def _check(resolve: Callable[[str], object]) -> Callable[[str], None]:
    def check(name: str) -> None:
        resolve(name)

    return check


@asynccontextmanager
async def runtime(
    settings: Settings, lag: LoopLag, log: logging.Logger | logging.LoggerAdapter[logging.Logger]
) -> AsyncIterator[Services]:
    """Everything, started: what dead servers left open is closed before anybody is let in.

    Our log lines go where those of ``log`` go. Raises StoreError and its kinds when the database can not be used.
    """
    send_to(log)
    store = await SqliteStore.open(database_path(settings.database_url))
    try:
        backends = Backends()
        orchestrator = Orchestrator(
            store,
            AgentRouter(backends),
            settings=SessionSettings(
                max_iterations=settings.max_iterations,
                run_timeout=settings.run_timeout,
                stop_deadline=settings.stop_deadline,
                max_concurrent_runs=settings.max_concurrent_runs,
                max_sessions_per_user=settings.max_sessions_per_user,
            ),
            default_model=settings.default_model,
            default_profile=settings.default_profile,
            replay_buffer_size=settings.replay_buffer_size,
            compact_after=timedelta(seconds=settings.compact_after),
            check_model=_check(backends.validate),
            check_profile=_check(profiles.profile_of),
        )
        store.on_append = orchestrator.log.appended
        recalls = RecallService(store, max_recalls_per_user=settings.max_recalls_per_user)
        scheduler = Scheduler(
            store,
            orchestrator.submit,
            server_id=orchestrator.server.id,
            busy_delay=timedelta(seconds=settings.recall_busy_delay),
        )
        recalls.changed = scheduler.wake
        await orchestrator.start(recalls, scheduler.on_run_ended)
        try:
            await scheduler.start()
            try:
                services = Services(
                    settings=settings,
                    store=store,
                    orchestrator=orchestrator,
                    recalls=recalls,
                    scheduler=scheduler,
                    backends=backends,
                    lag=lag,
                )
                with NaviCollector(services):
                    yield services
            finally:
                await scheduler.stop()
        finally:
            await orchestrator.stop()
    finally:
        await store.close()
