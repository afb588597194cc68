"""Rhythms that English has words for and that are no plain interval: "every other Friday at 16:00", "the first Monday
of the month", "every 3 hours between 9 and 17", "weekdays at 9".

Weeks that are counted are whole days on the wall clock of the zone (``EverySpec`` with ``tz``), so that 16:00 stays
16:00 across a change of the clocks; all else is a cron expression. Not responsible for plain intervals: ``recurring``.
"""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from ..errors import InvalidSchedule
from ..model.recalls import CronSpec, EverySpec
from .clock_times import BARE_HOUR, EXACT_CLOCK, NUMBER, WEEKDAY, WEEKDAYS, WORKDAY, number, read_clock
from .months import MONTHLY, MONTHS, NTH, NTH_WORD, month_days
from .recurrence import BEFORE, LIMITS, TIMES, Recurrence, bounded, clocks_of, rule_of

_COUNT = rf"(?:other|second|third|fourth|2nd|3rd|4th|{NUMBER})"
_SPAN = rf"{WEEKDAY}s?\s*(?:-|–|to|through|till)\s*{WEEKDAY}s?"
_DAYS = rf"(?:{WORKDAY}s|weekends|{_SPAN}|{WEEKDAY}s(?:(?:,\s*and\s+|,\s*|\s+and\s+){WEEKDAY}s)*)"
_HOUR = rf"(?:{EXACT_CLOCK}|{BARE_HOUR})"
_WEEKS = (
    rf"(?:(?:on\s+)?(?:every|each)\s+{_COUNT}\s+{WEEKDAY}|(?:every|each)\s+{_COUNT}\s+weeks?\s+on\s+{WEEKDAY}s?"
    rf"|(?:biweekly|fortnightly|every fortnight)\s+on\s+{WEEKDAY}s?)"
)
_OF_MONTH = (
    rf"(?:(?:on\s+)?(?:the\s+|every\s+|each\s+)?{NTH_WORD}\s+{WEEKDAY}\s+{MONTHLY}"
    rf"|(?:on\s+)?(?:the\s+|every\s+|each\s+)?(?:first|last)\s+(?:{WORKDAY}|day)\s+{MONTHLY})"
)
_EXCEPT = (
    rf"(?:(?:every|each)\s+(?:day|{WORKDAY})|daily|{WORKDAY}s),?\s+(?:except|but(?:\s+not)?|excluding|other\s+than"
    rf"|apart\s+from|without)\s+(?:for\s+)?(?:on\s+)?(?:(?:the\s+)?weekends?|{WEEKDAY}s?"
    rf"(?:(?:,\s*(?:and\s+|or\s+)?|\s+and\s+|\s+or\s+){WEEKDAY}s?)*)"
)
_OF_HOUR = (
    r"(?:(?:every|each)\s+hour|hourly),?\s+(?:on\s+the\s+hour|at\s+:\d\d|at\s+(?:minute\s+)?\d{1,2}"
    r"(?:\s+(?:minutes?\s+)?past(?:\s+the\s+hour)?))|at\s+(?:half|quarter)\s+past\s+(?:every|each)\s+hour"
)
_WINDOW = (
    rf"every\s+(?:(?:{NUMBER}|other|second)\s*-?\s*)?(?:minutes?|mins?|m|hours?|hrs?|h)\s+(?:between|from)\s+{_HOUR}\s*"
    rf"(?:and|to|till|until|-|–)\s*{_HOUR}(?:,?\s+(?:on\s+)?{_DAYS})?"
)
_ON_DAYS = rf"every\s+(?:(?:{NUMBER}|other|second)\s*-?\s*)?(?:minutes?|mins?|m|hours?|hrs?|h),?\s+(?:on\s+)?{_DAYS}"
_ON_DAYS_SAID = re.compile(rf"every (?P<step>.*?(?:m|mins?|minutes?|h|hrs?|hours?)),? (?:on )?(?P<days>{_DAYS})")
_BARE_DAYS = (
    rf"(?<!every )(?<!each )(?<!weekly )(?<!weekly on )(?:on\s+)?{_DAYS}"
    r"(?=,?\s+(?:(?:at|by|around|@)\s|\d{1,2}(?::\d\d|\s?[ap]\.?m\b))|\W*$)"
)
_RULE = (
    rf"(?P<rule>{_WEEKS}|{_OF_MONTH}|{_EXCEPT}|{_OF_HOUR}|{_WINDOW}|{_ON_DAYS}|{MONTHS}|{_BARE_DAYS})"
    rf"(?!\s+{MONTHLY})"
)
RHYTHM = f"{BEFORE}{_RULE}{TIMES}{LIMITS}"
"""All of these. Named groups as in ``recurring``: rule, rclock, rstart, runtil, rlasting, rtimes, rtwice."""


