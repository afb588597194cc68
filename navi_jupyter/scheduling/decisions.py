"""What becomes of a recall when time passes, its session is busy, or its run ends. Pure: time is an argument.

:func:`plan` turns slots that have come into rows of the ledger and moves the recall past them. Every slot ends as
exactly one row (ran, skipped, missed, coalesced, ... with a reason) or is counted in one row's ``coalesced``.
Not responsible for what comes of a row that is to run (``outcomes``), nor for storing and waiting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..clock import timestamp
from ..model.base import ordered_id
from ..model.recalls import Firing, FiringStatus, Policy, Recall, When
from ..ports.recalls import FiringState, RecallState
from . import misfires
from .notices import RecallNotice, of_overtaken
from .schedules import count, last_slots, next_after, whole_ms
from .states import at_rest, closed, overtaken

MAX_WAIT = timedelta(days=7)
"""How long a firing waits for a busy session when no ``grace`` says less."""
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What :func:`plan` decided."""

    state: RecallState
    firings: tuple[FiringState, ...] = ()
    said: tuple[RecallNotice, ...] = ()
    supersedes: datetime | None = None
    """Automatic firings that still wait, of slots before this one, are coalesced into it."""


# --- slots that have come --------------------------------------------------------------------------------------------


def first_due(state: RecallState, *, after: datetime) -> datetime | None:
    """The first slot after ``after`` that the policy allows; None when there are no more."""
    recall = state.recall
    if recall.policy.max_fires is not None and state.planned >= recall.policy.max_fires:
        return None
    if isinstance(recall.schedule, When):  # it has no slots: this is when it stops waiting
        until = recall.policy.until
        return until if until is not None and until > after else None
    return _allowed(recall.policy, next_after(recall.schedule, after))


def _allowed(policy: Policy, due: datetime | None) -> datetime | None:
    return None if due is None or (policy.until is not None and due > policy.until) else due


def plan(state: RecallState, now: datetime, *, opens: Sequence[FiringState] = ()) -> Plan:
    """Bring the slots up to ``now`` into the ledger and move ``due_at`` past them.

    ``opens``: its firings that are not over. Raises InvalidSchedule for a stored schedule that can not be read
    any more.
    """
    due, policy = state.due_at, state.recall.policy
    if due is None or due > now:
        return Plan(state=state)
    if isinstance(state.recall.schedule, When):
        said = RecallNotice(action="missed", reason=f"it waited until {timestamp(due)}")
        return Plan(state=at_rest(replace(state, due_at=None), opens), said=(said,))
    slots, total, following = _missed(state, due, now)
    chosen, dropped = misfires.decide(state.recall, slots, now)
    if policy.max_fires is not None:
        room = max(0, policy.max_fires - state.planned)
        dropped += [(slot, FiringStatus.SKIPPED, "max_fires is reached") for slot in chosen[room:]]
        chosen = chosen[:room]
    planned = state.planned + len(chosen)
    moved = RecallState(
        recall=state.recall,
        owner=state.owner,
        due_at=None if policy.max_fires is not None and planned >= policy.max_fires else _allowed(policy, following),
        planned=planned,
        outcome=max(dropped)[1] if dropped and not chosen else state.outcome,
        version=state.version,
    )
    firings = [_automatic(state.recall, slot, now) for slot in chosen]
    if dropped:
        firings += [_accounted(state, slot, status, reason, now) for slot, status, reason in sorted(dropped)]
        _tell_of_last_missed(state.recall, firings)
    beyond = total - len(slots)
    if beyond:
        oldest = min(range(len(firings)), key=lambda i: firings[i].firing.slot)
        row = firings[oldest]
        firings[oldest] = replace(row, firing=row.firing.but(coalesced=beyond))
    supersedes = chosen[0] if chosen and policy.misfire != "all" and any(map(_waiting, opens)) else None
    moved = at_rest(moved, [*opens, *firings[: len(chosen)]])
    return Plan(state=moved, firings=tuple(firings), said=misfires.told(dropped, beyond), supersedes=supersedes)


def _tell_of_last_missed(recall: Recall, firings: list[FiringState]) -> None:
    """People are told of what was missed, but once and not for each slot of an outage."""
    if not recall.policy.notify:
        return
    missed = [n for n, f in enumerate(firings) if f.firing.status is FiringStatus.MISSED]
    if missed:
        row = firings[missed[-1]]
        firings[missed[-1]] = replace(row, firing=row.firing.but(delivery="pending"))


