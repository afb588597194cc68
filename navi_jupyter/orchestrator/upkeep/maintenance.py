"""The periodic work of a server: renew its leases, look for what other servers did, close what dead ones left, have
old runs compacted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import TypeVar

from ...clock import ClockSteps, now, until_tick
from ...errors import NaviError
from ...log_setup import get_logger
from ...ports.recalls import RunEnded
from ...ports.store import SessionStore
from ...ports.transactions import Server, SessionTx
from ...settings import ServerLease
from ..event_log import EventLog
from ..interrupts import PendingInterrupts, expire
from ..session_actor import SessionActor
from .compaction import compact_batch, give_back
from .servers import JudgedByLease, Trust, always, close_orphans, disconnected, has_exited, never

log = get_logger("orchestrator")
T = TypeVar("T")

LOOK_EVERY = 0.05  # seconds between looks for commits of other servers, while somebody follows or a run goes on
LOOK_ALONE = 0.25  # the same while there is no other server: a new one lets clients in so long after it registered
LOOK_IDLE = 1.0  # the same while nothing is followed and nothing runs
PEERS_EVERY = 0.9
"""Seconds between looks for other servers of this machine that have exited: a read of a few rows. At the second look
that finds it gone its runs are taken over: what it had begun in kernels and MCP servers has ended by then, too."""
QUESTIONS_EVERY = 0.5  # seconds between looks for expired questions and for runs that can go on, if there may be some
COMPACT_FIRST = 5.0  # seconds after the start, so that a server that never lives long compacts as well
COMPACT_EVERY = 300.0  # seconds until the next look, once there is nothing left to compact
COMPACT_PAUSE = 0.5  # seconds between two transactions that compact: others have their turn
SKEW = timedelta(seconds=2)  # by which the clocks of two servers may differ


class Maintenance:
    """Owned by the orchestrator, which ends its tasks."""

    def __init__(
        self,
        store: SessionStore,
        server: Server,
        events: EventLog,
        interrupts: PendingInterrupts,
        *,
        actors: Callable[[], Sequence[SessionActor]],
        poke: Callable[[str], None],
        run_ended: RunEnded,
        compact_after: timedelta,
        lease: ServerLease,
        trust: Trust,
        flushed: Callable[[str], Awaitable[None]],
    ) -> None:
        """``flushed``: returns once what was written for a session is durable."""
        self._store = store
        self._server = server
        self._lease = lease
        self._trust = trust
        self._flushed = flushed
        self._log = events
        self._interrupts = interrupts
        self._actors = actors  # the live sessions of this process
        self._poke = poke
        self._run_ended = run_ended
        self._compact_after = compact_after
        self.queued = 0  # runs that wait in the queues of sessions, as of the last renewal, for the metrics
        self.replicas = 1  # servers of the database that are registered and not known to be dead, with this one
        self._stale = False  # another process has committed what we have not looked at yet
        self._alone = False  # whether no other server is registered, as far as is known
        self._met = asyncio.Event()  # set while there are others, or may be
        self._met.set()
        self._asked = asyncio.Event()  # set when there may be new questions or answers
        self._beaten_at = trust.clock()
        self._steps = ClockSteps(trust.clock, lambda: now())
        self._judges_from = trust.clock() + lease.duration
        """When the leases of others, which are times of the wall clock, may be judged: once that has gone evenly."""
        self.on_server_left: Callable[[], None] = lambda: None  # what it alone knew is to be looked for
        self._known: Sequence[Server] = ()  # as the last look has found them; only their leases ever change
        self._others: set[str] = set()  # the servers that were registered at the last look
        self._disconnected: dict[str, datetime] = {}  # as the last look has found them
        self._exited: frozenset[str] = frozenset()  # servers that the last look has found gone
        self._gone: frozenset[str] = frozenset()  # those that the look before had found gone as well

    def tasks(self) -> list[asyncio.Task[None]]:
        """Begin. Each goes on until it is cancelled."""
        self._store.subscribe(self._note_change)
        works = {
            "navi-trust": self._trust.watch(lambda: any(actor.current is not None for actor in self._actors())),
            "navi-look": self._look_forever(),
            "navi-beat": self._repeat("navi-beat", self._lease.renewed_every, self._beat),
            "navi-peers": self._repeat("navi-peers", PEERS_EVERY, self._look_for_dead, when=self._met),
            "navi-questions": self._expire_forever(),
            "navi-compact": self._compact_forever(),
        }
        return [asyncio.create_task(work, name=name) for name, work in works.items()]

    async def _compact_forever(self) -> None:
        pause = COMPACT_FIRST
        while True:
            await asyncio.sleep(pause)
            pause = COMPACT_EVERY
            with self._guarded("navi-compact"):
                if await compact_batch(self._store, older_than=self._compact_after):
                    pause = COMPACT_PAUSE
                else:
                    await give_back(self._store)

    def _note_change(self, *_: object) -> None:
        """A log has grown here, or another process has committed: questions or servers may be new."""
        self._asked.set()
        self._met.set()

    async def _look_forever(self) -> None:
        while True:
            pause = LOOK_ALONE if self._alone else LOOK_EVERY
            if not self._actors() and not self._log.followers:
                pause = 0.0
                self._log.in_use.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._log.in_use.wait(), until_tick(LOOK_IDLE))
            with self._guarded("navi-look"):
                await self._look(within=pause)

    async def _repeat(
        self, name: str, every: float, work: Callable[[], Awaitable[None]], when: asyncio.Event | None = None
    ) -> None:
        while True:
            await asyncio.sleep(every)
            if when is not None:
                await when.wait()
            with self._guarded(name):
                await work()

    async def _expire_forever(self) -> None:
        while True:
            await asyncio.sleep(QUESTIONS_EVERY)
            self._asked.clear()
            can_expire = True
            with self._guarded("navi-questions"):
                await self._expire()
                can_expire = await self._store.expiring(at=now() + timedelta(days=36_500))
            if not can_expire:
                await self._asked.wait()

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except NaviError as error:
            log.error("periodic_work_failed", work=name, error=str(error))
        except Exception:
            log.exception("periodic_work_broke", work=name)

    async def _look(self, *, within: float = 0.0) -> None:
        """Has another process committed? Then followers may have more to read, or a run of ours is to stop."""
        if await self._store.changed_elsewhere(within=within):
            self._stale = True
            self._note_change()
        if not self._stale or not (self._actors() or self._log.followers):
            return  # a follower begins at a head that it reads itself
        # Stale until all of it was done: a failure in between, or a run that is being launched, wants another look.
        await self._log.refresh()
        await self._interrupts.refresh(self._store)
        steered = set(await self._store.steered_sessions())
        # Before the rows are read: a run that begins meanwhile is not in them.
        working = [(actor, actor.current) for actor in self._actors()]
        runs = await self._store.runs_of(self._server.id)
        for actor, active in working:
            if active is not None and actor.current is active and not active.over and active.run.id not in runs:
                active.cut("lost")  # another server has taken it over
        stops = [run_id for run_id, stopping in runs.items() if stopping]
        actors = self._actors()
        for actor in actors:
            if actor.session_id in steered:
                actor.steered()
        self._stale = not all(any(actor.stop_requested(run_id) for actor in actors) for run_id in stops)

    async def _beat(self) -> None:
        """Renew our claims; end what servers that died meanwhile left open, and start what waits behind it."""
        since, at, lease = self._trust.clock(), now(), timedelta(seconds=self._lease.duration)
        # The whole machine may have slept, or its clock was set: the others' leases look old, too.
        if since - self._beaten_at > 2 * self._lease.renewed_every + 1 or abs(self._steps.since_last()) > SKEW:
            self._judges_from = since + self._lease.duration
        self._beaten_at = since

        async def renew(tx: SessionTx) -> bool:
            await tx.beat(self._server, at=at, lease=lease)
            await tx.bound_leases(until=at + lease + SKEW)
            return len(await tx.servers()) > 1

        if await self._store.write(renew):
            self._met.set()
        was_held = self._trust.held
        self._trust.renewed(since)
        if not was_held:
            log.warning("lease_renewed_late", server=self._server.id)
        await self._take_over(always if since >= self._judges_from else never)

    async def _look_for_dead(self) -> None:
        """A server of this machine that has exited is seen soon, without waiting for its lease."""
        self._met.clear()  # before it is read: who registers meanwhile is met again
        self._alone = False  # unless it is read
        try:
            leases = await self._store.leases()
            if leases.keys() != {server.id for server in self._known}:
                self._known = await self._store.known_servers()
            known = self._known
            ids = {server.id for server in known}
            self._alone = ids == {self._server.id}
            if self._others - ids:
                self.on_server_left()
            self._others = ids
        finally:
            if not self._alone:
                self._met.set()
        exited = frozenset(server.id for server in known if has_exited(server, here=self._server))
        self._disconnected = await disconnected(
            self._store, known, here=self._server, before=self._disconnected, lease=self._lease
        )
        exited |= frozenset(self._disconnected)
        self._gone, self._exited = exited & self._exited, exited
        self.replicas = max(1, len(ids - exited))
        judges = not self._alone and self._trust.clock() >= self._judges_from
        if judges and any(until < now() for until in leases.values()):
            await self._take_over(always)
        elif self._gone:
            await self._take_over(never)

    async def _take_over(self, by_lease: JudgedByLease) -> None:
        """End what dead servers left open, and what this one had given up; start what waits behind it."""
        if not self._trust.held:
            return
        given_up = await self._ended_here()
        # Not who has exited at this moment: also a renewal waits for the second look.
        ended = await close_orphans(self._store, self._server, by_lease=by_lease, gone=self._gone, given_up=given_up)
        for run_id in given_up:
            self._trust.given_up.pop(run_id, None)
        for owner in ended:
            run = await self._store.run(owner.run_id)
            if run is not None:
                await self._run_ended(run)
        queued = await self._store.queued_sessions()
        self.queued = sum(queued.values())
        for session_id in queued:
            self._poke(session_id)

    async def _ended_here(self) -> list[str]:
        """The runs that were given up and whose tasks are over, with all that they wrote in the log."""
        going_on = {actor.current.run.id for actor in self._actors() if actor.current is not None}
        given_up = [run_id for run_id in self._trust.given_up if run_id not in going_on]
        for run_id in given_up:
            await self._flushed(self._trust.given_up[run_id])
        return given_up

    async def _expire(self) -> None:
        """Settle questions whose time has passed; let runs go on whose questions are settled."""
        if await self._store.expiring(at=now()):
            for run_id in await self._store.write(expire, durable=True):
                run = await self._store.run(run_id)
                if run is not None:
                    await self._run_ended(run)
                    self._poke(run.session_id)
        for session_id in await self._store.ready_sessions():
            self._poke(session_id)
