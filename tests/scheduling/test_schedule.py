"""Schedules: resolving, next, preview, warnings; against the shared vectors, brute force, cronsim and croniter."""

from __future__ import annotations

import csv
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterError, croniter
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from navi_jupyter.errors import InvalidSchedule
from navi_jupyter.model.recalls import Cron, CronSpec, Every, EverySpec, Once, OnceSpec
from navi_jupyter.scheduling.cron import ALIASES, CronError, compiled
from navi_jupyter.scheduling.schedules import calendar_of, count, last_slots, next_after, preview, resolve, warnings

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
EXAMPLES = int(os.environ.get("NAVI_CRON_EXAMPLES", "300"))
"""Random expressions that other libraries are asked about; 10000 is the long form."""
VECTORS = list(csv.DictReader((Path(__file__).parent / "cron.csv").open(newline="")))
# Changes of the clocks: one hour and half an hour, at midnight, before midnight, negative DST, a double one, none.
CHANGES = [
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Dublin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("Asia/Beirut", datetime(2026, 3, 28, 22, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 10, 29, 21, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("Africa/Casablanca", datetime(2026, 2, 15, 2, tzinfo=UTC)),
    ("Asia/Kathmandu", datetime(2026, 3, 8, tzinfo=UTC)),
]
EXPRESSIONS = [
    "30 2 * * *", "0 2 * * *", "30 1 * * *", "0 0 * * *", "0 2,3 * * *", "0,30 1 * * *", "15 1-3 * * *", "30 23 * * *",
    "*/30 * * * *", "0 */2 * * *", "* * * * *", "30 * * * *", "*/15 1 * * *", "*/30 1 1 11 *", "30 1 1 11 *",
    "0 30 1 * * *", "*/20 * 2 * * *", "59 23 L * *", "0-59 1-2 * * *",
]  # fmt: skip


def cron(expr: str, tz: str = "UTC") -> Cron:
    schedule = resolve(CronSpec(kind="cron", expr=expr, tz=tz), now=NOW, zone="UTC")
    assert isinstance(schedule, Cron)
    return schedule


def brute_force(expr: str, zone: ZoneInfo, low: datetime, high: datetime) -> list[datetime]:
    """S within (low, high], straight from the definition: every wall minute (or second) of the days around."""
    fields = compiled(expr)
    step = timedelta(seconds=1 if len(fields.texts) == 6 else 60)
    found: set[datetime] = set()
    wall = (low - timedelta(days=1)).replace(tzinfo=None, second=0, microsecond=0)
    while wall <= (high + timedelta(days=1)).replace(tzinfo=None):
        matches = (
            wall.second in fields.seconds
            and wall.minute in fields.minutes
            and wall.hour in fields.hours
            and wall.day in fields.days(wall.year, wall.month)
        )
        if matches:
            copies = {wall.replace(tzinfo=zone, fold=f).astimezone(UTC) for f in (0, 1)}
            real = sorted(t for t in copies if t.astimezone(zone).replace(tzinfo=None, fold=0) == wall)
            if not fields.fixed_time:
                found.update(real)
            elif real:
                found.add(real[0])
            else:
                found.add(end_of_gap(zone, min(copies)))
        wall += step
    return sorted(t for t in found if low < t <= high)


def end_of_gap(zone: ZoneInfo, before: datetime) -> datetime:
    at, offset = before, before.astimezone(zone).utcoffset()
    while at.astimezone(zone).utcoffset() == offset:
        at += timedelta(seconds=60)
    return at.replace(second=0)


@pytest.mark.parametrize("row", VECTORS, ids=[f"{i}-{r['expr']}-{r['tz']}" for i, r in enumerate(VECTORS)])
def test_a_shared_vector_is_answered_exactly(row: dict[str, str]) -> None:
    base = datetime.fromisoformat(row["base"])
    spec = CronSpec(kind="cron", expr=row["expr"], tz=row["tz"])
    if row["next5"] in ("INVALID", "NEVER"):
        with pytest.raises(InvalidSchedule) as caught:
            resolve(spec, now=base, zone="UTC")
        assert caught.value.field == "schedule.expr"
        return
    times = preview(resolve(spec, now=base, zone="UTC"), n=5, after=base, zone="UTC")
    assert " ".join(at.isoformat() for at in times) == row["next5"]


@pytest.mark.parametrize(("tz", "change"), CHANGES)
@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_next_is_the_smallest_element_of_the_set_after_any_base_near_a_clock_change(
    expr: str, tz: str, change: datetime
) -> None:
    zone = ZoneInfo(tz)
    low, high = change - timedelta(hours=5), change + timedelta(hours=6)
    expected = brute_force(expr, zone, low, high + timedelta(hours=30))
    schedule = cron(expr, tz)
    base = low
    while base < high:
        following = [t for t in expected if t > base]
        if following:
            assert next_after(schedule, base) == following[0], base
        else:
            found = next_after(schedule, base)
            assert found is not None
            assert found > high
        upto = base + timedelta(hours=7, minutes=13)
        assert count(schedule, base, upto) == len([t for t in expected if base < t <= upto]), base
        base += timedelta(minutes=5, seconds=0 if len(expr.split()) == 5 else 7)


fields = st.tuples(
    st.sampled_from(["*", "0", "30", "*/15", "0-10/5", "59", "7,37"]),
    st.sampled_from(["*", "0", "2", "*/6", "9-17", "1,2,3", "23"]),
    st.sampled_from(["*", "1", "15", "31", "*/10", "28-31", "L", "LW"]),
    st.sampled_from(["*", "1", "2", "*/3", "FEB,nov", "6-8"]),
    st.sampled_from(["*", "1-5", "0", "7", "sun", "mon,FRI", "5#3", "5L", "*/2"]),
)


@given(fields=fields, day=st.integers(0, 3000), second=st.integers(0, 86399))
@settings(max_examples=EXAMPLES, deadline=None)
@pytest.mark.timeout(120 + EXAMPLES / 4)
def test_cronsim_agrees_in_utc(fields: tuple[str, ...], day: int, second: int) -> None:
    expr = " ".join(fields)
    base = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day, seconds=second)
    try:
        schedule = cron(expr)
    except InvalidSchedule:
        with pytest.raises(Exception):  # noqa: B017, PT011 - CronSimError or StopIteration
            next(CronSim(expr, base))
        return
    oracle = CronSim(expr, base)
    assert preview(schedule, n=3, after=base, zone="UTC") == [next(oracle) for _ in range(3)]


plain_fields = st.tuples(
    st.sampled_from(["*", "0", "30", "*/15", "0-10/5", "59", "7,37", "5/20"]),
    st.sampled_from(["*", "0", "2", "*/6", "9-17", "1,2,3", "23"]),
    st.sampled_from(["*", "1", "15", "31", "*/10", "28-31", "L", "15W", "1W"]),
    st.sampled_from(["*", "1", "2", "*/3", "FEB,nov", "6-8"]),
    st.sampled_from(["*", "1-5", "0", "sun", "mon,FRI", "5#3"]),
)


@given(fields=plain_fields, day=st.integers(0, 3000), second=st.integers(0, 86399))
@settings(max_examples=EXAMPLES, deadline=None)
@pytest.mark.timeout(120 + EXAMPLES / 4)
def test_croniter_agrees_in_utc(fields: tuple[str, ...], day: int, second: int) -> None:
    # croniter cannot combine these with a day of the other kind.
    assume(fields[4] == "*" or not ({"L", "15W", "1W"} & {fields[2]}))
    assume(fields[2] == "*" or "#" not in fields[4])
    expr = " ".join(fields)
    base = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day, seconds=second)
    try:
        schedule = cron(expr)
    except InvalidSchedule:
        with pytest.raises(CroniterError):
            croniter(expr, base).get_next(datetime)
        return
    oracle = croniter(expr, base, implement_cron_bug=True)  # day AND weekday when one starts with a star
    assert preview(schedule, n=3, after=base, zone="UTC") == [oracle.get_next(datetime) for _ in range(3)]


