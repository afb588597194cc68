"""How instants, stretches and schedules are said to a person or a model."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from ..model import Cron, Every, Once, Recall

_ONE = {"1 s": "second", "1 min": "minute", "1 h": "hour", "1 d": "day"}
_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


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
    """``every 2 h``, ``weekdays at 09:00 Europe/Berlin``, ``once``; a cron expression where no words fit."""
    match recall.schedule:
        case Once():
            return "once"
        case Every(every=every):
            said = say_stretch(every)
            return f"every {_ONE.get(said, said)}"
        case Cron(expr=expr, tz=tz):
            return f"{_say_cron(expr)} {tz}"


def _say_cron(expr: str) -> str:
    fields = expr.split()
    if len(fields) != 5 or not fields[0].isdigit() or not all(part.isdigit() for part in fields[1].split(",")):
        return f"cron `{expr}`"
    times = " and ".join(f"{int(hour):02}:{int(fields[0]):02}" for hour in fields[1].split(","))
    if fields[2:4] != ["*", "*"]:
        return (
            f"cron `{expr}`"
            if fields[3:] != ["*", "*"] or not fields[2].isdigit()
            else f"day {fields[2]} of each month at {times}"
        )
    if fields[4] == "*":
        return f"every day at {times}"
    if fields[4] == "1-5":
        return f"weekdays at {times}"
    if all(part.isdigit() and int(part) <= 6 for part in fields[4].split(",")):
        days = [_DAYS[int(part)] for part in fields[4].split(",")]
        return f"every {', '.join(days[:-1])}{' and ' if days[1:] else ''}{days[-1]} at {times}"
    return f"cron `{expr}`"
