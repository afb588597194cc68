"""Firings of ``when`` recalls: something happened in a notebook, and a row runs or records why it does not.

Not responsible for what becomes of a firing that is to run: as for all others that is ``decisions``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from glob import escape
from typing import TYPE_CHECKING

from ..clock import format_duration, timestamp
from ..errors import StoreError
from ..log_setup import get_logger
from ..model.recalls import FiringStatus, RecallStatus, When
from ..ports.recalls import FiringState, Happened, RecallState, Seen
from .decisions import Missed, Overtaken, PolicyRefused
from .ledger import append_notices, end_unwanted
from .notices import RecallNotice
from .outcomes import end, of_event, watching, with_status
from .schedules import whole_ms

if TYPE_CHECKING:
    from ..ports.recalls import RecallTx
    from .mutations import Mutations

log = get_logger("recalls")


@dataclass(frozen=True, kw_only=True, slots=True)
class Occurred:
    """An event that was taken in: its row, and the recall after it."""

    state: RecallState
    firing: FiringState  # The new row.
    replaced: tuple[FiringState, ...] = ()  # Earlier events that still waited and are coalesced into this one.
    notices: tuple[RecallNotice, ...] = ()

    @property
    def fires(self) -> bool:
        return not self.firing.firing.status.final


def occur(
    state: RecallState,
    happened: Happened,
    now: datetime,
    *,
    opens: Sequence[FiringState],
    near: datetime | None,
    pause: timedelta | None,
) -> Occurred | None:
    """Take in an event that the ledger does not have yet; None where nothing is to be recorded any more.

    ``near``: an event that fired within :func:`pause_of` of this one.
    """
    if state.recall.status.final or not isinstance(state.recall.schedule, When):
        return None
    firing = of_event(state.recall, happened, now)
    slot = firing.firing.slot
    if (why := refusal(state, slot, near=near, pause=pause)) is not None:
        row = end(state.recall, firing, PolicyRefused(reason=why), now)
        return Occurred(state=state, firing=row, notices=(RecallNotice.of_end(row.firing),))
    overtaken = Overtaken(by=slot, reason=f"still waiting when it happened again at {timestamp(slot)}")
    waiting = [f for f in opens if f.firing.kind == "event" and f.firing.status is FiringStatus.PENDING]
    # Several while the session is busy are one firing, that of the last, unless each was asked for.
    old = [] if state.recall.policy.misfire == "all" else waiting
    gone = tuple(end(state.recall, f, overtaken, now) for f in old)
    planned = max(0, state.planned + 1 - sum(f.firing.status is FiringStatus.COALESCED for f in gone))
    rest = [f for f in opens if f not in old]
    moved = with_status(replace(state, planned=planned), [*rest, firing])
    return Occurred(
        state=moved, firing=firing, replaced=gone, notices=tuple(RecallNotice.of_end(f.firing) for f in gone)
    )


def give_up(state: RecallState, happened: Happened, reason: str, now: datetime) -> Occurred | None:
    """End a one-time recall whose event cannot happen any more; None where it does not wait for it (any more)."""
    if not watching(state) or state.recall.status is RecallStatus.PAUSED:
        return None
    row = end(state.recall, of_event(state.recall, happened, now), Missed(reason=reason), now)
    recall = state.recall.but(status=RecallStatus.EXPIRED, next_at=None)
    notices = (RecallNotice.of_end(row.firing),)
    return Occurred(state=replace(state, due_at=None, recall=recall), firing=row, notices=notices)


def pause_of(state: RecallState, least: timedelta) -> timedelta | None:
    """How far two of its events that fire lie apart; None where it fires once.

    ``least``: the server's least time between two firings.
    """
    schedule = state.recall.schedule
    if not isinstance(schedule, When) or schedule.repeat != "each":
        return None
    return max(least, schedule.cooldown or timedelta(0))


def refusal(state: RecallState, at: datetime, *, near: datetime | None, pause: timedelta | None) -> str | None:
    """Why an event at ``at`` does not fire, if so."""
    policy = state.recall.policy
    if state.recall.status is RecallStatus.PAUSED:
        return "paused"
    if policy.until is not None and at > policy.until:
        return f"it waited until {timestamp(policy.until)}"
    if not watching(state):
        if policy.max_fires is not None and state.planned >= policy.max_fires:
            return "max_fires is reached"
        return "it has happened already"
    # Before or after: events may be reported in another order, and after the clock was set back all seem to be before.
    if pause is not None and near is not None and abs(at - near) < pause:
        which = "after the one before" if near <= at else "before the one after it"
        return f"cooling down: less than {format_duration(pause)} {which}"
    return None


def moved_pattern(pattern: str, source: str, target: str) -> str | None:
    """A path or glob after a file or folder was renamed; None when it does not lead there by names alone."""
    path = "/".join(part for part in pattern.split("/") if part not in ("", "."))
    for name in (source, escape(source)):  # a name with brackets is written as a glob
        if path == name or path.startswith(f"{name}/"):
            return escape(target) + path[len(name) :]
    return None


class RecallOccurrences:
    """Takes in what happened in notebooks and what users did. Implements ``ports.recalls.Occurrences``."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._store = mutations.store
        self._clock = mutations.clock

    async def open_whens(self, owner: str | None = None) -> Sequence[RecallState]:
        """What is to be watched: a one-time one whose firing waits or runs is not any more."""
        return [state for state in await self._store.when_recalls(owner=owner) if watching(state)]

    async def record(self, happened: Happened) -> bool:
        now = self._clock.now()

        async def take_in(tx: RecallTx, state: RecallState) -> Occurred | None:
            opens = await tx.open_firings([happened.recall_id])
            pause, at = pause_of(state, self._mutations.min_interval), whole_ms(min(happened.at, now))
            near = None if pause is None else await tx.event_near(happened.recall_id, at, within=pause)
            return occur(state, happened, now, opens=opens, near=near, pause=pause)

        occurred = await self._store_decision(happened, take_in, now)
        if occurred is None or not occurred.fires:
            return False
        self._mutations.notify(occurred.state)
        return True

    async def expire(self, happened: Happened, reason: str) -> bool:
        now = self._clock.now()

        async def decision(_tx: RecallTx, state: RecallState) -> Occurred | None:
            return give_up(state, happened, reason, now)

        occurred = await self._store_decision(happened, decision, now)
        if occurred is not None:
            self._mutations.notify(occurred.state)
        return occurred is not None

    async def _store_decision(
        self, happened: Happened, decision: Callable[[RecallTx, RecallState], Awaitable[Occurred | None]], now: datetime
    ) -> Occurred | None:
        """Store what is decided of an event; None where it has its row already, or gets none."""

        async def unit(tx: RecallTx) -> Occurred | None:
            state = (await tx.recall_states([happened.recall_id])).get(happened.recall_id)
            # By its key: two servers, or one after a restart, report the same event.
            if state is None or await tx.keyed_firing(happened.recall_id, "event", happened.key) is not None:
                return None
            if (occurred := await decision(tx, state)) is None:
                return None
            await tx.save_firings(occurred.replaced)
            await tx.add_firings([occurred.firing])
            if occurred.state is not state:
                await tx.save_recalls([occurred.state])
            await append_notices(tx, [(occurred.state, occurred.notices)], now)
            return occurred

        return await self._store.write(unit, durable=True)

    async def narrow(self, recall_id: str, before: When, after: When) -> bool:
        # Without an event: to people it is the same recall.
        async def unit(tx: RecallTx) -> bool:
            state = (await tx.recall_states([recall_id])).get(recall_id)
            if state is None or not watching(state) or state.recall.schedule != before:
                return False
            await tx.save_recalls([replace(state, recall=state.recall.but(schedule=after))])
            return True

        return await self._store.write(unit)

    async def follow(
        self, source: str, target: str, session_id: str | None = None, *, owner: str | None = None
    ) -> None:
        def moved(state: RecallState) -> RecallState | None:
            when = state.recall.schedule
            path = moved_pattern(when.path, source, target) if isinstance(when, When) and when.path else None
            if not isinstance(when, When) or path is None or session_id not in (None, state.recall.session_id):
                return None
            return replace(state, recall=state.recall.but(schedule=when.model_copy(update={"path": path})))

        async def unit(tx: RecallTx) -> list[RecallState]:
            now = await tx.recall_states(ids)
            changed = [now_at for state in now.values() if not state.recall.status.final and (now_at := moved(state))]
            await tx.save_recalls(changed)
            return changed

        # Paused ones, too: they wait for the same file when they go on.
        found = await self._store.when_recalls(paused=True, owner=owner)
        if ids := [state.recall.id for state in found if moved(state)]:
            self._mutations.notify(*await self._store.write(unit, durable=True))

    async def report_failure(self, recall_id: str, reason: str) -> None:
        # The watcher calls it once for each reason; each call is an event.
        now = self._clock.now()

        async def unit(tx: RecallTx) -> None:
            state = (await tx.recall_states([recall_id])).get(recall_id)
            if state is not None and not state.recall.status.final:
                notice = RecallNotice(action="deferred", reason=f"it cannot be looked at: {reason[:500]}")
                await append_notices(tx, [(state, [notice])], now)

        await self._store.write(unit)

    async def user_wrote(self, session_id: str, at: datetime) -> None:
        """The user has written in a session: recalls with ``cancel_on: user_message`` end. Never raises."""
        await self._came(session_id, Seen(wrote_at=at))

    async def user_read(self, session_id: str, at: datetime) -> None:
        """The user has seen a session: recalls with ``cancel_on: read`` end. Never raises."""
        await self._came(session_id, Seen(read_at=at))

    async def _came(self, session_id: str, seen: Seen) -> None:
        """What is lost here (the database is locked, the server dies) is found again before the next firing starts."""
        now = self._clock.now()
        try:
            # A cheap read first: this is asked at each prompt, and few sessions have such recalls.
            if await self._store.ends_with_user(session_id):
                ended = await self._store.write(lambda tx: end_unwanted(tx, session_id, seen, now), durable=True)
                self._mutations.notify(*ended)
        except StoreError as error:
            log.warning("recalls_not_ended", session_id=session_id, error=error.message)
