"""How recalls and their ledger become rows and back. No SQL here but the names of columns.

Tens of thousands of rows pass here when many recalls are due at once: they are taken apart by position, and their
values were validated when they were stored and are not validated again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from ..model.recalls import Firing, FiringStatus, Policy, Recall, RecallStatus, Schedule
from ..model.sessions import OriginKind
from ..ports.recalls import FiringState, RecallState
from .rows import from_micros, optional_instant, optional_micros, to_micros

_SCHEDULES: TypeAdapter[Schedule] = TypeAdapter(Schedule)

RECALL_COLUMNS = (
    "id, session_id, owner, title, message, schedule, policy, status, next_at, last_at, fired, created_at,"
    " origin, due_at, planned, outcome, version"
)
PROGRESS_COLUMNS = ("status", "next_at", "last_at", "fired", "due_at", "planned", "outcome")
FIRING_COLUMNS = (
    "id, recall_id, session_id, slot, kind, key, status, reason, command_id, run_id, attempt, crashes, coalesced,"
    " not_before, wait_until, stop_at, deferred, started_at, ended_at, lateness_ms, lease_owner, lease_until, delivery,"
    " fence, detail, attachments, delivery_error"
)
PROGRESS_NAMES = FIRING_COLUMNS.split(", ")[6:-3]
"""What changes in the life of a firing. The last three are written when it is made, or when people are notified."""

NEW_FIRING_COLUMNS = (
    "id, recall_id, session_id, slot, kind, key, status, reason, command_id, coalesced, not_before, wait_until,"
    " ended_at, lease_owner, lease_until, delivery, fence, detail, attachments"
)
"""The others have their defaults in a new row."""
RECALL_NAMES = RECALL_COLUMNS.split(", ")
FIRING_NAMES = FIRING_COLUMNS.split(", ")

_RECALL_STATUS = {status.value: status for status in RecallStatus}
_FIRING_STATUS = {status.value: status for status in FiringStatus}
_ORIGIN = {kind.value: kind for kind in OriginKind}


@lru_cache(maxsize=4096)
def _policy(text: str) -> Policy:
    return Policy.model_validate_json(text)


@lru_cache(maxsize=4096)
def _schedule(text: str) -> Schedule:
    return _SCHEDULES.validate_json(text)


def recall_of(row: sqlite3.Row) -> Recall:
    """A row of ``recalls`` with all its columns."""
    return recall_state_of([row[name] for name in RECALL_NAMES]).recall


def recall_state_of(row: Iterable[Any]) -> RecallState:
    """A row of ``RECALL_COLUMNS``."""
    (
        recall_id, session_id, owner, title, message, schedule, policy, status, next_at, last_at, fired, created_at,
        origin, due_at, planned, outcome, version,
    ) = row  # fmt: skip
    recall = Recall.trusted(
        id=recall_id,
        session_id=session_id,
        title=title,
        message=message,
        schedule=_schedule(schedule),
        policy=_policy(policy),
        status=_RECALL_STATUS[status],
        next_at=optional_instant(next_at),
        last_at=optional_instant(last_at),
        fired=fired,
        created_at=from_micros(created_at),
        origin=_ORIGIN[origin],
    )
    return RecallState(
        recall=recall,
        owner=owner,
        due_at=recall.next_at if due_at == next_at else optional_instant(due_at),
        planned=planned,
        outcome=None if outcome is None else _FIRING_STATUS[outcome],
        version=version,
    )


def recall_values(state: RecallState) -> tuple[object, ...]:
    """In the order of ``RECALL_COLUMNS``."""
    recall = state.recall
    status, next_at, last_at, fired, *rest = progress(state)
    return (
        recall.id, recall.session_id, state.owner, recall.title, recall.message, *schedule_and_policy(recall),
        status, next_at, last_at, fired, to_micros(recall.created_at), f"{recall.origin}", *rest, state.version,
    )  # fmt: skip


def schedule_and_policy(recall: Recall) -> tuple[str, str]:
    return recall.schedule.model_dump_json(), recall.policy.model_dump_json(exclude_defaults=True)


def progress(state: RecallState) -> tuple[object, ...]:
    """What the passing of time changes, in the order of ``PROGRESS_COLUMNS``."""
    recall, outcome = state.recall, state.outcome
    next_at = optional_micros(recall.next_at)
    due_at = next_at if state.due_at is recall.next_at else optional_micros(state.due_at)
    return (
        f"{recall.status}", next_at, optional_micros(recall.last_at), recall.fired, due_at, state.planned,
        None if outcome is None else f"{outcome}",
    )  # fmt: skip


def firing_state_of(row: Iterable[Any]) -> FiringState:
    """A row of ``FIRING_COLUMNS``."""
    (
        firing_id, recall_id, session_id, slot, kind, key, status, reason, command_id, run_id, attempt, crashes,
        coalesced, not_before, wait_until, stop_at, deferred, started_at, ended_at, lateness_ms, lease_owner,
        lease_until, delivery, fence, detail, attachments, delivery_error,
    ) = row  # fmt: skip
    at = from_micros(slot)
    firing = Firing.trusted(
        id=firing_id,
        recall_id=recall_id,
        slot=at,
        kind=kind,
        status=_FIRING_STATUS[status],
        reason=reason,
        run_id=run_id,
        attempt=attempt,
        coalesced=coalesced,
        not_before=at if not_before == slot else from_micros(not_before),
        started_at=optional_instant(started_at),
        ended_at=optional_instant(ended_at),
        lateness_ms=lateness_ms,
        delivery=delivery,
        delivery_error=delivery_error,
        attempts=(),
    )
    return FiringState(
        firing=firing,
        session_id=session_id,
        command_id=command_id,
        key=key,
        fence=fence,
        lease_owner=lease_owner,
        lease_until=optional_instant(lease_until),
        crashes=crashes,
        wait_until=optional_instant(wait_until),
        stop_at=optional_instant(stop_at),
        deferred=bool(deferred),
        detail=detail,
        attachments=tuple(attachments.split()) if attachments else (),
    )


def new_firing_values(state: FiringState) -> tuple[object, ...]:
    """In the order of ``NEW_FIRING_COLUMNS``."""
    firing, slot = state.firing, to_micros(state.firing.slot)
    not_before = slot if firing.not_before is firing.slot else to_micros(firing.not_before)
    return (
        firing.id, firing.recall_id, state.session_id, slot, firing.kind, state.key, f"{firing.status}", firing.reason,
        state.command_id, firing.coalesced, not_before, optional_micros(state.wait_until),
        optional_micros(firing.ended_at), state.lease_owner, optional_micros(state.lease_until), firing.delivery,
        state.fence, state.detail, " ".join(state.attachments) or None,
    )  # fmt: skip


def changed_firing_values(state: FiringState) -> tuple[object, ...]:
    """In the order of ``PROGRESS_NAMES``, then the id."""
    firing = state.firing
    return (
        f"{firing.status}", firing.reason, state.command_id, firing.run_id, firing.attempt, state.crashes,
        firing.coalesced, to_micros(firing.not_before), optional_micros(state.wait_until),
        optional_micros(state.stop_at), int(state.deferred), optional_micros(firing.started_at),
        optional_micros(firing.ended_at), firing.lateness_ms, state.lease_owner, optional_micros(state.lease_until),
        firing.delivery, state.fence, firing.id,
    )  # fmt: skip
