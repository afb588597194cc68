"""Dates, times of day, durations and zones in English: patterns, and readers of what they matched. Also past times.

Days and dates are read by dateparser, which takes a quarter of a second to import and as long at its first call: it is
imported at the first use, and what runs on the event loop goes through a thread.
"""

from __future__ import annotations

import asyncio
import re
import threading
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from ..clock import Period, find_zone
from ..errors import InvalidSchedule

NUMBER_WORDS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40,
    "forty-five": 45, "fifty": 50, "sixty": 60, "ninety": 90, "a couple of": 2, "a couple": 2, "couple of": 2,
    "a few": 3, "few": 3, "other": 2, "second": 2, "third": 3, "fourth": 4, "2nd": 2, "3rd": 3, "4th": 4,
}  # fmt: skip
NUMBER = (
    r"(?:\d{1,7}(?:[.,]\d{1,3})?|a couple(?: of)?|couple of|a few|few|forty-five|an?|one|two|three|four|five|six|seven"
    r"|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|ninety)"
)
UNIT = r"(?:seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|hr|h|days?|d|weeks?|wks?|w)"
_STEP = (
    rf"(?:(?:{NUMBER}\s+(?:and a half\s+)?|\d{{1,7}}(?:[.,]\d{{1,3}})?\s*){UNIT}(?![a-z]|\d*[a-z])(?:\s+and a half)?)"
)
_COMPACT = r"(?:\d{1,6}\s?(?:d|h|hr|hrs|m|min|mins|s)){2,4}(?![a-z\d])"
DURATION = (
    rf"(?:a fortnight|half an? hour|half a minute|half a day|(?:a |three )?quarters? of an hour"
    rf"|{_COMPACT}|{_STEP}(?:(?:,?\s+and\s+|,\s*|\s+){_STEP}){{0,3}})"
)
"""A stretch of time: ``10 minutes``, ``1h30m``, ``an hour and a half``, ``2 days and 3 hours``."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_FIXED = {
    "half an hour": 1800, "half a hour": 1800, "half a minute": 30, "half a day": 43200, "quarter of an hour": 900,
    "a quarter of an hour": 900, "three quarters of an hour": 2700,
}  # fmt: skip
_PART = re.compile(
    rf"(\d{{1,7}}(?:[.,]\d{{1,3}})?(?=\s*)|\b{NUMBER}(?=\s))\s*(and a half\s+)?({UNIT})(?![a-z])(\s+and a half)?",
    re.IGNORECASE,
)
_COMPACT_PART = re.compile(r"(\d+)\s?([dhms])", re.IGNORECASE)


def number(text: str) -> float:
    """``"3"``, ``"1.5"``, ``"two"``, ``"a couple of"`` as a number."""
    word = text.strip().lower()
    return float(NUMBER_WORDS[word]) if word in NUMBER_WORDS else float(word.replace(",", "."))


def read_duration(text: str) -> Period:
    """What matched :data:`DURATION`. Raises InvalidSchedule when it is nothing or over a century."""
    lowered = re.sub(r"\s+", " ", text.strip().lower())
    if lowered == "a fortnight":
        return Period(days=14)
    if lowered in _FIXED:
        return Period(elapsed=timedelta(seconds=_FIXED[lowered]))
    if re.fullmatch(_COMPACT, lowered):
        parts = [(float(count), unit) for count, unit in _COMPACT_PART.findall(lowered)]
    else:
        parts = [
            (number(count) + (0.5 if half_before or half_after else 0), unit[0])
            for count, half_before, unit, half_after in _PART.findall(lowered)
        ]
    return period_of(parts, text)


def period_of(parts: list[tuple[float, str]], text: str) -> Period:
    """The sum of counted units (``s m h d w``). Days and weeks that are whole are calendar days."""
    days = sum(int(count) * _SECONDS[unit] // 86400 for count, unit in parts if unit in "dw" and count == int(count))
    seconds = sum(count * _SECONDS[unit] for count, unit in parts if unit not in "dw" or count != int(count))
    if days + seconds <= 0:
        raise InvalidSchedule(f"{text.strip()!r} is no time at all; say for example 10 minutes.")
    if days + seconds / 86400 > 36525:
        raise InvalidSchedule(f"{text.strip()!r} is longer than a century.")
    return Period(days, timedelta(seconds=seconds))


WEEKDAYS = {
    "monday": 1, "mon": 1, "tuesday": 2, "tue": 2, "tues": 2, "wednesday": 3, "wed": 3, "thursday": 4, "thu": 4,
    "thur": 4, "thurs": 4, "friday": 5, "fri": 5, "saturday": 6, "sat": 6, "sunday": 0, "sun": 0,
}  # fmt: skip
"""Cron's numbers of the days of the week."""
WEEKDAY = r"(?:mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:rs?(?:day)?)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)"
WORKDAY = r"(?:week\s?day|work\s?day|working\s+day|business\s+day)"
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
PARTS_OF_DAY = {
    "morning": time(9), "noon": time(12), "midday": time(12), "lunchtime": time(12), "afternoon": time(15),
    "evening": time(18), "night": time(22), "midnight": time(0),
}  # fmt: skip
PART = r"(?:morning|afternoon|evening|night|noon|midnight|midday|lunchtime)"
PART_OF_DAY = r"(?:in the|this|at)\s+(?:morning|afternoon|evening|night|lunchtime)"
_SMALL_HOURS = 6  # the night goes on until then: ``3 at night`` is 03:00
_OCLOCK = r"o['’]?clock"
_AMPM = r"[ap]\.?m\b\.?"
_HALF = rf"(?:half past|quarter past|quarter to)\s+(?:\d{{1,2}}|{'|'.join(w for w in NUMBER_WORDS if ' ' not in w)})"
EXACT_CLOCK = (
    rf"(?:\d{{1,2}}[:.h]\d{{2}}(?::\d{{2}})?(?:\s?{_AMPM})?|\d{{1,2}}\s?{_AMPM}|\d{{1,2}}\s?{_OCLOCK}"
    rf"|noon|midday|lunchtime|midnight|{_HALF})(?![\w:%]|\.\d)"
)
"""A time of day that is one by its form, with or without ``at`` before it."""
NOT_A_THING = (
    r"(?!\s*(?:%|-|/|\.\d|(?:percent|degrees?|nodes?|steps?|epochs?|iterations?|points?|items?|samples?|workers?"
    r"|gpus?|cores?|cpus?|rows?|columns?|files?|pages?|times|places?|requests?|models?|runs?|cells?|layers?|tokens?|gb"
    r"|mb|kb|k|per)\b))"
)
_HOUR_WORD = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
BARE_HOUR = rf"(?:\d{{1,2}}(?![\w:%]|\.\d){NOT_A_THING}|{_HOUR_WORD}\b{NOT_A_THING})"
"""An hour that needs an ``at`` before it to be one. ``at 5 nodes`` is none."""
CLOCK = (
    rf"(?:(?:(?:at|by)\s+(?:around|about)\s+|(?:at|by|around|about|@)\s*)(?:{EXACT_CLOCK}|{BARE_HOUR})|{EXACT_CLOCK}"
    rf"|{BARE_HOUR}(?=\s+(?:in the\s+(?:morning|afternoon|evening)|at night)\b))(?:\s+sharp)?"
)
_CLOCK_FORM = re.compile(
    rf"^(?P<hour>\d{{1,2}})(?:[:.h](?P<minute>\d{{2}})(?::(?P<second>\d{{2}}))?)?\s*(?P<half>{_AMPM})?(?:{_OCLOCK})?$"
)


