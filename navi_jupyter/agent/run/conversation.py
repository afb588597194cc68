"""The conversation of a session as a model reads it, and how a run's part of it is stored.

Stored are pydantic-ai's own messages. A run that left none (it was stopped, or ran on another backend) is rebuilt from
the transcript. Imports pydantic_ai: only modules that :mod:`.runner` loads may import this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import takewhile
from typing import Any
from weakref import WeakValueDictionary

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
from pydantic_ai.models import Model

from ...errors import RunFailed
from ...input.json_input import load_json, well_formed_json, well_formed_value
from ...log_setup import get_logger
from ...model.sessions import RunStatus, Usage
from ...ports.agent import Message, PastTurn, ToolCall
from ...redaction import scrub
from ..providers.encoded_messages import takes_past
from ..providers.past_messages import PastTurnMessages, copied, messages_of, shortened_history
from .attachments import attachment_note
from .token_estimates import tokens_of

log = get_logger("agent")

_FORMAT = "pydantic-ai/3"  # The form of what :func:`dump` writes. Changes when an older reader would misread it.
# Version 2 has no ``paused``, and has the content of attachments still in it.
_READABLE = (_FORMAT, "pydantic-ai/2")

_REASONS = {
    RunStatus.STOPPED: "the user stopped it",
    RunStatus.FAILED: "it failed",
    RunStatus.TIMED_OUT: "it took too long",
    RunStatus.INTERRUPTED: "the server went down",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PausedRun:
    """The state of a run that waits for answers."""

    messages: Sequence[ModelMessage] = ()  # the run's own, from its prompt on
    calls: Mapping[str, str] = field(default_factory=dict)  # the calls that wait: our ids by the provider's
    usage: Usage = field(default_factory=Usage)
    requests: int = 0  # requests to the model by the run's own agent, not by its subagents
    allowed: Sequence[str] = ()  # tools that the user has allowed for the session during this run
    profiles: Sequence[str] = ()  # those that the session has had since the run began, which bound it on
    session_allowed: Sequence[str] | None = None  # what was allowed in the session when it began; None: not stored
    joined: bool = False  # whether a prompt of another origin has joined the run
    foreign: bool = False  # whether its conversation has foreign text in it


def dump(messages: Sequence[ModelMessage], summaries: Sequence[Mapping[str, str]] = ()) -> bytes:
    """A finished run's messages as JSON. Of attachments, only the names; without the instructions, which each request
    has anew: they would be most of what is stored.

    ``summaries``: what ``Summaries.dump`` gives.
    """
    more = f',"summaries":{json.dumps(list(summaries))}' if summaries else ""
    return _json([_for_later(message) for message in messages], more)


def make_well_formed(response: ModelResponse) -> None:
    """Replace in an answer what no provider takes back and no tool can use (:mod:`navi_jupyter.input.json_input`).

    In place: pydantic-ai works with this object. The provider's stream had most of it repaired before.
    """
    for part in response.parts:
        for one in fields(part):
            value = getattr(part, one.name)
            if one.name == "args" and isinstance(value, str):
                clean: Any = well_formed_json(value)
            elif isinstance(value, str | dict | list):
                clean = well_formed_value(value)
            else:
                continue
            if clean is not value:
                setattr(part, one.name, clean)


def stored_summaries(turns: Sequence[PastTurn]) -> list[dict[str, str]]:
    """The newest that earlier runs have stored, for ``Summaries.load``."""
    for turn in reversed(turns):
        if turn.conversation and b'"summaries"' in turn.conversation:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                return [dict(one) for one in json.loads(turn.conversation)["summaries"]]
    return []


def dump_paused(paused: PausedRun) -> bytes:
    """A waiting run as JSON: all of it, for :func:`load_paused`."""
    state = {
        "calls": dict(paused.calls),
        "usage": paused.usage.wire(),
        "requests": paused.requests,
        "allowed": list(paused.allowed),
        "profiles": list(paused.profiles),
        "session_allowed": None if paused.session_allowed is None else list(paused.session_allowed),
        "joined": paused.joined,
        "foreign": paused.foreign,
    }
    return _json(paused.messages, f',"paused":{json.dumps(state)}')


def load_paused(stored: bytes) -> PausedRun:
    """What :func:`dump_paused` wrote. Raises RunFailed ``internal_error`` when this version cannot read it."""
    try:
        outer = json.loads(stored)
        if outer["format"] != _FORMAT:
            raise ValueError("another format")
        state = outer["paused"]
        return PausedRun(
            messages=ModelMessagesTypeAdapter.validate_python(outer["messages"]),
            calls=dict(state["calls"]),
            usage=Usage.model_validate(state["usage"]),
            requests=int(state["requests"]),
            allowed=tuple(state["allowed"]),
            # Earlier versions did not store these.
            profiles=tuple(state.get("profiles", ())),
            session_allowed=None if (given := state.get("session_allowed")) is None else tuple(given),
            joined=bool(state.get("joined")),
            foreign=bool(state.get("foreign", True)),
        )
    except (ValueError, KeyError, TypeError) as error:
        log.warning("pause_unreadable", error=type(error).__name__)
        message = "This run cannot go on: this server cannot read the state in which it paused. Ask again."
        raise RunFailed(message, run_code="internal_error") from error


def _json(messages: Sequence[ModelMessage], more: str = "") -> bytes:
    body = scrub(ModelMessagesTypeAdapter.dump_json(list(messages)).decode())  # a model's text may hold a secret
    return f'{{"format":"{_FORMAT}","messages":{body}{more}}}'.encode()


def _for_later(message: ModelMessage) -> ModelMessage:
    """A message as later turns get it: files would be sent again with each, so only their types and sizes stay."""
    if not isinstance(message, ModelRequest):
        return message
    parts = [_file_notes(part) if _has_files(part) else part for part in message.parts]
    return replace(message, parts=parts, instructions=None)


def _has_files(part: object) -> bool:
    return isinstance(part, UserPromptPart) and (
        not isinstance(part.content, str) and any(isinstance(one, BinaryContent) for one in part.content)
    )


def _file_notes(part: Any) -> Any:
    """A prompt with notes in the place of its files."""
    content = [
        f"({one.media_type}, {len(one.data):,} bytes: it was sent then, its content is not repeated)"
        if isinstance(one, BinaryContent)
        else one
        for one in part.content
    ]
    return replace(part, content=content)


# pydantic-ai leaves this to the first use, which is in the loop: 80 ms. Modules are imported in a thread.
ModelMessagesTypeAdapter.rebuild(raise_errors=False)

# Bytes that the kept turns and all that was made of them take in this process, but for those that runs have anyway. Of
# a run that has ended the turns stay beyond that: each would make room for the next one, and all would be read anew.
_KEPT = 16 * 2**20
_MOST = 64 * 2**20  # also with these
_PART = 500  # bytes of the objects of a part, without its text: measured
_TURN = 2_000  # and of a turn
_AT_ONCE = 8  # turns that are read on the loop


class _Known:
    """The messages of turns that were read before, by run: what a run has left does not change any more.

    Those of runs in progress are found in them; kept are those of the runs that ended last, which are often followed by
    a next one. A copy in another session is another run; a run that is rolled back is not asked for. Its owner is this
    process.
    """

    def __init__(self) -> None:
        self._present: WeakValueDictionary[tuple[str, int], PastTurnMessages] = WeakValueDictionary()
        self._kept: OrderedDict[PastTurnMessages, None] = OrderedDict()
        # Turns are read in threads. A run that was abandoned ends in a collection, which may come where this is held.
        self._lock = threading.RLock()

    def get(self, turn: PastTurn) -> PastTurnMessages | None:
        """The same objects as the last time, if the turn is the same."""
        identity = _identity(turn)
        with self._lock:
            return self._present.get(identity)

    def put(self, turn: PastTurn, messages: PastTurnMessages) -> None:
        """Find them for as long as somebody has them."""
        identity = _identity(turn)
        with self._lock:
            self._present[identity] = messages

    def keep(self, past: Sequence[PastTurnMessages]) -> None:
        """Keep those of one conversation, which make room by those that were kept the longest time ago."""
        with self._lock:
            for messages in past:
                self._kept[messages] = None
                self._kept.move_to_end(messages)
            size = sum(messages.size for messages in list(self._kept))
            while len(self._kept) > 1 and size > (_KEPT if len(self._kept) > len(past) else _MOST):
                size -= self._kept.popitem(last=False)[0].size


def _identity(turn: PastTurn) -> tuple[str, int]:
    """Which turn it is, without its text: with that the kept messages would hold the stored turns as well."""
    # The hashes of texts are kept in these: of a turn that was seen before, nothing is read.
    shown = tuple((message.role, message.content, message.tool_call_id) for message in turn.messages)
    return turn.run_id, hash((turn.status, turn.prompt, turn.conversation, shown))


_known = _Known()


def keep(past: Sequence[PastTurnMessages]) -> None:
    """A run with these has ended: the next one of its session begins with them."""
    _known.keep(past)


async def past_messages(turns: Sequence[PastTurn]) -> list[PastTurnMessages]:
    """The messages of all earlier runs, in order, acceptable to every provider. To be kept (:func:`keep`) at the end:
    then they are not read anew for the next run."""
    found = [_known.get(turn) for turn in turns]
    missing = [turn for turn, known in zip(turns, found, strict=True) if known is None]
    if len(missing) > _AT_ONCE:
        read = iter(await asyncio.to_thread(lambda: list(map(_read, missing))))
    else:
        read = map(_read, missing)
    return [known or next(read) for known in found]


def _read(turn: PastTurn) -> PastTurnMessages:
    messages = _stored(turn) or list(_rebuilt(turn))
    for message in messages:
        if isinstance(message, ModelRequest):
            message.instructions = None  # each request has those of its own time
    known = PastTurnMessages(messages=messages, tokens=tokens_of(messages), own_size=_size(turn, messages))
    _known.put(turn, known)
    return known


def _size(turn: PastTurn, messages: Sequence[ModelMessage]) -> int:
    """Bytes in memory, about: the texts are as long as they are stored."""
    text = max(len(turn.conversation or turn.prompt), sum(len(message.content) for message in turn.messages))
    return text + _TURN + _PART * sum(len(message.parts) for message in messages)


def history(past: Sequence[PastTurnMessages], model: Model) -> list[ModelMessage]:
    """The conversation before a run, for the graph of a run with this model."""
    return shortened_history(past) if takes_past(model) else copied(messages_of(past))


def _stored(turn: PastTurn) -> list[ModelMessage] | None:
    """What :func:`dump` wrote; None when this run left nothing, or another backend's form."""
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
    """The messages of a run from its prompt and transcript: partial text as it was seen, every tool call answered.

    Prompts that joined it on the way (``steer``) are in their place; messages of subagents are left out.
    """
    own = [one for one in turn.messages if one.subagent_run_id is None]
    yield ModelRequest(parts=[UserPromptPart(content=_with_notes(turn.prompt, _first_prompts(own)))])
    results = {one.tool_call_id: one.content for one in own if one.role == "tool" and one.tool_call_id}
    responded = answered = False
    for message in own:
        if message.role == "user" and responded and message.content:
            answered = False
            yield ModelRequest(parts=[UserPromptPart(content=_with_notes(message.content, [message]))])
        if message.role != "assistant" or not (message.content or message.tool_calls):
            continue
        responded = True
        answered = not message.tool_calls
        yield _response(message)
        if message.tool_calls:
            yield ModelRequest(parts=[_tool_return(call, results.get(call.id)) for call in message.tool_calls])
    if (why := _REASONS.get(turn.status)) or not answered:
        yield ModelResponse(parts=[TextPart(content=f"(This answer ended here: {why or 'there was no more text'}.)")])


