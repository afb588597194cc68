"""Times of day in English: ``9:30``, ``5pm``, ``at 9``, ``half past seven``, ``noon``, ``in the evening``."""

from __future__ import annotations

import re
from datetime import time

from ..errors import InvalidSchedule
from .durations import NUMBER_WORDS, number

PARTS_OF_DAY = {
    "morning": time(9), "noon": time(12), "midday": time(12), "lunchtime": time(12), "afternoon": time(15),
    "evening": time(18), "night": time(22), "midnight": time(0),
}  # fmt: skip
PART = r"(?:morning|afternoon|evening|night|noon|midnight|midday|lunchtime)"
PART_OF_DAY = r"(?:in the|this|at)\s+(?:morning|afternoon|evening|night|lunchtime)"
SMALL_HOURS = 6  # the night goes on until then: ``3 at night`` is 03:00
_OCLOCK = r"o['’]?clock"
AMPM = r"[ap]\.?m\b\.?"
_WORDS = "|".join(word for word in NUMBER_WORDS if " " not in word)
_PAST = (
    r"(?:half past|(?:a )?quarter (?:past|to)|(?:five|ten|twenty[- ]five|twenty)\s+(?:minutes?\s+)?(?:past|to)"
    r"|\d{1,2}\s+(?:minutes?\s+)?past|\d{1,2}\s+minutes?\s+to)"
)
_HALF = rf"(?:{_PAST}\s+(?:\d{{1,2}}(?:\s?{AMPM})?|{_WORDS}))"
_HOUR_WORD = r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
_END = r"(?![\w%]|[:.]\d)"
EXACT_CLOCK = (
    rf"(?:\d{{1,2}}:\d{{2}}(?::\d{{2}})?(?:\s?{AMPM})?|(?:\d{{1,2}}(?:\.\d{{2}})?|{_HOUR_WORD})\s?{AMPM}"
    rf"|(?:\d{{1,2}}|{_HOUR_WORD})\s?{_OCLOCK}(?:\s?{AMPM})?|noon|midday|lunchtime|midnight|{_HALF}){_END}"
)
"""A time of day that is one by its form, with or without ``at`` before it."""
NOT_A_THING = (
    r"(?!-|\s*(?:%|/|-\d|\.\d|(?:percent|degrees?|nodes?|steps?|epochs?|iterations?|points|items|samples|workers?"
    r"|gpus?|cores?|cpus?|rows|columns|files|pages|times|places|requests|models|runs|cells|layers|tokens|gb"
    r"|mb|kb|k|per|people|users|jobs|tests|plots|images|emails|messages|tasks|things|events|eggs)\b))"
)
"""Behind a number that may be an hour. Singular words would be orders: ``at 9 run the tests``."""
DOTTED_CLOCK = rf"(?:\d{{1,2}}[.h]\d{{2}}{_END})"
"""A number or a duration, but where something else says that it is a time of day."""
BARE_HOUR = rf"(?:\d{{1,2}}(?![\w%]|[:.]\d){NOT_A_THING}|{_HOUR_WORD}\b{NOT_A_THING})"
"""An hour that needs an ``at`` before it to be one. ``at 5 nodes`` is none."""
CLOCK = (
    rf"(?:(?:(?:(?:exactly|precisely)\s+)?(?:at|by)\s+(?:(?:around|about|exactly|precisely)\s+)?|(?:around|about|@)\s*)(?:{EXACT_CLOCK}|{DOTTED_CLOCK}|{BARE_HOUR})|{EXACT_CLOCK}"
    rf"|{BARE_HOUR}(?=\s+(?:in the\s+(?:morning|afternoon|evening)|at night)\b))(?:\s+(?:sharp|on\s+the\s+dot))?"
)
_CLOCK_FORM = re.compile(
    rf"^(?P<hour>\d{{1,2}})(?:[:.h](?P<minute>\d{{2}})(?::(?P<second>\d{{2}}))?)?\s*(?:{_OCLOCK})?\s*(?P<half>{AMPM})?$"
)
_PAST_FORM = re.compile(r"(?:a )?(?P<minutes>half|quarter|[a-z0-9 -]+?)(?: minutes?)? (?P<side>past|to) (?P<hour>.+)")


def read_clock(text: str, *, part: str | None = None) -> time:
    """What matched :data:`CLOCK`: on the 24-hour clock, unless it has am or pm, or ``part`` is a part of the day.

    Raises InvalidSchedule.
    """
    lowered = re.sub(r"\s+", " ", text.strip().lower()).removesuffix(" sharp").removesuffix(" on the dot")
    lowered = re.sub(r"^(?:(?:at|by|around|about|exactly|precisely)\b\s*|@\s*)+", "", lowered)
    if lowered in PARTS_OF_DAY:
        return PARTS_OF_DAY[lowered]
    if past := _PAST_FORM.fullmatch(lowered):
        return _read_past_hour(past, text, part)
    in_digits = re.sub(rf"^{_HOUR_WORD}\b", lambda word: str(NUMBER_WORDS[word[0]]), lowered)
    match = _CLOCK_FORM.match(in_digits)
    if match is None:
        raise InvalidSchedule(f"{text.strip()!r} is no time of day; write it like 8:30, 5pm or 17:00.")
    hour, minute, second = int(match["hour"]), int(match["minute"] or 0), int(match["second"] or 0)
    if match["half"]:
        if not 1 <= hour <= 12:
            raise InvalidSchedule(f"{text.strip()!r} is no time of day: am and pm go with 1 to 12.")
        _check(hour, minute, second, text)
        return _in_part(time(hour % 12 + (12 if match["half"][0] == "p" else 0), minute, second), part, sure=True)
    if hour == 24 and minute == 0:
        hour = 0
    _check(hour, minute, second, text)
    return _in_part(time(hour, minute, second), part)


def _check(hour: int, minute: int, second: int, text: str) -> None:
    if hour > 23 or minute > 59 or second > 59:
        raise InvalidSchedule(f"{text.strip()!r} is no time of day: hours go to 23, minutes to 59.")


def _read_past_hour(match: re.Match[str], text: str, part: str | None) -> time:
    """``half past seven``, ``ten to nine``, ``quarter past 9 pm``."""
    half = re.search(AMPM, match["hour"])
    hour = number(re.sub(rf"\s*{AMPM}", "", match["hour"]))
    minutes = {"half": 30.0, "quarter": 15.0}.get(match["minutes"]) or number(match["minutes"])
    if not 1 <= hour <= (12 if half else 23) or not 0 < minutes < 60:
        raise InvalidSchedule(f"{text.strip()!r} is no time of day.")
    if half:
        hour = hour % 12 + (12 if half[0][0] == "p" else 0)
    minutes += hour * 60 - (2 * minutes if match["side"] == "to" else 0)
    minutes %= 24 * 60
    return _in_part(time(int(minutes // 60), int(minutes % 60)), part, sure=half is not None)


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
    is_later = part in ("afternoon", "evening") or (part in ("night", "tonight") and at.hour >= SMALL_HOURS)
    found = at.replace(hour=at.hour + 12) if not sure and is_later and at.hour < 12 else at
    if part in _HOURS and found.hour not in _HOURS[part]:
        raise InvalidSchedule(f"{found:%H:%M} is not in the {part}; leave one of them out.")
    return found
