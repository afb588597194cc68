"""The turns of a conversation that are over, and two messages that stand for them in a run.

pydantic-ai walks all messages of a conversation many times for each request. So the graph of a run gets two small
messages in the place of the past ones (:class:`PastRequest` and an answer); what walks messages of ours knows them.

Two messages stand for turns only where these mean the same wherever they are: each begins with a prompt, ends with an
answer and has a result for every call. Others stay as they are among them.

Not responsible for what a provider gets in their place (``encoded_messages``).
Imports pydantic_ai: only modules that the runner loads may import this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from uuid import uuid4

from pydantic_ai.messages import (
    BaseToolCallPart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

_PLAIN = (UserPromptPart, TextPart, ThinkingPart, ToolCallPart, ToolReturnPart)


@dataclass(slots=True, eq=False, weakref_slot=True)
class PastTurnMessages:
    """The messages of one turn that is over, and what is known of them. They are not changed by anybody."""

    messages: Sequence[ModelMessage]
    tokens: int  # estimated
    own_size: int = 0  # bytes in memory, without the JSON below
    whole: bool = field(init=False)  # whether it stands for itself: see the module
    thoughts: frozenset[object] = field(init=False)  # the kinds of thoughts in it
    calls: frozenset[str] = field(init=False)
    # By the kind of model: its JSON; None where pydantic-ai would change something in it.
    encoded: dict[tuple[object, ...], bytes | None] = field(init=False, default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return self.own_size + sum(len(one or b"") for one in self.encoded.values())

    def __post_init__(self) -> None:
        parts = [part for message in self.messages for part in message.parts]
        self.whole = _is_whole(self.messages)
        self.thoughts = frozenset((part.id, part.provider_name) for part in parts if isinstance(part, ThinkingPart))
        self.calls = frozenset(part.tool_call_id for part in parts if isinstance(part, BaseToolCallPart))


def _is_whole(messages: Sequence[ModelMessage]) -> bool:
    if (
        len(messages) < 2
        or len(messages) % 2
        or not all(type(part) in _PLAIN for one in messages for part in one.parts)
    ):
        return False
    called: list[str] = []
    for index, message in enumerate(messages):
        if isinstance(message, ModelRequest) == bool(index % 2) or not message.parts:
            return False
        if isinstance(message, ModelRequest):
            answered = [part.tool_call_id for part in message.parts if isinstance(part, ToolReturnPart)]
            if answered != called or (not index and not _is_text(message)):
                return False
            called = []
        else:
            called = [part.tool_call_id for part in message.parts if isinstance(part, ToolCallPart)]
    return not called


def _is_text(message: ModelRequest) -> bool:
    return any(isinstance(part, UserPromptPart) for part in message.parts)


@dataclass
class PastRequest(ModelRequest):
    """Stands for turns that are over; :func:`_answer` follows it. A request as any other to all that walk messages."""

    past: Sequence[PastTurnMessages] = ()


def token_of(message: ModelMessage) -> str:
    """The text of a message that stands for others, and of its answer; nothing else has it."""
    return str(getattr(message.parts[0], "content", ""))


def standing_for(past: Sequence[PastTurnMessages]) -> list[ModelMessage]:
    """The two messages that stand for these turns."""
    token = f"navi-past-{uuid4().hex}"
    return [PastRequest(parts=[UserPromptPart(content=token)], past=past), ModelResponse(parts=[TextPart(token)])]


def shortened_history(turns: Sequence[PastTurnMessages]) -> list[ModelMessage]:
    """The messages of these turns for a graph, in order: those that stand for themselves by two in their place.

    The last turn stays: what comes next may have to do with it, as has what follows a turn that is not whole.
    """
    messages: list[ModelMessage] = []
    hidden: list[PastTurnMessages] = []
    follows_whole = True
    for turn in turns[:-1]:
        if turn.whole and follows_whole:
            hidden.append(turn)
            continue
        messages += _hidden(hidden)
        hidden = []
        messages += copied(turn.messages)
        # What does not end with an answer may be changed with what follows.
        follows_whole = _ends(turn.messages)
    messages += _hidden(hidden)
    return messages + [copy for turn in turns[-1:] for copy in copied(turn.messages)]


def _hidden(turns: Sequence[PastTurnMessages]) -> list[ModelMessage]:
    if sum(len(turn.messages) for turn in turns) > 2:
        return standing_for(turns)
    return [copy for turn in turns for copy in copied(turn.messages)]


def copied(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """A run may write into the messages that it has got."""
    return [replace(message) for message in messages]


def _ends(messages: Sequence[ModelMessage]) -> bool:
    last = messages[-1] if messages else None
    return isinstance(last, ModelResponse) and not any(isinstance(part, BaseToolCallPart) for part in last.parts)


def has_past(messages: Sequence[ModelMessage]) -> bool:
    """Whether any of them stands for others."""
    return any(isinstance(message, PastRequest) for message in messages)


def expanded(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """The conversation with the messages that others stand for."""
    return [one for message, past in walk(messages) for one in (messages_of(past) if past else (message,))]


def hidden_again(messages: Sequence[ModelMessage], before: Sequence[ModelMessage]) -> list[ModelMessage]:
    """A shortened form of an expanded conversation: turns that are still whole in it are hidden as they were."""
    turns = {id(turn.messages[0]): turn for _, past in walk(before) for turn in past}
    found: list[ModelMessage] = []
    hidden: list[PastTurnMessages] = []
    index = 0
    while index < len(messages):
        turn = turns.get(id(messages[index]))
        own = () if turn is None else messages[index : index + len(turn.messages)]
        if turn is not None and all(one is other for one, other in zip(own, turn.messages, strict=False)):
            hidden.append(turn)
            index += len(turn.messages)
            continue
        found += standing_for(hidden) if hidden else ()
        hidden = []
        found.append(messages[index])
        index += 1
    return found + (standing_for(hidden) if hidden else [])


def walk(messages: Sequence[ModelMessage]) -> Iterator[tuple[ModelMessage, Sequence[PastTurnMessages]]]:
    """Each message, with what it stands for. The answers of those that stand for something are left out."""
    answers = False
    for message in messages:
        if isinstance(message, PastRequest):
            yield message, message.past
        elif not answers:
            yield message, ()
        answers = isinstance(message, PastRequest)


def messages_of(past: Sequence[PastTurnMessages]) -> list[ModelMessage]:
    """The messages of these turns: those that all runs share."""
    return [message for turn in past for message in turn.messages]
