"""How a recall is made and changed: the checks, and one transaction with its ``navi.recall`` event for each change.

Not responsible for which changes there are (``service``, ``bulk``, ``event_firings``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..clock import format_duration
from ..errors import InvalidRequest, InvalidSchedule, LimitReached, RecallNotFound, RecallOver, SessionNotFound
from ..model.base import ordered_id
from ..model.recalls import (
    Cron,
    Every,
    NotebookJob,
    Once,
    Recall,
    RecallCreate,
    RecallPatch,
    RecallRun,
    RecallStatus,
    Schedule,
    ScheduleSpec,
    When,
)
from ..model.sessions import OriginKind, Session
from ..ports.recalls import FiringState, RecallState
from .ledger import append_notices
from .notices import RecallNotice
from .outcomes import first_due, one_time, with_status
from .schedules import resolve, shortest_gap, whole_ms

if TYPE_CHECKING:
    from ..clock import Clock
    from ..ports.recalls import JobCheck, LeaveCheck, RecallStore, RecallTx

TITLE_LENGTH = 60
_TICK = timedelta(microseconds=1)

Change = Callable[[RecallState, Sequence[FiringState]], RecallState | None]
"""From a recall and its open firings to the recall as it is then; None where nothing changes."""


WhensChanged = Callable[[Collection[str]], None]
"""Called with the owners of ``when`` recalls that were made, have changed or ended. Must not block."""


def no_whens_changed(owners: Collection[str]) -> None:
    """For what has no watcher."""


def owners_of_whens(states: Iterable[RecallState]) -> set[str]:
    """The owners of those that are ``when`` recalls."""
    return {state.owner for state in states if isinstance(state.recall.schedule, When)}


def no_callback() -> None:
    """Does nothing: the default of the callbacks below."""


def title_of(message: str) -> str:
    """The first line of a message, cut at a word."""
    line = message.strip().splitlines()[0].strip()
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rsplit(" ", 1)[0] + "…"


class Mutations:
    """How each part of the service checks recalls and writes them."""

    def __init__(
        self,
        store: RecallStore,
        *,
        max_recalls_per_user: int,
        min_interval: timedelta,
        clock: Clock,
        changed: Callable[[], None],
        whens_changed: WhensChanged,
        why_not_watched: Callable[[When], str | None],
        targets: Callable[[str], Awaitable[Sequence[str]]] | None,
        leave_check: LeaveCheck | None,
        job_check: JobCheck | None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.min_interval = min_interval
        self._max_recalls = max_recalls_per_user
        self._changed = changed
        self._whens_changed = whens_changed
        self._why_not_watched = why_not_watched
        self._targets = targets
        self._leave_check = leave_check
        self._job_check = job_check

    def notify(self, *states: RecallState) -> None:
        """After a change is committed: the scheduler and the watcher look again."""
        self._changed()
        if owners := owners_of_whens(states):
            self._whens_changed(owners)

    async def write(self, unit: Callable[[RecallTx], Awaitable[Recall]], owner: str) -> Recall:
        """Run a change of one recall of this owner in a durable transaction, then notify."""
        recall = await self.store.write(unit, durable=True)
        self._changed()
        if isinstance(recall.schedule, When):
            self._whens_changed({owner})
        return recall

    async def change(self, recall_id: str, owner: str, change: Change, notice: RecallNotice) -> Recall:
        """Change one recall that is not over, in one transaction with its event. Raises RecallNotFound, RecallOver."""
        now = self.clock.now()

        async def unit(tx: RecallTx) -> Recall:
            state = await read_owned(tx, recall_id, owner)
            must_be_open(state)
            moved = change(state, await tx.open_firings([recall_id]))
            if moved is None:
                return state.recall
            await tx.save_recalls([moved])
            await append_notices(tx, [(moved, [notice])], now)
            return moved.recall

        return await self.write(unit, owner)

    async def add(self, tx: RecallTx, states: Sequence[RecallState], owner: str, now: datetime) -> None:
        """Insert new recalls of one owner. Raises SessionNotFound, LimitReached."""
        session_ids = list(dict.fromkeys(state.recall.session_id for state in states))
        # Counted inside the transaction, so that two requests at once cannot pass the limit together.
        count, owned = await tx.room_for_recalls(owner, session_ids)
        missing = next((one for one in session_ids if one not in owned), None)
        if missing is not None:  # the same answer for those of others: their ids are not probed
            raise SessionNotFound(f"There is no session {missing[:100]}.", field="session_id")
        if count + len(states) > self._max_recalls:
            raise LimitReached(
                f"You can have {self._max_recalls} recalls that are not over, and would have more; cancel some first."
            )
        await tx.add_recalls(states)
        await append_notices(tx, [(state, [RecallNotice(action="created")]) for state in states], now)

    async def known_targets(self, notify: Iterable[str], owner: str) -> Sequence[str] | None:
        """What :func:`check_targets` compares with; None where nothing is to be compared. Before a transaction: it
        reads files."""
        return await self._targets(owner) if self._targets is not None and any(notify) else None

    async def check_leave(
        self,
        names: Iterable[str],
        *,
        session_id: str,
        owner: str,
        kept: Iterable[str] = (),
        profiles: Sequence[str] = (),
    ) -> None:
        """Raises InvalidRequest for leave that cannot be given in that session, or by an agent that these profiles
        bound; SessionNotFound. Before a transaction: it asks where tools come from. What a recall has already is
        ``kept``: the call itself is judged anew each time.
        """
        new = [name for name in names if name not in set(kept)]
        if not new or self._leave_check is None:
            return
        await self._leave_check(await self._session_of(session_id, owner), new, profiles)

    async def check_job(
        self, run: RecallRun | None, *, session_id: str, owner: str, profiles: Sequence[str] = ()
    ) -> None:
        """Raises InvalidRequest, NotebookNotFound for a notebook that cannot be executed here, SessionNotFound. Before
        a transaction: it reads the notebook. It is judged anew each time that it is executed.
        """
        if not isinstance(run, NotebookJob):
            return
        if self._job_check is None:
            raise InvalidRequest("This server cannot execute notebooks.", field="run")
        await self._job_check(run, await self._session_of(session_id, owner), profiles)

    async def _session_of(self, session_id: str, owner: str) -> Session:
        session = await self.store.write(lambda tx: tx.session(session_id))
        if session is None or session.owner != owner:
            raise SessionNotFound(f"There is no session {session_id[:100]}.", field="session_id")
        return session

    def made(
        self, request: RecallCreate, *, owner: str, zone: str, now: datetime, by_agent: bool = False
    ) -> RecallState:
        """A new recall, not stored yet. Raises InvalidSchedule."""
        schedule = self._resolved(request.schedule, now, zone)
        recall = Recall(
            id=ordered_id("rec"),
            session_id=request.session_id,
            title=request.title or title_of(request.message),
            message=request.message,
            schedule=schedule,
            policy=request.policy,
            status=RecallStatus.PENDING,
            next_at=None,
            created_at=now,
            origin=OriginKind.SYSTEM if by_agent else OriginKind.USER,
            allow=request.allow,
            run=request.run,
        )
        return with_first_time(RecallState(recall=recall, owner=owner, due_at=None), now)

    def _resolved(self, spec: ScheduleSpec, now: datetime, zone: str) -> Schedule:
        """The schedule, if this server allows it. Raises InvalidSchedule."""
        schedule = resolve(spec, now=now, zone=zone)
        check_gap(schedule, self.min_interval, now)
        if isinstance(schedule, When) and (why := self._why_not_watched(schedule)):
            raise InvalidSchedule(f"when: {why}.", field="schedule")
        return schedule

    def patched(
        self, state: RecallState, patch: RecallPatch, now: datetime, zone: str, *, by_agent: bool = False
    ) -> RecallState:
        """The state with what is there changed. Raises RecallOver, InvalidSchedule."""
        recall = must_be_open(state)
        update: dict[str, Any] = {
            name: value
            for name in ("message", "title", "policy", "allow", "run")
            if (value := getattr(patch, name)) is not None
        }
        if patch.message is not None:
            update["origin"] = OriginKind.SYSTEM if by_agent else OriginKind.USER  # that of its message
        if patch.schedule is not None:
            own = recall.schedule.tz if isinstance(recall.schedule, (Cron, Every)) else None
            update["schedule"] = self._resolved(patch.schedule, now, own or zone)
        moved = replace(state, recall=recall.model_copy(update=update))
        if patch.schedule is not None:
            # An event that is waited for anew has not happened yet; others go on counting for ``max_fires``.
            anew = isinstance(update["schedule"], When) and one_time(update["schedule"])
            return with_first_time(replace(moved, outcome=None, planned=0 if anew else state.planned), now)
        if patch.policy is not None and isinstance(recall.schedule, When):
            return with_first_time(moved, now)
        if patch.policy is not None and state.due_at is not None:
            return replace(moved, due_at=first_due(moved, after=state.due_at - _TICK))
        if patch.policy is not None and not one_time(recall.schedule):  # its end may have been put off: it goes on
            return replace(moved, due_at=first_due(moved, after=max(now, recall.last_at or now)))
        return moved


def paused(state: RecallState, _opens: Sequence[FiringState]) -> RecallState | None:
    """A :data:`Change`: nothing starts until it is resumed; a run in progress goes on."""
    if state.recall.status is RecallStatus.PAUSED:
        return None
    return replace(state, recall=state.recall.but(status=RecallStatus.PAUSED, next_at=None))


def resumed(state: RecallState, opens: Sequence[FiringState]) -> RecallState | None:
    """A :data:`Change`: it goes on; the misfire policy decides about the times that passed meanwhile."""
    if state.recall.status is not RecallStatus.PAUSED:
        return None
    return with_status(replace(state, recall=state.recall.but(status=RecallStatus.PENDING, reason=None)), opens)


def check_targets(notify: Iterable[str], known: Sequence[str] | None, *, kept: Iterable[str] = ()) -> None:
    """Raises InvalidRequest for an unknown name. Those that a recall has already are ``kept``: that a target is gone
    shows in the ledger when it would be notified."""
    if known is None:
        return
    fine = {*known, *(name.lower() for name in kept)}
    unknown = next((name for name in notify if name.lower() not in fine), None)
    if unknown is not None:
        names = ", ".join(known[:_NAMED]) + (", …" if len(known) > _NAMED else "")
        raise InvalidRequest(
            f"There is no notification target {unknown!r}. There are: {names}; others go into navi/notify.toml.",
            field="policy.notify",
        )


_NAMED = 20


def check_gap(schedule: Schedule, least: timedelta, now: datetime) -> None:
    """Raises InvalidSchedule for one that fires more often than this server allows."""
    gap = shortest_gap(schedule, now=now)
    if gap is not None and gap < least:
        raise InvalidSchedule(
            f"It would fire every {format_duration(gap)}; here at least {format_duration(least)} lie between two"
            " firings.",
            field="schedule.every" if isinstance(schedule, Every) else "schedule.expr",
        )


def with_first_time(state: RecallState, now: datetime) -> RecallState:
    """The state of a recall whose schedule counts from ``now``. Raises InvalidSchedule when it would never fire."""
    schedule: Schedule = state.recall.schedule
    # A time that was "now" when it was written fires at once.
    after = min(now, schedule.at - _TICK) if isinstance(schedule, Once) else now
    due = first_due(state, after=after)
    policy = state.recall.policy
    full = policy.max_fires is not None and state.planned >= policy.max_fires
    if due is None and (not isinstance(schedule, When) or policy.until is not None or full):
        why = "max_fires is reached already"
        if not full:
            why = "until is before its first time" if policy.until else "it has no time to come"
        raise InvalidSchedule(f"It would never fire: {why}.", field="policy.until" if policy.until else "policy")
    return with_status(replace(state, due_at=None if due is None else whole_ms(due)), ())


def require_owner(state: RecallState | None, recall_id: str, owner: str) -> RecallState:
    """Raises RecallNotFound, also for other people's."""
    if state is None or state.owner != owner:
        raise RecallNotFound(f"There is no recall {recall_id[:100]}.")
    return state


async def read_owned(tx: RecallTx, recall_id: str, owner: str) -> RecallState:
    """The state inside a transaction. Raises RecallNotFound."""
    return require_owner((await tx.recall_states([recall_id])).get(recall_id), recall_id, owner)


def must_be_open(state: RecallState) -> Recall:
    """Raises RecallOver."""
    if state.recall.status.final:
        raise RecallOver(f"The recall is over: it {_ENDS[state.recall.status]}.")
    return state.recall


_ENDS = {
    RecallStatus.FIRED: "has fired",
    RecallStatus.FAILED: "has failed",
    RecallStatus.CANCELLED: "was cancelled",
    RecallStatus.EXPIRED: "has expired",
}
