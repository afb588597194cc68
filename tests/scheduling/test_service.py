"""What users may do with recalls, and what they are told when they may not."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from navi_jupyter.errors import InvalidSchedule, LimitReached, RecallNotFound, RecallOver, SessionNotFound
from navi_jupyter.model.recalls import CronSpec, RecallCreate, RecallPatch, RecallStatus
from navi_jupyter.scheduling.mutations import title_of
from navi_jupyter.scheduling.service import RecallService
from tests.support.scheduler_world import OWNER, START, world

if TYPE_CHECKING:
    from pathlib import Path

HOURLY = {"kind": "every", "every": "1h"}


def patch(**fields: Any) -> RecallPatch:
    return RecallPatch.model_validate(fields)


async def test_a_recall_is_stored_as_asked_and_says_when_it_comes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        recall = await w.recall(session, {"kind": "cron", "expr": "0 9 * * 1-5"}, title="standup")
        assert recall.schedule.model_dump() == {"kind": "cron", "expr": "0 9 * * 1-5", "tz": "Europe/Berlin"}
        assert recall.next_at is not None
        assert recall.next_at.isoformat() == "2026-11-23T08:00:00+00:00"
        assert (recall.status, recall.origin, recall.fired) == ("pending", "user", 0)
        assert await w.get(recall) == recall
        assert await w.said(session) == [("created", "pending")]


async def test_a_recall_without_title_has_the_first_line_of_its_message(tmp_path: Path) -> None:
    assert title_of("  check the loss\nand the gradient") == "check the loss"
    assert title_of("word " * 40) == "word " * 10 + "word…"


async def test_another_users_recall_is_not_found_whatever_is_asked_of_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        recall = await w.recall(await w.add_session(), HOURLY)
        for work in (
            w.service.queries.get, w.service.pause, w.service.resume, w.service.cancel, w.service.delete,
            w.service.fire, w.service.firings, w.service.queries.ledger,
        ):  # fmt: skip
            with pytest.raises(RecallNotFound):
                await work(recall.id, owner="eve")
        with pytest.raises(RecallNotFound):
            await w.service.patch(recall.id, patch(title="mine"), owner="eve")
        assert await w.service.queries.list("eve") == ([], None)


async def test_a_recalls_origin_is_that_of_its_message(tmp_path: Path) -> None:
    """What an agent wrote does not pass for the user's words because the user made the recall, or copied it."""
    async with world(tmp_path) as w:
        recall = await w.recall(await w.add_session(), HOURLY)
        by_agent = await w.service.patch(recall.id, patch(message="mine"), owner=OWNER, by_agent=True)
        assert (by_agent.origin, (await w.get(recall)).origin) == ("system", "system")
        assert (await w.service.patch(recall.id, patch(title="t"), owner=OWNER)).origin == "system"
        assert (await w.service.clone(recall.id, patch(title="u"), owner=OWNER)).origin == "system"
        assert (await w.service.clone(recall.id, patch(message="v"), owner=OWNER)).origin == "user"
        assert (await w.service.patch(recall.id, patch(message="w"), owner=OWNER)).origin == "user"
        assert (await w.get(recall)).origin == "user"


