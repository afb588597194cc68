"""Cron expressions: what they say, and the real instants they stand for in a time zone. Pure.

Why the fields are read here and not by a library: croniter 7 reads ``5-5`` as every minute, lets ``10-5``
wrap around, has no ``5L`` or ``LW``, costs 68 ms and 7 MB to import, and its clock changes are not Debian's. It
and cronsim are the oracles of the tests.

The grammar is Debian cron's (lists, ranges, steps, names in any case, ``7`` = Sunday, day-of-month OR
day-of-week unless one of them starts with ``*``) plus ``a/n``, a seconds field *in front*, ``L``, ``LW`` and
``15W`` in day-of-month, ``5L`` and ``5#3`` in day-of-week, and the ``@hourly`` family. Zones and clock changes
are the business of ``instants``.
"""

from __future__ import annotations

import calendar
import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LENGTH = 256
"""Characters of an expression. Checked before anything else looks at it."""
_SEARCH_YEARS = 60
"""The longest gap between matches is 40 years (29 February on a given weekday, over a non-leap century)."""
SECOND = timedelta(seconds=1)

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_DAY_NAMES = {name: n for n, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_NAMES = {name: n for n, name in enumerate(_MONTHS, start=1)}


class CronError(ValueError):
    """The expression can not be read, or never matches. The message is one sentence for its author."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One of the fields: its name in messages, its bounds, its names."""

    name: str
    low: int
    high: int
    names: dict[str, int] = field(default_factory=dict)

    def fail(self, text: str, why: str) -> NoReturn:
        raise CronError(f"{self.name} {text[:40]!r}: {why}")

    def number(self, text: str, item: str) -> int:
        if text in self.names:
            return self.names[text]
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
            self.fail(item, "is not a number, a range, a list or a step")
        value = int(text)
        if not self.low <= value <= self.high:
            self.fail(item, f"{value} is not within {self.low}-{self.high}")
        return value


_SECOND = _Part("second", 0, 59)
_MINUTE = _Part("minute", 0, 59)
_HOUR = _Part("hour", 0, 23)
_DOM = _Part("day of month", 1, 31)
_MONTH = _Part("month", 1, 12, _MONTH_NAMES)
_DOW = _Part("day of week", 0, 7, _DAY_NAMES)


def _numbers(part: _Part, item: str) -> Iterable[int]:
    """The values of one plain list item: ``*``, ``a``, ``a-b``, each with ``/n``."""
    span, slash, step_text = item.partition("/")
    if slash and not re.fullmatch(r"\d{1,9}", step_text, re.ASCII):
        part.fail(item, "a step is a number, as in */5")
    step = int(step_text) if slash else 1
    if step == 0:
        part.fail(item, "a step can not be zero")
    first, dash, last = span.partition("-")
    if span == "*":
        low, high = part.low, part.high
    elif dash:
        low, high = part.number(first, item), part.number(last, item)
        if low > high:
            part.fail(item, "the range runs backwards; write it as a list of two ranges")
    else:
        low = high = part.number(span, item)
        if slash and part is _DOW:
            part.fail(item, "a step needs a range here, as in 1-5/2")
        if slash:
            high = part.high
    return range(low, high + 1, step)


def _items(part: _Part, text: str) -> list[str]:
    items = text.split(",")
    if not all(items):
        part.fail(text, "has an empty list item")
    return items


def _plain(part: _Part, text: str) -> tuple[int, ...]:
    return tuple(sorted({value for item in _items(part, text) for value in _numbers(part, item)}))


@dataclass(frozen=True, slots=True)
class _Days:
    """Which days of a month match.

    ``both``: day-of-month *and* day-of-week must match (one of them starts with ``*``); otherwise either.
    """

    dom: frozenset[int]
    last: bool
    last_weekday: bool
    near: frozenset[int]
    """``15W``: the weekday nearest to the 15th, in the same month."""
    dow: frozenset[int]
    """0 = Sunday."""
    nth: frozenset[tuple[int, int]]
    """``5#3`` as (5, 3); ``5L`` as (5, -1)."""
    both: bool

    def of(self, year: int, month: int) -> tuple[int, ...]:
        """The matching days of one month, ascending."""
        first_weekday, length = calendar.monthrange(year, month)  # Monday is 0
        special = self._special(first_weekday, length)
        out = []
        for day in range(1, length + 1):
            weekday = (first_weekday + day) % 7  # Sunday is 0
            by_date = day in self.dom or day in special
            by_weekday = (
                weekday in self.dow
                or (weekday, (day + 6) // 7) in self.nth
                or (day + 7 > length and (weekday, -1) in self.nth)
            )
            if (by_date and by_weekday) if self.both else (by_date or by_weekday):
                out.append(day)
        return tuple(out)

    def _special(self, first_weekday: int, length: int) -> set[int]:
        out = {length} if self.last else set()
        if self.last_weekday:
            out.add(length - max(0, (first_weekday + length - 1) % 7 - 4))
        for day in self.near:
            if day <= length:
                out.add(_nearest_weekday(day, (first_weekday + day - 1) % 7, length))
        return out


def _nearest_weekday(day: int, weekday: int, length: int) -> int:
    """``day`` itself, or the Friday before a Saturday, the Monday after a Sunday; never in another month."""
    if weekday == 5:
        return day - 1 if day > 1 else day + 2
    if weekday == 6:
        return day + 1 if day < length else day - 2
    return day


def _days(dom_text: str, dow_text: str) -> _Days:
    dom: set[int] = set()
    near: set[int] = set()
    marks: set[str] = set()
    for item in _items(_DOM, dom_text):
        if item in ("l", "lw"):
            marks.add(item)
        elif match := re.fullmatch(r"(\d{1,2})w", item, re.ASCII):
            near.add(_DOM.number(match[1], item))
        else:
            dom.update(_numbers(_DOM, item))
    dow: set[int] = set()
    nth: set[tuple[int, int]] = set()
    for item in _items(_DOW, dow_text):
        if match := re.fullmatch(r"([0-9]|[a-z]{3})l", item, re.ASCII):
            nth.add((_DOW.number(match[1], item) % 7, -1))
        elif "#" in item:
            name, _, count = item.partition("#")
            if count not in ("1", "2", "3", "4", "5"):
                _DOW.fail(item, "after # comes a number from 1 to 5")
            nth.add((_DOW.number(name, item) % 7, int(count)))
        else:
            dow.update(value % 7 for value in _numbers(_DOW, item))
    return _Days(
        dom=frozenset(dom),
        last="l" in marks,
        last_weekday="lw" in marks,
        near=frozenset(near),
        dow=frozenset(dow),
        nth=frozenset(nth),
        both=dom_text.startswith("*") or dow_text.startswith("*"),
    )


class Fields:
    """A compiled expression: a set of wall-clock seconds. Knows nothing of zones: ``instants`` does."""

    __slots__ = (
        "_cache", "_days", "_per_day", "fixed_time", "hours", "minutes", "months", "seconds", "texts",
    )  # fmt: skip

    def __init__(self, texts: tuple[str, ...]) -> None:
        second, minute, hour, dom, month, dow = texts if len(texts) == 6 else ("0", *texts)
        self.texts = texts
        """The fields as written, lower case."""
        self.seconds = _plain(_SECOND, second)
        self.minutes = _plain(_MINUTE, minute)
        self.hours = _plain(_HOUR, hour)
        self.months = _plain(_MONTH, month)
        self._days = _days(dom, dow)
        self._per_day = len(self.seconds) * len(self.minutes) * len(self.hours)
        self._cache: dict[tuple[int, int], tuple[int, ...]] = {}
        self.fixed_time = len(texts) == 5 and minute[0] != "*" and hour[0] != "*"
        """Debian cron's class of jobs that a clock change neither loses nor doubles. Never six-field ones."""

    def days(self, year: int, month: int) -> tuple[int, ...]:
        """The matching days of a month, ascending."""
        if month not in self.months:
            return ()
        if (found := self._cache.get((year, month))) is None:
            if len(self._cache) > 64:
                self._cache.clear()
            found = self._cache[year, month] = self._days.of(year, month)
        return found

    def _time_from(self, hour: int, minute: int, second: int) -> tuple[int, int, int] | None:
        """The first matching time of day at or after the given one."""
        if hour in self.hours:
            if minute in self.minutes:
                i = bisect_left(self.seconds, second)
                if i < len(self.seconds):
                    return hour, minute, self.seconds[i]
            i = bisect_right(self.minutes, minute)
            if i < len(self.minutes):
                return hour, self.minutes[i], self.seconds[0]
        i = bisect_right(self.hours, hour)
        if i < len(self.hours):
            return self.hours[i], self.minutes[0], self.seconds[0]
        return None

    def after(self, wall: datetime) -> datetime | None:
        """The first match strictly after the naive ``wall``; None when there is none."""
        if wall.year >= 9998:
            return None
        start = wall.replace(microsecond=0) + SECOND
        year, month, last_year = start.year, start.month, min(start.year + _SEARCH_YEARS, 9998)
        days = self.days(year, month)
        if start.day in days:
            time = self._time_from(start.hour, start.minute, start.second)
            if time is not None:
                return datetime(year, month, start.day, *time)  # noqa: DTZ001 - wall clock
        rest = days[bisect_right(days, start.day) :]
        while not rest:
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
            if year > last_year:
                return None
            rest = self.days(year, month)
        return datetime(year, month, rest[0], self.hours[0], self.minutes[0], self.seconds[0])  # noqa: DTZ001

    def _rank(self, wall: datetime) -> int:
        """Matching times of day at or before the time of ``wall``."""
        if wall.hour not in self.hours:
            return bisect_left(self.hours, wall.hour) * len(self.minutes) * len(self.seconds)
        done = bisect_left(self.hours, wall.hour) * len(self.minutes)
        done += bisect_left(self.minutes, wall.minute)
        count = done * len(self.seconds)
        return count + (bisect_right(self.seconds, wall.second) if wall.minute in self.minutes else 0)

    def count(self, after: datetime, upto: datetime) -> int:
        """How many matches there are in the naive interval (after, upto]. O(months)."""
        if upto <= after:
            return 0
        return self._until(upto, after.year) - self._until(after, after.year)

    def _until(self, wall: datetime, since_year: int) -> int:
        """Matches from the start of ``since_year`` up to and including ``wall``."""
        full = sum(
            len(self.days(year, month))
            for year in range(since_year, wall.year + 1)
            for month in self.months
            if (year, month) < (wall.year, wall.month)
        )
        days = self.days(wall.year, wall.month)
        full += bisect_left(days, wall.day)
        return full * self._per_day + (self._rank(wall) if wall.day in days else 0)


def split(expr: str) -> tuple[str, ...]:
    """The fields of an expression, lower case, aliases resolved. Cheap for any input. Raises CronError."""
    if len(expr) > MAX_LENGTH:
        raise CronError(f"a cron expression has at most {MAX_LENGTH} characters")
    if not re.fullmatch(r"[\x21-\x7e \t]*", expr):
        raise CronError("a cron expression has only ASCII letters, digits, spaces and *,-/#@")
    text = expr.strip(" \t").lower()
    if text.startswith("@"):
        if text not in ALIASES:
            raise CronError(f"{text[:40]!r} is not one of {', '.join(sorted(ALIASES))}")
        text = ALIASES[text]
    texts = tuple(text.split())
    if len(texts) not in (5, 6):
        raise CronError(
            f"has {len(texts)} fields; a cron expression has five (minute hour day month weekday), "
            "or six with seconds first"
        )
    return texts


@lru_cache(maxsize=4096)
def compiled(expr: str) -> Fields:
    """The expression, read. Raises CronError when it can not be read or never matches."""
    fields = Fields(split(expr))
    if fields.after(datetime(2000, 1, 1)) is None:  # noqa: DTZ001 - any wall clock will do
        raise CronError("never matches: no such date exists")
    return fields
