"""Translation of pydantic-ai's stream events to AG-UI events. A pure state machine.

The order of what comes out is one that AG-UI's verifiers accept.

Of the stream: the first characters of a part come in ``PartStartEvent``; parts may interleave (parallel tool calls); a
part may be replaced by a second start with its index; ``FinalResultEvent`` has nothing that is needed here.

Text may come here twice: directly from the provider's stream (``ahead``), and later from pydantic-ai, which is dropped.

Imports pydantic_ai: only modules that :mod:`.runner` loads may import this one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai.messages import (
    BaseToolCallPart,
    BaseToolReturnPart,
    FunctionToolResultEvent,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)

from ...events import (
    MAX_DELTA,
    Event,
    ReasoningEnd,
    ReasoningMessageContent,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    ReasoningStart,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from ...input.json_input import JsonPieces, well_formed, well_formed_json
from ...log_setup import get_logger
from ...model.base import new_id

log = get_logger("agent")

_USUAL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces that an event may have; none for an empty one."""
    return (text[at : at + MAX_DELTA] for at in range(0, len(text), MAX_DELTA))


@dataclass(slots=True)
class _Text:
    """An assistant's message. Opened by its first character: some models send empty parts before a tool call."""

    id: str = field(default_factory=lambda: new_id("m"))
    open: bool = False

    def add(self, text: str) -> Iterator[Event]:
        if text and not self.open:
            self.open = True
            yield TextMessageStart(message_id=self.id, role="assistant")
        for piece in _pieces(well_formed(text)):
            yield TextMessageContent(message_id=self.id, delta=piece)

    def end(self) -> Iterator[Event]:
        if self.open:
            self.open = False
            yield TextMessageEnd(message_id=self.id)


@dataclass(slots=True)
class _Reasoning:
    """A stretch of reasoning that the provider shows. Opened by its first character: redacted ones have none."""

    id: str = field(default_factory=lambda: new_id("m"))
    open: bool = False

    def add(self, text: str) -> Iterator[Event]:
        if text and not self.open:
            self.open = True
            yield ReasoningStart(message_id=self.id)
            yield ReasoningMessageStart(message_id=self.id)
        for piece in _pieces(well_formed(text)):
            yield ReasoningMessageContent(message_id=self.id, delta=piece)

    def end(self) -> Iterator[Event]:
        if self.open:
            self.open = False
            yield ReasoningMessageEnd(message_id=self.id)
            yield ReasoningEnd(message_id=self.id)


@dataclass(slots=True)
class _Call:
    """A tool call. Its arguments come as pieces of JSON, or (some providers) as objects, then whole at the end."""

    id: str
    name: str
    parent: str | None
    open: bool = False
    sent: bool = False
    pieces: JsonPieces = field(default_factory=JsonPieces)

    def start(self) -> Iterator[Event]:
        self.open = True
        yield ToolCallStart(tool_call_id=self.id, tool_call_name=self.name, parent_message_id=self.parent)

    def add(self, args: str | dict[str, Any] | None) -> Iterator[Event]:
        if isinstance(args, str) and args:
            self.sent = True
            yield from self._args(self.pieces.add(args))

    def end(self, args: str | dict[str, Any] | None = None) -> Iterator[Event]:
        if not self.open:
            return
        self.open = False
        if not self.sent:
            text = args if isinstance(args, str) else json.dumps(args or {}, ensure_ascii=False, default=str)
            yield from self._args(well_formed_json(text) or "{}")
        else:
            yield from self._args(self.pieces.rest())
        yield ToolCallEnd(tool_call_id=self.id)

    def _args(self, text: str) -> Iterator[Event]:
        for piece in _pieces(text):
            yield ToolCallArgs(tool_call_id=self.id, delta=piece)


