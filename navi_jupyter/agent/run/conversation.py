"""What a model is told of earlier runs: pydantic-ai's own messages; where there are none, rebuilt from the transcript.

Imports pydantic_ai: only :mod:`.driver` may import this module (it is loaded at the first run).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from ...errors import RunFailed
from ...log_setup import get_logger
from ...model.sessions import RunStatus, Usage
from ...ports.agent import Message, PastTurn, ToolCall
from ...redaction import scrub
from .attachments import label

log = get_logger("agent")

_FORMAT = "pydantic-ai/3"
"""What :func:`keep` writes. Changes when an older reader would misread it."""
_READABLE = (_FORMAT, "pydantic-ai/2")
"""2: without ``paused``, and with what was attached still in it."""

_ENDINGS = {
    RunStatus.STOPPED: "the user stopped it",
    RunStatus.FAILED: "it failed",
    RunStatus.TIMED_OUT: "it took too long",
    RunStatus.INTERRUPTED: "the server went down",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Paused:
    """Where a run stands that waits for answers."""

    messages: Sequence[ModelMessage] = ()
    """The run's own, from its prompt on."""
    calls: Mapping[str, str] = field(default_factory=dict)
    """The calls that wait: our ids by the provider's."""
    usage: Usage = field(default_factory=Usage)
    requests: int = 0
    """Requests to the model by the run's own agent, its workers' not included."""
    allowed: Sequence[str] = ()
    """Tools that the user has allowed for the session while this run went on."""


def keep(messages: Sequence[ModelMessage], summaries: Sequence[Mapping[str, str]] = ()) -> bytes:
    """A finished run's messages as JSON, with the format's name. Of what was attached, the names.

    ``summaries``: what :meth:`.trimming.Summaries.dump` gives.
    """
    more = f',"summaries":{json.dumps(list(summaries))}' if summaries else ""
    return _written([_without_files(message) for message in messages], more)


def summaries(turns: Sequence[PastTurn]) -> list[dict[str, str]]:
    """The newest that earlier runs have kept, for :meth:`.trimming.Summaries.load`."""
    for turn in reversed(turns):
        if turn.conversation and b'"summaries"' in turn.conversation:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                return [dict(one) for one in json.loads(turn.conversation)["summaries"]]
    return []


def pause(paused: Paused) -> bytes:
    """A waiting run as JSON: all of it, for :func:`resume`."""
    state = {
        "calls": dict(paused.calls),
        "usage": paused.usage.wire(),
        "requests": paused.requests,
        "allowed": list(paused.allowed),
    }
    return _written(paused.messages, f',"paused":{json.dumps(state)}')


def resume(kept: bytes) -> Paused:
    """What :func:`pause` wrote. Raises RunFailed ``internal_error`` when it can not be read (any more)."""
    try:
        outer = json.loads(kept)
        if outer["format"] != _FORMAT:
            raise ValueError("another format")
        state = outer["paused"]
        return Paused(
            messages=ModelMessagesTypeAdapter.validate_python(outer["messages"]),
            calls=dict(state["calls"]),
            usage=Usage.model_validate(state["usage"]),
            requests=int(state["requests"]),
            allowed=tuple(state["allowed"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        log.warning("pause_unreadable", error=type(error).__name__)
        message = "This run can not go on: what it left when it paused can not be read here. Ask again."
        raise RunFailed(message, run_code="internal_error") from error


def _written(messages: Sequence[ModelMessage], more: str = "") -> bytes:
    body = scrub(ModelMessagesTypeAdapter.dump_json(list(messages)).decode())  # what a model said may hold a secret
    return f'{{"format":"{_FORMAT}","messages":{body}{more}}}'.encode()


def _without_files(message: ModelMessage) -> ModelMessage:
    """Files would be sent again with every later turn: their names stay (the prompt has them beside)."""
    if not isinstance(message, ModelRequest) or not any(_has_files(part) for part in message.parts):
        return message
    return replace(message, parts=[_named(part) if _has_files(part) else part for part in message.parts])


def _has_files(part: object) -> bool:
    return isinstance(part, UserPromptPart) and (
        not isinstance(part.content, str) and any(isinstance(one, BinaryContent) for one in part.content)
    )


def _named(part: Any) -> Any:
    """A prompt with its files' content left out."""
    content = [
        f"({one.media_type}, {len(one.data):,} bytes: shown then, its content is not repeated)"
        if isinstance(one, BinaryContent)
        else one
        for one in part.content
    ]
    return replace(part, content=content)


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
        if not isinstance(outer, dict) or outer.get("format") not in _READABLE:
            return None
        return ModelMessagesTypeAdapter.validate_python(outer["messages"]) or None
    except (ValueError, KeyError, ValidationError) as error:
        log.warning("conversation_unreadable", run_id=turn.run_id, error=type(error).__name__)
        return None


def _rebuilt(turn: PastTurn) -> Iterator[ModelMessage]:
    """A run from its prompt and transcript: partial text as it was seen, every tool call answered.

    What joined it on the way (``steer``) is in its place; what its workers said is theirs.
    """
    own = [one for one in turn.messages if one.subagent_run_id is None]
    yield ModelRequest(parts=[UserPromptPart(content=_with_labels(turn.prompt, _first_prompts(own)))])
    results = {one.tool_call_id: one.content for one in own if one.role == "tool" and one.tool_call_id}
    said = answered = False
    for message in own:
        if message.role == "user" and said and message.content:
            answered = False
            yield ModelRequest(parts=[UserPromptPart(content=_with_labels(message.content, [message]))])
        if message.role != "assistant" or not (message.content or message.tool_calls):
            continue
        said = True
        answered = not message.tool_calls
        yield _response(message)
        if message.tool_calls:
            yield ModelRequest(parts=[_tool_return(call, results.get(call.id)) for call in message.tool_calls])
    if (why := _ENDINGS.get(turn.status)) or not answered:
        yield ModelResponse(parts=[TextPart(content=f"(This answer ended here: {why or 'nothing more was said'}.)")])


def _first_prompts(messages: Sequence[Message]) -> list[Message]:
    """The user's messages before anything was answered: what the run's prompt is made of."""
    first: list[Message] = []
    for message in messages:
        if message.role == "assistant":
            break
        if message.role == "user":
            first.append(message)
    return first


def _with_labels(text: str, messages: Sequence[Message]) -> str:
    labels = [
        label(str(one.get("name", "a file")), str(one.get("media_type", "?")))
        for message in messages
        for one in message.attachments
    ]
    return "\n".join([text, *labels])


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
