"""The conversation of a log, folded event by event. Pure; the browser's reducer does the same in TypeScript."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from ..events import (
    ActivityDelta,
    ActivitySnapshot,
    Custom,
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
    SubagentError,
    SubagentFinished,
    SubagentStarted,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from ..model.sessions import SYSTEM, Origin, Usage
from ..ports.agent import Message, ToolCall
from .activities import Activities


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the conversation something belongs."""

    run_id: str | None
    origin: Origin
    at: str
    subagent: str | None = None  # the ``subagent_run_id``: the subagents of one run write at the same time


@dataclass(slots=True)
class _Subagent:
    """A subagent of a run, and how it ended."""

    run_id: str | None
    started: SubagentStarted
    ended: SubagentFinished | SubagentError | None = None


@dataclass(slots=True)
class _Reasoning:
    """A stretch of reasoning; shown with the assistant's message that is next to start."""

    id: str
    run_id: str | None
    subagent: str | None = None
    parts: list[str] = field(default_factory=list)
    open: bool = True
    message_open: bool = False

    def snapshot_events(self) -> list[Event]:
        speaker = {"message_id": self.id, "subagent_run_id": self.subagent}
        events: list[Event] = [ReasoningStart.model_validate(speaker)]
        if self.parts or self.message_open:
            events.append(ReasoningMessageStart.model_validate(speaker))
            if self.parts:
                events.append(ReasoningMessageContent.model_validate({**speaker, "delta": "".join(self.parts)}))
            if not self.message_open:
                events.append(ReasoningMessageEnd.model_validate(speaker))
        if not self.open:
            events.append(ReasoningEnd.model_validate(speaker))
        return events


@dataclass(slots=True)
class _OpenMessage:
    id: str
    role: str
    place: _Place
    parts: list[str] = field(default_factory=list)
    thoughts: list[_Reasoning] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    call_id: str | None = None  # set exactly when it is a tool's result
    implied: bool = False  # no event opened it: a tool call needed one to belong to
    open: bool = True  # between its START and its END
    attachments: tuple[dict[str, Any], ...] = ()
    notebook: dict[str, Any] | None = None


@dataclass(slots=True)
class _OpenCall:
    id: str
    name: str
    parent: str
    subagent: str | None = None
    parts: list[str] = field(default_factory=list)
    open: bool = True  # between its START and its END
    result: str | None = None

    def snapshot_events(self) -> list[Event]:
        who = self.subagent
        events: list[Event] = [
            ToolCallStart(
                tool_call_id=self.id, tool_call_name=self.name, parent_message_id=self.parent, subagent_run_id=who
            )
        ]
        if self.parts:
            events.append(ToolCallArgs(tool_call_id=self.id, delta="".join(self.parts), subagent_run_id=who))
        if not self.open:
            events.append(ToolCallEnd(tool_call_id=self.id, subagent_run_id=who))
        return events


ACTIVITY = "activity"  # the role of a message with what a tool has shown: views draw it, models do not read it


