"""How instants, stretches and schedules are said to a person or a model."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import assert_never
from zoneinfo import ZoneInfo

from ..model.recalls import Cron, Every, Once, Recall, Schedule, When, WhenEvent
from .cronwords import say_cron

_ONE = {"1 s": "second", "1 min": "minute", "1 h": "hour", "1 d": "day"}


def zone_of(name: str) -> tzinfo:
    """The zone, or UTC when this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return ZoneInfo("UTC")


def say_time(at: datetime, zone: str, now: datetime | None = None) -> str:
    """``Tomorrow, Tue 24 Nov 08:30 Europe/Berlin``; the year where it is another one; seconds where they matter."""
    tz = zone_of(zone)
    local = at.astimezone(tz)
    clock = f"{local:%H:%M:%S}" if now is not None and abs(at - now) < timedelta(minutes=10) else f"{local:%H:%M}"
    today = now.astimezone(tz) if now is not None else None
    year = f" {local.year}" if today is None or local.year != today.year else ""
    day = f"{local:%a} {local.day} {local:%b}{year} {clock} {zone}"
    if today is None:
        return day
    names = {0: "Today", 1: "Tomorrow", -1: "Yesterday"}
    name = names.get((local.date() - today.date()).days)
    return f"{name}, {day}" if name else day


def say_stretch(value: timedelta) -> str:
    """``2 h 5 min``, ``45 s``: two units at most."""
    seconds = round(value.total_seconds())
    if seconds < 1:
        return "less than a second"
    out: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            out.append(f"{count} {unit}")
        if len(out) == 2 or (out and not count):
            break
    return " ".join(out)


def say_schedule(recall: Recall) -> str:
    """:func:`say` of a recall's schedule."""
    return say(recall.schedule)


def say(schedule: Schedule) -> str:
    """``every 2 h``, ``weekdays at 09:00 Europe/Berlin``, ``once``, ``when the running cell is done``.

    A cron expression where no words fit.
    """
    match schedule:
        case Once():
            return "once"
        case Every(every=every, tz=str(tz)):
            return _say_days(every, schedule.start.astimezone(zone_of(tz)), tz)
        case Every(every=every):
            said = say_stretch(every)
            return f"every {_ONE.get(said, said)}"
        case Cron(expr=expr, tz=tz):
            return f"{say_cron(expr)} {tz}"
        case When():
            return say_when(schedule)
        case _:
            assert_never(schedule)


def _say_days(every: timedelta, start: datetime, zone: str) -> str:
    """Whole days on the wall clock: ``every other Friday at 16:00 Europe/Berlin, counted from 27 Nov 2026``."""
    days, clock = every.days, f"{start:%H:%M} {zone}"
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
    said = _WHEN[schedule.event].format(
        cell=cell,
        longer=longer,
        idle=f" for {longer}" if longer else "",
        path=schedule.path,
        expr=schedule.expr,
    )
    pause = f", at most once in {say_stretch(schedule.cooldown)}" if schedule.cooldown else ""
    return f"{'when' if schedule.repeat == 'once' else 'each time'} {said}{pause}"