async def test_a_recall_needs_a_session_of_ones_own(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session(owner="eve")
        for target in (session, "s_none"):
            with pytest.raises(SessionNotFound):
                await w.recall(target, HOURLY)


async def test_the_limit_counts_only_recalls_that_are_not_over(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.service = RecallService(w.store, clock=w.clock, max_recalls_per_user=2)
        session = await w.add_session()
        first = await w.recall(session, HOURLY)
        await w.recall(session, HOURLY)
        with pytest.raises(LimitReached):
            await w.recall(session, HOURLY)
        await w.service.cancel(first.id, owner=OWNER)
        await w.recall(session, HOURLY)


async def test_a_recall_that_would_never_fire_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        with pytest.raises(InvalidSchedule) as caught:
            await w.recall(session, HOURLY, {"until": (START + timedelta(minutes=30)).isoformat()})
        assert caught.value.field == "policy.until"


async def test_lists_page_newest_first_and_filter(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one, two = await w.add_session(), await w.add_session()
        made = [await w.recall(one if n % 2 else two, HOURLY, title=f"n{n}") for n in range(5)]
        page, cursor = await w.service.queries.list(OWNER, limit=3)
        rest, end = await w.service.queries.list(OWNER, limit=3, cursor=cursor)
        assert [r.id for r in (*page, *rest)] == [r.id for r in reversed(made)]
        assert end is None
        assert len((await w.service.queries.list(OWNER, session_id=one))[0]) == 2
        await w.service.pause(made[0].id, owner=OWNER)
        paused, _ = await w.service.queries.list(OWNER, status=RecallStatus.PAUSED)
        assert [r.id for r in paused] == [made[0].id]


async def test_the_recalls_of_a_session_come_the_soonest_first_then_those_that_are_over(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        session = await w.add_session()
        late = await w.recall(session, {"kind": "once", "in": "2h"})
        soon = await w.recall(session, {"kind": "once", "in": "1h"})
        over = await w.recall(session, {"kind": "once", "in": "30m"})
        await w.service.cancel(over.id, owner=OWNER)
        assert [r.id for r in await w.service.in_session(session)] == [soon.id, late.id, over.id]


async def test_nothing_starts_while_paused_and_the_misfire_policy_decides_on_resume(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, HOURLY)
        paused = await w.service.pause(recall.id, owner=OWNER)
        assert (paused.status, paused.next_at) == ("paused", None)
        w.clock.advance(timedelta(hours=3))
        assert await w.step(scheduler) == 0
        resumed = await w.service.resume(recall.id, owner=OWNER)
        assert resumed.status == "pending"
        assert await w.step(scheduler) == 1
        assert [row[0] for row in await w.ledger(recall)] == ["coalesced", "coalesced", "running"]
        assert [action for action, _ in await w.said(session)] == [
            "created", "paused", "resumed", "skipped", "started",
        ]  # fmt: skip


async def test_pausing_holds_what_waits_for_its_session(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        await w.recall(session, {"kind": "once", "in": "1s"})
        recall = await w.recall(session, {"kind": "once", "in": "2s"})
        w.clock.advance(timedelta(seconds=2))
        await w.step(scheduler)
        await w.service.pause(recall.id, owner=OWNER)
        await w.finish(scheduler, session)
        w.clock.advance(timedelta(hours=1))
        assert await w.step(scheduler) == 0
        assert await w.store.next_wake() is None
        await w.service.resume(recall.id, owner=OWNER)
        assert await w.step(scheduler) == 1


async def test_cancelling_ends_it_and_keeps_the_ledger(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, HOURLY)
        w.clock.advance(timedelta(hours=1))
        await w.step(scheduler)
        assert (await w.service.cancel(recall.id, owner=OWNER)).status == "cancelled"
        await w.finish(scheduler, session)
        assert (await w.get(recall)).status == "cancelled"
        assert await w.ledger(recall) == [("succeeded", 3600, None)]
        with pytest.raises(RecallOver):
            await w.service.cancel(recall.id, owner=OWNER)
        assert (await w.service.delete(recall.id, owner=OWNER)).status == "cancelled"
        w.clock.advance(timedelta(days=1))
        assert await w.step(scheduler) == 0


async def test_a_run_that_began_before_its_recall_was_cancelled_goes_on_and_is_in_the_ledger(tmp_path: Path) -> None:
    from navi_jupyter.scheduling.ledger import Report

    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, {"kind": "once", "in": "1s"})
        w.clock.advance(timedelta(seconds=1))
        _, (claim,) = await scheduler.plan_and_claim(w.clock.now())
        outcome = await scheduler.deliver(claim)
        await w.service.cancel(recall.id, owner=OWNER)  # before that was written down
        await scheduler.settle([Report(outcome=outcome, firing_id=claim.firing.firing.id, fence=claim.firing.fence)])
        assert [row[0] for row in await w.ledger(recall)] == ["running"]
        await w.finish(scheduler, session)
        assert [row[0] for row in await w.ledger(recall)] == ["succeeded"]
        after = await w.get(recall)
        assert (after.status, after.fired) == ("cancelled", 1)


async def test_fire_now_uses_up_no_slot_and_the_same_key_fires_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, HOURLY, {"max_fires": 1})
        for _ in range(2):
            await w.service.fire(recall.id, owner=OWNER, key="click-1")
        assert await w.step(scheduler) == 1
        await w.finish(scheduler, session)
        after = await w.get(recall)
        assert (after.status, after.next_at) == ("pending", START + timedelta(hours=1))
        w.clock.advance(timedelta(hours=1))
        assert await w.step(scheduler) == 1
        await w.finish(scheduler, session)
        assert (await w.get(recall)).status == "fired"
        with pytest.raises(RecallOver):
            await w.service.fire(recall.id, owner=OWNER)


async def test_a_paused_recall_can_be_fired_by_hand_and_stays_paused(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, HOURLY)
        await w.service.pause(recall.id, owner=OWNER)
        await w.service.fire(recall.id, owner=OWNER)
        assert await w.step(scheduler) == 1
        await w.finish(scheduler, session)
        assert (await w.get(recall)).status == "paused"


async def test_a_new_schedule_counts_from_now_and_keeps_what_is_on_its_way(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, HOURLY)
        w.clock.advance(timedelta(hours=1))
        await w.step(scheduler)
        changed = await w.service.patch(recall.id, patch(schedule={"kind": "every", "every": "10m"}), owner=OWNER)
        assert changed.next_at == w.clock.now() + timedelta(minutes=10)
        await w.finish(scheduler, session)
        assert await w.ledger(recall) == [("succeeded", 3600, None)]
        w.clock.advance(timedelta(minutes=10))
        assert await w.step(scheduler) == 1


async def test_a_patch_changes_only_what_is_there(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        recall = await w.recall(await w.add_session(), HOURLY, {"retries": 3}, title="old")
        changed = await w.service.patch(recall.id, patch(title="new"), owner=OWNER)
        assert changed == recall.model_copy(update={"title": "new"})
        with pytest.raises(InvalidSchedule):
            await w.service.patch(
                recall.id, patch(schedule={"kind": "once", "at": "2020-01-01T00:00:00Z"}), owner=OWNER
            )
        assert await w.get(recall) == changed


async def test_a_recall_made_by_the_agent_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        request = RecallCreate.model_validate({"session_id": await w.add_session(), "message": "m", "schedule": HOURLY})
        recall = await w.service.create(request, owner=OWNER, zone="UTC", by_agent=True)
        assert recall.origin == "system"


async def test_a_preview_is_what_will_happen(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        spec = CronSpec(kind="cron", expr="*/20 * * * *")
        _, times, _ = await w.service.foresee(spec, n=3, zone="Europe/Berlin")
        assert [at.utcoffset() for at in times] == [timedelta(hours=1)] * 3
        recall = await w.recall(session, {"kind": "cron", "expr": "*/20 * * * *"})
        for _ in range(3):
            w.clock.advance(timedelta(minutes=20))
            await w.step(scheduler)
            await w.finish(scheduler, session)
        assert [row[1] for row in await w.ledger(recall)] == [(at - START).total_seconds() for at in times]


async def test_max_fires_and_until_end_a_recall(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        twice = await w.recall(session, HOURLY, {"max_fires": 2})
        until = await w.recall(session, HOURLY, {"until": (START + timedelta(hours=3)).isoformat(), "busy": "queue"})
        for _ in range(4):
            w.clock.advance(timedelta(hours=1))
            for _ in range(2):
                await w.step(scheduler)
                if await w.active_run(session):
                    await w.finish(scheduler, session)
        assert ((await w.get(twice)).status, (await w.get(twice)).fired) == ("fired", 2)
        assert (await w.get(until)).next_at is None


async def test_a_ledger_pages_newest_first(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        scheduler, session = w.scheduler(), await w.add_session()
        recall = await w.recall(session, HOURLY)
        w.clock.advance(timedelta(hours=7))
        await w.step(scheduler)
        first, cursor = await w.service.queries.ledger(recall.id, owner=OWNER, limit=4)
        second, end = await w.service.queries.ledger(recall.id, owner=OWNER, limit=4, cursor=cursor)
        slots = [(f.slot - START) // timedelta(hours=1) for f in (*first, *second)]
        assert slots == [7, 6, 5, 4, 3, 2, 1]
        assert end is None