class TranscriptBuilder:
    """The conversation of one run (or of several), event by event.

    Events of one message may interleave with others. What a stopped run left open stays, marked ``partial``.
    """

    def __init__(self) -> None:
        self._messages: dict[str, _OpenMessage] = {}
        self._calls: dict[str, _OpenCall] = {}
        self._reasoning: dict[str, _Reasoning] = {}
        self._unattached: list[_Reasoning] = []  # reasoning that no message has been started after
        self._subagents: dict[str, _Subagent] = {}
        self._activities = Activities()
        self.started = False  # between RUN_STARTED and the run's end
        self.usage: Usage | None = None  # the usage of the run so far, as its events report it

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
                message = self._message(message_id, role, _Place(run_id, origin, at, event.subagent_run_id))
                message.attachments = tuple((event.metadata or {}).get("attachments", ()))
                message.notebook = (event.metadata or {}).get("notebook")
            case TextMessageContent(message_id=message_id, delta=delta):
                self._messages[message_id].parts.append(delta)
            case TextMessageEnd(message_id=message_id):
                self._messages[message_id].open = False
            case ReasoningStart(message_id=message_id):
                self._think(message_id, run_id, event.subagent_run_id)
            case ReasoningMessageStart(message_id=message_id):
                if message_id not in self._reasoning:
                    self._think(message_id, run_id, event.subagent_run_id)
                self._reasoning[message_id].message_open = True
            case ReasoningMessageContent(message_id=message_id, delta=delta):
                self._reasoning[message_id].parts.append(delta)
            case ReasoningMessageEnd(message_id=message_id):
                self._reasoning[message_id].message_open = False
            case ReasoningEnd(message_id=message_id):
                self._reasoning[message_id].open = False
            case ToolCallStart():
                self._call(event, _Place(run_id, origin, at, event.subagent_run_id))
            case ToolCallArgs(tool_call_id=call_id, delta=delta):
                self._calls[call_id].parts.append(delta)
            case ToolCallEnd(tool_call_id=call_id):
                self._calls[call_id].open = False
            case ToolCallResult():
                self._result(event, _Place(run_id, origin, at, event.subagent_run_id))
            case ActivitySnapshot() | ActivityDelta():
                self._activities.apply(event, run_id)
            case SubagentStarted(subagent_run_id=subagent):
                self._subagents[subagent] = _Subagent(run_id, event)
            case SubagentFinished(subagent_run_id=subagent) | SubagentError(subagent_run_id=subagent):
                self._subagents[subagent].ended = event
            case Custom(name="navi.queue", value=value):
                self._queue(value, _Place(run_id, origin, at))
            case Custom(name="navi.usage", value=value):
                self._spend(value)
            case _:
                pass

    def apply_frame(self, frame: str) -> None:
        """:meth:`apply` for a stored envelope."""
        envelope = Envelope.model_validate_json(frame)
        self.apply(envelope.event, run_id=envelope.run_id, origin=envelope.origin, at=envelope.ts)

    def _think(self, message_id: str, run_id: str | None, subagent: str | None) -> None:
        thought = self._reasoning[message_id] = _Reasoning(message_id, run_id, subagent)
        self._unattached.append(thought)

    def _message(self, message_id: str, role: str, place: _Place) -> _OpenMessage:
        message = _OpenMessage(id=message_id, role=role, place=place)
        if role == "assistant":
            who = (place.run_id, place.subagent)
            message.thoughts = [thought for thought in self._unattached if (thought.run_id, thought.subagent) == who]
            self._unattached = [thought for thought in self._unattached if (thought.run_id, thought.subagent) != who]
        self._messages[message_id] = message
        return message

    def _call(self, event: ToolCallStart, place: _Place) -> None:
        parent = self._parent(event, place)
        parent.calls.append(event.tool_call_id)
        self._calls[event.tool_call_id] = _OpenCall(
            event.tool_call_id, event.tool_call_name, parent.id, event.subagent_run_id
        )

    def _parent(self, event: ToolCallStart, place: _Place) -> _OpenMessage:
        named = self._messages.get(event.parent_message_id or "")
        if named is not None:
            return named
        # The last of the same agent: a queued prompt, or the message of a subagent, may stand in between.
        who = (place.run_id, place.subagent)
        last = next((m for m in reversed(self._messages.values()) if (m.place.run_id, m.place.subagent) == who), None)
        if event.parent_message_id is None and last is not None and last.role == "assistant":
            return last
        message = self._message(event.parent_message_id or f"{event.tool_call_id}-call", "assistant", place)
        message.open = False
        message.implied = True
        return message

    def _result(self, event: ToolCallResult, place: _Place) -> None:
        message = self._message(event.message_id, "tool", place)
        message.parts.append(event.content)
        message.call_id = event.tool_call_id
        message.open = False
        call = self._calls.get(event.tool_call_id)
        if call is not None:
            call.open = False
            call.result = event.content

    def _queue(self, value: dict[str, Any], place: _Place) -> None:
        """A prompt that was withdrawn or changed while it waited, or that joined the run in progress."""
        command_id = str(value.get("command_id"))
        known = self._messages.get(command_id)
        match value.get("action"):
            case "cancelled":
                self._messages.pop(command_id, None)
            case "edited" if known is not None:
                known.parts = [str(value.get("text", ""))]
            case "steered":
                self._messages.pop(command_id, None)  # it comes here now, wherever it was
                message = self._message(command_id, "user", place)
                message.parts = [str(value.get("text", ""))]
                message.attachments = tuple(value.get("attachments", ()))
                message.notebook = value.get("notebook")
                message.open = False

    def _spend(self, value: dict[str, Any]) -> None:
        try:
            self.usage = Usage.model_validate(value.get("usage"))
        except ValidationError:
            return  # an event of another version: the figure is not worth failing for

    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return tuple(self._finished(message) for message in self._messages.values())

    def _finished(self, message: _OpenMessage) -> Message:
        calls = [self._calls[call_id] for call_id in message.calls]
        return Message(
            id=message.id,
            role=message.role,
            content="".join(message.parts),
            run_id=message.place.run_id,
            origin=message.place.origin,
            at=message.place.at,
            tool_calls=tuple(
                ToolCall(id=call.id, name=call.name, args="".join(call.parts), result=call.result) for call in calls
            ),
            tool_call_id=message.call_id,
            reasoning="".join(part for thought in message.thoughts for part in thought.parts),
            partial=message.open,
            subagent_run_id=message.place.subagent,
            attachments=message.attachments,
            notebook=message.notebook,
        )

    def closing_events(self) -> list[Event]:
        """The events that close what is open, innermost first."""
        events: list[Event] = [
            ToolCallEnd(tool_call_id=call.id, subagent_run_id=call.subagent)
            for call in self._calls.values()
            if call.open
        ]
        for message_id, reasoning in self._reasoning.items():
            if reasoning.message_open:
                events.append(ReasoningMessageEnd(message_id=message_id, subagent_run_id=reasoning.subagent))
            if reasoning.open:
                events.append(ReasoningEnd(message_id=message_id, subagent_run_id=reasoning.subagent))
        events.extend(
            TextMessageEnd(message_id=message.id, subagent_run_id=message.place.subagent)
            for message in self._messages.values()
            if message.open
        )
        # The innermost first: a subagent's own subagents came after it.
        events.extend(
            SubagentError(
                subagent_run_id=subagent, message="The run ended before this subagent did.", code="interrupted"
            )
            for subagent, known in reversed(self._subagents.items())
            if known.ended is None
        )
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

    def record(self, *, partial: bool) -> tuple[Message, ...]:
        """What stays of a run that is over: its messages, then what its tools have shown (role ``activity``)."""
        shown = [
            Message(id=key, role=ACTIVITY, content=text, run_id=run_id, origin=SYSTEM, at="")
            for key, run_id, text in self._activities.texts()
        ]
        return (*(self.partial() if partial else self.messages()), *shown)

    def reopening_events(self, run_id: str | None) -> tuple[list[Message], list[Event]]:
        """For a joiner while ``run_id`` is in progress: messages that are complete, and events for the others.

        What follows the run's first incomplete message is given by events too, so that the order is the log's.
        """
        complete, events = list[Message](), list[Event]()
        for message in self._messages.values():
            if message.place.run_id == run_id is not None and (events or self._in_progress(message)):
                events += self._snapshot_events(message)
            else:
                complete.append(self._finished(message))
        for thought in self._unattached:
            if thought.run_id == run_id:
                events += thought.snapshot_events()
        if run_id is None:
            return complete, events
        subagents = [subagent for subagent in self._subagents.values() if subagent.run_id == run_id]
        ends = [subagent.ended for subagent in subagents if subagent.ended is not None]
        return complete, [*(w.started for w in subagents), *events, *self._activities.snapshot_events(run_id), *ends]

    def _in_progress(self, message: _OpenMessage) -> bool:
        growing = message.open or any(thought.open for thought in message.thoughts)
        return growing or any(self._calls[call].result is None for call in message.calls)

    def _snapshot_events(self, message: _OpenMessage) -> list[Event]:
        events = [event for thought in message.thoughts for event in thought.snapshot_events()]
        content, who = "".join(message.parts), message.place.subagent
        if message.call_id is not None:
            result = ToolCallResult(
                message_id=message.id, tool_call_id=message.call_id, content=content, subagent_run_id=who
            )
            return [*events, result]
        if not message.implied:
            role: Literal["user", "assistant"] = "user" if message.role == "user" else "assistant"
            shown: dict[str, Any] = {"attachments": list(message.attachments)} if message.attachments else {}
            if message.notebook is not None:
                shown["notebook"] = message.notebook
            events.append(
                TextMessageStart(message_id=message.id, role=role, metadata=shown or None, subagent_run_id=who)
            )
            if content:
                events.append(TextMessageContent(message_id=message.id, delta=content, subagent_run_id=who))
            if not message.open:
                events.append(TextMessageEnd(message_id=message.id, subagent_run_id=who))
        return events + [event for call in message.calls for event in self._calls[call].snapshot_events()]


def fold_frames(frames: Iterable[str]) -> TranscriptBuilder:
    """The fold of stored envelopes."""
    fold = TranscriptBuilder()
    for frame in frames:
        fold.apply_frame(frame)
    return fold
