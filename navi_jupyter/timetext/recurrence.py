"""The recurring half of English times: "every 2 hours", "every weekday at 9", "monthly on the 1st".

A small grammar of our own, because date parsers know single times only. ``every N`` of elapsed units is anchored
(``EverySpec``); what names days is a cron expression in the user's zone, so that nine stays nine across a change of the
clocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from ..errors import InvalidSchedule
from ..model.recalls import CronSpec, EverySpec
from .clock_times import (
    BARE_HOUR,
    CLOCK,
    DURATION,
    NUMBER,
    PARTS_OF_DAY,
    WEEKDAY,
    WEEKDAYS,
    WORKDAY,
    number,
    read_clock,
    read_duration,
)

_UNIT = r"(?:seconds?|secs?|s|minutes?|mins?|min|m|hours?|hrs?|hr|h|days?|weeks?)"
_PERIOD = (
    rf"(?:half(?: an?)?[ -]hour|hour and a half|quarter[ -]hour|{DURATION}(?![a-z])"
    rf"|(?:{NUMBER}|other|second|third)\s*-?\s*{_UNIT}(?!\s+{WEEKDAY})|hour|minute|second(?!\s+{WEEKDAY}))\b"
)
_PART = r"(?:morning|afternoon|evening|night|noon|midnight|lunchtime)"
_DAYS = rf"{WEEKDAY}s?(?:(?:,\s*and\s+|,\s*|\s+and\s+|\s*&\s*|\s*/\s*|\s+){WEEKDAY}s?)*"
_RANGE = rf"{WEEKDAY}\s*(?:-|–|to|through|till)\s*{WEEKDAY}"
_ORDINAL = r"(?:\d{1,2}(?:st|nd|rd|th)?|first|last day)"
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?:{'|'.join(_MONTH_NAMES)})[a-z]*"
_BY_NAME = (
    rf"(?:hourly|daily|nightly|weekly(?:\s+on\s+{WEEKDAY}s?)?|biweekly|fortnightly|every fortnight"
    rf"|monthly(?:\s+on\s+the\s+{_ORDINAL})?"
    rf"|on\s+(?:{WORKDAY}s|weekends|{WEEKDAY}s(?:(?:,\s*and\s+|,\s*|\s+and\s+"
    rf"|,?\s+){WEEKDAY}s)*))"
)
_EVERY = (
    rf"(?:every\s+single|every|each|once\s+(?:a|per|each|every))\s+(?:{_RANGE}|{_DAYS}|{WORKDAY}|weekend|{_PERIOD}"
    rf"|day|{_PART}|month(?:\s+on\s+the\s+{_ORDINAL})?|week(?:\s+on\s+{WEEKDAY})?"
    rf"|{_ORDINAL}\s+of\s+the\s+month|year\s+on\s+(?:the\s+)?(?:{_ORDINAL}\s+(?:of\s+)?{_MONTH}|{_MONTH}\s+{_ORDINAL}))"
)
_FIRST = rf"on\s+the\s+{_ORDINAL}\s+of\s+(?:every|each)\s+month"
TIMES = rf"(?:\s+(?:in the\s+)?{_PART})?(?:,?\s+(?P<rclock>{CLOCK}(?:\s*(?:and|,|&)\s*(?:{CLOCK}|{BARE_HOUR}))*))?"
LIMITS = (
    rf"(?:,?\s+(?:starting|beginning|from)\s+(?:at\s+)?(?P<rstart>(?:tomorrow|today|next {WEEKDAY}"
    rf"|on {WEEKDAY})(?:\s+{CLOCK})?|{CLOCK}|now))?"
    rf"(?:,?\s+(?:until|till)\s+(?P<runtil>(?:tomorrow|tonight|(?:next |on )?{WEEKDAY})(?:\s+{CLOCK})?|{CLOCK}"
    rf"|\d{{1,2}}(?!\w)"
    rf"|\d{{4}}-\d{{2}}-\d{{2}}))?"
    rf"(?:,?\s+for(?:\s+the\s+next)?\s+(?P<rlasting>{NUMBER}\s+(?:minutes?|hours?|days?|weeks?))\b)?"
    rf"(?:,?\s+(?P<rtimes>\d{{1,4}})\s+times|,?\s+(?P<rtwice>twice)\b)?"
)
BEFORE = rf"(?:{CLOCK}(?:\s*(?:and|,|&)\s*(?:{CLOCK}|{BARE_HOUR}))*,?\s+)?"
"""Times of day that are said before the rule: ``at 9 and 17 on weekdays``."""
RECURRING = rf"(?:{BEFORE}(?P<rule>{_EVERY}|{_BY_NAME}|{_FIRST}){TIMES}{LIMITS})"
"""Everything that repeats. Named groups: rule, rclock, rstart, runtil, rlasting, rtimes, rtwice."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """A recurring phrase, read; what bounds it is still in words."""

    schedule: EverySpec | CronSpec
    note: str = ""
    start: str = ""
    until: str = ""
    lasting: str = ""
    times: int | None = None


def read_recurring(match: re.Match[str], now: datetime, zone: str) -> Recurrence:
    """What matched :data:`RECURRING`. Raises InvalidSchedule for what can not repeat ("every 0 minutes")."""
    rule = rule_of(match)
    clocks, note = clocks_of(match)
    schedule = _period(rule, clocks, now, zone) or _calendar(rule, clocks, now, zone)
    if isinstance(schedule, EverySpec):
        note = ""
    return bounded(match, schedule, note)


def rule_of(match: re.Match[str]) -> str:
    """The words of the rule itself, in lower case."""
    rule = re.sub(r"\s+", " ", match["rule"].lower()).strip()
    return re.sub(r"^once (?:a|per|each|every) ", "every ", rule)


def bounded(match: re.Match[str], schedule: EverySpec | CronSpec, note: str) -> Recurrence:
    """The schedule with what :data:`LIMITS` found."""
    until = match["runtil"] or ""
    return Recurrence(
        schedule=schedule,
        note=note,
        start="" if (match["rstart"] or "now").lower() == "now" else match["rstart"],
        until=f"at {until}" if until.isdigit() else until,
        lasting=match["rlasting"] or "",
        times=int(match["rtimes"]) if match["rtimes"] else 2 if match["rtwice"] else None,
    )


def clocks_of(match: re.Match[str]) -> tuple[list[time], str]:
    """The times of day that were said, before or after the rule; a part of the day; else none."""
    text = match[0].lower()
    rule_at = match.start("rule") - match.start()
    said = match["rclock"] or text[:rule_at].strip(" ,")
    found = re.search(rf"\b{_PART}\b", text)
    part = found[0] if found else "night" if "nightly" in text else None
    times: list[time] = []
    note = ""
    for one in re.split(r"\s*(?:,|&|\band\b)\s*", said) if said else []:
        reading = read_clock(one, part=part)
        times.append(reading.likely())
        if reading.ambiguous and reading.likely() != reading.at:
            note = f"I read {one.strip()} as {reading.likely():%H:%M}; write {reading.at:%H:%M} for the morning"
    if not times and part:
        times = [PARTS_OF_DAY[part]]
    return times, note


def _period(rule: str, clocks: list[time], now: datetime, zone: str) -> EverySpec | None:
    """``every 2 hours`` and the like, in elapsed time."""
    if rule == "hourly":
        return EverySpec(kind="every", every=timedelta(hours=1))
    if rule in ("biweekly", "fortnightly", "every fortnight"):
        return EverySpec(kind="every", every=timedelta(days=14))
    period = re.fullmatch(rf"(?:every single|every|each) ({_PERIOD})", rule)
    if period is None:
        return None
    words = period[1]
    every = _elapsed(words)
    if every is None:
        return None
    if every <= timedelta(0):
        raise InvalidSchedule(f"{rule!r} never comes to an end of its first step; say for example every 10 minutes.")
    if every > timedelta(days=36525):
        raise InvalidSchedule(f"{rule!r} is longer than a century.")
    start = _anchor(every, clocks, now, zone)
    # Nine o'clock stays nine o'clock across a change of the clocks.
    whole_days = start is not None and not every % timedelta(days=1)
    return EverySpec(kind="every", every=every, start=start, tz=zone if whole_days else None)


def _elapsed(words: str) -> timedelta | None:
    """``2 hours``, ``other day``, ``hour and a half``; None for what is no stretch of time."""
    fixed = {"hour and a half": 90, "quarter hour": 15, "quarter-hour": 15}.get(words, 30 if words[:4] == "half" else 0)
    if fixed:
        return timedelta(minutes=fixed)
    counted = re.fullmatch(rf"(?:(?P<n>{NUMBER}|other|second|third)\s*-?\s*)?(?P<unit>{_UNIT})", words)
    if counted is not None:
        count = number(counted["n"]) if counted["n"] else 1.0
        return timedelta(seconds=count * _SECONDS[counted["unit"][0]])
    return read_duration(words) if re.fullmatch(DURATION, words) else None


def _anchor(every: timedelta, clocks: list[time], now: datetime, zone: str) -> datetime | None:
    """``every 2 days at 9`` starts at the next nine o'clock."""
    if not clocks:
        return None
    start = datetime.combine(now.date(), clocks[0], tzinfo=ZoneInfo(zone))
    return start if start > now else start + min(every, timedelta(days=1))


