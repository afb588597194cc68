"""What ``navi follow`` prints, with the events of a real log: everyone has a name, from wherever it begins."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import aclosing
from pathlib import Path

from navi_jupyter.cli.run_printer import SessionPrinter
from tests.support.orchestrator_world import OWNER, World, ends, world


async def printed(w: World, sid: str, last: str | None, begun: asyncio.Event | None = None) -> str:
    """What a follower without a cursor prints until that run ends. ``begun``: set once it has the session's state."""
    out = io.StringIO()
    printer = SessionPrinter(out, sid)
    async with aclosing(w.orchestrator.follow(sid, after=None, owner=OWNER)) as pages:
        async for page in pages:
            for _, frame in page.envelopes:
                envelope = json.loads(frame)
                printer.show(envelope)
                if ends(last)(envelope):
                    return out.getvalue()
            if begun is not None:
                begun.set()
    raise AssertionError(out.getvalue())


async def test_who_follows_from_within_a_run_reads_who_speaks_and_the_prompts_that_waited(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        running = await w.prompt(sid, "wait")
        queued = await w.prompt(sid, "say 2")
        await w.streaming(sid, running.run_id)
        begun = asyncio.Event()
        follower = asyncio.create_task(printed(w, sid, queued.run_id, begun))
        await begun.wait()
        w.agent.gate.set()
        assert await follower == "\nYou: wait\n\nNavi:\n0 1 \n\nYou: say 2\n\nNavi:\n0 1 \n"
