"""Cron expressions: a guard reads their shape, croniter expands their fields, :class:`Fields` steps and counts. Pure.

The grammar is Debian cron's (lists, ranges, steps, names in any case, ``7`` = Sunday, day-of-month OR
day-of-week unless one of them starts with ``*``) plus ``a/n``, a seconds field *in front*, ``L``, ``LW`` and
``15W`` in day-of-month, ``5L`` and ``5#3`` in day-of-week, and the ``@hourly`` family.

The guard comes first because croniter alone reads ``5-5`` as every value, wraps ``10-5`` around, takes ``R`` for a
random number, and spends a second on a list of a megabyte. What it writes differently (``L5``) or cannot combine
(``1,15W``, ``1,5#3``) is rewritten or expanded item by item. Zones and clock changes are in ``instants``.
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
    from collections.abc import Mapping

MAX_LENGTH = 256  # Characters of an expression. Checked before anything else looks at it.
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
    """The expression cannot be read, or never matches. The message is one sentence for its author."""


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

    def items(self, text: str) -> list[str]:
        items = text.split(",")
        if not all(items):
            self.fail(text, "has an empty list item")
        return items

    def checked(self, item: str) -> str:
        """A plain item (``*``, ``a``, ``a-b``, each with ``/n``) as croniter may read it. Raises CronError."""
        span, slash, step = item.partition("/")
        if slash and not re.fullmatch(r"\d{1,9}", step, re.ASCII):
            self.fail(item, "a step is a number, as in */5")
        if slash and int(step) == 0:
            self.fail(item, "a step cannot be zero")
        first, dash, last = span.partition("-")
        if span == "*":
            return item
        if dash:
            low, high = self.number(first, item), self.number(last, item)
            if low > high:
                self.fail(item, "the range runs backwards; write it as a list of two ranges")
            return first if low == high else item  # croniter reads an equal range as every value
        self.number(span, item)
        if slash and self is _DOW:
            self.fail(item, "a step needs a range here, as in 1-5/2")
        return item


_SECOND = _Part("second", 0, 59)
_MINUTE = _Part("minute", 0, 59)
_HOUR = _Part("hour", 0, 23)
_DOM = _Part("day of month", 1, 31)
_MONTH = _Part("month", 1, 12, _MONTH_NAMES)
_DOW = _Part("day of week", 0, 7, _DAY_NAMES)
_PARTS = {"second": _SECOND, "minute": _MINUTE, "hour": _HOUR, "month": _MONTH}


_ORDER = ("minute", "hour", "dom", "month", "dow", "second")
_Values = dict[str, list[int | str]]


def _expand(texts: Mapping[str, str], *, strict: bool) -> tuple[_Values, dict[int, set[int | str]]]:
    """The values of each field, and the weekdays that count only at some places of a month."""
    # Late: with python-dateutil it takes 70 ms and 7 MB, and many servers never read a cron expression.
    from croniter import CroniterError, croniter

    try:
        values, places = croniter.expand(" ".join(texts.get(name, "*") for name in _ORDER), strict=strict)
    except CroniterError as error:  # the guard has passed it: what is left are days that none of its months has
        raise CronError("never matches: no such date exists") from error
    return dict(zip(_ORDER, values, strict=True)), places


def _numbers(part: _Part, values: list[int | str]) -> tuple[int, ...]:
    """The values of a field, ascending."""
    if "*" in values:
        return tuple(range(part.low, 7 if part is _DOW else part.high + 1))
    return tuple(sorted(value for value in values if isinstance(value, int)))


def _dates(text: str) -> tuple[list[str], list[str]]:
    """The items of the day of the month, and of these the days of ``15W``, which croniter takes only alone."""
    plain: list[str] = []
    near: list[str] = []
    for item in _DOM.items(text):
        if match := re.fullmatch(r"(\d{1,2})w", item, re.ASCII):
            near.append(str(_DOM.number(match[1], item)))
        else:
            plain.append(item if item in ("l", "lw") else _DOM.checked(item))
    return plain, near


def _weekdays(text: str) -> tuple[list[str], list[str]]:
    """The items of the day of the week, and apart from these ``5L`` and ``5#3``, which croniter cannot combine."""
    plain: list[str] = []
    placed: list[str] = []
    for item in _DOW.items(text):
        if match := re.fullmatch(r"([0-9]|[a-z]{3})l", item, re.ASCII):
            placed.append(f"l{_DOW.number(match[1], item)}")
        elif "#" in item:
            name, _, count = item.partition("#")
            if count not in ("1", "2", "3", "4", "5"):
                _DOW.fail(item, "after # comes a number from 1 to 5")
            placed.append(f"{_DOW.number(name, item)}#{count}")
        else:
            plain.append(_DOW.checked(item))
    return plain, placed


