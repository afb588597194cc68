"""The periodic work of a server: renew its leases, poll for what other servers did, close what dead ones left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from ..clock import now
from ..errors import NaviError
from ..log_setup import get_logger
from ..ports.recalls import RunEnded
from ..ports.store import SessionStore
from ..ports.transactions import Server
from .compaction import compact
from .event_log import EventLog
from .interrupts import PendingInterrupts, expire
from .servers import close_orphans, has_exited
from .session_actor import SessionActor

log = get_logger("orchestrator")

LOOK_EVERY = 0.05
"""Seconds between looks for another process's commits, while somebody follows or a run goes on."""
BEAT_EVERY = 10.0
"""Seconds between renewals of our claims; a third of the lease."""
PEERS_EVERY = 1.0
"""Seconds between looks for other servers of this machine that have exited: a read of a few rows."""
QUESTIONS_EVERY = 0.5
"""Seconds between looks for questions that have expired, and for runs that can go on: two small indexes."""
COMPACT_EVERY = 3600.0


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
    ) -> None:
        self._store = store
        self._server = server
        self._log = events
        self._interrupts = interrupts
        self._actors = actors
        """The live sessions of this process."""
        self._poke = poke
        self._run_ended = run_ended
        self._compact_after = compact_after
        self._stale = False
        """Another process has committed what we have not looked at yet."""
        self._beaten_at = now()

    def tasks(self) -> list[asyncio.Task[None]]:
        """Begin. Each goes on until it is cancelled."""
        return [
            asyncio.create_task(self._repeat(name, every, work), name=name)
            for name, every, work in (
                ("navi-look", LOOK_EVERY, self._look),
                ("navi-beat", BEAT_EVERY, self._beat),
                ("navi-peers", PEERS_EVERY, self._look_for_dead),
                ("navi-questions", QUESTIONS_EVERY, self._expire),
                ("navi-compact", COMPACT_EVERY, self._compact),
            )
        ]

    async def _repeat(self, name: str, every: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await work()
            except NaviError as error:
                log.error("periodic_work_failed", work=name, error=str(error))
            except Exception:
                log.exception("periodic_work_broke", work=name)

    async def _look(self) -> None:
        """Has another process committed? Then followers may have more to read, or a run of ours is to stop."""
        if not self._actors() and not self._log.followers:
            self._log.in_use.clear()
            await self._log.in_use.wait()  # An idle server sleeps; a follower begins at a head that it reads itself.
        if await self._store.changed_elsewhere():
            self._stale = True
        if not self._stale:
            return
        # Stale until all of it was done: a failure in between, or a run that is being launched, wants another look.
        await self._log.refresh()
        await self._interrupts.refresh(self._store)
        steered = set(await self._store.steered_sessions())
        stops = await self._store.stops_for(self._server.id)
        actors = self._actors()
        for actor in actors:
            if actor.session_id in steered:
                actor.steered()
        self._stale = not all(any(actor.stop_requested(run_id) for actor in actors) for run_id in stops)

    async def _beat(self) -> None:
        """Renew our claims; end what servers that died meanwhile left open, and start what waits behind it."""
        at = now()
        slept = at - self._beaten_at > 2 * timedelta(seconds=BEAT_EVERY)
        self._beaten_at = at
        await self._store.write(lambda tx: tx.beat(self._server, at=at))
        if slept:
            return  # The whole machine may have: the others' claims look old too, and get one beat to renew them.
        await self._take_over()

    async def _look_for_dead(self) -> None:
        """A server of this machine that has exited is seen at once, without waiting for its lease."""
        if any(has_exited(server, here=self._server) for server in await self._store.known_servers()):
            await self._take_over()

    async def _take_over(self) -> None:
        """End what dead servers left open, and start what waits behind it."""
        for owner in await close_orphans(self._store, self._server):
            run = await self._store.run(owner.run_id)
            if run is not None:
                await self._run_ended(run)
        for session_id in await self._store.queued_sessions():
            self._poke(session_id)

    async def _expire(self) -> None:
        """Settle questions whose time has passed; let runs go on whose questions are settled."""
        if await self._store.expiring(at=now()):
            await self._store.write(expire, durable=True)
        for session_id in await self._store.ready_sessions():
            self._poke(session_id)

    async def _compact(self) -> None:
        await compact(self._store, older_than=self._compact_after)
