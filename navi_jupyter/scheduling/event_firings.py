"""Firings of ``when`` recalls: something happened in a notebook, and a row runs or records why it does not. Pure.

Not responsible for what becomes of a firing that is to run: as for all others that is ``decisions``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..clock import format_duration, timestamp
from ..model.recalls import FiringStatus, RecallStatus, When
from ..ports.recalls import FiringState, Happened, RecallState
from .decisions import Missed, Overtaken, Refused
from .notices import RecallNotice
from .outcomes import at_rest, end, of_event, watching


@dataclass(frozen=True, kw_only=True, slots=True)
class Occurred:
    """An event that was taken in: its row, and the recall after it."""

    state: RecallState
    firing: FiringState
    """The new row."""
    replaced: tuple[FiringState, ...] = ()
    """Earlier events that still waited and are coalesced into this one."""
    notices: tuple[RecallNotice, ...] = ()

    @property
    def fires(self) -> bool:
        return not self.firing.firing.status.final


def occur(
    state: RecallState,
    happened: Happened,
    now: datetime,
    *,
    opens: Sequence[FiringState],
    near: datetime | None,
    pause: timedelta | None,
) -> Occurred | None:
    """Take in an event that the ledger does not have yet; None where nothing is to be recorded any more.

    ``near``: an event that fired within :func:`pause_of` of this one.
    """
    if state.recall.status.final or not isinstance(state.recall.schedule, When):
        return None
    firing = of_event(state.recall, happened, now)
    slot = firing.firing.slot
    if (why := refusal(state, slot, near=near, pause=pause)) is not None:
        row = end(state.recall, firing, Refused(reason=why), now)
        return Occurred(state=state, firing=row, notices=(RecallNotice.of_end(row.firing),))
    overtaken = Overtaken(by=slot, reason=f"still waiting when it happened again at {timestamp(slot)}")
    waiting = [f for f in opens if f.firing.kind == "event" and f.firing.status is FiringStatus.PENDING]
    old = [] if state.recall.policy.misfire == "all" else waiting
    gone = tuple(end(state.recall, f, overtaken, now) for f in old)
    planned = max(0, state.planned + 1 - sum(f.firing.status is FiringStatus.COALESCED for f in gone))
    rest = [f for f in opens if f not in old]
    moved = at_rest(replace(state, planned=planned), [*rest, firing])
    return Occurred(
        state=moved, firing=firing, replaced=gone, notices=tuple(RecallNotice.of_end(f.firing) for f in gone)
    )


def give_up(state: RecallState, happened: Happened, reason: str, now: datetime) -> Occurred | None:
    """End a one-time recall whose event cannot happen any more; None where it does not wait for it (any more)."""
    if not watching(state) or state.recall.status is RecallStatus.PAUSED:
        return None
    row = end(state.recall, of_event(state.recall, happened, now), Missed(reason=reason), now)
    recall = state.recall.but(status=RecallStatus.EXPIRED, next_at=None)
    notices = (RecallNotice.of_end(row.firing),)
    return Occurred(state=replace(state, due_at=None, recall=recall), firing=row, notices=notices)


def pause_of(state: RecallState, least: timedelta) -> timedelta | None:
    """How far two of its events that fire lie apart; None where it fires once.

    ``least``: the server's least time between two firings.
    """
    schedule = state.recall.schedule
    if not isinstance(schedule, When) or schedule.repeat != "each":
        return None
    return max(least, schedule.cooldown or timedelta(0))


def refusal(state: RecallState, at: datetime, *, near: datetime | None, pause: timedelta | None) -> str | None:
    """Why an event at ``at`` does not fire, if so."""
    policy = state.recall.policy
    if state.recall.status is RecallStatus.PAUSED:
        return "paused"
    if policy.until is not None and at > policy.until:
        return f"it waited until {timestamp(policy.until)}"
    if not watching(state):
        if policy.max_fires is not None and state.planned >= policy.max_fires:
            return "max_fires is reached"
        return "it has happened already"
    # Before or after: events may be reported in another order, and after the clock was set back all seem to be before.
    if pause is not None and near is not None and abs(at - near) < pause:
        which = "after the one before" if near <= at else "before the one after it"
        return f"cooling down: less than {format_duration(pause)} {which}"
    return None
