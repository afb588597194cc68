"""The life of a firing: what becomes of it when something happens. Pure; one table, :func:`decide`.

::

    planned ──► PENDING ──► CLAIMED ──► RUNNING ──► SUCCEEDED, FAILED, CANCELLED
                                (without a lease: in its session's queue)
                 ▲   │         │           │
                 └───┼── busy, server died, next attempt
                     └──► MISSED, COALESCED, SKIPPED, EXPIRED, CANCELLED (never ran), FAILED

The one step that is not here is PENDING to CLAIMED: the database takes it (``FiringTx.claim``), so that two servers
never take the same firing. Not responsible for what follows for the recall (``outcomes``), nor for which of several
missed times run (``misfires``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..clock import timestamp
from ..model.recalls import FiringStatus, Recall, Schedule, When, WhenEvent
from ..model.sessions import CELL_FAILED, NOT_EXECUTED, UNANSWERED, Run, RunStatus
from ..ports.recalls import FiringState

MAX_WAIT = timedelta(days=7)  # How long a firing waits for a busy session when no ``grace`` sets a shorter time.
BACKOFF_FIRST, BACKOFF_MOST = timedelta(seconds=10), timedelta(hours=1)
MAX_CRASHES = 5  # After so many deaths of its server a firing has failed: it may be what kills them.
KEPT_ROWS, KEPT_FOR = 1000, timedelta(days=90)
"""The ledger keeps the last so many rows of each recall, and all rows of this time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reasoned:
    reason: str


class Missed(_Reasoned):
    """Its time passed while no server could run it, or what it waited for cannot happen any more."""


class PolicyRefused(_Reasoned):
    """The recall's policy does not let it run (``max_fires``, a cooldown, a pause)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overtaken(_Reasoned):
    """A later firing, of the time ``by``, takes its place."""

    by: datetime


class RecallCancelled(_Reasoned):
    """Its recall was cancelled."""


class SessionDeleted(_Reasoned):
    """Its session was deleted, with the run that it may have had."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptAccepted:
    """The session has the prompt, durably; its run began ``at``, unless it is ``queued``."""

    run_id: str | None
    at: datetime
    queued: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Busy:
    """The session has a run in progress, or (``session`` is False) the server cannot take the prompt now."""

    delay: timedelta
    reason: str = "the session is busy"
    session: bool = True


class Died(_Reasoned):
    """The delivery broke off half-way: its server died, or something unforeseen was raised."""


