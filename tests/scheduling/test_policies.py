"""The policies as pure decisions, each with its table; and that the service and the loop keep to them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from navi_jupyter.errors import InvalidSchedule, RecallOver
from navi_jupyter.model.recalls import Cron, Every, Policy, Recall, RecallPatch, RecallStatus
from navi_jupyter.model.sessions import RunStatus
from navi_jupyter.ports.recalls import Seen
from navi_jupyter.scheduling.decisions import BACKOFF_MOST, KEPT_FOR, KEPT_ROWS, backoff, prunable_before, retry_delay
from navi_jupyter.scheduling.misfires import APART, AT_ONCE, turn_of
from navi_jupyter.scheduling.planner import BATCH
from navi_jupyter.scheduling.schedules import shortest_gap, slots, warnings
from navi_jupyter.scheduling.service import RecallService
from tests.support.scheduler_world import OWNER, START, World, world

if TYPE_CHECKING:
    from pathlib import Path

HOURLY = {"kind": "every", "every": "1h"}


# --- cancel_on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cancel_on", "wrote", "read", "ends"),
    [
        ((), 1, 1, None),
        (("user_message",), 1, None, "you wrote in the session"),
        (("user_message",), -1, 1, None),
        (("user_message",), 0, None, None),
        (("read",), None, 1, "you have read the session"),
        (("read",), 1, -1, None),
        (("read",), 1, None, None),
        (("user_message", "read"), None, 1, "you have read the session"),
        (("user_message", "read"), 1, 1, "you wrote in the session"),
    ],
)
def test_a_recall_ends_when_the_user_comes_after_it_was_made(
    cancel_on: tuple[str, ...], wrote: int | None, read: int | None, ends: str | None
) -> None:
    def at(seconds: int | None) -> datetime | None:
        return None if seconds is None else START + timedelta(seconds=seconds)

    recall = Recall(
        id="rec_1",
        session_id="s_1",
        title="t",
        message="m",
        schedule=Every(every=timedelta(hours=1), start=START),
        policy=Policy.model_validate({"cancel_on": cancel_on}),
        status=RecallStatus.PENDING,
        next_at=None,
        created_at=START,
    )
    assert Seen(wrote_at=at(wrote), read_at=at(read)).ends(recall) == ends


async def test_writing_in_the_session_ends_what_says_so_and_nothing_else(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, other = await w.add_session(), await w.add_session()
        mine = await w.recall(session, HOURLY, {"cancel_on": ["user_message"]})
        paused = await w.recall(session, HOURLY, {"cancel_on": ["user_message", "read"]})
        await w.service.pause(paused.id, owner=OWNER)
        plain, elsewhere = await w.recall(session, HOURLY), await w.recall(other, HOURLY, {"cancel_on": ["read"]})
        w.clock.advance(timedelta(seconds=1))
        await w.service.occurrences.user_wrote(session, w.clock.now())
        await w.service.occurrences.user_wrote(other, w.clock.now())
        assert [(await w.get(r)).status for r in (mine, paused, plain, elsewhere)] == [
            "cancelled", "cancelled", "pending", "pending",
        ]  # fmt: skip
        await w.service.occurrences.user_read(other, w.clock.now())
        assert (await w.get(elsewhere)).status == "cancelled"
        frames = await w.store.frames(session, after=0, limit=100)
        reasons = [json.loads(frame)["event"]["value"].get("reason") for _, frame in frames]
        assert reasons.count("you wrote in the session") == 2


async def test_what_waits_is_withdrawn_with_the_reason_and_a_run_in_progress_goes_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        running = await w.recall(session, {"kind": "once", "in": "1s"}, {"cancel_on": ["user_message"]})
        waiting = await w.recall(session, {"kind": "once", "in": "1s"}, {"cancel_on": ["user_message"]})
        w.clock.advance(timedelta(seconds=1))
        await w.step(scheduler)
        await w.service.occurrences.user_wrote(session, w.clock.now())
        assert await w.ledger(waiting) == [("cancelled", 1, "you wrote in the session")]
        assert [row[0] for row in await w.ledger(running)] == ["running"]
        await w.finish(scheduler, session)
        assert [row[0] for row in await w.ledger(running)] == ["succeeded"]
        assert (await w.get(running)).status == "cancelled"


async def test_a_message_that_nobody_told_the_recalls_of_is_found_before_they_fire(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "10s"}, {"cancel_on": ["user_message"]})
        w.clock.advance(timedelta(seconds=5))
        from navi_jupyter.commands import Prompt
        from navi_jupyter.model.sessions import USER

        written = await w.sessions(session, Prompt(text="hello", command_id="c1"), user_id=OWNER, origin=USER)
        assert written.run_id is not None
        await w.sessions.end(written.run_id)
        w.clock.advance(timedelta(seconds=5))
        await w.step(scheduler)
        assert len(w.sessions.prompts) == 1  # the user's own
        assert (await w.get(recall)).status == "cancelled"
        assert await w.ledger(recall) == [("cancelled", 10, "you wrote in the session")]


# --- the smallest interval -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expr", "gap"),
    [
        ("* * * * *", "0:01:00"),
        ("*/7 * * * *", "0:04:00"),
        ("0,1 * * * *", "0:01:00"),
        ("* * * * * *", "0:00:01"),
        ("*/20 * * * * *", "0:00:20"),
        ("0,59 * * * * *", "0:00:01"),
        ("0 59 * * * *", "1:00:00"),
        ("59 0 * * * *", "1:00:00"),
        ("0 9 * * *", "1 day, 0:00:00"),
        ("0 9 * * 1", "7 days, 0:00:00"),
        ("0 0,23 * * *", "1:00:00"),
        ("0 0,23 * * 1", "23:00:00"),
        ("30 9-17/4 * * 1-5", "4:00:00"),
        ("0 0 1 1 *", "365 days, 0:00:00"),
    ],
)
def test_the_shortest_gap_of_an_expression_is_known_without_counting(expr: str, gap: str) -> None:
    found = shortest_gap(Cron(expr=expr, tz="UTC"), now=START)
    assert str(found) == gap


@pytest.mark.parametrize("expr", ["*/7 3-5 * * *", "5,50 */5 * * 1,2", "0 0,23 * * 1,3", "*/40 */9 1-3,31 * *"])
def test_it_is_the_shortest_gap_of_two_years_of_slots(expr: str) -> None:
    schedule = Cron(expr=expr, tz="UTC")
    year = datetime(START.year, 1, 1, tzinfo=UTC)
    times = []
    for slot in slots(schedule, year):
        if slot.year > START.year + 1:
            break
        times.append(slot)
    assert shortest_gap(schedule, now=START) == min(b - a for a, b in pairwise(times))


async def test_a_server_may_ask_for_a_longer_interval(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.service = RecallService(w.store, clock=w.clock, min_interval=timedelta(minutes=5))
        session = await w.add_session()
        for schedule, field in (
            ({"kind": "every", "every": "4m"}, "schedule.every"),
            ({"kind": "cron", "expr": "*/7 * * * *"}, "schedule.expr"),
            ({"kind": "cron", "expr": "* * * * * *"}, "schedule.expr"),
        ):
            with pytest.raises(InvalidSchedule, match="at least 5m lie between") as caught:
                await w.recall(session, schedule)
            assert caught.value.field == field
        recall = await w.recall(session, {"kind": "cron", "expr": "*/20 * * * *"})
        patch = RecallPatch.model_validate({"schedule": {"kind": "every", "every": "1m"}})
        with pytest.raises(InvalidSchedule):
            await w.service.patch(recall.id, patch, owner=OWNER)


# --- catching up -----------------------------------------------------------------------------------------------------


def test_missed_slots_of_one_owner_start_in_groups() -> None:
    delays = [turn_of(number) for number in range(AT_ONCE * 3)]
    assert {delay: delays.count(delay) for delay in delays} == {APART * n: AT_ONCE for n in range(3)}


async def missed(w: World, count: int, owner_session: str, **policy: Any) -> list[Recall]:
    return [await w.recall(owner_session, {"kind": "once", "in": "1s"}, policy) for _ in range(count)]


async def test_after_an_outage_at_most_twenty_of_an_owner_start_at_once_and_none_is_lost(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler = w.scheduler()
        recalls = []
        for _ in range(45):
            recalls += await missed(w, 1, await w.add_session())
        w.clock.advance(timedelta(hours=1))
        started = []
        for _ in range(3):
            started.append(await w.step(scheduler))
            assert await w.step(scheduler) == 0
            w.clock.advance(APART)
        assert started == [20, 20, 5]
        assert [(await w.get(recall)).status for recall in recalls] == ["running"] * 45


async def test_what_falls_due_now_is_not_held_up_by_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler = w.scheduler()
        for _ in range(30):
            await missed(w, 1, await w.add_session())
        w.clock.advance(timedelta(hours=1))
        punctual = await w.recall(await w.add_session(), {"kind": "once", "in": "1s"})
        w.clock.advance(timedelta(seconds=1))
        await w.step(scheduler)
        assert (await w.get(punctual)).status == "running"


async def test_waiting_for_its_turn_does_not_cost_the_grace(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler = w.scheduler()
        for _ in range(20):
            await missed(w, 1, await w.add_session())
        (tight,) = await missed(w, 1, await w.add_session(), grace="1h")
        w.clock.advance(timedelta(hours=1) - timedelta(seconds=9))
        await w.step(scheduler)
        assert (await w.get(tight)).next_at == START + timedelta(hours=1, seconds=1)
        w.clock.advance(timedelta(seconds=10))
        assert await w.step(scheduler) == 1
        assert (await w.get(tight)).status == "running"


async def cards(w: World, session_id: str) -> list[Any]:
    """The values of the session's ``navi.session`` events."""
    events = [json.loads(frame)["event"] for _, frame in await w.store.frames(session_id, after=0, limit=1000)]
    return [event["value"] for event in events if event.get("name") == "navi.session"]


