"""From what a user wrote to a :data:`~navi_jupyter.model.recalls.Schedule`, and from a schedule to its times. Pure.

A schedule is a fixed set of instants; ``next_after(schedule, at)`` is its smallest element after ``at``, for
any ``at``. So restarts, clocks that step back, previews and the planner cannot disagree.
Not responsible for policies (misfire, until, max_fires): ``misfires`` and ``decisions``.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, assert_never
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter

from ..clock import find_zone, zone_or_utc
from ..errors import InvalidSchedule
from ..model.recalls import Cron, CronSpec, Every, EverySpec, Once, OnceSpec, Schedule, ScheduleSpec, When, WhenSpec
from ..ports.transactions import off_loop
from .cron import CronError, compiled, split
from .event_triggers import resolve_when
from .instants import DAY, Calendar, WallSteps, changes, offset_at, steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MIN_INTERVAL = timedelta(seconds=1)
HORIZON = timedelta(days=36525)  # Nothing is scheduled further away than a century.
PAST_TOLERANCE = timedelta(seconds=2)
"""How far in the past ``once.at`` may lie: "now" is not refused for the time its request took to arrive."""
_TICK = timedelta(microseconds=1)
_SPECS: TypeAdapter[ScheduleSpec] = TypeAdapter(ScheduleSpec)


def whole_ms(at: datetime) -> datetime:
    """``at`` in UTC, cut to milliseconds: the resolution of slots, so that a slot's text names it exactly."""
    at = at.astimezone(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def checked_zone(key: str) -> ZoneInfo:
    """The IANA zone of that name. Raises InvalidSchedule."""
    if (zone := find_zone(key)) is None:
        why = f"unknown time zone {key[:64]!r}; use an IANA name such as Europe/Berlin or UTC"
        raise InvalidSchedule(why, field="schedule.tz")
    return zone


@lru_cache(maxsize=4096)
def calendar_of(schedule: Cron) -> Calendar:
    """The expression in its zone. Raises InvalidSchedule, also for what an older version had accepted."""
    try:
        fields = compiled(schedule.expr)
    except CronError as e:
        raise InvalidSchedule(f"cron expression: {e}", field="schedule.expr") from e
    return Calendar(fields, checked_zone(schedule.tz))


async def load_cron_reader(schedules: Iterable[ScheduleSpec | Schedule | None]) -> None:
    """Call before reading these, also in a unit of work; None: one that is stored, of any kind."""
    # The first import of croniter takes 70 to 300 ms, in which the loop would stand still: it is made in a thread.
    # Not at the start of a server: many never read a cron expression.
    if "croniter" not in sys.modules and any(each is None or isinstance(each, CronSpec | Cron) for each in schedules):
        await off_loop(lambda: import_module("croniter"))


def resolve(spec: ScheduleSpec, *, now: datetime, zone: str) -> Schedule:
    """Check a spec and fix what it leaves open: relative times against ``now``, a missing zone by the user's.

    Raises InvalidSchedule, with ``field`` set, for a time that is past or over a century away, an interval
    under a second, an unknown zone, a cron expression that cannot be read or never matches.
    """
    match spec:
        case OnceSpec():
            return _once(spec, now, zone)
        case EverySpec():
            return _every(spec, now, zone)
        case WhenSpec():
            return resolve_when(spec)
        case CronSpec():
            schedule = Cron(expr=" ".join(spec.expr.split()), tz=spec.tz if spec.tz is not None else zone)
            try:
                split(spec.expr)  # the raw text: str.split() above would forgive exotic spaces
            except CronError as e:
                raise InvalidSchedule(f"cron expression: {e}", field="schedule.expr") from e
            calendar_of(schedule)
            return schedule
        case _:
            assert_never(spec)


def spec_of(schedule: Schedule) -> ScheduleSpec:
    """The spec that would make this schedule again."""
    return _SPECS.validate_python(schedule.model_dump(exclude_none=True))


def _once(spec: OnceSpec, now: datetime, zone: str) -> Once:
    if spec.in_ is not None and spec.at is None:
        return Once(at=whole_ms(spec.in_.after(now, checked_zone(zone))))
    if spec.at is None or spec.in_ is not None:
        raise InvalidSchedule("give exactly one of 'at' and 'in'", field="schedule")
    at = _in_utc(spec.at, "schedule.at")
    if at < now - PAST_TOLERANCE:
        ago = str(now.replace(microsecond=0) - at.replace(microsecond=0))
        raise InvalidSchedule(f"{spec.at.isoformat()} is in the past ({ago} ago)", field="schedule.at")
    _check_horizon(at, now, "schedule.at")
    return Once(at=at)


def _every(spec: EverySpec, now: datetime, zone: str) -> Every:
    if spec.every.total < MIN_INTERVAL:
        raise InvalidSchedule("the shortest interval is 1s", field="schedule.every")
    every = timedelta(milliseconds=spec.every.total // timedelta(milliseconds=1))
    start = whole_ms(now) if spec.start is None else _in_utc(spec.start, "schedule.start")
    _check_horizon(start, now, "schedule.start")
    # A day is one on the calendar; 1d12h, which no calendar counts, is elapsed time.
    tz = zone if spec.tz is None and spec.every.days and not spec.every.elapsed else spec.tz
    if tz is not None:
        checked_zone(tz)
        if every % DAY:
            raise InvalidSchedule(
                "a zone goes with whole days (every 1d, 14d); hours and minutes are elapsed time", field="schedule.tz"
            )
    return Every(every=every, start=start, tz=tz)


def _in_utc(at: datetime, field: str) -> datetime:
    try:
        return whole_ms(at)
    except OverflowError as e:
        raise InvalidSchedule(f"{at.isoformat()} is not a time that UTC can express", field=field) from e


def _check_horizon(at: datetime, now: datetime, field: str) -> None:
    if abs(at - now) > HORIZON:
        raise InvalidSchedule(f"{at.isoformat()} is more than a century away", field=field)


def next_after(schedule: Schedule, at: datetime) -> datetime | None:
    """The first slot strictly after ``at``, in UTC; None when there is none.

    Raises InvalidSchedule for a stored schedule that cannot be read any more (its zone was abolished).
    """
    match schedule:
        case Once():
            return schedule.at.astimezone(UTC) if schedule.at > at else None
        case Every():
            return _nth(schedule, _passed(schedule, at))
        case Cron():
            return calendar_of(schedule).after(at)
        case When():
            return None
        case _:
            assert_never(schedule)


def _passed(schedule: Every, at: datetime) -> int:
    """How many slots lie at or before ``at``. In UTC: within a zone Python subtracts wall clocks."""
    if schedule.tz is not None:
        return _wall_steps(schedule).passed(at)
    since = at.astimezone(UTC) - schedule.start.astimezone(UTC)
    return max(0, since // schedule.every + 1)


def _wall_steps(schedule: Every) -> WallSteps:
    return steps(schedule.start, schedule.every, checked_zone(schedule.tz or "UTC"))


def _nth(schedule: Every, index: int) -> datetime | None:
    if schedule.tz is not None:
        return _wall_steps(schedule).nth(index)
    try:
        return schedule.start.astimezone(UTC) + schedule.every * index
    except OverflowError:
        return None


def slots(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """All slots strictly after ``after``, ascending."""
    at: datetime | None = after
    while at is not None and (at := next_after(schedule, at)) is not None:
        yield at


def count(schedule: Schedule, after: datetime, upto: datetime) -> int:
    """How many slots lie in (after, upto]. Cheap however many there are."""
    if upto <= after:
        return 0
    match schedule:
        case Once():
            return int(after < schedule.at <= upto)
        case Every():
            return _passed(schedule, upto) - _passed(schedule, after)
        case Cron():
            return calendar_of(schedule).count(after, upto)
        case When():
            return 0
        case _:
            assert_never(schedule)


def last_slots(schedule: Schedule, after: datetime, upto: datetime, n: int) -> list[datetime]:
    """The last ``n`` (or fewer) slots in (after, upto], ascending. Cheap however many come before them."""
    start = after
    # By bisection on count(): walking would visit each of the millions before the last n.
    if count(schedule, after, upto) > n:
        low, high = 0, int((upto - after).total_seconds()) + 1  # more than n after low, none after high
        while high - low > 1:
            middle = (low + high) // 2
            if count(schedule, after + timedelta(seconds=middle), upto) > n:
                low = middle
            else:
                high = middle
        start = after + timedelta(seconds=low)
    out = []
    for slot in slots(schedule, start):
        if slot > upto:
            break
        out.append(slot)
    return out[-n:] if n else []


def slots_by_day(schedule: Schedule, bounds: tuple[datetime, ...]) -> tuple[tuple[int, datetime, int], ...]:
    """For each stretch from one of ``bounds`` to before the next one that has slots: its index, the first of them, and
    how many there are. Cheap however many there are.
    """
    out = []
    at = next_after(schedule, bounds[0] - _TICK)
    for index, (_, end) in enumerate(pairwise(bounds)):
        if at is None or at >= end:
            continue
        # Most have one a day: asking for the next one answers for this day and for the one after it.
        following = next_after(schedule, at)
        if following is None or following >= end:
            out.append((index, at, 1))
        else:
            out.append((index, at, 1 + count(schedule, at, end - _TICK)))
            following = next_after(schedule, end - _TICK)
        at = following
    return tuple(out)


def zone_of(schedule: Schedule, default: str) -> ZoneInfo:
    """The zone in which a schedule is shown: its own, else ``default``, else UTC."""
    own = schedule.tz if isinstance(schedule, (Cron, Every)) else None
    return zone_or_utc(own or default)


def preview(schedule: Schedule, *, n: int, after: datetime, zone: str) -> list[datetime]:
    """The next ``n`` slots strictly after ``after``, in the schedule's zone (``zone`` where it has none)."""
    own = zone_of(schedule, zone)
    return [slot.astimezone(own) for _, slot in zip(range(n), slots(schedule, after), strict=False)]


def shortest_gap(schedule: Schedule, *, now: datetime) -> timedelta | None:
    """The least time between two of its slots; None where there are no two. Cheap however many there are."""
    match schedule:
        case Every():
            return schedule.every
        case Cron():
            return _shortest_cron_gap(calendar_of(schedule), now)
        case _:
            return None


def _shortest_cron_gap(calendar: Calendar, now: datetime) -> timedelta:
    """By the times of day, and over midnight where two days in a row match in the coming year."""
    fields = calendar.fields
    first = timedelta(hours=fields.hours[0], minutes=fields.minutes[0], seconds=fields.seconds[0])
    last = timedelta(hours=fields.hours[-1], minutes=fields.minutes[-1], seconds=fields.seconds[-1])
    second_span = timedelta(seconds=fields.seconds[-1] - fields.seconds[0])
    minute_span = timedelta(minutes=fields.minutes[-1] - fields.minutes[0]) + second_span
    gaps = [timedelta(seconds=b - a) for a, b in pairwise(fields.seconds)]
    gaps += [timedelta(minutes=b - a) - second_span for a, b in pairwise(fields.minutes)]
    gaps += [timedelta(hours=b - a) - minute_span for a, b in pairwise(fields.hours)]
    over_night = DAY - last + first
    if not gaps or over_night < min(gaps):
        gaps.append(over_night + DAY * (_closest_days(calendar, now) - 1))
    return min(gaps)


def _closest_days(calendar: Calendar, now: datetime) -> int:
    """The least number of days between two days that match, in this year and the next."""
    days = [
        date(year, month, day).toordinal()
        for year in (now.year, now.year + 1)
        for month in range(1, 13)
        for day in calendar.fields.days(year, month)
    ]
    return min((b - a for a, b in pairwise(days)), default=366)


_SPANS = (("seconds", 60, "minute"), ("minutes", 60, "hour"), ("hours", 24, "day"))


def warnings(schedule: Schedule, *, now: datetime) -> list[str]:
    """Sentences about a valid schedule that may not be what was meant. Empty for most."""
    if isinstance(schedule, When):
        return ["it has no times of its own: it fires when that happens, and only while it is watched"]
    if not isinstance(schedule, Cron):
        return []
    calendar = calendar_of(schedule)
    texts = calendar.fields.texts
    padded = texts if len(texts) == 6 else ("0", *texts)
    out = [w for text, span in zip(padded, _SPANS, strict=False) for w in _step_warnings(text, *span)]
    if len(texts) == 6:
        out.append("six fields: the first one is seconds")
    if not any(text.startswith("*") for text in (padded[3], padded[5])):
        out.append("day of month and day of week are both given: it fires when either matches")
    elif padded[3] != "*" and padded[5] != "*":
        out.append("day of month and day of week are both given, one with *: it fires only when both match")
    skipped = [d for d in ("29", "30", "31") if padded[3] == d and padded[5] == "*"]
    out += [f"months without a day {d} are skipped" for d in skipped]
    following = calendar.after(now)
    if following is not None and following - now > timedelta(days=367):
        out.append(f"it fires rarely: not before {following.astimezone(calendar.zone).date().isoformat()}")
    return out + _clock_warnings(calendar, now)


def _step_warnings(text: str, unit: str, size: int, of: str) -> Iterator[str]:
    match = re.fullmatch(r"\*/(\d+)", text, re.ASCII)
    if match is None:
        return
    step = int(match[1])
    if step >= size:
        yield f"a step of {step} {unit} is longer than the {of}: it means once per {of}, at {unit} 0"
    elif size % step:
        yield f"a step of {step} {unit} starts anew every {of}, so the last interval is shorter"


def _clock_warnings(calendar: Calendar, now: datetime) -> list[str]:
    """Where a clock change of the coming year moves a fixed-time schedule."""
    if not calendar.fields.fixed_time:
        return []
    out = []
    for change in changes(calendar.zone, now, now + timedelta(days=366)):
        old, new = (offset_at(calendar.zone, at) for at in (change - timedelta(seconds=1), change))
        start, end = ((change + offset).replace(tzinfo=None) for offset in sorted((old, new)))
        if not calendar.fields.count(start - _TICK, end - _TICK):
            continue
        day = start.date().isoformat()
        if new > old:
            out.append(f"on {day} the clocks skip that time: it fires at {end:%H:%M} instead")
        else:
            out.append(f"on {day} the clocks pass that time twice: it fires the first time only")
    return out
