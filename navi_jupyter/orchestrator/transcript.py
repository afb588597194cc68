"""Folding a log into the conversation it tells. Pure; the browser's reducer is its twin in TypeScript."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..events import (
    Envelope,
    Event,
    ReasoningEnd,
    ReasoningMessageContent,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    ReasoningStart,
    RunError,
    RunFinished,
    RunStarted,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from ..model import Origin
from ..ports import Message, ToolCall


@dataclass(slots=True)
class _Reasoning:
    """A stretch of reasoning; shown with the assistant's message that is next to start."""

    id: str
    run_id: str | None
    parts: list[str] = field(default_factory=list)
    open: bool = True
    message_open: bool = False

    def retell(self) -> list[Event]:
        events: list[Event] = [ReasoningStart(message_id=self.id)]
        if self.parts or self.message_open:
            events.append(ReasoningMessageStart(message_id=self.id))
            if self.parts:
                events.append(ReasoningMessageContent(message_id=self.id, delta="".join(self.parts)))
            if not self.message_open:
                events.append(ReasoningMessageEnd(message_id=self.id))
        if not self.open:
            events.append(ReasoningEnd(message_id=self.id))
        return events


@dataclass(slots=True)
class _OpenMessage:
    """A message while it grows."""

    id: str
    role: str
    run_id: str | None
    origin: Origin
    at: str
    parts: list[str] = field(default_factory=list)
    thoughts: list[_Reasoning] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    call_id: str | None = None
    """Set exactly when it is a tool's result."""
    implied: bool = False
    """Nobody opened it: a tool call needed one to belong to."""
    open: bool = True
    """Between its START and its END."""


@dataclass(slots=True)
class _OpenCall:
    """A tool call while it grows."""

    id: str
    name: str
    parent: str
    parts: list[str] = field(default_factory=list)
    open: bool = True
    """Between its START and its END."""
    result: str | None = None

    def retell(self) -> list[Event]:
        events: list[Event] = [
            ToolCallStart(tool_call_id=self.id, tool_call_name=self.name, parent_message_id=self.parent)
        ]
        if self.parts:
            events.append(ToolCallArgs(tool_call_id=self.id, delta="".join(self.parts)))
        if not self.open:
            events.append(ToolCallEnd(tool_call_id=self.id))
        return events


