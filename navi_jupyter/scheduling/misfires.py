"""Planned times that have come become rows of the ledger; which of several missed ones run, and the report of these.

Every time ends as exactly one row (it runs, or has a status with a reason) or is counted in one row's ``coalesced``.
What was missed while no server ran, or while the machine slept, is one ``navi.session`` event for each session. It is
gathered in the database, by the transaction that plans it: a server that is killed while it catches up leaves it to
the next one, and of two that start at once one publishes it.
Not responsible for what becomes of a row that is to run (``decisions``), nor for storing (``ledger``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, assert_never

from ..clock import format_duration, timestamp
from ..events import Draft, session_event
from ..model.recalls import FiringStatus, Once, Recall, When
from ..model.sessions import SYSTEM
from ..ports.recalls import Absence, FiringState, RecallState
from .decisions import Happening, Missed, Overtaken, PolicyRefused
from .notices import ENDED, LATE, RecallNotice
from .outcomes import Step, allowed, automatic, end, first_due, with_status
from .schedules import count, last_slots, next_after

if TYPE_CHECKING:
    from ..ports.recalls import RecallStore, RecallTx

LEDGER_ROWS = 100  # So many times of one outage get a row each; those before them share one row that counts them.
CATCH_UP = 100  # At most so many missed times run when ``misfire`` is ``all``.
SKIP_GRACE = timedelta(seconds=60)
"""How late a time may be with ``misfire: skip`` when no ``grace`` is given: as long as a restart takes."""
_TICK = timedelta(microseconds=1)

Dropped = list[tuple[datetime, Happening]]  # Times that do not run, each with what happens to it.


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A recall moved past the times that have come, and their rows."""

    state: RecallState
    firings: tuple[FiringState, ...] = ()
    notices: tuple[RecallNotice, ...] = ()
    supersedes: datetime | None = None
    """Automatic firings that still wait, of times before this one, are coalesced into it."""


def choose(recall: Recall, slots: list[datetime], now: datetime) -> tuple[list[datetime], Dropped]:
    """Which of the times are to run by the ``misfire`` policy, and what happens to the others."""
    policy, last = recall.policy, slots[-1]
    grace = policy.grace
    if policy.misfire == "skip" and grace is None and not isinstance(recall.schedule, Once):
        grace = SKIP_GRACE
    if grace is None and len(slots) == 1:  # by far the most frequent case
        return slots, []
    fresh = [slot for slot in slots if grace is None or now - slot <= grace]
    stale = slots[: len(slots) - len(fresh)]
    coalesced = Overtaken(by=last, reason=f"coalesced into {timestamp(last)}")
    match policy.misfire:
        case "latest":
            if fresh:  # the one that runs stands for all before it, however old they are
                return fresh[-1:], [(slot, coalesced) for slot in slots[:-1]]
            chosen, dropped = [], []
        case "skip":
            chosen, dropped = fresh[-1:], [(slot, coalesced) for slot in fresh[:-1]]
        case "all":
            chosen = fresh[max(0, len(fresh) - CATCH_UP) :]
            surplus = Overtaken(by=last, reason=f"more than {CATCH_UP} were missed")
            dropped = [(slot, surplus) for slot in fresh[: len(fresh) - len(chosen)]]
        case _:
            assert_never(policy.misfire)
    missed = Missed(reason=f"later than its grace of {format_duration(grace)}" if grace else "missed")
    return chosen, [*dropped, *((slot, missed) for slot in stale)]