def read_clock(text: str, *, part: str | None = None) -> time:
    """What matched :data:`CLOCK`: on the 24-hour clock, unless it has am or pm, or ``part`` is a part of the day.

    Raises InvalidSchedule.
    """
    lowered = re.sub(r"\s+", " ", text.strip().lower()).removesuffix(" sharp")
    lowered = re.sub(r"^(?:(?:at|by|around|about)\b\s*|@\s*)+", "", lowered)
    if lowered in PARTS_OF_DAY:
        return PARTS_OF_DAY[lowered]
    if past := re.fullmatch(r"(half past|quarter past|quarter to) (\S+)", lowered):
        hour, minute = int(number(past[2])), {"half past": 30, "quarter past": 15, "quarter to": 45}[past[1]]
        if not 1 <= hour <= 23:
            raise InvalidSchedule(f"{text.strip()!r} is no time of day.")
        return _in_part(time((hour - (minute == 45)) % 24, minute), part)
    match = _CLOCK_FORM.match(str(NUMBER_WORDS.get(lowered, lowered)))
    if match is None:
        raise InvalidSchedule(f"{text.strip()!r} is no time of day; write it like 8:30, 5pm or 17:00.")
    hour, minute, second = int(match["hour"]), int(match["minute"] or 0), int(match["second"] or 0)
    if match["half"]:
        if not 1 <= hour <= 12:
            raise InvalidSchedule(f"{text.strip()!r} is no time of day: am and pm go with 1 to 12.")
        return _in_part(time(hour % 12 + (12 if match["half"][0] == "p" else 0), minute, second), part, sure=True)
    if hour == 24 and minute == 0:
        hour = 0
    if hour > 23 or minute > 59 or second > 59:
        raise InvalidSchedule(f"{text.strip()!r} is no time of day: hours go to 23, minutes to 59.")
    return _in_part(time(hour, minute, second), part)


