"""Words of English that times are made of: numbers, durations, times of day. Patterns and their readers.

Pure text in, plain values out; no time zone and no "now" here (that is ``times``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import time, timedelta

from ..errors import InvalidSchedule

NUMBER_WORDS = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40,
    "forty-five": 45, "fifty": 50, "sixty": 60, "ninety": 90, "a couple of": 2, "a couple": 2, "couple of": 2,
    "a few": 3, "few": 3, "other": 2, "second": 2, "third": 3,
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
"""A stretch of time: ``10 minutes``, ``1h30m``, ``an hour and a half``, ``2 hours and 15 minutes``."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_FIXED = {
    "a fortnight": 1209600.0, "half an hour": 1800.0, "half a hour": 1800.0, "half a minute": 30.0,
    "half a day": 43200.0, "quarter of an hour": 900.0, "a quarter of an hour": 900.0,
    "three quarters of an hour": 2700.0,
}  # fmt: skip
_PART = re.compile(
    rf"(\d{{1,7}}(?:[.,]\d{{1,3}})?(?=\s*)|\b{NUMBER}(?=\s))\s*(and a half\s+)?({UNIT})(?![a-z])(\s+and a half)?",
    re.IGNORECASE,
)
_COMPACT_PART = re.compile(r"(\d+)\s?([dhms])", re.IGNORECASE)

WEEKDAYS = {
    "monday": 1, "mon": 1, "tuesday": 2, "tue": 2, "tues": 2, "wednesday": 3, "wed": 3, "thursday": 4, "thu": 4,
    "thur": 4, "thurs": 4, "friday": 5, "fri": 5, "saturday": 6, "sat": 6, "sunday": 0, "sun": 0,
}  # fmt: skip
"""Cron's numbers of the days of the week."""
WEEKDAY = r"(?:mon(?:day)?|tue(?:s(?:day)?)?|wed(?:nesday)?|thu(?:rs?(?:day)?)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)"

WORKDAY = r"(?:week ?day|work ?day|working day|business day)"
SMALL_HOURS = 6
"""The night goes on until then."""

PARTS_OF_DAY = {
    "morning": time(9), "noon": time(12), "midday": time(12), "lunchtime": time(12), "afternoon": time(15),
    "evening": time(18), "night": time(22), "midnight": time(0),
}  # fmt: skip
_OCLOCK = r"o['’]?clock"
_AMPM = r"[ap]\.?m\b\.?"
_HALF = rf"(?:half past|quarter past|quarter to)\s+(?:\d{{1,2}}|{'|'.join(w for w in NUMBER_WORDS if ' ' not in w)})"
EXACT_CLOCK = (
    rf"(?:\d{{1,2}}[:.h]\d{{2}}(?::\d{{2}})?(?:\s?{_AMPM})?|\d{{1,2}}\s?{_AMPM}|\d{{1,2}}\s?{_OCLOCK}"
    rf"|noon|midday|lunchtime|midnight|{_HALF})(?![\w:%]|\.\d)"
)
"""A time of day that is one by its form, with or without ``at`` before it."""
_NOT_A_THING = (
    r"(?!\s*(?:%|-|/|\.\d|(?:percent|degrees?|nodes?|steps?|epochs?|iterations?|points?|items?|samples?|workers?"
    r"|gpus?|cores?"
    r"|cpus?|rows?|columns?|files?|pages?|times|places?|requests?|models?|runs?|cells?|layers?|tokens?|gb|mb|kb|k"
    r"|per)\b))"
)
_HOUR_WORD = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
BARE_HOUR = rf"(?:\d{{1,2}}(?![\w:%]|\.\d){_NOT_A_THING}|{_HOUR_WORD}\b{_NOT_A_THING})"
"""An hour that needs an ``at`` before it to be one. ``at 5 nodes`` is none."""
CLOCK = rf"(?:(?:at|by|around|about|@)\s*(?:{EXACT_CLOCK}|{BARE_HOUR})|{EXACT_CLOCK})(?:\s+sharp)?"
PART_OF_DAY = r"(?:in the|this|at)\s+(?:morning|afternoon|evening|night|lunchtime)"


def number(text: str) -> float:
    """``"3"``, ``"1.5"``, ``"two"``, ``"a couple of"`` as a number."""
    word = text.strip().lower()
    return float(NUMBER_WORDS[word]) if word in NUMBER_WORDS else float(word.replace(",", "."))


