"""A server that may have lost its runs to another one ends them by itself, before that one begins."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from navi_jupyter.clock import now
from navi_jupyter.errors import LeaseLost
from navi_jupyter.orchestrator.orchestrator import Orchestrator
from navi_jupyter.orchestrator.upkeep import maintenance, servers
from navi_jupyter.orchestrator.upkeep.servers import Trust, process_started
from navi_jupyter.ports.transactions import Server
from navi_jupyter.settings import ServerLease
from tests.support.database import locked_by_another
from tests.support.orchestrator_process import Process, put_to_sleep
from tests.support.orchestrator_world import Agent, World, world

LEASE = 2.4


def effects(folder: Path, pid: int) -> list[float]:
    """When a server had effects."""
    path = folder / "effects.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [float(at) for one, at in (line.split() for line in lines) if int(one) == pid]


def until_effects(folder: Path, pid: int, count: int = 5) -> None:
    deadline = time.monotonic() + 30
    while len(effects(folder, pid)) < count:
        assert time.monotonic() < deadline, "it has no effects"
        time.sleep(0.02)


def settled(folder: Path, pid: int) -> list[float]:
    """Its effects, half a second later: none may follow."""
    time.sleep(0.5)
    return effects(folder, pid)


@pytest.mark.parametrize("tool", ["effects 1", "threads 1"])
@pytest.mark.parametrize("fault", ["refuse", "cut_off", "stopped"])
def test_a_server_that_cannot_renew_its_lease_has_no_effect_after_the_other_one_began(
    tmp_path: Path, fault: str, tool: str
) -> None:
    with Process(tmp_path, lease=LEASE) as one, Process(tmp_path, lease=LEASE) as two:
        one.ready()
        two.ready()
        sid = one.session()
        two.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, tool, "c1")["run_id"]
        two.prompt(sid, tool, "c2")
        until_effects(tmp_path, one.pid)
        if fault == "stopped":
            put_to_sleep(one, tmp_path)
        else:
            one.ask(do="fault", how=fault)
        assert two.until_end(sid, run_id)["event"]["code"] == "interrupted"
        until_effects(tmp_path, two.pid)
        if fault == "stopped":
            before = effects(tmp_path, one.pid)
            os.kill(one.pid, signal.SIGCONT)
            after = settled(tmp_path, one.pid)
            # A thread goes on at the same instant as the loop that ends it, which the machine may let run later: it is
            # over within a tenth of a second, where one that is not ended has an effect every hundredth.
            assert len(after) - len(before) <= (10 if tool.startswith("threads") else 0)
            return
        lost, won = settled(tmp_path, one.pid), effects(tmp_path, two.pid)
        assert lost[-1] < won[0]
        assert won[0] - lost[-1] > LEASE * 3 / 30, "the margin of the clocks"


def test_a_server_that_can_write_again_ends_what_it_had_given_up_and_works_on(tmp_path: Path) -> None:
    with Process(tmp_path, lease=1.5) as one:
        one.ready()
        sid = one.session()
        one.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, "effects 1", "c1")["run_id"]
        waiting = one.prompt(sid, "drip 2", "c2")["run_id"]
        until_effects(tmp_path, one.pid)
        one.ask(do="fault", how="refuse")
        time.sleep(2.0)
        had = settled(tmp_path, one.pid)
        one.ask(do="fault", how="accept")
        last = one.until_end(sid, run_id)["event"]
        assert last["code"] == "interrupted"
        assert "could not write its database" in last["message"]
        assert "it is not started again by itself" in last["message"]
        assert one.until_end(sid, waiting)["event"]["type"] == "RUN_FINISHED"
        assert effects(tmp_path, one.pid) == had
        assert one.leave() == 0


def test_a_database_that_another_program_locks_for_longer_than_the_lease_costs_the_run_and_nothing_else(
    tmp_path: Path,
) -> None:
    with Process(tmp_path, lease=1.5) as one, Process(tmp_path, lease=1.5) as two:
        one.ready()
        two.ready()
        sid = one.session()
        two.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, "effects 1", "c1")["run_id"]
        two.prompt(sid, "effects 1", "c2")
        until_effects(tmp_path, one.pid)
        with locked_by_another(tmp_path / "navi.db"):
            time.sleep(2.0)
            had = settled(tmp_path, one.pid)
        assert two.until_end(sid, run_id)["event"]["code"] == "interrupted"
        deadline = time.monotonic() + 30
        while len(all_of := effects(tmp_path, one.pid) + effects(tmp_path, two.pid)) < len(had) + 5:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert sorted(all_of)[: len(had)] == had
        log = [e for m in two.said if m.get("seen") == sid for e in [json.loads(m["frame"])]]
        assert [e["run_id"] for e in log if e["event"]["type"] == "RUN_STARTED"].count(run_id) == 1


@pytest.mark.parametrize("ahead", [timedelta(days=1), timedelta(hours=-1)])
async def test_the_leases_of_others_are_not_judged_by_a_clock_that_was_just_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    async with world(tmp_path) as w:
        other = Server(id="other", host="elsewhere", pid=1, pid_started=0.0)
        await w.store.write(lambda tx: tx.beat(other, at=now()))
        monkeypatch.setattr(maintenance, "now", lambda: now() + ahead)
        monkeypatch.setattr(servers, "now", lambda: now() + ahead)
        await w.orchestrator._maintenance._beat()
        assert {server.id for server in await w.store.known_servers()} == {"other", w.orchestrator.server.id}
        longest = max(until for _, until in await w.store.write(lambda tx: tx.servers()))
        assert longest <= now() + ahead + timedelta(seconds=32), "a lease made by a wrong clock does not last"


async def test_a_renewal_counts_the_prompts_that_wait_and_not_their_sessions(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        one, two, idle = await w.session(), await w.session(), await w.session()
        for sid, waiting in ((one, 3), (two, 1), (idle, 0)):
            for _ in range(1 + waiting):
                await w.prompt(sid, "wait")
        await w.orchestrator._maintenance._beat()
        assert await w.store.queued_sessions() == {one: 3, two: 1}
        assert w.orchestrator._maintenance.queued == 4


async def killed_server(w: World) -> str:
    """Another server of this machine, whose process has ended just now."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    started = process_started(process.pid)
    await process.wait()
    other = Server(id="other", host=w.orchestrator.server.host, pid=process.pid, pid_started=started or 0.0)
    await w.store.write(lambda tx: tx.beat(other, at=now()))
    return other.id