def morning_note(text: str, at: time, part: str | None) -> str:
    """A hint where somebody may have meant the afternoon: ``at 5`` is 05:00, by the 24-hour clock."""
    if part or not 1 <= at.hour < 7 or re.search(r"[ap]\.?m\b|\b0\d", text.lower()):
        return ""
    return f"{at:%H:%M} is in the morning; write {at.hour + 12}:{at:%M} for the afternoon"


_HOURS = {"morning": range(12), "afternoon": range(12, 19), "evening": range(15, 24)}
"""Which hours somebody can mean who names that part of the day."""


def _in_part(at: time, part: str | None, *, sure: bool = False) -> time:
    """``9`` with ``evening`` is 21:00, ``3`` with ``night`` is 03:00; ``sure``: it has am or pm.

    Raises InvalidSchedule for one that is not in that part: ``morning`` with ``9pm``.
    """
    if not sure and at.hour == 12 and part in ("night", "tonight"):
        return at.replace(hour=0)
    is_later = part in ("afternoon", "evening") or (part in ("night", "tonight") and at.hour >= _SMALL_HOURS)
    found = at.replace(hour=at.hour + 12) if not sure and is_later and at.hour < 12 else at
    if part in _HOURS and found.hour not in _HOURS[part]:
        raise InvalidSchedule(f"{found:%H:%M} is not in the {part}; leave one of them out.")
    return found


_DATEPARSER_LOCK = threading.Lock()  # its caches are not made for threads


def read_date(day: str, now: datetime) -> date:
    """The date that a day phrase means. Raises InvalidSchedule."""
    words = re.sub(r"^on\s+", "", day)
    words = {
        "day after tomorrow": "in 2 days", "the day after tomorrow": "in 2 days", "tonight": "today",
    }.get(words, words)  # fmt: skip
    words = re.sub(r"\b(a couple of|a couple)\b", "2", re.sub(r"\ba few\b", "3", words))
    words = re.sub(r"^(?:this coming|coming|this)\s+", "", words)
    if dotted := re.fullmatch(r"(\d{1,2})\.(\d{1,2})\.(\d{4})?", words):
        # dateparser takes 12.12. for a time of day
        month = MONTHS[int(dotted[2]) - 1] if 1 <= int(dotted[2]) <= 12 else "no month"
        words = f"{dotted[1]} {month} {dotted[3] or ''}".strip()
    if re.match(r"(?:the )?\d+(?:st|nd|rd|th)$", words):
        return _day_of_month(int(re.sub(r"\D", "", words)), now)
    at = _dateparse(words, now.replace(tzinfo=None))
    if at is None:
        raise InvalidSchedule(f"{day!r} is no date that exists.")
    return at.date()


def _day_of_month(day: int, now: datetime) -> date:
    """The next day of that number."""
    first = now.date().replace(day=1)
    for _ in range(13 if 1 <= day <= 31 else 0):
        try:
            found = first.replace(day=day)
        except ValueError:
            found = now.date()  # not in this month
        if found > now.date():
            return found
        first = (first + timedelta(days=32)).replace(day=1)
    raise InvalidSchedule(f"There is no day {day} in a month.")


