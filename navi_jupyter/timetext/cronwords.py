"""Cron expressions in words. Pure.

Not responsible for what an expression means to the scheduler: these are words for people, and where none fit the
expression itself is given.
"""

from __future__ import annotations

import re

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_NTH = {"1": "first", "2": "second", "3": "third", "4": "fourth", "5": "fifth", "l": "last"}
_DATES = {"l": "the last day", "lw": "the last weekday", "1w": "the first weekday"}
_FAMILY = {"@hourly": "every hour", "@daily": "every day at 00:00", "@midnight": "every day at 00:00"}
_SPAN = re.compile(r"(\d{1,2})-(\d{1,2})(?:/(\d{1,2}))?", re.ASCII)


def say_cron(expr: str) -> str:
    """``weekdays at 09:00``, ``the first Monday of each month at 09:00``; ``cron `…``` where no words fit."""
    plain = f"cron `{expr}`"
    fields = expr.lower().split()
    if len(fields) != 5:
        return _FAMILY.get(expr.lower().strip(), plain)
    times, days = _say_times(fields[0], fields[1]), _say_days(*fields[2:])
    if times is None or days is None:
        return plain
    if times.startswith("every"):
        return (
            times if days == "every day" else f"{times}, {days.removeprefix('every ') if days == 'weekdays' else days}"
        )
    return f"{days} {times}"


def _say_times(minute: str, hour: str) -> str | None:
    if minute.isdigit() and all(part.isdigit() for part in hour.split(",")):
        return f"at {_listed([f'{int(one):02}:{int(minute):02}' for one in hour.split(',')])}"
    if minute.isdigit() and (span := _SPAN.fullmatch(hour)):
        first, last, step = int(span[1]), int(span[2]), int(span[3] or 1)
        if not step or last < first:
            return None
        final = first + (last - first) // step * step
        each = "every hour" if step == 1 else f"every {step} hours"
        return f"{each} from {first:02}:{int(minute):02} to {final:02}:{int(minute):02}"
    if minute.isdigit() and hour == "*":
        return "every hour" if int(minute) == 0 else f"every hour at minute {int(minute)}"
    if minute.isdigit() and (step_text := re.fullmatch(r"\*/(\d{1,2})", hour)) and 24 % (int(step_text[1]) or 25) == 0:
        return f"every {step_text[1]} hours" + ("" if int(minute) == 0 else f" at minute {int(minute)}")
    if (step_text := re.fullmatch(r"\*(?:/(\d{1,2}))?", minute)) is not None:
        return _say_minutes(int(step_text[1] or 1), hour)
    return None


def _say_minutes(step: int, hour: str) -> str | None:
    if not step or 60 % step:
        return None
    each = "every minute" if step == 1 else f"every {step} minutes"
    if hour == "*":
        return each
    if (span := _SPAN.fullmatch(hour)) and not span[3] and int(span[1]) <= int(span[2]):
        return f"{each} from {int(span[1]):02}:00 to {int(span[2]):02}:{60 - step:02}"
    return None


def _say_days(dom: str, month: str, dow: str) -> str | None:
    of = "of each month"
    if month != "*":
        if not all(one.isdigit() and 1 <= int(one) <= 12 for one in month.split(",")):
            return None
        of = f"of {_listed([_MONTHS[int(one) - 1] for one in month.split(',')])}"
    if dom != "*":
        date = _say_dates(dom) if dow == "*" else None
        return f"{date} {of}" if date else None
    if (nths := _say_nths(dow)) is not None:
        return f"{nths} {of}"
    if month != "*":
        return None
    return _say_weekdays(dow)


def _say_dates(dom: str) -> str | None:
    if dom in _DATES:
        return _DATES[dom]
    days = dom.split(",")
    if not all(one.isdigit() for one in days):
        return None
    return f"day{'s' if len(days) > 1 else ''} {_listed(days)}"


def _say_nths(dow: str) -> str | None:
    """``1#1,1#3``: the first and third Monday."""
    found = [re.fullmatch(r"([0-7]|[a-z]{3})(?:#([1-5])|(l))", one) for one in dow.split(",")]
    nths = [one for one in found if one]
    days = {_day(one[1]) for one in nths}
    if len(nths) != len(found) or len(days) != 1 or None in days:
        return None
    return f"the {_listed([_NTH[one[2] or one[3]] for one in nths])} {days.pop()}"


def _say_weekdays(dow: str) -> str | None:
    if dow == "*":
        return "every day"
    if dow in ("1-5", "mon-fri", "1,2,3,4,5"):
        return "weekdays"
    days = [_day(part) for part in dow.split(",")]
    if not all(days):
        return None
    week = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return f"every {_listed(sorted({day for day in days if day}, key=week.index))}"


def _listed(words: list[str]) -> str:
    """``a, b and c``."""
    *before, last = words
    return f"{', '.join(before)}{' and ' if before else ''}{last}"


def _day(text: str) -> str | None:
    if text in _NAMES:
        return _DAYS[_NAMES.index(text)]
    return _DAYS[int(text)] if text.isdigit() and len(text) == 1 and int(text) <= 7 else None
