"""Random commands to two servers on one file: in whichever order they come, a reader takes the log."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.commands import Acceptance
from navi_jupyter.errors import CommandNotFound, InterruptNotFound, LimitReached, SessionBusy
from tests.support.log_reader import Reader
from tests.support.orchestrator_world import OWNER, World, world

WORDS = ("say 2", "say 2", "ask 1", "ask 2", "inner", "twice", "listen", "busy", "fail", "crash")
MODES = ("reject", "enqueue", "interrupt", "rollback", "steer", "collect")
EXPECTED = (CommandNotFound, InterruptNotFound, LimitReached, SessionBusy)


class Chaos:
    """One random history of one session."""

    def __init__(self, seed: int, servers: list[World]) -> None:
        self.dice = random.Random(seed)
        self.servers = servers
        self.accepted: list[Acceptance] = []
        self.count = 0

    @property
    def server(self) -> World:
        return self.dice.choice(self.servers)

    async def step(self, sid: str) -> None:
        """One command, or a moment without any."""
        choices = ["prompt"] * 5 + ["answer"] * 4 + ["stop", "unqueue", "edit", "rest", "rest"]
        await getattr(self, f"_{self.dice.choice(choices)}")(sid)

    async def _prompt(self, sid: str) -> None:
        self.count += 1
        text, mode = self.dice.choice(WORDS), self.dice.choice(MODES)
        if mode == "collect":
            text = "say 2"  # what is collected is read as one prompt
        accepted = await self.server.prompt(sid, text, mode=mode, command_id=f"c{self.count}")
        self.accepted.append(accepted)

    async def _answer(self, sid: str) -> None:
        for question in (await self.server.view(sid)).approvals[:1]:
            status = self.dice.choice(("resolved", "resolved", "cancelled"))
            payload: Any = {"approved": self.dice.random() < 0.5} if question.kind == "approval" else "a"
            if question.response_schema is not None and question.response_schema["type"] == "object":
                payload = {"n": 1}
            await self.server.answer(sid, question.id, status=status, payload=payload)

    async def _stop(self, sid: str) -> None:
        await self.server.stop(sid)

    async def _unqueue(self, sid: str) -> None:
        await self.server.unqueue(sid, f"c{self.dice.randint(1, self.count + 1)}")

    async def _edit(self, sid: str) -> None:
        await self.server.edit(sid, f"c{self.dice.randint(1, self.count + 1)}", "say 3")

    async def _rest(self, sid: str) -> None:
        for _ in range(self.dice.randrange(30)):
            await asyncio.sleep(0)

    async def settle(self, sid: str) -> None:
        """Answer whatever is asked until nothing goes on any more."""
        async with asyncio.timeout(30):
            while True:
                view = await self.servers[0].view(sid)
                if view.run is None and not view.queue:
                    return
                with suppress(*EXPECTED):
                    await self._answer(sid)
                await asyncio.sleep(0.005)


async def check(w: World, sid: str, accepted: list[Acceptance]) -> None:
    log = await w.log(sid)
    reader = Reader()
    for envelope in log:
        reader.take(envelope)
    assert reader.running is None
    assert not reader.open
    told = [e["event"]["value"] for e in log if e["event"].get("name") == "navi.interrupt"]
    opened = Counter(v["interrupt"]["id"] for v in told if v["action"] == "opened")
    assert opened == Counter(v["interrupt"]["id"] for v in told if v["action"] != "opened")
    assert set(opened.values()) <= {1}
    for one in accepted:
        assert one.run_id is not None
        run = await w.orchestrator.sessions.run(sid, one.run_id, owner=OWNER)
        assert run.status.final, run
    said = [(m.id, m.role, m.run_id, m.content) for m in await w.orchestrator.sessions.messages(sid, owner=OWNER)]
    assert said == [m[:4] for m in reader.conversation() if m[2] in _turns(log)]


def _turns(log: list[dict[str, Any]]) -> set[str]:
    return {e["run_id"] for e in log if e["event"]["type"] == "RUN_STARTED"}


@pytest.mark.parametrize("seed", range(int(os.environ.get("NAVI_TEST_HISTORIES", "24")) // 6))
async def test_no_order_of_commands_to_two_servers_breaks_a_session(tmp_path: Path, seed: int) -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(world(tmp_path, max_concurrent_runs=3)) for _ in range(2)]
        for server in servers:
            server.agent.gate.set()
        for number in range(6):
            sid = await servers[0].session()
            chaos = Chaos(seed * 1000 + number, servers)
            for _ in range(25):
                with suppress(*EXPECTED):
                    await chaos.step(sid)
            await chaos.settle(sid)
            await check(servers[0], sid, chaos.accepted)
            assert {type(one) for one in chaos.accepted} <= {Acceptance}