@given(fields=fields, day=st.integers(0, 3000), span=st.integers(0, 400 * 86400))
@settings(max_examples=200, deadline=None)
def test_count_equals_walking(fields: tuple[str, ...], day: int, span: int) -> None:
    try:
        schedule = cron(" ".join(fields), "Europe/Berlin")
    except InvalidSchedule:
        assume(False)
    after = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day)
    upto = after + timedelta(seconds=span)
    walked, at = [], next_after(schedule, after)
    while at is not None and at <= upto and len(walked) < 2000:
        walked.append(at)
        at = next_after(schedule, at)
    if len(walked) < 2000:
        assert count(schedule, after, upto) == len(walked)
        assert last_slots(schedule, after, upto, 7) == walked[-7:]


@given(every=st.integers(1000, 10**9), age=st.integers(0, 10**11), ahead=st.integers(0, 10**6), n=st.integers(1, 5))
def test_an_interval_is_anchored_and_never_drifts(every: int, age: int, ahead: int, n: int) -> None:
    schedule = Every(every=timedelta(milliseconds=every), start=NOW)
    at = NOW + timedelta(milliseconds=age)
    first = next_after(schedule, at)
    assert first is not None
    assert first > at
    assert (first - NOW) % schedule.every == timedelta(0)
    assert first - at <= schedule.every
    upto = at + timedelta(milliseconds=ahead)
    assert len(last_slots(schedule, at, upto, n)) == min(n, count(schedule, at, upto))


