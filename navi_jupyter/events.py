"""What happened in a session: AG-UI 1.0 event bodies, our ``CUSTOM`` ones, and the envelope around them.

The names and fields are those of the Agent User Interaction Protocol, version 1.0 (tests validate every one with
``ag-ui-protocol``; the library itself is no dependency because importing it costs more than the rest of this package).
Not responsible for numbering or storing: that is the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticSerializationError

from .clock import timestamp
from .input.json_input import well_formed_json, well_formed_value
from .model.sessions import Origin, Session

MAX_DELTA = 64 * 1024
"""Characters of one piece of text in a log: a frame that every client and proxy takes."""


class Event(BaseModel):
    """Base of all event bodies: frozen; camelCase on the wire; fields without value left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)
    type: str

    def wire(self) -> str:
        """The body as JSON text, its texts well-formed: what tools and kernels put into ``Any`` need not be."""
        try:
            text = self.model_dump_json(by_alias=True, exclude_none=True)
        except PydanticSerializationError as error:
            if "surrogates not allowed" not in str(error):
                raise
            body = well_formed_value(self.model_dump(mode="json", by_alias=True, exclude_none=True))
            text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return well_formed_json(text) if "\\u0000" in text else text


class Attributed(Event):
    """Base of the events that a subagent (AG-UI: sub-agent) can cause, too."""

    subagent_run_id: str | None = None  # the subagent that it is about; None: the run's own agent


class TextMessageStart(Attributed):
    type: Literal["TEXT_MESSAGE_START"] = "TEXT_MESSAGE_START"
    message_id: str
    role: Literal["user", "assistant"] = "assistant"
    metadata: dict[str, Any] | None = None  # ``{"attachments":[…]}`` of a user's message that has some


class TextMessageContent(Attributed):
    type: Literal["TEXT_MESSAGE_CONTENT"] = "TEXT_MESSAGE_CONTENT"
    message_id: str
    delta: Annotated[str, Field(min_length=1)]


class TextMessageEnd(Attributed):
    type: Literal["TEXT_MESSAGE_END"] = "TEXT_MESSAGE_END"
    message_id: str


class ReasoningStart(Attributed):
    type: Literal["REASONING_START"] = "REASONING_START"
    message_id: str


class ReasoningMessageStart(Attributed):
    type: Literal["REASONING_MESSAGE_START"] = "REASONING_MESSAGE_START"
    message_id: str
    role: Literal["reasoning"] = "reasoning"


class ReasoningMessageContent(Attributed):
    type: Literal["REASONING_MESSAGE_CONTENT"] = "REASONING_MESSAGE_CONTENT"
    message_id: str
    delta: Annotated[str, Field(min_length=1)]


class ReasoningMessageEnd(Attributed):
    type: Literal["REASONING_MESSAGE_END"] = "REASONING_MESSAGE_END"
    message_id: str


class ReasoningEnd(Attributed):
    type: Literal["REASONING_END"] = "REASONING_END"
    message_id: str


class ToolCallStart(Attributed):
    type: Literal["TOOL_CALL_START"] = "TOOL_CALL_START"
    tool_call_id: str
    tool_call_name: str
    parent_message_id: str | None = None


class ToolCallArgs(Attributed):
    type: Literal["TOOL_CALL_ARGS"] = "TOOL_CALL_ARGS"
    tool_call_id: str
    delta: str


class ToolCallEnd(Attributed):
    type: Literal["TOOL_CALL_END"] = "TOOL_CALL_END"
    tool_call_id: str


class ToolCallResult(Attributed):
    type: Literal["TOOL_CALL_RESULT"] = "TOOL_CALL_RESULT"
    message_id: str
    tool_call_id: str
    content: str
    role: Literal["tool"] = "tool"


class ActivitySnapshot(Attributed):
    """The whole of something that goes on in a run besides messages. ``content`` by ``activity_type``: protocol.md."""

    type: Literal["ACTIVITY_SNAPSHOT"] = "ACTIVITY_SNAPSHOT"
    message_id: str
    activity_type: str
    content: dict[str, Any]
    replace: bool | None = None


class ActivityDelta(Attributed):
    """A change of it, as JSON Patch (RFC 6902)."""

    type: Literal["ACTIVITY_DELTA"] = "ACTIVITY_DELTA"
    message_id: str
    activity_type: str
    patch: tuple[dict[str, Any], ...]


class SubagentStarted(Event):
    """A subagent begins."""

    type: Literal["SUBAGENT_STARTED"] = "SUBAGENT_STARTED"
    subagent_run_id: str
    name: str
    description: str | None = None
    parent_subagent_run_id: str | None = None
    parent_tool_call_id: str | None = None


class SubagentFinished(Event):
    """A subagent has done its work."""

    type: Literal["SUBAGENT_FINISHED"] = "SUBAGENT_FINISHED"
    subagent_run_id: str
    result: Any = None


