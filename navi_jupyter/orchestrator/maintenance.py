"""The periodic work of a server: renew its leases, poll for what other servers did, close what dead ones left, and
compact old runs: the deltas of each message become one event."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

from ..clock import ClockSteps, now, until_tick
from ..errors import NaviError
from ..events import ActivityDelta, ActivitySnapshot
from ..log_setup import get_logger
from ..ports.recalls import RunEnded
from ..ports.store import SessionStore
from ..ports.transactions import Foldable, Server, SessionTx
from ..settings import ServerLease
from .activities import Activities
from .event_log import EventLog
from .interrupts import PendingInterrupts, expire
from .servers import JudgedByLease, Trust, always, close_orphans, has_exited, never
from .session_actor import SessionActor

log = get_logger("orchestrator")
T = TypeVar("T")

LOOK_EVERY = 0.05  # seconds between looks for commits of other servers, while somebody follows or a run goes on
LOOK_ALONE = 0.25  # the same while there is no other server: a new one lets clients in so long after it registered
LOOK_IDLE = 1.0  # the same while nothing is followed and nothing runs
PEERS_EVERY = 1.0
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
        self._stale = False  # another process has committed what we have not looked at yet
        self._alone = False  # whether no other server is registered, as far as is known
        self._met = asyncio.Event()  # set while there are others, or may be
        self._met.set()
        self._asked = asyncio.Event()  # set when there may be new questions or answers
        self._beaten_at = trust.clock()
        self._steps = ClockSteps(trust.clock, lambda: now())
        self._judges_from = trust.clock() + lease.duration
        """When the leases of others, which are times of the wall clock, may be judged: once that has gone evenly."""
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
            if self._actors() or self._log.followers:
                await asyncio.sleep(LOOK_ALONE if self._alone else LOOK_EVERY)
            else:
                self._log.in_use.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._log.in_use.wait(), until_tick(LOOK_IDLE))
            with self._guarded("navi-look"):
                await self._look()

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

    async def _look(self) -> None:
        """Has another process committed? Then followers may have more to read, or a run of ours is to stop."""
        if await self._store.changed_elsewhere():
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
        known: Sequence[Server] = ()
        try:
            known = await self._store.known_servers()
        finally:
            self._alone = {server.id for server in known} == {self._server.id}
            if not self._alone:
                self._met.set()
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


compaction_log = get_logger("compaction")

BATCH = 20  # runs that are looked at together
UNIT_EVENTS = 500  # events that one transaction folds: others wait for it
READ_EVENTS = 1_000  # events of one run that are read at once, and at most folded in one transaction
FOLDED_HERE = 50  # events that are folded on the event loop and not in a thread
FREE_PAGES = 256  # unused pages that stay in the file: the log grows again
PAGES_AT_ONCE = 64  # of them in one transaction
_KEYS = {"TEXT_MESSAGE_CONTENT": "messageId", "REASONING_MESSAGE_CONTENT": "messageId", "TOOL_CALL_ARGS": "toolCallId"}
# In what can be folded: large results of tools need not be parsed to be left as they are.
_FOLDED_TYPES = re.compile(r'"type":\s*"(?:TEXT_MESSAGE_CONTENT|REASONING_MESSAGE_CONTENT|TOOL_CALL_ARGS|ACTIVITY_)')

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


@dataclass(frozen=True, slots=True)
class _Step:
    foldable: Foldable
    seqs: Sequence[int]  # of the events that were read
    folding: Folding
    rest: Foldable | None  # what is left of the run; its first events may be what this step makes: they take more


async def compact_batch(store: SessionStore, *, older_than: timedelta) -> int:
    """The same, for a few runs."""
    runs = await store.runs_to_compact(ended_before=now() - older_than, limit=BATCH)
    steps: list[_Step] = []
    for run in runs:
        rest: Foldable | None = run
        while rest is not None:
            step = await _read(store, rest)
            steps.append(step)
            rest = step.rest
            if rest is not None or sum(len(each.seqs) for each in steps) >= UNIT_EVENTS:
                await _write(store, steps)
                steps = []
    if steps:
        await _write(store, steps)
    if runs:
        compaction_log.info("runs_compacted", runs=len(runs))
    return len(runs)


async def _read(store: SessionStore, run: Foldable) -> _Step:
    """Outside of the transaction: what a finished run has in the log changes by compaction alone."""
    if run.after >= run.last:
        return _Step(run, (), Folding(), None)
    envelopes, more = await store.foldable_frames(run, limit=READ_EVENTS)
    frames = [frame for _, frame in envelopes if _FOLDED_TYPES.search(frame)]
    folding = fold_run(frames) if len(frames) <= FOLDED_HERE else await asyncio.to_thread(fold_run, frames)
    seqs = [seq for seq, _ in envelopes]
    if not more:
        return _Step(run, seqs, folding, None)
    # Read from the same place again while that is worth it, so that a message of any length becomes one event.
    is_worth_it = 2 * len(folding.dropped) >= len(seqs)
    return _Step(run, seqs, folding, run if is_worth_it else replace(run, after=seqs[-1]))


async def _write(store: SessionStore, steps: Sequence[_Step]) -> None:
    """One transaction. Killed before or after it, what is left is folded later."""

    async def unit(tx: SessionTx) -> None:
        for step in steps:
            run, folding = step.foldable, step.folding
            if folding.dropped:
                if not await tx.unfolded(run, step.seqs):
                    continue  # another server was quicker
                await tx.fold_events(run.session_id, folding.folded, folding.dropped)
            await tx.note_folded(run.session_id, run.run_id, folding.stretches, complete=step.rest is None)

    await give_way(store, unit)


async def give_back(store: SessionStore) -> None:
    """Give unused pages of the file back to the file system, a few at a time, and keep some."""
    while (free := await store.free_pages()) > FREE_PAGES:
        pages = min(PAGES_AT_ONCE, free - FREE_PAGES)
        await give_way(store, lambda tx, pages=pages: tx.give_back(pages))  # type: ignore[misc]


async def give_way(store: SessionStore, unit: Callable[[SessionTx], Awaitable[T]]) -> T:
    """Writes, then leaves the database to others for as long (awake): another process tries only now and then."""
    began = asyncio.get_running_loop().time()
    result = await store.write(unit)
    await asyncio.sleep(asyncio.get_running_loop().time() - began)
    return result
