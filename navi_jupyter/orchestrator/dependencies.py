"""What every session of a process shares: the limits it lives under, and the parts it works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..model.runs import RunLimits
from ..model.sessions import Origin, Session
from ..ports.agent import (
    NO_JUPYTER,
    AgentLoop,
    Attachments,
    Memory,
    RecallAccess,
    SessionHistory,
    Spending,
    StopSignal,
    ToolContext,
)
from ..ports.jupyter import JupyterAccess
from ..ports.recalls import RunEnded
from ..ports.store import SessionStore
from ..settings import Settings
from .event_writer import EventWriter
from .interrupts import Questions
from .run_slots import RunSlots

IDLE_AFTER = 60.0
"""Seconds without work after which a session leaves memory."""
MAX_QUEUED_PROMPTS = 100
"""Prompts that wait in one session: more come from a program that does not read its answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolServices:
    """What tools get besides the session itself; see the fields of ``ports.ToolContext``."""

    jupyter: JupyterAccess = NO_JUPYTER
    memory: Memory | None = None
    attachments: Attachments | None = None
    spending: Spending | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionDependencies:
    """See the module."""

    server_id: str
    settings: Settings
    idle_after: float = IDLE_AFTER
    max_queued_prompts: int = MAX_QUEUED_PROMPTS
    store: SessionStore
    journal: EventWriter
    slots: RunSlots
    questions: Questions
    agent: AgentLoop
    recalls: RecallAccess
    library: SessionHistory
    gear: ToolServices
    run_ended: RunEnded
    limits_of_profile: Callable[[str], RunLimits]
    """Raises InvalidRequest for a profile that cannot be used."""

    def tool_context(self, session: Session, *, user_id: str, run_id: str, origin: Origin) -> ToolContext:
        """What the tools of a run work with; ``emit``, ``ask``, ``steering`` and ``record_effect`` are the run's."""
        return ToolContext(
            user_id=user_id,
            session=session,
            run_id=run_id,
            origin=origin,
            stop=StopSignal(),
            recalls=self.recalls,
            library=self.library,
            jupyter=self.gear.jupyter,
            memory=self.gear.memory,
            attachments=self.gear.attachments,
            spending=self.gear.spending,
        )
