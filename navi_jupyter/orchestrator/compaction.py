"""Compaction of old logs: the deltas of a message become one event, long after it was followed live."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ..clock import now
from ..events import ActivityDelta, ActivitySnapshot
from ..log_setup import get_logger
from ..model.sessions import Run
from ..ports.store import SessionStore
from ..ports.transactions import SessionTx
from .activities import Activities

log = get_logger("compaction")

BATCH = 20
"""Runs per transaction."""
_KEYS = {"TEXT_MESSAGE_CONTENT": "messageId", "REASONING_MESSAGE_CONTENT": "messageId", "TOOL_CALL_ARGS": "toolCallId"}

_ACTIVITIES: dict[str, type[ActivitySnapshot | ActivityDelta]] = {
    "ACTIVITY_SNAPSHOT": ActivitySnapshot,
    "ACTIVITY_DELTA": ActivityDelta,
}


@dataclass(slots=True)
class Folding:
    """What compaction does to one run's rows."""

    folded: dict[int, str] = field(default_factory=dict)
    """seq -> the envelope that takes its place."""
    dropped: list[int] = field(default_factory=list)
    stretches: list[tuple[int, int]] = field(default_factory=list)
    """[first, last): a cursor in here has seen a part of a message that is now one event at ``last``."""

    def fold(self, group: Sequence[dict[str, Any]], into: dict[str, Any]) -> None:
        """``into`` takes the place of the last envelope of a group; the others go."""
        self.folded[into["seq"]] = json.dumps(into, ensure_ascii=False, separators=(",", ":"))
        self.dropped += [envelope["seq"] for envelope in group[:-1]]
        self.stretches.append((group[0]["seq"], into["seq"]))


def fold_run(frames: Sequence[str]) -> Folding:
    """Fold each message's deltas, and each activity's changes, into one event at the seq of the last one. Pure."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    activities: dict[str, list[dict[str, Any]]] = {}
    for frame in frames:
        envelope = json.loads(frame)
        if envelope["event"]["type"] in _ACTIVITIES:
            activities.setdefault(envelope["event"]["messageId"], []).append(envelope)
        key = _KEYS.get(envelope["event"]["type"])
        if key is not None:
            groups.setdefault((envelope["event"]["type"], envelope["event"][key]), []).append(envelope)
    folding = Folding()
    for group in groups.values():
        if len(group) < 2:
            continue
        last = group[-1]
        last["event"]["delta"] = "".join(envelope["event"]["delta"] for envelope in group)
        folding.fold(group, last)
    for group in activities.values():
        if len(group) > 1 and (shown := _shown(group)) is not None:
            folding.fold(group, {**group[-1], "event": json.loads(shown.wire())})
    return folding


def _shown(group: Sequence[dict[str, Any]]) -> ActivitySnapshot | None:
    """The state of an activity after its last event."""
    state = Activities()
    for envelope in group:
        state.apply(_ACTIVITIES[envelope["event"]["type"]].model_validate(envelope["event"]), None)
    return next(iter(state.snapshot_events(None)), None)


async def compact(store: SessionStore, *, older_than: timedelta) -> int:
    """Fold all runs that ended longer ago than ``older_than``; returns how many."""
    done = 0
    while runs := await store.runs_to_compact(ended_before=now() - older_than, limit=BATCH):
        await store.write(lambda tx, runs=tuple(runs): _compact(tx, runs))  # type: ignore[misc]
        done += len(runs)
    if done:
        log.info("runs_compacted", runs=done)
    return done


async def _compact(tx: SessionTx, runs: Sequence[Run]) -> None:
    for run in runs:
        folding = fold_run(await tx.run_frames(run.session_id, run.id))
        await tx.fold_events(run.session_id, folding.folded, folding.dropped)
        await tx.note_folded(run.session_id, run.id, folding.stretches)
