"""Where the processes live: one database file, one wall clock, the sessions with their runs, and the users.

Sessions accept prompts by the orchestrator's own transaction (``CommandHandler``); the actor is reduced to what
matters here: a run goes on until the explorer ends it, and then the next prompt in the queue starts.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from navi_jupyter.commands import Acceptance, Command, Prompt, Stop
from navi_jupyter.errors import LeaseLost, NaviError
from navi_jupyter.model.recalls import Recall, RecallCreate, When
from navi_jupyter.model.sessions import Failure, Origin, OriginKind, Run, RunStatus, Session, needed_approval
from navi_jupyter.orchestrator import active_run, command_handler, run_endings
from navi_jupyter.orchestrator.active_run import RunEffects
from navi_jupyter.orchestrator.command_handler import CommandHandler, Sender
from navi_jupyter.orchestrator.prompts import Arrival
from navi_jupyter.orchestrator.run_endings import Ending, close_run
from navi_jupyter.orchestrator.transcript import fold_frames
from navi_jupyter.orchestrator.upkeep import maintenance, servers
from navi_jupyter.scheduling import misfires, outcomes
from navi_jupyter.scheduling.schedules import next_after
from navi_jupyter.scheduling.service import RecallService
from navi_jupyter.store.session_list.read_marks import ReadMarks
from tests.scheduling.model.engines import Contention, open_stores
from tests.scheduling.model.inline import at_once
from tests.scheduling.model.processes import Process
from tests.scheduling.model.telling import Messages

if TYPE_CHECKING:
    from navi_jupyter.model.recalls import Schedule
    from navi_jupyter.ports.recalls import Claimed, Happened, RecallState
    from navi_jupyter.store.database import Database

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
OWNERS = ("ada", "bob")
SKEW = timedelta(seconds=4)
"""By which two processes' clocks differ at most."""
QUEUE = 2
"""Prompts that may wait in a session: few, so that it is full at times."""
Patch = Callable[[object, str, object], None]


class Violation(AssertionError):
    """An invariant does not hold."""


class Segment:
    """A stretch of a recall's life with one schedule."""

    def __init__(self, schedule: Schedule, first: datetime | None) -> None:
        self.schedule = schedule
        self.first = first
        self.end: datetime | None = None
        """The first slot that was not in the ledger when the schedule was changed; None while it is the present one."""