def test_an_interval_without_start_fires_first_one_interval_after_creation() -> None:
    schedule = resolve(EverySpec.model_validate({"kind": "every", "every": "1h"}), now=NOW, zone="UTC")
    assert next_after(schedule, NOW) == NOW + timedelta(hours=1)


def test_an_interval_that_starts_in_the_future_fires_first_at_its_start() -> None:
    start = NOW + timedelta(days=2)
    schedule = resolve(EverySpec(kind="every", every=timedelta(hours=1), start=start), now=NOW, zone="UTC")
    assert preview(schedule, n=2, after=NOW, zone="UTC") == [start, start + timedelta(hours=1)]


def test_an_interval_keeps_its_elapsed_time_across_a_clock_change() -> None:
    start = datetime(2026, 3, 28, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    schedule = Every(every=timedelta(days=1), start=start)
    times = preview(schedule, n=3, after=start, zone="Europe/Berlin")
    assert [t.hour for t in times] == [13, 13, 13]
    assert times[-1].astimezone(UTC) == start.astimezone(UTC) + timedelta(days=3)


def test_a_time_relative_to_now_is_fixed_at_creation() -> None:
    spec = OnceSpec.model_validate({"kind": "once", "in": "10m"})
    assert resolve(spec, now=NOW, zone="UTC") == Once(at=NOW + timedelta(minutes=10))


def test_a_time_written_as_now_is_accepted_although_its_request_took_a_moment() -> None:
    spec = OnceSpec(kind="once", at=NOW - timedelta(seconds=1))
    assert resolve(spec, now=NOW, zone="UTC") == Once(at=NOW - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"kind": "once"}, "schedule"),
        ({"kind": "once", "at": "2026-11-23T00:00:00Z", "in": "1h"}, "schedule"),
        ({"kind": "once", "at": "2026-11-22T11:59:50Z"}, "schedule.at"),
        ({"kind": "once", "at": "2200-01-01T00:00:00Z"}, "schedule.at"),
        ({"kind": "once", "at": "9999-12-31T23:59:59-10:00"}, "schedule.at"),
        ({"kind": "once", "at": "0001-01-01T00:00:00+10:00"}, "schedule.at"),
        ({"kind": "every", "every": "500ms"}, "schedule.every"),
        ({"kind": "every", "every": "1h", "start": "3000-01-01T00:00:00Z"}, "schedule.start"),
        ({"kind": "cron", "expr": "0 9 * * *", "tz": "Mars/Olympus"}, "schedule.tz"),
        ({"kind": "cron", "expr": "0 9 * * *", "tz": "../../etc/passwd"}, "schedule.tz"),
        ({"kind": "cron", "expr": "0 9 * * *", "tz": ""}, "schedule.tz"),
        ({"kind": "cron", "expr": ""}, "schedule.expr"),
        ({"kind": "cron", "expr": "* * * *"}, "schedule.expr"),
        ({"kind": "cron", "expr": "0 0 0 1 1 * 2030"}, "schedule.expr"),
        ({"kind": "cron", "expr": "R * * * *"}, "schedule.expr"),
        ({"kind": "cron", "expr": "H * * * *"}, "schedule.expr"),
        ({"kind": "cron", "expr": "10-5 * * * *"}, "schedule.expr"),
        ({"kind": "cron", "expr": "0 9 * *\u00a0*"}, "schedule.expr"),
        ({"kind": "cron", "expr": "٣ 9 * * *"}, "schedule.expr"),
        ({"kind": "cron", "expr": "0 0 31 2 *"}, "schedule.expr"),
        ({"kind": "cron", "expr": "@reboot"}, "schedule.expr"),
        ({"kind": "cron", "expr": "@every 5m"}, "schedule.expr"),
    ],
)
def test_what_can_not_be_is_refused_and_the_field_is_named(spec: dict[str, str], field: str) -> None:
    kind = {"once": OnceSpec, "every": EverySpec, "cron": CronSpec}[spec["kind"]]
    with pytest.raises(InvalidSchedule) as caught:
        resolve(kind.model_validate(spec), now=NOW, zone="UTC")  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(
    "expr", ["1" * 10**6, "0-99999999 " * 5, "*,*," * 64 + "* * * * *", "\u00a0" * 100, "1," * 127 + "1"]
)
def test_hostile_expressions_are_refused_in_no_time(expr: str) -> None:
    started = time.thread_time()
    with pytest.raises(CronError):
        compiled.__wrapped__(expr)
    assert time.thread_time() - started < 0.02


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_a_name_means_the_expression_it_stands_for(alias: str) -> None:
    assert preview(cron(alias), n=5, after=NOW, zone="UTC") == preview(cron(ALIASES[alias]), n=5, after=NOW, zone="UTC")


