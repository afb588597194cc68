"""Instants, durations and schedules in words, for people and models. Pure.

``reader`` is the zone of the one who reads the words: it is not named. Without it every zone is named.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import assert_never

from ..clock import Period, time_words, zone_label, zone_or_utc
from ..model.recalls import Cron, Every, Once, Policy, Schedule, When, WhenEvent
from ..text import join_words, plural

_ONE = {"1 s": "second", "1 min": "minute", "1 h": "hour"}


def say_time(at: datetime, zone: str, now: datetime | None = None, *, reader: str | None = None) -> str:
    """``Tomorrow, Tue 24 Nov 08:30 Europe/Berlin``; the year where it is another one; seconds where they matter."""
    tz = zone_or_utc(zone)
    local = at.astimezone(tz)
    today = now.astimezone(tz) if now is not None else None
    day = f"{time_words(local, today)}{_in_zone(zone, reader)}"
    if today is None:
        return day
    names = {0: "Today", 1: "Tomorrow", -1: "Yesterday"}
    name = names.get((local.date() - today.date()).days)
    return f"{name}, {day}" if name else day


def _in_zone(zone: str, reader: str | None) -> str:
    return f" {label}" if (label := zone_label(zone, reader)) else ""


def say_stretch(value: timedelta, *, days: bool = True) -> str:
    """``2 h 5 min``, ``45 s``: two units at most. Without ``days`` it counts hours on: ``24 h``."""
    seconds = round(value.total_seconds())
    if seconds < 1:
        return "less than a second"
    out: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))[not days :]:
        count, seconds = divmod(seconds, size)
        if count:
            out.append(f"{count} {unit}")
        if len(out) == 2 or (out and not count):
            break
    return " ".join(out)


def say_period(period: Period) -> str:
    """``1 calendar day``, ``24 h``, ``2 calendar days and 3 h``."""
    days = [plural(period.days, "calendar day")] if period.days else []
    return join_words([*days, *([say_stretch(period.elapsed, days=False)] if period.elapsed else [])])


def say_meaning(
    schedule: Schedule,
    policy: Policy,
    zone: str,
    now: datetime,
    period: Period | None = None,
    *,
    reader: str | None = None,
) -> str:
    """What a schedule means, with what bounds it, before it is stored: the echo of a text.

    ``period``: the days or hours from now that a one-time schedule was written as.
    """
    if isinstance(schedule, Once):
        out = say_time(schedule.at, zone, now, reader=reader)
    else:
        out = say(schedule, reader=reader)
    if period is not None:
        out += f", {say_period(period)} from now"
    if policy.until is not None:
        out += f", until {say_time(policy.until, zone, now, reader=reader)}"
    if policy.max_fires is not None:
        out += f", {policy.max_fires} times" if policy.max_fires > 1 else ", once"
    return out


def say(schedule: Schedule, *, reader: str | None = None) -> str:
    """``every 2 h``, ``weekdays at 09:00 Europe/Berlin``, ``once``, ``when the running cell is done``.

    A cron expression where no words fit.
    """
    match schedule:
        case Once():
            return "once"
        case Every(every=every, tz=str(tz)):
            return _say_days(every, schedule.start.astimezone(zone_or_utc(tz)), _in_zone(tz, reader))
        case Every(every=every):
            elapsed = say_stretch(every, days=False)
            return f"every {_ONE.get(elapsed, elapsed)}"
        case Cron(expr=expr, tz=tz):
            return f"{cron_words(expr)}{_in_zone(tz, reader)}"
        case When():
            return say_when(schedule)
        case _:
            assert_never(schedule)


def _say_days(every: timedelta, start: datetime, in_zone: str) -> str:
    """Whole days on the wall clock: ``every other Friday at 16:00 Europe/Berlin, counted from 27 Nov 2026``."""
    days, clock = every.days, f"{start:%H:%M}{in_zone}"
    since = f"counted from {start:%a} {start.day} {start:%b} {start.year}"
    if days == 1:
        return f"every day at {clock}"
    weeks, rest = divmod(days, 7)
    if rest:
        return f"every {'other day' if days == 2 else f'{days} days'} at {clock}, {since}"
    name = f"{start:%A}"
    if weeks == 1:
        return f"every {name} at {clock}"
    which = "every other" if weeks == 2 else f"every {weeks} weeks on"
    return f"{which} {name} at {clock}, {since}"


_WHEN = {
    WhenEvent.CELL_DONE: "{cell} is done",
    WhenEvent.CELL_FINISHED: "{cell} finishes without an error",
    WhenEvent.CELL_FAILED: "{cell} fails",
    WhenEvent.CELL_SLOW: "{cell} runs for longer than {longer}",
    WhenEvent.KERNEL_IDLE: "the kernel has been idle{idle}",
    WhenEvent.KERNEL_RESTARTED: "the kernel restarts",
    WhenEvent.KERNEL_DIED: "the kernel dies",
    WhenEvent.FILE_CHANGED: "{path} changes",
    WhenEvent.EXPRESSION: "`{expr}` turns true in the kernel",
}


def _say_cell(cell: str | None) -> str:
    """Never an id: they mean nothing to people."""
    if cell is not None and cell.startswith("after:"):
        return "the next cell"
    return {"running": "the running cell", "any": "any cell", None: "a cell"}.get(cell, "that cell")


def say_when(schedule: When) -> str:
    """``when the running cell is done``, ``each time data.csv changes``."""
    cell = _say_cell(schedule.cell)
    longer = "" if schedule.longer_than is None else say_stretch(schedule.longer_than)
    event = _WHEN[schedule.event].format(
        cell=cell, longer=longer, idle=f" for {longer}" if longer else "", path=schedule.path, expr=schedule.expr
    )
    pause = f", at most once in {say_stretch(schedule.cooldown)}" if schedule.cooldown else ""
    return f"{'when' if schedule.repeat == 'once' else 'each time'} {event}{pause}"


_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DAY_OF = {key: name for number, name in enumerate(_DAYS) for key in (str(number), name[:3].lower())}
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_NTH = {"1": "first", "2": "second", "3": "third", "4": "fourth", "5": "fifth", "l": "last"}
_DATES = {"l": "the last day", "lw": "the last weekday", "1w": "the first weekday"}
_FAMILY = {"@hourly": "every hour", "@daily": "every day at 00:00", "@midnight": "every day at 00:00"}
_STEP = re.compile(r"\*(?:/(\d{1,2}))?")
_SPAN = re.compile(r"(\d{1,2})-(\d{1,2})(?:/(\d{1,2}))?", re.ASCII)


def cron_words(expr: str) -> str:
    """``weekdays at 09:00``, ``the first Monday of each month at 09:00``; ``cron `…``` where no words fit."""
    plain = f"cron `{expr}`"
    fields = expr.lower().split()
    if len(fields) != 5:
        return _FAMILY.get(expr.lower().strip(), plain)
    times, days = _cron_times(fields[0], fields[1]), _cron_days(*fields[2:])
    if times is None or days is None:
        return plain
    if times.startswith("every"):
        return (
            times if days == "every day" else f"{times}, {days.removeprefix('every ') if days == 'weekdays' else days}"
        )
    return f"{days} {times}"


def _each(step: int, unit: str) -> str:
    return f"every {unit}" if step == 1 else f"every {step} {unit}s"


def _cron_times(minute: str, hour: str) -> str | None:
    span, hours = _SPAN.fullmatch(hour), _STEP.fullmatch(hour)
    if minutes := _STEP.fullmatch(minute):
        step = int(minutes[1] or 1)
        if not step or 60 % step:
            return None
        if span and not span[3] and int(span[1]) <= int(span[2]):
            return f"{_each(step, 'minute')} from {int(span[1]):02}:00 to {int(span[2]):02}:{60 - step:02}"
        return _each(step, "minute") if hour == "*" else None
    if not minute.isdigit():
        return None
    if all(part.isdigit() for part in hour.split(",")):
        return f"at {join_words([f'{int(one):02}:{int(minute):02}' for one in hour.split(',')])}"
    if span:
        first, last, step = int(span[1]), int(span[2]), int(span[3] or 1)
        if not step or last < first:
            return None
        final = first + (last - first) // step * step
        return f"{_each(step, 'hour')} from {first:02}:{int(minute):02} to {final:02}:{int(minute):02}"
    step = int(hours[1] or 1) if hours else 0
    if not step or 24 % step:
        return None
    return _each(step, "hour") + (f" at minute {int(minute)}" if int(minute) else "")


def _cron_days(dom: str, month: str, dow: str) -> str | None:
    of = "of each month"
    if month != "*":
        if not all(one.isdigit() and 1 <= int(one) <= 12 for one in month.split(",")):
            return None
        of = f"of {join_words([_MONTHS[int(one) - 1] for one in month.split(',')])}"
    if dom != "*":
        date = _cron_dates(dom) if dow == "*" else None
        return f"{date} {of}" if date else None
    if (nths := _cron_nths(dow)) is not None:
        return f"{nths} {of}"
    if month != "*":
        return None
    return _cron_weekdays(dow)


def _cron_dates(dom: str) -> str | None:
    if dom in _DATES:
        return _DATES[dom]
    days = dom.split(",")
    if not all(one.isdigit() for one in days):
        return None
    return f"day{'s' if len(days) > 1 else ''} {join_words(days)}"


def _cron_nths(dow: str) -> str | None:
    """``1#1,1#3``: the first and third Monday."""
    found = [re.fullmatch(r"([0-7]|[a-z]{3})(?:#([1-5])|(l))", one) for one in dow.split(",")]
    nths = [one for one in found if one]
    days = {_DAY_OF.get(one[1]) for one in nths}
    if len(nths) != len(found) or len(days) != 1 or None in days:
        return None
    return f"the {join_words([_NTH[one[2] or one[3]] for one in nths])} {days.pop()}"


def _cron_weekdays(dow: str) -> str | None:
    if dow == "*":
        return "every day"
    if dow in ("1-5", "mon-fri", "1,2,3,4,5"):
        return "weekdays"
    days = [_DAY_OF.get(part) for part in dow.split(",")]
    if not all(days):
        return None
    return f"every {join_words(sorted({day for day in days if day}, key=_DAYS[1:].index))}"
