"""What every session of a process shares: the limits it lives under, and the parts it works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from ..model.runs import RunLimits
from ..ports.agent import NO_JUPYTER, AgentLoop, Attachments, Limits, Memory, RecallAccess, SessionHistory, Spending
from ..ports.jupyter import JupyterAccess
from ..ports.recalls import RunEnded
from ..ports.store import SessionStore
from .event_writer import EventWriter
from .interrupts import Questions
from .run_slots import RunSlots


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The limits that runs and sessions live under. Budgets of zero are none."""

    max_iterations: int = 50
    run_timeout: float = 600.0
    stop_deadline: float = 10.0
    approval_timeout: float = 3600.0
    """Seconds until a question that says nothing else expires."""
    max_concurrent_runs: int = 32
    max_sessions_per_user: int = 1000
    max_queued_prompts: int = 100
    idle_after: float = 60.0
    """Seconds without work after which a session leaves memory."""
    run_token_budget: int = 0
    run_cost_budget: float = 0.0
    session_token_budget: int = 0
    daily_token_budget: int = 0
    daily_cost_budget: float = 0.0

    @property
    def limits(self) -> Limits:
        """Where a run ends by itself."""
        return Limits(
            max_iterations=self.max_iterations,
            max_tokens=self.run_token_budget or None,
            max_cost=self.run_cost_budget or None,
            session_tokens=self.session_token_budget or None,
            user_tokens_per_day=self.daily_token_budget or None,
            user_cost_per_day=self.daily_cost_budget or None,
            timeout=self.run_timeout,
        )

    @property
    def patience(self) -> timedelta:
        """:attr:`approval_timeout` as a duration."""
        return timedelta(seconds=self.approval_timeout)


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
    """Raises InvalidRequest for a profile that can not be used."""
