"""Time: the wall clock, zones by name, durations as text. The lowest layer; pure but for :func:`now`."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return now()

    async def wait(self, signal: asyncio.Event, *, until: datetime) -> None:
        delay = (until - now()).total_seconds()
        if delay <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(signal.wait(), delay)


_database_offset = timedelta(0)


def now() -> datetime:
    """The wall clock, in UTC, as the database's server has it where several servers share one. The only place that
    reads it; everything else takes time as an argument."""
    return datetime.now(UTC) + _database_offset if _database_offset else datetime.now(UTC)


def database_offset() -> timedelta:
    """By how much the database's clock is ahead of this machine's, as of the last measurement."""
    return _database_offset


def set_database_offset(offset: timedelta) -> None:
    """Times are those of the database from now on: leases and due times mean the same to all servers that share it."""
    global _database_offset
    _database_offset = offset


def boot_time() -> float:
    """Seconds since the machine started, the same for all its processes. Cannot be set; on Linux sleep counts."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def until_tick(every: float) -> float:
    """Seconds until the event loop's clock has a multiple of ``every``: what is done as often wakes the loop once."""
    left = every - asyncio.get_running_loop().time() % every
    return left if left > every / 10 else left + every  # a timer may be early by a moment


class ClockSteps:
    """Notices when somebody sets the wall clock, by a clock that cannot be set."""

    def __init__(self, steady: Callable[[], float], wall: Callable[[], datetime]) -> None:
        self._steady = steady
        self._wall = wall
        self._last = self._steady(), self._wall()

    def since_last(self) -> timedelta:
        """By how much the wall clock was set since the last call, or since this was made: below zero, back."""
        (steady, wall), (last_steady, last_wall) = (self._steady(), self._wall()), self._last
        self._last = steady, wall
        return wall - last_wall - timedelta(seconds=steady - last_steady)


def time_words(local: datetime, today: datetime | None) -> str:
    """``Fri 27 Nov 16:00``: the one form in which people read times. Both arguments are on the reader's clock.

    The year stands there where it is not this one, or no ``today`` is given; seconds within ten minutes of it, where
    they are what distinguishes two times.
    """
    year = "" if today is not None and local.year == today.year else f" {local.year}"
    is_near = today is not None and abs(local - today) < timedelta(minutes=10)
    return f"{local:%a} {local.day} {local:%b}{year} {local:{'%H:%M:%S' if is_near else '%H:%M'}}"


def timestamp(at: datetime) -> str:
    """``at`` as ISO 8601 in UTC with milliseconds and ``Z``."""
    in_utc = at if at.tzinfo is UTC else at.astimezone(UTC)
    return in_utc.isoformat(timespec="milliseconds")[: -len("+00:00")] + "Z"


_ZONE_NAME = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}", re.ASCII)


@lru_cache(maxsize=1024)
def find_zone(name: str) -> ZoneInfo | None:
    """The IANA zone of that name; None where this machine does not know it. Safe for names from outside."""
    # ``localtime`` and the like are files of this machine, not zones that another machine would know.
    if not _ZONE_NAME.fullmatch(name) or name in ("localtime", "posixrules", "Factory"):
        return None
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return None


def zone_or_utc(name: str) -> ZoneInfo:
    """The zone of that name, or UTC: for names that were checked when they were stored."""
    return find_zone(name) or ZoneInfo("UTC")


_UTC_NAMES = frozenset(
    ("UTC", "Etc/UTC", "Etc/UCT", "Etc/Zulu", "Etc/Universal", "UCT", "Zulu", "Universal", "GMT", "Etc/GMT")
)


def zone_label(name: str, reader: str | None) -> str:
    """The usual name of a zone, for a time of that zone that is shown to a reader; empty where it is the reader's own.

    None for ``reader`` is a reader whose zone is not known.
    """
    if fixed := re.fullmatch(r"Etc/GMT([+-])(\d+)", name):
        # The database of zones counts the other way round.
        return "" if name == reader else f"UTC{'-' if fixed[1] == '+' else '+'}{fixed[2]}"
    usual = "UTC" if name in _UTC_NAMES else name
    return "" if reader is not None and usual == ("UTC" if reader in _UTC_NAMES else reader) else usual


_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|[dhms])", re.ASCII)
_MAX_DURATION = timedelta(days=36525)


def parse_duration(text: str) -> timedelta:
    """``"90s"``, ``"10m"``, ``"1h30m"``, ``"2d"`` (units may be spaced) as a timedelta.

    Raises ValueError when it is not one, is zero, or is longer than a century.
    """
    compact = text.replace(" ", "").lower() if len(text) <= 64 else ""
    parts = _DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"not a duration: {text[:64]!r} (write it like 90s, 10m, 1h30m or 2d)")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise ValueError("a duration must be longer than zero")
    if total > _MAX_DURATION.total_seconds():
        raise ValueError("a duration cannot be longer than 36525 days")
    return timedelta(seconds=total)


def format_duration(value: timedelta, *, days: bool = True) -> str:
    """The shortest form that :func:`parse_duration` reads back, e.g. ``1h30m``; without ``days`` it counts hours on."""
    milliseconds = round(value.total_seconds() * 1000)
    if milliseconds == 0:
        return "0s"
    out = ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))[not days :]:
        count, milliseconds = divmod(milliseconds, size)
        if count:
            out += f"{count}{unit}"
    return out


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time until something is due: calendar days on a wall clock, then elapsed time.

    ``1d`` is a calendar day (the same time of day tomorrow, also where the clocks change in between), ``24h`` are 24
    hours. Not for time limits and pauses, which are elapsed time: they stay timedeltas.
    """

    days: int = 0
    elapsed: timedelta = timedelta(0)

    @classmethod
    def parse(cls, text: str) -> Period:
        """What :func:`parse_duration` reads, with whole days kept apart. Raises ValueError."""
        total = parse_duration(text)
        counts = [number for number, unit in _DURATION.findall(text.replace(" ", "").lower()) if unit == "d"]
        # Half a day is 12 hours: no calendar has one.
        days = sum(int(float(count)) for count in counts if float(count).is_integer())
        return cls(days, total - timedelta(days=days))

    @property
    def total(self) -> timedelta:
        """Its length where each day has 24 hours."""
        return timedelta(days=self.days) + self.elapsed

    def after(self, at: datetime, zone: ZoneInfo) -> datetime:
        """``at`` and this period: its days on the wall clock of ``zone``. In UTC.

        A time that the clocks leave out is moved on by the gap; of one that they show twice it is the first.
        """
        if self.days:
            wall = at.astimezone(zone).replace(tzinfo=None) + timedelta(days=self.days)
            at = wall.replace(tzinfo=zone)
        return at.astimezone(UTC) + self.elapsed

    def __str__(self) -> str:
        days = f"{self.days}d" if self.days else ""
        return days + format_duration(self.elapsed, days=False) if self.elapsed or not days else days


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    async def wait(self, signal: asyncio.Event, *, until: datetime) -> None:
        """Return once ``signal`` is set or ``until`` has come, whichever is first."""
        ...
