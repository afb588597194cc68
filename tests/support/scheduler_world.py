"""A small world for the scheduler: the real store, a clock that tests move, a session that can be busy."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from navi_jupyter.commands import Acceptance, Command, Prompt, Stop
from navi_jupyter.errors import SessionBusy, SessionNotFound
from navi_jupyter.events import Custom, Draft
from navi_jupyter.model.base import new_id
from navi_jupyter.model.recalls import Recall, RecallCreate
from navi_jupyter.model.sessions import Failure, Origin, Run, RunStatus, Session
from navi_jupyter.scheduling.scheduler import Scheduler
from navi_jupyter.scheduling.service import RecallService
from navi_jupyter.store.database import Database
from tests.support.database import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from navi_jupyter.clock import Clock

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
OWNER = "ada"


class TestClock:
    """Implements Clock: time passes when :meth:`advance` says so."""

    __test__ = False

    def __init__(self, at: datetime = START) -> None:
        self.at = at
        self._waits: list[tuple[datetime, int, asyncio.Event]] = []
        self._number = itertools.count()

    def now(self) -> datetime:
        return self.at

    async def wait(self, signal: asyncio.Event, *, until: datetime) -> None:
        if until <= self.at:
            await asyncio.sleep(0)
            return
        come = asyncio.Event()
        heapq.heappush(self._waits, (until, next(self._number), come))
        waits = [asyncio.ensure_future(come.wait()), asyncio.ensure_future(signal.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    def advance(self, by: timedelta) -> None:
        self.at += by
        while self._waits and self._waits[0][0] <= self.at:
            heapq.heappop(self._waits)[2].set()


class Sessions:
    """Implements Submit as the orchestrator does: idempotent by command, one run at a time, durable in ``runs``."""

    def __init__(self, store: Database, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.prompts: list[tuple[str, Prompt, Origin]] = []
        self.stops: list[Stop] = []
        self.failure: Exception | None = None
        """Raised by each submit while set."""

    async def __call__(self, session_id: str, command: Command, *, user_id: str, origin: Origin) -> Acceptance:
        if self.failure is not None:
            raise self.failure
        if isinstance(command, Stop):
            self.stops.append(command)
            return Acceptance(command_id=command.command_id or "", seq=0, run_id=command.run_id)
        assert isinstance(command, Prompt)
        now = self.clock.now()

        async def unit(tx: Any) -> tuple[Acceptance, bool]:
            earlier = await tx.acceptance(session_id, command.command_id)
            cut = None if earlier is None else await tx.run(earlier.run_id)
            if cut is not None and (cut.status is not RunStatus.INTERRUPTED or await tx.last_effect(cut)):
                return earlier, False
            if await tx.session(session_id) is None:
                raise SessionNotFound("gone")
            if command.mode == "reject" and await tx.active_run(session_id) is not None:
                raise SessionBusy("busy")
            run = Run(
                id=new_id("r"),
                session_id=session_id,
                command_id=command.command_id or new_id("c"),
                status=RunStatus.QUEUED,
                origin=origin,
                model="offline",
                created_at=now,
            )
            if cut is None:
                await tx.add_run(run, prompt=command.text, user_id=user_id, first_seq=1)
            else:
                await tx.repeat_run(cut.id, run)
            await tx.start_run(run.id, server_id="test", at=now, lease_until=now + timedelta(days=1))
            acceptance = Acceptance(command_id=run.command_id, seq=1, run_id=run.id)
            if cut is None:
                await tx.accept(session_id, "prompt", acceptance, user_id=user_id)
            return acceptance, cut is None

        acceptance, new = await self.store.write(unit)
        if new:
            self.prompts.append((session_id, command, origin))
        return acceptance

    async def end(self, run_id: str, status: RunStatus = RunStatus.COMPLETED, code: str | None = None) -> Run:
        """Give a run its final status, as the owner of its session would."""
        error = Failure(code=code, message=code) if code else None
        at = self.clock.now()

        async def unit(tx: Any) -> Run:
            await tx.end_run(run_id, status=status, at=at, error=error)
            run: Run = await tx.run(run_id)
            return run

        return await self.store.write(unit)

    async def begin_next(self, session_id: str) -> Run | None:
        """Start the prompt that waits longest in the session's queue, as the owner of the session would."""
        at = self.clock.now()

        async def unit(tx: Any) -> Run | None:
            row = await tx.one(
                "SELECT id FROM runs WHERE session_id = ? AND status = 'queued' ORDER BY created_at, id", (session_id,)
            )
            if row is None:
                return None
            await tx.start_run(row["id"], server_id="test", at=at, lease_until=at + timedelta(days=1))
            run: Run = await tx.run(row["id"])
            return run

        return await self.store.write(unit)

    async def record_effect(self, run: Run, tool: str) -> None:
        """As a run does before it starts a tool with an effect."""
        event = Custom(name="navi.tool", value={"action": "started", "tool": tool, "run_id": run.id})
        draft = Draft(event, run_id=run.id, origin=run.origin, at=self.clock.now())
        await self.store.write(lambda tx: tx.append(run.session_id, [draft]))


