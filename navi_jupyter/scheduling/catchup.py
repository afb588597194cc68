"""After an outage: an owner's missed slots start a few at a time. Pure but for counting.

Not responsible for which of the missed slots run at all (the misfire policy), and for who is told (``absences``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from ..model.recalls import FiringStatus
from ..ports.recalls import FiringState
from .decisions import Plan
from .notices import RecallNotice
from .states import at_rest
from .wording import LATE

AT_ONCE = 20
"""So many missed slots of one owner start at once."""
APART = timedelta(seconds=30)
"""The next ones so much later, and so on."""
_WHY = "many were missed: it waits its turn"


def turn_of(number: int) -> timedelta:
    """How long after the first one the missed slot of that number (from 0) of an owner starts."""
    return APART * (number // AT_ONCE)


class CatchUp:
    """Counts what each owner catches up with on this server."""

    def __init__(self) -> None:
        self._owners: dict[str, tuple[datetime, int]] = {}
        """When the owner's catching up began, and how many slots that was so far."""

    def spread(self, plan: Plan, opens: Sequence[FiringState], now: datetime) -> Plan:
        """The plan, with what was missed put off where its owner has had its share."""
        firings = tuple(self._placed(plan.state.owner, f, now) if _missed(f, now) else f for f in plan.firings)
        if firings == plan.firings:
            return plan
        waiting = [f for f in firings if not f.firing.status.final]
        first = next(f for f in waiting if f.firing.reason == _WHY)
        said = RecallNotice(action="deferred", slot=first.firing.slot, reason=_WHY)
        return replace(plan, state=at_rest(plan.state, [*opens, *waiting]), firings=firings, said=(*plan.said, said))

    def _placed(self, owner: str, firing: FiringState, now: datetime) -> FiringState:
        since, number = self._owners.get(owner, (now, 0))
        if now >= since + turn_of(number) + APART or now < since:
            since, number = now, 0
        self._owners[owner] = (since, number + 1)
        at = since + turn_of(number)
        if at <= now:
            return firing
        limit = firing.wait_until or at
        return replace(firing, firing=firing.firing.but(not_before=min(at, limit), reason=_WHY))


def _missed(firing: FiringState, now: datetime) -> bool:
    return firing.firing.status is FiringStatus.PENDING and now - firing.firing.not_before >= LATE
