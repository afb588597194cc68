"""What happened in a session: AG-UI 1.0 event bodies, our ``CUSTOM`` ones, and the envelope around them.

The names and fields are those of the Agent User Interaction Protocol, version 1.0 (tests validate every one with
``ag-ui-protocol``; the library itself is no dependency because importing it costs more than the rest of this package).
Not responsible for numbering or storing: that is the log.
"""

from __future__ import annotations

from typing import cast

from .events import (
    ActivityDelta,
    ActivitySnapshot,
    Custom,
    Event,
    ReasoningMessageContent,
    SubagentError,
    SubagentFinished,
    TextMessageContent,
    ToolCallArgs,
    ToolCallResult,
    ToolCallStart,
)
from .redaction import open_end, scrub


def scrubbed(event: Event) -> Event:
    """The event without the secrets of this process; the very same one when it has none. Some µs."""
    match event:
        case TextMessageContent(delta=delta) | ReasoningMessageContent(delta=delta) | ToolCallArgs(delta=delta):
            clean = scrub(delta)
            return event if clean is delta else event.model_copy(update={"delta": clean})
        case ToolCallResult(content=content):
            clean = scrub(content)
            return event if clean is content else event.model_copy(update={"content": clean})
        case ActivitySnapshot() | ActivityDelta() | Custom() | SubagentFinished() | SubagentError() | ToolCallStart():
            wire = event.wire()
            clean = scrub(wire)
            # ``wire`` has U+FFFD where the event has what cannot be stored: followers see what the log has.
            return event if clean is wire and "\ufffd" not in wire else type(event).model_validate_json(clean)
        case _:
            return event


_Delta = TextMessageContent | ReasoningMessageContent | ToolCallArgs


class EventRedactor:
    """Takes the secrets of this process out of a run's events, also those that come in pieces. One per run.

    The end of a piece that may begin a secret is held back until the next event: mostly nothing, sometimes a character.
    """

    def __init__(self) -> None:
        self._held: _Delta | None = None

    def passed(self, event: Event) -> list[Event]:
        """What can be written now, in order."""
        if not isinstance(event, TextMessageContent | ReasoningMessageContent | ToolCallArgs):
            return [*self.rest(), scrubbed(event)]
        out: list[Event] = []
        held, self._held = self._held, None
        if held is not None and _same_stream(held, event):
            event = event.model_copy(update={"delta": held.delta + event.delta})
        elif held is not None:
            out.append(held)
        clean = cast("_Delta", scrubbed(event))
        if not (length := open_end(clean.delta)):
            return [*out, clean]
        self._held = clean.model_copy(update={"delta": clean.delta[-length:]})
        if length < len(clean.delta):
            out.append(clean.model_copy(update={"delta": clean.delta[:-length]}))
        return out

    def rest(self) -> list[Event]:
        """What is held back, when nothing more comes."""
        held, self._held = self._held, None
        return [] if held is None else [held]


def _same_stream(one: _Delta, other: _Delta) -> bool:
    return type(one) is type(other) and _stream(one) == _stream(other)


def _stream(event: _Delta) -> str:
    return event.tool_call_id if isinstance(event, ToolCallArgs) else event.message_id
