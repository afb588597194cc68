"""From a firing that is over to a message that arrived: real store, real sending processes, real HTTP."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from navi_jupyter.errors import LimitReached, NotFound
from navi_jupyter.model.recalls import FiringStatus
from navi_jupyter.notifications.apprise_sender import AppriseSender, SendResult
from navi_jupyter.notifications.quiet_hours import MAX_ATTEMPTS, free_at, retry_after
from navi_jupyter.notifications.service import AT_ONCE, BATCH, TAKEN, TEST_MESSAGES
from tests.support.notification_world import BASE, World, world
from tests.support.receiver import Receiver
from tests.support.scheduler_world import OWNER, START
from tests.support.scheduler_world import world as recalls_world


def one_target(receiver: Receiver, settings: str = "") -> str:
    return f'{settings}\n[targets.desk]\nurl = "{receiver.url()}"\n'


def test_attempts_wait_longer_each_time_and_end() -> None:
    waits = [retry_after(attempts) for attempts in range(1, MAX_ATTEMPTS + 1)]
    assert waits == [timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=8), timedelta(minutes=32), None]


def test_the_next_message_is_free_when_the_oldest_of_the_hour_is_an_hour_old() -> None:
    sent = [START - timedelta(minutes=minutes) for minutes in (61, 50, 20, 10)]
    assert free_at(sent, START, per_hour=4) is None
    assert free_at(sent, START, per_hour=3) == START + timedelta(minutes=10)
    assert free_at(sent, START, per_hour=1) == START + timedelta(minutes=50)
    assert free_at(sent, START + timedelta(minutes=10), per_hour=3) is None


async def test_a_firing_is_notified_with_its_end_its_answer_and_a_link(receiver: Receiver, tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        firing = await here.fired("Check the loss", answer="The loss is 0.3. " * 60)
        assert await here.delivery(firing) == ("pending", None)
        await here.service.deliver()
        assert await here.delivery(firing) == ("delivered", None)
        (body,) = receiver.bodies
        assert body["title"] == "Navi: Check the loss – done"
        answer, _, link = body["message"].rpartition("\n\n")
        assert answer.startswith("The loss is 0.3.")
        assert len(answer) <= 500
        assert answer.endswith("…")
        assert link == f"{BASE}navi?session={here.session_id}"
        await here.service.deliver()
        assert len(receiver.bodies) == 1, "once"


async def test_a_firing_that_did_not_run_is_notified_with_the_reason(receiver: Receiver, tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        await here.fired("Look", status=FiringStatus.SKIPPED, answer=None, reason="its session was busy")
        await here.service.deliver()
        assert receiver.bodies[0]["title"] == "Navi: Look – skipped"
        assert receiver.bodies[0]["message"].startswith("its session was busy")


async def test_a_target_that_fails_twice_gets_the_message_at_the_third_try(receiver: Receiver, tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        receiver.failures = 2
        firing = await here.fired("Look")
        await here.service.deliver()
        assert (len(receiver.paths), receiver.bodies) == (1, [])
        await here.service.deliver()
        assert len(receiver.paths) == 1, "not before its time"
        here.clock.advance(timedelta(seconds=30))
        await here.service.deliver()
        assert len(receiver.paths) == 2
        state, why = await here.delivery(firing)
        assert state == "pending"
        assert "503" in str(why), "the ledger says what is wrong before it is given up"
        assert str(why).endswith("(tried 2 times)")
        assert (await here.notices.records(OWNER))["desk"].last_error is not None
        here.service = here.new_service()  # tries are counted in the database
        here.clock.advance(timedelta(minutes=2))
        await here.service.deliver()
        assert (len(receiver.paths), receiver.titles) == (3, ["Navi: Look – done"])
        assert await here.delivery(firing) == ("delivered", None)


async def test_after_five_tries_it_is_given_up_and_the_ledger_says_why(receiver: Receiver, tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        receiver.failures = 100
        firing = await here.fired("Look")
        for _ in range(8):
            await here.service.deliver()
            here.clock.advance(timedelta(hours=1))
        assert len(receiver.paths) == MAX_ATTEMPTS
        state, error = await here.delivery(firing)
        assert state == "failed"
        assert error is not None
        assert error.startswith("desk: ")
        assert error.endswith("(tried 5 times)")
        assert "k3yk3yk3y" not in error
        record = (await here.notices.records(OWNER))["desk"]
        assert (record.waiting, record.sent, record.failed) == (0, 0, 1)


async def test_one_target_that_fails_does_not_keep_the_others_waiting(receiver: Receiver, tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        firing = await here.fired("Look", notify=("DESK", "nowhere", "browser", "desk"))
        await here.service.deliver()
        assert len(receiver.bodies) == 1
        for _ in range(6):
            here.clock.advance(timedelta(hours=1))
            await here.service.deliver()
        assert len(receiver.bodies) == 1
        why = "nowhere: there is no such target in navi/notify.toml (tried 5 times)"
        assert await here.delivery(firing) == ("failed", why)


async def test_a_firing_for_browsers_alone_is_no_business_of_the_server(receiver: Receiver, tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        firing = await here.fired("Look", notify=("browser",))
        await here.service.deliver()
        assert await here.delivery(firing) == ("delivered", None)
        assert await here.notices.next_due() is None


async def test_a_server_that_dies_between_sending_and_recording_sends_again_and_never_not(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        firing = await here.fired("Look")

        async def die(*args: object, **kwargs: object) -> None:
            raise asyncio.CancelledError

        with monkeypatch.context() as dying:
            dying.setattr(here.notices, "sent", die)
            with pytest.raises(asyncio.CancelledError):
                await here.service.deliver()
        assert len(receiver.bodies) == 1
        other = here.new_service()
        await other.deliver()
        assert len(receiver.bodies) == 1, "still taken by the one that died"
        here.clock.advance(TAKEN)
        await other.deliver()
        assert len(receiver.bodies) == 2
        assert await here.delivery(firing) == ("delivered", None)
        assert await here.notice(firing) == ("sent", 2, None), "and says how often it tried"


async def test_a_message_that_kills_its_server_is_given_up(tmp_path: Path) -> None:
    class Deadly:
        calls = 0

        def __call__(self, url: str, *, title: str, body: str) -> SendResult:
            self.calls += 1
            raise RuntimeError("killed")

        def close(self) -> None: ...

    async with world(tmp_path) as here:
        here.configure('[targets.desk]\nurl = "json://127.0.0.1:9/"\n')
        firing, deadly = await here.fired("Look"), Deadly()
        for _ in range(MAX_ATTEMPTS):
            with pytest.raises(RuntimeError):
                await here.new_service(deadly).deliver()
            here.clock.advance(TAKEN)
        await here.service.deliver()
        assert deadly.calls == MAX_ATTEMPTS
        assert await here.notice(firing) == ("failed", 5, "the server ended during each attempt to send it")
        assert (await here.delivery(firing))[0] == "failed"


async def test_a_server_killed_in_mid_message_leaves_it_to_the_next_which_knows_of_the_try(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        firing = await here.fired("Look")
        receiver.answering.clear()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.notifications.doomed", str(tmp_path)
        )
        try:
            await _until(lambda: len(receiver.paths) == 1)
        finally:
            process.kill()
            await process.wait()
        receiver.answering.set()
        assert await here.notice(firing) == ("pending", 1, None)
        await here.service.deliver()
        assert len(receiver.paths) == 1, "the dead one's for a while"
        here.clock.advance(TAKEN)
        await here.service.deliver()
        assert len(receiver.paths) == 2
        assert await here.notice(firing) == ("sent", 2, None)


async def test_a_server_that_stops_in_mid_message_says_so_and_the_next_sends_it_at_once(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        firings = [await here.fired("Look"), await here.fired("Listen")]
        receiver.answering.clear()
        service = here.new_service(AppriseSender(allow_private=True))
        service.start()
        await _until(lambda: len(receiver.paths) == 1)
        await service.stop()
        assert await here.notice(firings[0]) == ("pending", 1, "the server was stopped")
        assert await here.notice(firings[1]) == ("pending", 0, None)
        receiver.answering.set()
        await here.new_service().deliver()
        assert len(receiver.paths) == 3
        assert {await here.delivery(firing) for firing in firings} == {("delivered", None)}


async def test_a_stalled_server_sends_nothing_that_another_has_taken_over(receiver: Receiver, tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        firing = await here.fired("Look")
        stalled = here.service
        for _ in range(AT_ONCE):
            await stalled._processes.acquire()
        late = asyncio.create_task(stalled.deliver())
        async with asyncio.timeout(20):
            while await here.store.fetch_one("SELECT 1 FROM notices WHERE taken_by IS NOT NULL") is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        here.clock.advance(TAKEN)
        await here.new_service().deliver()
        assert len(receiver.bodies) == 1
        for _ in range(AT_ONCE):
            stalled._processes.release()
        await late
        assert len(receiver.bodies) == 1
        assert await here.notice(firing) == ("sent", 1, None)


async def test_only_who_has_taken_a_notice_may_hold_it_try_it_or_give_it_up(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        firing = await here.fired("Look")
        claim = (await here.store.take_deliveries(now=START, until=START, limit=1))[0]
        await here.notices.add([(claim, ["desk"])], now=START)
        (notice,) = await here.notices.take(by="one", now=START, until=START + TAKEN, limit=9)
        later = START + TAKEN
        assert len(await here.notices.take(by="two", now=later, until=later + TAKEN, limit=9)) == 1
        assert await here.notices.attempt([notice.number], by="one", until=later) == []
        await here.notices.hold([notice.number], by="one", until=later + 9 * TAKEN, why="rate")
        await here.notices.failed([notice.number], by="one", error="late", at=later, again_at=None)
        assert await here.notice(firing) == ("pending", 0, None)
        assert await here.notices.next_due() == later + TAKEN
        await here.notices.sent([notice.number], message_id="m", at=later)
        assert (await here.notice(firing))[0] == "sent", "what was sent was sent, by any server"


async def test_a_target_that_takes_nothing_is_not_tried_with_each_message_and_then_gets_all_in_one(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        receiver.failures = 1
        firings = [await here.fired(f"number {number}") for number in range(4)]
        await here.service.deliver()
        assert len(receiver.paths) == 1
        here.clock.advance(timedelta(seconds=30))
        await here.service.deliver()
        assert receiver.titles == ["Navi: 4 recalls while you could not be reached"]
        assert [(await here.notice(firing))[1] for firing in firings] == [2, 1, 1, 1]
        assert {await here.delivery(firing) for firing in firings} == {("delivered", None)}


async def test_what_can_never_be_sent_is_given_up_with_all_that_waits_for_the_same(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        firings = [await here.fired("Look"), await here.fired("Listen")]
        await here.new_service(AppriseSender()).deliver()
        assert receiver.paths == []
        for firing in firings:
            assert await here.delivery(firing) == ("failed", "desk: refused: 127.0.0.1 is this machine")


async def test_hundreds_that_sleep_through_quiet_hours_keep_no_other_user_waiting(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        for number in range(BATCH + 20):
            await here.fired(f"number {number}", quiet="11:00-14:00")
        await here.service.deliver()
        here.clock.advance(timedelta(minutes=10))
        firing = await here.fired("urgent")
        await here.service.deliver()
        assert receiver.titles == ["Navi: urgent – done"]
        assert (await here.delivery(firing))[0] == "delivered"
        later = here.clock.now() + timedelta(minutes=10)
        assert await here.store.take_deliveries(now=later, until=later, limit=9) == [], "and no server is busy"


async def test_a_server_that_dies_before_it_settles_the_ledger_leaves_it_to_the_next(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        firing = await here.fired("Look")

        async def die(*args: object, **kwargs: object) -> None:
            raise asyncio.CancelledError

        with monkeypatch.context() as dying:
            dying.setattr(here.store, "delivered", die)
            with pytest.raises(asyncio.CancelledError):
                await here.service.deliver()
        assert await here.delivery(firing) == ("pending", None)
        here.clock.advance(timedelta(minutes=2))
        await here.new_service().deliver()
        assert await here.delivery(firing) == ("delivered", None)
        assert len(receiver.bodies) == 1


async def test_two_servers_on_one_database_send_each_message_once(receiver: Receiver, tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        for number in range(4):
            await here.fired(f"number {number}")
        await asyncio.gather(here.service.deliver(), here.new_service().deliver())
        await asyncio.gather(here.service.deliver(), here.new_service().deliver())
        assert sorted(receiver.titles) == [f"Navi: number {number} – done" for number in range(4)]


async def test_more_than_the_limit_of_an_hour_comes_as_one_digest(receiver: Receiver, tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver, "per_hour = 2"))
        firings = [await here.fired(f"number {number}", answer=f"answer {number}") for number in range(6)]
        await here.service.deliver()
        assert receiver.titles == ["Navi: number 0 – done", "Navi: number 1 – done"]
        here.clock.advance(timedelta(minutes=59))
        await here.service.deliver()
        assert len(receiver.bodies) == 2
        late = await here.fired("number 6")
        here.clock.advance(timedelta(minutes=2))
        await here.service.deliver()
        assert len(receiver.bodies) == 4
        digest = receiver.bodies[2]
        assert digest["title"] == "Navi: 4 recalls while there were too many messages to send"
        assert [line for line in digest["message"].splitlines() if line.startswith("•")] == [
            f"• Sun 12:00 number {number} – done: answer {number}" for number in range(2, 6)
        ]
        assert receiver.titles[3] == "Navi: number 6 – done"
        assert {await here.delivery(firing) for firing in [*firings, late]} == {("delivered", None)}


async def test_what_comes_in_quiet_hours_is_notified_as_one_digest_at_their_end(
    receiver: Receiver, tmp_path: Path
) -> None:
    night = datetime.fromisoformat("2026-10-25T01:00+02:00")  # the clock is put back at three
    async with world(tmp_path, zone="Europe/Berlin", at=night) as here:
        here.configure(one_target(receiver, 'quiet = "22:00-07:00"'))
        firings = [await here.fired("first"), await here.fired("second")]
        await here.service.deliver()
        here.clock.at = datetime.fromisoformat("2026-10-25T06:59:59+01:00")
        firings.append(await here.fired("third"))
        await here.service.deliver()
        assert receiver.paths == []
        here.clock.advance(timedelta(seconds=1))
        await here.service.deliver()
        assert receiver.titles == ["Navi: 3 recalls during your quiet hours"]
        assert f"navi?session={here.session_id}" in receiver.bodies[0]["message"]
        assert {await here.delivery(firing) for firing in firings} == {("delivered", None)}
        await here.fired("by day")
        await here.service.deliver()
        assert receiver.titles[1:] == ["Navi: by day – done"]


async def test_the_quiet_hours_of_a_recall_go_before_those_of_everybody(receiver: Receiver, tmp_path: Path) -> None:
    async with world(tmp_path) as here:  # it is noon
        here.configure(one_target(receiver, 'quiet = "11:00-14:00"'))
        await here.fired("urgent", quiet="22:00-07:00")
        await here.fired("later")
        await here.service.deliver()
        assert receiver.titles == ["Navi: urgent – done"]
        here.clock.advance(timedelta(hours=2))
        await here.service.deliver()
        assert receiver.titles[1:] == ["Navi: later – done"], "one alone is no digest"


async def test_a_retry_that_falls_into_quiet_hours_waits_for_their_end(receiver: Receiver, tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver, 'quiet = "12:01-14:00"'))
        receiver.failures = 2
        await here.fired("Look")
        await here.service.deliver()
        here.clock.advance(timedelta(seconds=30))
        await here.service.deliver()
        assert len(receiver.paths) == 2
        here.clock.advance(timedelta(minutes=3))
        await here.service.deliver()
        assert len(receiver.paths) == 2
        here.clock.advance(timedelta(hours=2))
        await here.service.deliver()
        assert receiver.titles == ["Navi: Look – done"]


async def test_a_test_message_goes_at_once_and_only_so_many(receiver: Receiver, tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver, 'quiet = "11:00-14:00"'))
        assert (await here.service.send_test("Desk", owner=OWNER)).problem is None
        assert receiver.titles == ["Navi: test"]
        with pytest.raises(NotFound):
            await here.service.send_test("nobody", owner=OWNER)
        receiver.failures = TEST_MESSAGES
        for _ in range(TEST_MESSAGES - 1):
            assert (await here.service.send_test("desk", owner=OWNER)).problem is not None
        with pytest.raises(LimitReached):
            await here.service.send_test("desk", owner=OWNER)
        assert (await here.service.send_test("desk", owner="bob")).problem is not None


async def test_who_sends_is_woken_for_what_ran_and_for_what_was_only_missed(tmp_path: Path) -> None:
    async with recalls_world(tmp_path) as there:
        calls: list[None] = []
        scheduler = there.scheduler(notices_changed=lambda: calls.append(None))
        session = await there.add_session()
        ran = await there.recall(session, {"kind": "once", "in": "1m"}, {"notify": ["desk"]})
        there.clock.advance(timedelta(minutes=1))
        await there.step(scheduler)
        assert calls == [], "it runs"
        (firing,) = await there.service.firings(ran.id, owner=OWNER)
        await scheduler.on_run_ended(await there.sessions.end(str(firing.run_id)))
        await scheduler.settle(scheduler._reports)
        assert len(calls) == 1
        hourly = {"kind": "every", "every": "1h"}
        await there.recall(session, hourly, {"notify": ["desk"], "misfire": "skip", "grace": "1m"})
        there.clock.advance(timedelta(hours=2, minutes=30))
        await scheduler.plan_and_claim(there.clock.now())
        assert len(calls) == 2


async def test_the_service_wakes_up_by_itself_when_a_firing_is_over_and_when_a_retry_is_due(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with world(tmp_path) as here:
        here.configure(one_target(receiver))
        receiver.failures = 1
        here.service.start()
        try:
            await here.fired("Look")
            here.service.wake()
            await _until(lambda: len(receiver.paths) == 1)
            await _until_due(here)
            here.clock.advance(timedelta(seconds=30))
            await _until(lambda: receiver.titles == ["Navi: Look – done"])
        finally:
            await here.service.stop()


async def _until_due(here: World) -> None:
    """Until the failure is recorded."""
    async with asyncio.timeout(20):
        while (due := await here.notices.next_due()) is None or due > here.clock.now() + timedelta(minutes=1):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _until(condition) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  the other side is a process
            await asyncio.sleep(0.01)
