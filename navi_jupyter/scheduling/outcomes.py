"""What a decision about a firing changes: its row, its recall, and what its session is notified of. Pure.

:func:`settle` takes one firing one step on. A recall's status always follows from its next time and its open firings
(:func:`with_status`). Not responsible for the decisions themselves (``decisions``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from ..clock import timestamp
from ..errors import InvalidSchedule
from ..model.base import ordered_id
from ..model.recalls import Firing, FiringStatus, Once, Recall, RecallStatus, Schedule, When
from ..ports.recalls import FiringState, Happened, RecallState
from ..text import truncate_middle
from .decisions import MAX_WAIT, STARTED_AGAIN, Ended, Happening, Move, Outcome, PromptAccepted, decide
from .notices import ENDED, RecallNotice, with_advice
from .schedules import next_after, whole_ms

FREE: dict[str, Any] = {"lease_owner": None, "lease_until": None, "deferred": False}
"""The columns of a firing that no server has taken."""
_NOTIFIED = (FiringStatus.SUCCEEDED, FiringStatus.FAILED, FiringStatus.SKIPPED, FiringStatus.EXPIRED)
"""Ends of which people are notified; not what they cancelled themselves, nor what a later firing stands for."""

MAX_DETAIL, MAX_ATTACHMENTS = 20_000, 10  # characters and images of an event that its firing keeps


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A firing and its recall after a transition. ``firing`` is None where only the recall changes."""

    state: RecallState
    firing: FiringState | None
    notices: tuple[RecallNotice, ...] = ()
    earlier: Step | None = None  # a step that is taken in the same transaction, before this one.


def settle(
    state: RecallState,
    firing: FiringState,
    outcome: Outcome,
    now: datetime,
    *,
    others: Sequence[FiringState],
    last: datetime | None = None,
) -> Step:
    """Take a firing that is not over one step on.

    ``others``: the recall's other open firings. ``last``: its last time in the ledger, needed where all the firings
    that ``max_fires`` allows are planned.
    """
    move = decide(state.recall, firing, outcome, now)
    match move.to, outcome:
        case FiringStatus.CLAIMED, PromptAccepted():
            queued = replace(firing, firing=firing.firing.but(reason=move.reason), **FREE)
            notice = RecallNotice(action="deferred", slot=queued.firing.slot, reason=move.reason)
            return Step(state=with_status(state, [*others, queued]), firing=queued, notices=(notice,))
        case FiringStatus.RUNNING, PromptAccepted():
            state, firing, notice = _start(state, firing, outcome, others)
            return Step(state=state, firing=firing, notices=(notice,))
        case FiringStatus.RUNNING, Ended(run=run):
            begun = PromptAccepted(run_id=run.id, at=run.started_at or run.created_at)
            state, firing, notice = _start(state, firing, begun, others)
            first = Step(state=state, firing=firing, notices=(notice,))
            return replace(settle(state, firing, outcome, now, others=others, last=last), earlier=first)
        case FiringStatus.PENDING, _:
            waiting = put_back(firing, move)
            notice = RecallNotice(action="deferred", slot=waiting.firing.slot, reason=move.reason)
            return Step(state=with_status(state, [*others, waiting]), firing=waiting, notices=(notice,))
        case _:
            return _ended(state, firing, move, now, others, last)


