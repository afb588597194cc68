"""The composition root: builds every part, gives each what it needs, starts and stops them in order.

The one place that knows which store, which agent, which scheduler. Not responsible for when it is entered and left:
that is ``lifecycle``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from jupyter_core.paths import jupyter_config_path

from ..agent.mcp.config import ConfigFiles
from ..agent.mcp.pool import McpPool
from ..agent.mcp.tools import McpTools
from ..agent.registry import AgentParts, default_parts
from ..agent.router import AgentRouter, Backends
from ..agent.tools.base import Tool, ToolNote
from ..agent.tools.kernel_functions import KernelTools
from ..clock import now
from ..commands import Acceptance, Command, Prompt
from ..errors import NaviError, SessionNotFound, StoreError
from ..jupyter.kernels.jupyter_services import JupyterServices
from ..log_setup import get_logger, send_to
from ..model.attachments import Attachment
from ..model.runs import Permission
from ..model.sessions import USER, Session
from ..orchestrator.dependencies import ToolServices
from ..orchestrator.orchestrator import Orchestrator
from ..ports.jupyter import JupyterAccess
from ..scheduling.scheduler import Scheduler
from ..scheduling.service import RecallService
from ..settings import Settings
from ..store.attachments import AttachmentStore
from ..store.memory import FactStore
from ..store.sqlite import SqliteStore
from ..triggers.watcher import Watcher
from . import wire
from .attaching import attach
from .bench import Bench
from .eyes import Elsewhere, SubmitWithPictures, watcher_of, why_not_watched
from .lifecycle import LoopLag
from .metrics import NaviCollector
from .reaching import Reaching
from .rest.routes import ROUTES
from .rest.routing import parse, read_cursor

_log = get_logger("server")


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """What handlers work with."""

    settings: Settings
    store: SqliteStore
    orchestrator: Orchestrator
    recalls: RecallService
    scheduler: Scheduler
    watcher: Watcher
    memory: FactStore
    attachments: AttachmentStore
    jupyter: JupyterAccess
    kernel_tools: KernelTools
    backends: Backends
    agent_parts: AgentParts
    mcp: McpPool
    reaching: Reaching
    lag: LoopLag
    routes = ROUTES

    async def submit(self, session_id: str, text: str, *, owner: str) -> dict[str, Any]:
        """A command as JSON text, from a socket: what ``accepted`` says. Raises any NaviError."""
        command: Command = parse("Command", text)
        acceptance = await self.give(session_id, command, owner=owner)
        return acceptance.wire() | {"type": command.type}

    async def give(self, session_id: str, command: Command, *, owner: str) -> Acceptance:
        """A command to a session, with what is attached to it. Raises any NaviError."""
        acceptance = await self._give(session_id, command, owner=owner)
        if isinstance(command, Prompt):
            await self.recalls.occurrences.user_wrote(session_id, now())
        return acceptance

    async def _give(self, session_id: str, command: Command, *, owner: str) -> Acceptance:
        attached: Sequence[Attachment] = ()
        if isinstance(command, Prompt) and (command.images or command.files):
            await self.session(session_id, owner=owner)
            attached = await attach(
                command,
                session_id=session_id,
                owner=owner,
                attachments=self.attachments,
                files=self.jupyter.files,
                max_bytes=self.settings.max_attachment_bytes,
            )
        return await self.orchestrator.submit(session_id, command, user_id=owner, origin=USER, attachments=attached)

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
        if self.settings.keep_alive_for_recalls and self.scheduler.awake:
            counts["recalls"] = self.scheduler.open
        return {name: count for name, count in counts.items() if count}

    def profiles(self) -> tuple[wire.ProfileInfo, ...]:
        """For ``GET profiles``."""
        return tuple(wire.ProfileInfo.model_validate(entry) for entry in self.agent_parts.profiles.describe())

    async def models(self) -> tuple[wire.ModelInfo, ...]:
        """For ``GET models``: what is in use here comes first. Servers at known addresses are asked what they have."""
        return tuple(
            wire.ModelInfo(
                name=entry["name"], provider=entry["provider"], available=entry["usable"], why=entry["reason"]
            )
            for entry in await self.backends.list_models(self.settings.default_model)
        )

    def tool_infos(self, tools: Sequence[Tool]) -> tuple[wire.ToolInfo, ...]:
        """Tools as lists show them."""
        notes = (ToolNote(name=tool.name, source=tool.source, tool=tool) for tool in tools)
        return tuple(_tool_info(note, self.agent_parts.permissions.by_default) for note in notes)

    async def tools(self, session_id: str | None, *, owner: str) -> list[wire.ToolInfo]:
        """For ``GET tools``: all that are known, or those of a session and what holds there. Raises SessionNotFound."""
        if session_id is None:
            notes = await self.agent_parts.known()
            return [_tool_info(note, self.agent_parts.permissions.by_default) for note in notes]
        session = await self.session(session_id, owner=owner)
        profile = self.agent_parts.profiles.get(session.profile)
        context = self.orchestrator.context_of(session)
        decide = self.agent_parts.permissions.decide
        return [
            _tool_info(note, lambda tool: decide(tool, profile, context))
            for note in await self.agent_parts.known(context)
            if note.tool is None or profile.offers(note.tool)
        ]


def _tool_info(note: ToolNote, permission: Callable[[Tool], Permission]) -> wire.ToolInfo:
    tool = note.tool
    return wire.ToolInfo(
        name=note.name,
        description=tool.description if tool else "",
        parameters=dict(tool.parameters) if tool else {},
        effect=tool.effect if tool else None,
        source=note.source,
        permission=permission(tool) if tool else None,
        available=note.why is None,
        why=note.why,
    )


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


SWEEP_EVERY = 6 * 3600.0
"""Seconds between looks for attachments that no session shows any more."""


@asynccontextmanager
async def _swept(attachments: AttachmentStore) -> AsyncIterator[None]:
    async def sweep() -> None:
        while True:
            try:
                await attachments.sweep()
            except NaviError as error:
                _log.error("attachments_not_swept", error=error.message)
            await asyncio.sleep(SWEEP_EVERY)

    task = asyncio.create_task(sweep(), name="navi-attachments-sweep")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def runtime(
    settings: Settings,
    lag: LoopLag,
    log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    parts: JupyterServices | None = None,
) -> AsyncIterator[Services]:
    """Everything, started: what dead servers left open is closed before anybody is let in.

    Our log lines go where those of ``log`` go. Without ``parts`` there are no kernels, notebooks and files.
    Raises StoreError and its kinds when the database can not be used.
    """
    send_to(log)
    bench = Bench(parts)
    store = await SqliteStore.open(database_path(settings.database_url))
    try:
        memory = FactStore(store, max_facts_per_user=settings.max_facts_per_user)
        attachments = AttachmentStore(
            store,
            max_bytes=settings.max_attachment_bytes,
            max_bytes_per_user=settings.max_attachments_bytes_per_user,
        )
        jupyter = bench.jupyter
        mcp = McpPool(
            ConfigFiles(settings.mcp_config),
            root=Path(parts.root_dir) if parts else None,
            on_status=lambda event: orchestrator.tell_followers(event),  # of the orchestrator made below
        )
        agent_parts = default_parts(
            config_path=jupyter_config_path(),
            ceiling={pattern: Permission(most) for pattern, most in settings.tool_ceiling.items()},
            check_model=Backends.validate,
            sources=(
                bench.kernel_tools,
                McpTools(mcp, lambda name: agent_parts.profiles.get(name)),
            ),
        )
        backends = Backends(agent_parts)
        orchestrator = Orchestrator(
            store,
            AgentRouter(backends),
            settings=settings,
            gear=ToolServices(jupyter=jupyter, memory=memory, attachments=attachments, spending=store),
            check_model=_check(backends.validate),
            check_profile=_check(agent_parts.profiles.get),
            model_of_profile=agent_parts.profiles.model_of,
            limits_of_profile=agent_parts.profiles.limits_of,
        )
        recalls = RecallService(
            store,
            max_recalls_per_user=settings.max_recalls_per_user,
            min_interval=timedelta(seconds=settings.min_recall_interval),
            changed=lambda: scheduler.wake(),
            whens_changed=lambda: watcher.changed(),
            why_not_watched=why_not_watched(parts),
            targets=lambda: reaching.notify.names(),
        )
        scheduler = Scheduler(
            store,
            SubmitWithPictures(orchestrator.submit, attachments),
            server_id=orchestrator.server.id,
            busy_delay=timedelta(seconds=settings.recall_busy_delay),
            whens_changed=lambda: watcher.changed(),
            notices_changed=lambda: reaching.notify.wake(),
        )
        watcher = watcher_of(
            recalls.occurrences,
            parts,
            session=store.session,
            kernels=bench.jupyter.kernels,
            iopub=bench.iopub,
            attachments=attachments,
            elsewhere=Elsewhere(store.known_servers, orchestrator.server),
        )
        reaching = Reaching.of(
            store, parts, allow_private=settings.notify_allow_private, user_read=recalls.occurrences.user_read
        )
        await orchestrator.start(recalls, scheduler.on_run_ended, reaching.on_run_ended(orchestrator))
        try:
            await scheduler.start()
            await watcher.start()
            reaching.notify.start()
            try:
                services = Services(
                    settings=settings,
                    store=store,
                    orchestrator=orchestrator,
                    recalls=recalls,
                    scheduler=scheduler,
                    watcher=watcher,
                    memory=memory,
                    attachments=attachments,
                    jupyter=jupyter,
                    kernel_tools=bench.kernel_tools,
                    backends=backends,
                    agent_parts=agent_parts,
                    mcp=mcp,
                    reaching=reaching,
                    lag=lag,
                )
                with NaviCollector(services):
                    async with _swept(attachments):
                        yield services
            finally:
                await watcher.stop()
                await reaching.notify.stop()
                await scheduler.stop()
        finally:
            await orchestrator.stop()
            await mcp.stop()  # after the runs, whose calls it carries
    finally:
        await bench.close()
        await store.close()
