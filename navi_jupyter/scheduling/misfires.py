"""Slots that have come while nobody could run them: which of them are to run, and what the ledger says of the others.

Pure. Every slot that is given in comes out, to run or with a status and a reason.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_never

from ..clock import format_duration, timestamp
from ..model.recalls import FiringStatus, Once, Recall
from .notices import Action, RecallNotice

LEDGER_ROWS = 100
"""So many slots of one outage get a row each; those before them share one row that counts them."""
CATCH_UP = 100
"""At most so many missed slots run when ``misfire`` is ``all``."""
SKIP_GRACE = timedelta(seconds=60)
"""How late a slot may be with ``misfire: skip`` when no ``grace`` is given: the time a restart takes."""

Dropped = list[tuple[datetime, FiringStatus, str]]
"""Slots that do not run: each with its status and why."""


def decide(recall: Recall, slots: list[datetime], now: datetime) -> tuple[list[datetime], Dropped]:
    """Which of the slots are to run, and what the ledger says of the others."""
    policy, last = recall.policy, slots[-1]
    grace = policy.grace
    if policy.misfire == "skip" and grace is None and not isinstance(recall.schedule, Once):
        grace = SKIP_GRACE
    if grace is None and len(slots) == 1:
        return slots, []
    fresh = [slot for slot in slots if grace is None or now - slot <= grace]
    stale = slots[: len(slots) - len(fresh)]
    dropped: Dropped = []
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
            chosen = fresh[max(0, len(fresh) - CATCH_UP) :]
            why = f"more than {CATCH_UP} were missed"
            dropped += [(s, FiringStatus.COALESCED, why) for s in fresh[: len(fresh) - len(chosen)]]
        case _:
            assert_never(policy.misfire)
    why = f"later than its grace of {format_duration(grace)}" if grace else "missed"
    return chosen, dropped + [(slot, FiringStatus.MISSED, why) for slot in stale]


def told(dropped: Dropped, beyond: int) -> tuple[RecallNotice, ...]:
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
        out.append(RecallNotice(action=action, slot=slot, reason=reason if n == 1 else f"{n} slots: {reason}"))
    return tuple(out)
