"""What the server's handlers work with: three facades over the parts of the runtime, and what each does in one call.

Not responsible for how the parts are built, started and stopped (``runtime``) or for routes (``rest``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from ..agent.mcp.user_servers import McpServers
from ..agent.profiles.prompt_files import PromptBook
from ..agent.registry import AgentParts
from ..agent.router import AgentRouter
from ..agent.tools.base import Tool, ToolNote
from ..agent.tools.kernel_functions import KernelTools
from ..clock import database_offset, now
from ..commands import Acceptance, Answer, Command, Prompt
from ..errors import AttachmentRefused, InterruptNotFound, InvalidRequest, NaviError
from ..jupyter.kernels.loans import KernelLoans
from ..jupyter.kernels.lookup import without_drive
from ..jupyter.notebooks.open_pages import OpenPages
from ..jupyter.notebooks.undo import RunEdits
from ..log_setup import get_logger
from ..model.attachments import Attachment, AttachmentRef
from ..model.recalls import Needs
from ..model.runs import Interrupt, Permission
from ..model.sessions import USER, Session
from ..notifications.service import NotificationService
from ..notifications.user_targets import UserTargets
from ..orchestrator.orchestrator import Orchestrator
from ..orchestrator.session_directory import SessionDirectory
from ..orchestrator.session_list.service import SessionListService
from ..ports.jobs import JobResults
from ..ports.jupyter_access import JupyterOf, PageRequests
from ..ports.run_tools import RunToolsRegistry
from ..ports.tracing import caller_trace
from ..ports.user_configuration import UserConfigurations
from ..scheduling.scheduler import Scheduler
from ..scheduling.service import RecallService
from ..settings import Settings, is_postgres
from ..store.attachments import AttachmentStore
from ..store.database import Database
from ..store.memory import FactStore
from ..store.session_list.read_marks import Marked, ReadMarks
from ..text import IMAGE_TYPES
from .bench.links import ServerLinks
from .bodies import parse
from .kernel_caller import KernelCaller
from .kernel_scope import KernelScope, needs_cell
from .mcp_server.endpoint import McpEndpoint
from .mentions.candidates import MentionIndex
from .mentions.contents import MentionReader, live_cells, page_parts
from .metrics import ProcessMeasures
from .model_choice import ModelChoice
from .notebook_sessions import NotebookSessions
from .wire import agent as wire

log = get_logger("server")


class DrawnQuestions:
    """The questions that a page shows with buttons: a cell that waits does not ask for them a second time. Of this
    process's memory, and the latest only: a page that comes back reports its questions again."""

    MOST = 1000

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}

    def add(self, interrupt_id: str) -> None:
        """A page shows buttons for it."""
        self._ids[interrupt_id] = None
        if len(self._ids) > self.MOST:
            del self._ids[next(iter(self._ids))]

    def __contains__(self, interrupt_id: str) -> bool:
        return interrupt_id in self._ids


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionServices:
    """Sessions, their logs, and what people put into them."""

    settings: Settings
    orchestrator: Orchestrator
    store: Database
    attachments: AttachmentStore
    memory: FactStore
    read_marks: ReadMarks
    jupyter_of: JupyterOf
    notebooks: NotebookSessions
    edits: RunEdits
    pages: OpenPages
    session_list: SessionListService
    prompts: PromptBook
    mentions: MentionIndex
    contents: MentionReader
    drawn: DrawnQuestions
    kernel_scope: KernelScope
    user_wrote: Callable[[str, datetime], Awaitable[object]]
    """Awaited after a prompt of the user's own: (session, when)."""
    user_read: Callable[[str, datetime], Awaitable[object]]
    """Awaited after the user has seen a session: (session, when)."""

    @property
    def directory(self) -> SessionDirectory:
        return self.orchestrator.sessions

    @property
    def traceparent(self) -> str | None:
        """Who has caused the present request, as its header says; None where no spans are made."""
        return caller_trace.get() if self.settings.otel else None

    async def find(self, session_id: str, *, owner: str) -> Session:
        """The session alone, without its run and queue. Raises SessionNotFound, also for other people's, and
        SessionReadOnly for one that is shared with the user."""
        return await self.directory.owned(session_id, owner)

    async def question(self, session_id: str, interrupt_id: str, *, owner: str) -> Interrupt:
        """A question of a session, open or settled. Raises SessionNotFound, InterruptNotFound."""
        await self.find(session_id, owner=owner)
        found = [each for each in await self.store.interrupts([interrupt_id]) if each.session_id == session_id]
        if not found:
            raise InterruptNotFound(f"There is no question {interrupt_id[:100]} in this session.")
        return found[0]

    async def submit_text(
        self, session_id: str, text: str, *, owner: str, kernel: KernelCaller | None = None
    ) -> dict[str, Any]:
        """A command as JSON text, from a socket; the body of its ``accepted``. Raises any NaviError."""
        command: Command = parse("Command", text)
        acceptance = await self.submit(session_id, command, owner=owner, kernel=kernel)
        return acceptance.wire() | {"type": command.type}

    async def submit(
        self, session_id: str, command: Command, *, owner: str, kernel: KernelCaller | None = None
    ) -> Acceptance:
        """A command of the user's, with the attachments that it names; ``kernel``: which has sent it, if one has.

        Raises any NaviError.
        """
        if kernel is not None and needs_cell(command):
            await self.kernel_scope.require_cell(kernel, owner=owner)
        origin = USER if kernel is None else USER.but(kernel_id=kernel.name)
        if isinstance(command, Prompt) and command.client is not None and command.client.notebook is not None:
            shown = command.client.notebook
            # Tools show it as the notebook, and code of an agent could make it up: it has to come from the page.
            kept = shown.but(path=without_drive(shown.path)) if kernel is None else None
            command = command.but(client=command.client.but(notebook=kept))
        attached: Sequence[Attachment] = ()
        if isinstance(command, Prompt):
            if command.traceparent is None and self.traceparent is not None:
                command = command.but(traceparent=self.traceparent)
            command, attached = await self._prepared(command, session_id, owner)
        acceptance = await self.orchestrator.submit(
            session_id, command, user_id=owner, origin=origin, attachments=attached
        )
        if isinstance(command, Answer):
            by = origin.sender(owner)
            log.info("question_answered", session_id=session_id, interrupt_id=command.interrupt_id, by=by)
        # After it is accepted: a refused prompt must not end the recalls that wait for the user's next one.
        if isinstance(command, Prompt):
            await self.user_wrote(session_id, now())
            await self.session_list.user_wrote(session_id, owner=owner)
        return acceptance

    async def _prepared(self, prompt: Prompt, session_id: str, owner: str) -> tuple[Prompt, Sequence[Attachment]]:
        """A prompt as it is accepted: a prompt by name in full, what it mentions and brings along stored.

        Raises as ``_attach`` does, and RunNotFound.
        """
        page = prompt.client.notebook if prompt.client is not None else None
        if prompt.again:
            return await self._as_sent(prompt, session_id, owner)
        if (found := self.prompts.find(prompt.text)) is not None:
            by_name, words = found
            parts = {} if page is None else page_parts(page)
            prompt = prompt.but(text=by_name.filled(words, parts), display=prompt.display or prompt.text)
            if by_name.takes("error") and "error" not in parts and not (prompt.files or prompt.mentions):
                prompt = prompt.but(mentions=("@error",))  # of the notebook as it is stored
        if not (prompt.images or prompt.files or prompt.mentions):
            return prompt, ()
        # Before anything is stored: a foreign session must not keep attachments.
        session = await self.find(session_id, owner=owner)
        attached = [*await self._attach(prompt, owner)]
        if prompt.mentions:
            live = None if page is None else live_cells(page)
            named = await self.contents.contents(prompt.mentions, session, live=live)
            add = self.attachments.add
            attached += [await add(one.data, name=one.name, media_type=one.media_type, owner=owner) for one in named]
        await self.attachments.keep([one.id for one in attached], session_id=session_id)
        return prompt, attached

    async def _as_sent(self, prompt: Prompt, session_id: str, owner: str) -> tuple[Prompt, Sequence[Attachment]]:
        """The prompt of an earlier run once more: its text as the model read it, its files."""
        await self.find(session_id, owner=owner)
        run_id = prompt.replaces or ""
        await self.directory.run(session_id, run_id, owner=owner)
        earlier = await self.store.beginning(run_id)
        attached = tuple(one for part in earlier.parts for one in part.attachments)
        shown = prompt.display or prompt.text
        return prompt.but(text=earlier.prompt, display=None if shown == earlier.prompt else shown), attached

    async def _attach(self, prompt: Prompt, owner: str) -> Sequence[Attachment]:
        """What a prompt brings along, stored. What a model can take, the run finds out.

        Raises InvalidRequest, AttachmentRefused, AttachmentNotFound, FileRefused, LimitReached, naming the field.
        """
        refs = [(f"images.{n}", ref) for n, ref in enumerate(prompt.images)]
        refs += [(f"files.{n}", ref) for n, ref in enumerate(prompt.files)]
        stored: dict[str, Attachment] = {}
        for field, ref in refs:
            try:
                attachment = await self._stored(ref, owner)
                if field.startswith("images") and attachment.media_type not in IMAGE_TYPES:
                    raise AttachmentRefused(
                        f"{attachment.name} is not a PNG, JPEG, GIF or WebP image. Send it under files."
                    )
            except NaviError as error:
                error.field = field
                raise
            stored[attachment.id] = attachment  # one that is named twice is kept once
        return list(stored.values())

    async def _stored(self, ref: AttachmentRef, owner: str) -> Attachment:
        if ref.id is not None:
            return await self.attachments.find(ref.id, owner=owner)
        if ref.data is not None:
            return await self.attachments.add(ref.data, name=ref.name, media_type=ref.media_type, owner=owner)
        files = self.jupyter_of(owner).files
        if files is None or ref.path is None:
            raise InvalidRequest("path: files cannot be named on this server. Upload the file instead.")
        content = await files.read_bytes(ref.path, limit=self.settings.max_attachment_bytes)
        return await self.attachments.add(content, name=ref.name or ref.path, media_type=ref.media_type, owner=owner)

    def page_requests(self, owner: str) -> PageRequests:
        """What this user's pages are asked that have notebooks open."""
        return self.jupyter_of(owner).pages or self.pages

    async def mark_read(self, session_id: str, *, owner: str, seq: int, at: datetime) -> Marked:
        """The user has seen a session's log up to ``seq``. Raises SessionNotFound."""
        marked = await self.read_marks.mark(session_id, owner=owner, seq=seq, at=at)
        await self.user_read(session_id, at)
        return marked