@dataclass(frozen=True, slots=True)
class _Days:
    """Which days of a month match.

    ``both``: day-of-month *and* day-of-week must match (one of them starts with ``*``); otherwise either.
    """

    dom: frozenset[int]
    last: bool
    last_weekday: bool
    near: frozenset[int]  # ``15W``: the weekday nearest to the 15th, in the same month.
    dow: frozenset[int]  # 0 = Sunday.
    places: dict[int, set[int | str]]  # ``5#3`` as 5: {3}; ``5L`` as 5: {"l"}.
    both: bool

    def of(self, year: int, month: int) -> tuple[int, ...]:
        """The matching days of one month, ascending."""
        first_weekday, length = calendar.monthrange(year, month)  # Monday is 0
        special = self._special(first_weekday, length)
        out = []
        for day in range(1, length + 1):
            weekday = (first_weekday + day) % 7  # Sunday is 0
            by_date = day in self.dom or day in special
            numbers = self.places.get(weekday, ())
            by_weekday = weekday in self.dow or (day + 6) // 7 in numbers or (day + 7 > length and "l" in numbers)
            if (by_date and by_weekday) if self.both else (by_date or by_weekday):
                out.append(day)
        return tuple(out)

    def _special(self, first_weekday: int, length: int) -> set[int]:
        out = {length} if self.last else set()
        if self.last_weekday:
            out.add(length - max(0, (first_weekday + length - 1) % 7 - 4))
        # croniter clamps 31W to the end of a short month; here that month has none.
        out |= {_nearest_weekday(day, (first_weekday + day - 1) % 7, length) for day in self.near if day <= length}
        return out


def _nearest_weekday(day: int, weekday: int, length: int) -> int:
    """``day`` itself, or the Friday before a Saturday, the Monday after a Sunday; never in another month."""
    if weekday == 5:
        return day - 1 if day > 1 else day + 2
    if weekday == 6:
        return day + 1 if day < length else day - 2
    return day


class Fields:
    """A compiled expression: a set of wall-clock seconds. Knows nothing of zones: ``instants`` does."""

    __slots__ = ("_cache", "_days", "_per_day", "fixed_time", "hours", "minutes", "months", "seconds", "texts")

    def __init__(self, texts: tuple[str, ...]) -> None:
        self.texts = texts  # The fields as written, lower case.
        second, minute, hour, dom, month, dow = texts if len(texts) == 6 else ("0", *texts)
        given = {"second": second, "minute": minute, "hour": hour, "month": month}
        checked = {name: ",".join(map(part.checked, part.items(given[name]))) for name, part in _PARTS.items()}
        dates, near = _dates(dom)
        weekdays, placed = _weekdays(dow)
        both = dom.startswith("*") or dow.startswith("*")
        plain = [item for item in dates if item != "lw"]
        days = {"dom": ",".join(plain) or "*", "dow": ",".join(weekdays) or "*"}
        # croniter judges by the plain dates alone; they are not all there is where either day is enough.
        values, _ = _expand(checked | days, strict=both and dates == plain and not near)
        self.seconds, self.minutes, self.hours, self.months = (
            _numbers(part, values[name]) for name, part in _PARTS.items()
        )
        self._days = _Days(
            dom=frozenset(_numbers(_DOM, values["dom"]) if plain else ()),
            last="l" in plain,
            last_weekday="lw" in dates,
            near=frozenset(map(int, near)),
            dow=frozenset(_numbers(_DOW, values["dow"]) if weekdays else ()),
            places=_expand({"dow": ",".join(placed)}, strict=True)[1] if placed else {},
            both=both,
        )
        self._per_day = len(self.seconds) * len(self.minutes) * len(self.hours)
        self._cache: dict[tuple[int, int], tuple[int, ...]] = {}
        # A star with a step counts as a star, as in Debian: ``*/30`` fires in both copies of an hour.
        self.fixed_time = len(texts) == 5 and minute[0] != "*" and hour[0] != "*"
        """Debian cron's class of jobs that a clock change neither loses nor doubles. Never six-field ones."""

    def days(self, year: int, month: int) -> tuple[int, ...]:
        """The matching days of a month, ascending."""
        if month not in self.months:
            return ()
        if (found := self._cache.get((year, month))) is None:
            if len(self._cache) > 64:  # five years: counting over an outage visits each month twice
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


@lru_cache(maxsize=4096)
def compiled(expr: str) -> Fields:
    """The expression, read. Raises CronError when it cannot be read or never matches."""
    fields = Fields(split(expr))
    if fields.after(datetime(2000, 1, 1)) is None:  # noqa: DTZ001 - any wall clock will do
        raise CronError("never matches: no such date exists")
    return fields