def read_rhythm(match: re.Match[str], now: datetime, zone: str) -> Recurrence:
    """What matched :data:`RHYTHM`. Raises InvalidSchedule for what no schedule can say."""
    rule = rule_of(match)
    if window := re.match(r"every (?P<step>.*?)\b(?:between|from) (?P<rest>.*)", rule):
        schedule, note = _window(window["step"], window["rest"], zone)
        return bounded(match, schedule, note)
    if re.search(r"\bhour\b|^hourly", rule) and not re.search(rf"\b{_DAYS}$", rule):
        return bounded(match, _of_hour(rule, zone), "")
    clocks, note = clocks_of(match)
    clocks = clocks or [time(9)]
    if stepped := re.match(
        rf"every (?P<step>.*?(?:m|mins?|minutes?|h|hrs?|hours?)),? (?:on )?(?P<days>{_DAYS})$", rule
    ):
        return bounded(match, _on_days(stepped["step"], stepped["days"], zone), "")
    if _left_out(rule):
        return bounded(match, _cron(clocks, f"* * {_but(rule)}", zone), note)
    if (fields := month_days(rule, now, clocks[0])) is not None:
        return bounded(match, _cron(clocks, fields, zone), note)
    if "month" in rule:
        return bounded(match, _of_month(rule, clocks, zone), note)
    counted = re.search(rf"(?:every|each) ({_COUNT})\b", rule)
    if counted or re.match(r"biweekly|fortnightly|every fortnight", rule):
        weeks = int(number(counted[1].replace("2nd", "2").replace("3rd", "3").replace("4th", "4"))) if counted else 2
        nth = counted is not None and re.search(rf"\b(?:second|third|fourth|2nd|3rd|4th) {WEEKDAY}", rule)
        note = note or ("counted in weeks; for one in each month add 'of the month'" if nth else "")
        return bounded(match, _weeks(rule, weeks, clocks, now, zone), note)
    return bounded(match, _cron(clocks, f"* * {_days(rule)}", zone), note)


def _of_hour(rule: str, zone: str) -> CronSpec:
    digits = re.search(r"\d{1,2}", rule)
    minute = int(digits[0]) if digits else 30 if "half" in rule else 15 if "quarter" in rule else 0
    if minute > 59:
        raise InvalidSchedule(f"An hour has no minute {minute}.")
    return CronSpec(kind="cron", expr=f"{minute} * * * *", tz=zone)


def _on_days(step: str, days: str, zone: str) -> CronSpec:
    """``every 2 hours on weekdays``."""
    counted = re.match(rf"(?:({NUMBER}|other|second)\s*-?\s*)?([mh])", step)
    count = number(counted[1]) if counted and counted[1] else 1.0
    of = 24 if counted and counted[2] == "h" else 60
    if count < 1 or of % count:
        raise InvalidSchedule(f"On some days only, a step must divide the {'day' if of == 24 else 'hour'}.")
    every = "*" if count == 1 else f"*/{int(count)}"
    return CronSpec(kind="cron", expr=f"{f'0 {every}' if of == 24 else f'{every} *'} * * {_days(days)}", tz=zone)


def _left_out(rule: str) -> bool:
    return re.search(r"\b(?:except|but|excluding|other than|apart from|without)\b", rule) is not None


def _but(rule: str) -> str:
    """``every weekday except friday`` as the field day-of-week."""
    among, _, out = re.split(r"\b(except|but|excluding|other than|apart from|without)\b", rule, maxsplit=1)
    days = {1, 2, 3, 4, 5} if re.search(WORKDAY, among) else set(range(7))
    days -= {0, 6} if "weekend" in out else {WEEKDAYS[name] for name in re.findall(rf"\b({WEEKDAY})s?\b", out)}
    if not days:
        raise InvalidSchedule(f"{rule!r} leaves no day.")
    return "1-5" if days == {1, 2, 3, 4, 5} else ",".join(map(str, sorted(days)))


def _weeks(rule: str, weeks: int, clocks: list[time], now: datetime, zone: str) -> EverySpec:
    if len(clocks) > 1:
        raise InvalidSchedule("Two times of day in weeks that are counted need two recalls; make one for each time.")
    if not 1 <= weeks <= 520:
        raise InvalidSchedule(f"{rule!r} can not be counted; say for example every other Friday.")
    names = re.findall(rf"\b({WEEKDAY})s?\b", rule)
    # From cron's Sunday 0 to Python's Monday 0.
    away = (WEEKDAYS[names[-1]] - 1 - now.weekday()) % 7
    start = datetime.combine(now.date() + timedelta(days=away), clocks[0], tzinfo=ZoneInfo(zone))
    if start <= now:
        start = datetime.combine(start.date() + timedelta(days=7), clocks[0], tzinfo=ZoneInfo(zone))
    return EverySpec(kind="every", every=timedelta(days=7 * weeks), start=start, tz=zone)


