"""What was missed while no server ran, or while the machine slept: one ``navi.session`` event for each session.

Gathered in the database, by the transaction that plans it: a server that is killed while it catches up leaves it to
the next one, and of two that start at once one publishes it. Not responsible for which missed times run.
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
"""A loop that has not turned for so long did not run: it turns twice a minute at least."""


class MissedReport:
    """Notices that no server ran, gathers what that cost, and publishes it. Each server has one, from its start on."""

    def __init__(self, store: RecallStore) -> None:
        self._store = store
        self._turned_at: datetime | None = None
        self._returned = True
        """Since a start or a sleep nothing has been published yet."""

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
                    shown = {"title": session.title, "profile": session.profile, "model": session.model}
                    value = {"changed": ["away"], "session": shown, "away": absence.wire()}
                    event = Custom(name="navi.session", value=value)
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
