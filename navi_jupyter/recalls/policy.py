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
from typing import Any, Literal, assert_never

from pydantic_core import to_json

from ..events import Draft, Event
from ..model import (
    Firing,
    FiringStatus,
    Once,
    Origin,
    OriginKind,
    Policy,
    Recall,
    RecallStatus,
    format_duration,
    new_id,
    timestamp,
)
from ..ports.recalls import FiringState, RecallState
from .schedule import count, last_slots, next_after, whole_ms

Action = Literal[
    "created", "rescheduled", "deferred", "started", "fired", "skipped", "missed", "failed", "cancelled",
    "paused", "resumed",
]  # fmt: skip

LEDGER_ROWS = 100
"""So many slots of one outage get a row each; those before them share one row that counts them."""
CATCH_UP = 100
"""At most so many missed slots run when ``misfire`` is ``all``."""
SKIP_GRACE = timedelta(seconds=60)
"""How late a slot may be with ``misfire: skip`` when no ``grace`` is given: the time a restart takes."""
MAX_WAIT = timedelta(days=7)
"""How long a firing waits for a busy session when no ``grace`` says less."""
LATE = timedelta(seconds=60)
"""From this lateness on, the model is told the slot and how late it is."""
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What the session is told: a ``navi.recall`` event."""

    action: Action
    slot: datetime | None = None
    reason: str | None = None

    def draft(self, recall: Recall, at: datetime) -> Draft:
        """The event, with the recall as it is after the transition."""
        origin = Origin.trusted(kind=OriginKind.RECALL, recall_id=recall.id)
        return Draft(_Encoded(text=self._wire(recall)), run_id=None, origin=origin, at=at)

    def _wire(self, recall: Recall) -> str:
        """What ``Custom(name="navi.recall", value=...)`` would write, with the recall encoded once and not twice."""
        slot = "" if self.slot is None else f',"slot":"{timestamp(self.slot)}"'
        reason = "" if self.reason is None else f',"reason":{to_json(self.reason).decode()}'
        return (
            f'{{"type":"CUSTOM","name":"navi.recall","value":{{"action":"{self.action}","status":"{recall.status}"'
            f'{slot}{reason},"recall":{recall.model_dump_json()}}}}}'
        )


class _Encoded(Event):
    """An event whose JSON text is there already."""

    type: Literal["CUSTOM"] = "CUSTOM"
    text: str

    def wire(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What :func:`plan` decided."""

    state: RecallState
    firings: tuple[FiringState, ...] = ()
    said: tuple[Said, ...] = ()
    supersedes: datetime | None = None
    """Automatic firings that still wait, of slots before this one, are coalesced into it."""


# --- slots that have come --------------------------------------------------------------------------------------------


def first_due(state: RecallState, *, after: datetime) -> datetime | None:
    """The first slot after ``after`` that the policy allows; None when there are no more."""
    recall = state.recall
    if recall.policy.max_fires is not None and state.planned >= recall.policy.max_fires:
        return None
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
    slots, total, following = _missed(state, due, now)
    chosen, dropped = _misfire(state.recall, slots, now)
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
    beyond = total - len(slots)
    if beyond:
        oldest = min(range(len(firings)), key=lambda i: firings[i].firing.slot)
        row = firings[oldest]
        firings[oldest] = replace(row, firing=row.firing.but(coalesced=beyond))
    supersedes = chosen[0] if chosen and policy.misfire != "all" and any(map(_waiting, opens)) else None
    moved = at_rest(moved, [*opens, *firings[: len(chosen)]])
    return Plan(state=moved, firings=tuple(firings), said=_said(dropped, beyond), supersedes=supersedes)


def _waiting(firing: FiringState) -> bool:
    return firing.firing.status is FiringStatus.PENDING and firing.firing.kind == "auto"


def supersede(plan: Plan, opens: Sequence[FiringState], now: datetime) -> tuple[Plan, list[FiringState]]:
    """The plan when those of ``opens`` that still wait are coalesced into its slot, and these as they are then."""
    slot = plan.supersedes
    if slot is None:
        return plan, []
    old = [f for f in opens if _waiting(f) and f.firing.slot < slot]
    gone = [closed(f, FiringStatus.COALESCED, f"still waiting when {timestamp(slot)} came", now) for f in old]
    state = replace(plan.state, planned=max(0, plan.state.planned - len(gone)))
    if state.due_at is None and state.recall.policy.max_fires is not None:
        state = replace(state, due_at=first_due(state, after=now))
    rest = [f for f in (*opens, *plan.firings) if f not in old and not f.firing.status.final]
    said = [Said(action="skipped", slot=f.firing.slot, reason=f.firing.reason) for f in gone]
    return replace(plan, state=at_rest(state, rest), said=(*said, *plan.said)), gone


def _missed(state: RecallState, due: datetime, now: datetime) -> tuple[list[datetime], int, datetime | None]:
    """The last slots in [due, now], at most LEDGER_ROWS, how many there are in all, and the first one after now."""
    schedule, until = state.recall.schedule, state.recall.policy.until
    upto = now if until is None else min(now, until)
    following = next_after(schedule, due)
    if following is None or following > upto:
        return [due], 1, following
    total = count(schedule, due - _TICK, upto)
    return last_slots(schedule, due - _TICK, upto, LEDGER_ROWS), total, next_after(schedule, now)


_Dropped = list[tuple[datetime, FiringStatus, str]]


