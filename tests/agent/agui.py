"""Checks event bodies with ``ag-ui-protocol`` and by the order rules that AG-UI verifiers enforce."""

from __future__ import annotations

from collections.abc import Iterable

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


def check_bodies(events: Iterable[Event], *, whole: bool) -> None:
    """Raise AssertionError when a verifier would refuse this stream; ``whole``: everything must be closed, too."""
    is_open: set[tuple[str, str]] = set()
    seen: set[tuple[str, str]] = set()
    answered: set[str] = set()
    for event in events:
        parsed = _ADAPTER.validate_json(event.wire())
        assert str(getattr(parsed, "type", "")).endswith(event.type)
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
        calls = {key for kind, key in seen if kind == "call"}
        assert calls <= answered, f"calls without result: {calls - answered}"
