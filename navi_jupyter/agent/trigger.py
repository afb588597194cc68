"""The recall that triggered a run: which one, when it was due, and how late it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import NaviError
from ..model.recalls import Recall
from ..model.sessions import OriginKind
from ..ports.agent import ToolContext


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallTrigger:
    """The recall that triggered this run."""

    recall: Recall | None  # None when it was deleted meanwhile
    slot: datetime | None  # the planned time
    lateness: timedelta
    coalesced: int = 0  # how many earlier planned times this run stands for besides its own
    since: datetime | None = None  # when it fired before; the first time, when it was made


async def trigger_of(context: ToolContext, now: datetime) -> RecallTrigger | None:
    """The trigger of this run; None when no recall started it.

    Never raises: without it a run knows less about itself, which is no reason to fail.
    """
    if context.origin.kind is not OriginKind.RECALL or context.origin.recall_id is None:
        return None
    recall_id = context.origin.recall_id
    try:
        recalls = await context.recalls.in_session(context.session.id)
        firings = await context.recalls.firings(recall_id, owner=context.user_id, limit=5)
    except NaviError:
        return RecallTrigger(recall=None, slot=None, lateness=timedelta(0))
    recall = next((one for one in recalls if one.id == recall_id), None)
    # The run's id may not be in the ledger yet: then it is the newest firing that has not ended.
    own = (one for one in firings if one.run_id == context.run_id)
    firing = next(own, None) or next((one for one in firings if not one.status.final), None)
    slot = firing.slot if firing else recall.last_at if recall else None
    lateness = max(now - slot, timedelta(0)) if slot else timedelta(0)
    if firing and firing.lateness_ms is not None:
        lateness = timedelta(milliseconds=max(firing.lateness_ms, 0))
    earlier = (one.started_at for one in firings if one is not firing and one.started_at is not None)
    return RecallTrigger(
        recall=recall,
        slot=slot,
        lateness=lateness,
        coalesced=firing.coalesced if firing else 0,
        since=next(earlier, recall.created_at if recall else None),
    )
