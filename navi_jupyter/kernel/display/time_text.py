"""Times and schedules as a cell shows them: on the reader's clock, which is that of the session. Pure but for the zone.

Not responsible for reading what people write (``times``).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from ...clock import time_words, zone_label, zone_or_utc
from ..grammar.times import reader_tz, reader_zone


def moment(text: str | None, *, zone: str | None = None, now: datetime | None = None) -> str:
    """An ISO instant on the reader's clock, and how far it is: ``Tue 24 Nov 09:00 (in 8h)``.

    ``zone`` is that of its schedule: where it is not the reader's, its wall time stands there too, since it is what
    the user asked for: ``Tue 24 Nov 01:00 (in 8h; 09:00 Asia/Tokyo)``.
    """
    if not text:
        return "–"
    at, now = datetime.fromisoformat(text), now or datetime.now(UTC)
    label = zone_label(zone, reader_zone()) if zone else ""
    there = f"; {at.astimezone(zone_or_utc(str(zone))):%H:%M} {label}" if label else ""
    return f"{clock_words(text, now=now)} ({distance((at - now).total_seconds())}{there})"


def clock_words(text: str, *, now: datetime | None = None) -> str:
    """An ISO instant on the reader's clock: ``Fri 27 Nov 16:00``; the year where it is not this one.

    Seconds are shown within ten minutes only, where they are what distinguishes two times.
    """
    zone = reader_tz()
    return time_words(datetime.fromisoformat(text).astimezone(zone), (now or datetime.now(UTC)).astimezone(zone))


def short_time(text: str, *, now: datetime | None = None) -> str:
    """An ISO instant on the reader's clock: ``16:00`` for one of today, else with its day, as ``clock_words``."""
    zone = reader_tz()
    at = datetime.fromisoformat(text).astimezone(zone)
    today = (now or datetime.now(UTC)).astimezone(zone)
    return f"{at:%H:%M}" if at.date() == today.date() else clock_words(text, now=now)


def without_own_zone(text: str) -> str:
    """Words of the server, which names the zone of every time, without the name of the reader's own zone."""
    zone = reader_zone()
    if zone is None:
        return text
    return re.sub(rf" (?:{re.escape(zone)}|{re.escape(zone_label(zone, None))})(?![\w/])", "", text)


def distance(seconds: float) -> str:
    """``in 9m``, ``3h ago``."""
    size = abs(seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if size >= 2 * length - length / 60:  # what was made for two hours is not "in 120m" a moment later
            words = f"{size / length:.0f}{unit}"
            break
    else:
        words = f"{size:.0f}s"
    return f"in {words}" if seconds >= 0 else f"{words} ago"


_WHEN = {
    "cell_done": "{cell} is done",
    "cell_finished": "{cell} finishes without an error",
    "cell_failed": "{cell} fails",
    "cell_slow": "{cell} takes longer than {longer}",
    "kernel_idle": "the kernel is idle",
    "kernel_restarted": "the kernel restarts",
    "kernel_died": "the kernel dies",
}


def _cell_words(cell: str | None) -> str:
    """A cell in words: ids of requests mean nothing to a reader."""
    if cell in (None, "any"):
        return "any cell"
    kind, _, named = str(cell).rpartition(":")
    return {"after": "the next cell", "request": "this cell"}.get(
        kind, "the cell" if named == "running" else "that cell"
    )


def _when_words(schedule: dict[str, Any]) -> str:
    """``when the next cell is done``, ``each time data.csv changes``."""
    event = str(schedule.get("event"))
    if event == "file_changed":
        words = f"{schedule.get('path')} changes"
    elif event == "expression":
        words = f"{schedule.get('expr')} is true"
    else:
        longer = schedule.get("longer_than")
        words = _WHEN.get(event, event).format(cell=_cell_words(schedule.get("cell")), longer=longer)
        if longer and event == "kernel_idle":
            words += f" for {longer}"
    return f"{'each time' if schedule.get('repeat') == 'each' else 'when'} {words}"


def schedule_words(schedule: dict[str, Any]) -> str:
    """A schedule in one phrase."""
    match schedule.get("kind"):
        case "once":
            return "once"
        case "every":
            return f"every {schedule.get('every')}{_in_zone(schedule)}"
        case "when":
            return _when_words(schedule)
        case "cron":
            return f"cron {schedule.get('expr')}{_in_zone(schedule)}"
        case kind:
            return str(kind)


def _in_zone(schedule: dict[str, Any]) -> str:
    """`` (Asia/Tokyo)`` where the schedule's zone is not the reader's."""
    label = zone_label(schedule["tz"], reader_zone()) if schedule.get("tz") else ""
    return f" ({label})" if label else ""
