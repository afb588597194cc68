"""A copy of a session up to one of its messages: its runs, and its log, with ids of their own. Pure.

Not responsible for the new session itself (``service``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import MessageNotFound
from ...model.base import new_id
from ...ports.agent import Message
from ...ports.session_list import RunCopy, SourceRun
from ..upkeep.compaction import fold_run

_NOT_COPIED = frozenset({"navi.recall", "navi.session", "navi.kernel", "navi.mcp", "navi.gap", "navi.agent_options"})
"""Events about the session that is copied, not about its conversation."""
_BEGIN, _END = "RUN_STARTED", "RUN_FINISHED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fork:
    """What a new session begins with."""

    runs: tuple[RunCopy, ...]
    frames: tuple[tuple[str, str], ...]  # (run, envelope as JSON), in the order of the log


def fork_of(runs: Sequence[SourceRun], message_id: str | None, session_id: str) -> Fork:
    """The runs up to the one with the message, that one up to the message; None: all of them.

    A message has its tool calls and their results with it. Raises MessageNotFound.
    """
    last = len(runs) - 1 if message_id is None else _index_of(runs, message_id)
    chosen = list(runs[: last + 1])
    taken = {run.run_id for run in chosen}
    chosen += [run for run in runs[last + 1 :] if run.merged_into in taken]
    ids = {run.run_id: new_id("r") for run in chosen}
    copies: list[RunCopy] = []
    envelopes: list[dict[str, Any]] = []
    for run in chosen:
        cut = _kept(run.messages, message_id) if run is runs[last] and message_id is not None else None
        is_cut = cut is not None and len(cut) < len(run.messages)
        messages = run.messages if cut is None else cut
        part = _folded(run.frames)
        if is_cut:
            part = _cut(part, messages)
        envelopes += [each for each in part if each["event"].get("name") not in _NOT_COPIED]
        copies.append(
            RunCopy(
                source_id=run.run_id,
                run_id=ids[run.run_id],
                merged_into=ids.get(run.merged_into or ""),
                messages=tuple(_renamed(message, ids) for message in messages),
                first_seq=0,
                is_cut=is_cut,
            )
        )
    envelopes.sort(key=lambda envelope: envelope["seq"])  # stable: what ends a cut run has the number of its last event
    frames, first = _numbered(envelopes, ids, session_id)
    return Fork(runs=tuple(replace(copy, first_seq=first.get(copy.run_id, 1)) for copy in copies), frames=tuple(frames))


def _index_of(runs: Sequence[SourceRun], message_id: str) -> int:
    for number, run in enumerate(runs):
        if any(message.id == message_id and message.role != "tool" for message in run.messages):
            return number
    raise MessageNotFound(
        f"There is no message {message_id[:100]} here that can be forked from; its run has to be over."
    )


def _kept(messages: Sequence[Message], message_id: str) -> tuple[Message, ...]:
    """The messages up to that one, and the results of its calls, wherever they stand."""
    place = next(n for n, message in enumerate(messages) if message.id == message_id)
    calls = {call.id for call in messages[place].tool_calls}
    return (*messages[: place + 1], *(each for each in messages[place + 1 :] if each.tool_call_id in calls))


def _folded(frames: Sequence[str]) -> list[dict[str, Any]]:
    """The envelopes of a run with each message's pieces joined, as compaction does it later in the other session."""
    folding = fold_run(frames)
    dropped = set(folding.dropped)
    envelopes = (json.loads(frame) for frame in frames)
    kept = [envelope for envelope in envelopes if envelope["seq"] not in dropped]
    return [json.loads(folding.folded.get(each["seq"], "null")) or each for each in kept]


def _cut(envelopes: Sequence[dict[str, Any]], messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The envelopes up to the last one about these messages, and the end of the run."""
    names = {message.id for message in messages} | {call.id for message in messages for call in message.tool_calls}
    about = [
        each["seq"] for each in envelopes if names & {each["event"].get("messageId"), each["event"].get("toolCallId")}
    ]
    last = max(about, default=0)
    kept = [each for each in envelopes if each["seq"] <= last]
    if not kept:
        return []
    end = kept[-1]
    missing = [] if any(each["event"]["type"] == _BEGIN for each in kept) else [_BEGIN]
    for kind in (*missing, _END):
        outcome = {"outcome": {"type": "success"}} if kind == _END else {}
        event = {"type": kind, "threadId": end["session_id"], "runId": end["run_id"], **outcome}
        kept.append({**end, "event": event})
    return kept


def _numbered(
    envelopes: Sequence[dict[str, Any]], ids: Mapping[str, str], session_id: str
) -> tuple[list[tuple[str, str]], dict[str, int]]:
    frames: list[tuple[str, str]] = []
    first: dict[str, int] = {}
    for seq, envelope in enumerate(envelopes, 1):
        run_id = ids[envelope["run_id"]]
        event = dict(envelope["event"])
        if "threadId" in event:
            event["threadId"] = session_id
        if event.get("runId") in ids:
            event["runId"] = ids[event["runId"]]
        first.setdefault(run_id, seq)
        new = {**envelope, "seq": seq, "session_id": session_id, "run_id": run_id, "event": event}
        frames.append((run_id, json.dumps(new, ensure_ascii=False, separators=(",", ":"))))
    return frames, first


def _renamed(message: Message, ids: Mapping[str, str]) -> Message:
    return replace(message, run_id=ids.get(message.run_id or "", message.run_id))
