"""Many recalls at once: pause and resume all, copies, TOML out and in; and whole days on the wall clock."""

from __future__ import annotations

import tomllib
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navi_jupyter.errors import InvalidRequest, InvalidSchedule, LimitReached, RecallNotFound, SessionNotFound
from navi_jupyter.model.recalls import Every, EverySpec, RecallPatch, RecallStatus
from navi_jupyter.scheduling.bulk import read_recalls, write_recalls
from navi_jupyter.scheduling.schedules import count, last_slots, next_after, preview, resolve
from navi_jupyter.scheduling.service import RecallService
from tests.support.scheduler_world import OWNER, START, world

if TYPE_CHECKING:
    from pathlib import Path

HOURLY = {"kind": "every", "every": "1h"}
BERLIN = ZoneInfo("Europe/Berlin")


def patch(**fields: Any) -> RecallPatch:
    return RecallPatch.model_validate(fields)


# --- all of them -----------------------------------------------------------------------------------------------------


async def test_all_of_a_user_are_paused_and_resumed_in_one_go(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one, two = await w.add_session(), await w.add_session()
        mine = [await w.recall(one, HOURLY), await w.recall(two, HOURLY), await w.recall(two, HOURLY)]
        await w.service.pause(mine[0].id, owner=OWNER)
        over = await w.recall(one, HOURLY)
        await w.service.cancel(over.id, owner=OWNER)
        assert await w.service.bulk.pause_all(owner="eve") == 0
        assert await w.service.bulk.pause_all(owner=OWNER) == 2
        assert await w.service.bulk.pause_all(owner=OWNER) == 0
        assert {(await w.get(r)).status for r in mine} == {RecallStatus.PAUSED}
        assert await w.service.bulk.resume_all(owner=OWNER, session_id=two) == 2
        assert [(await w.get(r)).status for r in mine] == ["paused", "pending", "pending"]
        assert (await w.get(mine[1])).next_at == START + timedelta(hours=1)
        assert await w.service.bulk.resume_all(owner=OWNER) == 1
        assert (await w.get(over)).status == "cancelled"
        assert [action for action, _ in await w.said(two)] == ["created"] * 2 + ["paused"] * 2 + ["resumed"] * 2


async def test_pausing_all_while_one_runs_lets_it_run_and_starts_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, HOURLY)
        w.clock.advance(timedelta(hours=1))
        await w.step(scheduler)
        assert await w.service.bulk.pause_all(owner=OWNER) == 1
        await w.finish(scheduler, session)
        assert (await w.get(recall)).status == "paused"
        w.clock.advance(timedelta(hours=3))
        assert await w.step(scheduler) == 0


# --- copies ----------------------------------------------------------------------------------------------------------


