"""Quiet hours: pure functions of the window, the zone and the instant.

A window is of the wall clock. Where the clock is changed inside of it, the night is whole: a start that does not exist
is when the clock jumps, so is an end; of a start that exists twice the first counts, of an end the second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuietHours:
    """Hours of a day in which nobody is to be disturbed; past midnight when ``end`` is not after ``start``."""

    start: time
    end: time


def read_quiet(text: str) -> QuietHours:
    """``22:00-07:00``. Raises ValueError."""
    found = _WINDOW.fullmatch(text.strip())
    if found is None:
        raise ValueError('quiet hours are written like "22:00-07:00"')
    hours = [int(part) for part in found.groups()]
    window = QuietHours(start=time(hours[0], hours[1]), end=time(hours[2], hours[3]))
    if window.start == window.end:
        raise ValueError("quiet hours must begin and end at different times")
    return window


def zone_of(name: str) -> ZoneInfo:
    """The zone, or UTC where this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def quiet_until(window: QuietHours, at: datetime, zone: ZoneInfo) -> datetime | None:
    """When the quiet hours that ``at`` falls into are over, in UTC; None when it falls into none."""
    today = at.astimezone(zone).date()
    for day in (today - timedelta(days=1), today):
        begin, end = _bounds(window, day, zone)
        if begin <= at < end:
            return end
    return None


def _bounds(window: QuietHours, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The night that begins on a day, in UTC."""
    last = day if window.end > window.start else day + timedelta(days=1)
    return _instant(day, window.start, zone, fold=0), _instant(last, window.end, zone, fold=1)


def _instant(day: date, at: time, zone: ZoneInfo, *, fold: int) -> datetime:
    """A time of the wall clock in UTC; that of the jump when the clock jumps over it."""
    wall = datetime.combine(day, at)
    early, late = (wall.replace(tzinfo=zone, fold=each).astimezone(UTC) for each in (1, 0))
    if early >= late:  # It exists: once, or twice (then fold 1 is the later one).
        return wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    before = early.astimezone(zone).utcoffset()
    while late - early > _SECOND:  # The jump is after `early` and not after `late`.
        middle = early + (late - early) / 2
        early, late = (middle, late) if middle.astimezone(zone).utcoffset() == before else (early, middle)
    return late.replace(microsecond=0)
