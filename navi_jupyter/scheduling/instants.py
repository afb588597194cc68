"""The real instants of a cron expression, and of every so many days, in a time zone. Pure.

The policy on clock changes is Debian cron's, as a *fixed set of instants* S, so that
``next(b) = min{t in S: t > b}`` for whatever ``b`` a restart asks about:

- fixed-time expressions (five fields, neither minute nor hour starts with ``*``): a wall time that does not
  exist stands for the first instant after the gap; one that exists twice stands for its first copy;
- all others: every real instant whose wall clock matches.

Days that are counted on the wall clock (:class:`WallSteps`) meet a clock change as a fixed time does.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from .cron import SECOND, Fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)
_REACH = timedelta(hours=26)  # No clock change moves the wall clock by more (the date line: 24 h).
_ZERO = timedelta(0)


def offset_at(zone: ZoneInfo, at: datetime) -> timedelta:
    """What the wall clock of ``zone`` is ahead of UTC at an instant."""
    return at.astimezone(zone).utcoffset() or _ZERO


def wall_at(zone: ZoneInfo, at: datetime) -> datetime:
    """The naive wall-clock time of ``zone`` at an instant."""
    return at.astimezone(zone).replace(tzinfo=None, fold=0)


def _naive(at: datetime) -> datetime:
    return at.replace(tzinfo=None)


def _change(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """The first whole second in (low, high] with the offset of ``high``; there is exactly one change."""
    # By bisection: zoneinfo has no way to ask for its transitions.
    target, low, high = offset_at(zone, high), low.replace(microsecond=0), high
    seconds = int((high - low).total_seconds())
    left, right = 0, seconds
    while right - left > 1:
        middle = (left + right) // 2
        if offset_at(zone, low + SECOND * middle) == target:
            right = middle
        else:
            left = middle
    return low + SECOND * right


def instant_of(zone: ZoneInfo, wall: datetime) -> tuple[datetime, bool]:
    """A wall time's first real instant and True; when it does not exist, the end of the gap and False."""
    first = wall.replace(tzinfo=zone).astimezone(UTC)
    if wall_at(zone, first) == wall:
        return first, True
    # In a gap fold=1 means the offset after it, so that this one lies before the change.
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return _change(zone, early - SECOND, first), False


def changes(zone: ZoneInfo, after: datetime, upto: datetime) -> Iterator[datetime]:
    """The clock changes in (after, upto], each the first instant of the new offset."""
    at, offset = after, offset_at(zone, after)
    while at < upto:
        step = min(at + _REACH, upto)
        if (new := offset_at(zone, step)) != offset:
            yield _change(zone, at, step)
            offset = new
        at = step


class Calendar:
    """The set S of an expression in a zone. All instants in UTC."""

    __slots__ = ("fields", "zone")

    def __init__(self, fields: Fields, zone: ZoneInfo) -> None:
        self.fields = fields
        self.zone = zone

    def after(self, at: datetime) -> datetime | None:
        """``min{t in S: t > at}``; None when the calendar ends before."""
        at = at.astimezone(UTC)
        try:
            return self._fixed_after(at) if self.fields.fixed_time else self._every_after(at)
        except OverflowError:
            return None

    def _fixed_after(self, at: datetime) -> datetime | None:
        wall: datetime | None = wall_at(self.zone, at)
        while wall is not None and (wall := self.fields.after(wall)) is not None:
            instant, _ = instant_of(self.zone, wall)
            if instant > at:  # not so for first copies while the second passes
                return instant
        return None

    def _every_after(self, at: datetime) -> datetime | None:
        offset = offset_at(self.zone, at)
        wall = self.fields.after((at + offset).replace(tzinfo=None))
        if wall is None:
            return None
        candidate = wall.replace(tzinfo=UTC) - offset
        # The usual case: near, and under the offset of now. What follows is about changes of the clock in between.
        if candidate - at <= _REACH and offset_at(self.zone, candidate) == offset:
            return candidate
        horizon = at + _REACH
        if offset_at(self.zone, horizon) != offset:
            # A fold within reach repeats walls that are not after ours, so go on from the change itself.
            change = _change(self.zone, at, horizon)
            if candidate < change:
                return candidate
            new = offset_at(self.zone, change)
            wall = self.fields.after((change + new).replace(tzinfo=None) - _TICK)
            candidate = wall.replace(tzinfo=UTC) - new if wall else candidate
            if wall is None or (candidate - change <= _REACH and offset_at(self.zone, candidate) == new):
                return candidate if wall else None
        return self._far(wall)

    def _far(self, wall: datetime | None) -> datetime | None:
        """The first copy of the first match from ``wall`` on that exists."""
        while wall is not None:
            instant, exists = instant_of(self.zone, wall)
            if exists:
                return instant
            wall = self.fields.after(wall_at(self.zone, instant) - _TICK)
        return None

    def count(self, after: datetime, upto: datetime) -> int:
        """How many instants of S lie in (after, upto]. O(days), not O(matches)."""
        if upto <= after:
            return 0
        after, upto = after.astimezone(UTC), upto.astimezone(UTC)
        return self._count_fixed(after, upto) if self.fields.fixed_time else self._count_every(after, upto)

    def _count_every(self, after: datetime, upto: datetime) -> int:
        total, start, offset = 0, after, offset_at(self.zone, after)
        for change in changes(self.zone, after, upto):
            last = change - _TICK
            total += self.fields.count(_naive(start + offset), _naive(last + offset))
            start, offset = last, offset_at(self.zone, change)
        return total + self.fields.count(_naive(start + offset), _naive(upto + offset))

    def _first_copies(self, at: datetime) -> datetime:
        """The wall time up to which all first copies have passed at ``at``."""
        local = at.astimezone(self.zone)
        if not local.fold:
            return local.replace(tzinfo=None)
        change = _change(self.zone, at - _REACH, at)
        return _naive(change + offset_at(self.zone, change - SECOND)) - _TICK

    def _count_fixed(self, after: datetime, upto: datetime) -> int:
        total = self.fields.count(self._first_copies(after), self._first_copies(upto))
        for change in changes(self.zone, after, upto):
            old, new = offset_at(self.zone, change - SECOND), offset_at(self.zone, change)
            if new <= old:
                continue
            gap_start, gap_end = ((change + o).replace(tzinfo=None) for o in (old, new))
            lost = self.fields.count(gap_start - _TICK, gap_end - _TICK)
            if lost:  # all of them are one instant: that of the gap's end, which may match by itself
                total -= lost if self.fields.count(gap_end - _TICK, gap_end) else lost - 1
        return total


class WallSteps:
    """The instants ``start + n * every``, counted on the wall clock. All of them in UTC."""

    __slots__ = ("every", "start", "zone")

    def __init__(self, start: datetime, every: timedelta, zone: ZoneInfo) -> None:
        self.zone = zone
        self.every = every  # A whole number of days.
        self.start = wall_at(zone, start)

    def nth(self, index: int) -> datetime | None:
        """The slot of that index; None when the calendar ends before."""
        try:
            return instant_of(self.zone, self.start + self.every * index)[0].astimezone(UTC)
        except OverflowError:
            return None

    def passed(self, at: datetime) -> int:
        """How many slots lie at or before ``at``."""
        index = max(0, (wall_at(self.zone, at) - self.start) // self.every + 2)
        while index > 0 and ((slot := self.nth(index - 1)) is None or slot > at):
            index -= 1
        return index


@lru_cache(maxsize=1024)
def steps(start: datetime, every: timedelta, zone: ZoneInfo) -> WallSteps:
    """Compiled once per process."""
    return WallSteps(start, every, zone)
