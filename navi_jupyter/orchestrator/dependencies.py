"""What all sessions of a process share: settings, store, event writer, run slots, the agent and its services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from ..log_setup import get_logger
from ..model.recalls import NotebookJob
from ..model.runs import RunLimits
from ..model.sessions import Origin, OriginKind, Run, Session
from ..ports.agent import (
    NO_JUPYTER,
    AgentLoop,
    Attachments,
    Memory,
    RecallAccess,
    SessionHistory,
    Spending,
    ToolContext,
)
from ..ports.edits import NotebookEdits
from ..ports.jobs import JobResults
from ..ports.jupyter_access import JupyterAccess, JupyterOfRun
from ..ports.recalls import RunEnded
from ..ports.stop import StopSignal
from ..ports.store import SessionStore
from ..ports.user_configuration import UserConfiguration
from ..settings import Limits, Settings
from .event_writer import EventWriter
from .interrupts import PendingInterrupts
from .run_slots import RunSlots
from .upkeep.servers import Trust

log = get_logger("session")

IDLE_AFTER = 60.0  # seconds without work after which a session leaves memory
MAX_QUEUED_PROMPTS = 100  # prompts that wait in one session: more come from a program that does not read its answers


async def _no_jupyter(session: Session, origin: Origin) -> JupyterAccess:  # noqa: ARG001
    return NO_JUPYTER


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolServices:
    """The services of tools; see the fields of ``ports.agent.ToolContext``."""

    jupyter_for: JupyterOfRun = _no_jupyter
    memory: Memory | None = None
    attachments: Attachments | None = None
    spending: Spending | None = None
    edits: NotebookEdits | None = None
    results: JobResults | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionDependencies:
    server_id: str
    trust: Trust
    settings: Settings
    idle_after: float = IDLE_AFTER
    max_queued_prompts: int = MAX_QUEUED_PROMPTS
    store: SessionStore
    event_writer: EventWriter
    slots: RunSlots
    interrupts: PendingInterrupts
    agent: AgentLoop
    recalls: RecallAccess
    history: SessionHistory
    tool_services: ToolServices
    run_started: RunEnded  # called with each run that had waited in its session's queue and begins here
    run_ended: RunEnded
    followed: Callable[[str], bool]  # whether a view of a session is open through this server
    limits_of_profile: Callable[[str, UserConfiguration], RunLimits]
    """Raises InvalidRequest for a profile that cannot be used."""
    configuration_of: Callable[[str], Awaitable[UserConfiguration]]  # what a user has configured, by the user

    async def tool_context(
        self, session: Session, user_id: str, *, run_id: str, origin: Origin, configuration: UserConfiguration
    ) -> ToolContext:
        """What the tools of a run work with; ``emit``, ``ask``, ``steering`` and ``record_effect`` are the run's."""
        return ToolContext(
            user_id=user_id,
            session=session,
            run_id=run_id,
            origin=origin,
            configuration=configuration,
            stop=StopSignal(),
            require_lease=self.trust.require,
            recalls=self.recalls,
            library=self.history,
            jupyter=await self.tool_services.jupyter_for(session, origin),
            memory=self.tool_services.memory,
            attachments=self.tool_services.attachments,
            spending=self.tool_services.spending,
            edits=self.tool_services.edits,
            results=self.tool_services.results,
        )

    async def report_ended(self, run: Run) -> None:
        """Call the listeners. Never raises: each has its own safety net, and the session goes on."""
        try:
            await self.run_ended(run)
        except Exception:
            log.exception("run_ended_listener_failed", run_id=run.id)

    async def job_of(self, run: Run) -> tuple[NotebookJob | None, Limits]:
        """The notebook that a run executes, if its recall says so; and its own limits, before those of a profile."""
        limits, origin = self.settings.limits, run.origin
        if origin.kind is not OriginKind.RECALL or origin.recall_id is None:
            return None, limits
        recall = await self.recalls.recall_of(origin.recall_id)
        if recall is None or not isinstance(recall.run, NotebookJob):
            return None, limits
        own = recall.policy.timeout
        seconds = self.settings.notebook_timeout if own is None else own.total_seconds()
        return recall.run, replace(limits, run_timeout=seconds)
