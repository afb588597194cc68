"""What users, programs and tools may do with recalls: make, read, change, end and fire them.

Each change is one transaction with its ``navi.recall`` event. Not responsible for when anything fires: ``scheduler``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..clock import SystemClock
from ..errors import InvalidRequest, InvalidSchedule, RecallOver, SessionNotFound
from ..model.recalls import (
    Firing,
    FiringStatus,
    NotebookJob,
    Recall,
    RecallCreate,
    RecallPatch,
    RecallRun,
    RecallStatus,
    Schedule,
    ScheduleSpec,
    When,
)
from ..model.sessions import OriginKind
from ..ports.agent import Unrun
from ..ports.recalls import RecallState
from .bulk import BulkChanges
from .decisions import agent_may_not
from .event_firings import RecallOccurrences
from .ledger import CANCELLED, append_notices, end_all, end_with_session
from .mutations import (
    Mutations,
    WhensChanged,
    check_gap,
    check_targets,
    must_be_open,
    no_callback,
    no_whens_changed,
    paused,
    read_owned,
    require_owner,
    resumed,
)
from .notices import RecallNotice
from .outcomes import manual, one_time, with_status
from .schedules import MIN_INTERVAL, load_cron_reader, preview, resolve, spec_of, warnings

if TYPE_CHECKING:
    from ..clock import Clock
    from ..ports.recall_overview import OverviewRows
    from ..ports.recalls import JobCheck, LeaveCheck, RecallStore, RecallTx
    from ..ports.transactions import SessionTx

MAX_PREVIEW = 100
MAX_UNRUN = 500


class RecallQueries:
    """What users, programs and the agent read of recalls. A recall of another owner is not found, whatever is asked."""

    def __init__(self, store: RecallStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def get(self, recall_id: str, *, owner: str) -> Recall:
        """Raises RecallNotFound."""
        return require_owner(await self._store.recall_state(recall_id), recall_id, owner).recall

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
        """A page of the ledger, newest time first, and the cursor of the next one. Raises RecallNotFound."""
        await self.get(recall_id, owner=owner)
        return await self._store.firings(recall_id, limit=limit, cursor=cursor)

    async def last_firings(self, recalls: Sequence[Recall]) -> Mapping[str, Firing]:
        """The latest row of the ledger of each, by recall."""
        return await self._store.last_firings(recall.id for recall in recalls)

    async def unrun(self, session_id: str, *, since: datetime | None, limit: int) -> Sequence[Unrun]:
        """What did not run in a session, of times from ``since`` on: the last ``limit``, oldest first."""
        if not 0 < limit <= MAX_UNRUN:
            raise InvalidRequest(f"limit must be from 1 to {MAX_UNRUN}.", field="limit")
        return await self._store.unrun(session_id, since=since, limit=limit)

    async def overview(
        self, owner: str, *, days: Sequence[tuple[datetime, datetime]], coming: int, waiting: int, per_day: int
    ) -> OverviewRows:
        """The owner's recalls over all sessions, as :class:`~navi_jupyter.ports.recall_overview.OverviewRows`."""
        return await self._store.recall_overview(
            owner, now=self._clock.now(), days=days, coming=coming, waiting=waiting, per_day=per_day
        )

    async def open_recalls(self) -> int:
        """How many recalls, of all owners, are not over."""
        return (await self._store.audit_recalls(self._clock.now())).open


