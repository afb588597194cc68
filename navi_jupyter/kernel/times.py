"""Times and durations as people write them in a cell, turned into the contract's forms. Pure but for the local zone.

Not responsible for judging them: past times, impossible zones and never-matching cron are the server's to refuse.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .errors import UsageError

_UNITS = {
    "ms": ("ms", "millisecond", "milliseconds"),
    "s": ("s", "sec", "secs", "second", "seconds"),
    "m": ("m", "min", "mins", "minute", "minutes"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
    "d": ("d", "day", "days"),
    "w": ("w", "week", "weeks"),
}
_UNIT_OF = {word: unit for unit, words in _UNITS.items() for word in words}
_WORDS = "|".join(sorted(_UNIT_OF, key=len, reverse=True))
_PART = re.compile(rf"\s*(\d{{1,9}}(?:\.\d{{1,6}})?)\s*({_WORDS})(?![A-Za-z])", re.ASCII | re.IGNORECASE)
_GLUED = re.compile(rf"\s*(\d{{1,9}}(?:\.\d{{1,6}})?)({_WORDS})(?=\d)", re.ASCII | re.IGNORECASE)  # the 1h of 1h30m
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")


def take_duration(text: str) -> tuple[str, str] | None:
    """``"1h 30 minutes look"`` -> ``("1h30m", "look")``; None when ``text`` does not begin with a duration."""
    out, position = "", 0
    while match := _GLUED.match(text, position) or _PART.match(text, position):
        number, unit = match[1], _UNIT_OF[match[2].lower()]
        out += f"{float(number) * 7:g}d" if unit == "w" else number + unit
        position = match.end()
    rest = text[position:]
    if not out or (rest and not rest[0].isspace()):
        return None
    return out, rest.strip()


def duration_text(value: str | float | timedelta) -> str:
    """The wire form of a duration given as text, seconds or timedelta. Text that is none is left to the server."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str):
        taken = take_duration(value)
        return taken[0] if taken and not taken[1] else value
    milliseconds = round(value * 1000)
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds}s" + (f"{rest}ms" if rest else "") if milliseconds > 0 else f"{value:g}s"


def take_time(text: str, *, now: datetime) -> tuple[datetime, str] | None:
    """``"tomorrow 8:30 look"`` -> (that instant, ``"look"``); None when ``text`` does not begin with a time.

    Understood: ISO 8601 dates with a time, ``HH:MM`` (the next such), ``today`` or ``tomorrow`` with ``HH:MM``.
    Without an offset it is in the zone of ``now``.
    """
    words = text.split(maxsplit=2)
    for count in (2, 1):
        if len(words) < count:
            continue
        at = _read_time(" ".join(words[:count]), now)
        if at is not None:
            rest = text.split(maxsplit=count)
            return at, rest[count].strip() if len(rest) > count else ""
    return None


def instant_text(value: str | datetime, *, zone: str | None = None) -> str:
    """The wire form of an instant given as datetime or text; without an offset in ``zone``, else the local one."""
    here = datetime.now(named_zone(zone) if zone else None).astimezone(named_zone(zone) if zone else local_tz())
    if isinstance(value, datetime):
        return _aware(value, here).isoformat()
    taken = take_time(value, now=here)
    if taken is None or taken[1]:
        raise UsageError(
            f"{value[:60]!r} is not a time: write it like 18:30, tomorrow 8:30 or 2027-01-31T18:30.",
            field="at",
        )
    return taken[0].isoformat()


def local_zone() -> str | None:
    """The IANA name of this machine's zone; None when it can not be told."""
    name = os.environ.get("TZ", "").lstrip(":")
    if not name:
        _, found, name = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")
        if not found:
            return None
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
    return name


def local_tz() -> ZoneInfo | None:
    """The machine's zone with its rules; None (which ``astimezone`` takes as "the system's") when unknown."""
    name = local_zone()
    return ZoneInfo(name) if name else None


def named_zone(name: str) -> ZoneInfo:
    """The zone of that name. Raises UsageError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"{name[:60]!r} is no time zone: write it like Europe/Berlin.", field="tz") from None


def _aware(value: datetime, here: datetime) -> datetime:
    """``value``, in the zone of ``here`` if it says none."""
    return value if value.tzinfo else value.replace(tzinfo=here.tzinfo)


def _read_time(text: str, now: datetime) -> datetime | None:
    day, _, clock = text.lower().rpartition(" ")
    match = _CLOCK.fullmatch(clock)
    if match and day in ("", "today", "tomorrow"):
        hour, minute, second = int(match[1]), int(match[2]), int(match[3] or 0)
        if hour > 23 or minute > 59 or second > 59:
            return None
        at = now.replace(hour=hour, minute=minute, second=second, microsecond=0, fold=0)
        later = day == "tomorrow" or (day == "" and at <= now)
        return at + timedelta(days=1) if later else at
    if not re.match(r"\d{4}-\d\d-\d\d.\d", text):  # a bare date is no time
        return None
    try:
        return _aware(datetime.fromisoformat(text), now)
    except ValueError:
        return None