class House:
    """See the module. Made by :meth:`open`, for one history after the other."""

    def __init__(self, stores: Sequence[Database], users: Database, contention: Contention | None) -> None:
        self.stores = stores
        self.users = users
        self.contention = contention
        """None on SQLite."""
        self.without_indexes: list[str] = []
        self.acting: Process | None = None
        """Who is being moved: on whose clock what happens now is decided."""
        self.reset()

    @classmethod
    async def open(cls, path: Path, patch: Patch, *, stores: int = 3) -> House:
        house = cls(*await open_stores(path, patch, stores))
        for module in (command_handler, active_run, run_endings, servers, maintenance):
            patch(module, "now", lambda: house.clock())
        patch(asyncio, "to_thread", at_once)  # so that a history is the same for a seed
        patch(misfires, "AT_ONCE", 2)
        patch(misfires, "LEDGER_ROWS", 8)  # the rules are the same; a night's backlog is shorter
        patch(misfires, "CATCH_UP", 6)
        for name, module in list(sys.modules.items()):
            if name.startswith(
                ("navi_jupyter.scheduling.", "navi_jupyter.orchestrator.", "navi_jupyter.notifications.")
            ):
                for maker in ("new_id", "ordered_id"):
                    if hasattr(module, maker):
                        patch(module, maker, lambda prefix: f"{prefix}_{next(house.ids):06}")
        return house

    async def drop_indexes(self) -> None:
        """Of what a planted mistake does without."""
        for name in self.without_indexes:
            if self.contention is not None:
                await self.contention.execute(f"DROP INDEX {name}")
            else:
                self.users._db._db.execute(f"DROP INDEX {name}")  # type: ignore[attr-defined]

    async def close(self) -> None:
        for store in self.stores:
            await store.close()
        if self.contention is not None:
            await self.contention.close()

    def reset(self) -> None:
        """As on the first day, ids too: a seed alone gives the same history as after others."""
        self.number = 0
        self.ids = itertools.count()
        self.wall = START
        self.steady = 0.0
        """Seconds on a clock that cannot be set. Those count in which the machine slept."""
        self.trace: list[str] = []
        self.sessions: list[str] = []
        self.recalls: list[Recall] = []
        self.segments: dict[str, list[Segment]] = {}
        self.owners: dict[str, str] = {}
        """Of sessions and of recalls."""
        self.cancelled: set[str] = set()
        self.set_back = 0
        """How often the clock was set back by an hour."""
        self.events: dict[tuple[str, str], bool] = {}
        """What happened, by recall and key; whether somebody has been told that it fires."""
        self.messages = Messages()
        self.to_tell = 0
        """Looks for what is to be told that are likely to be worth it, by whomever."""
        self.starts: dict[tuple[str, str], list[datetime]] = {}
        """Missed slots that may start, by the process that planned them and their owner: not before when."""
        self.effects: dict[str, str] = {}
        """The tool with an effect that each run has started last."""
        self.calm = False
        """No more faults."""
        self.dice = random.Random(0)
        self.told: Any = None
        self.keys: dict[tuple[str, str], int] = {}
        """Manual firings that were asked for, and how often."""
        self.processes: list[Process] = []
        self.dead: dict[str, bool] = {}
        """Servers that died, and whether the others have noticed."""
        self.holding = False
        self.overlapped = False
        """Whether the last move was one of several processes at once."""
        self.words = itertools.count()
        """Numbers of what runs write into logs."""
        self.seen = 0
        self.violations: list[str] = []
        self.servers = 0
        self.service = RecallService(self.users, clock=self, max_recalls_per_user=1000)  # type: ignore[arg-type]

    async def clear(self) -> None:
        """Nothing of the last history stays in the database."""
        for process in self.processes:
            await process.die()

        async def unit(tx: Any) -> None:
            for table in ("recalls", "sessions", "servers", "watched", "takes"):
                await tx.change(f"DELETE FROM {table}")

        await self.users.write(unit)
        self.reset()

    def name_server(self) -> str:
        self.servers += 1
        return f"server{self.servers}"

    # --- time

    def now(self) -> datetime:
        """The users' clock."""
        return self.wall

    def clock(self) -> datetime:
        """Now, on the clock of whoever acts."""
        return self.wall if self.acting is None else self.acting.clock.now()

    def actor(self, transition: Any) -> Process | None:
        """Who has made a transition that is in ``watched``."""
        if self.contention is None or not self.overlapped:
            return self.acting
        names = {self.contention.name_of(process.store): process for process in self.processes}
        return names.get(transition["by"])

    def holds_reports(self) -> bool:
        """Whether a process that has delivered lets writing it down wait."""
        return self.holding

    def note(self, what: str) -> None:
        self.trace.append(f"{self.wall - START} {what}")

    # --- what sessions do

    def _intake(self, session_id: str, process: Process) -> CommandHandler:
        return CommandHandler(session_id, server_id=process.id, max_queued=QUEUE)

    async def submit(
        self, process: Process, session_id: str, command: Command, *, user_id: str, origin: Origin
    ) -> Acceptance:
        """As the orchestrator: durable when it returns, and the same answer to the same command."""
        if isinstance(command, Stop):
            await self._check_stop(process, command.run_id or "")
            sender = Sender(command.command_id or "", user_id, origin)
            stopped = await process.store.write(
                lambda tx: self._intake(session_id, process).stop(tx, command, sender), durable=True, on=session_id
            )
            return stopped.acceptance
        assert isinstance(command, Prompt)
        assert command.command_id is not None
        arrival = Arrival(prompt=command, command_id=command.command_id, user_id=user_id, origin=origin)
        before = await self._startable(command.command_id)
        admission = await process.store.write(
            lambda tx: self._intake(session_id, process).prompt(tx, arrival, may_start=process.trust.check()),
            durable=True,
            on=session_id,
        )
        if origin.kind is OriginKind.RECALL and not admission.repeated and before is not None:
            # Not raised: the scheduler would take it for a failure of the session.
            self.violations.append(f"I8: {command.command_id} was started: {before}")
        self._begun(process, admission.started)
        return admission.acceptance

    async def _check_stop(self, process: Process, run_id: str) -> None:
        """A run is stopped for its time limit when it has had that time, by clocks that differ by four seconds."""
        run = await self.run(run_id)
        assert run is not None
        most = (await self.state(run.origin.recall_id or "")).recall.policy.timeout
        # Decided in a transaction before: the clock may have been set back in between.
        begun, now = run.started_at, process.clock.now() + SKEW + timedelta(hours=self.set_back)
        if most is None or begun is None or now - begun < most:
            self.violations.append(f"B2: {run_id} that began at {begun} is stopped at {now}: it may take {most}")

    @staticmethod
    def _begun(process: Process, run: Run | None) -> None:
        if run is None:
            return
        if process.trust.check():
            process.runs[run.id] = run
        else:
            process.trust.given_up[run.id] = run.session_id

    async def _startable(self, command_id: str) -> str | None:
        """Why a prompt of a recall must not start now."""
        row = await self.users.fetch_one(
            "SELECT f.status, f.kind, f.recall_id FROM firings f WHERE f.command_id = ?", (command_id,)
        )
        if row is None:
            return None
        state = await self.state(row["recall_id"])
        if row["kind"] != "manual":
            seen = await self.users.seen(state.recall.session_id, state.owner)
            if (why := seen.ends(state.recall)) is not None:
                return why
            if state.recall.status == "paused":
                return "its recall is paused"
        return None if row["status"] in ("pending", "claimed", "running") else f"its firing is {row['status']}"

    async def user_writes(self, session_id: str, process: Process, command_id: str, *, told: bool) -> None:
        """``told``: the recalls hear of it, too; else its server dies before."""
        prompt, owner = Prompt(command_id=command_id, text="hello", mode="enqueue"), self.owners[session_id]
        arrival = Arrival(
            prompt=prompt, command_id=command_id, user_id=owner, origin=Origin(kind=OriginKind.USER, recall_id=None)
        )
        with suppress(NaviError):  # the queue is full
            admission = await process.store.write(
                lambda tx: self._intake(session_id, process).prompt(tx, arrival, may_start=process.trust.check()),
                durable=True,
                on=session_id,
            )
            self._begun(process, admission.started)
            if told:
                at, self.acting = process.clock.now(), None
                await self.service.occurrences.user_wrote(session_id, at)

    async def user_reads(self, session_id: str, *, told: bool) -> None:
        owner, at = self.owners[session_id], self.clock()
        await ReadMarks(self.users).mark(session_id, owner=owner, seq=10**6, at=at)
        if told:
            await self.service.occurrences.user_read(session_id, at)

    def occurred(self, happened: Happened, fires: bool) -> None:
        """The ledger was told of an event, durably."""
        name = happened.recall_id, happened.key
        if fires and self.events.get(name):
            raise Violation(f"E1: {name} fires twice")
        self.events[name] = self.events.get(name, False) or fires

    async def run(self, run_id: str) -> Run | None:
        run: Run | None = await self.users.write(lambda tx: tx.run(run_id))
        return run

    async def effect(self, process: Process, run: Run, tool: str) -> None:
        """The run starts a tool with an effect, unless others have closed it meanwhile."""
        shared: Any = SimpleNamespace(
            event_writer=process.journal, store=process.store, server_id=process.id, trust=process.trust
        )
        with suppress(LeaseLost):
            await RunEffects(shared, run, noted=lambda _: None)(tool)
            self.effects[run.id] = tool
            process.acting[run.id] = tool
            self.note(f"{run.id} starts {tool}")
            await self.acts(process, run)

    async def acts(self, process: Process, run: Run) -> None:
        """A tool that the run has started has another effect, of which the database knows nothing.

        Not if its server has noticed that it may have lost the run: nothing is left to it then but that.
        """
        if run.id not in process.acting or not process.trust.check():
            return
        row = await self.users.fetch_one("SELECT server_id, status FROM runs WHERE id = ?", (run.id,))
        if row is None or row["status"] != "running" or row["server_id"] != process.id:
            raise Violation(f"I3: {process.id} works on {run.id}, which another server has ended: two executors")

    async def user_stops(self, session_id: str, process: Process, command_id: str) -> None:
        """The user stops what runs, through any server."""
        owner = self.owners[session_id]
        sender = Sender(command_id, owner, Origin(kind=OriginKind.USER, recall_id=None))
        stop = Stop(command_id=command_id)
        intake = self._intake(session_id, process)
        await process.store.write(lambda tx: intake.stop(tx, stop, sender), durable=True, on=session_id)

    async def to_stop(self, run: Run) -> bool:
        row = await self.users.fetch_one("SELECT stop_command_id FROM runs WHERE id = ?", (run.id,))
        return row is not None and row["stop_command_id"] is not None

    async def active(self) -> int:
        rows = await self.users.fetch_all("SELECT id FROM runs WHERE status IN ('queued', 'running')")
        return len(rows)

    async def end(self, run: Run, status: RunStatus, *, told: bool, code: str | None = None) -> None:
        """A run ends on its server, the next one in its session starts, and the server's recalls hear of it.

        Unless others have closed it meanwhile: then it has nothing to say.
        """
        process = next(p for p in self.processes if run.id in p.runs)
        del process.runs[run.id]
        error = Failure(code=code, message=code) if code else None
        if code == "needed_approval":
            error = needed_approval(["run_code"])
        self.acting = process

        async def unit(tx: Any) -> Run | None:
            fold = fold_frames(await tx.run_frames(run.session_id, run.id))
            if not await close_run(tx, run, Ending(status=status, error=error), fold):
                return None
            ended: Run | None = await tx.run(run.id)
            return ended

        ended = await process.store.write(unit)
        await self.begin_next(process, run.session_id)
        if ended is None:
            self.note(f"{process.id} finds {run.id} closed")
        elif told:
            process.ended.append(ended)

    async def begin_next(self, process: Process, session_id: str) -> None:
        """As the session's actor, when nothing is in the way (any more)."""
        if not process.trust.check():
            return
        begun = await process.store.write(self._intake(session_id, process).begin_next)
        self._begun(process, begun)
        if begun is not None and self.dice.random() < 0.8:  # else its server dies before; the sweep finds it
            await process.scheduler.on_run_started(begun)

    # --- what users do

    async def make(self, session_id: str, spec: dict[str, Any], rules: dict[str, Any]) -> None:
        request = RecallCreate.model_validate(
            {"session_id": session_id, "message": "look", "schedule": spec, "policy": rules}
        )
        owner = self.owners[session_id]
        recall = await self.service.create(request, owner=owner, zone="Europe/Berlin")
        state = await self.state(recall.id)
        self.recalls.append(recall)
        self.owners[recall.id] = owner
        self.segments[recall.id] = [Segment(recall.schedule, state.due_at)]
        self.note(f"made {recall.id} {spec} {rules} in {session_id}")

    async def state(self, recall_id: str) -> RecallState:
        state = await self.users.recall_state(recall_id)
        assert state is not None
        return state

    async def edited(self, before: RecallState, *, anew: bool) -> None:
        """Note that the schedule was changed (``anew``), or that one that had no more slots has some again."""
        recall_id = before.recall.id
        after = await self.state(recall_id)
        goes_on = before.due_at is None and after.due_at is not None
        if isinstance(after.recall.schedule, When) or not (anew or goes_on):
            return
        self.segments[recall_id][-1].end = before.due_at or await self.after_last(before)
        self.segments[recall_id].append(Segment(after.recall.schedule, after.due_at))

    async def after_last(self, state: RecallState) -> datetime | None:
        """The first slot that is not in the ledger of a recall that has no more."""
        last = await self.users.write(lambda tx: tx.last_slots([state.recall.id]))
        return next_after(state.recall.schedule, last[state.recall.id]) if last else None

    async def add_session(self) -> None:
        self.number += 1
        owner = OWNERS[self.number % 3 == 0]
        session = Session(
            id=f"s_{self.number}", owner=owner, title="t", profile="p", model="offline", created_at=self.wall,
            updated_at=self.wall,
        )  # fmt: skip
        await self.users.write(lambda tx: tx.add_session(session))
        self.sessions.append(session.id)
        self.owners[session.id] = owner

    # --- what is seen at once

    def claimed(self, claims: Sequence[Claimed], now: datetime) -> None:
        """I12: nothing is taken before its time, on the clock that decides. The first time: later ones may be woken."""
        for claim in claims:
            firing, rules = claim.firing.firing, claim.recall.recall.policy
            if claim.firing.fence != 1 or firing.kind != "auto":
                continue
            at = firing.slot
            schedule = claim.recall.recall.schedule
            segments = self.segments[firing.recall_id]
            if rules.jitter is not None and len(segments) == 1:
                at += outcomes.jitter(firing.recall_id, at, rules.jitter, next_after(schedule, at))
            if now < at:
                raise Violation(f"I12: {firing.id} of {at} was taken at {now}")