def _of_month(rule: str, clocks: list[time], zone: str) -> CronSpec:
    if re.search(rf"\b{WORKDAY}\b", rule):
        return _cron(clocks, "LW * *" if "last" in rule else "1W * *", zone)
    named = re.search(rf"({NTH_WORD}) ({WEEKDAY})\b", rule)
    if named is None:
        return _cron(clocks, "L * *" if "last" in rule else "1 * *", zone)
    day, nth = WEEKDAYS[named[2]], NTH[named[1]]
    return _cron(clocks, f"* * {day}#{nth}" if nth else f"* * {day}L", zone)


def _cron(clocks: list[time], days: str, zone: str) -> CronSpec:
    """``days``: the last three fields."""
    minutes, hours = sorted({at.minute for at in clocks}), sorted({at.hour for at in clocks})
    if len(minutes) * len(hours) != len({(at.hour, at.minute) for at in clocks}):
        raise InvalidSchedule("Different minutes at different hours need two recalls; make one for each time.")
    times = f"{','.join(map(str, minutes))} {','.join(map(str, hours))}"
    return CronSpec(kind="cron", expr=f"{times} {days}", tz=zone)


def _days(text: str) -> str:
    """The field day-of-week."""
    if re.search(rf"\b{WORKDAY}s\b", text):
        return "1-5"
    if span := re.search(_SPAN, text):
        first, last = (WEEKDAYS[name] for name in re.findall(rf"\b({WEEKDAY})", span[0])[:2])
        return ",".join(str(day) for day in sorted((first + step) % 7 for step in range((last - first) % 7 + 1)))
    if "weekends" in text:
        return "0,6"
    return ",".join(str(day) for day in sorted({WEEKDAYS[name] for name in re.findall(rf"\b({WEEKDAY})s\b", text)}))


def _window(step: str, rest: str, zone: str) -> tuple[CronSpec, str]:
    """``every <step> between <a> and <b> [on <days>]`` as cron; and what was assumed."""
    counted = re.match(rf"(?:({NUMBER}|other|second)\s*-?\s*)?([mh])", step)
    ends = re.match(rf"({_HOUR})\s*(?:and|to|till|until|-|–)\s*({_HOUR})(.*)", rest)
    if counted is None or ends is None:
        raise InvalidSchedule(f"{step!r} {rest!r} is no stretch of the day; say every 3 hours between 9 and 17.")
    count = number(counted[1]) if counted[1] else 1.0
    first, last = _between(ends[1], ends[2])
    days = _days(ends[3]) or "*"
    if count != int(count) or count < 1:
        raise InvalidSchedule(f"Every {count:g} is no step within a day.")
    if counted[2] == "h":
        return _hours(int(count), first, last, days, zone)
    return _minutes(int(count), first, last, days, zone)


def _between(a: str, b: str) -> tuple[time, time]:
    first, said = read_clock(a, part=None).likely(), read_clock(b, part=None)
    last = said.at
    if last <= first and said.ambiguous and last.hour < 12:
        last = last.replace(hour=last.hour + 12)
    if last <= first:
        raise InvalidSchedule(f"From {first:%H:%M} to {last:%H:%M} is over midnight; make two recalls.")
    return first, last


def _hours(step: int, first: time, last: time, days: str, zone: str) -> tuple[CronSpec, str]:
    end = last.hour if last.minute >= first.minute else last.hour - 1
    final = first.hour + (end - first.hour) // step * step
    hours = f"{first.hour}-{end}" + (f"/{step}" if step > 1 else "")
    note = (
        ""
        if (final, first.minute) == (last.hour, last.minute)
        else f"the last one of a day is at {final:02}:{first:%M}"
    )
    return CronSpec(kind="cron", expr=f"{first.minute} {hours} * * {days}", tz=zone), note


def _minutes(step: int, first: time, last: time, days: str, zone: str) -> tuple[CronSpec, str]:
    if 60 % step or first.minute or last.minute or step > 30:
        raise InvalidSchedule(
            "Minutes within a part of the day need a step that divides the hour (5, 10, 15, 20, 30) and whole hours as"
            " its ends: every 15 minutes between 9 and 17."
        )
    expr = (
        f"*/{step} {first.hour}-{last.hour - 1} * * {days}"
        if step > 1
        else f"* {first.hour}-{last.hour - 1} * * {days}"
    )
    return CronSpec(kind="cron", expr=expr, tz=zone), f"the last one of a day is at {last.hour - 1:02}:{60 - step:02}"
