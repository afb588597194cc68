"""What a run can know about why it runs: the recall that woke it, its slot and its lateness."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import NaviError
from ..model.recalls import Firing, Recall
from ..model.sessions import OriginKind
from ..ports.agent import ToolContext


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallTrigger:
    """A run's reason to be, when a recall started it."""

    recall: Recall | None
    """None when it was deleted meanwhile."""
    slot: datetime | None
    """The time it was meant for."""
    lateness: timedelta
    coalesced: int = 0
    """How many earlier slots this run stands for besides its own."""


async def wake_of(context: ToolContext, now: datetime) -> RecallTrigger | None:
    """Why this run was started, if by a recall; never raises: a run is not to fail for want of its reason."""
    if context.origin.kind is not OriginKind.RECALL or context.origin.recall_id is None:
        return None
    recall_id = context.origin.recall_id
    try:
        recalls = await context.recalls.in_session(context.session.id)
        firings = await context.recalls.firings(recall_id, owner=context.user_id, limit=5)
    except NaviError:
        return RecallTrigger(recall=None, slot=None, lateness=timedelta(0))
    recall = next((one for one in recalls if one.id == recall_id), None)
    firing = _firing_of(firings, context.run_id)
    slot = firing.slot if firing else recall.last_at if recall else None
    lateness = max(now - slot, timedelta(0)) if slot else timedelta(0)
    if firing and firing.lateness_ms is not None:
        lateness = timedelta(milliseconds=max(firing.lateness_ms, 0))
    return RecallTrigger(recall=recall, slot=slot, lateness=lateness, coalesced=firing.coalesced if firing else 0)


def _firing_of(firings: object, run_id: str) -> Firing | None:
    """This run's row of the ledger; while its id is not written yet, the newest that is under way."""
    rows = [row for row in firings if isinstance(row, Firing)] if isinstance(firings, (list, tuple)) else []
    mine = next((row for row in rows if row.run_id == run_id), None)
    return mine or next((row for row in rows if not row.status.final), None)
