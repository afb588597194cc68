"""The runtime of one server process: every part, started in order, and stopped in the reverse order.

The composition root, with ``builders``: the only place that knows which store, which agent and which scheduler there
are. Not responsible for when the runtime is entered and left (``lifecycle``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from jupyter_core.paths import jupyter_config_path

from .. import __version__
from ..agent.acp.agents import AgentCatalog
from ..agent.acp.backend import AgentProgramBackend
from ..agent.acp.programs import AgentPrograms
from ..agent.notebook_jobs import check_job
from ..agent.profiles.prompt_files import PROMPTS_FOLDER, PromptBook
from ..agent.registry import AgentParts
from ..agent.router import AgentRouter
from ..errors import NaviError
from ..jupyter.kernels.jupyter_services import JupyterServices
from ..jupyter.kernels.observer import why_not_watched
from ..jupyter.notebooks.open_pages import OpenPages
from ..jupyter.notebooks.undo import RunEdits
from ..log_setup import get_logger, send_to
from ..model.recalls import NotebookJob
from ..model.sessions import OriginKind, Run, Session
from ..notifications.service import NotificationService
from ..orchestrator.orchestrator import Orchestrator
from ..orchestrator.session_directory import SessionLinks
from ..orchestrator.session_list.service import SessionListService
from ..orchestrator.session_list.titles import SessionTitles
from ..ports.agent import ToolContext
from ..ports.jupyter_access import JupyterOf, ServerStarter
from ..ports.run_tools import RunToolsRegistry
from ..ports.tracing import Tracing
from ..scheduling.scheduler import Scheduler
from ..scheduling.service import RecallQueries, RecallService
from ..settings import Settings
from ..store.attachments import AttachmentStore
from ..store.database import Database
from ..store.session_list.index import SearchIndex
from ..store.session_list.read_marks import ReadMarks
from ..telemetry.spans import opened
from .bench.links import ServerLinks, ask_scope
from .bench.remote_ports import ServiceWorkspace
from .bench.user_calls import UserCalls
from .builders import (
    Stores,
    Workspace,
    build_agent,
    build_mcp,
    build_notifications,
    build_orchestrator,
    build_scheduler,
    build_store,
    build_triggers,
    build_user_targets,
)
from .kernel_scope import KernelScope
from .mcp_server.documents import UserDocuments
from .mcp_server.endpoint import McpEndpoint
from .mcp_server.program_runs import ProgramRuns
from .mcp_server.user_offer import UserOffers
from .mentions.candidates import MentionIndex
from .mentions.contents import MentionReader
from .metrics import ProcessMeasures
from .model_choice import ModelChoice
from .notebook_sessions import NotebookSessions
from .services import AgentServices, DrawnQuestions, RecallServices, RecallWatcher, Services, SessionServices

_log = get_logger("server")

SWEEP_EVERY = 6 * 3600.0  # seconds between two searches for attachments that no session shows any more


NewStarter = Callable[[Database, ServerLinks, ProcessMeasures], ServerStarter]


@asynccontextmanager
async def runtime(
    settings: Settings,
    process: ProcessMeasures,
    log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    jupyter: JupyterServices | None = None,
    new_starter: NewStarter | None = None,
) -> AsyncIterator[Services]:
    """Everything, started: what dead servers left open is closed before the first request is served.

    ``new_starter``: makes what starts the servers of users, where this one has no kernels itself.
    Our log lines go where those of ``log`` go. Without ``jupyter`` there are no notebooks and files, and only
    kernels that are lent.
    Raises StoreError and its kinds when the database cannot be used.
    """
    send_to(log)
    # Whatever was entered or started is left in the reverse order, also when a later part fails to start.
    async with AsyncExitStack() as stack:
        stores = await build_store(settings)
        stack.push_async_callback(stores.sessions.close)
        stores.sessions.observe_commits(lambda seconds, _: process.commits.note(seconds))
        spans = await asyncio.to_thread(
            opened, switched_on=settings.otel, content=settings.otel_content, version=__version__
        )
        stack.push_async_callback(spans.close)  # after the runs have ended
        notebook_links = SessionLinks(
            stores.sessions, lambda source, target, *whose: recalls.follow_files(source, target, *whose)
        )
        pages = OpenPages()
        workspace = Workspace(jupyter, notebook_links, pages=pages, on_moved=lambda: recalls.watcher.changed())
        stack.push_async_callback(workspace.close)
        mcp = build_mcp(
            settings,
            jupyter,
            on_status=lambda event, owner: orchestrator.emit_to_followers(event, owner=owner),
            lease_file=workspace.lease_file,
        )
        stack.push_async_callback(mcp.stop)  # after the runs, whose calls it carries
        links: ServerLinks | None = None
        if jupyter is None:
            links = ServerLinks(stores.sessions.known_servers, serve=lambda *call: user_calls.serve(*call))
        parts = build_agent(settings, mcp, workspace.kernel_tools, links)
        run_tools = RunToolsRegistry()
        programs = _build_programs(settings, stores, workspace, run_tools, jupyter)
        stack.push_async_callback(programs.stop)
        backends = AgentRouter(parts, AgentProgramBackend(parts, programs))
        choice = ModelChoice(stores.preferences, backends, default=settings.default_model)
        starter = None if links is None or new_starter is None else new_starter(stores.sessions, links, process)
        jupyter_of, jupyter_for = workspace.of, workspace.for_run
        if links is not None:
            service = ServiceWorkspace(
                links,
                workspace.access,
                lambda session_id: workspace.loans.of(session_id) is not None,
                starter=starter,
                needs_of=lambda recall: recalls.needs_of(recall),
            )
            jupyter_of, jupyter_for = service.of, service.for_run
        orchestrator = build_orchestrator(
            settings,
            stores,
            workspace,
            parts,
            backends,
            spans,
            jupyter_for=jupyter_for,
            model_of_owner=choice.of_new_session,
        )
        if starter is not None:
            await starter.start()
            stack.push_async_callback(starter.stop)
        orchestrator.log.observe_lag(process.signals.note)
        prompts = PromptBook([Path(folder, PROMPTS_FOLDER) for folder in jupyter_config_path()])
        built = (settings, stores, workspace, orchestrator, parts)
        recalls = _build_recalls(*built, jupyter, links, jupyter_of, prompts, spans)
        marks = ReadMarks(stores.sessions)
        if links is not None:
            user_calls = UserCalls(
                links, stores.sessions, recalls.service.occurrences, stores.attachments, notebook_links
            )
            links.start(orchestrator.server.id)
            stack.push_async_callback(links.stop)  # after the runs, whose calls they carry
        session_list = _build_session_list(settings, stores, orchestrator, recalls.service, backends)
        workspace.start()
        await orchestrator.start(
            recalls.service,
            recalls.scheduler.on_run_ended,  # first: it settles the firing that the notification is about
            _on_run_ended(orchestrator, marks, recalls.notifications),
            session_list.run_ended,
            run_started=recalls.scheduler.on_run_started,
            server_left=recalls.scheduler.wake,
        )
        stack.push_async_callback(orchestrator.stop)
        # Only now: what the scheduler finds due is submitted to the orchestrator at once.
        await recalls.scheduler.start()
        stack.push_async_callback(recalls.scheduler.stop)
        recalls.notifications.start()
        stack.push_async_callback(recalls.notifications.stop)
        await recalls.watcher.start()
        stack.push_async_callback(recalls.watcher.stop)
        await stack.enter_async_context(_running(session_list.work(), "navi-session-list"))
        notebooks = NotebookSessions(
            orchestrator.sessions, stores.sessions, workspace.notebooks, jupyter, workspace.links
        )
        await stack.enter_async_context(_running(notebooks.upgrade(), "navi-notebooks-upgrade"))
        kept = settings.save_transcripts
        stack.callback(workspace.carry_ids(stores.sessions, saved=notebooks.saved, save_transcripts=kept))
        scope = KernelScope(
            jupyter,
            workspace.cells,
            workspace.loans,
            stores.sessions.works_for,
            ask_server=None if links is None else partial(ask_scope, links),
        )
        sessions = SessionServices(
            settings=settings,
            orchestrator=orchestrator,
            store=stores.sessions,
            attachments=stores.attachments,
            memory=stores.memory,
            read_marks=marks,
            jupyter_of=jupyter_of,
            notebooks=notebooks,
            edits=RunEdits(jupyter_of, stores.edits),
            pages=pages,
            session_list=session_list,
            prompts=prompts,
            mentions=MentionIndex(jupyter_of, session_list.reads, recalls.service.queries),
            contents=MentionReader(
                jupyter_of,
                session_list.reads,
                orchestrator.sessions,
                recalls.service.queries,
                max_bytes=settings.max_attachment_bytes,
            ),
            drawn=DrawnQuestions(),
            kernel_scope=scope,
            user_wrote=recalls.service.occurrences.user_wrote,
            user_read=recalls.service.occurrences.user_read,
        )
        mcp_endpoint = _build_mcp_endpoint(sessions, backends, parts, recalls.service.queries)
        stack.push_async_callback(mcp_endpoint.stop)
        services = Services(
            settings=settings,
            sessions=sessions,
            recalls=recalls,
            agent=AgentServices(
                settings=settings,
                orchestrator=orchestrator,
                parts=parts,
                backends=backends,
                choice=choice,
                mcp=mcp,
                configurations=stores.configurations,
                kernel_tools=workspace.kernel_tools,
            ),
            loans=workspace.loans,
            links=links,
            kernel_scope=scope,
            run_tools=run_tools,
            mcp_endpoint=mcp_endpoint,
            process=process,
            runs_ours=workspace.runs_ours,
        )
        await stack.enter_async_context(_running(_sweep(stores.attachments), "navi-attachments-sweep"))
        yield services


def _build_mcp_endpoint(
    sessions: SessionServices, backends: AgentRouter, parts: AgentParts, queries: RecallQueries
) -> McpEndpoint:
    """The MCP server. Nothing of it is started before its first request."""
    documents = UserDocuments(
        sessions.orchestrator,
        sessions.session_list.reads,
        sessions.jupyter_of,
        parts,
        sessions.prompts,
        max_bytes=sessions.settings.max_attachment_bytes,
    )
    offers = UserOffers(sessions, ProgramRuns(sessions, backends.calls), parts, queries, documents)
    return McpEndpoint(offers.of, max_message_bytes=sessions.settings.max_message_bytes)


def _build_programs(
    settings: Settings,
    stores: Stores,
    workspace: Workspace,
    run_tools: RunToolsRegistry,
    jupyter: JupyterServices | None,
) -> AgentPrograms:
    """The agent programs of models ``acp:<name>``; none is started before it is used."""

    def mcp_url() -> str | None:
        # Programs run on this machine; through a Unix socket none of them speaks HTTP.
        serverapp = None if jupyter is None else jupyter.settings.get("serverapp")
        if serverapp is None or serverapp.sock:
            return None
        return f"{str(serverapp.connection_url).partition('?')[0].rstrip('/')}/navi/mcp"

    return AgentPrograms(
        AgentCatalog(allowed=settings.agent_programs),
        root=None if jupyter is None else Path(jupyter.root_dir),
        run_tools=run_tools,
        mcp_url=mcp_url,
        lease_file=workspace.lease_file,
        idle_seconds=settings.agent_idle_timeout,
        find_session=stores.sessions.session,
    )


def _build_recalls(
    settings: Settings,
    stores: Stores,
    workspace: Workspace,
    orchestrator: Orchestrator,
    parts: AgentParts,
    jupyter: JupyterServices | None,
    links: ServerLinks | None,
    jupyter_of: JupyterOf,
    prompts: PromptBook,
    spans: Tracing,
) -> RecallServices:
    """The four parts of recalls. Each wakes another one, so their callbacks look the others up when they are called."""

    async def bounded(session: Session, profiles: Sequence[str]) -> ToolContext:
        return replace(await orchestrator.context_of(session), profiles=tuple(profiles))

    async def leave_check(session: Session, names: Sequence[str], profiles: Sequence[str]) -> None:
        await parts.check_leave(names, await bounded(session, profiles))

    async def job_check(job: NotebookJob, session: Session, profiles: Sequence[str]) -> None:
        await check_job(job, jupyter_of(session.owner, session.server).jobs, parts, await bounded(session, profiles))

    service: RecallService = RecallService(
        stores.sessions,
        max_recalls_per_user=settings.max_recalls_per_user,
        min_interval=timedelta(seconds=settings.min_recall_interval),
        changed=lambda: scheduler.wake(),
        whens_changed=lambda owners: watcher.changed(owners),
        why_not_watched=why_not_watched(jupyter),
        targets=lambda owner: notifications.names(owner),
        leave_check=leave_check,
        job_check=job_check,
    )
    targets = build_user_targets(settings, stores)
    notifications: NotificationService = build_notifications(settings, stores, jupyter, targets)
    watcher: RecallWatcher = build_triggers(
        service.occurrences, jupyter, links, stores=stores, workspace=workspace, server=orchestrator.server
    )
    scheduler: Scheduler = build_scheduler(
        settings,
        stores,
        orchestrator,
        full_text=lambda message: prompts.expanded(message, {}) or message,
        triggers_changed=watcher.changed,
        notices_changed=notifications.wake,
        spans=spans,
    )
    return RecallServices(
        service=service,
        scheduler=scheduler,
        watcher=watcher,
        notifications=notifications,
        targets=targets,
        jupyter_of=jupyter_of,
        results=stores.results,
    )


def _build_session_list(
    settings: Settings, stores: Stores, orchestrator: Orchestrator, recalls: RecallService, backends: AgentRouter
) -> SessionListService:
    """What users do with the list of their sessions, and what keeps its titles and its search."""
    return SessionListService(
        orchestrator,
        stores.sessions,
        recalls.bulk,
        SearchIndex(stores.sessions),
        SessionTitles(stores.sessions, backends.write_title if settings.title_by_model else None),
    )


def _on_run_ended(
    orchestrator: Orchestrator, marks: ReadMarks, notifications: NotificationService
) -> Callable[[Run], Awaitable[None]]:
    async def run_ended(run: Run) -> None:
        if run.origin.kind is OriginKind.USER and run.session_id not in orchestrator.log.followed():
            await marks.nobody_there(run)
        notifications.wake()

    return run_ended


async def _sweep(attachments: AttachmentStore) -> None:
    """Delete attachments that no session shows any more, now and then."""
    while True:
        try:
            await attachments.sweep()
        except NaviError as error:
            _log.error("attachments_not_swept", error=error.message)
        await asyncio.sleep(SWEEP_EVERY)


@asynccontextmanager
async def _running(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """``work`` in a task of its own while it is entered."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
