"""What a run has used so far, and the budgets that end it: its own, its session's, and its user's of a day.

A run that reaches a budget ends cleanly: its conversation is kept, and its failure names the budget, how much was used,
and what to do. Not responsible for what tokens cost (``providers.pricing``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from ...clock import now as clock
from ...events import Custom, Event
from ...model.sessions import Failure, Usage
from ...ports.agent import Spending, ToolContext
from ...settings import Limits

_DAY = timedelta(hours=24)
_RECENT = 20  # runs to look through for the one in progress: it is among the newest

_OF_RUN = "What was done is kept: ask to continue, or raise the profile's limit or the server's setting."
_OF_SESSION = "Go on in a new session, or ask the administrator to raise the limit."
_OF_DAY = "Come back later (the last 24 hours count), or ask the administrator to raise the limit."


class UsageMeter:
    """The usage of one run, shared by its agent and subagents, and emitted after every answer of a model.

    Emitted each time, and not at the end, so that the log has the usage of a run that is stopped or killed.
    """

    def __init__(self, run_id: str, emit: Callable[[Event], None], spent: Usage) -> None:
        self._run_id = run_id
        self._emit = emit
        self.total = spent  # of the whole run, what it used before a pause included

    def add(self, usage: Usage) -> None:
        """Count the usage of one request; one that used nothing emits nothing."""
        if usage == Usage():
            return
        self.total += usage
        self._emit(Custom(name="navi.usage", value={"run_id": self._run_id, "usage": self.total.wire()}))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """One budget, and what others have used of it."""

    limit: float
    used_before: float  # by earlier runs of the session, or of the user's day
    name: str
    advice: str
    money: bool = False

    def exceeded(self, run: float, upcoming: float) -> Failure | None:
        used = self.used_before + run
        if used < self.limit and used + upcoming <= self.limit:
            return None
        amount = f"${used:,.4f} of ${self.limit:,.4f}" if self.money else f"{used:,.0f} of {self.limit:,.0f} tokens"
        return Failure(code="budget_exceeded", message=f"{self.name}: {amount} are used. {self.advice}")


class Budget:
    """The budgets of one run. ``start`` it, then ``check`` it with the run's usage so far, its subagents' included."""

    def __init__(self, limits: Limits, spending: Spending | None, context: ToolContext) -> None:
        self._limits = limits
        self._spending = spending
        self._context = context
        self._tokens: list[_Limit] = []
        self._costs: list[_Limit] = []

    async def start(self) -> None:
        """Read what others have used. May be called again before a request: other runs of the user go on."""
        limits = self._limits
        session, day, own = Usage(), Usage(), Usage()
        if self._spending is not None and (
            limits.session_token_budget or limits.daily_token_budget or limits.daily_cost_budget
        ):
            own = await self._stored()
            session = await self._spending.of_session(self._context.session.id)
            day = await self._spending.of_user(self._context.user_id, since=clock() - _DAY)
        # The stored sums include this very run where it paused before: its own usage is counted by the meter.
        before_session, before_day = _tokens(session) - _tokens(own), _tokens(day) - _tokens(own)
        cost_before = (day.cost or 0.0) - (own.cost or 0.0)
        self._tokens = [
            *_limit(limits.run_token_budget, 0, "The token budget of one run (run_token_budget)", _OF_RUN),
            *_limit(
                limits.session_token_budget, before_session, "The token budget of this session (session_token_budget)",
                _OF_SESSION,
            ),
            *_limit(
                limits.daily_token_budget, before_day, "Your token budget of a day (daily_token_budget)", _OF_DAY
            ),
        ]  # fmt: skip
        self._costs = [
            *_limit(limits.run_cost_budget, 0, "The cost budget of one run (run_cost_budget)", _OF_RUN, money=True),
            *_limit(
                limits.daily_cost_budget, cost_before, "Your cost budget of a day (daily_cost_budget)", _OF_DAY,
                money=True,
            ),
        ]  # fmt: skip

    async def _stored(self) -> Usage:
        """What the stored sums have of this run."""
        runs = await self._context.library.runs(self._context.session.id, limit=_RECENT)
        return next((run.usage for run in runs if run.id == self._context.run_id), Usage())

    def check(self, usage: Usage, *, upcoming_tokens: int = 0, upcoming_cost: float = 0.0) -> Failure | None:
        """``budget_exceeded`` when a budget is reached, or would be by the next request; else None.

        ``upcoming_tokens``: an estimate of what the next request sends (0: after an answer). Costs count where they
        are known.
        """
        checks = [
            *((one, _tokens(usage), upcoming_tokens) for one in self._tokens),
            *((one, usage.cost or 0.0, upcoming_cost) for one in self._costs),
        ]
        return next((failure for one, used, upcoming in checks if (failure := one.exceeded(used, upcoming))), None)


def _limit(limit: float | None, used: float, name: str, advice: str, *, money: bool = False) -> list[_Limit]:
    """The budget; empty where there is no limit (None or 0)."""
    return [_Limit(limit=limit, used_before=max(0, used), name=name, advice=advice, money=money)] if limit else []


def _tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens
