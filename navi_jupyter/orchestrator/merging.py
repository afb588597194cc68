"""Deltas that gathered while a commit was in flight become one. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..events import ActivityDelta, Event, ReasoningMessageContent, TextMessageContent, ToolCallArgs


def merge_deltas(events: Sequence[Event]) -> list[Event]:
    """Consecutive text, reasoning or argument deltas of one message become one."""
    merged: list[Event] = []
    parts: list[str] = []
    for event in events:
        last = merged[-1] if merged else None
        if last is not None and _continues(last, event):
            parts.append(_delta(event))
            continue
        if isinstance(event, ActivityDelta) and isinstance(last, ActivityDelta) and _same(last, event):
            merged[-1] = last.model_copy(update={"patch": last.patch + event.patch})
            continue
        _settle(merged, parts)
        merged.append(event)
        parts = [_delta(event)] if isinstance(event, _DELTAS) else []
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