def read_duration(text: str) -> timedelta:
    """What matched :data:`DURATION`, in elapsed time. Raises InvalidSchedule when it is nothing or over a century."""
    lowered = re.sub(r"\s+", " ", text.strip().lower())
    seconds = _FIXED.get(lowered)
    if seconds is None and re.fullmatch(_COMPACT, lowered):
        seconds = sum(float(count) * _SECONDS[unit] for count, unit in _COMPACT_PART.findall(lowered))
    if seconds is None:
        seconds = 0.0
        for count, half_before, unit, half_after in _PART.findall(lowered):
            seconds += (number(count) + (0.5 if half_before or half_after else 0)) * _SECONDS[unit[0].lower()]
    if seconds <= 0:
        raise InvalidSchedule(f"{text.strip()!r} is no time at all; say for example 10 minutes.")
    if seconds > 36525 * 86400:
        raise InvalidSchedule(f"{text.strip()!r} is longer than a century.")
    return timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class ClockTime:
    """A time of day as somebody said it."""

    at: time
    ambiguous: bool = False
    """The hour could be in the morning or in the afternoon."""

    def choices(self) -> tuple[time, ...]:
        """What it may mean, the earlier first."""
        if not self.ambiguous:
            return (self.at,)
        return (self.at, self.at.replace(hour=(self.at.hour + 12) % 24)) if self.at.hour < 12 else (self.at,)

    def likely(self) -> time:
        """What it means when nothing else decides: the first choice when people are awake (6:00 to 22:59)."""
        return next((choice for choice in self.choices() if 6 <= choice.hour < 23), self.at)


_CLOCK_FORM = re.compile(
    rf"^(?P<hour>\d{{1,2}})(?:[:.h](?P<minute>\d{{2}})(?::(?P<second>\d{{2}}))?)?\s*(?P<half>{_AMPM})?(?P<oclock>{_OCLOCK})?$"
)


def read_clock(text: str, *, part: str | None = None) -> ClockTime:
    """What matched :data:`CLOCK`; ``part`` is the part of the day that was said with it. Raises InvalidSchedule."""
    lowered = re.sub(r"\s+", " ", text.strip().lower()).removesuffix(" sharp")
    lowered = re.sub(r"^(?:at|by|around|about|@)\s*", "", lowered)
    if lowered in PARTS_OF_DAY:
        return ClockTime(PARTS_OF_DAY[lowered])
    if past := re.fullmatch(r"(half past|quarter past|quarter to) (\S+)", lowered):
        return _with_part(_past(past[1], int(number(past[2])), text), part)
    if lowered in NUMBER_WORDS:
        lowered = str(NUMBER_WORDS[lowered])
    match = _CLOCK_FORM.match(lowered)
    if match is None:
        raise InvalidSchedule(f"{text.strip()!r} is no time of day; write it like 8:30, 5pm or 17:00.")
    return _with_part(_digits(match, text), part)


def _past(form: str, hour: int, text: str) -> ClockTime:
    if not 1 <= hour <= 23:
        raise InvalidSchedule(f"{text.strip()!r} is no time of day.")
    minute = {"half past": 30, "quarter past": 15, "quarter to": 45}[form]
    return ClockTime(time((hour - (form == "quarter to")) % 24, minute), ambiguous=hour <= 12)


def _digits(match: re.Match[str], text: str) -> ClockTime:
    hour, minute, second = int(match["hour"]), int(match["minute"] or 0), int(match["second"] or 0)
    half = (match["half"] or "")[:1]
    if half:
        if not 1 <= hour <= 12:
            raise InvalidSchedule(f"{text.strip()!r} is no time of day: am and pm go with 1 to 12.")
        hour = hour % 12 + (12 if half == "p" else 0)
    if hour == 24 and minute == 0:
        hour = 0
    if hour > 23 or minute > 59 or second > 59:
        raise InvalidSchedule(f"{text.strip()!r} is no time of day: hours go to 23, minutes to 59.")
    # 05:30 and 17:30 are written by a 24-hour clock; "5" and "5:30" leave open which half of the day.
    open_half = not half and 1 <= hour <= 11 and not match["hour"].startswith("0")
    return ClockTime(time(hour, minute, second), ambiguous=open_half)


def _with_part(said: ClockTime, part: str | None) -> ClockTime:
    if part is None or not said.ambiguous:
        return said
    later = part in ("afternoon", "evening", "night", "tonight")
    if part in ("night", "tonight") and said.at.hour < SMALL_HOURS:
        later = False
    choices = said.choices()
    return ClockTime(choices[-1] if later else choices[0])
