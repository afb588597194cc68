"""How each part of the runtime is built from the settings and from what the Jupyter server offers.

Nothing is started here. Not responsible for the order of start and stop (``runtime``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_config_path

from ..agent.mcp.config import ConfigFiles
from ..agent.mcp.pool import McpPool
from ..agent.mcp.run_tools import McpTools, ProfileOf
from ..agent.mcp.user_config import StoredServers
from ..agent.mcp.user_servers import McpServers
from ..agent.providers.stored_settings import STORED
from ..agent.registry import AgentParts, default_parts
from ..agent.router import AgentRouter
from ..agent.tools.kernel_functions import KernelTools
from ..clock import SystemClock
from ..commands import Acceptance, Command, Prompt
from ..errors import AttachmentNotFound
from ..events import Custom
from ..jupyter.jobs.service import NotebookJobService
from ..jupyter.kernels.iopub import IopubReader
from ..jupyter.kernels.jupyter_services import LENT_KERNELS, JupyterServices
from ..jupyter.kernels.loans import KernelLoans
from ..jupyter.kernels.observer import KernelObserver
from ..jupyter.kernels.service import KernelService
from ..jupyter.kernels.user_cells import UserCells
from ..jupyter.notebooks.links import NotebookLinks
from ..jupyter.notebooks.open_pages import OpenPages
from ..jupyter.notebooks.save_hook import IdSaveHook
from ..jupyter.notebooks.service import NotebookService, files_of
from ..lease_file import LeaseFile
from ..log_setup import get_logger
from ..model.attachments import Attachment
from ..model.runs import Permission
from ..model.sessions import Origin, Session
from ..notifications.apprise_sender import AppriseSender, why_unusable
from ..notifications.service import NotificationService
from ..notifications.targets import TargetFiles
from ..notifications.user_targets import UserTargets
from ..notifications.webhook_sender import WebhookSender, why_unusable_address
from ..orchestrator.dependencies import ToolServices
from ..orchestrator.orchestrator import Orchestrator
from ..orchestrator.upkeep.servers import OtherServers
from ..ports.agent import Attachments
from ..ports.jupyter import LinkStore, NotebookMark
from ..ports.jupyter_access import JupyterAccess, JupyterOfRun
from ..ports.recalls import Occurrences
from ..ports.tracing import Tracing
from ..ports.transactions import Server
from ..scheduling.mutations import WhensChanged
from ..scheduling.scheduler import Scheduler
from ..settings import Settings
from ..store.attachments import AttachmentStore
from ..store.database import Database
from ..store.engines import open_with_blobs
from ..store.memory import FactStore, PreferenceStore
from ..store.notebooks.edits import NotebookEditStore
from ..store.notices import ResultStore, StoredNotices
from ..store.user_configuration import UserConfigurationStore
from ..telemetry.spans import traced
from ..triggers.watcher import Watcher
from .bench.links import ServerLinks
from .bench.server_tools import ServerTools, contexts_of
from .bench.user_calls import RemoteWatchers
from .identity import connection_file, server_address
from .services import RecallWatcher

log = get_logger("server")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stores:
    """The database, and what else is kept in it or beside it."""

    sessions: Database
    memory: FactStore
    preferences: PreferenceStore
    attachments: AttachmentStore
    edits: NotebookEditStore
    results: ResultStore
    configurations: UserConfigurationStore


async def build_store(settings: Settings) -> Stores:
    """Open, which creates or migrates the tables. Raises StoreError and its kinds when the database cannot be used."""
    store, blobs = await open_with_blobs(settings)
    largest, most = settings.max_attachment_bytes, settings.max_attachments_bytes_per_user
    return Stores(
        sessions=store,
        memory=FactStore(store, max_facts_per_user=settings.max_facts_per_user),
        preferences=PreferenceStore(store),
        edits=NotebookEditStore(store),
        attachments=AttachmentStore(store, blobs=blobs, max_bytes=largest, max_bytes_per_user=most),
        results=ResultStore(store),
        configurations=UserConfigurationStore(store),
    )


class Workspace:
    """Kernels, notebooks and files of the Jupyter server; without one only kernels that waiting cells lend. Opens
    nothing until it is used."""

    def __init__(
        self,
        jupyter: JupyterServices | None,
        store: LinkStore | None,
        *,
        pages: OpenPages | None = None,
        on_moved: Callable[[], None] = lambda: None,
    ) -> None:
        """``store`` None: the paths of sessions are taken as they are. ``on_moved``: called when notebooks or files
        have other paths."""
        self._jupyter = jupyter
        # Beside the connection file, where only this user reads. Kernels of another machine do not find it.
        self.lease_file = LeaseFile(None if jupyter is None else connection_file().parent)
        self.iopub = IopubReader()  # shared by what executes in a kernel and what observes it
        self.cells = None if jupyter is None else UserCells(jupyter, self.iopub)
        on_code = self.cells.note_code if self.cells else lambda _: None
        self.loans = KernelLoans(jupyter, on_code, lease_path=lambda: self.lease_file.path)
        links = self.links = (
            None
            if jupyter is None or store is None
            else NotebookLinks(
                jupyter,
                store,
                mark=lambda path: self.mark(path),
                remove_id=lambda path, mark: self.remove_id(path, mark),
                on_moved=on_moved,
            )
        )
        self.pages = pages
        self.locate = None if links is None else links.located
        kernels = self._kernels = KernelService(
            jupyter or LENT_KERNELS,
            self.iopub,
            loans=self.loans,
            on_lost=lambda *lost: self.kernel_tools.lost(*lost),
            on_code=on_code,
            locate=self.locate,
            lease_path=lambda: self.lease_file.path,
        )
        self.notebooks = None if jupyter is None else NotebookService(jupyter, kernels, links, pages)
        jobs = (
            None
            if jupyter is None
            else NotebookJobService(jupyter, lease_path=lambda: self.lease_file.path, on_code=on_code)
        )
        self.access = JupyterAccess(
            kernels=kernels,
            notebooks=self.notebooks,
            files=None if jupyter is None else files_of(jupyter),
            jobs=jobs,
            pages=pages,
        )
        self.kernel_tools = KernelTools(process_of=kernels.process_of, runs_ours=kernels.runs_ours, known=kernels.knows)
        """Functions of the kernels' users: a source of tools."""
        self.runs_ours = kernels.runs_ours

    def of(self, owner: str, server: str | None = None, /) -> JupyterAccess:  # noqa: ARG002 - the same for all users of this server
        """What requests of a user reach."""
        return self.access

    async def for_run(self, session: Session, origin: Origin) -> JupyterAccess:  # noqa: ARG002
        """What a run of a user's reaches."""
        return self.access

    def carry_ids(
        self, store: Database, *, saved: Callable[[str, str], Awaitable[None]], save_transcripts: bool
    ) -> Callable[[], None]:
        """Have each save of a notebook carry the id of its session; ends with a call of what is returned."""
        if self._jupyter is None or self.notebooks is None:
            return lambda: None
        hook = IdSaveHook(
            self._jupyter.contents_manager,
            store.links_now,
            self.notebooks.mark_now,
            saved,
            save_transcripts=save_transcripts,
        )
        hook.install()
        return hook.remove

    async def mark(self, path: str) -> NotebookMark | None:
        """What the notebook at a path carries; None: there is none."""
        return None if self.notebooks is None else await self.notebooks.mark(path)

    async def remove_id(self, path: str, mark: NotebookMark) -> bool:
        """Have a notebook carry no id, if it is still the one that had these marks."""
        return self.notebooks is not None and await self.notebooks.write_id(path, None, expected=mark)

    def start(self) -> None:
        """Follow what happens to notebooks, and which cells run."""
        if self.links is not None:
            self.links.start()
        if self.cells is not None:
            self.cells.start()

    async def close(self) -> None:
        """Close the connections to kernels; the kernels themselves go on."""
        self.lease_file.remove()
        if self.cells is not None:
            await self.cells.close()
        if self.links is not None:
            await self.links.stop()
        if self.notebooks is not None:
            await self.notebooks.close()
        await self._kernels.close()


