"""Days and dates in English: ``tomorrow``, ``thu dec 3``, ``26/12``, ``next friday``, ``in 2 weeks``; also past times.

A day in words is a row of dates, soonest first: with the time of day, the first that is still to come is meant.
"""

from __future__ import annotations

import asyncio
import calendar
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ..errors import InvalidSchedule
from .clocks import CLOCK, PARTS_OF_DAY, read_clock
from .durations import DURATION, NUMBER, NUMBER_WORD, number, read_duration

WEEKDAYS = {
    "monday": 1, "mon": 1, "tuesday": 2, "tue": 2, "tues": 2, "wednesday": 3, "wed": 3, "weds": 3, "thursday": 4,
    "thu": 4, "thur": 4, "thurs": 4, "friday": 5, "fri": 5, "saturday": 6, "sat": 6, "sunday": 0, "sun": 0,
}  # fmt: skip
"""Cron's numbers of the days of the week."""
WEEKDAY = (
    r"(?:mon(?:day)?|tue(?:s(?:day)?)?|wed(?:s|nesday)?|thu(?:rs?(?:day)?)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)"
)
WORKDAY = r"(?:week\s?day|work\s?day|working\s+day|business\s+day)"
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_ORDINAL = r"\d{1,2}(?:st|nd|rd|th)?"
_YEAR = r"(?:(?:19|20|21)\d{2}(?![\d:]))"
_NAMED_DATE = (
    rf"(?:(?:the\s+)?{_ORDINAL}(?:\s+of)?\s+{MONTH}\b\.?(?:,?\s+{_YEAR})?"
    rf"|{MONTH}\.?\s+(?:the\s+)?{_ORDINAL}(?![\w:/]|\.\d|\s*[ap]\.?m\b)(?:,?\s+{_YEAR})?)"
)
_NUMBERED = r"(?:\d{4}-\d{2}-\d{2}|\d{4}/\d{1,2}/\d{1,2}|\d{1,2}\.\d{1,2}\.(?:\d{4}|\d{2}(?!\d))?)"
SLASHED = r"(?:\d{1,2}/\d{1,2}(?:/\d{4}|/\d{2})?|\d{1,2}-\d{1,2}-\d{4})(?![\w/-])"
"""``26/12``, ``12/26/2026``: a date where words around it say so."""
_SURE = rf"(?:{_NAMED_DATE}|{_NUMBERED}|\d{{1,2}}[/-]\d{{1,2}}[/-]\d{{4}})"
DATE = (
    rf"(?:{WEEKDAY}\b\.?,?\s+(?:(?:the\s+)?{_SURE}|(?:the\s+)?\d{{1,2}}(?:st|nd|rd|th)\b)"
    rf"|{_SURE}(?:,?\s+{WEEKDAY}\b|\s*\({WEEKDAY}\)|,\s*{WEEKDAY}\b)?)"
)
"""A date, perhaps with its day of the week: ``thu dec 3``, ``friday the 4th``, ``3.12.2026``."""
COUNTED = rf"(?:in\s+(?:\d{{1,7}}|{NUMBER_WORD})\s+(?:days?|weeks?|months?|years?)\b)"
END_OF = (
    r"(?:(?:by|at|on)\s+)?(?:the\s+)?(?:end|last\s+day|beginning|start|first\s+day|first)\s+of"
    rf"\s+(?:(?:(?:the|this|next)\s+)?(?:month|year)\b|{MONTH}\b(?!\s+\d))"
)
"""One day, as no ``each`` makes it many: ``the end of the month``, ``the first of next month``."""
NTH = {"first": 1, "1st": 1, "second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4, "last": 0}
"""Which one of a month; 0 for the last."""
_IN_MONTH = (
    rf"(?:on\s+)?(?:the\s+)?(?:(?:{'|'.join(NTH)})\s+{WEEKDAY}\s+(?:of|in)\s+(?:(?:next|this)\s+month\b|{MONTH}\b(?!\s+\d))"
    r"|\d{1,2}(?:st|nd|rd|th)\s+(?:of\s+)?(?:next|this)\s+month\b)|next\s+month,?\s+on\s+the\s+\d{1,2}(?:st|nd|rd|th)"
)
"""One day of a month that is named: ``the first monday of next month``, ``the 15th of next month``."""
_IN_WEEK = rf"(?:on\s+)?{WEEKDAY},?\s+(?:of\s+)?(?:next|this)\s+week\b|(?:next|this)\s+week,?\s+(?:on\s+)?{WEEKDAY}\b"
DAY = (
    rf"(?:{_IN_MONTH}|{_IN_WEEK}|(?:on\s+)?(?:the\s+)?next\s+{WORKDAY}\b|in\s+(?:\d{{1,3}}|{NUMBER_WORD})\s+{WORKDAY}s?\b|(?:(?:on|over|at)\s+the|this)\s+weekend\b|(?:the\s+)?day\s+after\s+tomorrow|tomorrow|today|tonight|(?:on\s+)?{DATE}|on\s+{SLASHED}"
    rf"|on\s+\d{{1,2}}[.-]\d{{1,2}}(?![\w.-])"
    rf"|on\s+the\s+\d{{1,2}}(?:st|nd|rd|th)|(?:on|(?:the\s+)?(?:next|this\s+coming|this|coming))\s+{WEEKDAY}\b"
    rf"|next\s+(?:week|month|year)|yesterday|last\s+(?:week|month|year|night|{WEEKDAY})|(?:in\s+)?{DURATION}\s+ago"
    rf"|{COUNTED}|(?:\d{{1,4}}|{NUMBER_WORD})\s+(?:months?|years?|(?:days?|weeks?)(?=\s+(?:from\s+now|later),?\s+(?:at\s|{CLOCK})))\s+(?:from\s+now|later))"
)
"""A day that is one wherever it stands."""


def add_months(day: date, months: int) -> date:
    """That many months later; of a day that the month has not, its last."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    if not 1 <= year <= 9998:
        raise InvalidSchedule("That is too far away.")
    return day.replace(year=year, month=month + 1, day=min(day.day, calendar.monthrange(year, month + 1)[1]))


def dates_of(day: str, today: date) -> Iterator[date]:
    """The dates that a day in words can mean, the soonest first; one with a year or ``tomorrow`` is one, perhaps past.

    Raises InvalidSchedule for a day that no calendar has, or that can be two.
    """
    words = re.sub(r"\s+", " ", day.strip().lower())
    counted = re.fullmatch(rf"(?:in )?({NUMBER}) (day|week|month|year)s?(?: from now| later)?", words)
    if counted:
        return iter([_later(today, number(counted[1]), counted[2], day)])
    words = re.sub(r"^on ", "", words)
    named = {
        "today": 0, "tonight": 0, "tomorrow": 1, "day after tomorrow": 2, "the day after tomorrow": 2, "yesterday": -1,
        "next week": 7,
    }.get(words)  # fmt: skip
    if named is not None:
        return iter([today + timedelta(days=named)])
    if words in ("next month", "next year"):
        return iter([add_months(today, 12 if "year" in words else 1)])
    if workdays := re.fullmatch(rf"(?:the )?next {WORKDAY}|in ({NUMBER}) {WORKDAY}s?", words):
        return _workday(today, int(number(workdays[1] or "1")), day)
    if words.endswith("weekend"):
        return _weekend(today)
    if week := re.fullmatch(rf"({WEEKDAY}),? (?:of )?(next|this) week|(next|this) week,? (?:on )?({WEEKDAY})", words):
        return _of_week(week[1] or week[4], (week[2] or week[3]) == "next", today)
    if found := re.fullmatch(
        rf"(?:the )?({'|'.join(NTH)}) ({WEEKDAY}) (?:of|in) (?:(next|this) month|({MONTH}))", words
    ):
        return _nth_of_month(found, today)
    if found := re.fullmatch(r"(?:the )?(\d+).. (?:of )?(next|this) month|next month,? on the (\d+)..", words):
        first = add_months(today.replace(day=1), 0 if found[2] == "this" else 1)
        return iter([_exact(int(found[1] or found[3]), first.month, first.year, day)])
    if end := re.fullmatch(r"(?:by |at )?(?:the )?(.*?) of (?:(the|this|next) )?(month|year)", words):
        return _ends(end[1], end[2] == "next", end[3] == "year", today)
    if end := re.fullmatch(rf"(?:by |at )?(?:the )?(end|last day|beginning|start|first day|first) of ({MONTH})", words):
        return _ends_of_named(end[1], MONTHS.index(end[2][:3]) + 1, today)
    if week := re.fullmatch(rf"(?:(?:the )?(last|next|this coming|coming|this) )?({WEEKDAY})", words):
        return _weekdays(week[1] or "", week[2], today)
    return _calendar_dates(words, day, today)


def _later(today: date, count: float, unit: str, day: str) -> date:
    if count < 1:
        raise InvalidSchedule(f"{day!r} is no time at all; say for example in 10 days.")
    if count * {"day": 1, "week": 7, "month": 30, "year": 365}[unit] > 36525:
        raise InvalidSchedule(f"{day!r} is longer than a century.")
    if unit in ("day", "week"):
        return today + timedelta(days=int(count) * (7 if unit == "week" else 1))
    return add_months(today, int(count) * (12 if unit == "year" else 1))


def _ends(which: str, is_next: bool, is_year: bool, today: date) -> Iterator[date]:
    """First or last days of months or years, from this one on, or of the next one only."""
    begins_year = today.replace(month=1, day=1) if is_year else today.replace(day=1)
    step = 12 if is_year else 1
    for count in (1,) if is_next else (0, 1):
        begins = add_months(begins_year, count * step)
        is_last = which in ("end", "last day")
        yield add_months(begins, step) - timedelta(days=1) if is_last else begins


def _ends_of_named(which: str, month: int, today: date) -> Iterator[date]:
    """The first or last day of that month, of this year and the next."""
    for year in (today.year, today.year + 1):
        begins = date(year, month, 1)
        is_last = which in ("end", "last day")
        found = add_months(begins, 1) - timedelta(days=1) if is_last else begins
        if found >= today:
            yield found


def _weekdays(which: str, name: str, today: date) -> Iterator[date]:
    # From cron's Sunday 0 to Python's Monday 0.
    away = (WEEKDAYS[name] - 1 - today.weekday()) % 7
    if which == "last":
        yield today - timedelta(days=7 - away)
        return
    for weeks in range(2):
        if weeks or away or which not in ("next", "coming", "this coming"):
            yield today + timedelta(days=away + 7 * weeks)


def _of_week(name: str, is_next: bool, today: date) -> Iterator[date]:
    """That day of this week or the next; a week begins on a Monday."""
    # From cron's Sunday 0 to Python's Monday 0.
    yield today + timedelta(days=(WEEKDAYS[name] - 1) % 7 - today.weekday() + (7 if is_next else 0))


def _workday(today: date, count: int, day: str) -> Iterator[date]:
    """The day from Monday to Friday that is so many of them away."""
    if count < 1:
        raise InvalidSchedule(f"{day!r} is no time at all; say for example in 2 working days.")
    while count:
        today += timedelta(days=1)
        count -= today.weekday() < 5
    yield today


def _weekend(today: date) -> Iterator[date]:
    """The days of this weekend that are left, then the next one."""
    for count in range(8):
        if (today + timedelta(days=count)).weekday() >= 5:
            yield today + timedelta(days=count)


def _nth_of_month(match: re.Match[str], today: date) -> Iterator[date]:
    """``first monday of next month``, ``last friday in june``."""
    for years in range(1 if match[3] else 2):
        begins = add_months(today.replace(day=1), 1 if match[3] == "next" else 12 * years)
        begins = begins.replace(month=MONTHS.index(match[4][:3]) + 1) if match[4] else begins
        nth, weekday = NTH[match[1]], (WEEKDAYS[match[2]] - 1) % 7
        last = add_months(begins, 1) - timedelta(days=1)
        if nth:
            found = begins + timedelta(days=(weekday - begins.weekday()) % 7 + 7 * (nth - 1))
        else:
            found = last - timedelta(days=(last.weekday() - weekday) % 7)
        if found >= today or match[3]:
            yield found


def _calendar_dates(words: str, day: str, today: date) -> Iterator[date]:
    """Dates of the calendar; with a day of the week they must agree with it."""
    name = re.search(rf"\b{WEEKDAY}\b", words)
    plain = re.sub(rf"\(?\b{WEEKDAY}\b\)?[.,]?", "", words).strip(" ,")
    plain = re.sub(r"^the ", "", plain)
    number_of, month, year = _fields(plain, day)
    found = iter([_exact(number_of, month, year, day)]) if year else _yearly(number_of, month, day, today)
    if name is None:
        return found
    return _agreeing(found, name[0], day)


def _agreeing(found: Iterator[date], name: str, day: str) -> Iterator[date]:
    for each in found:
        if (each.weekday() + 1) % 7 != WEEKDAYS[name]:
            weekday = next(full for full, of in WEEKDAYS.items() if of == WEEKDAYS[name]).capitalize()
            raise InvalidSchedule(
                f"{day.strip()!r} does not agree: {each.day} {each:%B %Y} is a {each:%A}, not a {weekday}. Write"
                f" {each.day} {each:%B}, or {weekday}."
            )
        yield each


def _fields(words: str, day: str) -> tuple[int, int | None, int | None]:
    """Day, month and year; None for what is not there."""
    if iso := re.fullmatch(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})", words):
        return int(iso[3]), int(iso[2]), int(iso[1])
    if dotted := re.fullmatch(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{4}|\d{2})?)?", words):
        return int(dotted[1]), int(dotted[2]), _full_year(dotted[3])
    if slashed := re.fullmatch(r"(\d{1,2})[/-](\d{1,2})(?:[/-](\d{4}|\d{2}))?", words):
        return *_day_and_month(int(slashed[1]), int(slashed[2]), day), _full_year(slashed[3])
    if of_month := re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)", words):
        return int(of_month[1]), None, None
    named = re.search(rf"\b({MONTH})\b", words)
    if named is None:
        raise InvalidSchedule(f"{day!r} is no date that exists.")
    numbers = re.findall(r"\d+", words)
    return int(numbers[0]), MONTHS.index(named[1][:3]) + 1, int(numbers[1]) if len(numbers) > 1 else None


def _full_year(text: str | None) -> int | None:
    return None if not text else int(text) if len(text) == 4 else 2000 + int(text)


def _day_and_month(first: int, second: int, day: str) -> tuple[int, int]:
    """Of ``26/12`` or ``12/26``. Raises InvalidSchedule where the order decides, since countries differ in it."""
    if first == second or (first > 12 >= second >= 1):
        return first, second
    if second > 12 >= first >= 1:
        return second, first
    if not (1 <= first <= 12 and 1 <= second <= 12):
        raise InvalidSchedule(f"{day!r} is no date that exists.")
    one, other = (f"{a} {MONTHS[b - 1].capitalize()}" for a, b in ((first, second), (second, first)))
    raise InvalidSchedule(f"{day.removeprefix('on ')} can be {one} or {other}: write {one.lower()} or {other.lower()}.")


def _exact(number_of: int, month: int | None, year: int, day: str) -> date:
    try:
        return date(year, month or 1, number_of)
    except ValueError:
        raise InvalidSchedule(f"{day!r} is no date that exists.") from None


def _yearly(number_of: int, month: int | None, day: str, today: date) -> Iterator[date]:
    """That day of each year, or of each month that has it, from today on."""
    if not 1 <= number_of <= 31:
        raise InvalidSchedule(f"There is no day {number_of} in a month.")
    found = False
    first = today.replace(day=1) if month is None else date(today.year, min(max(month, 1), 12), 1)
    for count in range(24 if month is None else 10):
        each = add_months(first, count * (1 if month is None else 12))
        if 1 <= (month or 1) <= 12 and number_of <= calendar.monthrange(each.year, each.month)[1]:
            each = each.replace(day=number_of)
            if each >= today:
                found = True
                yield each
    if not found:
        raise InvalidSchedule(f"{day!r} is no date that exists.")


# --- times in the past, for the history -------------------------------------------------------------------------------

_STRETCH = (
    rf"(?:(?:in\s+|within\s+|during\s+|over\s+)?(?:the\s+)?(?:last|past)\s+(?P<last>{DURATION}|(?:second|minute|hour"
    rf"|day|week)s?)|(?P<ago>{DURATION})\s+ago)$"
)
_PAST_DAY = (
    rf"(?P<day>today|yesterday|this|last night|(?:last\s+|on\s+)?{WEEKDAY}|(?:on\s+)?(?:{DATE}|{SLASHED}))"
    rf"(?:\s+(?P<part>morning|noon|afternoon|evening|night|week))?(?:,?\s+(?P<clock>{CLOCK}))?$"
)


async def read_past(text: str, now: datetime, zone: str) -> datetime | None:
    """The instant at or before ``now`` (aware) that ``yesterday`` or ``2 hours ago`` means; None when it means none."""
    return await asyncio.to_thread(_read_past, text, now.astimezone(ZoneInfo(zone)))


def _read_past(text: str, now: datetime) -> datetime | None:
    words = re.sub(r"^since\s+", "", " ".join(text.strip().strip("?!.").lower().split()))
    try:
        at = _past_instant(text, words, now)
    except InvalidSchedule:
        return None
    return at if at is not None and at <= now else None


def _past_instant(text: str, words: str, now: datetime) -> datetime | None:
    try:
        at = datetime.fromisoformat(text.strip())
        return at if at.tzinfo else at.replace(tzinfo=now.tzinfo)
    except ValueError:
        pass
    if match := re.match(_STRETCH, words):
        stretch = match["last"] or match["ago"]
        counted = stretch if re.match(r"\d|an? |[a-z]+ [a-z]", stretch) else f"1 {stretch}"
        return now.astimezone(UTC) - read_duration(counted).total
    if months := re.fullmatch(rf"(?:the )?last (month|year)|({NUMBER}) (month|year)s? ago", words):
        count = int(number(months[2] or "1")) * (12 if "year" in months[0] else 1)
        return datetime.combine(add_months(now.date(), -count), now.time(), tzinfo=now.tzinfo)
    if words == "this week":
        return datetime.combine(now.date() - timedelta(days=now.weekday()), time(0), tzinfo=now.tzinfo)
    if clock := re.fullmatch(CLOCK, words):
        at = datetime.combine(now.date(), read_clock(clock[0]), tzinfo=now.tzinfo)
        return at if at <= now else at - timedelta(days=1)
    if match := re.match(_PAST_DAY, words):
        return _on_past_day(match, now)
    return None


def _on_past_day(match: re.Match[str], now: datetime) -> datetime:
    day, found = match["day"], now.date()
    if day in ("yesterday", "last night"):
        found -= timedelta(days=1)
    elif re.fullmatch(rf"(?:(?:last|on) )?{WEEKDAY}", day):
        # From cron's Sunday 0 to Python's Monday 0.
        wanted = WEEKDAYS[re.sub(r"^(?:last|on) ", "", day)] - 1
        found -= timedelta(days=(now.weekday() - wanted) % 7 or 7)
    elif day not in ("today", "this"):
        found = _past_date(day, now.date())
    part = match["part"] or ("evening" if day == "last night" else None)
    # a morning that is looked back on begins early.
    at = time(6) if part == "morning" else PARTS_OF_DAY.get(part or "", time(0))
    return datetime.combine(found, read_clock(match["clock"], part=part) if match["clock"] else at, tzinfo=now.tzinfo)


def _past_date(day: str, today: date) -> date:
    """The last such date: one without a year is of this year or the one before."""
    found = next(dates_of(day, add_months(today, -12) + timedelta(days=1)))
    return found if found <= today else next(dates_of(day, today))