class SubagentError(Event):
    """A subagent has failed or was stopped; the run may go on."""

    type: Literal["SUBAGENT_ERROR"] = "SUBAGENT_ERROR"
    subagent_run_id: str
    message: str
    code: str | None = None


class RunStarted(Event):
    type: Literal["RUN_STARTED"] = "RUN_STARTED"
    thread_id: str
    run_id: str


class InterruptEntry(BaseModel):
    """A question that a run waits for, as AG-UI has it; ``navi.interrupt`` tells the same in full."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)
    id: str
    reason: str  # ``approval`` or ``question``
    message: str | None = None
    tool_call_id: str | None = None
    response_schema: dict[str, Any] | None = None
    expires_at: str | None = None


class Outcome(BaseModel):
    """How a run that did not fail ended, or (``interrupt``) why it pauses. ``interrupts`` are there exactly then."""

    model_config = ConfigDict(frozen=True)
    type: Literal["success", "interrupt", "cancelled"]
    interrupts: tuple[InterruptEntry, ...] | None = None


class TokenUsage(BaseModel):
    """AG-UI's token counts for one model."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)
    provider: str | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


class RunFinished(Event):
    type: Literal["RUN_FINISHED"] = "RUN_FINISHED"
    thread_id: str
    run_id: str
    outcome: Outcome
    usage: tuple[TokenUsage, ...] | None = None


class RunError(Event):
    type: Literal["RUN_ERROR"] = "RUN_ERROR"
    message: str
    code: str
    usage: tuple[TokenUsage, ...] | None = None


class MessagesSnapshot(Event):
    type: Literal["MESSAGES_SNAPSHOT"] = "MESSAGES_SNAPSHOT"
    messages: tuple[dict[str, Any], ...]
    earlier: str | None = None  # cursor of the messages before these; None: these begin with the first one


CustomName = Literal[
    "navi.queue",
    "navi.stop",
    "navi.interrupt",
    "navi.recall",
    "navi.mcp",
    "navi.session",
    "navi.kernel",
    "navi.notebook",
    "navi.tool",
    "navi.usage",
    "navi.notice",
    "navi.agent_options",
    "navi.gap",
]


class Custom(Event):
    type: Literal["CUSTOM"] = "CUSTOM"
    name: CustomName
    value: dict[str, Any]


def session_event(session: Session, changed: Iterable[str], **more: Any) -> Custom:
    """The event that these fields of a session are changed; ``session`` is as it is now."""
    shown: dict[str, Any] = {
        name: getattr(session, name) for name in ("title", "profile", "model", "timezone", "notebook_path")
    }
    shown["timezone_source"] = session.timezone_source.value
    shown["agent_options"] = session.agent_options.wire()
    return Custom(name="navi.session", value={"changed": sorted(changed), "session": shown, **more})


AnyEvent = Annotated[
    TextMessageStart
    | TextMessageContent
    | TextMessageEnd
    | ReasoningStart
    | ReasoningMessageStart
    | ReasoningMessageContent
    | ReasoningMessageEnd
    | ReasoningEnd
    | ToolCallStart
    | ToolCallArgs
    | ToolCallEnd
    | ToolCallResult
    | ActivitySnapshot
    | ActivityDelta
    | SubagentStarted
    | SubagentFinished
    | SubagentError
    | RunStarted
    | RunFinished
    | RunError
    | MessagesSnapshot
    | Custom,
    Field(discriminator="type"),
]


class Envelope(BaseModel):
    """One row of a session's log, as followers get it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seq: int
    session_id: str
    run_id: str | None
    ts: str
    origin: Origin
    event: AnyEvent
    snapshot: bool | None = None


class Draft:
    """An event on its way into a log: everything but its ``seq``. Encoded at most once, when it is committed."""

    __slots__ = ("event", "origin", "run_id", "ts")

    def __init__(self, event: Event, *, run_id: str | None, origin: Origin, at: datetime) -> None:
        self.event = event
        self.run_id = run_id
        self.origin = origin
        self.ts = timestamp(at)

    def with_event(self, event: Event) -> Draft:
        """The same run, origin and time with another body."""
        copy = Draft.__new__(Draft)
        copy.event, copy.run_id, copy.origin, copy.ts = event, self.run_id, self.origin, self.ts
        return copy

    def frame(self, session_id: str, seq: int, *, snapshot: bool = False) -> str:
        """The envelope as JSON text. The ids have no characters that need escaping."""
        run = "null" if self.run_id is None else f'"{self.run_id}"'
        recall = "null" if self.origin.recall_id is None else f'"{self.origin.recall_id}"'
        kernel = "" if self.origin.kernel_id is None else f',"kernel_id":"{self.origin.kernel_id}"'
        mark = ',"snapshot":true' if snapshot else ""
        return (
            f'{{"seq":{seq},"session_id":"{session_id}","run_id":{run},"ts":"{self.ts}",'
            f'"origin":{{"kind":"{self.origin.kind}","recall_id":{recall}{kernel}}},"event":{self.event.wire()}{mark}}}'
        )
