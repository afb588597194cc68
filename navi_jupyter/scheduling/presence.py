"""Recalls that end when the user comes (``cancel_on``): the decision, and the transaction that does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .ledger import end_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from ..model.recalls import Recall
    from ..ports.recalls import RecallState, RecallTx, Seen


def reason_to_end(recall: Recall, seen: Seen) -> str | None:
    """Why a recall is not wanted any more, if so: the user was there after it was made."""
    for cause, at, why in (
        ("user_message", seen.wrote_at, "you wrote in the session"),
        ("read", seen.read_at, "you have read the session"),
    ):
        if cause in recall.policy.cancel_on and at is not None and at > recall.created_at:
            return why
    return None


async def end_unwanted(tx: RecallTx, session_id: str, seen: Seen, now: datetime) -> Sequence[RecallState]:
    """Cancel the session's recalls that end because the user came; as they are then. A run in progress goes on."""
    wanted = [(state, why) for state in await tx.ending_with(session_id) if (why := reason_to_end(state.recall, seen))]
    return await end_all(tx, wanted, now) if wanted else []
