"""A recall and its firings as a whole: which status follows from what is still to come, and how both end. Pure.

Not responsible for what is to come: that is ``policy``, ``outcomes`` and ``events``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..clock import timestamp
from ..model.recalls import FiringStatus, Once, Policy, Recall, RecallStatus, Schedule, When
from ..ports.recalls import FiringState, RecallState


def one_time(schedule: Schedule) -> bool:
    """Whether it is over after one firing."""
    return isinstance(schedule, Once) or (isinstance(schedule, When) and schedule.repeat == "once")


def watching(state: RecallState) -> bool:
    """Whether a ``when`` recall still waits for something to happen. Never true for others, or for one that is over."""
    recall = state.recall
    if not isinstance(recall.schedule, When) or recall.status.final:
        return False
    policy = recall.policy
    if policy.until is not None and state.due_at is None:
        return False
    if one_time(recall.schedule):
        return state.planned == 0 and state.outcome is None
    return policy.max_fires is None or state.planned < policy.max_fires


def at_rest(state: RecallState, opens: Sequence[FiringState]) -> RecallState:
    """The recall's status and ``next_at``, as they follow from its next slot and its open firings."""
    recall = state.recall
    if recall.status.final:
        return state
    running, first = False, None if isinstance(recall.schedule, When) else state.due_at
    for firing in opens:
        if firing.firing.status is not FiringStatus.PENDING:
            running = True
        elif first is None or firing.firing.not_before < first:
            first = firing.firing.not_before
    status = RecallStatus.RUNNING if running else RecallStatus.PENDING
    if not running and first is None and not watching(state):
        status = _ending(state)
    elif recall.status is RecallStatus.PAUSED:
        status, first = RecallStatus.PAUSED, None
    if status is recall.status and first == recall.next_at:
        return state
    return with_recall(state, recall.but(status=status, next_at=first))


def with_recall(state: RecallState, recall: Recall) -> RecallState:
    """``replace(state, recall=recall)``, which happens to every firing several times, at a third of its cost."""
    return RecallState(
        recall=recall,
        owner=state.owner,
        due_at=state.due_at,
        planned=state.planned,
        outcome=state.outcome,
        version=state.version,
    )


def _ending(state: RecallState) -> RecallStatus:
    """How a recall ends that has nothing left to do."""
    policy: Policy = state.recall.policy
    if one_time(state.recall.schedule):
        match state.outcome:
            case FiringStatus.FAILED:
                return RecallStatus.FAILED
            case FiringStatus.CANCELLED:
                return RecallStatus.CANCELLED
            case FiringStatus.SUCCEEDED:
                return RecallStatus.FIRED
            case _:
                return RecallStatus.EXPIRED
    if policy.max_fires is not None and state.planned >= policy.max_fires:
        return RecallStatus.FIRED
    return RecallStatus.EXPIRED


FREE: dict[str, Any] = {"lease_owner": None, "lease_until": None, "deferred": False}
"""What a firing that nobody has claimed looks like."""


def closed(firing: FiringState, status: FiringStatus, reason: str | None, now: datetime) -> FiringState:
    """The firing with its final status."""
    closed = firing.firing.but(status=status, reason=reason, ended_at=now)
    return replace(firing, firing=closed, fence=firing.fence + 1, stop_at=None, **FREE)


def telling(recall: Recall, firing: FiringState) -> FiringState:
    """The firing that is over, to be told to people if its end is one of these and the recall says to whom."""
    if not recall.policy.notify or firing.firing.status not in _TOLD:
        return firing
    return replace(firing, firing=firing.firing.but(delivery="pending"))


_TOLD = (FiringStatus.SUCCEEDED, FiringStatus.FAILED, FiringStatus.SKIPPED, FiringStatus.EXPIRED)
"""Ends of which people are told; not what they cancelled themselves, nor what a later firing stands for."""


def overtaken(
    recall: Recall, firing: FiringState, now: datetime, *, by: datetime, why: str
) -> tuple[FiringState, bool]:
    """One that still waited when a later one came, as it is then, and whether it ran.

    One that has run and waits for another attempt has failed; it did run, and counts.
    """
    if firing.firing.started_at is None:
        return closed(firing, FiringStatus.COALESCED, why, now), False
    failed = closed(firing, FiringStatus.FAILED, f"its next attempt was overtaken by {timestamp(by)}", now)
    return telling(recall, failed), True


def ended_by_user(state: RecallState) -> RecallState:
    """Cancelled: nothing more comes."""
    return replace(state, due_at=None, recall=state.recall.but(status=RecallStatus.CANCELLED, next_at=None))


def cancelled(firing: FiringState, now: datetime, reason: str) -> FiringState:
    """A firing that has not started and never will."""
    return closed(firing, FiringStatus.CANCELLED, reason, now)
