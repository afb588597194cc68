"""When a notification may be sent: quiet hours, retries, and the limit per hour. Pure functions of the instant.

Quiet hours are a window of the wall clock. Where the clock is changed inside it, the night stays in one piece: a start
or an end that does not exist is the moment of the change; of a start that exists twice the first counts, of an end the
second.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_WINDOW = re.compile(r"((?:[01][0-9]|2[0-3]):[0-5][0-9])-((?:[01][0-9]|2[0-3]):[0-5][0-9])")
MAX_ATTEMPTS = 5
HOUR = timedelta(hours=1)
FIRST_RETRY = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuietHours:
    """Hours of a day in which no notification is sent; past midnight when ``end`` is not after ``start``."""

    start: time
    end: time


def read_quiet(text: str) -> QuietHours:
    """The window written like ``22:00-07:00``. Raises ValueError."""
    found = _WINDOW.fullmatch(text.strip())
    if found is None:
        raise ValueError('quiet hours are written like "22:00-07:00"')
    window = QuietHours(start=time.fromisoformat(found[1]), end=time.fromisoformat(found[2]))
    if window.start == window.end:
        raise ValueError("quiet hours must begin and end at different times")
    return window


def quiet_until(window: QuietHours, at: datetime, zone: ZoneInfo) -> datetime | None:
    """The end, in UTC, of the quiet hours that contain ``at``; None outside of quiet hours."""
    today = at.astimezone(zone).date()
    # A night that began yesterday may contain this morning.
    for day in (today - timedelta(days=1), today):
        last = day if window.end > window.start else day + timedelta(days=1)
        end = _instant(last, window.end, zone, fold=1)
        if _instant(day, window.start, zone, fold=0) <= at < end:
            return end
    return None


def _instant(day: date, at: time, zone: ZoneInfo, *, fold: int) -> datetime:
    """A time of the wall clock in UTC; the moment of the change when the clock skips it."""
    wall = datetime.combine(day, at)
    early, late = (wall.replace(tzinfo=zone, fold=each).astimezone(UTC) for each in (1, 0))
    if early >= late:  # It exists: once, or twice, where fold 1 is the later one.
        return wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    before = early.astimezone(zone).utcoffset()
    # zoneinfo has no list of the clock changes: bisect between an instant before the change and one after it.
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) / 2
        early, late = (middle, late) if middle.astimezone(zone).utcoffset() == before else (early, middle)
    return late.replace(microsecond=0)


def retry_after(attempts: int) -> timedelta | None:
    """The delay after so many failed attempts (30 s, 2 min, 8 min, 32 min); None after the last one."""
    return None if attempts >= MAX_ATTEMPTS else FIRST_RETRY * int(4 ** (max(attempts, 1) - 1))


def free_at(sent: Sequence[datetime], now: datetime, *, per_hour: int) -> datetime | None:
    """When the next message may be sent after those of ``sent``; None when it may be sent now."""
    recent = sorted(at for at in sent if at > now - HOUR)
    return None if len(recent) < per_hour else recent[len(recent) - per_hour] + HOUR
