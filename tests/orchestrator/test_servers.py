"""What one server does about another that is gone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from navi_jupyter.clock import now
from navi_jupyter.events import Custom, Draft
from navi_jupyter.model.sessions import SYSTEM, USER, Run, RunStatus
from navi_jupyter.orchestrator.upkeep.servers import process_started
from navi_jupyter.ports.transactions import SessionTx
from tests.support.orchestrator_world import Envelope, World, eventually, world

FAR = timedelta(hours=1)


async def test_a_server_of_this_machine_that_exits_is_replaced_without_waiting_for_its_lease_or_our_beat(
    tmp_path: Path,
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        async with world(tmp_path) as w:
            sid = await w.session()
            started = process_started(process.pid)
            assert started is not None
            other = replace(w.orchestrator.server, id="other", pid=process.pid, pid_started=started)
            at = now()
            theirs = Run(
                id="r_theirs",
                session_id=sid,
                command_id="c1",
                status=RunStatus.QUEUED,
                origin=USER,
                model="offline",
                created_at=at,
            )

            async def unit(tx: SessionTx) -> None:
                await tx.beat(other, at=at + FAR)
                await tx.add_run(theirs, prompt="say 1", user_id="local", first_seq=1)
                assert await tx.start_run(theirs.id, server_id=other.id, at=at, lease_until=at + FAR)

            await w.store.write(unit)
            waiting = await w.prompt(sid, "say 2")
            assert await w.status(sid, waiting.run_id) == "queued"
            process.kill()
            process.wait()
            assert (await w.until_end(sid, theirs.id))["event"]["code"] == "interrupted"
            assert (await w.until_end(sid, waiting.run_id))["event"]["outcome"] == {"type": "success"}
    finally:
        process.kill()
        process.wait()


async def test_a_server_counts_those_that_are_alive_and_how_old_its_lease_is(tmp_path: Path) -> None:
    async with world(tmp_path) as first:
        assert first.orchestrator.stats().replicas == 1
        async with world(tmp_path) as second:
            for each in (first, second):
                await eventually(lambda each=each: each.orchestrator.stats().replicas == 2)  # type: ignore[misc]
        await eventually(lambda: first.orchestrator.stats().replicas == 1)
        trust = first.orchestrator.trust
        await first.orchestrator._maintenance._beat()
        fresh = first.orchestrator.stats().lease_age
        assert 0 <= fresh < 5
        trust.until -= 9  # so long ago it was
        assert 9 <= first.orchestrator.stats().lease_age < fresh + 14


async def append(w: World, session_id: str, age: float) -> None:
    """An event that was made so many seconds ago."""
    made = now() - timedelta(seconds=age)
    draft = Draft(Custom(name="navi.kernel", value={}), run_id=None, origin=SYSTEM, at=made)
    await w.store.write(lambda tx: tx.append(session_id, [draft]))


async def test_how_late_events_of_another_server_are_read_is_measured_for_those_who_follow(tmp_path: Path) -> None:
    async with world(tmp_path) as first, world(tmp_path) as second:
        own: list[float] = []
        found: list[float] = []
        first.orchestrator.log.observe_lag(own.append)
        second.orchestrator.log.observe_lag(found.append)
        session_id = await first.session()
        await append(first, session_id, 1000)  # it was there before anybody followed

        async def read(w: World, count: int) -> list[Envelope]:
            return await w.until(session_id, lambda e: e["seq"] >= count)

        readers = [asyncio.create_task(read(w, 3)) for w in (first, second)]
        await eventually(lambda: first.orchestrator.log.followers + second.orchestrator.log.followers == 2)
        await asyncio.sleep(0.3)  # both are at the head
        for count, age in ((1, 30), (2, 60)):
            await append(first, session_id, age)
            await eventually(lambda count=count: len(found) == count)  # type: ignore[misc]
        await asyncio.gather(*readers)
        assert [round(each, -1) for each in found] == [30, 60]
        assert own == [], "what a server writes itself comes by no signal"