class RecallService:
    """Makes, changes, ends and fires recalls. Implements :class:`navi_jupyter.ports.agent.RecallAccess`.

    A recall of another owner is not found (RecallNotFound), whatever is asked of it.
    """

    def __init__(
        self,
        store: RecallStore,
        *,
        max_recalls_per_user: int = 1000,
        min_interval: timedelta = MIN_INTERVAL,
        clock: Clock | None = None,
        changed: Callable[[], None] = no_callback,
        whens_changed: WhensChanged = no_whens_changed,
        why_not_watched: Callable[[When], str | None] = lambda _: None,
        targets: Callable[[str], Awaitable[Sequence[str]]] | None = None,
        leave_check: LeaveCheck | None = None,
        job_check: JobCheck | None = None,
    ) -> None:
        """``changed``: called after each change, so that the scheduler looks again. ``whens_changed``: called when
        what is to be watched may have changed. Neither blocks. ``why_not_watched``: why an event can never be noticed
        here, if so. ``targets``: by owner, names that ``policy.notify`` may have, in small letters; None: any.
        ``leave_check``: None lets any leave through. ``job_check``: None lets no notebook job through.
        """
        self._store = store
        self._clock = clock or SystemClock()
        self._mutations = Mutations(
            store,
            max_recalls_per_user=max_recalls_per_user,
            min_interval=min_interval,
            clock=self._clock,
            changed=changed,
            whens_changed=whens_changed,
            why_not_watched=why_not_watched,
            targets=targets,
            leave_check=leave_check,
            job_check=job_check,
        )
        self.queries = RecallQueries(store, self._clock)
        self.bulk = BulkChanges(self._mutations)
        self.occurrences = RecallOccurrences(self._mutations)

    async def in_session(self, session_id: str) -> Sequence[Recall]:
        return await self.queries.in_session(session_id)

    async def firings(self, recall_id: str, *, owner: str, limit: int = 50) -> Sequence[Firing]:
        """The ledger, newest time first. Raises RecallNotFound."""
        page, _ = await self.queries.ledger(recall_id, owner=owner, limit=limit)
        return page

    async def unrun(self, session_id: str, *, since: datetime | None, limit: int = 100) -> Sequence[Unrun]:
        return await self.queries.unrun(session_id, since=since, limit=limit)

    async def foresee(
        self, spec: ScheduleSpec, *, n: int = 5, after: datetime | None = None, as_of: datetime | None = None, zone: str
    ) -> tuple[Schedule, Sequence[datetime], Sequence[str]]:
        """The schedule as it would be stored at ``as_of``, its next ``n`` times after ``after`` in its zone, and
        warnings; both are now by default. Raises InvalidSchedule.
        """
        await load_cron_reader([spec])
        now = as_of or self._clock.now()
        base = after or now
        schedule = resolve(spec, now=now, zone=zone)
        check_gap(schedule, self._mutations.min_interval, now)
        times = preview(schedule, n=min(n, MAX_PREVIEW), after=base, zone=zone)
        return schedule, times, warnings(schedule, now=base)

    async def create(
        self, request: RecallCreate, *, owner: str, zone: str, by_agent: bool = False, code: bool = False
    ) -> Recall:
        """Validate and store a recall, durable on return. Raises InvalidRequest, InvalidSchedule, LimitReached,
        SessionNotFound.

        ``code``: one of the agent may wait for an expression or execute a notebook, which are code.
        """
        await load_cron_reader([request.schedule])
        check_targets(request.policy.notify, await self._mutations.known_targets(request.policy.notify, owner))
        await self._mutations.check_leave(request.allow, session_id=request.session_id, owner=owner)
        await self._mutations.check_job(request.run, session_id=request.session_id, owner=owner)
        now = self._clock.now()
        state = self._mutations.made(request, owner=owner, zone=zone, now=now, by_agent=by_agent)
        if by_agent and (why := agent_may_not(state.recall.schedule, code=code)):
            raise InvalidSchedule(why, field="schedule")
        if by_agent and not code and isinstance(request.run, NotebookJob):
            raise InvalidRequest("A notebook is code: `recall_notebook` is the tool for it.", field="run")
        await self._store.write(lambda tx: self._mutations.add(tx, [state], owner, now), durable=True)
        self._mutations.notify(state)
        return state.recall

    async def check_leave(
        self, allow: Sequence[str], *, session_id: str, owner: str, profiles: Sequence[str] = ()
    ) -> None:
        await self._mutations.check_leave(allow, session_id=session_id, owner=owner, profiles=profiles)

    async def recall_of(self, recall_id: str) -> Recall | None:
        state = await self._store.recall_state(recall_id)
        return None if state is None else state.recall

    async def patch(
        self, recall_id: str, patch: RecallPatch, *, owner: str, zone: str | None = None, by_agent: bool = False
    ) -> Recall:
        """Change the fields that are there. A new schedule counts from now; what already fired or waits keeps its slot.

        Raises RecallNotFound, RecallOver, InvalidRequest, InvalidSchedule.
        """
        if patch.schedule is not None or patch.policy is not None:
            await load_cron_reader([patch.schedule])
        notify = patch.policy.notify if patch.policy else ()
        known = await self._mutations.known_targets(notify, owner)
        await self._check_leave(recall_id, patch.allow or (), owner)
        await self._check_job(recall_id, patch.run, owner)
        now = self._clock.now()

        async def unit(tx: RecallTx) -> Recall:
            state = await read_owned(tx, recall_id, owner)
            check_targets(notify, known, kept=state.recall.policy.notify)
            session = await tx.session(state.recall.session_id)
            own_zone = zone or (session.timezone if session else "UTC")
            patched = self._mutations.patched(state, patch, now, own_zone, by_agent=by_agent)
            if by_agent and patch.schedule is not None and (why := agent_may_not(patched.recall.schedule, code=False)):
                raise InvalidSchedule(why, field="schedule")
            moved = with_status(patched, await tx.open_firings([recall_id]))
            if not patch.model_fields_set:
                return state.recall
            await tx.save_recalls([moved])
            await append_notices(tx, [(moved, [_change_notice(patch, state.recall)])], now)
            return moved.recall

        return await self._mutations.write(unit, owner)

    async def clone(self, recall_id: str, patch: RecallPatch, *, owner: str) -> Recall:
        """A new recall like this one, with the fields of ``patch`` in their place. It counts from now.

        One that is over can be cloned, too. Raises RecallNotFound, InvalidRequest, InvalidSchedule (a time that is
        past), LimitReached.
        """
        await load_cron_reader([patch.schedule])
        notify = patch.policy.notify if patch.policy else ()
        known = await self._mutations.known_targets(notify, owner)
        await self._check_leave(recall_id, patch.allow or (), owner)
        await self._check_job(recall_id, patch.run, owner)
        now = self._clock.now()

        async def unit(tx: RecallTx) -> Recall:
            recall = (await read_owned(tx, recall_id, owner)).recall
            check_targets(notify, known, kept=recall.policy.notify)
            session = await tx.session(recall.session_id)
            request = RecallCreate(
                session_id=recall.session_id,
                message=patch.message or recall.message,
                title=patch.title or (recall.title if patch.message is None else None),
                schedule=patch.schedule or spec_of(recall.schedule),
                policy=patch.policy or recall.policy,
                allow=recall.allow if patch.allow is None else patch.allow,
                run=patch.run or recall.run,
            )
            state = self._mutations.made(
                request,
                owner=owner,
                zone=session.timezone if session else "UTC",
                now=now,
                by_agent=recall.origin is not OriginKind.USER and patch.message is None,
            )
            await self._mutations.add(tx, [state], owner, now)
            return state.recall

        return await self._mutations.write(unit, owner)

    async def pause(self, recall_id: str, *, owner: str) -> Recall:
        """Nothing starts until it is resumed; a run in progress goes on. Raises RecallNotFound, RecallOver."""
        return await self._mutations.change(recall_id, owner, paused, RecallNotice(action="paused"))

    async def resume(self, recall_id: str, *, owner: str) -> Recall:
        """Go on; the misfire policy decides about what passed meanwhile. Raises RecallNotFound, RecallOver."""
        return await self._mutations.change(recall_id, owner, resumed, RecallNotice(action="resumed"))

    async def cancel(self, recall_id: str, *, owner: str) -> Recall:
        """Nothing more starts, a run in progress goes on, the ledger stays. Raises RecallNotFound, RecallOver."""
        now = self._clock.now()

        async def unit(tx: RecallTx) -> Recall:
            state = await read_owned(tx, recall_id, owner)
            must_be_open(state)
            (ended,) = await end_all(tx, [(state, CANCELLED)], now)
            return ended.recall

        return await self._mutations.write(unit, owner)

    async def end_with_session(self, session_id: str, delete: Callable[[SessionTx], Awaitable[None]]) -> None:
        now = self._clock.now()

        async def unit(tx: RecallTx) -> list[RecallState]:
            ended = await end_with_session(tx, session_id, now)
            await delete(tx)
            return ended

        ended = await self._store.write(unit, durable=True)
        self._mutations.notify(*ended)

    async def delete(self, recall_id: str, *, owner: str) -> Recall:
        """:meth:`cancel`, and without effect on one that is over, so that it can be repeated. Raises RecallNotFound."""
        try:
            return await self.cancel(recall_id, owner=owner)
        except RecallOver:
            return await self.queries.get(recall_id, owner=owner)

    async def fire(self, recall_id: str, *, owner: str, key: str | None = None, allow: tuple[str, ...] = ()) -> Recall:
        """Run it now, besides its schedule: no slot is used up. The same ``key`` again changes nothing.

        ``allow``: what its runs may do without asking from now on, besides what they may already. A one-time recall
        that has failed is run once more. Raises RecallNotFound, RecallOver, SessionNotFound, InvalidRequest.
        """
        await self._check_leave(recall_id, allow, owner)
        now = self._clock.now()

        async def unit(tx: RecallTx) -> Recall:
            state = await read_owned(tx, recall_id, owner)
            if await tx.session(state.recall.session_id) is None:
                raise SessionNotFound("The session of this recall was deleted.")
            # Asked twice (a second click, a repeated request): the first firing stands for both.
            if key is not None and await tx.keyed_firing(recall_id, "manual", key) is not None:
                return state.recall
            state = _reopened(state)
            before = state.recall
            if more := [name for name in allow if name not in before.allow]:
                state = replace(state, recall=before.but(allow=(*before.allow, *more)))
            firing = manual(state.recall, key, now)
            moved = with_status(state, [*await tx.open_firings([recall_id]), firing])
            await tx.add_firings([firing])
            await tx.save_recalls([moved])
            if more:
                await append_notices(tx, [(moved, [RecallNotice(action="allowed", reason=", ".join(more))])], now)
            return moved.recall

        return await self._mutations.write(unit, owner)

    async def _check_leave(self, recall_id: str, names: Sequence[str], owner: str) -> None:
        """Before leave is given to a recall. Raises RecallNotFound, InvalidRequest."""
        if names:
            recall = await self.queries.get(recall_id, owner=owner)
            await self._mutations.check_leave(names, session_id=recall.session_id, owner=owner, kept=recall.allow)

    async def _check_job(self, recall_id: str, run: RecallRun | None, owner: str) -> None:
        """Before a recall gets another notebook. Raises RecallNotFound, InvalidRequest, NotebookNotFound."""
        if isinstance(run, NotebookJob):
            recall = await self.queries.get(recall_id, owner=owner)
            await self._mutations.check_job(run, session_id=recall.session_id, owner=owner)


def _change_notice(patch: RecallPatch, before: Recall) -> RecallNotice:
    """The event of a change: ``allowed`` or ``revoked`` where it is of the leave alone."""
    if patch.allow is None or patch.model_fields_set != {"allow"}:
        return RecallNotice(action="rescheduled")
    more = [name for name in patch.allow if name not in before.allow]
    gone = [name for name in before.allow if name not in patch.allow]
    return RecallNotice(action="allowed" if more else "revoked", reason=", ".join(more or gone) or None)


def _reopened(state: RecallState) -> RecallState:
    """A one-time recall that has failed may be run once more, and ends as that run does. Raises RecallOver."""
    failed = state.recall.status is RecallStatus.FAILED and state.outcome is FiringStatus.FAILED
    if failed and one_time(state.recall.schedule):
        return replace(state, recall=state.recall.but(status=RecallStatus.PENDING))
    must_be_open(state)
    return state
