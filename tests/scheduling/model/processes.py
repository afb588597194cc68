"""Server processes that the explorer moves from one ``await`` to the next, kills there, or leaves standing.

A process does one thing at a time (a turn of its scheduler, a sweep, telling that a run ended) in one task. Before and
after every call of the store and of the sessions that task stops at its gate. Opened, it goes on to the next; killed,
it never does. A transaction has no gate inside, since nothing of it can be seen; it can be killed there, too: after
any of its statements, which takes back all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from navi_jupyter.commands import Acceptance, Command
from navi_jupyter.errors import NaviError, NotReady, StoreError
from navi_jupyter.events import Custom, Draft
from navi_jupyter.model.sessions import Origin, Run
from navi_jupyter.orchestrator.event_writer import EventWriter
from navi_jupyter.orchestrator.upkeep.maintenance import Maintenance
from navi_jupyter.orchestrator.upkeep.servers import Trust
from navi_jupyter.ports.transactions import Server
from navi_jupyter.scheduling.decisions import Expired
from navi_jupyter.scheduling.ledger import Report
from navi_jupyter.scheduling.scheduler import Scheduler
from navi_jupyter.scheduling.service import RecallService
from navi_jupyter.settings import ServerLease

from .telling import teller

if TYPE_CHECKING:
    from navi_jupyter.ports.recalls import Claimed, Happened
    from navi_jupyter.store.database import Database
    from navi_jupyter.store.served_owners import ServedOwners
    from tests.support.simulation import House


class Killed(BaseException):
    """The process is gone. Not an Exception: nothing in it gets to handle this."""


class BrokenOff(NaviError):
    """Raised inside of a transaction, to take it back."""


class Gate:
    """Where a process's task waits to be moved on."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.place = ""
        self.fuse: int | None = None
        """After so many calls in the next transaction the process is killed in the middle of it."""
        self.refusing = False
        """The database cannot be written by this process."""
        self.dead = False
        self._go: asyncio.Future[None] | None = None
        self._one = asyncio.Lock()
        """What a process does at the same time comes to the gate one after the other."""

    async def stop(self, place: str) -> None:
        async with self._one:
            if self.dead:
                raise Killed
            self.place = place
            self._go = asyncio.get_running_loop().create_future()
            self.stopped.set()
            await self._go

    def open(self) -> None:
        assert self._go is not None
        self.stopped.clear()
        self._go.set_result(None)

    def kill(self) -> None:
        assert self._go is not None
        self.dead = True
        self._go.set_exception(Killed())


class _Fused:
    """A transaction in which the process dies."""

    def __init__(self, tx: Any, calls: int) -> None:
        self._tx = tx
        self._left = calls
        self.served: ServedOwners = tx.served

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._tx, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise BrokenOff("killed")
            return await method(*args, **kwargs)

        return call


class GatedStore:
    """The process's store: each call stops at the gate."""

    def __init__(self, store: Database, gate: Gate) -> None:
        self._store = store
        self._gate = gate

    async def write(
        self, unit: Callable[[Any], Awaitable[Any]], *, durable: bool = False, on: str | None = None
    ) -> Any:
        await self._gate.stop("before a transaction")
        if self._gate.refusing:
            raise StoreError("The disk is full; nothing was saved.")
        fuse, self._gate.fuse = self._gate.fuse, None

        async def fused(tx: Any) -> Any:
            await unit(_Fused(tx, fuse or 0))
            raise BrokenOff("killed")  # before its commit

        try:
            result = await self._store.write(unit if fuse is None else fused, durable=durable, on=on)
        except BrokenOff:
            self._gate.dead = True
            raise Killed from None
        await self._gate.stop("after a transaction")
        return result

    @property
    def served(self) -> ServedOwners:
        return self._store.served

    def made_ahead(self, *states: Any) -> Any:
        return self._store.made_ahead(*states)  # reaches no database

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._gate.stop(name)
            return await method(*args, **kwargs)

        return call