def _misfire(recall: Recall, slots: list[datetime], now: datetime) -> tuple[list[datetime], _Dropped]:
    """Which of the slots are to run, and what the ledger says of the others."""
    policy, last = recall.policy, slots[-1]
    grace = policy.grace
    if policy.misfire == "skip" and grace is None and not isinstance(recall.schedule, Once):
        grace = SKIP_GRACE
    if grace is None and len(slots) == 1:
        return slots, []
    fresh = [slot for slot in slots if grace is None or now - slot <= grace]
    stale = slots[: len(slots) - len(fresh)]
    dropped: _Dropped = []
    match policy.misfire:
        case "latest":
            chosen = fresh[-1:]
            if chosen:
                dropped = [(s, FiringStatus.COALESCED, f"coalesced into {timestamp(last)}") for s in slots[:-1]]
                return chosen, dropped
        case "skip":
            chosen = fresh[-1:]
            dropped += [(s, FiringStatus.COALESCED, f"coalesced into {timestamp(last)}") for s in fresh[:-1]]
        case "all":
            chosen = fresh[-CATCH_UP:]
        case _:
            assert_never(policy.misfire)
    why = f"later than its grace of {format_duration(grace)}" if grace else "missed"
    return chosen, dropped + [(slot, FiringStatus.MISSED, why) for slot in stale]


def _said(dropped: _Dropped, beyond: int) -> tuple[Said, ...]:
    """One event for each kind of what did not run."""
    if not dropped:
        return ()
    out = []
    for status in (FiringStatus.MISSED, FiringStatus.COALESCED, FiringStatus.SKIPPED):
        of_kind = sorted(entry for entry in dropped if entry[1] is status)
        if not of_kind:
            continue
        n = len(of_kind) + (beyond if min(dropped)[1] is status else 0)
        slot, _, reason = of_kind[-1]
        action: Action = "missed" if status is FiringStatus.MISSED else "skipped"
        out.append(Said(action=action, slot=slot, reason=reason if n == 1 else f"{n} slots: {reason}"))
    return tuple(out)


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
        id=new_id("f"),
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
    identity, slot = new_id("f"), whole_ms(now)
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


# --- the recall as a whole -------------------------------------------------------------------------------------------


def at_rest(state: RecallState, opens: Sequence[FiringState]) -> RecallState:
    """The recall's status and ``next_at``, as they follow from its next slot and its open firings."""
    recall = state.recall
    if recall.status.final:
        return state
    running, first = False, state.due_at
    for firing in opens:
        if firing.firing.status is not FiringStatus.PENDING:
            running = True
        elif first is None or firing.firing.not_before < first:
            first = firing.firing.not_before
    status = RecallStatus.RUNNING if running else RecallStatus.PENDING
    if not running and first is None:
        status = _ending(state)
    elif recall.status is RecallStatus.PAUSED:
        status, first = RecallStatus.PAUSED, None
    if status is recall.status and first == recall.next_at:
        return state
    return with_recall(state, recall.but(status=status, next_at=first))


def with_recall(state: RecallState, recall: Recall) -> RecallState:
    """``replace(state, recall=recall)``, which happens to every firing several times, at a third of its cost."""
    return RecallState(
        recall=recall,
        owner=state.owner,
        due_at=state.due_at,
        planned=state.planned,
        outcome=state.outcome,
        version=state.version,
    )


def _ending(state: RecallState) -> RecallStatus:
    """How a recall ends that has nothing left to do."""
    policy: Policy = state.recall.policy
    if isinstance(state.recall.schedule, Once):
        match state.outcome:
            case FiringStatus.FAILED:
                return RecallStatus.FAILED
            case FiringStatus.CANCELLED:
                return RecallStatus.CANCELLED
            case FiringStatus.SUCCEEDED:
                return RecallStatus.FIRED
            case _:
                return RecallStatus.EXPIRED
    if policy.max_fires is not None and state.planned >= policy.max_fires:
        return RecallStatus.FIRED
    return RecallStatus.EXPIRED


FREE: dict[str, Any] = {"lease_owner": None, "lease_until": None, "deferred": False}
"""What a firing that nobody has claimed looks like."""


def closed(firing: FiringState, status: FiringStatus, reason: str | None, now: datetime) -> FiringState:
    """The firing with its final status."""
    closed = firing.firing.but(status=status, reason=reason, ended_at=now)
    return replace(firing, firing=closed, fence=firing.fence + 1, stop_at=None, **FREE)


def ended_by_user(state: RecallState) -> RecallState:
    """Cancelled: nothing more comes."""
    return replace(state, due_at=None, recall=state.recall.but(status=RecallStatus.CANCELLED, next_at=None))


def cancelled(firing: FiringState, now: datetime) -> FiringState:
    """A firing that has not started and never will."""
    return closed(firing, FiringStatus.CANCELLED, "the recall was cancelled", now)


def prompt_text(recall: Recall, firing: FiringState, now: datetime) -> str:
    """What the model reads: the message, and when it is late, the slot and by how much."""
    late = now - firing.firing.slot
    if late < LATE:
        return recall.message
    by = format_duration(timedelta(seconds=int(late.total_seconds())))
    return f"{recall.message}\n\n[This recall was due at {timestamp(firing.firing.slot)} and runs {by} late.]"


def prompt_mode(policy: Policy) -> Literal["reject", "enqueue", "interrupt"]:
    """How the prompt of a firing meets a busy session."""
    match policy.busy:
        case "defer" | "skip":
            return "reject"
        case "queue":
            return "enqueue"
        case "interrupt":
            return "interrupt"
        case _:
            assert_never(policy.busy)
