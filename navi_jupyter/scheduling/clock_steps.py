"""What is planned anew when the wall clock turns out to have been ahead: times that it made too late.

A clock that is a day ahead for a moment has the times of that day planned, as missed ones, and the next time of a
recall set to tomorrow. Once it is right again nothing would fire until then. The same holds for the end of claims, of
waiting and of questions. Not responsible for noticing it (``scheduler``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ..clock import timestamp
from ..errors import InvalidSchedule
from ..log_setup import get_logger
from ..model.recalls import Cron, Every, RecallStatus
from .ledger import append_notices, by_recall
from .notices import RecallNotice
from .outcomes import first_due, with_recall, with_status
from .schedules import load_cron_reader, next_after

if TYPE_CHECKING:
    from ..ports.recalls import RecallState, RecallStore, RecallTx

log = get_logger("recalls")

NOTICED = timedelta(seconds=2)  # Smaller steps are what keeps a clock right.
LOOK_EVERY = 300.0  # Seconds between looks for what another server has planned whose clock was ahead.
SKEW = timedelta(seconds=10)  # By which the times of servers with clocks that are right enough may differ.
_EVER = datetime(9999, 1, 1, tzinfo=UTC)
_ALL = 1_000_000  # Recalls that are looked at.
_AT_ONCE = 100  # Recalls of one transaction.


def planned_too_late(states: Sequence[RecallState], now: datetime, *, more_than: timedelta = timedelta(0)) -> list[str]:
    """The recurring recalls whose next time lies behind the first one after now: a right clock never plans that.

    Also those that have expired although their end is still to come. ``more_than``: only if it lies so far behind.
    """
    found = []
    for state in states:
        schedule, due = state.recall.schedule, state.due_at
        if not isinstance(schedule, Every | Cron) or (due is not None and due <= now):
            continue
        expired, until = state.recall.status is RecallStatus.EXPIRED, state.recall.policy.until
        if due is None and not (expired and until is not None and until > now):
            continue
        try:
            after = max(now, state.recall.created_at)  # none before it was made, whatever the clock was then
            first = first_due(state, after=after) if expired else next_after(schedule, after)
        except InvalidSchedule:
            continue  # it fails visibly when it is due
        if first is not None and (due is None or first + more_than < due):
            found.append(state.recall.id)
    return found


async def plan_anew(store: RecallStore, now: datetime, *, more_than: timedelta = timedelta(0)) -> int:
    """Plan the times after ``now`` anew that a clock which was ahead had passed over; of how many recalls.

    What ran for a time that has not come yet is not run again for it. ``more_than``: as of :func:`planned_too_late`.
    """
    states = [*await store.due_recalls(_EVER, limit=_ALL), *await store.expired_recalls(until_after=now)]
    await load_cron_reader(state.recall.schedule for state in states)
    wrong = await asyncio.to_thread(planned_too_late, states, now, more_than=more_than)
    changed = 0
    for low in range(0, len(wrong), _AT_ONCE):
        ids = wrong[low : low + _AT_ONCE]
        changed += await store.write(lambda tx, ids=ids: _plan_anew(tx, ids, now), durable=True)  # type: ignore[misc]
    if changed:
        log.warning("recalls_rescheduled", recalls=changed, because="the clock was ahead")
    return changed


async def _plan_anew(tx: RecallTx, recall_ids: Sequence[str], now: datetime) -> int:
    states = await tx.recall_states(recall_ids)
    moved: list[tuple[RecallState, RecallNotice]] = []
    for recall_id in planned_too_late(list(states.values()), now):
        state = states[recall_id]
        before = state.due_at
        ran = await tx.times_that_ran(recall_id, after=now)
        after = max(now, state.recall.created_at)
        while (due := first_due(state, after=after)) is not None and due in ran:
            after = due
        if due is None or (before is not None and due >= before):
            continue
        waiting = await tx.drop_times(recall_id, after=now)
        opens = by_recall(await tx.open_firings([recall_id])).get(recall_id, ())
        state = replace(state, due_at=due, planned=max(0, state.planned - waiting))
        if before is None:
            state = with_recall(state, state.recall.but(status=RecallStatus.PENDING))
            reason = "the clock was ahead, and it had expired"
        else:
            reason = f"the clock was ahead, and its next time was {timestamp(before)}"
        notice = RecallNotice(action="rescheduled", slot=due, reason=reason)
        moved.append((with_status(state, opens), notice))
    await tx.save_recalls(state for state, _ in moved)
    await append_notices(tx, [(state, [notice]) for state, notice in moved], now)
    return len(moved)


async def bound_times(store: RecallStore, now: datetime, step: timedelta, lease: timedelta) -> None:
    """The clock was set back by ``step``: what it had set the end of while it was ahead ends as much earlier."""
    await store.write(lambda tx: tx.shift_times(now=now, back=step, lease_until=now + lease))