class SkewedClock:
    """This process's idea of the time."""

    def __init__(self, house: House, skew: timedelta) -> None:
        self._house = house
        self.skew = skew

    def now(self) -> datetime:
        return self._house.wall + self.skew

    async def wait(self, signal: asyncio.Event, *, until: datetime) -> None:
        raise AssertionError("the explorer waits, not the scheduler")


class Process:
    """One server: its scheduler, and what it is in the middle of."""

    def __init__(self, house: House, store: Database, skew: timedelta) -> None:
        self.id = house.name_server()
        self.house = house
        self.store = store
        self.gate = Gate()
        self.clock = SkewedClock(house, skew)
        self.reports: list[Report] = []
        """What came of deliveries and is not written down: lost when it dies."""
        self.ended: list[Run] = []
        """Runs of this process that ended and of which its scheduler has not been told."""
        self.task: asyncio.Task[None] | None = None
        gated: Any = GatedStore(store, self.gate)
        self.scheduler = Scheduler(
            gated, self._submit, server_id=self.id, clock=self.clock, notices_changed=self._to_tell
        )
        self.service = RecallService(gated, clock=self.clock, max_recalls_per_user=1000)
        self.teller = teller(self, gated)
        self.server = Server(id=self.id, host=self.id, pid=1, pid_started=0.0)
        """On a machine of its own: that it has died is known by its lease alone."""
        self.runs: dict[str, Run] = {}
        """Runs that it goes on with, as far as it knows."""
        self.journal = EventWriter(store, self.id)
        self.beaten_at = self.clock.now()
        self.acting: dict[str, str] = {}
        """By run the tool with an effect that it has started, and goes on with."""
        self.trust = Trust(ServerLease(), on_lost=self._lose_runs, clock=lambda: house.steady)
        self._poked: list[str] = []
        nobody: Any = None
        self._upkeep = Maintenance(
            gated,
            self.server,
            nobody,
            nobody,
            actors=lambda: (),
            poke=self._poked.append,
            run_ended=self._orphan_ended,
            compact_after=timedelta(days=1),
            lease=ServerLease(renewed_every=30),  # the explorer's processes get to it when they are moved
            trust=self.trust,
            flushed=self._flushed,
        )
        self.happenings: list[Happened] = []
        """What its watcher has seen and not told yet: lost when it dies."""
        self.idle_turns = 0
        self.planned_at = self.clock.now()
        """When its last turn began: whoever is stopped after that has planned for then."""

    async def register(self) -> None:
        await self.store.write(lambda tx: tx.beat(self.server, at=self.clock.now()))
        self.trust.renewed(self.house.steady)

    def _lose_runs(self) -> None:
        """As the orchestrator: what runs here ends, and its end is written when the lease is renewed."""
        self.trust.given_up.update({run.id: run.session_id for run in self.runs.values()})
        self.runs.clear()
        self.acting.clear()

    async def _flushed(self, session_id: str) -> None:
        """What a run writes is committed at once here."""

    # --- being moved

    @property
    def busy(self) -> bool:
        return self.task is not None

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        assert self.task is None
        self.gate.stopped.clear()
        self.task = asyncio.ensure_future(work)

    async def until_gate(self) -> None:
        """Return once its task is at the gate, or is over. Raises what the task raised; a kill is not an error."""
        assert self.task is not None
        stopped = asyncio.ensure_future(self.gate.stopped.wait())
        await asyncio.wait({self.task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self.task.done():
            task, self.task = self.task, None
            error = task.exception()
            if isinstance(error, Killed):
                raise error
            if error is not None and not isinstance(error, StoreError):
                raise error

    async def move(self) -> None:
        """On to the next gate."""
        self.gate.open()
        await self.until_gate()

    async def die(self) -> None:
        """Killed where it stands."""
        if self.task is not None:
            self.gate.kill()
            await asyncio.wait({self.task})
            self.task.exception()
            self.task = None

    # --- what it does

    async def turn(self) -> None:
        """Plan and claim, deliver, write down: as the scheduler's loop and its workers do it."""
        now = self.planned_at = self.clock.now()
        planned, claims = await self.scheduler.plan_and_claim(now)
        self.house.claimed(claims, now)
        for claim in claims:
            self.reports.append(await self._delivered(claim))
        self.idle_turns = 0 if planned or claims else self.idle_turns + 1
        if not self.house.holds_reports():
            await self.settle()

    async def _delivered(self, claim: Claimed) -> Report:
        at, until = self.clock.now(), claim.firing.wait_until
        outcome = await self.scheduler.deliver(claim)
        if isinstance(outcome, Expired) and (until is None or at <= until):
            self.house.violations.append(f"{claim.firing.firing.id} was given up at {at}, before {until}")
        return Report(
            outcome=outcome,
            firing_id=claim.firing.firing.id,
            fence=claim.firing.fence,
            session_id=claim.firing.session_id,
        )

    async def settle(self) -> None:
        self.scheduler._reports, own = [], self.scheduler._reports
        self.reports += own
        if self.reports:
            batch = list(self.reports)
            await self.scheduler.settle(batch)
            self.reports = [report for report in self.reports if report not in batch]

    async def tell(self) -> None:
        """Its scheduler hears of a run that has ended, and writes that down."""
        run = self.ended.pop(0)
        await self.scheduler.on_run_ended(run)
        await self.settle()

    async def prepare(self) -> None:
        """Plan what falls due next, ahead of its time; and store it when that has come."""
        due = await self.scheduler._store.next_wake()
        now = self.clock.now()
        if due is not None and now < due <= now + timedelta(seconds=2):
            await self.scheduler._planner.prepare(due)
            self.house.note(f"{self.id} has planned ahead for {due}")
            await self.gate.stop("before what was planned ahead")
            if self.clock.now() >= due:
                await self.turn()

    async def sweep(self) -> None:
        await self.scheduler.sweep()

    async def beat(self) -> None:
        """Renew its claims; end what servers that died left open, and start what waits behind it."""
        await self._upkeep._beat()
        self.beaten_at = self.clock.now()
        poked, self._poked[:] = list(self._poked), []
        for session_id in poked:
            await self.house.begin_next(self, session_id)

    async def _orphan_ended(self, run: Run) -> None:
        self.house.told.orphans += 1
        await self.scheduler.on_run_ended(run)

    async def happen(self) -> None:
        """Its watcher tells what it has seen."""
        happened = self.happenings.pop(0)
        self.house.occurred(happened, await self.service.occurrences.record(happened))

    def _to_tell(self) -> None:
        self.house.to_tell += 3

    async def tell_people(self) -> None:
        """Send what is to be sent."""
        await self.teller.deliver()

    def speak(self, run: Run) -> Coroutine[Any, Any, None]:
        """A run that it goes on with writes into the log, as the orchestrator's runs do."""
        event = Custom(name="navi.kernel", value={"said_by": self.id, "word": next(self.house.words)})
        draft = Draft(event, run_id=run.id, origin=run.origin, at=self.clock.now())
        return self.journal._commit({run.session_id: [draft]})

    async def _submit(self, session_id: str, command: Command, *, user_id: str, origin: Origin) -> Acceptance:
        await self.gate.stop("before the session")
        if self.gate.refusing:
            raise StoreError("The disk is full; nothing was saved.")
        acceptance = await self.house.submit(self, session_id, command, user_id=user_id, origin=origin)
        await self.gate.stop("after the session")
        if self.house.dice.random() < 0.03:
            self.house.note(f"{self.id} does not hear the answer to {command.command_id}")
            raise self.house.dice.choice([NotReady("The server is stopping."), NaviError("a defect")])
        return acceptance
