"""Recalls over all sessions: what ended on a day, what is on its way, what comes; and what that costs."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from navi_jupyter.model.recalls import Cron, Every, Once, Policy, Recall, RecallCreate, RecallStatus, When, WhenEvent
from navi_jupyter.model.sessions import RunStatus
from navi_jupyter.ports.recall_overview import OpenRecall
from navi_jupyter.scheduling.schedules import slots, slots_by_day
from navi_jupyter.server.rest.overview import calendar, midnights
from navi_jupyter.store.recalls import ACTIVE, COMING, ENDED_ON, WAITING
from tests.support.database import on_sqlite
from tests.support.scheduler_world import OWNER, START, World, world

if TYPE_CHECKING:
    from pathlib import Path

    from navi_jupyter.ports.recall_overview import OverviewRows

BERLIN = ZoneInfo("Europe/Berlin")
IN_AN_HOUR = {"kind": "once", "in": "1h"}


async def overview(w: World, owner: str = OWNER, **most: int) -> OverviewRows:
    """Today and the six days before it, in UTC."""
    today = w.clock.now().replace(hour=0)
    days = [(today - timedelta(days=n), today - timedelta(days=n - 1)) for n in range(7)]
    return await w.service.queries.overview(owner, days=days, **({"coming": 500, "waiting": 100, "per_day": 50} | most))


async def run(w: World, session: str, status: RunStatus = RunStatus.COMPLETED, **fields: Any) -> Recall:
    """A one-time recall that has had its run."""
    scheduler = w.scheduler()
    recall = await w.recall(session, {"kind": "once", "in": "1s"}, **fields)
    w.clock.advance(timedelta(seconds=2))
    await w.step(scheduler)
    await w.finish(scheduler, session, status, None if status is RunStatus.COMPLETED else "boom")
    return recall


async def test_what_ended_today_is_counted_over_all_sessions_and_the_last_of_each_recall_is_shown(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        one, two = await w.add_session(), await w.add_session()
        good = await run(w, one, title="good")
        bad = await run(w, two, RunStatus.FAILED, title="bad")
        rows = await overview(w)
        today, yesterday, *_ = rows.days
        assert [(e.title, e.session_id, e.session_title, e.firing.status.value) for e in today] == [
            ("bad", two, "t", "failed"),
            ("good", one, "t", "succeeded"),
        ]
        assert [(e.ran, e.failed, e.missed) for e in today] == [(0, 1, 0), (1, 0, 0)]
        assert [e.firing.recall_id for e in today] == [bad.id, good.id]
        assert yesterday == []
        w.clock.advance(timedelta(days=1))
        after = await overview(w)
        assert [len(day) for day in after.days] == [0, 2, 0, 0, 0, 0, 0]


async def test_a_recall_that_ran_many_times_on_a_day_is_one_entry_with_its_counts(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        scheduler = w.scheduler()
        await w.recall(session, {"kind": "every", "every": "1m"})
        for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.COMPLETED):
            w.clock.advance(timedelta(minutes=1))
            await w.step(scheduler)
            await w.finish(scheduler, session, status, None if status is RunStatus.COMPLETED else "boom")
        ((entry,), *_) = (await overview(w)).days
        assert (entry.ran, entry.failed, entry.firing.status) == (2, 1, "succeeded")
        assert entry.firing.slot == START + timedelta(minutes=3)


async def test_what_runs_is_active_and_what_waits_for_its_user_asks(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, busy = await w.add_session(), await w.add_session()
        scheduler = w.scheduler()
        await w.recall(session, {"kind": "once", "in": "1s"}, title="runs")
        await w.recall(busy, {"kind": "once", "in": "1s"}, title="first")
        await w.recall(busy, {"kind": "once", "in": "2s"}, title="deferred")
        await w.recall(session, IN_AN_HOUR, title="not yet")
        w.clock.advance(timedelta(seconds=3))
        await w.step(scheduler)
        rows = await overview(w)
        assert [(e.title, e.asks) for e in rows.active] == [("runs", False), ("first", False), ("deferred", False)]
        await w.store.write(lambda tx: tx.change("UPDATE runs SET status = 'waiting' WHERE session_id = ?", (session,)))
        assert [e.title for e in (await overview(w)).active if e.asks] == ["runs"]


async def test_another_users_recalls_are_in_nothing_of_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mine, theirs = await w.add_session(), await w.add_session(owner="eve")
        await run(w, mine)
        await w.recall(mine, IN_AN_HOUR)
        await w.recall(mine, {"kind": "when", "when": "done"})
        request = RecallCreate.model_validate({"session_id": theirs, "message": "x", "schedule": IN_AN_HOUR})
        other = await w.service.create(request, owner="eve", zone="UTC")
        rows = await overview(w, "eve")
        assert (rows.open, rows.paused, rows.active, rows.waiting) == (1, 0, [], [])
        assert [each.recall.id for each in rows.coming] == [other.id]
        assert not any(rows.days)
        assert other.id not in {each.recall.id for each in (await overview(w)).coming}


async def test_the_soonest_come_first_and_what_has_no_next_time_is_apart(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        made = [await w.recall(session, {"kind": "once", "in": f"{n}h"}, title=f"{n}") for n in (3, 1, 2)]
        await w.recall(session, {"kind": "when", "when": "done"}, title="event")
        await w.service.pause(made[0].id, owner=OWNER)
        rows = await overview(w)
        assert [each.recall.title for each in rows.coming] == ["1", "2"]
        assert [each.recall.title for each in rows.waiting] == ["event", "3"]
        assert (rows.open, rows.paused) == (4, 1)
        assert [each.recall.title for each in (await overview(w, coming=1)).coming] == ["1"]


async def test_the_firings_of_a_deleted_session_stay_in_it_without_a_session_to_go_to(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        await run(w, session)
        await w.service.end_with_session(session, lambda tx: tx.change("DELETE FROM sessions WHERE id = ?", (session,)))
        ((entry,), *_) = (await overview(w)).days
        assert entry.session_title is None


@on_sqlite
async def test_the_overview_reads_by_indexes_and_not_every_recall_or_firing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        wanted = {
            ENDED_ON: (("firings_ended",), (0, 1, OWNER, 5)),
            ACTIVE: (("firings_held", "firings_pending"), (0, OWNER, 5)),
            COMING: (("recalls_due",), (OWNER, 5)),
            WAITING: (("recalls_open",), (OWNER, 5)),
        }
        for sql, (indexes, values) in wanted.items():
            plan = [row["detail"] for row in await w.store.fetch_all(f"EXPLAIN QUERY PLAN {sql}", values)]
            # A subquery's own rows, of which there are few, are scanned.
            whole = re.compile(r"SCAN (firings|recalls|[efor])$")
            assert not [step for step in plan if whole.match(step)], plan
            assert all(any(index in step for step in plan) for index in indexes), plan


# --- days

SCHEDULES = [
    Once(at=datetime(2026, 11, 24, 9, tzinfo=UTC)),
    Every(every=timedelta(hours=7), start=START),
    Every(every=timedelta(days=3), start=START, tz="Europe/Berlin"),
    Every(every=timedelta(seconds=30), start=START),
    Cron(expr="0 9 * * 1-5", tz="Europe/Berlin"),
    Cron(expr="30 2 * * *", tz="Europe/Berlin"),
    Cron(expr="*/20 22-23 * * *", tz="America/New_York"),
    When(event=WhenEvent.CELL_DONE),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("first", [date(2026, 11, 22), date(2026, 10, 24), date(2027, 3, 27)])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu", "America/Santiago"])
def test_slots_by_day_are_those_that_one_counts_one_by_one(schedule: Any, first: date, zone: str) -> None:
    bounds = tuple(midnights(ZoneInfo(zone), first, 4))
    counted: dict[int, list[datetime]] = {}
    for slot in slots(schedule, bounds[0] - timedelta(microseconds=1)):
        if slot >= bounds[-1]:
            break
        counted.setdefault(sum(bound <= slot for bound in bounds) - 1, []).append(slot)
    assert slots_by_day(schedule, bounds) == tuple((day, times[0], len(times)) for day, times in counted.items())


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("Europe/Berlin", date(2027, 3, 28), 23),
        ("America/Santiago", date(2026, 9, 6), 23),  # the clocks skip midnight
        ("Asia/Kathmandu", date(2026, 11, 22), 24),
    ],
)
def test_a_day_has_as_many_hours_as_its_clocks_show(zone: str, day: date, hours: int) -> None:
    start, end = midnights(ZoneInfo(zone), day, 1)
    assert end - start == timedelta(hours=hours)


def coming(schedule: Any, policy: Policy | None = None, **fields: Any) -> list[OpenRecall]:
    recall = Recall(
        id="rec_1", session_id="s_1", title="t", message="m", schedule=schedule, policy=policy or Policy(),
        status=RecallStatus.PENDING, next_at=START, created_at=START, **fields,
    )  # fmt: skip
    return [OpenRecall(recall=recall, session_title="s")]


def test_the_calendar_has_two_weeks_of_the_readers_days_from_now_on() -> None:
    at = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)  # Monday the 23rd, 00:30 in Berlin
    days = calendar(coming(Cron(expr="0 0 * * *", tz="UTC")), at, BERLIN)
    assert [day.date for day in days] == [f"2026-11-{n}" for n in range(23, 31)] + [
        f"2026-12-0{n}" for n in range(1, 7)
    ]
    assert [day.count for day in days] == [1] * 14
    assert days[0].coming[0].at.isoformat() == "2026-11-23T01:00:00+01:00"
    later = calendar(coming(Cron(expr="0 0 * * *", tz="UTC")), at + timedelta(hours=1), BERLIN)
    assert [day.count for day in later] == [0] + [1] * 13, "what is past today is not to come"


def test_the_calendar_ends_where_the_recall_does() -> None:
    daily = Cron(expr="0 9 * * *", tz="Europe/Berlin")
    until = calendar(coming(daily, Policy(until=START + timedelta(days=3))), START, BERLIN)
    assert [day.count for day in until][:5] == [0, 1, 1, 1, 0]
    hourly = Every(every=timedelta(hours=1), start=START)
    few = calendar(coming(hourly, Policy(max_fires=14), fired=2), START, BERLIN)
    assert [day.count for day in few][:3] == [10, 2, 0], "13:00 to 22:59 in UTC is the rest of this day in Berlin"


def test_a_day_with_many_recalls_lists_some_and_counts_all() -> None:
    (one,) = coming(Once(at=START + timedelta(hours=1)))
    (day, *_) = calendar([one] * 120, START, BERLIN)
    assert (day.count, day.more, len(day.coming)) == (120, 70, 50)