async def test_each_session_is_told_once_what_it_missed_while_no_server_was_there(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session, quiet = await w.add_session(), await w.add_session()
        await w.recall(session, HOURLY)
        await w.recall(session, {"kind": "once", "in": "90m"}, {"grace": "1m"})
        until = (START + timedelta(hours=2)).isoformat()
        await w.recall(session, {"kind": "when", "event": "file_changed", "path": "x"}, {"until": until})
        await w.recall(quiet, {"kind": "once", "in": "30d"})
        w.clock.advance(timedelta(hours=5, seconds=90))
        scheduler = w.scheduler("server-2")
        await w.step(scheduler)
        for server in (scheduler, scheduler, w.scheduler("server-3")):
            await server._missed_report.publish(w.clock.now())
        (card,) = await cards(w, session)
        assert card["changed"] == ["away"]
        assert card["away"] == {"since": "2026-11-22T13:00:00.000Z", "late": 1, "missed": 6}
        assert card["session"]["title"] == "t"
        assert await cards(w, quiet) == []


async def test_two_servers_that_catch_up_together_tell_each_session_once_and_all_of_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sessions = [await w.add_session() for _ in range(3)]
        for number in range(BATCH + 40):
            await w.recall(sessions[number % 3], {"kind": "once", "in": "1m"}, {"misfire": "skip", "grace": "1m"})
        w.clock.advance(timedelta(hours=1))
        one, two = w.scheduler("one"), w.scheduler("two")
        await one.plan_and_claim(w.clock.now())
        await two.plan_and_claim(w.clock.now())
        for server in (two, one):
            await server._missed_report.publish(w.clock.now())
        told = [await cards(w, session) for session in sessions]
        assert [len(each) for each in told] == [1, 1, 1]
        assert sum(each[0]["away"]["missed"] for each in told) == BATCH + 40


async def test_what_a_server_that_died_while_catching_up_had_not_told_the_next_one_tells(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        recalls = [await w.recall(session, {"kind": "once", "in": "1m"}, {"busy": "queue"}) for _ in range(AT_ONCE + 5)]
        w.clock.advance(timedelta(hours=1))
        await w.scheduler("dies").plan_and_claim(w.clock.now())
        await w.recall(session, {"kind": "once", "in": "1m"})
        w.clock.advance(timedelta(hours=1))
        after = w.scheduler("after")
        await after.sweep()
        await w.step(after)
        await after._missed_report.publish(w.clock.now())
        assert len(w.sessions.prompts) >= 1
        (card,) = await cards(w, session)
        assert card["away"]["late"] == len(recalls) + 1, "each once, however often it was tried"


async def test_a_machine_that_slept_tells_what_was_missed_and_a_pause_is_no_absence(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        asleep, paused = await w.add_session(), await w.add_session()
        await w.recall(asleep, HOURLY)
        held = await w.recall(paused, HOURLY)
        scheduler = w.scheduler()

        async def minute() -> None:
            scheduler._missed_report.turned(w.clock.now())
            await w.step(scheduler)
            await scheduler._missed_report.publish(w.clock.now())

        await minute()
        await w.service.pause(held.id, owner=OWNER)
        w.clock.advance(timedelta(hours=8, minutes=5))
        await minute()
        (card,) = await cards(w, asleep)
        assert card["away"] == {"since": "2026-11-22T13:00:00.000Z", "late": 1, "missed": 7}
        await w.service.resume(held.id, owner=OWNER)
        await minute()
        assert len(await w.ledger(held)) == 8
        assert await cards(w, paused) == []
        assert len(await cards(w, asleep)) == 1


async def test_a_server_that_starts_while_all_is_well_says_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        await w.recall(session, {"kind": "once", "in": "10s"})
        w.clock.advance(timedelta(seconds=20))
        scheduler = w.scheduler()
        await w.step(scheduler)
        await scheduler._missed_report.publish(w.clock.now())
        assert await cards(w, session) == []


# --- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("firing_id", ["f_1", "f_2", "f_3"])
def test_retries_come_later_and_later_with_a_little_jitter_up_to_a_cap(firing_id: str) -> None:
    delays = [retry_delay(firing_id, tries) for tries in range(12)]
    assert delays == sorted(delays)
    assert all(backoff(n) * 0.95 <= delay <= backoff(n) for n, delay in enumerate(delays))
    assert delays[-1] == BACKOFF_MOST
    assert delays == [retry_delay(firing_id, tries) for tries in range(12)]


def test_what_failed_together_does_not_come_back_together() -> None:
    assert len({retry_delay(f"f_{n}", 3) for n in range(100)}) > 90


async def test_a_recall_that_has_failed_can_be_run_once_more_and_ends_as_that_run_does(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(timedelta(seconds=1))
        for status, ends in (
            (RunStatus.FAILED, "failed"),
            (RunStatus.FAILED, "failed"),
            (RunStatus.COMPLETED, "fired"),
        ):
            assert await w.step(scheduler) == 1
            await w.finish(scheduler, session, status, None if status is RunStatus.COMPLETED else "x")
            assert (await w.get(recall)).status == ends
            if ends == "failed":
                assert (await w.service.fire(recall.id, owner=OWNER)).status == "pending"
        with pytest.raises(RecallOver):
            await w.service.fire(recall.id, owner=OWNER)
        assert [row[0] for row in await w.ledger(recall)] == ["failed", "failed", "succeeded"]


# --- editing ---------------------------------------------------------------------------------------------------------


async def test_an_edit_while_it_runs_leaves_the_run_and_counts_the_new_schedule_from_then(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, HOURLY)
        w.clock.advance(timedelta(hours=1))
        await w.step(scheduler)
        patch = RecallPatch.model_validate({"schedule": {"kind": "every", "every": "10m"}, "message": "new"})
        edited = await w.service.patch(recall.id, patch, owner=OWNER)
        assert (edited.status, edited.next_at) == ("running", START + timedelta(minutes=70))
        assert await w.ledger(recall) == [("running", 3600, None)]
        await w.finish(scheduler, session)
        w.clock.advance(timedelta(minutes=10))
        await w.step(scheduler)
        assert w.sessions.prompts[1][1].display == "new"
        assert [row[1] for row in await w.ledger(recall)] == [3600, 4200]


# --- the ledger ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("edge_days_ago", "before_days_ago"), [(10, 90), (90, 90), (400, 400)])
def test_a_row_goes_when_it_is_old_and_not_among_the_last_thousand(edge_days_ago: int, before_days_ago: int) -> None:
    edge, before = (START - timedelta(days=days) for days in (edge_days_ago, before_days_ago))
    assert prunable_before(START, edge) == before


async def test_pruning_keeps_the_last_rows_what_is_young_and_what_is_open(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        busy = await w.recall(session, {"kind": "every", "every": "1m"}, {"misfire": "all"})
        rare = await w.recall(session, HOURLY)
        rows = [
            (f"f_{n}", busy.id, session, n * 1_000_000, "auto", "pending" if n == 3 else "succeeded", f"c{n}", n)
            for n in range(KEPT_ROWS + 50)
        ]
        rows += [("f_rare", rare.id, session, 0, "auto", "succeeded", "cr", 0)]
        text = (
            "INSERT INTO firings (id, recall_id, session_id, slot, kind, status, command_id, not_before) VALUES {rows}"
        )
        await w.store.write(lambda tx: tx.change_many(text, rows))
        await w.store.write(lambda tx: tx.change("UPDATE firings SET delivery = 'pending' WHERE id = 'f_5'"))
        assert await scheduler.prune() == 48
        assert await scheduler.prune() == 0  # once an hour
        left = {row["id"] for row in await w.store.fetch_all("SELECT id FROM firings")}
        assert len(left) == KEPT_ROWS + 3
        assert {"f_3", "f_5", "f_50", "f_rare"} <= left
        w.clock.advance(KEPT_FOR)
        assert await scheduler.prune() == 0


async def test_of_whom_people_are_to_be_told_is_kept_apart_from_how_it_went(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        told = await w.recall(session, {"kind": "once", "in": "1s"}, {"notify": ["phone"]})
        quiet = await w.recall(await w.add_session(), {"kind": "once", "in": "1s"})
        w.clock.advance(timedelta(seconds=1))
        await w.step(scheduler)
        assert await w.store.deliveries_pending(10) == []
        await w.finish(scheduler, session)
        (claim,) = await w.store.deliveries_pending(10)
        assert (claim.recall.recall.id, claim.firing.firing.status) == (told.id, "succeeded")
        await w.store.delivered(claim.firing.firing.id, "no such host")
        await w.store.delivered(claim.firing.firing.id)
        (row,) = await w.service.firings(told.id, owner=OWNER)
        assert (row.status, row.delivery, row.delivery_error) == ("succeeded", "failed", "no such host")
        assert await w.store.deliveries_pending(10) == []
        assert (await w.service.firings(quiet.id, owner=OWNER))[0].delivery == "none"


async def test_of_an_outage_people_are_told_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        await w.recall(session, HOURLY, {"notify": ["phone"], "misfire": "skip", "grace": "1m"})
        w.clock.advance(timedelta(hours=8, minutes=30))
        await w.step(scheduler)
        (claim,) = await w.store.deliveries_pending(10)
        assert (claim.firing.firing.status, claim.firing.firing.slot) == ("missed", START + timedelta(hours=8))


# --- warnings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expr", "says"),
    [
        ("*/90 * * * *", "longer than the hour"),
        ("*/7 * * * *", "starts anew every hour"),
        ("0 0 13 * 5", "when either matches"),
        ("0 0 */2 * 1", "only when both match"),
        ("0 0 31 * *", "without a day 31 are skipped"),
        ("0 0 29 2 *", "not before 2028-02-29"),
        ("0 0 0 1 1 *", "six fields"),
        ("30 2 * * *", "clocks skip that time"),
    ],
)
def test_an_expression_that_may_not_be_meant_is_warned_of(expr: str, says: str) -> None:
    assert any(says in warning for warning in warnings(Cron(expr=expr, tz="Europe/Berlin"), now=START))


@pytest.mark.parametrize("expr", ["31 2 30 2 *", "0 0 31 4,6,9,11 *"])
async def test_an_expression_that_never_matches_is_refused(expr: str, tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        with pytest.raises(InvalidSchedule, match="never matches"):
            await w.recall(await w.add_session(), {"kind": "cron", "expr": expr})