class RecallWatcher(Protocol):
    """What watches kernels and files for ``when`` recalls: here, or in users' servers."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def changed(self, owners: Collection[str] = ()) -> None:
        """``when`` recalls of these owners were made, have changed or ended. Does not block."""

    async def listening(self, recall_id: str, *, owner: str = "", within: float = 2.0) -> bool:
        """Wait until that recall is watched, or there is nothing to watch yet. False when it took too long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallServices:
    """Recalls, and what starts, watches and announces them."""

    service: RecallService
    scheduler: Scheduler
    watcher: RecallWatcher
    notifications: NotificationService
    targets: UserTargets
    jupyter_of: JupyterOf
    results: JobResults

    async def needs_of(self, recall_id: str) -> Needs:
        """What the recall's runs need of the user's server."""
        recall = await self.service.recall_of(recall_id)
        return "auto" if recall is None else recall.policy.needs

    async def follow_files(self, source: str, target: str, session_id: str | None, owner: str | None) -> None:
        """A file or folder was renamed: recalls that wait for files or execute notebooks in it follow; ``session_id``,
        ``owner``: only those of that session, of that owner."""
        await self.service.occurrences.follow(source, target, session_id, owner=owner)
        await self.results.follow(source, target, session_id, owner=owner)


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentServices:
    """What agents can be and use: profiles, models, tools, MCP servers, functions of kernels."""

    settings: Settings
    orchestrator: Orchestrator
    parts: AgentParts
    backends: AgentRouter
    choice: ModelChoice
    mcp: McpServers
    configurations: UserConfigurations
    kernel_tools: KernelTools

    async def profiles(self, owner: str) -> tuple[wire.ProfileInfo, ...]:
        """For ``GET profiles``."""
        profiles = self.parts.of(await self.configurations.read(owner)).profiles
        return tuple(wire.ProfileInfo.model_validate(entry) for entry in profiles.describe())

    async def models(self) -> tuple[wire.ModelInfo, ...]:
        """For ``GET models``: those in use here come first. Servers at known addresses are asked for theirs."""
        return tuple(
            wire.ModelInfo(
                name=entry["name"],
                provider=entry["provider"],
                available=entry["usable"],
                why=entry["reason"],
                command=entry["command"],
            )
            for entry in await self.backends.list_models(self.settings.default_model)
        )

    def tool_infos(self, tools: Sequence[Tool]) -> tuple[wire.ToolInfo, ...]:
        """Tools as lists show them."""
        notes = (ToolNote(name=tool.name, source=tool.source, tool=tool) for tool in tools)
        return tuple(tool_info(note, self.parts.permissions.by_default) for note in notes)

    async def tools(self, session: Session | None) -> list[wire.ToolInfo]:
        """For ``GET tools``: all known tools with what holds by default, or a session's with what holds there."""
        permissions = self.parts.permissions
        if session is None:
            return [tool_info(note, permissions.by_default) for note in await self.parts.known()]
        context = await self.orchestrator.context_of(session)
        profile = self.parts.of(context.configuration).profiles.get(session.profile)
        return [
            tool_info(note, lambda tool: permissions.decide(tool, (profile,), context))
            for note in await self.parts.known(context)
            if note.tool is None or profile.offers(note.tool)
        ]


