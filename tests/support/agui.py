"""Checks event bodies with ``ag-ui-protocol`` and by the order rules that AG-UI verifiers enforce."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ag_ui.core import Event as AgUiEvent
from pydantic import TypeAdapter

from navi_jupyter.events import Event

_ADAPTER: TypeAdapter[object] = TypeAdapter(AgUiEvent)

_OPENS = {
    "TEXT_MESSAGE_START": "text",
    "REASONING_START": "reasoning",
    "REASONING_MESSAGE_START": "reasoning message",
    "TOOL_CALL_START": "call",
}
_NEEDS = {
    "TEXT_MESSAGE_CONTENT": "text",
    "TEXT_MESSAGE_END": "text",
    "REASONING_MESSAGE_CONTENT": "reasoning message",
    "REASONING_MESSAGE_END": "reasoning message",
    "REASONING_END": "reasoning",
    "TOOL_CALL_ARGS": "call",
    "TOOL_CALL_END": "call",
}


_SUBAGENT = ("SUBAGENT_STARTED", "SUBAGENT_FINISHED", "SUBAGENT_ERROR")
_FREE = ("CUSTOM", "ACTIVITY_SNAPSHOT", "ACTIVITY_DELTA")
"""Allowed at any place, by the order rules."""


def check_bodies(events: Iterable[Event], *, whole: bool, waiting: Collection[str] = ()) -> None:
    """Raise AssertionError when a verifier would refuse this stream.

    ``whole``: everything must be closed, too, and each call answered but for those that are ``waiting``.
    """
    is_open: set[tuple[str, str]] = set()
    seen: set[tuple[str, str]] = set()
    answered: set[str] = set()
    subagents = Subagents()
    for event in events:
        parsed = _ADAPTER.validate_json(event.wire())
        assert str(getattr(parsed, "type", "")).endswith(event.type)
        if event.type in _SUBAGENT:
            subagents.check(event, {key for kind, key in seen if kind == "call"})
            continue
        subagents.attributed(event)
        if event.type in _FREE:
            continue
        key = str(getattr(event, "tool_call_id", None) or getattr(event, "message_id", ""))
        if event.type == "TOOL_CALL_RESULT":
            assert ("call", key) in seen, f"result of an unknown call {key}"
            assert ("call", key) not in is_open, f"result of an open call {key}"
            assert key not in answered, f"second result of {key}"
            answered.add(key)
        elif kind := _OPENS.get(event.type):
            assert (kind, key) not in seen, f"{kind} {key} starts twice"
            is_open.add((kind, key))
            seen.add((kind, key))
        else:
            kind = _NEEDS[event.type]
            assert (kind, key) in is_open, f"{event.type} without a start: {key}"
            if event.type.endswith("_END"):
                is_open.remove((kind, key))
    if whole:
        assert not is_open, f"left open: {is_open}"
        assert not subagents.running, f"subagents without an end: {subagents.running}"
        calls = {key for kind, key in seen if kind == "call"}
        assert calls <= answered | set(waiting), f"calls without result: {calls - answered}"


class Subagents:
    """The order rules of sub-agents."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self._seen: set[str] = set()

    def check(self, event: Event, calls: set[str]) -> None:
        """A subagent starts once, for a call that is known, and ends once."""
        subagent = str(getattr(event, "subagent_run_id", ""))
        if event.type == "SUBAGENT_STARTED":
            assert subagent not in self._seen, f"subagent {subagent} starts twice"
            parent = getattr(event, "parent_tool_call_id", None)
            assert parent in calls, f"subagent of an unknown call {parent}"
            above = getattr(event, "parent_subagent_run_id", None)
            assert above is None or above in self.running, f"subagent of {above}, which does not run"
            self._seen.add(subagent)
            self.running.add(subagent)
        else:
            assert subagent in self.running, f"{event.type} of {subagent}, which does not run"
            self.running.remove(subagent)

    def attributed(self, event: Event) -> None:
        """What a subagent says is between its start and its end."""
        subagent = getattr(event, "subagent_run_id", None)
        assert subagent is None or subagent in self.running, f"{event.type} of {subagent}, which does not run"


def check_stream(events: Sequence[Mapping[str, Any]]) -> None:
    """Raise AssertionError when a verifier would refuse this stream of one run of AG-UI, as ``POST agui`` sends it."""
    assert events[0]["type"] in ("RUN_STARTED", "RUN_ERROR"), events[0]
    assert events[-1]["type"] in ("RUN_FINISHED", "RUN_ERROR"), events[-1]
    is_open: dict[tuple[str, str], None] = {}
    for index, event in enumerate(events):
        parsed = _ADAPTER.validate_python(dict(event))
        kind = event["type"]
        assert kind in str(getattr(parsed, "type", "")), event
        if kind in ("RUN_STARTED", "RUN_FINISHED", "RUN_ERROR"):
            assert index in (0, len(events) - 1), f"{kind} in the middle"
        key = str(event.get("toolCallId") or event.get("messageId") or "")
        if kind in _SUBAGENT:
            name = ("subagent", event["subagentRunId"])
            assert (name in is_open) is (kind != "SUBAGENT_STARTED"), event
            if kind == "SUBAGENT_STARTED":
                is_open[name] = None
            else:
                del is_open[name]
        elif opens := _OPENS.get(kind):
            assert (opens, key) not in is_open, f"{opens} {key} is open already"
            is_open[opens, key] = None
        elif needs := _NEEDS.get(kind):
            assert (needs, key) in is_open, f"{kind} without a start: {key}"
            if kind.endswith("_END"):
                del is_open[needs, key]
    assert not is_open or events[-1]["type"] == "RUN_ERROR", f"left open: {list(is_open)}"


def stream_events(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream, checked."""
    frames = [frame for frame in body.decode().split("\n\n") if "data: " in frame]
    events = [json.loads(frame.partition("data: ")[2]) for frame in frames]
    check_stream(events)
    return events


def text_of(events: Iterable[Mapping[str, Any]]) -> str:
    """All that the assistant says in a stream."""
    return "".join(str(event["delta"]) for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")
