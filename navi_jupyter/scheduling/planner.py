"""Due recalls become plans: in batches off the event loop, and ahead of their time when many fall due at once.

A plan is made from states that were read outside a transaction. It is stored under the version it was made from, so
one of a recall that a user, a run or another server has changed since is refused and made anew. Of most plans made
ahead the rows are made ahead, too: with a lease that runs from the time that they are due. Not responsible for storing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ..errors import InvalidSchedule
from ..log_setup import get_logger
from .ledger import Ahead, Lease, by_recall, stand_alone
from .misfires import CatchUp, Plan, plan
from .notices import LATE
from .outcomes import Step, unreadable
from .schedules import load_cron_reader

if TYPE_CHECKING:
    from ..ports.recalls import FiringState, RecallState, RecallStore

T = TypeVar("T")
P = ParamSpec("P")
log = get_logger("recalls")

BATCH = 512
AHEAD = 20 * BATCH  # So many recalls are planned before they are due: some 40 MB for a moment, with their rows.
LEAD = timedelta(seconds=1.5)  # So long before they are due.
FRESH = timedelta(seconds=5)  # So long after their time plans made ahead are used; delivery checks every grace again.
ROWS_FRESH = timedelta(seconds=2)  # So long their rows: what is left of their lease is enough to deliver a batch.
OFF_LOOP = 50  # From this many plans on, they are computed in a thread.


@dataclass(frozen=True, slots=True)
class PlanBatch:
    """Plans that are stored in one transaction."""

    plans: Sequence[Plan | Step]
    ahead: Ahead | None = None  # Of just these plans.
    more: bool = False  # Whether there may be more that is due.


class Planner:
    """Hands out plans of what is due, batch by batch."""

    def __init__(self, store: RecallStore, lease: Callable[[datetime], Lease]) -> None:
        """``lease``: the one under which firings are taken at a time."""
        self._store = store
        self._lease = lease
        self._due: datetime | None = None  # The time for which ``_ready`` was made.
        self._ready: deque[PlanBatch] = deque()
        self._catch_up = CatchUp()

    def begin_at(self, due: datetime) -> datetime:
        """When to be called for :meth:`prepare`; ``due`` itself when that has been done."""
        return due if due == self._due else due - LEAD

    async def prepare(self, due: datetime) -> None:
        """Plan what falls due at ``due``, so that then only the transaction is left to do."""
        plans = await self._plan(due, limit=AHEAD)
        alone = [plan for plan in plans if stand_alone(plan)]
        others = [plan for plan in plans if not stand_alone(plan)]
        lease, ready = self._lease(due), deque[PlanBatch]()
        for low in range(0, len(alone), BATCH):
            batch = alone[low : low + BATCH]
            ready.append(PlanBatch(batch, await _off_loop(batch, Ahead.of, self._store, batch, due, lease)))
        ready.extend(PlanBatch(others[low : low + BATCH]) for low in range(0, len(others), BATCH))
        self._due, self._ready = due, ready

    async def take(self, now: datetime) -> PlanBatch:
        """The next batch."""
        if self._ready and self._due is not None and self._due <= now <= self._due + FRESH:
            batch = self._ready.popleft()
            ahead = batch.ahead if now <= self._due + ROWS_FRESH else None
            return PlanBatch(batch.plans, ahead, more=bool(self._ready) or len(batch.plans) == BATCH)
        if self._due is not None and self._due < now:
            self._ready.clear()  # too old: what has come since would be missing in them
        plans = await self._plan(now, limit=BATCH)
        return PlanBatch(plans, more=len(plans) == BATCH)

    async def _plan(self, now: datetime, *, limit: int) -> list[Plan | Step]:
        states = await self._store.due_recalls(now, limit=limit)
        opens = by_recall(await self._store.firings_open([state.recall.id for state in states]) if states else ())
        await load_cron_reader(state.recall.schedule for state in states)
        return await _off_loop(states, _plans, states, opens, now, self._catch_up)


async def _off_loop(many: Sequence[object], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``work``, in a thread where it is about many."""
    return await asyncio.to_thread(work, *args, **kwargs) if len(many) > OFF_LOOP else work(*args, **kwargs)


def _plans(
    states: Sequence[RecallState], opens: dict[str, list[FiringState]], now: datetime, catch_up: CatchUp
) -> list[Plan | Step]:
    """Plan each; one that cannot be planned fails by itself, not the others."""
    out: list[Plan | Step] = []
    for state in states:
        try:
            others = opens.get(state.recall.id, ())
            planned = plan(state, now, opens=others)
            late = state.due_at is not None and now - state.due_at >= LATE  # only then is there anything to spread
            out.append(catch_up.spread(planned, others, now) if late else planned)
        except InvalidSchedule as error:
            log.error("recall_unreadable", recall_id=state.recall.id, error=error.message)
            out.append(unreadable(state, error.message))
    return out