def tool_info(note: ToolNote, permission: Callable[[Tool], Permission]) -> wire.ToolInfo:
    """A tool as lists show it, with the permission that holds."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """Everything that a handler can reach."""

    settings: Settings
    sessions: SessionServices
    recalls: RecallServices
    agent: AgentServices
    loans: KernelLoans
    links: ServerLinks | None  # of users' servers, at a service for all users of a JupyterHub
    kernel_scope: KernelScope
    run_tools: RunToolsRegistry
    mcp_endpoint: McpEndpoint
    process: ProcessMeasures
    runs_ours: Callable[[str], bool]  # whether a kernel executes code of an agent's now, by its id

    @property
    def clock_offset(self) -> timedelta:
        """By how much the database's clock is ahead of this machine's; none where it is this machine's."""
        return database_offset() if is_postgres(self.settings.database_url) else timedelta(0)

    def activity(self) -> Mapping[str, int]:
        """What keeps an idle server from being shut down; empty when nothing does."""
        counts = {"runs": self.sessions.orchestrator.stats().runs}
        if self.settings.keep_alive_for_recalls and self.recalls.scheduler.awake:
            counts["recalls"] = self.recalls.scheduler.open
        return {name: count for name, count in counts.items() if count}

    def figures(self) -> Mapping[str, float]:
        """The present value of each gauge and counter of :mod:`.metrics` that the runtime has."""
        stats, behind = self.sessions.orchestrator.stats(), self.sessions.orchestrator.log.lag()
        return {
            "navi_sessions_live": stats.sessions,
            "navi_runs_active": stats.runs,
            "navi_followers": stats.followers,
            "navi_recalls_open": self.recalls.scheduler.open,
            "navi_write_queue_units": self.sessions.store.waiting_units,
            "navi_run_slots_waiting": stats.waiting,
            "navi_prompts_queued": stats.queued,
            "navi_follower_lag_events": behind.most,
            "navi_followers_behind": behind.behind,
            "navi_replicas": stats.replicas,
            "navi_lease_age_seconds": stats.lease_age,
            "navi_clock_offset_seconds": self.clock_offset.total_seconds(),
            "navi_transcripts_saved": self.settings.save_transcripts,
            "navi_database_notice": self.sessions.store.notice is not None,
            "navi_events_delivered": stats.delivered,
        }
