"""The periodic work of a server: renew its leases, poll for what other servers did, close what dead ones left, and
compact old runs: the deltas of each message become one event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ..clock import ClockSteps, now
from ..errors import NaviError
from ..events import ActivityDelta, ActivitySnapshot
from ..log_setup import get_logger
from ..model.sessions import Run
from ..ports.recalls import RunEnded
from ..ports.store import SessionStore
from ..ports.transactions import Server, SessionTx
from ..settings import ServerLease
from .activities import Activities
from .event_log import EventLog
from .interrupts import PendingInterrupts, expire
from .servers import JudgedByLease, Trust, always, close_orphans, has_exited, never
from .session_actor import SessionActor

log = get_logger("orchestrator")

LOOK_EVERY = 0.05  # seconds between looks for another process's commits, while somebody follows or a run goes on
PEERS_EVERY = 1.0
"""Seconds between looks for other servers of this machine that have exited: a read of a few rows. At the second look
that finds it gone its runs are taken over: what it had begun in kernels and MCP servers has ended by then, too."""
QUESTIONS_EVERY = 0.5
"""Seconds between looks for questions that have expired, and for runs that can go on: two small indexes."""
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
        self._stale = False  # another process has committed what we have not looked at yet
        self._beaten_at = trust.clock()
        self._steps = ClockSteps(trust.clock, lambda: now())
        self._judges_from = trust.clock() + lease.duration
        """When the leases of others, which are times of the wall clock, may be judged: once that has gone evenly."""
        self._exited: frozenset[str] = frozenset()  # servers that the last look has found gone
        self._gone: frozenset[str] = frozenset()  # those that the look before had found gone as well

    def tasks(self) -> list[asyncio.Task[None]]:
        """Begin. Each goes on until it is cancelled."""
        works = (
            ("navi-look", LOOK_EVERY, self._look),
            ("navi-beat", self._lease.renewed_every, self._beat),
            ("navi-peers", PEERS_EVERY, self._look_for_dead),
            ("navi-questions", QUESTIONS_EVERY, self._expire),
        )
        return [
            asyncio.create_task(self._trust.watch(), name="navi-trust"),
            *(asyncio.create_task(self._repeat(name, every, work), name=name) for name, every, work in works),
            asyncio.create_task(self._compact_forever(), name="navi-compact"),
        ]

    async def _compact_forever(self) -> None:
        pause = COMPACT_FIRST
        while True:
            await asyncio.sleep(pause)
            pause = COMPACT_EVERY
            with self._guarded("navi-compact"):
                if await compact_batch(self._store, older_than=self._compact_after):
                    pause = COMPACT_PAUSE

    async def _repeat(self, name: str, every: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(every)
            with self._guarded(name):
                await work()

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except NaviError as error:
            log.error("periodic_work_failed", work=name, error=str(error))
        except Exception:
            log.exception("periodic_work_broke", work=name)

    async def _look(self) -> None:
        """Has another process committed? Then followers may have more to read, or a run of ours is to stop."""
        if not self._actors() and not self._log.followers:
            self._log.in_use.clear()
            await self._log.in_use.wait()  # an idle server sleeps; a follower begins at a head that it reads itself.
        if await self._store.changed_elsewhere():
            self._stale = True
        if not self._stale:
            return
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

        async def renew(tx: SessionTx) -> None:
            await tx.beat(self._server, at=at, lease=lease)
            await tx.bound_leases(until=at + lease + SKEW)

        await self._store.write(renew)
        was_held = self._trust.held
        self._trust.renewed(since)
        if not was_held:
            log.warning("lease_renewed_late", server=self._server.id)
        await self._take_over(always if since >= self._judges_from else never)

    async def _look_for_dead(self) -> None:
        """A server of this machine that has exited is seen soon, without waiting for its lease."""
        known = await self._store.known_servers()
        exited = frozenset(server.id for server in known if has_exited(server, here=self._server))
        self._gone, self._exited = exited & self._exited, exited
        if self._gone:
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
        for session_id in await self._store.queued_sessions():
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


compaction_log = get_logger("compaction")

BATCH = 20  # runs per transaction
_KEYS = {"TEXT_MESSAGE_CONTENT": "messageId", "REASONING_MESSAGE_CONTENT": "messageId", "TOOL_CALL_ARGS": "toolCallId"}

_ACTIVITIES: dict[str, type[ActivitySnapshot | ActivityDelta]] = {
    "ACTIVITY_SNAPSHOT": ActivitySnapshot,
    "ACTIVITY_DELTA": ActivityDelta,
}


@dataclass(slots=True)
class Folding:
    """What compaction does to one run's rows."""

    folded: dict[int, str] = field(default_factory=dict)  # seq -> the envelope that takes its place
    dropped: list[int] = field(default_factory=list)
    stretches: list[tuple[int, int]] = field(default_factory=list)
    """[first, last): a cursor in here has seen a part of a message that is now one event at ``last``."""

    def fold(self, group: Sequence[dict[str, Any]], into: dict[str, Any]) -> None:
        """``into`` takes the place of the last envelope of a group; the others go."""
        self.folded[into["seq"]] = json.dumps(into, ensure_ascii=False, separators=(",", ":"))
        self.dropped += [envelope["seq"] for envelope in group[:-1]]
        self.stretches.append((group[0]["seq"], into["seq"]))


def fold_run(frames: Sequence[str]) -> Folding:
    """Fold each message's deltas, and each activity's changes, into one event at the seq of the last one. Pure."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    activities: dict[str, list[dict[str, Any]]] = {}
    for frame in frames:
        envelope = json.loads(frame)
        if envelope["event"]["type"] in _ACTIVITIES:
            activities.setdefault(envelope["event"]["messageId"], []).append(envelope)
        key = _KEYS.get(envelope["event"]["type"])
        if key is not None:
            groups.setdefault((envelope["event"]["type"], envelope["event"][key]), []).append(envelope)
    folding = Folding()
    for group in groups.values():
        if len(group) < 2:
            continue
        last = group[-1]
        last["event"]["delta"] = "".join(envelope["event"]["delta"] for envelope in group)
        folding.fold(group, last)
    for group in activities.values():
        if len(group) > 1 and (shown := _shown(group)) is not None:
            folding.fold(group, {**group[-1], "event": json.loads(shown.wire())})
    return folding


def _shown(group: Sequence[dict[str, Any]]) -> ActivitySnapshot | None:
    """The state of an activity after its last event."""
    state = Activities()
    for envelope in group:
        state.apply(_ACTIVITIES[envelope["event"]["type"]].model_validate(envelope["event"]), None)
    return next(iter(state.snapshot_events(None)), None)


async def compact(store: SessionStore, *, older_than: timedelta) -> int:
    """Fold all runs that ended longer ago than ``older_than``; returns how many."""
    done = 0
    while runs := await compact_batch(store, older_than=older_than):
        done += runs
    return done


async def compact_batch(store: SessionStore, *, older_than: timedelta) -> int:
    """The same, for as many as one transaction folds."""
    runs = tuple(await store.runs_to_compact(ended_before=now() - older_than, limit=BATCH))
    if runs:
        await store.write(lambda tx: _compact(tx, runs))
        compaction_log.info("runs_compacted", runs=len(runs))
    return len(runs)


async def _compact(tx: SessionTx, runs: Sequence[Run]) -> None:
    for run in runs:
        folding = fold_run(await tx.run_frames(run.session_id, run.id))
        await tx.fold_events(run.session_id, folding.folded, folding.dropped)
        await tx.note_folded(run.session_id, run.id, folding.stretches)