async def test_a_renewal_just_after_another_server_was_killed_does_not_take_over_what_still_runs_elsewhere(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        killed = await killed_server(w)
        upkeep = w.orchestrator._maintenance
        for work in (upkeep._beat, upkeep._look_for_dead, upkeep._beat):
            await work()
            assert killed in {server.id for server in await w.store.known_servers()}
        await upkeep._look_for_dead()  # a second later: its kernels and MCP servers have noticed by now
        assert killed not in {server.id for server in await w.store.known_servers()}


async def test_a_server_that_starts_when_another_was_just_killed_waits_until_what_that_began_has_ended(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        killed = await killed_server(w)
        second = Orchestrator(w.store, Agent())
        began = time.monotonic()
        await second.start(None)  # type: ignore[arg-type]
        try:
            assert time.monotonic() - began >= maintenance.PEERS_EVERY
            assert killed not in {server.id for server in await w.store.known_servers()}
        finally:
            await second.stop()


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def test_the_lease_is_relied_on_from_before_its_renewal_and_for_less_than_it_lasts() -> None:
    clock, lost = Time(), []
    lease = ServerLease()
    trust = Trust(lease, on_lost=lambda: lost.append(clock.at), clock=clock)
    assert not trust.held
    since = clock.at
    clock.at += 9.0  # the database took so long
    trust.renewed(since)
    assert trust.check()
    clock.at = since + lease.trust - 0.001
    assert trust.check()
    clock.at = since + lease.trust
    assert not trust.check()
    assert not trust.check()
    assert lost == [clock.at], "it is lost once"
    with pytest.raises(LeaseLost):
        trust.require()
    trust.renewed(clock.at)
    assert trust.check()
    assert lease.trust + 2 < lease.duration
    assert lease.renewed_every * 4 <= lease.trust


def test_a_renewal_that_was_on_its_way_while_the_process_stood_still_is_worth_nothing() -> None:
    clock = Time()
    trust = Trust(ServerLease(), on_lost=lambda: None, clock=clock)
    since = clock.at
    clock.at += 60.0
    trust.renewed(since)
    assert not trust.held