def test_a_five_and_a_six_field_expression_differ_in_seconds_first() -> None:
    assert next_after(cron("30 0 12 * * *"), NOW) == NOW + timedelta(seconds=30)


def test_a_zone_is_the_users_when_none_is_written() -> None:
    schedule = resolve(CronSpec(kind="cron", expr="0 9 * * *"), now=NOW, zone="Asia/Tokyo")
    assert schedule == Cron(expr="0 9 * * *", tz="Asia/Tokyo")
    assert next_after(schedule, NOW) == datetime(2026, 11, 23, 0, tzinfo=UTC)


def test_a_preview_is_in_the_zone_of_the_schedule() -> None:
    first = preview(cron("0 9 * * 1-5", "Europe/Berlin"), n=1, after=NOW, zone="UTC")[0]
    assert first.isoformat() == "2026-11-23T09:00:00+01:00"


def test_thirty_days_of_seconds_are_counted_in_no_time() -> None:
    upto = NOW + timedelta(days=30)
    for schedule in (Every(every=timedelta(seconds=1), start=NOW), cron("* * * * * *", "Europe/Berlin")):
        calendar_of.cache_clear()
        started = time.thread_time()
        assert count(schedule, NOW, upto) == 30 * 86400
        assert last_slots(schedule, NOW, upto, 3)[-1] == upto
        assert time.thread_time() - started < 0.05


@pytest.mark.parametrize(
    ("expr", "word"),
    [
        ("*/90 * * * *", "once per hour"),
        ("*/7 * * * *", "starts anew every hour"),
        ("0 0 13 * 5", "either matches"),
        ("0 0 31 * *", "without a day 31"),
        ("0 0 9 * * *", "seconds"),
        ("30 2 * * *", "skip that time: it fires at 03:00"),
        ("30 2 * * *", "twice"),
    ],
)
def test_a_valid_schedule_that_may_surprise_comes_with_a_warning(expr: str, word: str) -> None:
    assert any(word in warning for warning in warnings(cron(expr, "Europe/Berlin"), now=NOW))


def test_an_ordinary_schedule_comes_without_warnings() -> None:
    assert warnings(cron("0 9 * * 1-5", "Europe/Berlin"), now=NOW) == []
    assert warnings(Once(at=NOW), now=NOW) == []