def _start(
    state: RecallState, firing: FiringState, accepted: PromptAccepted, others: Sequence[FiringState]
) -> tuple[RecallState, FiringState, RecallNotice]:
    slot, policy = firing.firing.slot, state.recall.policy
    begun = firing.firing.but(
        status=FiringStatus.RUNNING,
        reason=STARTED_AGAIN if firing.crashes and firing.firing.started_at is not None else None,
        run_id=accepted.run_id,
        started_at=accepted.at,
        lateness_ms=max(0, (accepted.at - slot) // timedelta(milliseconds=1)),
    )
    running = FiringState(  # spelled out: several times faster than replace()
        firing=begun,
        session_id=firing.session_id,
        command_id=firing.command_id,
        key=firing.key,
        fence=firing.fence,
        crashes=firing.crashes,
        wait_until=firing.wait_until,
        stop_at=None if policy.timeout is None else accepted.at + policy.timeout,
    )
    # The recall counts firings, not their attempts.
    fired = state.recall.fired + (firing.firing.started_at is None)
    moved = with_recall(state, state.recall.but(last_at=slot, fired=fired))
    return with_status(moved, [*others, running]), running, RecallNotice(action="started", slot=slot)


def put_back(firing: FiringState, move: Move) -> FiringState:
    """The firing, waiting again."""
    changes: dict[str, Any] = {"status": FiringStatus.PENDING, "reason": move.reason, "not_before": move.at}
    command_id = firing.command_id
    if move.retry:
        changes["attempt"] = firing.firing.attempt + 1
        command_id = firing.command_of(firing.firing.attempt + 1)
    wait_until = firing.wait_until
    if move.crash and firing.firing.status is FiringStatus.RUNNING and move.at is not None:
        wait_until = move.at + MAX_WAIT  # it was in time when it started: the end of its server does not make it late
    return replace(
        firing,
        firing=firing.firing.but(**changes),
        wait_until=wait_until,
        command_id=command_id,
        fence=firing.fence + 1,
        crashes=firing.crashes + move.crash,
        stop_at=None,
        lease_owner=None,
        lease_until=None,
        deferred=move.deferred,
    )


def closed(recall: Recall, firing: FiringState, move: Move, now: datetime) -> FiringState:
    """The firing with its final status; to be notified of, if the recall names a target and its end is one of these."""
    notify = bool(recall.policy.notify) and move.to in _NOTIFIED and not move.silent
    over = firing.firing.but(
        status=move.to, reason=move.reason, ended_at=now, delivery="pending" if notify else firing.firing.delivery
    )
    return replace(firing, firing=over, fence=firing.fence + 1, stop_at=None, **FREE)


def end(recall: Recall, firing: FiringState, happening: Happening, now: datetime) -> FiringState:
    """The firing as it ends when that happens to it, where the recall's count and outcome are the caller's."""
    return closed(recall, firing, decide(recall, firing, happening, now), now)


def _ended(
    state: RecallState,
    firing: FiringState,
    move: Move,
    now: datetime,
    others: Sequence[FiringState],
    last: datetime | None,
) -> Step:
    """Give a firing its final status and the recall what follows from it."""
    if firing.firing.kind != "manual":
        state = replace(state, outcome=move.to)
        if firing.firing.started_at is None:
            state = _uncount(state, firing, now, last)
    elif state.outcome is FiringStatus.FAILED and one_time(state.recall.schedule):
        state = replace(state, outcome=move.to)  # it had failed, and was run once more
    notice = RecallNotice(action=ENDED[move.to], slot=firing.firing.slot, reason=with_advice(state.recall, move))
    return Step(state=with_status(state, others), firing=closed(state.recall, firing, move, now), notices=(notice,))


def _uncount(state: RecallState, firing: FiringState, now: datetime, last: datetime | None) -> RecallState:
    """A planned firing did not run after all: it does not count for ``max_fires``.

    Where that limit had ended the times, they go on after the last one in the ledger: what came since is missed like
    any other. (An event has no times; its recall's next time is when it stops waiting.)
    """
    state = replace(state, planned=max(0, state.planned - 1))
    if state.due_at is not None or state.recall.policy.max_fires is None or state.recall.status.final:
        return state
    after = now if isinstance(state.recall.schedule, When) else last or firing.firing.slot
    try:
        return replace(state, due_at=first_due(state, after=after))
    except InvalidSchedule:  # a stored schedule that cannot be read any more has no more times
        return state


def unreadable(state: RecallState, reason: str) -> Step:
    """A stored schedule that cannot be read any more: the recall fails, visibly; others go on."""
    failed = replace(state, due_at=None, recall=state.recall.but(status=RecallStatus.FAILED, next_at=None))
    return Step(state=failed, firing=None, notices=(RecallNotice(action="failed", reason=reason),))


def one_time(schedule: Schedule) -> bool:
    """Whether it is over after one firing."""
    return isinstance(schedule, Once) or (isinstance(schedule, When) and schedule.repeat == "once")


def first_due(state: RecallState, *, after: datetime) -> datetime | None:
    """The first time after ``after`` that the policy allows; None when there are no more."""
    recall, until = state.recall, state.recall.policy.until
    if recall.policy.max_fires is not None and state.planned >= recall.policy.max_fires:
        return None
    if isinstance(recall.schedule, When):  # it has no times: this is when it stops waiting
        return until if until is not None and until > after else None
    return allowed(recall, next_after(recall.schedule, after))


def allowed(recall: Recall, due: datetime | None) -> datetime | None:
    """``due`` unless it is after the recall's end."""
    until = recall.policy.until
    return None if due is None or (until is not None and due > until) else due


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


def with_status(state: RecallState, opens: Sequence[FiringState]) -> RecallState:
    """The recall's status and ``next_at``, as they follow from its next time and its open firings."""
    recall = state.recall
    if recall.status.final:
        return state
    # A ``when`` recall's due_at is the end of its waiting, which is no time that anything starts.
    running, first = False, None if isinstance(recall.schedule, When) else state.due_at
    for firing in opens:
        if firing.firing.status is not FiringStatus.PENDING and not firing.in_queue:
            running = True
        elif first is None or firing.firing.not_before < first:
            first = firing.firing.not_before
    # Running wins over waiting; a pause shows only once nothing runs any more.
    status = RecallStatus.RUNNING if running else RecallStatus.PENDING
    if not running and first is None and not watching(state):
        status = _final_status(state)
    elif recall.status is RecallStatus.PAUSED:
        status, first = RecallStatus.PAUSED, None
    if status is recall.status and first == recall.next_at:
        return state
    return with_recall(state, recall.but(status=status, next_at=first))


def _final_status(state: RecallState) -> RecallStatus:
    """How a recall ends that has nothing left to do: a one-time one as its firing did."""
    policy = state.recall.policy
    if one_time(state.recall.schedule):
        return _AS_ITS_FIRING.get(state.outcome, RecallStatus.EXPIRED)
    full = policy.max_fires is not None and state.planned >= policy.max_fires
    return RecallStatus.FIRED if full else RecallStatus.EXPIRED


_AS_ITS_FIRING: dict[FiringStatus | None, RecallStatus] = {
    FiringStatus.SUCCEEDED: RecallStatus.FIRED,
    FiringStatus.FAILED: RecallStatus.FAILED,
    FiringStatus.CANCELLED: RecallStatus.CANCELLED,
}


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


def automatic(recall: Recall, slot: datetime, now: datetime, *, runs: bool = True) -> FiringState:
    """A row for a time of the schedule. ``runs`` is False for one that is only recorded."""
    following = next_after(recall.schedule, slot) if runs and recall.policy.jitter is not None else None
    not_before, wait_until = _window(recall, slot, now, following) if runs else (slot, None)
    firing = Firing.trusted(  # not validated: thousands are made when many recalls fall due at once
        id=ordered_id("f"),
        recall_id=recall.id,
        slot=slot,
        kind="auto",
        status=FiringStatus.PENDING,
        reason=None,
        run_id=None,
        attempt=0,
        coalesced=0,
        not_before=not_before,
        started_at=None,
        ended_at=None,
        lateness_ms=None,
        delivery="none",
        delivery_error=None,
    )
    # Named by its time, not by its row: the session swallows the prompt of a time that it has already.
    command_id = f"recall:{recall.id}:{timestamp(slot)}"
    return FiringState(firing=firing, session_id=recall.session_id, command_id=command_id, wait_until=wait_until)


def manual(recall: Recall, key: str | None, now: datetime) -> FiringState:
    """A firing that somebody asked for now. Never stands for a time of the schedule."""
    slot = whole_ms(now)
    return _keyed(recall, "manual", slot, key, slot, slot + MAX_WAIT)


def of_event(recall: Recall, happened: Happened, now: datetime) -> FiringState:
    """A row for something that happened: not later than now, whatever the watcher's clock shows."""
    slot = whole_ms(min(happened.at, now))
    firing = _keyed(recall, "event", slot, happened.key, *_window(recall, slot, now, None))
    return replace(
        firing,
        detail=truncate_middle(happened.detail, MAX_DETAIL - 100) or None,
        attachments=happened.attachments[:MAX_ATTACHMENTS],
    )


def _keyed(
    recall: Recall,
    kind: Literal["manual", "event"],
    slot: datetime,
    key: str | None,
    not_before: datetime,
    wait_until: datetime,
) -> FiringState:
    identity = ordered_id("f")
    status = FiringStatus.PENDING
    firing = Firing(id=identity, recall_id=recall.id, slot=slot, kind=kind, status=status, not_before=not_before)
    return FiringState(
        firing=firing,
        session_id=recall.session_id,
        command_id=f"recall:{recall.id}:{identity}",
        key=key or identity,
        wait_until=wait_until,
    )


def _window(recall: Recall, slot: datetime, now: datetime, following: datetime | None) -> tuple[datetime, datetime]:
    """When it may start (``jitter``), and until when it waits (``grace``)."""
    policy, not_before = recall.policy, slot
    if policy.jitter is not None:
        not_before += jitter(recall.id, slot, policy.jitter, following)
    return not_before, not_before + policy.grace if policy.grace else max(now, not_before) + MAX_WAIT


def jitter(recall_id: str, slot: datetime, most: timedelta, following: datetime | None) -> timedelta:
    """A delay below ``most`` and before the next time: the same whenever it is computed for this one."""
    if following is not None:
        most = min(most, following - slot)
    digest = hashlib.blake2b(f"{recall_id}:{timestamp(slot)}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    return timedelta(milliseconds=int(most / timedelta(milliseconds=1) * share))
