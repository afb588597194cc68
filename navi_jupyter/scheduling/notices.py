"""What a session is told of its recalls: ``navi.recall`` events. Pure.

Not responsible for when anything is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic_core import to_json

from ..clock import timestamp
from ..events import Draft, Event
from ..model.recalls import FiringStatus, Recall
from ..model.sessions import Origin, OriginKind
from ..ports.recalls import FiringState

Action = Literal[
    "created", "rescheduled", "deferred", "started", "fired", "skipped", "missed", "failed", "cancelled",
    "paused", "resumed",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallNotice:
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


def of_overtaken(firing: FiringState) -> RecallNotice:
    """A firing that ended because a later one came."""
    action: Action = "skipped" if firing.firing.status is FiringStatus.COALESCED else "failed"
    return RecallNotice(action=action, slot=firing.firing.slot, reason=firing.firing.reason)
