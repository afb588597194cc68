"""English times that lie back: "yesterday", "2 hours ago", "the last hour", "this morning"."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ..errors import InvalidSchedule
from .clock_times import CLOCK, DURATION, PARTS_OF_DAY, WEEKDAY, read_clock, read_duration
from .dates import dateparse

_LAST = (
    rf"(?:in\s+|within\s+|during\s+|over\s+)?(?:the\s+)?(?:last|past)\s+(?P<stretch>{DURATION}|(?:second|minute|hour"
    rf"|day|week)s?)$"
)
_AGO = rf"(?P<stretch>{DURATION})\s+ago$"
_DAY = (
    rf"(?P<day>today|yesterday|this|last night|(?:last\s+|on\s+)?{WEEKDAY}|\d{{4}}-\d{{2}}-\d{{2}})"
    rf"(?:\s+(?P<part>morning|noon|afternoon|evening|night|week))?(?:\s+(?P<clock>{CLOCK}))?$"
)


async def read_past(text: str, now: datetime, zone: str) -> datetime | None:
    """The instant that a text means, at or before ``now`` (aware); None when it means none.

    In a thread, because dateparser's import and first call would hold the event loop.
    """
    return await asyncio.to_thread(_read, text, now.astimezone(ZoneInfo(zone)))


def _read(text: str, now: datetime) -> datetime | None:
    words = re.sub(r"^since\s+", "", " ".join(text.strip().strip("?!.").lower().split()))
    try:
        at = _iso(text, now) or _relative(words, now) or _on_day(words, now) or _by_dateparser(words, now)
    except InvalidSchedule:
        return None
    return at if at is not None and at <= now else None


def _iso(text: str, now: datetime) -> datetime | None:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=now.tzinfo)


def _relative(words: str, now: datetime) -> datetime | None:
    if match := re.match(_LAST, words) or re.match(_AGO, words):
        stretch = match["stretch"]
        singular = stretch if re.match(r"\d|an? |[a-z]+ [a-z]", stretch) else f"1 {stretch}"
        return now.astimezone(UTC) - read_duration(singular)
    if words == "this week":
        return datetime.combine(now.date() - timedelta(days=now.weekday()), time(0), tzinfo=now.tzinfo)
    return None


def _on_day(words: str, now: datetime) -> datetime | None:
    if clock := re.fullmatch(CLOCK, words):
        choices = read_clock(clock[0]).choices()
        days = (now.date(), now.date() - timedelta(days=1))
        past = [datetime.combine(day, at, tzinfo=now.tzinfo) for day in days for at in choices]
        return max(at for at in past if at <= now)
    match = re.match(_DAY, words)
    if match is None:
        return None
    day = match["day"]
    date = now.date()
    if day in ("yesterday", "last night"):
        date -= timedelta(days=1)
    elif re.fullmatch(rf"(?:last |on )?{WEEKDAY}", day):
        names = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
        wanted = names.index(re.sub(r"^(?:last|on) ", "", day)[:3])
        date -= timedelta(days=(now.weekday() - wanted) % 7 or 7)
    elif re.match(r"\d", day):
        date = datetime.fromisoformat(day).date()
    part = match["part"] or ("evening" if day == "last night" else None)
    at = PARTS_OF_DAY[part].replace(hour=6) if part == "morning" else PARTS_OF_DAY[part] if part else time(0)
    if match["clock"]:
        at = read_clock(match["clock"], part=part).likely()
    return datetime.combine(date, at, tzinfo=now.tzinfo)


def _by_dateparser(words: str, now: datetime) -> datetime | None:
    found = dateparse(words, now.replace(tzinfo=None), past=True)
    return found.replace(tzinfo=now.tzinfo) if found else None
