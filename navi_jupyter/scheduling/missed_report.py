"""What was missed while no server was there, or while it slept: gathered as it is planned, and told once per session.

Gathered in the database, by the very transaction that plans it: whoever is killed while catching up leaves it to the
next server, and of two servers that start at once one tells it. Not responsible for which of the missed slots run.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..events import Custom, Draft
from ..model.recalls import When
from ..model.sessions import SYSTEM
from ..ports.recalls import Absence
from .misfires import Plan
from .notices import LATE
from .outcomes import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..ports.recalls import RecallStore, RecallTx

SLEPT = LATE + timedelta(seconds=30)
"""A loop that has not come round for so long was not there: it looks twice a minute at least."""


class MissedReport:
    """Notices that nobody was there, gathers what came of it, and tells. Each server has one, which begins at its
    start."""

    def __init__(self, store: RecallStore) -> None:
        self._store = store
        self._looked_at: datetime | None = None
        self._back = True
        """Since a start or a sleep nothing has been told yet."""

    def look(self, now: datetime) -> None:
        """The loop has come round."""
        if self._looked_at is not None and now - self._looked_at >= SLEPT:
            self._back = True
        self._looked_at = now

    async def note(self, tx: RecallTx, plans: Sequence[Plan | Step], now: datetime) -> None:
        """In the transaction that stores these plans."""
        if self._back and (found := missed(plans, now)):
            await tx.note_absences(found)

    async def tell(self, now: datetime) -> None:
        """Call when all is planned that has come due: one event in each session concerned, by whoever comes first."""
        if not self._back:
            return

        async def unit(tx: RecallTx) -> None:
            batches = {}
            for session_id, absence in (await tx.take_absences()).items():
                if (session := await tx.session(session_id)) is not None:
                    shown = {"title": session.title, "profile": session.profile, "model": session.model}
                    value = {"changed": ["away"], "session": shown, "away": absence.wire()}
                    event = Custom(name="navi.session", value=value)
                    batches[session_id] = [Draft(event, run_id=None, origin=SYSTEM, at=now)]
            if batches:
                await tx.append_all(batches)

        await self._store.write(unit)
        self._back = False


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