def plan(state: RecallState, now: datetime, *, opens: Sequence[FiringState] = ()) -> Plan:
    """Bring the times up to ``now`` into the ledger and move ``due_at`` past them.

    ``opens``: its firings that are not over. Raises InvalidSchedule for a stored schedule that cannot be read any more.
    """
    due, policy = state.due_at, state.recall.policy
    if due is None or due > now:
        return Plan(state=state)
    if isinstance(state.recall.schedule, When):
        notice = RecallNotice(action="missed", reason=f"it waited until {timestamp(due)}")
        return Plan(state=with_status(replace(state, due_at=None), opens), notices=(notice,))
    # An outage of a month of seconds is 2.6 million times: counted, and only the last of them are listed.
    slots, total, following = _times_since(state, due, now)
    chosen, dropped = choose(state.recall, slots, now)
    if policy.max_fires is not None:  # after the grace: what is too late must not use the limit up
        room = max(0, policy.max_fires - state.planned)
        dropped += [(slot, PolicyRefused(reason="max_fires is reached")) for slot in chosen[room:]]
        chosen = chosen[:room]
    firings = [automatic(state.recall, slot, now) for slot in chosen]
    unrun = [
        end(state.recall, automatic(state.recall, slot, now, runs=False), happening, now)
        for slot, happening in sorted(dropped, key=lambda entry: entry[0])
    ]
    planned = state.planned + len(chosen)
    moved = RecallState(  # spelled out: several times faster than replace()
        recall=state.recall,
        owner=state.owner,
        due_at=None
        if policy.max_fires is not None and planned >= policy.max_fires
        else allowed(state.recall, following),
        planned=planned,
        outcome=unrun[-1].firing.status if unrun and not chosen else state.outcome,
        version=state.version,
    )
    beyond = total - len(slots)
    notices = _notices(unrun, beyond)
    if unrun:
        _notify_of_last_missed(state.recall, unrun)
        firings += unrun
    if beyond:  # the oldest row counts those that have none
        oldest = min(range(len(firings)), key=lambda i: firings[i].firing.slot)
        row = firings[oldest]
        firings[oldest] = replace(row, firing=row.firing.but(coalesced=beyond))
    supersedes = chosen[0] if chosen and policy.misfire != "all" and any(map(_waiting, opens)) else None
    moved = with_status(moved, [*opens, *firings[: len(chosen)]])
    return Plan(state=moved, firings=tuple(firings), notices=notices, supersedes=supersedes)


def _times_since(state: RecallState, due: datetime, now: datetime) -> tuple[list[datetime], int, datetime | None]:
    """The last times in [due, now], at most ``LEDGER_ROWS``, how many there are in all, and the first one after now."""
    schedule, until = state.recall.schedule, state.recall.policy.until
    upto = now if until is None else min(now, until)
    following = next_after(schedule, due)
    if following is None or following > upto:
        return [due], 1, following
    # From a tick before: intervals exclude their start, and ``due`` is one of the times.
    total = count(schedule, due - _TICK, upto)
    return last_slots(schedule, due - _TICK, upto, max(1, LEDGER_ROWS)), total, next_after(schedule, now)


def _notices(unrun: Sequence[FiringState], beyond: int) -> tuple[RecallNotice, ...]:
    """One for each kind of what did not run; ``beyond``: how many older ones share the first one's fate."""
    out = []
    for status in (FiringStatus.MISSED, FiringStatus.COALESCED, FiringStatus.SKIPPED):
        of_kind = [row.firing for row in unrun if row.firing.status is status]
        if of_kind:
            n = len(of_kind) + (beyond if unrun[0].firing.status is status else 0)
            reason = of_kind[-1].reason
            what = reason if n == 1 else f"{n} slots: {reason}"
            out.append(RecallNotice(action=ENDED[status], slot=of_kind[-1].slot, reason=what))
    return tuple(out)


def _notify_of_last_missed(recall: Recall, unrun: list[FiringState]) -> None:
    """People are notified of what was missed, but once and not for each time of an outage."""
    missed = [n for n, row in enumerate(unrun) if row.firing.status is FiringStatus.MISSED]
    if missed and recall.policy.notify:
        row = unrun[missed[-1]]
        unrun[missed[-1]] = replace(row, firing=row.firing.but(delivery="pending"))


def _waiting(firing: FiringState) -> bool:
    return firing.firing.status is FiringStatus.PENDING and firing.firing.kind == "auto"


def supersede(plan: Plan, opens: Sequence[FiringState], now: datetime) -> tuple[Plan, list[FiringState]]:
    """The plan when those of ``opens`` that still wait are coalesced into it, and these as they are then."""
    slot, recall = plan.supersedes, plan.state.recall
    if slot is None:
        return plan, []
    old = [f for f in opens if _waiting(f) and f.firing.slot < slot]
    overtaken = Overtaken(by=slot, reason=f"still waiting when {timestamp(slot)} came")
    gone = [end(recall, f, overtaken, now) for f in old]
    unrun = sum(f.firing.status is FiringStatus.COALESCED for f in gone)
    state = replace(plan.state, planned=max(0, plan.state.planned - unrun))
    if state.due_at is None and recall.policy.max_fires is not None:
        # After the last time of the plan, not after now: it may have been made ahead, for an earlier time.
        state = replace(state, due_at=first_due(state, after=max(f.firing.slot for f in plan.firings)))
    rest = [f for f in (*opens, *plan.firings) if f not in old and not f.firing.status.final]
    notices = [RecallNotice.of_end(f.firing) for f in gone]
    return replace(plan, state=with_status(state, rest), notices=(*notices, *plan.notices)), gone