class World:
    """Everything a test of recalls needs."""

    def __init__(self, store: Database, clock: TestClock) -> None:
        self.store = store
        self.clock = clock
        self.sessions = Sessions(store, clock)
        self.whens: list[str] = []
        """Who reported that what is to be watched may have changed."""
        self.service = RecallService(
            store, clock=clock, changed=self._changed, whens_changed=lambda _: self.whens.append("service")
        )
        self._last: Scheduler | None = None

    def _changed(self) -> None:
        if self._last is not None:
            self._last.wake()

    def scheduler(self, server_id: str = "server-1", **callbacks: Callable[..., Any]) -> Scheduler:
        callbacks = {"whens_changed": lambda _: self.whens.append("scheduler"), **callbacks}
        self._last = Scheduler(self.store, self.sessions, server_id=server_id, clock=self.clock, **callbacks)
        return self._last

    async def add_session(self, owner: str = OWNER, **fields: Any) -> str:
        session = Session(
            id=new_id("s"),
            owner=owner,
            title="t",
            profile="default",
            model="offline",
            created_at=self.clock.now(),
            updated_at=self.clock.now(),
            **fields,
        )

        async def unit(tx: Any) -> None:
            await tx.add_session(session)

        await self.store.write(unit)
        return session.id

    async def recall(
        self, session_id: str, schedule: dict[str, Any], policy: dict[str, Any] | None = None, **fields: Any
    ) -> Recall:
        request = RecallCreate.model_validate(
            {
                "session_id": session_id,
                "message": "look at the loss",
                "schedule": schedule,
                "policy": policy or {},
                **fields,
            }
        )
        return await self.service.create(request, owner=OWNER, zone="Europe/Berlin")

    async def get(self, recall: Recall) -> Recall:
        return await self.service.queries.get(recall.id, owner=OWNER)

    async def ledger(self, recall: Recall) -> list[tuple[str, float, str | None]]:
        """(status, slot in seconds after START, reason), oldest first."""
        rows, _ = await self.service.queries.ledger(recall.id, owner=OWNER, limit=1000)
        return [(f.status.value, (f.slot - START).total_seconds(), f.reason) for f in reversed(rows)]

    async def said(self, session_id: str) -> list[tuple[str, str]]:
        """(action, status) of the ``navi.recall`` events of a session."""
        frames = await self.store.frames(session_id, after=0, limit=10_000)
        events = [json.loads(frame)["event"] for _, frame in frames]
        return [(e["value"]["action"], e["value"]["status"]) for e in events if e.get("name") == "navi.recall"]

    async def step(self, scheduler: Scheduler, *, settle: bool = True) -> int:
        """One turn of a scheduler that is not running by itself: plan, claim, deliver, settle. How many delivered."""
        from navi_jupyter.scheduling.ledger import Report

        _, claims = await scheduler.plan_and_claim(self.clock.now())
        reports = [
            Report(
                outcome=await scheduler.deliver(claim),
                firing_id=claim.firing.firing.id,
                fence=claim.firing.fence,
                session_id=claim.firing.session_id,
            )
            for claim in claims
        ]
        if settle and reports:
            await scheduler.settle(reports)
        return len(reports)

    async def active_run(self, session_id: str) -> Run | None:
        async def unit(tx: Any) -> Run | None:
            run: Run | None = await tx.active_run(session_id)
            return run

        return await self.store.write(unit)

    async def finish(
        self, scheduler: Scheduler, session_id: str, status: RunStatus = RunStatus.COMPLETED, code: str | None = None
    ) -> Run:
        """End the session's run and begin the next in its queue; the scheduler stores both."""
        run = await self.active_run(session_id)
        assert run is not None
        ended = await self.sessions.end(run.id, status, code)
        await scheduler.on_run_ended(ended)
        begun = await self.sessions.begin_next(session_id)
        if begun is not None:
            await scheduler.on_run_started(begun)
        reports, scheduler._reports = scheduler._reports, []
        if reports:
            await scheduler.settle(reports)
        return ended


@asynccontextmanager
async def world(path: Path, *, serves: str = "*") -> AsyncIterator[World]:
    store = await open_store(path / "navi.db", serves=serves)
    try:
        yield World(store, TestClock())
    finally:
        await store.close()
