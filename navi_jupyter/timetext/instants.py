"""One-time phrases -> instants: ``in 10 minutes``, ``tomorrow at 8:30``, ``monday 23:30``; the forms and their readers.

What is meant is the next instant that fits all of the words: a day and a time of day are resolved together.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ..clock import Period, zone_label
from ..errors import InvalidSchedule
from ..model.recalls import OnceSpec, Policy, ScheduleSpec
from .clocks import (
    CLOCK,
    DOTTED_CLOCK,
    NOT_A_THING,
    PART,
    PART_OF_DAY,
    PARTS_OF_DAY,
    SMALL_HOURS,
    morning_note,
    read_clock,
)
from .days import DAY, END_OF, SLASHED, WEEKDAY, WORKDAY, dates_of
from .durations import CLOCK_DURATION, DURATION, read_duration

_ISO = r"\d{4}-\d{2}-\d{2}[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:\s?(?:Z|[+-]\d{2}:?\d{2}))?(?![\d:])"
_FIRST = r"(?P<part3>first\s+thing)\s+"
_PART_OF = rf"(?:\s+(?:in\s+the\s+)?(?P<part>{PART}))?"
_NTH_DAY = r"\d{1,2}(?:st|nd|rd|th)"
_IN_PART = rf"(?:in\s+the|at|this)\s+{PART}"


def form_of(name: str, pattern: str, strength: int) -> tuple[str, re.Pattern[str], int]:
    return name, re.compile(rf"(?<![\w./-]){pattern}(?![\w])", re.IGNORECASE), strength


@functools.cache
def once_forms() -> tuple[tuple[str, re.Pattern[str], int], ...]:
    """What to look for: its reader's name, the pattern, how surely it is a time. Compiling them takes 40 ms: late."""
    clock_behind = rf"(?P<clock2>{CLOCK}|{DOTTED_CLOCK})(?:\s+{_IN_PART.replace(PART, f'(?P<part2>{PART})')})?"
    return (
        form_of("iso", rf"(?:(?:at|on)\s+)?(?P<iso>{_ISO})", 4),
        form_of(
            "day",
            rf"(?:(?P<clock>{CLOCK})(?:\s+(?:in\s+the|at)\s+(?P<part0>{PART}))?,?\s+|{_FIRST}(?:on\s+)?|(?:at|by|for)\s+)?"
            rf"(?P<day>{END_OF}|{DAY})(?:\s+(?:in\s+the\s+)?(?P<part>{PART}|first\s+thing)(?:(?<=thing)\s+in\s+the\s+morning)?)?"
            rf"(?:(?:,|\s+)\s*(?:{clock_behind}|(?P<hour>\d{{1,2}}(?![\w:./%]){NOT_A_THING})))?",
            3,
        ),
        form_of(
            "elapsed",
            rf"(?:(?:in|after)\s+(?:(?:about|around|roughly|approximately|exactly)\s+)?(?P<elapsed>{DURATION})|in\s+(?P<stretch>{CLOCK_DURATION}))"
            r"(?:\s+from now|['’]\s+time)?",
            3,
        ),
        form_of("elapsed", rf"(?P<elapsed>{DURATION})\s+(?:from now|later)", 3),
        form_of("clock", rf"(?P<clock>{CLOCK})(?:\s+(?P<part>{PART_OF_DAY}|today|tonight))?", 2),
        form_of("clock", rf"(?P<part>{PART_OF_DAY}),?\s+(?P<clock>{CLOCK})", 2),
        form_of("clock", rf"(?P<clock>{DOTTED_CLOCK})(?P<part>(?!))?", 2),
        form_of("part", rf"(?:first\s+thing\s+)?(?P<part>{PART_OF_DAY})", 2),
        form_of(
            "day",
            rf"(?:(?:by|for)\s+)?(?P<day>{WEEKDAY}|{SLASHED}|(?:the\s+)?{_NTH_DAY})\.?{_PART_OF}(?:,|\s+)\s*{clock_behind}",
            2,
        ),
        form_of("day", rf"(?P<clock>{CLOCK}),?\s+(?P<day>{WEEKDAY})", 2),
        form_of(
            "day",
            rf"(?<!the )(?:(?:by|for)\s+|{_FIRST})?"
            rf"(?P<day>{WEEKDAY}|\A(?:{SLASHED}|(?:the\s+)?{_NTH_DAY})(?=\W*\Z)){_PART_OF}",
            1,
        ),
    )


