"""Transitions inside a transaction: read the states, let ``policy`` and ``outcomes`` decide, save them, say so.

Row and event are written by the same unit of work, so they always agree. Not responsible for when.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model import FiringStatus
from ..ports.recalls import Claimed, FiringState
from .outcomes import Accepted, Outcome, Step, settle
from .policy import Plan, Said, supersede

if TYPE_CHECKING:
    from datetime import datetime

    from ..events import Draft
    from ..ports.recalls import RecallState, RecallTx

_BREATH = 50
"""After so many transitions the event loop gets its turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What became of a delivery or a run. Names its firing by id, with the fence of its claim, or by command."""

    outcome: Outcome
    firing_id: str | None = None
    fence: int | None = None
    command_id: str | None = None
    session_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """What :func:`settle_all` did."""

    steps: tuple[Step, ...]
    unwanted: tuple[tuple[str, str, str], ...]
    """(session, run, owner) of runs that started for firings which had been cancelled in between."""


class Outdated(Exception):
    """Some plans were made from states that have changed since. Undoes the unit of work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """Under which a server takes firings."""

    server_id: str
    until: datetime


async def current(tx: RecallTx, plans: Sequence[Plan | Step]) -> list[Plan | Step]:
    """Those plans whose recall has not changed since they were made."""
    versions = await tx.versions(plan.state.recall.id for plan in plans)
    return [plan for plan in plans if versions.get(plan.state.recall.id) == plan.state.version]


async def store_plans(tx: RecallTx, plans: Sequence[Plan | Step], now: datetime, *, lease: Lease) -> list[Claimed]:
    """Advance the planned recalls and insert their firings; those that may start at once are taken as they go in.

    Raises Outdated when a recall has changed since it was planned: nothing is to be stored then.
    """
    plans, replaced = await _superseded(tx, plans, now)
    if await tx.advance_recalls(plan.state for plan in plans) != len(plans):
        raise Outdated
    if replaced:
        await tx.save_firings(replaced)
    firings: list[FiringState] = []
    claimed: list[Claimed] = []
    for plan in plans:
        for firing in plan.firings if isinstance(plan, Plan) else ():
            if firing.firing.status is FiringStatus.PENDING and firing.firing.not_before <= now:
                taken = _taken(firing, lease)
                firings.append(taken)
                claimed.append(Claimed(firing=taken, recall=plan.state))
            else:
                firings.append(firing)
    await tx.add_firings(firings)
    await say(tx, [(plan.state, plan.said) for plan in plans if plan.said], now)
    return claimed


def _taken(firing: FiringState, lease: Lease) -> FiringState:
    claimed = firing.firing.but(status=FiringStatus.CLAIMED)
    return FiringState(  # spelled out: several times faster than replace()
        firing=claimed,
        session_id=firing.session_id,
        command_id=firing.command_id,
        key=firing.key,
        fence=firing.fence + 1,
        lease_owner=lease.server_id,
        lease_until=lease.until,
        crashes=firing.crashes,
        wait_until=firing.wait_until,
        stop_at=firing.stop_at,
    )


async def _superseded(
    tx: RecallTx, plans: Sequence[Plan | Step], now: datetime
) -> tuple[list[Plan | Step], list[FiringState]]:
    """The plans, after the firings that still wait were coalesced into theirs; and these firings."""
    contested = [plan.state.recall.id for plan in plans if isinstance(plan, Plan) and plan.supersedes]
    if not contested:
        return list(plans), []
    opens = _by_recall(await tx.open_firings(contested))
    out: list[Plan | Step] = []
    replaced: list[FiringState] = []
    for plan in plans:
        if isinstance(plan, Plan) and plan.supersedes:
            changed, gone = supersede(plan, opens.get(plan.state.recall.id, ()), now)
            out.append(changed)
            replaced += gone
        else:
            out.append(plan)
    return out, replaced


def _by_recall(firings: Iterable[FiringState]) -> dict[str, list[FiringState]]:
    out: dict[str, list[FiringState]] = defaultdict(list)
    for state in firings:
        out[state.firing.recall_id].append(state)
    return out


async def say(tx: RecallTx, said: Iterable[tuple[RecallState, Sequence[Said]]], now: datetime) -> None:
    """Append the ``navi.recall`` events, each with its recall as it is now."""
    drafts: dict[str, list[Draft]] = defaultdict(list)
    for state, words in said:
        drafts[state.recall.session_id] += [word.draft(state.recall, now) for word in words]
    if any(drafts.values()):
        await tx.append_all({session_id: found for session_id, found in drafts.items() if found})


async def settle_all(tx: RecallTx, reports: Sequence[Report], now: datetime) -> Settled:
    """Take the reported firings one step on each. What is over, unknown, or claimed anew since is left alone."""
    firings, ids = await _reported(tx, reports)
    recall_ids = {state.firing.recall_id for state in firings.values()}
    recalls = await tx.recall_states(recall_ids) if recall_ids else {}
    opens = _by_recall(await tx.open_firings(recall_ids)) if recall_ids else {}
    steps: list[Step] = []
    unwanted: list[tuple[str, str, str]] = []
    for number, (report, firing_id) in enumerate(zip(reports, ids, strict=True)):
        if number % _BREATH == _BREATH - 1:
            await asyncio.sleep(0)
        firing = firings.get(firing_id)
        if firing is None:
            continue
        if _outdated(firing, report):
            unwanted += _unwanted(firing, report, recalls[firing.firing.recall_id].owner)
            continue
        recall_id = firing.firing.recall_id
        others = [f for f in opens.get(recall_id, ()) if f.firing.id != firing_id]
        step = settle(recalls[recall_id], firing, report.outcome, now, others=others)
        recalls[recall_id] = step.state
        if step.firing is not None:
            firings[firing_id] = step.firing
            opens[recall_id] = others if step.firing.firing.status.final else [*others, step.firing]
        steps.append(step)
    await tx.save_firings(firings[f.firing.id] for step in steps if (f := step.firing) is not None)
    await tx.advance_recalls(recalls[recall_id] for recall_id in {step.state.recall.id for step in steps})
    await say(tx, [(part.state, part.said) for step in steps for part in (step.earlier, step) if part], now)
    return Settled(steps=tuple(steps), unwanted=tuple(unwanted))


def _outdated(firing: FiringState, report: Report) -> bool:
    return firing.firing.status.final or (report.fence is not None and firing.fence != report.fence)


def _unwanted(firing: FiringState, report: Report, owner: str) -> list[tuple[str, str, str]]:
    """The run that started although its firing was cancelled while it was on its way."""
    cancelled = firing.firing.status is FiringStatus.CANCELLED and firing.firing.run_id is None
    if cancelled and isinstance(report.outcome, Accepted) and report.outcome.run_id:
        return [(firing.session_id, report.outcome.run_id, owner)]
    return []


async def _reported(tx: RecallTx, reports: Sequence[Report]) -> tuple[dict[str, FiringState], list[str]]:
    """The firings of the reports by id, and each report's firing id (empty when there is none)."""
    by_id = [report.firing_id for report in reports if report.firing_id is not None]
    by_command = [report.command_id for report in reports if report.command_id is not None]
    found = dict(await tx.firing_states(by_id)) if by_id else {}
    named: dict[str, str] = {}
    for state in await tx.firings_of_commands(by_command) if by_command else ():
        found.setdefault(state.firing.id, state)
        named[state.command_id] = state.firing.id
    return found, [report.firing_id or named.get(report.command_id or "", "") for report in reports]