def build_agent(
    settings: Settings, mcp: McpServers, kernel_tools: KernelTools, links: ServerLinks | None
) -> AgentParts:
    """Profiles, tools, permissions and context: built in, of packages, of files, of MCP servers, of linked servers."""
    STORED.allow(settings.store_keys)
    # Looks the profiles up when a run asks for tools: they are made by the very call that gets it.
    profile_of: ProfileOf = lambda name, own: parts.of(own).profiles.get(name)  # noqa: E731
    parts: AgentParts = default_parts(
        config_path=jupyter_config_path(),
        ceiling={pattern: Permission(most) for pattern, most in settings.tool_ceiling.items()},
        check_model=AgentRouter.validate,
        sources=(kernel_tools, McpTools(mcp, profile_of)),
        last=() if links is None else (ServerTools(links, profile_of),),
        packages=settings.package_tools,
        more_context=None if links is None else partial(contexts_of, links),
    )
    return parts


def build_mcp(
    settings: Settings,
    jupyter: JupyterServices | None,
    *,
    on_status: Callable[[Custom, str | None], Awaitable[None]],
    lease_file: LeaseFile,
) -> McpServers:
    """The MCP servers of the configuration files and of users; each starts when a run first needs it.

    ``on_status``: awaited with each change of a status, and the user whose own server it is.
    """

    def pool_of(owner: str, servers: StoredServers) -> McpPool:
        return McpPool(servers, on_status=lambda event: on_status(event, owner))

    shared = McpPool(
        ConfigFiles(settings.mcp_config),
        root=Path(jupyter.root_dir) if jupyter else None,
        on_status=lambda event: on_status(event, None),
        lease_file=lease_file,
    )
    return McpServers(shared, new_pool=pool_of, allow_private=settings.mcp_allow_private)