async def test_a_copy_has_what_the_first_one_has_but_what_is_given(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        first = await w.recall(session, HOURLY, {"retries": 2}, title="loss")
        await w.service.cancel(first.id, owner=OWNER)
        copy = await w.service.clone(first.id, patch(), owner=OWNER)
        assert copy.id != first.id
        assert (copy.title, copy.message, copy.policy.retries, copy.status) == ("loss", first.message, 2, "pending")
        other = await w.service.clone(copy.id, patch(message="the gradient", policy={"retries": 1}), owner=OWNER)
        assert (other.title, other.message, other.policy.retries) == ("the gradient", "the gradient", 1)
        with pytest.raises(RecallNotFound):
            await w.service.clone(first.id, patch(), owner="eve")


async def test_a_copy_of_a_time_that_is_past_needs_a_new_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1m"})
        w.clock.advance(timedelta(hours=1))
        with pytest.raises(InvalidSchedule, match="in the past"):
            await w.service.clone(recall.id, patch(), owner=OWNER)
        copy = await w.service.clone(recall.id, patch(schedule={"kind": "once", "in": "1m"}), owner=OWNER)
        assert copy.next_at == START + timedelta(minutes=61)


# --- TOML ------------------------------------------------------------------------------------------------------------

SCHEDULES: list[dict[str, Any]] = [
    {"kind": "once", "at": "2027-01-01T09:00:00+01:00"},
    HOURLY,
    {"kind": "every", "every": "14d", "start": "2026-11-27T16:00:00+01:00", "tz": "Europe/Berlin"},
    {"kind": "cron", "expr": "0 9 * * 1#1", "tz": "Europe/Berlin"},
    {
        "kind": "when",
        "event": "expression",
        "expr": 'name == "x\\y"',
        "every": "30s",
        "repeat": "each",
        "cooldown": "1h",
    },
    {"kind": "when", "when": "changed data/*.csv"},
    {"kind": "when", "when": "failed", "repeat": "each", "cooldown": "1h"},
    {"kind": "when", "when": "idle for 5m"},
]


async def test_what_is_exported_comes_back_the_same(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, other = await w.add_session(), await w.add_session()
        policy = {
            "retries": 3,
            "grace": "1h",
            "until": "2028-01-01T00:00:00+00:00",
            "cancel_on": ["read"],
            "quiet": "22:00-07:00",
        }
        made = [
            await w.recall(session, one, policy, title=f'"q" {n}', message="a\n\tb \x01 ü\\n")
            for n, one in enumerate(SCHEDULES)
        ]
        await w.service.pause(made[1].id, owner=OWNER)
        text = await w.service.bulk.export(owner=OWNER)
        back = await w.service.bulk.take_in(text, owner=OWNER, session_id=other)
        for old, new in zip(made, back, strict=True):
            assert (new.title, new.message, new.schedule, new.policy, new.session_id) == (
                old.title, old.message, old.schedule, old.policy, other,
            )  # fmt: skip
        assert [recall.status for recall in back].count(RecallStatus.PAUSED) == 1
        assert (await w.get(back[1])).status == "paused"
        assert await w.service.bulk.export(owner="eve") == text.splitlines()[0] + "\n\n"


@settings(max_examples=100)
@given(message=st.text(min_size=1).filter(lambda text: text.strip() and "\x00" not in text and text.isprintable()))
def test_every_message_survives_being_written(message: str) -> None:
    from navi_jupyter.model.recalls import Policy, Recall

    recall = Recall(
        id="rec_1",
        session_id="s_1",
        title="t",
        message=message,
        schedule=Every(every=timedelta(hours=1), start=START),
        policy=Policy(),
        status=RecallStatus.PENDING,
        next_at=None,
        created_at=START,
    )
    (entry,) = read_recalls(write_recalls([recall], START))
    assert entry.request.message == message.strip()


GOOD = '[[recall]]\nsession = "S"\ntitle = "ok"\nmessage = "m"\nschedule = {kind = "every", every = "1h"}\n'


@pytest.mark.parametrize(
    ("text", "says", "field"),
    [
        ("x = ", "not TOML: Invalid value (at end of document)", "toml"),
        ("[[recall]\n", "line 1", "toml"),
        ("[recalls]\n", "[[recall]] tables", "toml"),
        ("", "[[recall]] tables", "toml"),
        ("recall = 3", "[[recall]] tables", "toml"),
        (f"x = {'9' * 5000}", "not TOML: Exceeds the limit", "toml"),
        (f"{'.'.join('a' * 20_000)} = 1", "no more than three parts", "toml"),
        (
            GOOD + GOOD.replace('"1h"', '"soon"').replace("ok", "bad"),
            "recall 2 (“bad”), line 10: schedule.every: not a",
            "recall.1.schedule.every",
        ),
        (GOOD + "[recall.policy]\nbusy = 'wait'\n", "recall 1 (“ok”), line 7: policy.busy", "recall.0.policy.busy"),
        (GOOD + "colour = 1\n", "recall 1 (“ok”), line 6: there is no 'colour'", "recall.0.colour"),
        (GOOD + "paused = 1\n", "line 6: paused is true or false", "recall.0.paused"),
        (GOOD.replace('session = "S"\n', ""), "recall 1 (“ok”), line 1: it has no session", "recall.0.session"),
        ("\n\n" + GOOD.replace('message = "m"\n', ""), "recall 1 (“ok”), line 3: message", "recall.0.message"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_told_with_recall_and_line(text: str, says: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_recalls(text)
    assert says in caught.value.message
    assert caught.value.field == field


async def test_a_file_is_taken_in_whole_or_not_at_all(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.service = RecallService(w.store, clock=w.clock, max_recalls_per_user=3)
        session = await w.add_session()
        good = GOOD.replace('"S"', f'"{session}"')
        never = good.replace('{kind = "every", every = "1h"}', '{kind = "cron", expr = "0 0 30 2 *"}')
        with pytest.raises(InvalidSchedule, match=r"recall 2 \(“ok”\), line 6: .*never matches"):
            await w.service.bulk.take_in(good + never, owner=OWNER)
        with pytest.raises(SessionNotFound, match="recall 2"):
            await w.service.bulk.take_in(good + GOOD, owner=OWNER)
        with pytest.raises(SessionNotFound):
            await w.service.bulk.take_in(good, owner="eve")
        with pytest.raises(LimitReached):
            await w.service.bulk.take_in(good * 4, owner=OWNER)
        assert (await w.service.queries.list(OWNER))[0] == []
        would = await w.service.bulk.take_in(good * 2, owner=OWNER, dry_run=True)
        assert len(would) == 2
        assert would[0].next_at == START + timedelta(hours=1)
        assert (await w.service.queries.list(OWNER))[0] == []
        await w.service.bulk.take_in(good * 3, owner=OWNER)
        assert len((await w.service.queries.list(OWNER))[0]) == 3
        assert len(tomllib.loads(await w.service.bulk.export(owner=OWNER))["recall"]) == 3


# --- whole days on the wall clock ------------------------------------------------------------------------------------


def fortnightly(start: datetime, days: int = 14, zone: str = "Europe/Berlin") -> Every:
    spec = EverySpec(kind="every", every=timedelta(days=days), start=start, tz=zone)
    schedule = resolve(spec, now=start - timedelta(hours=1), zone="UTC")
    assert isinstance(schedule, Every)
    return schedule


def test_every_other_friday_at_four_stays_at_four_across_the_changes_of_the_clocks() -> None:
    schedule = fortnightly(datetime(2026, 10, 2, 16, tzinfo=BERLIN))
    times = preview(schedule, n=20, after=datetime(2026, 10, 1, tzinfo=BERLIN), zone="UTC")
    assert {(at.hour, at.minute, at.weekday()) for at in times} == {(16, 0, 4)}
    assert {at.utcoffset() for at in times} == {timedelta(hours=1), timedelta(hours=2)}
    assert [(b.date() - a.date()).days for a, b in pairwise(times)] == [14] * 19


def test_a_time_that_a_change_of_the_clocks_skips_or_repeats_is_met_as_by_cron() -> None:
    spring = fortnightly(datetime(2027, 3, 27, 2, 30, tzinfo=BERLIN), days=1)
    assert (
        preview(spring, n=2, after=datetime(2027, 3, 27, 12, tzinfo=BERLIN), zone="UTC")[0].isoformat()
        == "2027-03-28T03:00:00+02:00"
    )
    autumn = fortnightly(datetime(2026, 10, 24, 2, 30, tzinfo=BERLIN), days=1)
    first, second = preview(autumn, n=2, after=datetime(2026, 10, 24, 12, tzinfo=BERLIN), zone="UTC")
    assert (first.isoformat(), second.isoformat()) == ("2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00")


def test_a_zone_goes_with_whole_days_only() -> None:
    with pytest.raises(InvalidSchedule, match="whole days") as caught:
        resolve(EverySpec(kind="every", every=timedelta(hours=36), tz="Europe/Berlin"), now=START, zone="UTC")
    assert caught.value.field == "schedule.tz"
    with pytest.raises(InvalidSchedule, match="unknown time zone"):
        resolve(EverySpec(kind="every", every=timedelta(days=1), tz="Mars/Base"), now=START, zone="UTC")


@settings(max_examples=300, deadline=None)
@given(
    start=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - wall clock of the zone
    days=st.integers(1, 40),
    zone=st.sampled_from(
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Santiago"]
    ),
    base=st.integers(-40 * 86400, 400 * 86400),
)
def test_its_slots_are_a_fixed_set_of_instants(start: datetime, days: int, zone: str, base: int) -> None:
    local = start.replace(microsecond=0, tzinfo=ZoneInfo(zone))
    schedule = Every(every=timedelta(days=days), start=local, tz=zone)
    at = local + timedelta(seconds=base)
    following = next_after(schedule, at)
    assert following is not None
    assert following > at
    assert count(schedule, at, following) == 1
    assert count(schedule, at, following - timedelta(microseconds=1)) == 0
    assert next_after(schedule, following - timedelta(microseconds=1)) == following
    assert last_slots(schedule, at, following, 5) == [following]


def test_an_interval_in_elapsed_time_says_no_zone() -> None:
    assert resolve(EverySpec(kind="every", every=timedelta(hours=1)), now=START, zone="Europe/Berlin").wire() == {
        "kind": "every",
        "every": "1h",
        "start": START.isoformat(),
    }
