"""The periodic work of a server: renew its leases, poll for what other servers did, close what dead ones left, and
compact old runs: the deltas of each message become one event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ..clock import now
from ..errors import NaviError
from ..events import ActivityDelta, ActivitySnapshot
from ..log_setup import get_logger
from ..model.sessions import Run
from ..ports.recalls import RunEnded
from ..ports.store import SessionStore
from ..ports.transactions import Server, SessionTx
from .activities import Activities
from .event_log import EventLog
from .interrupts import PendingInterrupts, expire
from .servers import close_orphans, has_exited
from .session_actor import SessionActor

log = get_logger("orchestrator")

LOOK_EVERY = 0.05  # seconds between looks for another process's commits, while somebody follows or a run goes on
BEAT_EVERY = 10.0  # seconds between renewals of our claims; a third of the lease
PEERS_EVERY = 1.0  # seconds between looks for other servers of this machine that have exited: a read of a few rows
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
        self._actors = actors  # the live sessions of this process
        self._poke = poke
        self._run_ended = run_ended
        self._compact_after = compact_after
        self._stale = False  # another process has committed what we have not looked at yet
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
            await self._log.in_use.wait()  # an idle server sleeps; a follower begins at a head that it reads itself.
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
            for run_id in await self._store.write(expire, durable=True):
                run = await self._store.run(run_id)
                if run is not None:
                    await self._run_ended(run)
                    self._poke(run.session_id)
        for session_id in await self._store.ready_sessions():
            self._poke(session_id)

    async def _compact(self) -> None:
        await compact(self._store, older_than=self._compact_after)


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
    while runs := await store.runs_to_compact(ended_before=now() - older_than, limit=BATCH):
        await store.write(lambda tx, runs=tuple(runs): _compact(tx, runs))  # type: ignore[misc]
        done += len(runs)
    if done:
        compaction_log.info("runs_compacted", runs=done)
    return done


async def _compact(tx: SessionTx, runs: Sequence[Run]) -> None:
    for run in runs:
        folding = fold_run(await tx.run_frames(run.session_id, run.id))
        await tx.fold_events(run.session_id, folding.folded, folding.dropped)
        await tx.note_folded(run.session_id, run.id, folding.stretches)
