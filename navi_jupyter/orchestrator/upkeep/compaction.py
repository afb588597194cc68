"""Compaction of logs that are over: the pieces of a text become one event, and the file gives unused pages back.

Not responsible for when it is done (``maintenance``).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

from ...clock import now
from ...events import ActivityDelta, ActivitySnapshot
from ...log_setup import get_logger
from ...ports.store import SessionStore
from ...ports.transactions import Foldable, SessionTx
from ..activities import Activities

T = TypeVar("T")
compaction_log = get_logger("compaction")

BATCH = 20  # runs that are looked at together
UNIT_EVENTS = 500  # events that one transaction folds: others wait for it
READ_EVENTS = 1_000  # events of one run that are read at once, and at most folded in one transaction
FOLDED_HERE = 50  # events that are folded on the event loop and not in a thread
FREE_PAGES = 256  # unused pages that stay in the file: the log grows again
PAGES_AT_ONCE = 64  # of them in one transaction
_KEYS = {"TEXT_MESSAGE_CONTENT": "messageId", "REASONING_MESSAGE_CONTENT": "messageId", "TOOL_CALL_ARGS": "toolCallId"}
# In what can be folded: large results of tools need not be parsed to be left as they are.
_FOLDED_TYPES = re.compile(r'"type":\s*"(?:TEXT_MESSAGE_CONTENT|REASONING_MESSAGE_CONTENT|TOOL_CALL_ARGS|ACTIVITY_)')

_ACTIVITIES: dict[str, type[ActivitySnapshot | ActivityDelta]] = {
    "ACTIVITY_SNAPSHOT": ActivitySnapshot,
    "ACTIVITY_DELTA": ActivityDelta,
}


@dataclass(slots=True)
class Folding:
    """What compaction does to one run's rows."""

    folded: dict[int, str] = field(default_factory=dict)  # seq -> the envelope that takes its place
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
    while runs := await compact_batch(store, older_than=older_than):
        done += runs
    return done


@dataclass(frozen=True, slots=True)
class _Step:
    foldable: Foldable
    seqs: Sequence[int]  # of the events that were read
    folding: Folding
    rest: Foldable | None  # what is left of the run; its first events may be what this step makes: they take more


async def compact_batch(store: SessionStore, *, older_than: timedelta) -> int:
    """The same, for a few runs."""
    runs = await store.runs_to_compact(ended_before=now() - older_than, limit=BATCH)
    steps: list[_Step] = []
    for run in runs:
        rest: Foldable | None = run
        while rest is not None:
            step = await _read(store, rest)
            steps.append(step)
            rest = step.rest
            if rest is not None or sum(len(each.seqs) for each in steps) >= UNIT_EVENTS:
                await _write(store, steps)
                steps = []
    if steps:
        await _write(store, steps)
    if runs:
        compaction_log.info("runs_compacted", runs=len(runs))
    return len(runs)


async def _read(store: SessionStore, run: Foldable) -> _Step:
    """Outside of the transaction: what a finished run has in the log changes by compaction alone."""
    if run.after >= run.last:
        return _Step(run, (), Folding(), None)
    envelopes, more = await store.foldable_frames(run, limit=READ_EVENTS)
    frames = [frame for _, frame in envelopes if _FOLDED_TYPES.search(frame)]
    folding = fold_run(frames) if len(frames) <= FOLDED_HERE else await asyncio.to_thread(fold_run, frames)
    seqs = [seq for seq, _ in envelopes]
    if not more:
        return _Step(run, seqs, folding, None)
    # Read from the same place again while that is worth it, so that a message of any length becomes one event.
    is_worth_it = 2 * len(folding.dropped) >= len(seqs)
    return _Step(run, seqs, folding, run if is_worth_it else replace(run, after=seqs[-1]))


async def _write(store: SessionStore, steps: Sequence[_Step]) -> None:
    """One transaction. Killed before or after it, what is left is folded later."""

    async def unit(tx: SessionTx) -> None:
        for step in steps:
            run, folding = step.foldable, step.folding
            if folding.dropped:
                if not await tx.unfolded(run, step.seqs):
                    continue  # another server was quicker
                await tx.fold_events(run.session_id, folding.folded, folding.dropped)
            await tx.note_folded(run.session_id, run.run_id, folding.stretches, complete=step.rest is None)

    await give_way(store, unit)


async def give_back(store: SessionStore) -> None:
    """Give unused pages of the file back to the file system, a few at a time, and keep some."""
    while (free := await store.free_pages()) > FREE_PAGES:
        pages = min(PAGES_AT_ONCE, free - FREE_PAGES)
        await give_way(store, lambda tx, pages=pages: tx.give_back(pages))  # type: ignore[misc]


async def give_way(store: SessionStore, unit: Callable[[SessionTx], Awaitable[T]]) -> T:
    """Writes, then leaves the database to others for as long (awake): another process tries only now and then."""
    began = asyncio.get_running_loop().time()
    result = await store.write(unit)
    await asyncio.sleep(asyncio.get_running_loop().time() - began)
    return result
