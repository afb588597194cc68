"""What a model is told of earlier runs: pydantic-ai's own messages; where there are none, rebuilt from the transcript.

Imports pydantic_ai: only :mod:`.driver` may import this module (it is loaded at the first run).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pydantic import ValidationError
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from ..logs import get_logger
from ..model import RunStatus
from ..ports import Message, PastTurn, ToolCall

log = get_logger("agent")

_FORMAT = "pydantic-ai/2"
"""Changes when what :func:`keep` writes can not be read by an older :func:`history` any more."""

_ENDINGS = {
    RunStatus.STOPPED: "the user stopped it",
    RunStatus.FAILED: "it failed",
    RunStatus.TIMED_OUT: "it took too long",
    RunStatus.INTERRUPTED: "the server went down",
}


def keep(messages: Sequence[ModelMessage]) -> bytes:
    """A run's new messages as JSON, with the format's name."""
    body = ModelMessagesTypeAdapter.dump_json(list(messages)).decode()
    return f'{{"format":"{_FORMAT}","messages":{body}}}'.encode()


def history(turns: Sequence[PastTurn]) -> list[ModelMessage]:
    """The messages of all earlier runs, in order, acceptable to every provider."""
    return [message for turn in turns for message in _messages_of(turn)]


def _messages_of(turn: PastTurn) -> list[ModelMessage]:
    return _kept(turn) or list(_rebuilt(turn))


def _kept(turn: PastTurn) -> list[ModelMessage] | None:
    """What :func:`keep` wrote; None when this run left nothing, or another backend's form."""
    if not turn.conversation:
        return None
    try:
        outer = json.loads(turn.conversation)
        if not isinstance(outer, dict) or outer.get("format") != _FORMAT:
            return None
        return ModelMessagesTypeAdapter.validate_python(outer["messages"]) or None
    except (ValueError, KeyError, ValidationError) as error:
        log.warning("conversation_unreadable", run_id=turn.run_id, error=type(error).__name__)
        return None


def _rebuilt(turn: PastTurn) -> Iterator[ModelMessage]:
    """A run from its prompt and transcript: partial text as it was seen, every tool call answered."""
    yield ModelRequest(parts=[UserPromptPart(content=turn.prompt)])
    results = {one.tool_call_id: one.content for one in turn.messages if one.role == "tool" and one.tool_call_id}
    answered = False
    for message in turn.messages:
        if message.role != "assistant" or not (message.content or message.tool_calls):
            continue
        answered = not message.tool_calls
        yield _response(message)
        if message.tool_calls:
            yield ModelRequest(parts=[_tool_return(call, results.get(call.id)) for call in message.tool_calls])
    if (why := _ENDINGS.get(turn.status)) or not answered:
        yield ModelResponse(parts=[TextPart(content=f"(This answer ended here: {why or 'nothing more was said'}.)")])


def _response(message: Message) -> ModelResponse:
    parts: list[TextPart | ToolCallPart] = [TextPart(content=message.content)] if message.content.strip() else []
    parts += [
        ToolCallPart(tool_name=call.name, args=_whole_json(call.args), tool_call_id=call.id)
        for call in message.tool_calls
    ]
    return ModelResponse(parts=parts or [TextPart(content="…")])


def _whole_json(args: str) -> str:
    """Arguments that were cut off in mid-stream are no JSON; providers refuse the whole conversation for that."""
    try:
        return args if isinstance(json.loads(args), dict) else "{}"
    except ValueError:
        return "{}"


def _tool_return(call: ToolCall, result: str | None) -> ToolReturnPart:
    known = call.result if call.result is not None else result
    content = known if known is not None else "(The run ended before this tool had a result.)"
    return ToolReturnPart(tool_name=call.name, content=content, tool_call_id=call.id)