def _dateparse(words: str, base: datetime, *, past: bool = False) -> datetime | None:
    """``words`` as a wall-clock time by dateparser, relative to ``base`` (naive)."""
    with _DATEPARSER_LOCK:
        import dateparser  # late: see the module's docstring

        settings: Any = {
            "PREFER_DATES_FROM": "past" if past else "future",
            "RELATIVE_BASE": base,
            "RETURN_AS_TIMEZONE_AWARE": False,
            # Day before month where only the order decides, unless the year comes first: stated in the answer anyway.
            "DATE_ORDER": "DMY",
            "PREFER_LOCALE_DATE_ORDER": False,
        }
        found = dateparser.parse(words, languages=["en"], settings=settings)
    return found if isinstance(found, datetime) else None


_STRETCH = (
    rf"(?:(?:in\s+|within\s+|during\s+|over\s+)?(?:the\s+)?(?:last|past)\s+(?P<last>{DURATION}|(?:second|minute|hour"
    rf"|day|week)s?)|(?P<ago>{DURATION})\s+ago)$"
)
_PAST_DAY = (
    rf"(?P<day>today|yesterday|this|last night|(?:last\s+|on\s+)?{WEEKDAY}|\d{{4}}-\d{{2}}-\d{{2}})"
    rf"(?:\s+(?P<part>morning|noon|afternoon|evening|night|week))?(?:\s+(?P<clock>{CLOCK}))?$"
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
    if words == "this week":
        return datetime.combine(now.date() - timedelta(days=now.weekday()), time(0), tzinfo=now.tzinfo)
    if clock := re.fullmatch(CLOCK, words):
        at = datetime.combine(now.date(), read_clock(clock[0]), tzinfo=now.tzinfo)
        return at if at <= now else at - timedelta(days=1)
    if match := re.match(_PAST_DAY, words):
        return _on_past_day(match, now)
    found = _dateparse(words, now.replace(tzinfo=None), past=True)
    return found.replace(tzinfo=now.tzinfo) if found else None


def _on_past_day(match: re.Match[str], now: datetime) -> datetime:
    day, found = match["day"], now.date()
    if day in ("yesterday", "last night"):
        found -= timedelta(days=1)
    elif re.match(r"\d", day):
        found = datetime.fromisoformat(day).date()
    elif day not in ("today", "this"):
        # From cron's Sunday 0 to Python's Monday 0.
        wanted = WEEKDAYS[re.sub(r"^(?:last|on) ", "", day)] - 1
        found -= timedelta(days=(now.weekday() - wanted) % 7 or 7)
    part = match["part"] or ("evening" if day == "last night" else None)
    # a morning that is looked back on begins early.
    at = time(6) if part == "morning" else PARTS_OF_DAY.get(part or "", time(0))
    return datetime.combine(found, read_clock(match["clock"], part=part) if match["clock"] else at, tzinfo=now.tzinfo)


_ALSO = {
    "utc": "UTC", "gmt": "UTC", "zulu": "UTC", "germany": "Europe/Berlin", "france": "Europe/Paris",
    "uk": "Europe/London", "england": "Europe/London", "japan": "Asia/Tokyo", "india": "Asia/Kolkata",
    "delhi": "Asia/Kolkata", "mumbai": "Asia/Kolkata", "bangalore": "Asia/Kolkata", "beijing": "Asia/Shanghai",
    "china": "Asia/Shanghai", "nyc": "America/New_York", "boston": "America/New_York", "washington": "America/New_York",
    "california": "America/Los_Angeles", "san francisco": "America/Los_Angeles", "sf": "America/Los_Angeles",
    "seattle": "America/Los_Angeles", "munich": "Europe/Berlin", "hamburg": "Europe/Berlin", "italy": "Europe/Rome",
    "spain": "Europe/Madrid", "switzerland": "Europe/Zurich", "austria": "Europe/Vienna", "korea": "Asia/Seoul",
}  # fmt: skip

_CONTINENTS = (
    "africa/", "america/", "antarctica/", "asia/", "atlantic/", "australia/", "europe/", "indian/", "pacific/",
)  # fmt: skip


def zone_of_place(place: str) -> str | None:
    """The zone of a city, country or IANA name, or None. Reads the zone directory: not for the event loop."""
    wanted = " ".join(place.strip(" ?.!").lower().replace("_", " ").split())
    if wanted in _ALSO:
        return _ALSO[wanted]
    names = {name.replace("_", " ").lower(): name for name in available_timezones()}
    cities = {name.rsplit("/", 1)[-1]: full for name, full in sorted(names.items()) if name.startswith(_CONTINENTS)}
    if found := names.get(wanted) or cities.get(wanted):
        return found
    close = get_close_matches(wanted, cities, n=1, cutoff=0.83)
    return cities[close[0]] if close else None


_ZONE = re.compile(r"\s+\(?(?P<name>UTC|GMT|[A-Z][A-Za-z]+/[A-Z][A-Za-z_]+(?:/[A-Z][A-Za-z_]+)?)\b\)?")
_VAGUE_ZONE = re.compile(r"\s+(?P<name>[ECMP][SDE]T|CEST|BST|IST|JST|AEST|AEDT|MEZ|MESZ)\b")


def zone_behind(text: str, end: int, zone: str) -> tuple[str, int]:
    """The zone that is named right after a time ("at 17:00 UTC"), and where its name ends; else the given one."""
    if vague := _VAGUE_ZONE.match(text, end):
        raise InvalidSchedule(
            f"{vague['name']} can mean several zones; name one like Europe/Berlin, or leave it out for {zone}."
        )
    match = _ZONE.match(text, end)
    name = match["name"].replace("GMT", "UTC") if match else ""
    return (name, match.end()) if match and find_zone(name) else (zone, end)


# --- more of a time, behind one ---------------------------------------------------------------------------------------

QUOTED = re.compile(r"(?P<cron>cron:?\s+)?(?:([\"'])(?P<a>.{1,200}?)\2|“(?P<b>.{1,200}?)”)(?=[\s,;:]|$)", re.IGNORECASE)
"""A time in quotation marks, at the beginning of a sentence."""
MORE_OF_A_TIME = re.compile(
    r"[\s,]*(?:(?:and|or)\s+)?(?:"
    r"(?:at|by|from|before|after|on|every|each|to|through|-|–)\s+(?:not\s+)?"
    rf"(?:\d|noon|midnight|the\s+\d|weekend|{WEEKDAY}s?\b|{MONTH}\b)|{WEEKDAY}s?\b|tomorrow|next\s+(?:week|month)"
    r"|on\s+the\s+(?:first|second|third|fourth|last)\b|(?:starting|beginning|until|till|except|excluding|during|between)\b|but\s+(?:not\b|on\s)"
    rf"|twice\b|\d+\s+times|{CLOCK}|(?:(?:in\s+the|at|this)\s+)?{PART}s?\b|weeks?\b|in\s+{MONTH}\b"
    r"|of\s+(?:the|each|every)\s+\w+|(?-i:(?:[A-Z][a-z]+\s+){1,2})time\b)"
    r"|(?<=hour)\s+\d{1,2}\b|(?<=hours)\s+\d{1,2}\b"
    rf"|(?<=day)\s+{BARE_HOUR}|(?<=\w)[.'’](?=\w)\S*|(?<=\d),\d+",
    re.IGNORECASE,
)
"""More of a time, behind one. ``and`` alone may begin the rest of the message."""
ANOTHER_HOUR = re.compile(rf"\s*(?:,\s*)?\b(?:and|or)\s+(?:at\s+)?{BARE_HOUR}|[-–]\d\S*", re.IGNORECASE)
"""Another time of day, behind a time that may stand anywhere in a sentence: ``at 9 or 10``, ``at 9:00-10:00``."""


class HalfRead(InvalidSchedule):
    """A time is followed by what looks like more of it."""

    def __init__(self, understood: str, more: str) -> None:
        super().__init__(
            f"I understand {understood.strip()!r} as a time, but not {more.strip(' ,')!r} behind it. Put the whole time"
            " in quotation marks, or say it in another way.",
            field="text",
        )
