"""What becomes of a firing: accepted, busy, ended, died, expired; and of its recall with it. Pure: time is an argument.

:func:`settle` takes one firing one step on and returns new states and what is to be said in the session.
Not responsible for which slots become firings: that is ``policy``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, assert_never

from ..errors import InvalidSchedule
from ..model.recalls import FiringStatus, Recall, RecallStatus, When
from ..model.sessions import Run, RunStatus
from ..ports.recalls import FiringState, RecallState
from .decisions import MAX_WAIT, first_due
from .notices import Action, RecallNotice
from .states import FREE, at_rest, closed, one_time, telling, with_recall

BACKOFF_FIRST, BACKOFF_MOST = timedelta(seconds=10), timedelta(hours=1)
MAX_CRASHES = 5
"""After so many deliveries that died half-way the firing has failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The session has the prompt, durably."""

    run_id: str | None
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Busy:
    """The session has a run in progress, or the server can not take the prompt now (``reason`` says which)."""

    delay: timedelta
    reason: str = "the session is busy"
    session: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """The firing's run reached its final status."""

    run: Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Died:
    """The delivery broke off half-way: its server died, or something unforeseen was raised."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Expired:
    """It may not be started any more."""

    reason: str


Outcome = Accepted | Busy | Ended | Died | Expired


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What :func:`settle` decided. ``firing`` is None where only the recall changes."""

    state: RecallState
    firing: FiringState | None
    said: tuple[RecallNotice, ...] = ()
    earlier: Step | None = None
    """A step that is taken at the same time and comes before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Around:
    """What a step depends on besides its recall and its firing."""

    now: datetime
    others: Sequence[FiringState]
    last: datetime | None


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

    ``others``: the recall's other open firings. ``last``: its last slot in the ledger, needed where all the firings
    that ``max_fires`` allows are planned.
    """
    around = _Around(now=now, others=others, last=last)
    match outcome:
        case Accepted():
            state, firing, said = _start(state, firing, outcome, others)
            return Step(state=state, firing=firing, said=said)
        case Ended():
            return _ended(state, firing, outcome.run, around)
        case Busy():
            return _busy(state, firing, outcome, around)
        case Died():
            if firing.crashes >= MAX_CRASHES:
                return _over(state, firing, FiringStatus.FAILED, outcome.reason, around)
            delay = backoff(firing.crashes - 1) if firing.crashes else timedelta(0)
            waits = _again(firing, now + delay, reason=outcome.reason, crashes=firing.crashes + 1)
            return _waits(state, waits, others)
        case Expired():
            return _over(state, firing, FiringStatus.EXPIRED, outcome.reason, around)
        case _:
            assert_never(outcome)


def backoff(tries: int) -> timedelta:
    """The pause after ``tries`` earlier failures: doubling, capped."""
    return min(BACKOFF_FIRST * (1 << min(tries, 20)), BACKOFF_MOST)


def retry_delay(firing_id: str, tries: int) -> timedelta:
    """:func:`backoff` less up to a twentieth, so that what failed together does not come back together.

    The same whenever it is computed, and never less than after one failure fewer.
    """
    pause = backoff(tries)
    if pause == BACKOFF_MOST:
        return pause
    digest = hashlib.blake2b(f"{firing_id}:{tries}".encode(), digest_size=4).digest()
    share = int.from_bytes(digest, "big") / 2**32
    return pause * (1 - share / 20)


