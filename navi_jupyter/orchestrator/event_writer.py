"""The writer of runs' events: they gather during a commit, are merged, and are committed together for all sessions.

A lone event gets a transaction at once; under load a transaction carries all that has come meanwhile.
Nothing is lost when the database refuses: the batch is tried again until it is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..errors import NaviError
from ..events import MAX_DELTA, ActivityDelta, Draft, Event, ReasoningMessageContent, TextMessageContent, ToolCallArgs
from ..log_setup import get_logger
from ..ports.store import SessionStore
from ..ports.transactions import SessionTx

log = get_logger("event_writer")

BATCH = 500  # events per transaction: encoding more would hold up the loop, which kernels share
ROOM = 2000  # events that may wait for the database before writers are made to wait
LONGEST_PAUSE = 5.0  # seconds between attempts while the database refuses


class EventWriter:
    """Owned by the orchestrator: :meth:`work` runs as one of its tasks."""

    def __init__(self, store: SessionStore, server_id: str) -> None:
        self._store = store
        self._server_id = server_id
        self._pending: dict[str, list[Draft]] = {}
        self._count = 0
        self._writers: dict[str, Callable[[str], None]] = {}  # by run: ends it, with the reason
        self._wanted = asyncio.Event()
        self._in_flight: frozenset[str] = frozenset()
        self._progress = asyncio.Event()  # replaced at each commit, after being set
        self._stopping = False

    def write(self, session_id: str, draft: Draft) -> None:
        """Take an event; it is committed soon."""
        self._pending.setdefault(session_id, []).append(draft)
        self._count += 1
        self._wanted.set()

    async def room(self) -> None:
        """Wait while too much waits for the database."""
        while self._count > ROOM:
            await self._progress.wait()

    async def flushed(self, session_id: str) -> None:
        """Return once everything that was written for a session is durable (or its run is lost)."""
        while session_id in self._pending or session_id in self._in_flight:
            await self._progress.wait()

    def watch(self, run_id: str, cut: Callable[[str], None]) -> None:
        """A run begins to write. ``cut`` ends it: ``lost`` when another server has it, ``broken`` after a defect."""
        self._writers[run_id] = cut

    def forget(self, run_id: str) -> None:
        """A run has ended."""
        self._writers.pop(run_id, None)

    async def work(self) -> None:
        """Commit until :meth:`stop`, and then what is left."""
        pause = 0.05
        while not (self._stopping and not self._pending):
            await self._wanted.wait()
            self._wanted.clear()
            if not self._pending:
                continue
            taken = self._take()
            self._in_flight = frozenset(taken)
            count = sum(len(drafts) for drafts in taken.values())
            try:
                await self._commit(taken)
            except NaviError as error:
                log.error("journal_postponed", error=str(error), events=count, again_in=pause)
                self._restore(taken)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            except Exception:
                # a defect, not the database: it must not end everybody's writing.
                log.exception("journal_broke", events=count)
                if len(taken) > 1:
                    taken = await self._commit_apart(taken)
                for run_id in _runs(taken) & self._writers.keys():
                    self._writers[run_id]("broken")
            pause = 0.05
            self._count -= count
            self._in_flight = frozenset()
            progress, self._progress = self._progress, asyncio.Event()
            progress.set()

    def stop(self) -> None:
        """Let :meth:`work` end once everything is committed."""
        self._stopping = True
        self._wanted.set()

    async def _commit(self, taken: dict[str, list[Draft]]) -> None:
        runs = _runs(taken)
        batches = {session_id: _merged(drafts) for session_id, drafts in taken.items()}

        async def unit(tx: SessionTx) -> set[str]:
            # The fence: after a sleep past its lease another server may have closed a run that this one still writes.
            held = await tx.held_runs(runs, server_id=self._server_id)
            kept = {
                session_id: [draft for draft in drafts if draft.run_id is None or draft.run_id in held]
                for session_id, drafts in batches.items()
            }
            await tx.append_all({session_id: drafts for session_id, drafts in kept.items() if drafts})
            return held

        held = await self._store.write(unit)
        for run_id in runs - held:
            self._lose(run_id)

    def _take(self) -> dict[str, list[Draft]]:
        """What the next transaction commits. A session that wants more than is left comes last the next time."""
        taken: dict[str, list[Draft]] = {}
        room = BATCH
        for session_id in list(self._pending):
            drafts = self._pending.pop(session_id)
            taken[session_id] = drafts[:room]
            if len(drafts) > room:
                self._pending[session_id] = drafts[room:]
            room -= len(taken[session_id])
            if room == 0:
                self._wanted.set()
                break
        return taken

    async def _commit_apart(self, taken: dict[str, list[Draft]]) -> dict[str, list[Draft]]:
        """Each session by itself; returns what cannot be stored."""
        broken = {}
        for session_id, drafts in taken.items():
            try:
                await self._commit({session_id: drafts})
            except Exception:
                log.exception("journal_lost_events", session_id=session_id, events=len(drafts))
                broken[session_id] = drafts
        return broken

    def _lose(self, run_id: str) -> None:
        cut = self._writers.pop(run_id, None)
        if cut is not None:
            log.warning("run_lost", run_id=run_id)
            cut("lost")

    def _restore(self, taken: dict[str, list[Draft]]) -> None:
        """Put back what could not be committed, in front of what has come since."""
        for session_id, drafts in taken.items():
            self._pending[session_id] = drafts + self._pending.get(session_id, [])
        self._in_flight = frozenset()
        self._wanted.set()


def _runs(taken: dict[str, list[Draft]]) -> set[str]:
    return {draft.run_id for drafts in taken.values() for draft in drafts if draft.run_id is not None}


def _merged(drafts: list[Draft]) -> list[Draft]:
    """Consecutive deltas of a message as one; its time is the first one's."""
    if len(drafts) == 1:
        return drafts
    merged: list[Draft] = []
    group: list[Draft] = []
    for draft in drafts:
        if group and group[0].run_id != draft.run_id:
            merged += _merged_run(group)
            group = []
        group.append(draft)
    return merged + _merged_run(group)


