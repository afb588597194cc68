"""Durations in English: ``10 minutes``, ``1h30``, ``an hour and a half``, ``1 1/2 hours``; and numbers in words."""

from __future__ import annotations

import re
from datetime import timedelta

from ..clock import Period
from ..errors import InvalidSchedule

_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_ONES = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
}  # fmt: skip
NUMBER_WORDS = {
    "a": 1, "an": 1, **_ONES, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15,
    "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, **_TENS, "a couple of": 2, "a couple": 2,
    "couple of": 2, "a few": 3, "few": 3, "other": 2, "second": 2, "third": 3, "fourth": 4, "2nd": 2, "3rd": 3,
    "4th": 4,
}  # fmt: skip
NUMBER_WORD = (
    rf"a couple(?: of)?|couple of|a few|few|(?:{'|'.join(_TENS)})(?:[-\s](?:{'|'.join(_ONES)})\b)?|an?"
    rf"|{'|'.join(_ONES)}|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen"
)
_FRACTIONS = {"½": 0.5, "¼": 0.25, "¾": 0.75, "1/2": 0.5, "1/4": 0.25, "3/4": 0.75}
_FRACTION = r"(?:[½¼¾]|1/2|1/4|3/4)"
_DIGITS = rf"(?:\d{{1,3}}\s+(?:and\s+)?{_FRACTION}|\d{{1,3}}[½¼¾]|{_FRACTION}|\d{{1,7}}(?:[.,]\d{{1,3}})?)"
NUMBER = rf"(?:{_DIGITS}|{NUMBER_WORD})"
UNIT = r"(?:seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|hr|h|days?|d|weeks?|wks?|w)"
_MORE = r"(?:and\s+(?:a\s+half|half|a\s+quarter|three\s+quarters)(?!\s+(?:an?|of)\b))"
_STEP = rf"(?:(?:{NUMBER}\s+(?:{_MORE}\s+)?|{_DIGITS}\s*-?){UNIT}(?![a-z]|\d*[a-z])(?:\s+{_MORE})?)"
_COMPACT = r"(?:\d{1,6}\s?(?:days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)){2,4}(?![a-z\d])"
_GLUED = r"(?:\d{1,3}h\d{2}(?![\w:]))"
DURATION = (
    rf"(?:a fortnight|half an? hour|a half[- ]hour|half a minute|half a day|(?:a |three )?quarters? of an hour"
    rf"|{_COMPACT}|{_GLUED}|{_STEP}(?:(?:,?\s+and\s+|,\s*|\s+){_STEP}){{0,3}})"
)
"""A stretch of time: ``10 minutes``, ``1h30m``, ``1h30``, ``an hour and a half``, ``2 days and 3 hours``."""
CLOCK_DURATION = r"(?:\d{1,3}:[0-5]\d(?::[0-5]\d)?(?![\w:])(?!\s*[ap]\.?m\b)(?:\s*(?:hours?|hrs?|h)\b)?)"
"""``1:30``, which are hours and minutes; a duration only behind ``in``."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_FIXED = {
    "half an hour": 1800, "half a hour": 1800, "a half hour": 1800, "a half-hour": 1800,
    "half a minute": 30, "half a day": 43200, "quarter of an hour": 900,
    "a quarter of an hour": 900, "three quarters of an hour": 2700,
}  # fmt: skip
_PART = re.compile(
    rf"({_DIGITS}(?=\s*)|\b{NUMBER}(?=\s))[\s-]*({_MORE}\s+)?({UNIT})(?![a-z])(?:\s+({_MORE}))?", re.IGNORECASE
)
_COMPACT_PART = re.compile(r"(\d+)\s?([dhms])", re.IGNORECASE)


def number(text: str) -> float:
    """``"3"``, ``"1.5"``, ``"1 1/2"``, ``"two"``, ``"twenty-five"``, ``"a couple of"`` as a number.

    Raises InvalidSchedule for a comma that may be a decimal one or not.
    """
    word = " ".join(text.lower().replace("and", " ").split())
    if word in NUMBER_WORDS:
        return float(NUMBER_WORDS[word])
    if two := re.fullmatch(rf"({'|'.join(_TENS)})[-\s]({'|'.join(_ONES)})", word):
        return float(_TENS[two[1]] + _ONES[two[2]])
    if mixed := re.fullmatch(rf"(\d*)\s*({_FRACTION})", word):
        return float(mixed[1] or 0) + _FRACTIONS[mixed[2]]
    if re.fullmatch(r"\d+,\d{3}", word):
        raise InvalidSchedule(f"{text.strip()} can be two numbers; write {word.replace(',', '')}, or with a point.")
    return float(word.replace(",", "."))


def read_duration(text: str) -> Period:
    """What matched :data:`DURATION` or :data:`CLOCK_DURATION`. Raises InvalidSchedule when it is nothing or over a
    century."""
    lowered = re.sub(r"\s+", " ", text.strip().lower())
    if lowered == "a fortnight":
        return Period(days=14)
    if lowered in _FIXED:
        return Period(elapsed=timedelta(seconds=_FIXED[lowered]))
    if clock := re.fullmatch(r"(\d+)(?::|h)(\d\d)(?::(\d\d))?(?: ?(?:hours?|hrs?|h))?", lowered):
        parts = [(float(count or 0), unit) for count, unit in zip(clock.groups(), "hms", strict=True)]
    elif re.fullmatch(_COMPACT, lowered):
        parts = [(float(count), unit) for count, unit in _COMPACT_PART.findall(lowered)]
    else:
        parts = [
            (number(count) + _share(before) + _share(after), unit[0])
            for count, before, unit, after in _PART.findall(lowered)
        ]
    return period_of(parts, text)


def _share(words: str) -> float:
    """``and a half``, as a number."""
    if not words:
        return 0.0
    return 0.75 if "three" in words else 0.25 if "quarter" in words else 0.5


def period_of(parts: list[tuple[float, str]], text: str) -> Period:
    """The sum of counted units (``s m h d w``). Days and weeks that are whole are calendar days."""
    days = sum(int(count) * _SECONDS[unit] // 86400 for count, unit in parts if unit in "dw" and count == int(count))
    seconds = sum(count * _SECONDS[unit] for count, unit in parts if unit not in "dw" or count != int(count))
    if days + seconds <= 0:
        raise InvalidSchedule(f"{text.strip()!r} is no time at all; say for example 10 minutes.")
    if days + seconds / 86400 > 36525:
        raise InvalidSchedule(f"{text.strip()!r} is longer than a century.")
    return Period(days, timedelta(seconds=seconds))
