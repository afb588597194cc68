"""Whole days counted on a zone's wall clock: every other Friday at 16:00 stays at 16:00. Pure.

A change of the clocks is met as by a fixed cron time: a time that does not exist stands for the first instant after
the gap, one that exists twice for its first copy.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from .instants import instant_of, wall_at

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

DAY = timedelta(days=1)


class WallSteps:
    """The instants ``start + n * every``, counted on the wall clock. All of them in UTC."""

    __slots__ = ("every", "start", "zone")

    def __init__(self, start: datetime, every: timedelta, zone: ZoneInfo) -> None:
        self.zone = zone
        self.every = every
        """A whole number of days."""
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
