"""What becomes of something that happened in a notebook: a firing, or a row that says why not. Pure.

Not responsible for what comes of a firing that is to run: as for all others that is ``outcomes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..clock import format_duration, timestamp
from ..model.base import ordered_id
from ..model.recalls import Firing, FiringStatus, Recall, RecallStatus, When
from ..ports.recalls import FiringState, Happened, RecallState
from .decisions import MAX_WAIT, jitter
from .notices import RecallNotice, of_overtaken
from .schedules import whole_ms
from .states import at_rest, closed, overtaken, watching

LONGEST_DETAIL = 20_000
"""Characters."""
MOST_ATTACHMENTS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Occurred:
    """What :func:`occur` decided."""

    state: RecallState
    firing: FiringState
    """The new row."""
    replaced: tuple[FiringState, ...] = ()
    """Earlier events that still waited and are coalesced into this one."""
    said: tuple[RecallNotice, ...] = ()

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
    """Take in an event that the ledger does not have yet; None where nothing is to be written down any more.

    ``near``: an event that fired within :func:`pause_of` of this one.
    """
    if state.recall.status.final or not isinstance(state.recall.schedule, When):
        return None
    firing = _row(state, happened, now)
    if (why := refusal(state, firing.firing.slot, near=near, pause=pause)) is not None:
        row = closed(firing, FiringStatus.SKIPPED, why, now)
        return Occurred(
            state=state, firing=row, said=(RecallNotice(action="skipped", slot=row.firing.slot, reason=why),)
        )
    ended = [] if state.recall.policy.misfire == "all" else _superseded(state.recall, opens, firing, now)
    gone = tuple(f for f, _ in ended)
    planned = max(0, state.planned + 1 - sum(not ran for _, ran in ended))
    rest = [f for f in opens if f.firing.id not in {g.firing.id for g in gone}]
    moved = at_rest(replace(state, planned=planned), [*rest, firing])
    return Occurred(state=moved, firing=firing, replaced=gone, said=tuple(map(of_overtaken, gone)))


def give_up(state: RecallState, happened: Happened, reason: str, now: datetime) -> Occurred | None:
    """End a one-time recall whose event can not come any more; None where it does not wait for it (any more)."""
    if not watching(state) or state.recall.status is RecallStatus.PAUSED:
        return None
    row = closed(_row(state, happened, now), FiringStatus.MISSED, reason, now)
    recall = state.recall.but(status=RecallStatus.EXPIRED, next_at=None)
    said = (RecallNotice(action="missed", slot=row.firing.slot, reason=reason),)
    return Occurred(state=replace(state, due_at=None, recall=recall), firing=row, said=said)


def pause_of(state: RecallState, least: timedelta) -> timedelta | None:
    """How far two events of it that fire lie apart; None where that is of no interest.

    ``least``: the server's least time between two firings.
    """
    schedule = state.recall.schedule
    if not isinstance(schedule, When) or schedule.repeat != "each":
        return None
    return max(least, schedule.cooldown or timedelta(0))


def slot_of(happened: Happened, now: datetime) -> datetime:
    """When it happened; not later than now, whatever the clock of whoever saw it says."""
    return whole_ms(min(happened.at, now))


def refusal(state: RecallState, at: datetime, *, near: datetime | None, pause: timedelta | None) -> str | None:
    """Why an event at ``at`` does not fire, if so."""
    recall = state.recall
    policy, schedule = recall.policy, recall.schedule
    if not isinstance(schedule, When):
        return "it waits for no event"
    if recall.status is RecallStatus.PAUSED:
        return "paused"
    if policy.until is not None and at > policy.until:
        return f"it waited until {timestamp(policy.until)}"
    if not watching(state):
        if policy.max_fires is not None and state.planned >= policy.max_fires:
            return "max_fires is reached"
        return "it has happened already"
    # Before or after: they may be told in another order, and after the clock was set back all seem to be before.
    if pause is not None and near is not None and abs(at - near) < pause:
        which = "after the one before" if near <= at else "before the one after it"
        return f"cooling down: less than {format_duration(pause)} {which}"
    return None


def _superseded(
    recall: Recall, opens: Sequence[FiringState], firing: FiringState, now: datetime
) -> list[tuple[FiringState, bool]]:
    """Earlier events that still wait, as they are then, each with whether it ran."""
    slot = firing.firing.slot
    why = f"still waiting when it happened again at {timestamp(slot)}"
    return [
        overtaken(recall, f, now, by=slot, why=why)
        for f in opens
        if f.firing.kind == "event" and f.firing.status is FiringStatus.PENDING
    ]


def _row(state: RecallState, happened: Happened, now: datetime) -> FiringState:
    recall, identity, slot = state.recall, ordered_id("f"), slot_of(happened, now)
    policy, not_before = recall.policy, slot
    if policy.jitter is not None:
        not_before += jitter(recall.id, slot, policy.jitter, None)
    firing = Firing(
        id=identity,
        recall_id=recall.id,
        slot=slot,
        kind="event",
        status=FiringStatus.PENDING,
        not_before=not_before,
    )
    return FiringState(
        firing=firing,
        session_id=recall.session_id,
        command_id=f"recall:{recall.id}:{identity}",
        key=happened.key,
        wait_until=not_before + policy.grace if policy.grace else max(now, not_before) + MAX_WAIT,
        detail=_cut(happened.detail) or None,
        attachments=happened.attachments[:MOST_ATTACHMENTS],
    )


def _cut(text: str) -> str:
    """Its beginning and its end: a traceback says what it is about in the last lines."""
    if len(text) <= LONGEST_DETAIL:
        return text
    mark = f"\n\n[… {len(text) - LONGEST_DETAIL + 60} characters are left out …]\n\n"
    half = (LONGEST_DETAIL - len(mark)) // 2
    return text[:half] + mark + text[-half:]