class Expired(_Reasoned):
    """It may not be started any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unrecorded(_Reasoned):
    """What was reported of it cannot be recorded, for a fault of ours: it is given up, so that others go on."""

    of: Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """Its run reached a final status."""

    run: Run


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInterrupted(Ended):
    """Its run was cut by the end of its server. ``tool``: the last one with an effect that it had started; None where
    there was none, so that nothing is done twice when the run is started again."""

    tool: str | None


Outcome = PromptAccepted | Busy | Died | Expired | Unrecorded | Ended  # What is reported of a delivery or a run.
Happening = Missed | PolicyRefused | Overtaken | RecallCancelled | SessionDeleted | Outcome


@dataclass(frozen=True, slots=True)
class Move:
    """The status a firing gets, and why. With PENDING: not before ``at``."""

    to: FiringStatus
    reason: str | None = None
    at: datetime | None = None
    retry: bool = False  # It spends one of the attempts of ``retries``: the next one is a new prompt.
    crash: bool = False  # It counts for ``MAX_CRASHES``.
    silent: bool = False  # People are not notified of it: nothing was planned that they wait for.
    deferred: bool = False  # The end of the session's run wakes it before ``at``.


PENDING, RUNNING = FiringStatus.PENDING, FiringStatus.RUNNING


def decide(recall: Recall, firing: FiringState, happening: Happening, now: datetime) -> Move:  # noqa: C901 - a table
    """The state machine of a firing that is not over. The first row that fits counts."""
    policy, status = recall.policy, firing.firing.status
    limit = firing.wait_until or now + MAX_WAIT
    attempts_left = firing.firing.attempt < policy.retries and not recall.status.final
    crashes_left = firing.crashes < MAX_CRASHES and not recall.status.final
    match happening:
        # Before it runs
        case Missed(reason=why):
            return Move(FiringStatus.MISSED, why)
        case PolicyRefused(reason=why):
            return Move(FiringStatus.SKIPPED, why, silent=True)
        case Overtaken(by=by) if firing.firing.started_at:  # it did run, and waits for its next attempt
            return Move(FiringStatus.FAILED, f"its next attempt was overtaken by {timestamp(by)}")
        case Overtaken(reason=why):
            return Move(FiringStatus.COALESCED, why)
        case RecallCancelled() if status is RUNNING or firing.in_queue:  # what the session has goes on
            return Move(status)
        case RecallCancelled(reason=why) | SessionDeleted(reason=why):
            return Move(FiringStatus.CANCELLED, why)
        # While it is delivered
        case PromptAccepted(queued=True):
            return Move(FiringStatus.CLAIMED, IN_QUEUE)
        case PromptAccepted():
            return Move(RUNNING)
        case Busy(session=True, reason=why) if policy.busy == "skip":
            return Move(FiringStatus.SKIPPED, why)
        case Busy(reason=why) if now >= limit:
            return Move(FiringStatus.EXPIRED, f"{why} for too long")
        case Busy(reason=why):  # the last try is at the very end of the wait, not beyond it
            return Move(PENDING, why, at=min(now + happening.delay, limit), deferred=happening.session)
        case Expired(reason=why):
            return Move(FiringStatus.EXPIRED, why)
        case Died(reason=why) if firing.crashes < MAX_CRASHES:
            return Move(PENDING, why, at=now + crash_delay(firing.crashes), crash=True)
        case Died(reason=why) | Unrecorded(reason=why):
            return Move(FiringStatus.FAILED, why)
        # When its run is over
        case Ended(run=run) if status is not RUNNING and run.started_at is None:
            return Move(FiringStatus.CANCELLED, "its prompt was taken out of the queue")
        case Ended() if status is not RUNNING:  # before its start was recorded: that comes first
            return Move(RUNNING)
        case RunInterrupted(tool=None) if crashes_left:
            return Move(PENDING, STARTS_AGAIN, at=now + crash_delay(firing.crashes), crash=True)
        case RunInterrupted(tool=tool) if not attempts_left:
            return Move(FiringStatus.FAILED, f"interrupted after {tool}" if tool else SERVER_DIED)
        case Ended(run=run) if succeeded(run):
            noticed = run.notice.message if run.notice else None  # in the ledger, since an empty answer shows nothing
            return Move(FiringStatus.SUCCEEDED, error_code(run) or noticed or firing.firing.reason)
        case Ended(run=run) if run.error is not None and run.error.code in UNANSWERED:
            return Move(FiringStatus.FAILED, run.error.message)  # tried again, it would ask again
        case Ended(run=run) if run.status is RunStatus.STOPPED and not timed_out(run, firing, now):
            return Move(FiringStatus.CANCELLED, "its run was stopped")
        case Ended(run=run):
            why = "timed_out" if run.status is RunStatus.STOPPED else _why(run)
            if not attempts_left:
                return Move(FiringStatus.FAILED, why)
            tries = firing.firing.attempt + 1
            follows = f"{why}; attempt {tries + 1} of {policy.retries + 1} follows"
            return Move(PENDING, follows, at=now + retry_delay(firing.firing.id, tries - 1), retry=True)


IN_QUEUE = "it waits in its session's queue"
SERVER_DIED = "its server died"
STARTS_AGAIN = "its server died before its run had changed anything; it is started again"
STARTED_AGAIN = "started again: its server died in an earlier attempt"
"""Stays the reason of the firing, so that the ledger shows the interrupted attempt beside the one that counts."""


def succeeded(run: Run) -> bool:
    """At its limit of iterations a run has done what it could."""
    return run.status is RunStatus.COMPLETED or (run.status is RunStatus.FAILED and error_code(run) == "max_iterations")


def timed_out(run: Run, firing: FiringState, now: datetime) -> bool:
    """Whether a stopped run was stopped for ``policy.timeout``, and not by a person."""
    return firing.stop_at is not None and (run.ended_at or now) >= firing.stop_at


def error_code(run: Run) -> str | None:
    return run.error.code if run.error else None


def _why(run: Run) -> str:
    """Why a run has failed, as the ledger has it: the code; of a notebook the cell and its error."""
    if run.error is not None and run.error.code in (CELL_FAILED, NOT_EXECUTED):
        return run.error.message
    return error_code(run) or run.status.value


def backoff(tries: int) -> timedelta:
    """The pause after ``tries`` earlier failures: doubling, capped."""
    return min(BACKOFF_FIRST * (1 << min(tries, 20)), BACKOFF_MOST)


def crash_delay(crashes: int) -> timedelta:
    """The first death is no fault of the prompt: it is delivered again at once."""
    return backoff(crashes - 1) if crashes else timedelta(0)


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


def too_late(recall: Recall, firing: FiringState, now: datetime) -> Expired | None:
    """Why a claimed firing may not be started any more, if so. Without a grace it always may."""
    limited = recall.policy.grace is not None and firing.firing.kind != "manual" and firing.firing.started_at is None
    if limited and firing.wait_until is not None and now > firing.wait_until:
        return Expired(reason="later than its grace")
    return None


def agent_may_not(schedule: Schedule, *, code: bool) -> str | None:
    """Why an agent may not make a recall of this schedule, if so. ``code``: its user has allowed it to run code."""
    if isinstance(schedule, When) and schedule.event is WhenEvent.EXPRESSION and not code:
        return "An expression is code: `recall_when_true` is the tool for it."
    return None


def prunable_before(now: datetime, edge: datetime) -> datetime:
    """Rows of times before this may be removed. ``edge``: the time of the ``KEPT_ROWS``-th last row."""
    return min(edge, now - KEPT_FOR)