AT_ONCE = 20  # So many missed times of one owner start at once, for an outage must not burn a day's budget in a minute.
APART = timedelta(seconds=30)  # The next ones so much later, and so on.
_TURN = "many were missed: it waits its turn"


def turn_of(number: int) -> timedelta:
    """How long after the first one the missed time of that number (from 0) of an owner starts."""
    return APART * (number // AT_ONCE)


class CatchUp:
    """Counts what each owner catches up with on this server, and puts the rest off."""

    def __init__(self) -> None:
        self._owners: dict[str, tuple[datetime, int]] = {}
        """When the owner's catching up began, and how many times that was so far."""

    def spread(self, plan: Plan, opens: Sequence[FiringState], now: datetime) -> Plan:
        """The plan, with what was missed put off where its owner has had its share."""
        firings = tuple(self._placed(plan.state.owner, f, now) if _late(f, now) else f for f in plan.firings)
        if firings == plan.firings:
            return plan
        waiting = [f for f in firings if not f.firing.status.final]
        first = next(f for f in waiting if f.firing.reason == _TURN)
        notice = RecallNotice(action="deferred", slot=first.firing.slot, reason=_TURN)
        state = with_status(plan.state, [*opens, *waiting])
        return replace(plan, state=state, firings=firings, notices=(*plan.notices, notice))

    def _placed(self, owner: str, firing: FiringState, now: datetime) -> FiringState:
        since, number = self._owners.get(owner, (now, 0))
        # Its last turn is long over, or the clock was set back: a new outage.
        if now >= since + turn_of(number) + APART or now < since:
            since, number = now, 0
        self._owners[owner] = (since, number + 1)
        at = since + turn_of(number)
        if at <= now:
            return firing
        at = min(at, firing.wait_until or at)
        return replace(firing, firing=firing.firing.but(not_before=at, reason=_TURN))


def _late(firing: FiringState, now: datetime) -> bool:
    return firing.firing.status is FiringStatus.PENDING and now - firing.firing.not_before >= LATE


SLEPT = LATE + timedelta(seconds=30)
"""A loop that has not turned for so long did not run: it turns twice a minute at least."""


class MissedReport:
    """Notices that no server ran, gathers what that cost, and publishes it. Each server has one, from its start on."""

    def __init__(self, store: RecallStore) -> None:
        self._store = store
        self._turned_at: datetime | None = None
        self._returned = True  # Since a start or a sleep nothing has been published yet.

    def turned(self, now: datetime) -> None:
        """The scheduler's loop has turned."""
        if self._turned_at is not None and now - self._turned_at >= SLEPT:
            self._returned = True
        self._turned_at = now

    async def note(self, tx: RecallTx, plans: Sequence[Plan | Step], now: datetime) -> None:
        """In the transaction that stores these plans."""
        if self._returned and (found := missed(plans, now)):
            await tx.note_absences(found)

    async def publish(self, now: datetime) -> None:
        """One event in each session concerned, by the server that comes first. Call when all that is due is planned."""
        if not self._returned:
            return  # the usual case costs no transaction

        async def unit(tx: RecallTx) -> None:
            batches = {}
            for session_id, absence in (await tx.take_absences()).items():
                if (session := await tx.session(session_id)) is not None:
                    event = session_event(session, ["away"], away=absence.wire())
                    batches[session_id] = [Draft(event, run_id=None, origin=SYSTEM, at=now)]
            if batches:
                await tx.append_all(batches)

        await self._store.write(unit)
        self._returned = False


def missed(plans: Iterable[Plan | Step], now: datetime) -> dict[str, Absence]:
    """By session, what had come at least a minute before it was planned: slots, and ends of waiting for an event."""
    out: dict[str, Absence] = {}
    for plan in plans:
        if not isinstance(plan, Plan):
            continue
        for found in _of(plan, now):
            session_id = plan.state.recall.session_id
            out[session_id] = found if (had := out.get(session_id)) is None else had.and_also(found)
    return out


def _of(plan: Plan, now: datetime) -> Iterable[Absence]:
    recall = plan.state.recall
    until = recall.policy.until
    if isinstance(recall.schedule, When) and recall.status.final and until is not None and now - until >= LATE:
        yield Absence(since=until, missed=1)
    for firing in plan.firings:
        slot, runs = firing.firing.slot, not firing.firing.status.final
        if now - slot >= LATE:
            yield Absence(since=slot, late=int(runs), missed=int(not runs) + firing.firing.coalesced)