def _calendar(rule: str, clocks: list[time], now: datetime, zone: str) -> CronSpec:
    """What names days, as cron fields in the user's zone."""
    day_of_month, month, days = _days(rule)
    if not clocks:
        clocks = [now.time() if re.search(r"\bday$|^daily", rule) else time(9)]
    minutes = sorted({at.minute for at in clocks})
    hours = sorted({at.hour for at in clocks})
    if len(minutes) * len(hours) != len({(at.hour, at.minute) for at in clocks}):
        raise InvalidSchedule("Different minutes at different hours need two recalls; make one for each time.")
    hour_field, minute_field = ",".join(map(str, hours)), ",".join(map(str, minutes))
    return CronSpec(kind="cron", expr=f"{minute_field} {hour_field} {day_of_month} {month} {days}", tz=zone)


def _days(rule: str) -> tuple[str, str, str]:
    """The fields day-of-month, month, day-of-week."""
    if re.search(rf"\b{WORKDAY}s?\b", rule):
        return "*", "*", "1-5"
    if "weekend" in rule:
        return "*", "*", "0,6"
    if "month" in rule or "year" in rule:
        return _in_month(rule)
    if span := re.search(rf"({WEEKDAY})\s*(?:-|–|to|through|till)\s*({WEEKDAY})", rule):
        return "*", "*", _span(WEEKDAYS[span[1]], WEEKDAYS[span[2]])
    if named := re.findall(rf"\b({WEEKDAY})(?=s?\b)", rule):
        return "*", "*", ",".join(str(day) for day in sorted({WEEKDAYS[name] for name in named}))
    return ("*", "*", "1") if "week" in rule else ("*", "*", "*")


def _span(first: int, last: int) -> str:
    length = (last - first) % 7
    return ",".join(str(day) for day in sorted((first + step) % 7 for step in range(length + 1)))


def _in_month(rule: str) -> tuple[str, str, str]:
    if "last day" in rule:
        return "L", "*", "*"
    digits = re.search(r"\d{1,2}", rule)
    day = int(digits[0]) if digits else 1
    if not 1 <= day <= 31:
        raise InvalidSchedule(f"There is no day {day} in a month.")
    named = re.search(rf"\b({'|'.join(_MONTH_NAMES)})", rule.partition("year")[2])
    return str(day), str(_MONTH_NAMES.index(named[1]) + 1) if named else "*", "*"
