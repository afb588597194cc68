"""What users, programs and tools may do with recalls: make, read, change, end and fire them.

Each change is one transaction with its ``navi.recall`` event. Not responsible for when anything fires: ``scheduler``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..errors import InvalidSchedule, LimitReached, RecallNotFound, RecallOver, SessionNotFound
from ..model import (
    Cron,
    Firing,
    FiringStatus,
    Once,
    OriginKind,
    Policy,
    Recall,
    RecallCreate,
    RecallPatch,
    RecallStatus,
    Schedule,
    ScheduleSpec,
    new_id,
)
from ..ports.recalls import FiringState, RecallState
from .clock import SystemClock
from .ledger import say
from .policy import Said, at_rest, cancelled, ended_by_user, first_due, manual
from .schedule import preview, resolve, warnings, whole_ms

if TYPE_CHECKING:
    from ..ports.recalls import Clock, RecallStore, RecallTx

TITLE_LENGTH = 60
MAX_PREVIEW = 100
_TICK = timedelta(microseconds=1)

_Change = Callable[[RecallState, Sequence[FiringState], datetime], tuple[RecallState, list[FiringState], list[Said]]]
"""A user's change: from the state and its open firings to the new state, changed firings and what is said."""


def title_of(message: str) -> str:
    """The first line of a message, cut at a word."""
    line = message.strip().splitlines()[0].strip()
    if len(line) <= TITLE_LENGTH:
        return line
    return line[: TITLE_LENGTH - 1].rsplit(" ", 1)[0] + "…"