class Fold:
    """The conversation of one run (or of several), event by event.

    Events of one message may interleave with others. What a stopped run left open stays, marked ``partial``.
    """

    def __init__(self) -> None:
        self._messages: dict[str, _OpenMessage] = {}
        self._calls: dict[str, _OpenCall] = {}
        self._reasoning: dict[str, _Reasoning] = {}
        self._untold: list[_Reasoning] = []
        """Reasoning that no message has been started after."""
        self.started = False
        """Between RUN_STARTED and the run's end."""

    def apply(  # noqa: C901  one flat case per event type
        self, event: Event, *, run_id: str | None, origin: Origin, at: str
    ) -> None:
        """Take the next event. Those that are no part of a conversation change nothing."""
        match event:
            case RunStarted():
                self.started = True
            case RunFinished() | RunError():
                self.started = False
            case TextMessageStart(message_id=message_id, role=role):
                self._message(message_id, role, run_id, origin, at)
            case TextMessageContent(message_id=message_id, delta=delta):
                self._messages[message_id].parts.append(delta)
            case TextMessageEnd(message_id=message_id):
                self._messages[message_id].open = False
            case ReasoningStart(message_id=message_id):
                self._think(message_id, run_id)
            case ReasoningMessageStart(message_id=message_id):
                if message_id not in self._reasoning:
                    self._think(message_id, run_id)
                self._reasoning[message_id].message_open = True
            case ReasoningMessageContent(message_id=message_id, delta=delta):
                self._reasoning[message_id].parts.append(delta)
            case ReasoningMessageEnd(message_id=message_id):
                self._reasoning[message_id].message_open = False
            case ReasoningEnd(message_id=message_id):
                self._reasoning[message_id].open = False
            case ToolCallStart():
                self._call(event, run_id, origin, at)
            case ToolCallArgs(tool_call_id=call_id, delta=delta):
                self._calls[call_id].parts.append(delta)
            case ToolCallEnd(tool_call_id=call_id):
                self._calls[call_id].open = False
            case ToolCallResult():
                self._result(event, run_id, origin, at)
            case _:
                pass

    def apply_frame(self, frame: str) -> None:
        """:meth:`apply` for a stored envelope."""
        envelope = Envelope.model_validate_json(frame)
        self.apply(envelope.event, run_id=envelope.run_id, origin=envelope.origin, at=envelope.ts)

    def _think(self, message_id: str, run_id: str | None) -> None:
        thought = self._reasoning[message_id] = _Reasoning(message_id, run_id)
        self._untold.append(thought)

    def _message(self, message_id: str, role: str, run_id: str | None, origin: Origin, at: str) -> _OpenMessage:
        message = _OpenMessage(id=message_id, role=role, run_id=run_id, origin=origin, at=at)
        if role == "assistant":
            message.thoughts = [thought for thought in self._untold if thought.run_id == run_id]
            self._untold = [thought for thought in self._untold if thought.run_id != run_id]
        self._messages[message_id] = message
        return message

    def _call(self, event: ToolCallStart, run_id: str | None, origin: Origin, at: str) -> None:
        parent = self._parent(event, run_id, origin, at)
        parent.calls.append(event.tool_call_id)
        self._calls[event.tool_call_id] = _OpenCall(event.tool_call_id, event.tool_call_name, parent.id)

    def _parent(self, event: ToolCallStart, run_id: str | None, origin: Origin, at: str) -> _OpenMessage:
        named = self._messages.get(event.parent_message_id or "")
        if named is not None:
            return named
        # The run's last: a prompt that was queued meanwhile may stand in between.
        last = next((message for message in reversed(self._messages.values()) if message.run_id == run_id), None)
        if event.parent_message_id is None and last is not None and last.role == "assistant":
            return last
        message = self._message(
            event.parent_message_id or f"{event.tool_call_id}-call", "assistant", run_id, origin, at
        )
        message.open = False
        message.implied = True
        return message

    def _result(self, event: ToolCallResult, run_id: str | None, origin: Origin, at: str) -> None:
        message = self._message(event.message_id, "tool", run_id, origin, at)
        message.parts.append(event.content)
        message.call_id = event.tool_call_id
        message.open = False
        call = self._calls.get(event.tool_call_id)
        if call is not None:
            call.open = False
            call.result = event.content

    # --- what it tells

    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return tuple(self._finished(message) for message in self._messages.values())

    def _finished(self, message: _OpenMessage) -> Message:
        calls = [self._calls[call_id] for call_id in message.calls]
        return Message(
            id=message.id,
            role=message.role,
            content="".join(message.parts),
            run_id=message.run_id,
            origin=message.origin,
            at=message.at,
            tool_calls=tuple(
                ToolCall(id=call.id, name=call.name, args="".join(call.parts), result=call.result) for call in calls
            ),
            tool_call_id=message.call_id,
            reasoning="".join(part for thought in message.thoughts for part in thought.parts),
            partial=message.open,
        )

    def closers(self) -> list[Event]:
        """The events that close what is open, innermost first."""
        events: list[Event] = [ToolCallEnd(tool_call_id=call.id) for call in self._calls.values() if call.open]
        for message_id, reasoning in self._reasoning.items():
            if reasoning.message_open:
                events.append(ReasoningMessageEnd(message_id=message_id))
            if reasoning.open:
                events.append(ReasoningEnd(message_id=message_id))
        events.extend(TextMessageEnd(message_id=message.id) for message in self._messages.values() if message.open)
        return events

    def partial(self) -> tuple[Message, ...]:
        """:meth:`messages`, as they stay when the run ends here: unanswered calls say so."""
        return tuple(
            replace(
                message,
                tool_calls=tuple(
                    call if call.result is not None else replace(call, result="(no result: the run ended before)")
                    for call in message.tool_calls
                ),
            )
            for message in self.messages()
        )

    def reopeners(self, run_id: str | None) -> tuple[list[Message], list[Event]]:
        """For a joiner while ``run_id`` is in progress: messages that are complete, and events that tell the others.

        What follows the run's first incomplete message is told by events too, so that the order is the log's.
        """
        complete, events = list[Message](), list[Event]()
        for message in self._messages.values():
            if message.run_id == run_id is not None and (events or self._in_progress(message)):
                events += self._retell(message)
            else:
                complete.append(self._finished(message))
        for thought in self._untold:
            if thought.run_id == run_id:
                events += thought.retell()
        return complete, events

    def _in_progress(self, message: _OpenMessage) -> bool:
        growing = message.open or any(thought.open for thought in message.thoughts)
        return growing or any(self._calls[call].result is None for call in message.calls)

    def _retell(self, message: _OpenMessage) -> list[Event]:
        events = [event for thought in message.thoughts for event in thought.retell()]
        content = "".join(message.parts)
        if message.call_id is not None:
            events.append(ToolCallResult(message_id=message.id, tool_call_id=message.call_id, content=content))
        elif not message.implied:
            role: Literal["user", "assistant"] = "user" if message.role == "user" else "assistant"
            events.append(TextMessageStart(message_id=message.id, role=role))
            if content:
                events.append(TextMessageContent(message_id=message.id, delta=content))
            if not message.open:
                events.append(TextMessageEnd(message_id=message.id))
        return events + [event for call in message.calls for event in self._calls[call].retell()]


def fold_frames(frames: Iterable[str]) -> Fold:
    """The fold of stored envelopes."""
    fold = Fold()
    for frame in frames:
        fold.apply_frame(frame)
    return fold


def agui_message(message: Message) -> dict[str, Any]:
    """A message as in ``MESSAGES_SNAPSHOT``: AG-UI's, with ``runId`` and ``origin`` beside."""
    body: dict[str, Any] = {
        "id": message.id,
        "role": message.role,
        "content": message.content,
        "runId": message.run_id,
        "origin": message.origin.model_dump(mode="json"),
        "timestamp": message.at,
    }
    if message.tool_calls:
        body["toolCalls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.args}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        body["toolCallId"] = message.tool_call_id
    if message.reasoning:
        body["reasoning"] = message.reasoning
    if message.queued:
        body["queued"] = True
    if message.partial:
        body["partial"] = True
    return body


def merge_deltas(events: Sequence[Event]) -> list[Event]:
    """Consecutive text, reasoning or argument deltas of one message become one."""
    merged: list[Event] = []
    parts: list[str] = []
    for event in events:
        last = merged[-1] if merged else None
        if last is not None and _continues(last, event):
            parts.append(_delta(event))
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


def _settle(merged: list[Event], parts: list[str]) -> None:
    if len(parts) > 1:
        merged[-1] = merged[-1].model_copy(update={"delta": "".join(parts)})
