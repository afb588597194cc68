"""What users, programs and tools may do with recalls: make, read, change, end and fire them.

Each change is one transaction with its ``navi.recall`` event. Not responsible for when anything fires: ``scheduler``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from ..errors import InvalidSchedule, RecallOver
from ..model.recalls import (
    Firing,
    FiringStatus,
    Recall,
    RecallCreate,
    RecallPatch,
    RecallStatus,
    Schedule,
    ScheduleSpec,
)
from ..ports.recalls import FiringState, RecallState
from .bulk import BulkChanges
from .decisions import agent_may_not
from .ledger import CANCELLED, end_all, say
from .mutations import TITLE_LENGTH, check_gap, check_targets, locked, must_be_open, owned, title_of
from .notices import RecallNotice
from .occurrences import Watching
from .outcomes import at_rest, manual, one_time
from .schedules import preview, resolve, warnings

if TYPE_CHECKING:
    from ..ports.recalls import RecallTx

__all__ = ["MAX_PREVIEW", "TITLE_LENGTH", "RecallService", "title_of"]

MAX_PREVIEW = 100


class RecallService(Watching, BulkChanges):
    """Implements :class:`navi_jupyter.ports.RecallAccess` and :class:`navi_jupyter.ports.recalls.Occurrences`, and what
    the REST interface needs besides.

    A recall of somebody else is not found (RecallNotFound), whatever is asked of it.
    """

    # --- reading

    async def get(self, recall_id: str, *, owner: str) -> Recall:
        """Raises RecallNotFound."""
        state = await self._store.recall_state(recall_id)
        return owned(state, recall_id, owner).recall

    async def list(
        self,
        owner: str,
        *,
        session_id: str | None = None,
        status: RecallStatus | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[Sequence[Recall], str | None]:
        """A page of the owner's recalls, newest first, and the cursor of the next one. Raises InvalidRequest."""
        wanted = None if status is None else status.value
        return await self._store.recalls(owner, session_id=session_id, status=wanted, limit=limit, cursor=cursor)

    async def in_session(self, session_id: str) -> Sequence[Recall]:
        """The session's recalls, the soonest first, then those that are over, the newest first."""
        return await self._store.recalls_in(session_id)

    async def ledger(
        self, recall_id: str, *, owner: str, limit: int = 50, cursor: str | None = None
    ) -> tuple[Sequence[Firing], str | None]:
        """A page of the ledger, newest slot first, and the cursor of the next one. Raises RecallNotFound."""
        await self.get(recall_id, owner=owner)
        return await self._store.firings(recall_id, limit=limit, cursor=cursor)

    async def firings(self, recall_id: str, *, owner: str, limit: int = 50) -> Sequence[Firing]:
        """The ledger, newest slot first. Raises RecallNotFound."""
        page, _ = await self.ledger(recall_id, owner=owner, limit=limit)
        return page

    async def open_recalls(self) -> int:
        """How many recalls, of everybody, are not over."""
        return (await self._store.audit_recalls(self._clock.now())).open

    def preview(
        self, spec: ScheduleSpec, *, n: int = 5, after: datetime | None = None, zone: str
    ) -> tuple[Sequence[datetime], Sequence[str]]:
        """The next ``n`` slots after ``after`` (default now), in the schedule's zone, and warnings.

        Raises InvalidSchedule.
        """
        _, times, told = self.foresee(spec, n=n, after=after, zone=zone)
        return times, told

    def foresee(
        self,
        spec: ScheduleSpec,
        *,
        n: int = 5,
        after: datetime | None = None,
        as_of: datetime | None = None,
        zone: str,
    ) -> tuple[Schedule, Sequence[datetime], Sequence[str]]:
        """:meth:`preview`, and before it the schedule as it would be stored at ``as_of`` (default now).

        Raises InvalidSchedule.
        """
        now = as_of or self._clock.now()
        base = after or now
        schedule = resolve(spec, now=now, zone=zone)
        check_gap(schedule, self._min_interval, now)
        times = preview(schedule, n=min(n, MAX_PREVIEW), after=base, zone=zone)
        return schedule, times, warnings(schedule, now=base)

    # --- making and changing

    async def create(
        self, request: RecallCreate, *, owner: str, zone: str, by_agent: bool = False, code: bool = False
    ) -> Recall:
        """Validate and store a recall, durable on return.

        Raises InvalidRequest, InvalidSchedule, LimitReached, SessionNotFound.

        ``code``: one of the agent may wait for an expression, which is code that a kernel executes.
        """
        check_targets(request.policy.notify, await self._known_targets(request.policy.notify))
        now = self._clock.now()
        state = self._made(request, owner=owner, zone=zone, now=now, by_agent=by_agent)
        schedule = state.recall.schedule
        if by_agent and (why := agent_may_not(schedule, code=code)):
            raise InvalidSchedule(why, field="schedule")

        async def unit(tx: RecallTx) -> None:
            await self._add(tx, [state], owner, now)

        await self._store.write(unit, durable=True)
        self._tell(state.recall)
        return state.recall

    async def patch(self, recall_id: str, patch: RecallPatch, *, owner: str, zone: str | None = None) -> Recall:
        """Change the fields that are there. A new schedule counts from now; what already fired or waits keeps its slot.

        Raises RecallNotFound, RecallOver, InvalidRequest, InvalidSchedule.
        """
        notify = patch.policy.notify if patch.policy else ()
        known = await self._known_targets(notify)
        now = self._clock.now()

        async def unit(tx: RecallTx) -> Recall:
            state = await locked(tx, recall_id, owner)
            check_targets(notify, known, kept=state.recall.policy.notify)
            session = await tx.session(state.recall.session_id)
            own_zone = zone or (session.timezone if session else "UTC")
            moved = at_rest(self._patched(state, patch, now, own_zone), await tx.open_firings([recall_id]))
            if not patch.model_fields_set:
                return state.recall
            await tx.save_recalls([moved])
            await say(tx, [(moved, [RecallNotice(action="rescheduled")])], now)
            return moved.recall

        recall = await self._store.write(unit, durable=True)
        self._tell(recall)
        return recall

    async def pause(self, recall_id: str, *, owner: str) -> Recall:
        """Nothing starts until it is resumed; a run in progress goes on. Raises RecallNotFound, RecallOver."""

        def change(
            state: RecallState, _opens: Sequence[FiringState], _now: datetime
        ) -> tuple[RecallState, list[FiringState], list[RecallNotice]]:
            recall = must_be_open(state)
            if recall.status is RecallStatus.PAUSED:
                return state, [], []
            update = {"status": RecallStatus.PAUSED, "next_at": None}
            return replace(state, recall=recall.model_copy(update=update)), [], [RecallNotice(action="paused")]

        return await self._change(recall_id, owner, change)

    async def resume(self, recall_id: str, *, owner: str) -> Recall:
        """Go on; what its misfire policy says decides about the slots that passed meanwhile.

        Raises RecallNotFound, RecallOver.
        """

        def change(
            state: RecallState, opens: Sequence[FiringState], _now: datetime
        ) -> tuple[RecallState, list[FiringState], list[RecallNotice]]:
            recall = must_be_open(state)
            if recall.status is not RecallStatus.PAUSED:
                return state, [], []
            active = replace(state, recall=recall.model_copy(update={"status": RecallStatus.PENDING}))
            return at_rest(active, opens), [], [RecallNotice(action="resumed")]

        return await self._change(recall_id, owner, change)

    async def cancel(self, recall_id: str, *, owner: str) -> Recall:
        """End a recall: nothing more starts, a run in progress goes on, the ledger stays.

        Raises RecallNotFound, RecallOver.
        """

        now = self._clock.now()

        async def unit(tx: RecallTx) -> Recall:
            state = await locked(tx, recall_id, owner)
            must_be_open(state)
            (ended,) = await end_all(tx, [(state, CANCELLED)], now)
            return ended.recall

        recall = await self._store.write(unit, durable=True)
        self._tell(recall)
        return recall

    async def delete(self, recall_id: str, *, owner: str) -> Recall:
        """:meth:`cancel`, and without effect on one that is over, so that it can be repeated. Raises RecallNotFound."""
        try:
            return await self.cancel(recall_id, owner=owner)
        except RecallOver:
            return await self.get(recall_id, owner=owner)

    async def fire(self, recall_id: str, *, owner: str, key: str | None = None) -> Recall:
        """Run it now, besides its schedule: no slot is used up. The same ``key`` again changes nothing.

        A one-time recall that has failed is run once more.

        Raises RecallNotFound, RecallOver.
        """
        now = self._clock.now()

        async def unit(tx: RecallTx) -> Recall:
            state = await locked(tx, recall_id, owner)
            if key is not None and await tx.manual_firing(recall_id, key) is not None:
                return state.recall
            state = _reopened(state)
            firing = manual(state.recall, key, now)
            opens = [*await tx.open_firings([recall_id]), firing]
            moved = at_rest(state, opens)
            await tx.add_firings([firing])
            await tx.save_recalls([moved])
            return moved.recall

        recall = await self._store.write(unit, durable=True)
        self._tell(recall)
        return recall


def _reopened(state: RecallState) -> RecallState:
    """A one-time recall that has failed may be run once more, and ends as that run does. Raises RecallOver."""
    failed = state.recall.status is RecallStatus.FAILED and state.outcome is FiringStatus.FAILED
    if failed and one_time(state.recall.schedule):
        return replace(state, recall=state.recall.but(status=RecallStatus.PENDING))
    must_be_open(state)
    return state
