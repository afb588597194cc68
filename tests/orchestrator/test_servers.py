"""What one server does about another that is gone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from navi_jupyter.clock import now
from navi_jupyter.model.sessions import USER, Run, RunStatus
from navi_jupyter.orchestrator.upkeep.servers import process_started
from navi_jupyter.ports.transactions import SessionTx
from tests.support.orchestrator_world import world

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