def _waiting(firing: FiringState) -> bool:
    return firing.firing.status is FiringStatus.PENDING and firing.firing.kind == "auto"


def supersede(plan: Plan, opens: Sequence[FiringState], now: datetime) -> tuple[Plan, list[FiringState]]:
    """The plan when those of ``opens`` that still wait are coalesced into its slot, and these as they are then."""
    slot = plan.supersedes
    if slot is None:
        return plan, []
    old = [f for f in opens if _waiting(f) and f.firing.slot < slot]
    why = f"still waiting when {timestamp(slot)} came"
    ended = [overtaken(plan.state.recall, f, now, by=slot, why=why) for f in old]
    gone = [firing for firing, _ in ended]
    state = replace(plan.state, planned=max(0, plan.state.planned - sum(not ran for _, ran in ended)))
    if state.due_at is None and state.recall.policy.max_fires is not None:
        # After the last slot of the plan, not after now: it may have been made ahead, for an earlier time.
        state = replace(state, due_at=first_due(state, after=max(f.firing.slot for f in plan.firings)))
    rest = [f for f in (*opens, *plan.firings) if f not in old and not f.firing.status.final]
    said = [of_overtaken(f) for f in gone]
    return replace(plan, state=at_rest(state, rest), said=(*said, *plan.said)), gone


def _missed(state: RecallState, due: datetime, now: datetime) -> tuple[list[datetime], int, datetime | None]:
    """The last slots in [due, now], at most ``LEDGER_ROWS``, how many there are in all, and the first one after now."""
    schedule, until = state.recall.schedule, state.recall.policy.until
    upto = now if until is None else min(now, until)
    following = next_after(schedule, due)
    if following is None or following > upto:
        return [due], 1, following
    total = count(schedule, due - _TICK, upto)
    return last_slots(schedule, due - _TICK, upto, max(1, misfires.LEDGER_ROWS)), total, next_after(schedule, now)


def jitter(recall_id: str, slot: datetime, most: timedelta, following: datetime | None) -> timedelta:
    """A delay below ``most`` and before the next slot: the same whenever it is computed for this slot."""
    if following is not None:
        most = min(most, following - slot)
    digest = hashlib.blake2b(f"{recall_id}:{timestamp(slot)}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    return timedelta(milliseconds=int(most / timedelta(milliseconds=1) * share))


def command_id(recall_id: str, slot: datetime) -> str:
    """The identity of the prompt that delivers a slot: a repetition of it is swallowed by the session."""
    return f"recall:{recall_id}:{timestamp(slot)}"


def _row(recall: Recall, slot: datetime, not_before: datetime, wait_until: datetime | None = None) -> FiringState:
    firing = Firing.trusted(
        id=ordered_id("f"),
        recall_id=recall.id,
        slot=slot,
        kind="auto",
        status=FiringStatus.PENDING,
        reason=None,
        run_id=None,
        attempt=0,
        coalesced=0,
        not_before=not_before,
        started_at=None,
        ended_at=None,
        lateness_ms=None,
        delivery="none",
        delivery_error=None,
    )
    return FiringState(
        firing=firing,
        session_id=recall.session_id,
        command_id=command_id(recall.id, slot),
        wait_until=wait_until,
    )


def _automatic(recall: Recall, slot: datetime, now: datetime) -> FiringState:
    policy, not_before = recall.policy, slot
    if policy.jitter is not None:
        not_before += jitter(recall.id, slot, policy.jitter, next_after(recall.schedule, slot))
    until = not_before + policy.grace if policy.grace else max(now, not_before) + MAX_WAIT
    return _row(recall, slot, not_before, until)


def _accounted(state: RecallState, slot: datetime, status: FiringStatus, reason: str, now: datetime) -> FiringState:
    return closed(_row(state.recall, slot, slot), status, reason, now)


def manual(recall: Recall, key: str | None, now: datetime) -> FiringState:
    """A firing that somebody asked for now. Never stands for a slot of the schedule."""
    identity, slot = ordered_id("f"), whole_ms(now)
    firing = Firing(
        id=identity,
        recall_id=recall.id,
        slot=slot,
        kind="manual",
        status=FiringStatus.PENDING,
        not_before=slot,
    )
    return FiringState(
        firing=firing,
        session_id=recall.session_id,
        command_id=f"recall:{recall.id}:{identity}",
        key=key or identity,
        wait_until=slot + MAX_WAIT,
    )