_NO_LIMITS = Policy()
_zone_name = functools.partial(zone_label, reader=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A sentence with a time in it, or with an event to wait for."""

    schedule: ScheduleSpec
    message: str = ""  # the sentence without the time; may be empty
    phrase: str  # the words that were read as the time
    note: str = ""  # what was assumed, as a sentence, when the words left something open
    policy: Policy = _NO_LIMITS  # where the sentence bounds a recurrence (``until …``, ``3 times``)
    period: Period | None = None  # the days or hours from now, where the words count them


def _read_iso(match: re.Match[str], now: datetime, zone: str) -> Timed:
    text = re.sub(r"T(\d):", r"T0\1:", match["iso"].replace(" ", "T", 1).replace(" ", ""))
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidSchedule(f"{match['iso']!r} is no date and time: {error}.") from None
    return once_at(at if at.tzinfo else wall_time(at, zone), now, match[0])


def _read_elapsed(match: re.Match[str], now: datetime, zone: str) -> Timed:
    del now, zone  # applied where the schedule is stored
    return in_period(read_duration(match["elapsed"] or match["stretch"]), match[0])


def in_period(period: Period, phrase: str) -> Timed:
    schedule = OnceSpec.model_validate({"kind": "once", "in": period})
    return Timed(schedule=schedule, phrase=phrase, period=period)


def _read_clock(match: re.Match[str], now: datetime, zone: str) -> Timed:
    part = (match["part"] or "").lower().split(" ")[-1] or None
    clock = read_clock(match["clock"], part=part)
    is_today = part in ("today", "tonight") or (match["part"] or "").lower().startswith("this")
    if is_today and not (part == "tonight" and clock.hour < SMALL_HOURS):
        at = on_day(now.date(), clock, zone)
        if is_over(at, now):
            later = f"; write {clock.hour + 12}:{clock:%M} for the evening" if clock.hour < 12 else ""
            raise InvalidSchedule(
                f"{match[0].strip()!r} is already past: it is {now:%H:%M} in {_zone_name(zone)}{later}."
            )
    else:
        at = _next(iter((now.date(), now.date() + timedelta(days=1))), clock, now, zone)
    return replace(once_at(at, now, match[0]), note=morning_note(match["clock"], clock, part))


def _next(days: Iterator[date], clock: time, now: datetime, zone: str) -> datetime:
    """That time of day on the first of ``days`` on which it is still to come, else on the last of them."""
    at = now
    for day in days:
        at = on_day(day, clock, zone)
        # Where the clocks go back, a time comes twice in one night.
        again = at.replace(fold=1).astimezone(UTC).astimezone(ZoneInfo(zone))
        if is_over(at, now) and not is_over(again, now) and again.time() == at.time():
            return again
        if not is_over(at, now):
            break
    return at


def _read_part(match: re.Match[str], now: datetime, zone: str) -> Timed:
    part = match["part"].lower().split()[-1]
    at = on_day(now.date(), PARTS_OF_DAY[part], zone)
    if is_over(at, now):
        if match["part"].lower().startswith("this"):
            raise InvalidSchedule(
                f"{match[0].strip()!r} has begun: it is {now:%H:%M} in {_zone_name(zone)}; give a time of day."
            )
        at = on_day(now.date() + timedelta(days=1), PARTS_OF_DAY[part], zone)
    return once_at(at, now, match[0])


def _read_day(match: re.Match[str], now: datetime, zone: str) -> Timed:
    groups = {name: text.lower() for name, text in match.groupdict().items() if text is not None}
    clock_text = groups.get("clock") or groups.get("clock2") or groups.get("hour")
    part = groups.get("part") or groups.get("part2") or groups.get("part0")
    if groups.get("part3") or (part or "").startswith("first"):
        part = "morning"
    day = re.sub(r"\s+", " ", groups["day"])
    if day.endswith("ago"):
        raise InvalidSchedule(f"{day!r} is in the past; a recall needs a time to come.")
    counted = None if re.search(WORKDAY, day) else re.fullmatch(r"in (.*(?:day|week)s?)", day)
    period = read_duration(counted[1]) if counted and not (clock_text or part) else None
    note = ""
    if clock_text:
        clock = read_clock(clock_text, part="tonight" if day == "tonight" else part)
        note = morning_note(clock_text, clock, part or (day if day == "tonight" else None))
    else:
        clock = _default_time(day, part, now)
        if not (part or day == "tonight" or _keeps_time(day)):
            note = f"no time of day given, so {clock:%H:%M}"
    days = dates_of(day, now.date())
    if day == "tonight" and clock.hour < SMALL_HOURS:
        days = iter((now.date(), now.date() + timedelta(days=1)))
    at = _next(days, clock, now, zone)
    if "/" in day:
        note = f"I read {day.removeprefix('on ')} as {at:%d %B %Y}"
    if (
        is_over(at, now)
        and at.date() == now.date()
        and clock_text
        and 0 < clock.hour < 12
        and not re.search("[ap]m", clock_text)
    ):
        note = f" Write {clock.hour + 12}:{clock:%M} for the evening."
        raise InvalidSchedule(f"{match[0].strip()!r} is in the past: it is {now:%H:%M} in {_zone_name(zone)}.{note}")
    return replace(once_at(at, now, match[0]), note=note, period=period)


def _default_time(day: str, part: str | None, now: datetime) -> time:
    if part:
        return PARTS_OF_DAY[part]
    if day == "tonight":
        return time(20) if now.time() < time(20) else time(22)
    return now.time() if _keeps_time(day) else time(9)


def is_over(at: datetime, now: datetime) -> bool:
    """Whether an instant is not still to come. Two times of one zone would be compared without their offsets."""
    return at.timestamp() <= now.timestamp()


def _keeps_time(day: str) -> bool:
    """Whether such a day means "at this time of day": "in 3 days", "next week"."""
    return (
        (day.startswith("in ") and re.search(WORKDAY, day) is None)
        or day.endswith(("from now", "later"))
        or day in ("next week", "next month", "next year")
    )


def on_day(day: date, clock: time, zone: str) -> datetime:
    return wall_time(datetime.combine(day, clock), zone)


def wall_time(wall: datetime, zone: str) -> datetime:
    """A wall-clock time in a zone; one that the change of the clocks leaves out is moved on by the gap."""
    return wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).astimezone(ZoneInfo(zone))


def once_at(at: datetime, now: datetime, phrase: str) -> Timed:
    if is_over(at, now):
        raise InvalidSchedule(
            f"{phrase.strip()!r} is in the past: that was {at:%a %d %b %Y %H:%M} and it is {now:%a %d %b %Y %H:%M} now."
        )
    return Timed(schedule=OnceSpec(kind="once", at=at), phrase=phrase)


OnceReader = Callable[["re.Match[str]", datetime, str], Timed]
ONCE_READERS: Mapping[str, OnceReader] = {
    "iso": _read_iso,
    "elapsed": _read_elapsed,
    "clock": _read_clock,
    "part": _read_part,
    "day": _read_day,
}
"""By the names of :func:`once_forms`."""
