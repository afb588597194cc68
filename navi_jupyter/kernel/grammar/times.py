"""Durations and instants of a cell, turned into the contract's forms. Pure but for the local zone.

Not responsible for times in English or times of day: the server reads them, and judges all.
"""

from __future__ import annotations

import functools
import math
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from ...clock import find_zone
from ...text import plain_number
from ..errors import UsageError

_UNITS = {
    "ms": ("ms", "millisecond", "milliseconds"),
    "s": ("s", "sec", "secs", "second", "seconds"),
    "m": ("m", "min", "mins", "minute", "minutes"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
    "d": ("d", "day", "days"),
    "w": ("w", "week", "weeks"),
}
_UNIT_OF = {word: unit for unit, words in _UNITS.items() for word in words}
UNIT_WORD = "|".join(sorted(_UNIT_OF, key=len, reverse=True))
_PART = re.compile(rf"\s*(\d{{1,9}}(?:\.\d{{1,6}})?)\s*({UNIT_WORD})(?![A-Za-z])", re.ASCII | re.IGNORECASE)
_GLUED = re.compile(rf"\s*(\d{{1,9}}(?:\.\d{{1,6}})?)({UNIT_WORD})(?=\d)", re.ASCII | re.IGNORECASE)
"""The ``1h`` of ``1h30m``."""
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:?\d\d\S*(?:\s?[+-]\d\d:?\d\d)?(?=[\s,;]|$)", re.IGNORECASE)


def take_duration(text: str) -> tuple[str, str] | None:
    """``"1h 30 minutes look"`` -> ``("1h30m", "look")``; None when ``text`` does not begin with a duration."""
    out, position = "", 0
    while match := _GLUED.match(text, position) or _PART.match(text, position):
        count, unit = match[1], _UNIT_OF[match[2].lower()]
        out += f"{plain_number(float(count) * 7)}d" if unit == "w" else count + unit
        position = match.end()
    rest = text[position:]
    if not out or (rest and not rest[0].isspace()):
        return None
    return out, rest.strip()


def duration_text(value: str | float | timedelta) -> str:
    """The wire form of a duration given as text, seconds or timedelta. Text that is none is left to the server.

    Seconds and a timedelta are elapsed time; ``"1d"`` is a calendar day.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str):
        taken = take_duration(value)
        return taken[0] if taken and not taken[1] else value
    if type(value) not in (int, float) or not math.isfinite(value):
        raise UsageError(f"{value!r} is not a duration: write it like '10m', in seconds, or as a timedelta.")
    milliseconds = round(value * 1000)
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds}s" + (f"{rest}ms" if rest else "") if milliseconds > 0 else f"{plain_number(value)}s"


def take_instant(text: str, zone: str | None = None) -> tuple[str, str] | None:
    """``"2027-01-31T18:30 pay"`` -> the instant's wire form and ``"pay"``; None when ``text`` begins with no ISO 8601.

    Without an offset it is in ``zone``; without that, too, it is left to the server, which knows whose clock counts.
    """
    match = _ISO.match(text)
    try:
        at = datetime.fromisoformat(match[0].rstrip(".")) if match else None
    except ValueError:
        return None
    if match is None or at is None or (at.tzinfo is None and zone is None):
        return None
    return instant_text(at, zone), text[match.end() :].strip()


def instant_text(at: datetime, zone: str | None = None) -> str:
    """The wire form of an instant; without an offset in ``zone``, else the local one."""
    if at.tzinfo is None:
        own = named_zone(zone) if zone else local_tz()
        at = at.replace(tzinfo=own) if own else at.astimezone()
    return at.isoformat()


def local_zone() -> str | None:
    """The IANA name of this machine's zone; None when it is not known.

    ``TZ`` may name a zone, a file or a rule of POSIX, and does so behind a colon, too; empty it means UTC.
    """
    name = os.environ.get("TZ", "/etc/localtime").removeprefix(":")
    if name.startswith("/"):
        _, found, name = str(Path(name).resolve()).partition("zoneinfo/")
        return name if found and find_zone(name) else None
    if not name:
        return "UTC"
    return name if find_zone(name) else _zone_of_rule(name)


_RULE = re.compile(
    r"(?P<name>[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)(?P<sign>[+-]?)(?P<hours>\d{1,2})(?::(?P<minutes>\d\d))?"
)


@functools.lru_cache(maxsize=8)
def _zone_of_rule(rule: str) -> str | None:
    """A zone with the same clock as a rule of POSIX: ``UTC0``, ``CET-1CEST,M3.5.0,M10.5.0/3``; None where none has.

    A rule has no name of a place, so any zone that agrees with it for the years to come is as good.
    """
    match = _RULE.match(rule)
    if match is None:
        return None
    minutes = int(match["hours"]) * 60 + int(match["minutes"] or 0)
    # POSIX counts to the west, so the clock is ahead where its number is negative; Etc/GMT-2 counts so, too.
    sign = "-" if match["sign"] == "-" else "+"
    if match.end() == len(rule):
        fixed = f"Etc/GMT{sign}{minutes // 60}" if minutes else "UTC"
        return fixed if minutes % 60 == 0 and find_zone(fixed) else _agreeing(timedelta(minutes=minutes), sign)
    return _agreeing(timedelta(minutes=minutes), sign)


def _agreeing(west: timedelta, sign: str) -> str | None:
    """The first zone whose clock is this process's, for a year to come. Reads all of the zones: half a second."""
    standard = west if sign == "-" else -west
    begin = datetime.now(UTC).timestamp()
    moments = [datetime.fromtimestamp(begin + hour * 3600, UTC) for hour in range(400 * 24)]
    wanted = [moment.astimezone().utcoffset() for moment in moments]
    if standard not in wanted:
        return None  # the variable was set when the process ran, and its clock does not follow it
    # Names of places, the usual continents first; what is only a rule itself (CET, EST5EDT) has no slash.
    names = sorted(available_timezones(), key=lambda name: (name.startswith(("Antarctica", "Etc")), "/" in name, name))
    for name in names:
        zone = find_zone(name)
        if zone and all(
            moment.astimezone(zone).utcoffset() == offset for moment, offset in zip(moments, wanted, strict=True)
        ):
            return name
    return None


_reader: tuple[str | None, str] | None = None
"""The zone of the reader, as the server gave it last, behind the machine's at that time: a new ``TZ`` begins anew."""


def keep_reader_zone(name: str) -> None:
    """Note whose clock counts, as the server says."""
    global _reader
    if find_zone(name) is not None:
        _reader = (local_zone(), name)


def reader_zone() -> str | None:
    """The zone on whose clock a cell shows times: the session's; until one was read this machine's, if it is known."""
    here = local_zone()
    return _reader[1] if _reader is not None and _reader[0] == here else here


def reader_tz() -> ZoneInfo | None:
    """:func:`reader_zone` with its rules."""
    name = reader_zone()
    return ZoneInfo(name) if name else None


def kernel_client() -> dict[str, dict[str, str]]:
    """The field ``client`` of a request that a kernel sends; empty where this machine's zone is not known."""
    zone = local_zone()
    return {"client": {"tz": zone, "source": "kernel"}} if zone else {}


def local_tz() -> ZoneInfo | None:
    """The machine's zone with its rules; None when it is not known."""
    name = local_zone()
    return ZoneInfo(name) if name else None


def named_zone(name: str) -> ZoneInfo:
    """The zone of that name. Raises UsageError."""
    zone = find_zone(name)
    if zone is None:
        raise UsageError(f"{name[:60]!r} is no time zone: write it like Europe/Berlin.", field="tz")
    return zone