class Translator:
    """One agent's translation. ``calls``: those that wait since before a pause, our ids by the provider's."""

    def __init__(self, calls: Mapping[str, str] | None = None) -> None:
        self._open: dict[int, _Text | _Reasoning | _Call] = {}
        # Providers may repeat ids in a session ("call_0" every time). Ours are unique; theirs stay in the conversation.
        self._calls: dict[str, str] = dict(calls or {})
        self._unanswered: dict[str, None] = dict.fromkeys(self._calls.values())  # our ids, in the order of the calls
        # Of the present response: our ids by the place of the part, until ``name_calls``.
        self._begun: dict[int, str] = {}
        self._parent: str | None = None  # the latest text message of the present response
        # What pydantic-ai was given last: the text at its end, what came of all of it so far, and for which part.
        self._given: str | None = None
        self._returned = ""
        self._returned_at: int | None = None
        self._ahead = ""  # text that was translated, and that pydantic-ai has not returned yet
        self._in_step = True  # False in a response in which pydantic-ai made something else of such text

    def our_id(self, tool_call_id: str) -> str | None:
        """The log's id of the latest call with this id of the provider's."""
        return self._calls.get(tool_call_id)

    def name_calls(self, response: ModelResponse, used: Iterable[str]) -> None:
        """Give each call of a complete response an id that no other one in the conversation has, where it needs one.

        Providers send one id twice, none, or one that the next provider refuses (Anthropic takes letters, digits, ``_``
        and ``-``, OpenAI 64 characters, and Anthropic no id twice in a conversation). Results, approvals and the
        provider's own checks go by these ids; such a call gets ours. ``used``: the ids of all earlier calls.
        """
        taken = set(used)
        parts = [part for part in response.parts if isinstance(part, BaseToolCallPart)]
        for part, (_, our_id) in zip(parts, sorted(self._begun.items()), strict=False):
            if not isinstance(part, ToolCallPart):
                continue  # a call that the provider itself has made
            if part.tool_call_id in taken or not _USUAL_ID.fullmatch(part.tool_call_id):
                part.tool_call_id = our_id
            taken.add(part.tool_call_id)
            self._calls[part.tool_call_id] = our_id
        self._begun.clear()

    def given(self, text: str | None) -> None:
        """See ``DirectText``."""
        self._given, self._returned, self._returned_at = text, "", None

    @property
    def can_go_ahead(self) -> bool:
        """Whether what follows goes to a text that is open: pydantic-ai has added to it what it was given last."""
        if not self._in_step or not self._given or not self._returned.endswith(self._given):
            return False
        item = self._open.get(-1 if self._returned_at is None else self._returned_at)
        return isinstance(item, _Text | _Reasoning) and item.open

    def ahead(self, text: str) -> Iterator[Event]:
        """The AG-UI events for text that pydantic-ai gets later. Only where it can go ahead."""
        item = self._open.get(-1 if self._returned_at is None else self._returned_at)
        if isinstance(item, _Text | _Reasoning):
            self._ahead += text
            yield from item.add(text)

    def _fresh(self, index: int, text: str) -> str:
        """What of the text that pydantic-ai has returned was not translated before."""
        if self._given is not None:
            self._returned = self._returned + text if self._returned_at == index else text
            self._returned_at = index
        ahead, length = self._ahead, min(len(self._ahead), len(text))
        self._ahead = ahead[length:]
        if text[:length] == ahead[:length]:
            return text[length:]
        log.error("text_out_of_step", expected=len(ahead), returned=len(text))
        self._in_step, self._ahead = False, ""
        return text

    def translate(self, event: object) -> Iterator[Event]:
        """The AG-UI events for one event of a node's stream."""
        match event:
            case PartStartEvent(index=index, part=part):
                yield from self._end(index)
                yield from self._start(index, part)
            case PartDeltaEvent(index=index, delta=delta):
                yield from self._delta(index, delta)
            case PartEndEvent(index=index, part=part):
                yield from self._end(index, part)
            case FunctionToolResultEvent(part=part):
                yield from self._result(part)
            case _:
                return

    def end_response(self) -> Iterator[Event]:
        """One response of the model is complete: close what is open, forget the indices of its parts."""
        for index in list(self._open):
            yield from self._end(index)
        self._parent = None
        self.given(None)
        self._ahead, self._in_step = "", True

    def close_all(self, why: str) -> Iterator[Event]:
        """The agent ends in the middle: close everything that is open, with ``why`` as the result of open calls."""
        yield from self.end_response()
        for call_id in self._unanswered:
            yield ToolCallResult(message_id=new_id("m"), tool_call_id=call_id, content=why)
        self._unanswered.clear()

    def _start(self, index: int, part: object) -> Iterator[Event]:
        match part:
            case TextPart(content=content):
                text = self._open[index] = _Text()
                self._parent = text.id
                yield from text.add(self._fresh(index, content))
            case ThinkingPart(content=content):
                reasoning = self._open[index] = _Reasoning()
                yield from reasoning.add(self._fresh(index, content))
            case BaseToolCallPart():
                self._returned_at = None
                call_id = self._calls[part.tool_call_id] = self._begun[index] = new_id("t")
                self._unanswered[call_id] = None
                call = self._open[index] = _Call(call_id, well_formed(part.tool_name), self._parent_message())
                yield from call.start()
                yield from call.add(part.args if isinstance(part.args, str) else None)
            case BaseToolReturnPart():  # a tool that the provider itself ran
                yield from self._result(part)
            case _:
                return

    def _parent_message(self) -> str | None:
        """The message that a call belongs to; None without one. A text part without a character is no message."""
        return self._parent if any(isinstance(item, _Text) and item.open for item in self._open.values()) else None

    def _delta(self, index: int, delta: object) -> Iterator[Event]:
        match self._open.get(index), delta:
            case ((_Text() | _Reasoning() as item), (TextPartDelta() | ThinkingPartDelta())):
                yield from item.add(self._fresh(index, delta.content_delta or ""))
            case _Call() as call, ToolCallPartDelta(args_delta=args):
                yield from call.add(args)
            case _:
                return

    def _end(self, index: int, part: object = None) -> Iterator[Event]:
        match self._open.pop(index, None):
            case _Call() as call:
                yield from call.end(part.args if isinstance(part, BaseToolCallPart) else None)
            case None:
                return
            case item:
                yield from item.end()

    def _result(self, part: BaseToolReturnPart[Any]) -> Iterator[Event]:
        call_id = self._calls.get(part.tool_call_id)
        if call_id is None:
            return  # answers a call of an earlier run, which the log has closed already
        self._unanswered.pop(call_id, None)
        # pydantic-ai wraps failures for providers; people read the bare text.
        content = well_formed(part.model_response_str(wrap_if_error=False))
        yield ToolCallResult(message_id=new_id("m"), tool_call_id=call_id, content=content)