def build_orchestrator(
    settings: Settings,
    stores: Stores,
    workspace: Workspace,
    parts: AgentParts,
    backends: AgentRouter,
    spans: Tracing,
    *,
    jupyter_for: JupyterOfRun,
    model_of_owner: Callable[[str], Awaitable[str]],
) -> Orchestrator:
    """Sessions and their runs."""
    return Orchestrator(
        stores.sessions,
        traced(backends, spans),
        settings=settings,
        tool_services=ToolServices(
            jupyter_for=jupyter_for,
            memory=stores.memory,
            attachments=stores.attachments,
            spending=stores.sessions,
            edits=stores.edits,
            results=stores.results,
        ),
        check_model=backends.check,
        check_profile=lambda name, own: parts.of(own).profiles.get(name),
        model_of_profile=lambda name, own: parts.of(own).profiles.model_of(name),
        model_of_owner=model_of_owner,
        limits_of_profile=lambda name, own: parts.of(own).profiles.limits_of(name),
        configuration_of=stores.configurations.read,
        lease_renewed=workspace.lease_file.write,
    )


def build_scheduler(
    settings: Settings,
    stores: Stores,
    orchestrator: Orchestrator,
    *,
    full_text: Callable[[str], str],
    triggers_changed: WhensChanged,
    notices_changed: Callable[[], None],
    spans: Tracing,
) -> Scheduler:
    """What makes recalls happen, in this server process."""
    return Scheduler(
        stores.sessions,
        PromptSubmitter(orchestrator.submit, stores.attachments),
        server_id=orchestrator.server.id,
        busy_delay=timedelta(seconds=settings.recall_busy_delay),
        trusted=orchestrator.trust.check,
        whens_changed=triggers_changed,
        notices_changed=notices_changed,
        full_text=full_text,
        spans=spans,
    )


class PromptSubmitter:
    """The scheduler's way to a session: looks up the attachments that a recall's prompt names by their ids."""

    def __init__(self, submit: Callable[..., Awaitable[Acceptance]], attachments: Attachments) -> None:
        self._submit = submit
        self._attachments = attachments

    async def __call__(self, session_id: str, command: Command, *, user_id: str, origin: Origin) -> Acceptance:
        """As the orchestrator's. Attachments that are gone are left out: the prompt matters without them too."""
        if not isinstance(command, Prompt) or not command.images:
            return await self._submit(session_id, command, user_id=user_id, origin=origin)
        found: dict[str, Attachment] = {}
        for ref in command.images:
            try:
                found[ref.id or ""] = await self._attachments.find(ref.id or "", owner=user_id)
            except AttachmentNotFound:
                log.warning("attachment_gone", session_id=session_id, attachment_id=ref.id)
        kept = command.model_copy(update={"images": tuple(ref for ref in command.images if ref.id in found)})
        return await self._submit(session_id, kept, user_id=user_id, origin=origin, attachments=tuple(found.values()))


def build_triggers(
    occurrences: Occurrences,
    jupyter: JupyterServices | None,
    links: ServerLinks | None,
    *,
    stores: Stores,
    workspace: Workspace,
    server: Server,
) -> RecallWatcher:
    """What watches kernels and files for recalls. ``links``: of users' servers, where this one has none itself."""
    if links is not None:
        return RemoteWatchers(links)
    if jupyter is None:
        raise ValueError("kernels and files are those of this server, or of those that are linked")
    others = OtherServers(stores.sessions.known_servers, server)
    return Watcher(
        occurrences,
        session=stores.sessions.session,
        observer=KernelObserver(
            jupyter, workspace.iopub, None if workspace.links is None else workspace.links.located_often
        ),
        kernels=workspace.access.kernels,
        attachments=stores.attachments,
        root=Path(jupyter.root_dir),
        elsewhere=lambda _, known: others(known),
        locate=workspace.locate,
    )


def _target_checks(settings: Settings) -> dict[str, Any]:
    """What is wrong with the address of a target, as the administrator allows it: for files, and for users' own."""
    private = settings.notify_allow_private
    return {
        "check": lambda url: why_unusable(url, allow_private=private),
        "check_webhook": lambda url: why_unusable_address(url, allow_private=private),
    }


def build_user_targets(settings: Settings, stores: Stores) -> UserTargets:
    """The targets of notifications that users have of their own."""
    return UserTargets(stores.configurations, **_target_checks(settings))


def build_notifications(
    settings: Settings, stores: Stores, jupyter: JupyterServices | None, own: UserTargets
) -> NotificationService:
    """What sends notifications, with links to this server where its address is known."""
    allow_private = settings.notify_allow_private
    serverapp = jupyter.settings.get("serverapp") if jupyter else None
    return NotificationService(
        stores.sessions,
        StoredNotices(stores.sessions),
        TargetFiles(jupyter_config_path, **_target_checks(settings)),
        AppriseSender(allow_private=allow_private),
        clock=SystemClock(),
        base_url=lambda: settings.public_url or (None if serverapp is None else server_address(serverapp)),
        webhooks=WebhookSender(allow_private=allow_private),
        own=own,
    )