def _merged_run(group: list[Draft]) -> list[Draft]:
    events = merge_deltas([draft.event for draft in group])
    if len(events) == len(group):
        return group
    return [group[0].with_event(event) for event in events]


def merge_deltas(events: Sequence[Event]) -> list[Event]:
    """Consecutive text, reasoning or argument deltas of one message become one."""
    merged: list[Event] = []
    parts: list[str] = []
    size = 0
    for event in events:
        last = merged[-1] if merged else None
        if last is not None and _continues(last, event) and (size := size + len(_delta(event))) <= MAX_DELTA:
            parts.append(_delta(event))
            continue
        if isinstance(event, ActivityDelta) and isinstance(last, ActivityDelta) and _same(last, event):
            merged[-1] = last.model_copy(update={"patch": last.patch + event.patch})
            continue
        _settle(merged, parts)
        merged.append(event)
        parts = [_delta(event)] if isinstance(event, _DELTAS) else []
        size = len(parts[0]) if parts else 0
    _settle(merged, parts)
    return merged


_DELTAS = (TextMessageContent, ReasoningMessageContent, ToolCallArgs)


def _delta(event: Event) -> str:
    return event.delta if isinstance(event, _DELTAS) else ""


def _continues(last: Event, event: Event) -> bool:
    if type(last) is not type(event):  # Nearly every event comes by here: the cheap question first.
        return False
    match last, event:
        case (TextMessageContent(message_id=one), TextMessageContent(message_id=other)):
            return one == other
        case (ReasoningMessageContent(message_id=one), ReasoningMessageContent(message_id=other)):
            return one == other
        case (ToolCallArgs(tool_call_id=one), ToolCallArgs(tool_call_id=other)):
            return one == other
        case _:
            return False


def _same(one: ActivityDelta, other: ActivityDelta) -> bool:
    return one.message_id == other.message_id and one.activity_type == other.activity_type


def _settle(merged: list[Event], parts: list[str]) -> None:
    if len(parts) > 1:
        merged[-1] = merged[-1].model_copy(update={"delta": "".join(parts)})
