"""Recalls over all sessions: today's firings, what comes next, and the days around today in the reader's zone.

Not responsible for when anything fires (``scheduling``), nor for one recall or its ledger (``recalls``).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from ...clock import now
from ...errors import InvalidSchedule
from ...model.recalls import FiringStatus, Recall
from ...ports.recall_overview import OpenRecall, OverviewEntry, OverviewRows
from ...scheduling.schedules import checked_zone, slots_by_day
from ...timetext.format import say
from ..http import HttpReply, Query
from ..wire import recalls as wire
from .routing import Call, OperationTable, reply

TABLE = OperationTable()
PAST_DAYS = 7
COMING_DAYS = 14
PER_DAY = 50  # recalls of one day that are listed
LISTED = 100  # recalls that are not over, of those with a next time and of the others
IN_CALENDAR = 500  # recalls of which the times of the coming days are worked out, the soonest first
_NEEDS_YOU = (FiringStatus.FAILED, FiringStatus.MISSED, FiringStatus.EXPIRED)
_TICK = timedelta(microseconds=1)
_later_days = lru_cache(maxsize=4096)(slots_by_day)
"""Those after today are the same each time that somebody asks, and many recalls have the same schedule."""


@TABLE.add(
    "GET recalls/overview",
    "read",
    answers="RecallsOverview",
    query=(
        Query(name="tz", default="UTC", help="The zone whose days are meant, as an IANA name."),
        Query(name="brief", choices=("true", "false"), help="`true`: today's firings and the next one alone."),
    ),
    errors=(InvalidSchedule,),
)
async def recalls_overview(call: Call) -> HttpReply:
    """Your recalls over all sessions: what ran today, what needs you, what comes next, and the coming two weeks."""
    at, zone = now(), call.string("tz") or "UTC"
    is_brief = call.string("brief") == "true"
    tz = checked_zone(zone)
    today = at.astimezone(tz).date()
    back = 1 if is_brief else PAST_DAYS
    past = midnights(tz, today - timedelta(days=back - 1), back)
    rows = await call.recalls.service.queries.overview(
        call.owner,
        days=list(pairwise(past))[::-1],
        coming=1 if is_brief else IN_CALENDAR + 1,
        waiting=0 if is_brief else LISTED,
        per_day=PER_DAY,
    )
    listed = [] if is_brief else [*rows.coming[:LISTED], *rows.waiting]
    results = await call.recalls.results.of_runs([] if is_brief else _runs(rows))
    coming: Sequence[wire.CalendarDay] = ()
    if not is_brief:
        coming = await asyncio.to_thread(calendar, rows.coming[:IN_CALENDAR], at, tz)
    return reply(
        wire.RecallsOverview(
            now=at.astimezone(tz),
            timezone=zone,
            open=rows.open,
            paused=rows.paused,
            next=_next(rows.coming),
            needs=tuple(_firing(entry, results) for entry in _needs(rows)),
            active=tuple(_firing(entry, results) for entry in rows.active),
            past=tuple(
                _day(today - timedelta(days=index), entries, results) for index, entries in enumerate(rows.days)
            ),
            recalls=tuple(each.recall for each in listed),
            words={each.recall.id: say(each.recall.schedule, reader=zone) for each in listed},
            sessions={each.recall.session_id: each.session_title or "" for each in listed},
            coming=tuple(coming),
            complete=len(rows.coming) <= IN_CALENDAR,
        )
    )


def midnights(tz: ZoneInfo, first: date, days: int) -> list[datetime]:
    """The instants in UTC at which these days begin, and the one at which the last of them ends.

    Where the clocks skip midnight a day begins at the instant of the change; where they pass it twice, at the first.
    """
    return [datetime.combine(first + timedelta(days=n), time(), tz).astimezone(UTC) for n in range(days + 1)]


def calendar(coming: Sequence[OpenRecall], at: datetime, tz: ZoneInfo) -> list[wire.CalendarDay]:
    """The coming two weeks from ``at`` on, day by day. Works out many times: to be called in a thread."""
    today = at.astimezone(tz).date()
    bounds = midnights(tz, today, COMING_DAYS)
    days: dict[int, list[wire.ComingTimes]] = defaultdict(list)
    for each in coming:
        for day, first, count in _times(each.recall, at, bounds):
            days[day].append(_coming(each, first.astimezone(tz), count))
    out = []
    for day in range(COMING_DAYS):
        found = sorted(days[day], key=lambda one: one.at)
        out.append(
            wire.CalendarDay(
                date=(today + timedelta(days=day)).isoformat(),
                count=sum(one.times for one in found),
                more=max(0, len(found) - PER_DAY),
                coming=tuple(found[:PER_DAY]),
            )
        )
    return out


def _times(recall: Recall, at: datetime, bounds: Sequence[datetime]) -> list[tuple[int, datetime, int]]:
    """By the index of the day: the first time of the recall on it and how many there are, as far as it may fire."""
    policy = recall.policy
    left = None if policy.max_fires is None else max(0, policy.max_fires - recall.fired)
    if policy.until is not None:
        bounds = [min(bound, policy.until + _TICK) for bound in bounds]
    try:
        found = [(0, first, n) for _, first, n in slots_by_day(recall.schedule, (at + _TICK, bounds[1]))]
        found += [(1 + day, first, n) for day, first, n in _later_days(recall.schedule, tuple(bounds[1:]))]
    except InvalidSchedule:  # a stored one that cannot be read any more: its ledger says so
        return []
    out = []
    for day, first, n in found:
        n = n if left is None else min(n, left)
        left = None if left is None else left - n
        if n:
            out.append((day, first, n))
    return out


def _coming(each: OpenRecall, at: datetime, times: int) -> wire.ComingTimes:
    recall = each.recall
    return wire.ComingTimes(
        recall_id=recall.id,
        title=recall.title,
        session_id=recall.session_id,
        session_title=each.session_title,
        at=at,
        times=times,
    )


def _next(coming: Sequence[OpenRecall]) -> wire.ComingTimes | None:
    """The soonest time of all; one that is due already comes before those that are not."""
    soonest = next((each for each in coming if each.recall.next_at is not None), None)
    if soonest is None or soonest.recall.next_at is None:
        return None
    return _coming(soonest, soonest.recall.next_at, 1)


def _runs(rows: OverviewRows) -> list[str]:
    entries = [*rows.active, *(entry for day in rows.days for entry in day)]
    return [entry.firing.run_id for entry in entries if entry.firing.run_id is not None]


def _needs(rows: OverviewRows) -> list[OverviewEntry]:
    """What waits for an answer, and the recalls whose last firing did not go well and was not seen yet."""
    asking = [entry for entry in rows.active if entry.asks]
    known = {entry.firing.recall_id for entry in rows.active}
    for day in rows.days:
        for entry in day:
            if entry.firing.recall_id not in known and entry.firing.status in _NEEDS_YOU and _is_unseen(entry):
                asking.append(entry)
            known.add(entry.firing.recall_id)
    return asking


def _is_unseen(entry: OverviewEntry) -> bool:
    ended = entry.firing.ended_at
    return ended is not None and (entry.read_at is None or ended > entry.read_at)


def _firing(entry: OverviewEntry, results: Mapping[str, str]) -> wire.OverviewFiring:
    return wire.OverviewFiring(
        firing=entry.firing,
        title=entry.title,
        session_id=entry.session_id,
        session_title=entry.session_title,
        unseen=_is_unseen(entry),
        asks=entry.asks,
        ran=entry.ran,
        failed=entry.failed,
        missed=entry.missed,
        result=results.get(entry.firing.run_id or ""),
    )


def _day(day: date, entries: Sequence[OverviewEntry], results: Mapping[str, str]) -> wire.OverviewDay:
    return wire.OverviewDay(
        date=day.isoformat(),
        ran=sum(entry.ran for entry in entries),
        failed=sum(entry.failed for entry in entries),
        missed=sum(entry.missed for entry in entries),
        firings=tuple(_firing(entry, results) for entry in entries),
    )