class RecallService:
    """Implements :class:`navi_jupyter.ports.RecallDesk`, and what the REST interface needs besides.

    A recall of somebody else is not found (RecallNotFound), whatever is asked of it.
    """

    def __init__(
        self,
        store: RecallStore,
        *,
        max_recalls_per_user: int = 1000,
        clock: Clock | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._max_recalls = max_recalls_per_user
        self._clock = clock or SystemClock()
        self.changed = changed
        """Called after each change, so that the scheduler looks again. Set by the composition root."""

    # --- reading

    async def get(self, recall_id: str, *, owner: str) -> Recall:
        """Raises RecallNotFound."""
        state = await self._store.recall_state(recall_id)
        return _owned(state, recall_id, owner).recall

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
        now = self._clock.now()
        base = after or now
        schedule = resolve(spec, now=now, zone=zone)
        return preview(schedule, n=min(n, MAX_PREVIEW), after=base, zone=zone), warnings(schedule, now=base)

    # --- making and changing

    async def create(self, request: RecallCreate, *, owner: str, zone: str, by_agent: bool = False) -> Recall:
        """Validate and store a recall, durable on return. Raises InvalidSchedule, LimitReached, SessionNotFound."""
        now = self._clock.now()
        schedule = resolve(request.schedule, now=now, zone=zone)
        recall = Recall(
            id=new_id("rec"),
            session_id=request.session_id,
            title=request.title or title_of(request.message),
            message=request.message,
            schedule=schedule,
            policy=request.policy,
            status=RecallStatus.PENDING,
            next_at=None,
            created_at=now,
            origin=OriginKind.SYSTEM if by_agent else OriginKind.USER,
        )
        state = _aimed(RecallState(recall=recall, owner=owner, due_at=None), now)

        async def unit(tx: RecallTx) -> None:
            if not await tx.session_of_owner(recall.session_id, owner):
                raise SessionNotFound(f"There is no session {recall.session_id}.", field="session_id")
            if await tx.count_open_recalls(owner) >= self._max_recalls:
                raise LimitReached(
                    f"You have {self._max_recalls} recalls that are not over, as many as are allowed;"
                    " cancel some first."
                )
            await tx.add_recalls([state])
            await say(tx, [(state, [Said(action="created")])], now)

        await self._store.write(unit, durable=True)
        self.changed()
        return state.recall

    async def patch(self, recall_id: str, patch: RecallPatch, *, owner: str, zone: str | None = None) -> Recall:
        """Change the fields that are there. A new schedule counts from now; what already fired or waits keeps its slot.

        Raises RecallNotFound, RecallOver, InvalidSchedule.
        """
        now = self._clock.now()

        async def unit(tx: RecallTx) -> Recall:
            state = await _locked(tx, recall_id, owner)
            session = await tx.session(state.recall.session_id)
            own_zone = zone or (session.timezone if session else "UTC")
            moved = at_rest(_patched(state, patch, now, own_zone), await tx.open_firings([recall_id]))
            if not patch.model_fields_set:
                return state.recall
            await tx.save_recalls([moved])
            await say(tx, [(moved, [Said(action="rescheduled")])], now)
            return moved.recall

        recall = await self._store.write(unit, durable=True)
        self.changed()
        return recall

    async def pause(self, recall_id: str, *, owner: str) -> Recall:
        """Nothing starts until it is resumed; a run in progress goes on. Raises RecallNotFound, RecallOver."""

        def change(
            state: RecallState, _opens: Sequence[FiringState], _now: datetime
        ) -> tuple[RecallState, list[FiringState], list[Said]]:
            recall = _open(state)
            if recall.status is RecallStatus.PAUSED:
                return state, [], []
            update = {"status": RecallStatus.PAUSED, "next_at": None}
            return replace(state, recall=recall.model_copy(update=update)), [], [Said(action="paused")]

        return await self._change(recall_id, owner, change)

    async def resume(self, recall_id: str, *, owner: str) -> Recall:
        """Go on; what its misfire policy says decides about the slots that passed meanwhile.

        Raises RecallNotFound, RecallOver.
        """

        def change(
            state: RecallState, opens: Sequence[FiringState], _now: datetime
        ) -> tuple[RecallState, list[FiringState], list[Said]]:
            recall = _open(state)
            if recall.status is not RecallStatus.PAUSED:
                return state, [], []
            active = replace(state, recall=recall.model_copy(update={"status": RecallStatus.PENDING}))
            return at_rest(active, opens), [], [Said(action="resumed")]

        return await self._change(recall_id, owner, change)

    async def cancel(self, recall_id: str, *, owner: str) -> Recall:
        """End a recall: nothing more starts, a run in progress goes on, the ledger stays.

        Raises RecallNotFound, RecallOver.
        """

        def change(
            state: RecallState, opens: Sequence[FiringState], now: datetime
        ) -> tuple[RecallState, list[FiringState], list[Said]]:
            _open(state)
            stopped = [cancelled(f, now) for f in opens if f.firing.status is not FiringStatus.RUNNING]
            return ended_by_user(state), stopped, [Said(action="cancelled")]

        return await self._change(recall_id, owner, change)

    async def delete(self, recall_id: str, *, owner: str) -> Recall:
        """:meth:`cancel`, and without effect on one that is over, so that it can be repeated. Raises RecallNotFound."""
        try:
            return await self.cancel(recall_id, owner=owner)
        except RecallOver:
            return await self.get(recall_id, owner=owner)

    async def fire(self, recall_id: str, *, owner: str, key: str | None = None) -> Recall:
        """Run it now, besides its schedule: no slot is used up. The same ``key`` again changes nothing.

        Raises RecallNotFound, RecallOver.
        """
        now = self._clock.now()

        async def unit(tx: RecallTx) -> Recall:
            state = await _locked(tx, recall_id, owner)
            if key is not None and await tx.manual_firing(recall_id, key) is not None:
                return state.recall
            _open(state)
            firing = manual(state.recall, key, now)
            opens = [*await tx.open_firings([recall_id]), firing]
            moved = at_rest(state, opens)
            await tx.add_firings([firing])
            await tx.save_recalls([moved])
            return moved.recall

        recall = await self._store.write(unit, durable=True)
        self.changed()
        return recall

    async def _change(self, recall_id: str, owner: str, change: _Change) -> Recall:
        now = self._clock.now()

        async def unit(tx: RecallTx) -> Recall:
            state = await _locked(tx, recall_id, owner)
            moved, firings, said = change(state, await tx.open_firings([recall_id]), now)
            if moved is state and not firings:
                return state.recall
            if firings:
                await tx.save_firings(firings)
            await tx.save_recalls([moved])
            await say(tx, [(moved, said)], now)
            return moved.recall

        recall = await self._store.write(unit, durable=True)
        self.changed()
        return recall


def _owned(state: RecallState | None, recall_id: str, owner: str) -> RecallState:
    if state is None or state.owner != owner:
        raise RecallNotFound(f"There is no recall {recall_id[:100]}.")
    return state


async def _locked(tx: RecallTx, recall_id: str, owner: str) -> RecallState:
    return _owned((await tx.recall_states([recall_id])).get(recall_id), recall_id, owner)


def _open(state: RecallState) -> Recall:
    if state.recall.status.final:
        raise RecallOver(f"The recall is over: it {_ENDS[state.recall.status]}.")
    return state.recall


_ENDS = {
    RecallStatus.FIRED: "has fired",
    RecallStatus.FAILED: "has failed",
    RecallStatus.CANCELLED: "was cancelled",
    RecallStatus.EXPIRED: "has expired",
}


def _patched(state: RecallState, patch: RecallPatch, now: datetime, zone: str) -> RecallState:
    """The state with what is there changed. Raises RecallOver, InvalidSchedule."""
    recall = _open(state)
    update: dict[str, Any] = {
        name: value for name in ("message", "title", "policy") if (value := getattr(patch, name)) is not None
    }
    if patch.schedule is not None:
        own = recall.schedule.tz if isinstance(recall.schedule, Cron) else zone
        update["schedule"] = resolve(patch.schedule, now=now, zone=own)
    moved = replace(state, recall=recall.model_copy(update=update))
    if patch.schedule is not None:
        return _aimed(moved, now)
    if patch.policy is not None and state.due_at is not None:
        return replace(moved, due_at=first_due(moved, after=state.due_at - _TICK))
    return moved


def _aimed(state: RecallState, now: datetime) -> RecallState:
    """The state of a recall whose schedule counts from ``now``. Raises InvalidSchedule when it would never fire."""
    schedule: Schedule = state.recall.schedule
    # A time that was "now" when it was written fires at once.
    after = min(now, schedule.at - _TICK) if isinstance(schedule, Once) else now
    due = first_due(state, after=after)
    if due is None:
        policy: Policy = state.recall.policy
        why = "until is before its first time" if policy.until else "max_fires is reached already"
        raise InvalidSchedule(f"It would never fire: {why}.", field="policy.until" if policy.until else "policy")
    return at_rest(replace(state, due_at=whole_ms(due)), ())