def _start(
    state: RecallState, firing: FiringState, accepted: Accepted, others: Sequence[FiringState]
) -> tuple[RecallState, FiringState, tuple[RecallNotice, ...]]:
    slot, policy = firing.firing.slot, state.recall.policy
    begun = firing.firing.but(
        status=FiringStatus.RUNNING,
        reason=None,
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
    fired = state.recall.fired + (firing.firing.attempt == 0)
    moved = with_recall(state, state.recall.but(last_at=slot, fired=fired))
    return at_rest(moved, [*others, running]), running, (RecallNotice(action="started", slot=slot),)


def _again(firing: FiringState, at: datetime, *, reason: str, **changes: Any) -> FiringState:
    updated = firing.firing.but(status=FiringStatus.PENDING, reason=reason, not_before=at)
    return replace(firing, firing=updated, fence=firing.fence + 1, **{**FREE, **changes})


def _waits(state: RecallState, firing: FiringState, others: Sequence[FiringState]) -> Step:
    said = RecallNotice(action="deferred", slot=firing.firing.slot, reason=firing.firing.reason)
    return Step(state=at_rest(state, [*others, firing]), firing=firing, said=(said,))


def _busy(state: RecallState, firing: FiringState, busy: Busy, around: _Around) -> Step:
    now = around.now
    if busy.session and state.recall.policy.busy == "skip":
        return _over(state, firing, FiringStatus.SKIPPED, busy.reason, around)
    limit = firing.wait_until or now + MAX_WAIT
    if now >= limit:
        return _over(state, firing, FiringStatus.EXPIRED, f"{busy.reason} for too long", around)
    # The last try is at the very end of the wait, not beyond it.
    at = min(now + busy.delay, limit)
    return _waits(state, _again(firing, at, reason=busy.reason, deferred=busy.session), around.others)


def _ended(state: RecallState, firing: FiringState, run: Run, around: _Around) -> Step:
    earlier, now, others = None, around.now, around.others
    if firing.firing.status is not FiringStatus.RUNNING:  # it was over before its start was written down
        begun = Accepted(run_id=run.id, at=run.started_at or run.created_at)
        state, firing, said = _start(state, firing, begun, others)
        earlier = Step(state=state, firing=firing, said=said)
    status, reason = _verdict(run, firing, now)
    may_retry = not state.recall.status.final  # cancelled meanwhile: nobody would ever take it
    if status is FiringStatus.FAILED and may_retry and firing.firing.attempt < state.recall.policy.retries:
        attempt = firing.firing.attempt + 1
        at = now + retry_delay(firing.firing.id, attempt - 1)
        why = f"{reason}; attempt {attempt + 1} of {state.recall.policy.retries + 1} follows"
        waits = _again(firing, at, reason=why, stop_at=None)
        waits = replace(
            waits,
            command_id=f"{firing.command_id.removesuffix(f':r{attempt - 1}')}:r{attempt}",
            firing=waits.firing.but(attempt=attempt),
        )
        step = _waits(state, waits, others)
    else:
        step = _over(state, firing, status, reason, around)
    return replace(step, earlier=earlier)


def _verdict(run: Run, firing: FiringState, now: datetime) -> tuple[FiringStatus, str | None]:
    """What a final run means for its firing. At its limit of iterations it has done what it could."""
    code = run.error.code if run.error else None
    match run.status:
        case RunStatus.COMPLETED:
            return FiringStatus.SUCCEEDED, None
        case RunStatus.FAILED if code == "max_iterations":
            return FiringStatus.SUCCEEDED, code
        case RunStatus.STOPPED if firing.stop_at is not None and (run.ended_at or now) >= firing.stop_at:
            return FiringStatus.FAILED, "timed_out"
        case RunStatus.STOPPED:
            return FiringStatus.CANCELLED, "its run was stopped"
        case _:
            return FiringStatus.FAILED, code or run.status.value


_ACTIONS: dict[FiringStatus, Action] = {
    FiringStatus.SUCCEEDED: "fired",
    FiringStatus.FAILED: "failed",
    FiringStatus.CANCELLED: "cancelled",
    FiringStatus.SKIPPED: "skipped",
    FiringStatus.EXPIRED: "missed",
}


def _over(state: RecallState, firing: FiringState, status: FiringStatus, reason: str | None, around: _Around) -> Step:
    """Give a firing its final status and the recall what follows from it."""
    if firing.firing.kind != "manual":
        state = replace(state, outcome=status)
        if firing.firing.started_at is None:
            state = _give_back(state, firing, around)
    elif state.outcome is FiringStatus.FAILED and one_time(state.recall.schedule):
        state = replace(state, outcome=status)  # it had failed, and was run once more
    said = RecallNotice(action=_ACTIONS[status], slot=firing.firing.slot, reason=reason)
    final = telling(state.recall, closed(firing, status, reason, around.now))
    return Step(state=at_rest(state, around.others), firing=final, said=(said,))


def _give_back(state: RecallState, firing: FiringState, around: _Around) -> RecallState:
    """A planned firing did not run after all: it does not count for ``max_fires``.

    Where that had ended the slots, they go on after the last one in the ledger: what came since is missed like any
    other slot. (An event has no slots; its recall's next time is when it stops waiting.)
    """
    state = replace(state, planned=max(0, state.planned - 1))
    if state.due_at is not None or state.recall.policy.max_fires is None or state.recall.status.final:
        return state
    after = around.now if isinstance(state.recall.schedule, When) else around.last or firing.firing.slot
    try:
        return replace(state, due_at=first_due(state, after=after))
    except InvalidSchedule:  # it can not be read any more, and so has no more slots
        return state


def unreadable(state: RecallState, reason: str) -> Step:
    """A stored schedule that can not be read any more: the recall fails, visibly; others go on."""
    failed = replace(state, due_at=None, recall=state.recall.but(status=RecallStatus.FAILED, next_at=None))
    return Step(state=failed, firing=None, said=(RecallNotice(action="failed", reason=reason),))


def problem(recall: Recall, firing: FiringState, now: datetime) -> Expired | None:
    """Why a claimed firing may not be started any more, if so. Without a grace it always may."""
    limited = recall.policy.grace is not None and firing.firing.kind != "manual" and not firing.firing.attempt
    if limited and firing.wait_until is not None and now > firing.wait_until:
        return Expired(reason="later than its grace")
    return None
