"""How many statements a prompt, a recall and a run cost: each is a turn of the one connection that all sessions share.

A statement counts that names the session, its recall, its firing or its run; what a transaction costs by itself, and
looks for whatever is due, are of all sessions together.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.commands import Prompt
from navi_jupyter.events import Event
from navi_jupyter.model.recalls import RecallCreate
from navi_jupyter.model.sessions import Run, SessionCreate
from navi_jupyter.orchestrator.orchestrator import Orchestrator
from navi_jupyter.ports.agent import ToolContext, Turn, TurnResult
from navi_jupyter.scheduling.scheduler import Scheduler
from navi_jupyter.scheduling.service import RecallService
from tests.support.database import on_sqlite, open_store
from tests.support.orchestrator_world import OWNER, PATIENCE

Trace = list[tuple[int, str]]


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> Trace:
    """What SQLite executes, on all connections that are opened from now on: the connection's number, the statement."""
    executed: Trace = []
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def traced(*given: Any, **named: Any) -> sqlite3.Connection:
        connection = connect(*given, **named)
        number = id(connection)
        connection.set_trace_callback(lambda statement: executed.append((number, statement)))
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return executed


class Silent:
    """An agent that answers with nothing: what its events would cost depends on how they are merged."""

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        yield TurnResult(conversation=b"{}")


@dataclass
class World:
    trace: Trace
    orchestrator: Orchestrator
    scheduler: Scheduler
    recalls: RecallService
    ended: asyncio.Queue[Run] = field(default_factory=asyncio.Queue)
    recorded: asyncio.Event = field(default_factory=asyncio.Event)
    """A firing has ended in the ledger."""

    async def session(self) -> str:
        return (await self.orchestrator.sessions.create(SessionCreate(), owner=OWNER)).id

    def counted(self, *names: str) -> int:
        """How many statements named one of these. A trigger's repetition of its statement is none."""
        found = 0
        last: tuple[int, str] | None = None
        for one in self.trace:
            if one != last and not one[1].startswith("--") and any(name in one[1] for name in names):
                found += 1
            last = one
        self.trace.clear()
        return found


@asynccontextmanager
async def world(folder: Path, trace: Trace) -> AsyncIterator[World]:
    store = await open_store(folder / "navi.db")
    orchestrator = Orchestrator(store, Silent())
    scheduler = Scheduler(store, orchestrator.submit, server_id=orchestrator.server.id)
    made = World(trace, orchestrator, scheduler, RecallService(store, changed=scheduler.wake))

    async def run_ended(run: Run) -> None:
        await made.ended.put(run)

    def appended(_session_id: str, frames: list[tuple[int, str]]) -> None:
        if any('"action":"fired"' in frame for _, frame in frames):
            made.recorded.set()

    store.subscribe(appended)
    await orchestrator.start(made.recalls, scheduler.on_run_ended, run_ended, run_started=scheduler.on_run_started)
    await scheduler.start()
    try:
        yield made
    finally:
        await scheduler.stop()
        await orchestrator.stop()
        await store.close()


@on_sqlite
async def test_a_prompt_a_recall_and_its_run_take_few_statements(tmp_path: Path, trace: Trace) -> None:
    async with world(tmp_path, trace) as w, asyncio.timeout(PATIENCE):
        prompted, recalled = await w.session(), await w.session()
        trace.clear()

        accepted = await w.orchestrator.submit(prompted, Prompt(text="look", command_id="c_1"), user_id=OWNER)
        assert accepted.run_id is not None
        run = await w.ended.get()
        assert run.id == accepted.run_id
        assert w.counted(prompted, run.id) <= ACCEPTED + RUN

        body = {"session_id": recalled, "message": "look", "schedule": {"kind": "once", "in": "2s"}}
        recall = await w.recalls.create(RecallCreate.model_validate(body), owner=OWNER, zone="UTC")
        assert w.counted(recalled, recall.id) <= ADDED
        run = await w.ended.get()
        await w.recorded.wait()
        assert w.counted(recalled, recall.id, run.id) <= PLANNED + ACCEPTED + LEASE + RUN + 2 * SETTLED


ACCEPTED = 8
"""The session, for its owner. In one transaction: what the command finds, the run in its way, the new run, its start,
the head of the log, the events, the acceptance."""
RUN = 7
"""What it begins with, the turns before, its own events so far, prompts that are to join it. In one transaction: its
end, the head of the log, the event."""
ADDED = 4
"""In one transaction: the owner's limit and session, the recall, the head of the log, the event."""
PLANNED = 4
"""What waits already. In one transaction: the recall's version, the recall, the firing."""
LEASE = 1
SETTLED = 6
"""A start, or an end. In one transaction: the recall, and the firing or when its run has begun; both saved, the head of
the log, the event."""
