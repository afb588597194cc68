"""Budgets: what a run may use up, by itself, in its session, and in its user's day.

A run that has reached one ends cleanly: its conversation is kept, and it says which budget, how much was used, and what
to do. Asked before each request to a model (what it will read counts) and after each answer.
Not responsible for counting (``driver``) nor for what things cost (``pricing``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from ...clock import now as clock
from ...model.sessions import Failure, Usage
from ...ports.agent import Spending, ToolContext
from ...settings import Limits

_DAY = timedelta(hours=24)
_RECENT = 20
"""Runs to look through for the one in progress: it is among the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One budget."""

    limit: float
    used_before: float
    """By others: earlier runs of the session, of the user's day."""
    name: str
    advice: str
    money: bool = False

    def over(self, run: float, upcoming: float) -> bool:
        used = self.used_before + run
        return used >= self.limit or used + upcoming > self.limit

    def say(self, run: float) -> str:
        used = self.used_before + run
        if self.money:
            return f"{self.name}: ${used:,.4f} of ${self.limit:,.4f} are used. {self.advice}"
        return f"{self.name}: {used:,.0f} of {self.limit:,.0f} tokens are used. {self.advice}"


_OF_RUN = "What was done is kept: ask to continue, or raise the profile's limit or the server's setting."
_OF_SESSION = "Go on in a new session, or let the administrator raise the limit."
_OF_DAY = "Come back later (the last 24 hours count), or let the administrator raise the limit."


class Budget:
    """The budgets of one run. ``start`` it, then ``check`` with the run's usage so far, its workers' included."""

    def __init__(self, limits: Limits, spending: Spending | None, context: ToolContext) -> None:
        self._limits = limits
        self._spending = spending
        self._context = context
        self._tokens: tuple[_Line, ...] = ()
        self._costs: tuple[_Line, ...] = ()

    async def start(self) -> None:
        """Read what others have used up. May be called again, before a request: other runs of the user go on."""
        session, day, own = Usage(), Usage(), Usage()
        if self._spending is not None and self._limits_others:
            own = await self._stored()
            session = await self._spending.of_session(self._context.session.id)
            day = await self._spending.of_user(self._context.user_id, since=clock() - _DAY)
        self._tokens = tuple(self._token_lines(_tokens(session) - _tokens(own), _tokens(day) - _tokens(own)))
        self._costs = tuple(self._cost_lines((day.cost or 0.0) - (own.cost or 0.0)))

    @property
    def _limits_others(self) -> bool:
        limits = self._limits
        return any((limits.session_token_budget, limits.daily_token_budget, limits.daily_cost_budget))

    async def _stored(self) -> Usage:
        """What the sums have of this very run: it may have paused before."""
        runs = await self._context.library.runs(self._context.session.id, limit=_RECENT)
        return next((run.usage for run in runs if run.id == self._context.run_id), Usage())

    def _token_lines(self, session: int, day: int) -> list[_Line]:
        lines = (
            (self._limits.run_token_budget, 0, "The token budget of one run (run_token_budget)", _OF_RUN),
            (
                self._limits.session_token_budget,
                session,
                "The token budget of this session (session_token_budget)",
                _OF_SESSION,
            ),
            (self._limits.daily_token_budget, day, "Your token budget of a day (daily_token_budget)", _OF_DAY),
        )
        return [
            _Line(limit=limit, used_before=max(0, used), name=name, advice=advice)
            for limit, used, name, advice in lines
            if limit
        ]

    def _cost_lines(self, day: float) -> list[_Line]:
        lines = (
            (self._limits.run_cost_budget, 0.0, "The cost budget of one run (run_cost_budget)", _OF_RUN),
            (self._limits.daily_cost_budget, day, "Your cost budget of a day (daily_cost_budget)", _OF_DAY),
        )
        return [
            _Line(limit=limit, used_before=max(0.0, used), name=name, advice=advice, money=True)
            for limit, used, name, advice in lines
            if limit
        ]

    def check(self, usage: Usage, *, upcoming_tokens: int = 0, upcoming_cost: float = 0.0) -> Failure | None:
        """``budget_exceeded`` when a budget is reached, or would be by the request that comes; else None.

        ``upcoming_tokens``: an estimate of what the next request sends (0: after an answer). Costs count where they
        are known.
        """
        run = _tokens(usage)
        for line in self._tokens:
            if line.over(run, upcoming_tokens):
                return Failure(code="budget_exceeded", message=line.say(run))
        spent = usage.cost or 0.0
        for line in self._costs:
            if line.over(spent, upcoming_cost):
                return Failure(code="budget_exceeded", message=line.say(spent))
        return None


def _tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens
