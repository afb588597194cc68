"""Servers of one database that serve different owners leave each other's alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from navi_jupyter.errors import StoreError
from navi_jupyter.events import Custom, Draft
from navi_jupyter.model.base import new_id
from navi_jupyter.model.recalls import RecallCreate
from navi_jupyter.model.runs import Interrupt, InterruptKind
from navi_jupyter.model.sessions import SYSTEM, USER, Run, RunStatus
from navi_jupyter.ports.recalls import Absence
from navi_jupyter.ports.transactions import Server
from navi_jupyter.settings import Settings
from navi_jupyter.store.database import Transaction
from navi_jupyter.store.engines import open_database
from navi_jupyter.store.notices import ResultStore, StoredNotices
from navi_jupyter.store.served_owners import ServedOwners
from tests.support.database import database_url, open_store, perform
from tests.support.orchestrator_world import world as orchestrator_world
from tests.support.scheduler_world import START, World, world

SOON = timedelta(seconds=10)
LATER = START + timedelta(minutes=1)
QUOTED = "o'hara"  # a name that a literal has to quote
ONCE = {"kind": "once", "in": "10s"}


@asynccontextmanager
async def worlds(path: Path, *serves: str) -> AsyncIterator[list[World]]:
    """Servers on one database."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(world(path, serves=each)) for each in serves]


async def add_recall(w: World, owner: str, schedule: dict[str, str]) -> str:
    session_id = await w.add_session(owner)
    request = RecallCreate.model_validate({"session_id": session_id, "message": "look", "schedule": schedule})
    return (await w.service.create(request, owner=owner, zone="UTC")).id


def test_a_setting_without_a_name_is_refused() -> None:
    assert ServedOwners.of("ada, *").by("owner") == ""
    assert ServedOwners.of(f" ada ,, {QUOTED}").by("owner") == " AND owner IN ('ada', 'o''hara')"
    for wrong in ("", " , ", "a\x00"):
        with pytest.raises(ValueError, match="serves must be"):
            ServedOwners.of(wrong)


async def test_a_server_does_not_start_with_a_setting_that_serves_nobody(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="serves must be"):
        await open_database(Settings(database_url=database_url(tmp_path / "navi.db"), serves=","))


async def test_each_server_plans_claims_and_fires_the_recalls_of_its_owners_alone(tmp_path: Path) -> None:
    async with worlds(tmp_path, "ada", f"bob,{QUOTED}") as (first, second):
        hers = await add_recall(first, "ada", ONCE)
        theirs = {await add_recall(second, owner, ONCE) for owner in ("bob", QUOTED)}
        assert (await first.store.audit_recalls(START)).open == 1
        assert (await second.store.audit_recalls(START)).open == 2
        for each in (first, second):
            each.clock.advance(SOON)
        assert [state.recall.id for state in await first.store.due_recalls(LATER, limit=9)] == [hers]
        one, two = first.scheduler("one"), second.scheduler("two")
        assert await first.step(one) == 1
        assert await first.store.next_wake() is None, "what is due is not its own"
        assert await second.store.next_wake() is not None
        assert await first.step(one) == 0
        assert await second.step(two) == 2
        fired = {origin.recall_id for _, _, origin in second.sessions.prompts}
        assert fired == theirs


async def test_a_claim_of_a_server_that_died_waits_for_one_that_serves_its_owner(tmp_path: Path) -> None:
    async with worlds(tmp_path, "ada", "bob", "bob") as (first, second, third):
        await add_recall(second, "bob", ONCE)
        for each in (first, second, third):
            each.clock.advance(SOON)
        _, claimed = await second.scheduler("two").plan_and_claim(second.clock.now())
        assert len(claimed) == 1
        for each in (first, third):
            each.clock.advance(timedelta(minutes=1))
        assert await first.scheduler("one").sweep() == 0
        assert (await first.store.audit_recalls(LATER + SOON)).orphans == 0
        assert await third.scheduler("three").sweep() == 1
        assert await third.step(third.scheduler("three")) == 1


async def test_what_is_watched_reported_and_delivered_is_that_of_its_owners(tmp_path: Path) -> None:
    async with worlds(tmp_path, "ada", "bob", "*") as (first, second, both):
        for owner in ("ada", "bob"):
            await add_recall(both, owner, {"kind": "when", "when": "done"})
            await add_recall(both, owner, ONCE)
        assert [state.owner for state in await first.store.when_recalls()] == ["ada"]
        assert [state.owner for state in await second.store.when_recalls(paused=True)] == ["bob"]
        assert len(await both.store.when_recalls()) == 2
        both.clock.advance(SOON)
        scheduler = both.scheduler()
        assert await both.step(scheduler) == 2
        for session_id, _, _ in both.sessions.prompts:
            await both.finish(scheduler, session_id)
        perform(tmp_path / "navi.db", "UPDATE firings SET delivery = 'pending'")
        assert [claim.recall.owner for claim in await first.store.deliveries_pending(9)] == ["ada"]
        taken = await second.store.take_deliveries(now=LATER, until=LATER, limit=9)
        assert [claim.recall.owner for claim in taken] == ["bob"]
        notices = StoredNotices(second.store)
        pending = await both.store.deliveries_pending(9)
        await notices.add([(claim, ["phone"]) for claim in pending], now=LATER)
        assert [one.owner for one in await notices.take(by="two", now=LATER, until=LATER + SOON, limit=9)] == ["bob"]
        assert await StoredNotices(first.store).next_due() == LATER
        assert await notices.next_due() == LATER + SOON
        absences = {claim.firing.session_id: Absence(since=START, late=1) for claim in pending}
        await both.store.write(lambda tx: tx.note_absences(absences))
        found = await first.store.write(lambda tx: tx.take_absences())
        assert list(found) == [claim.firing.session_id for claim in pending if claim.recall.owner == "ada"]
        assert len(await both.store.write(lambda tx: tx.take_absences())) == 1


async def test_a_webhook_gets_what_ended_of_its_servers_owners_and_what_has_no_owner_is_removed(tmp_path: Path) -> None:
    async with worlds(tmp_path, "ada", "bob", "*") as (first, second, both):
        for owner in ("ada", "bob"):
            await add_recall(both, owner, ONCE)
        both.clock.advance(SOON)
        scheduler = both.scheduler()
        await both.step(scheduler)
        for session_id, _, _ in both.sessions.prompts:
            await both.finish(scheduler, session_id)
        path = tmp_path / "navi.db"
        perform(path, "DELETE FROM ended")
        perform(path, "INSERT INTO ended (kind, id) SELECT 'firing', id FROM firings")
        perform(path, "INSERT INTO ended (kind, id) SELECT 'run', id FROM runs")
        perform(path, "INSERT INTO ended (kind, id) VALUES ('run', 'gone')")
        for server, owner, count in ((first, "ada", 3), (second, "bob", 2)):
            notices = StoredNotices(server.store)
            last = await notices.last_ended()
            assert last is not None
            wanted = {"firing": ["hook"], "run": ["hook"]}
            added = notices.add_ended(wanted, own=lambda _: {}, up_to=last, now=LATER, limit=9, most=9)  # type: ignore[arg-type]
            assert await added == count
            assert await notices.last_ended() is None
            taken = await notices.take(by=owner, now=LATER, until=LATER + SOON, limit=9)
            assert [one.owner for one in taken] == [owner, owner]


async def test_a_clock_that_was_set_back_and_a_notebook_that_moved_are_of_the_servers_owners(tmp_path: Path) -> None:
    async with worlds(tmp_path, "ada", "bob", "*") as (first, second, both):
        sessions = {owner: await both.add_session(owner, notebook_path="a.ipynb") for owner in ("ada", "bob")}
        for server, owner in ((first, "ada"), (second, "bob")):
            assert [link.owner for link in server.store.links_now("a.ipynb", None)] == [owner]
            assert len(server.store.links_now("a.ipynb", sessions["bob"])) == (2 if owner == "ada" else 1)
            below = await server.store.write(lambda tx: tx.links_below("a.ipynb"))
            assert [link.session_id for link in below] == [sessions[owner]]
            other = await server.store.write(lambda tx: tx.links_below("a.ipynb", owner="bob"))
            assert [link.session_id for link in other] == [sessions["bob"]]
        for owner in sessions:
            await add_recall(both, owner, ONCE)
        path = tmp_path / "navi.db"
        perform(path, 'UPDATE recalls SET run = \'{"path": "b.ipynb"}\'')
        await ResultStore(first.store).follow("b.ipynb", "c.ipynb")
        rows = perform(path, "SELECT owner, run FROM recalls ORDER BY owner")
        assert ["c.ipynb" in row["run"] for row in rows] == [True, False]
        both.clock.advance(SOON)
        await both.scheduler().plan_and_claim(both.clock.now())
        await first.store.write(lambda tx: tx.shift_times(now=START, back=SOON, lease_until=START + SOON))
        rows = perform(
            path, "SELECT o.owner, f.lease_until FROM firings f JOIN recalls o ON o.id = f.recall_id ORDER BY o.owner"
        )
        assert rows[0]["lease_until"] < rows[1]["lease_until"]


