"""Checks event bodies with ``ag-ui-protocol`` and by the order rules that AG-UI verifiers enforce."""

from __future__ import annotations

from collections.abc import Collection, Iterable

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
    workers = Subagents()
    for event in events:
        parsed = _ADAPTER.validate_json(event.wire())
        assert str(getattr(parsed, "type", "")).endswith(event.type)
        if event.type in _SUBAGENT:
            workers.check(event, {key for kind, key in seen if kind == "call"})
            continue
        workers.attributed(event)
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
        assert not workers.running, f"workers without an end: {workers.running}"
        calls = {key for kind, key in seen if kind == "call"}
        assert calls <= answered | set(waiting), f"calls without result: {calls - answered}"


class Subagents:
    """The order rules of sub-agents."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self._seen: set[str] = set()

    def check(self, event: Event, calls: set[str]) -> None:
        """A worker starts once, for a call that is known, and ends once."""
        worker = str(getattr(event, "subagent_run_id", ""))
        if event.type == "SUBAGENT_STARTED":
            assert worker not in self._seen, f"worker {worker} starts twice"
            parent = getattr(event, "parent_tool_call_id", None)
            assert parent in calls, f"worker of an unknown call {parent}"
            above = getattr(event, "parent_subagent_run_id", None)
            assert above is None or above in self.running, f"worker of {above}, which does not run"
            self._seen.add(worker)
            self.running.add(worker)
        else:
            assert worker in self.running, f"{event.type} of {worker}, which does not run"
            self.running.remove(worker)

    def attributed(self, event: Event) -> None:
        """What a worker says is between its start and its end."""
        worker = getattr(event, "subagent_run_id", None)
        assert worker is None or worker in self.running, f"{event.type} of {worker}, which does not run"
