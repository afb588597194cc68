"""Budgets: which one ends a run, what it says, and whose usage counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from navi_jupyter.agent.router import AgentRouter
from navi_jupyter.agent.run.budgets import Budget
from navi_jupyter.clock import now
from navi_jupyter.model.sessions import USER, Run, RunStatus, Usage
from navi_jupyter.ports.agent import ToolContext
from navi_jupyter.settings import Limits
from tests.support.agent_world import Bench
from tests.support.providers import Call, Reply, ScriptedProvider


class Ledger:
    """``ports.work.Spending`` and the runs of one session, in memory."""

    def __init__(self, session: Usage = Usage(), day: Usage = Usage(), *, runs: tuple[Run, ...] = ()) -> None:  # noqa: B008  frozen
        self.session = session
        self.day = day
        self.kept = runs
        self.since: datetime | None = None

    async def of_session(self, session_id: str) -> Usage:
        return self.session

    async def of_user(self, owner: str, *, since: datetime) -> Usage:
        self.since = since
        return self.day

    async def runs(self, session_id: str, *, limit: int = 50) -> tuple[Run, ...]:
        return self.kept[:limit]

    async def messages(self, session_id: str) -> tuple[()]:
        return ()


def used(tokens: int, cost: float | None = None) -> Usage:
    return Usage(input_tokens=tokens, requests=1, cost=cost)


@pytest.fixture
def context() -> ToolContext:
    _, context = Bench(AgentRouter()).turn("x")
    return context


async def budget(context: ToolContext, limits: Limits, ledger: Ledger | None = None) -> Budget:
    ledger = ledger or Ledger()
    made = Budget(limits, ledger, replace(context, library=ledger, spending=ledger))
    await made.start()
    return made


async def test_without_limits_nothing_ends_a_run(context: ToolContext) -> None:
    made = await budget(context, Limits(), Ledger(used(10**9, 1e6), used(10**9, 1e6)))
    assert made.check(used(10**9, 1e6), upcoming_tokens=10**9) is None


@pytest.mark.parametrize(
    ("limits", "before", "run", "says"),
    [
        (Limits(run_token_budget=1000), (0, 0), 1000, ("run_token_budget", "1,000 of 1,000 tokens", "ask to continue")),
        (Limits(session_token_budget=1000), (700, 700), 300, ("session_token_budget", "1,000 of 1,000", "new session")),
        (Limits(daily_token_budget=1000), (0, 900), 150, ("daily_token_budget", "1,050 of 1,000", "24 hours")),
    ],
)
async def test_the_budget_that_is_reached_is_named_with_what_was_used_and_what_to_do(
    context: ToolContext, limits: Limits, before: tuple[int, int], run: int, says: tuple[str, ...]
) -> None:
    made = await budget(context, limits, Ledger(used(before[0]), used(before[1])))
    assert made.check(used(1)) is None
    failure = made.check(used(run))
    assert failure is not None
    assert failure.code == "budget_exceeded"
    assert all(part in failure.message for part in says), failure.message


async def test_costs_count_where_they_are_known(context: ToolContext) -> None:
    made = await budget(context, Limits(run_cost_budget=0.5, daily_cost_budget=2.0), Ledger(day=used(1, 1.75)))
    assert made.check(used(10**9, None)) is None
    assert made.check(used(1, 0.2)) is None
    day = made.check(used(1, 0.25))
    assert day is not None
    assert "daily_cost_budget" in day.message
    assert "$2.0000 of $2.0000" in day.message
    run = made.check(used(1, 0.6))
    assert run is not None
    assert "run_cost_budget" in run.message


async def test_a_request_that_would_go_beyond_is_not_made(context: ToolContext) -> None:
    made = await budget(context, Limits(run_token_budget=1000))
    assert made.check(used(600), upcoming_tokens=400) is None
    failure = made.check(used(600), upcoming_tokens=401)
    assert failure is not None
    assert "600 of 1,000" in failure.message


async def test_a_run_that_paused_is_not_counted_twice(context: ToolContext) -> None:
    mine = Run(
        id=context.run_id, session_id=context.session.id, command_id="c", status=RunStatus.RUNNING, origin=USER,
        model="m", created_at=now(), usage=used(400, 0.4),
    )  # fmt: skip
    ledger = Ledger(used(900), used(900, 0.9), runs=(mine,))
    made = await budget(context, Limits(session_token_budget=1000, daily_cost_budget=1.0), ledger)
    assert made.check(used(450, 0.45)) is None
    assert made.check(used(500, 0.45)) is not None
    assert made.check(used(450, 0.5)) is not None


async def test_a_users_day_is_the_last_24_hours(context: ToolContext) -> None:
    ledger = Ledger()
    await budget(context, Limits(daily_token_budget=1), ledger)
    assert ledger.since is not None
    assert abs(now() - ledger.since - timedelta(hours=24)) < timedelta(minutes=1)


async def test_where_nothing_is_counted_a_runs_own_budget_still_holds(context: ToolContext) -> None:
    made = Budget(Limits(run_token_budget=10, session_token_budget=10), None, context)
    await made.start()
    assert made.check(used(10)) is not None


async def test_a_run_over_its_budget_ends_cleanly_and_the_next_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(AgentRouter())
    remind = Call("create_recall", {"message": "m", "when": "in 10 minutes"})
    async with ScriptedProvider(Reply("Working. ", calls=(remind,), usage=(90, 20)), Reply("Done.")) as provider:
        provider.point(monkeypatch)
        outcome = await bench.run(
            "go", model="openai-chat:gpt-6-luna", limits=Limits(run_token_budget=100, run_timeout=20)
        )
    assert outcome.text == "Working. "
    assert len(provider.requests) == 1, "no request is made beyond the budget"
    assert outcome.result is not None
    assert outcome.result.failure is not None
    assert outcome.result.failure.code == "budget_exceeded"
    assert "110 of 100" in outcome.result.failure.message
    assert b"create_recall" in outcome.result.conversation