async def test_a_question_is_expired_by_a_server_that_serves_its_owner(tmp_path: Path) -> None:
    async with worlds(tmp_path, "ada", "bob") as (first, second):
        session_id = await second.add_session("bob")
        run = new_run(session_id)

        async def unit(tx: Transaction) -> None:
            await tx.add_run(run, prompt="p", user_id="bob", first_seq=1)
            assert await tx.start_run(run.id, server_id="two", at=START, lease_until=LATER)
            question = Interrupt(
                id="q_1",
                session_id=session_id,
                run_id=run.id,
                kind=InterruptKind.APPROVAL,
                message="may it?",
                durable=True,
                created_at=START,
                expires_at=START + SOON,
            )
            await tx.add_interrupt(question)
            assert await tx.pause_run(run.id, server_id="two", usage=run.usage, conversation=b"")
            await tx.append(
                session_id, [Draft(Custom(name="navi.kernel", value={}), run_id=None, origin=SYSTEM, at=START)]
            )

        await second.store.write(unit)
        assert not await first.store.expiring(at=LATER)
        assert await first.store.write(lambda tx: tx.expired_interrupts(at=LATER)) == []
        assert await second.store.expiring(at=LATER)
        assert len(await second.store.write(lambda tx: tx.expired_interrupts(at=LATER))) == 1
        perform(tmp_path / "navi.db", "UPDATE interrupts SET status = 'resolved'")
        assert (list(await first.store.ready_sessions()), await first.store.queued_sessions()) == ([], {})
        assert list(await second.store.ready_sessions()) == [session_id]
        assert await second.store.queued_sessions() == {session_id: 0}
        resume = {"server_id": "one", "lease_until": LATER}
        assert not await first.store.write(lambda tx: tx.resume_run(run.id, **resume))
        assert await second.store.write(lambda tx: tx.resume_run(run.id, **resume))


def new_run(session_id: str) -> Run:
    return Run(
        id=new_id("r"),
        session_id=session_id,
        command_id=new_id("c"),
        status=RunStatus.QUEUED,
        origin=USER,
        model="offline",
        created_at=START,
    )


async def test_a_run_of_a_dead_server_stays_until_a_server_that_serves_its_owner_comes(tmp_path: Path) -> None:
    """The owner in the world of the orchestrator is ``local``."""
    dead = Server(id="dead", host="elsewhere", pid=1, pid_started=1.0)
    async with orchestrator_world(tmp_path, serves="ada") as ada:
        session_id = await ada.session()
        run = new_run(session_id)
        everybody = await open_store(tmp_path / "navi.db")

        async def unit(tx: Transaction) -> None:
            await tx.beat(dead, at=START)
            await tx.add_run(run, prompt="say 1", user_id="local", first_seq=1)
            assert await tx.start_run(run.id, server_id="dead", at=START, lease_until=START)

        await everybody.write(unit)
        await everybody.close()
        waiting = await ada.prompt(session_id, "say 2")  # a server takes everybody's commands, and starts nothing
        await ada.orchestrator._maintenance._beat()
        assert await ada.store.write(lambda tx: tx.active_runs()) == []
        assert await ada.status(session_id, run.id) == "running"
        async with orchestrator_world(tmp_path, serves="bob, local") as local:
            assert (await local.until_end(session_id, run.id))["event"]["code"] == "interrupted"
            assert (await local.until_end(session_id, waiting.run_id))["event"]["type"] == "RUN_FINISHED"
            assert [turn.run_id for turn in local.agent.turns] == [waiting.run_id]
        assert ada.agent.turns == []


async def test_a_prompt_of_an_owner_who_is_not_served_waits_in_the_queue(tmp_path: Path) -> None:
    async with orchestrator_world(tmp_path, serves="ada") as ada:
        session_id = await ada.session()
        waiting = await ada.prompt(session_id, "say 1")
        assert await ada.store.queued_sessions() == {}
        for _ in range(3):
            ada.orchestrator._poke(session_id)
            await asyncio.sleep(0.05)
        assert await ada.status(session_id, waiting.run_id) == "queued"
        async with orchestrator_world(tmp_path, serves="local") as local:
            assert (await local.until_end(session_id, waiting.run_id))["event"]["type"] == "RUN_FINISHED"
        assert ada.agent.turns == []