def _first_prompts(messages: Sequence[Message]) -> list[Message]:
    """The user's messages before the first answer: the run's prompt is made of these."""
    before = takewhile(lambda message: message.role != "assistant", messages)
    return [message for message in before if message.role == "user"]


def _with_notes(text: str, messages: Sequence[Message]) -> str:
    notes = [
        attachment_note(str(one.get("name", "a file")), str(one.get("media_type", "?")))
        for message in messages
        for one in message.attachments
    ]
    return "\n".join([text, *notes])


def _response(message: Message) -> ModelResponse:
    parts: list[TextPart | ToolCallPart] = [TextPart(content=message.content)] if message.content.strip() else []
    parts += [
        ToolCallPart(tool_name=call.name, args=_valid_args(call.args), tool_call_id=call.id)
        for call in message.tool_calls
    ]
    return ModelResponse(parts=parts or [TextPart(content="…")])


def _valid_args(args: str) -> str:
    """The arguments of a call, ``{}`` where they were cut off: providers refuse a conversation with invalid JSON."""
    try:
        return args if isinstance(load_json(args), dict) else "{}"
    except ValueError:
        return "{}"


def _tool_return(call: ToolCall, result: str | None) -> ToolReturnPart:
    found = call.result if call.result is not None else result
    content = found if found is not None else "(The run ended before this tool had a result.)"
    return ToolReturnPart(tool_name=call.name, content=content, tool_call_id=call.id)
