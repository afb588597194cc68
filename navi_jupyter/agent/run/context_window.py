"""Makes a long conversation fit what a model reads. Pure, but for the summary that it asks for; the log is untouched.

In this order, until it fits: old tool outputs and images are cut; the oldest turns give way to a summary; outputs
within the last turn are cut. A *turn* is a user's message and all that follows up to the next. What comes out is as
valid for providers as what went in: every result still follows its call, and the first message is a user's.
Tokens are estimated (no tokenizer is downloaded). Not responsible for asking a model (``fitting``).

Imports pydantic_ai: only modules that :mod:`.driver` loads may import this one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any
from zlib import crc32

from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.messages import (
    BaseToolCallPart,
    BaseToolReturnPart,
    BinaryContent,
    FilePart,
    FileUrl,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    SystemPromptPart,
    ToolReturnPart,
    UploadedFile,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.models import Model

from ...errors import RunFailed
from ...log_setup import get_logger

log = get_logger("agent")

Summarise = Callable[[Sequence[ModelMessage]], Awaitable[str]]
"""Says in short what these messages say. Raises RunFailed or AgentRunError when it can not."""

DEFAULT_WINDOW = 128_000
"""Tokens that a model reads of which nothing is known."""
SHARE = 0.7
"""How much of the window the conversation may fill: the rest is for the answer and what tools bring."""
_GOAL = 0.6
"""How much of its room is left full after a summary, so that the next turns do not ask for another."""
_SUMMARY = 1_000
"""Tokens that a summary may take."""
_SMALL = 60
"""Messages that are dealt with at once."""
_MEDIA = 1_500
"""Tokens of an image or a file, about what providers count for one."""
_PER_MESSAGE = 8
_HEAD = 600
"""Characters that are left of an old tool output."""
_TIGHT = 200
_SLACK = 200
"""Characters more than that are not worth a cut."""

_FILE_GONE = "(A file or an image that was here is left out.)"
_LEFT_OUT = "(The earlier part of this conversation is left out here; the session's history tool has it.)"
_SUMMARISED = "(The earlier part of this conversation, summarised automatically:)\n\n"

_media = (BinaryContent, FileUrl, UploadedFile)


# --- how long it is --------------------------------------------------------------------------------------------------


def window_of(model: Model) -> int:
    """Tokens that a model reads, input and output together; a cautious guess when that is not known.

    Ollama reads what its server was told to, whatever the model could, and drops the rest in silence.
    """
    served = os.environ.get("OLLAMA_CONTEXT_LENGTH", "") if model.system == "ollama" else ""
    if served.isdecimal() and int(served) > 0:
        return int(served)
    return model.context_window or DEFAULT_WINDOW


def text_tokens(text: str) -> int:
    """A quarter of its UTF-8 bytes: about right for English and code, and not too low for other scripts."""
    return (len(text) if text.isascii() else len(text.encode("utf-8", "replace"))) // 4 + 1


def tokens_of(messages: Sequence[ModelMessage]) -> int:
    """An estimate of what a provider will count for these messages."""
    return sum(_PER_MESSAGE + sum(map(_part_tokens, message.parts)) for message in messages)


def _part_tokens(part: Any) -> int:
    if isinstance(part, FilePart):
        return _MEDIA
    if isinstance(part, BaseToolReturnPart):
        return text_tokens(part.model_response_str()) + _MEDIA * len(part.files) + _PER_MESSAGE
    if isinstance(part, BaseToolCallPart):
        return text_tokens(part.args_as_json_str()) + text_tokens(part.tool_name) + _PER_MESSAGE
    content = getattr(part, "content", None)
    if isinstance(content, str):
        return text_tokens(content)
    if isinstance(content, Sequence):
        return sum(map(_item_tokens, content))
    return _PER_MESSAGE


def _item_tokens(item: object) -> int:
    if isinstance(item, _media):
        return _MEDIA
    text = item if isinstance(item, str) else getattr(item, "content", "")
    return text_tokens(text) if isinstance(text, str) else _PER_MESSAGE


# --- turns -----------------------------------------------------------------------------------------------------------


def boundaries(messages: Sequence[ModelMessage]) -> list[int]:
    """Where a conversation can be cut in two: at the beginning of a turn, with every result behind its call."""
    found = []
    uncalled: set[str] = set()
    """Going backwards: results that were seen behind this place, and whose call was not."""
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        for part in message.parts:
            if (answered := _answers(part)) is not None:
                uncalled.add(answered)
            elif isinstance(part, BaseToolCallPart):
                uncalled.discard(part.tool_call_id)
        if not uncalled and _opens(message):
            found.append(index)
    return found[::-1]


def _answers(part: Any) -> str | None:
    """The call that a part of a request has the result of; None when it has none."""
    if isinstance(part, ToolReturnPart) or getattr(part, "part_kind", "") == "retry-prompt":
        answered: str | None = part.tool_call_id
        return answered
    return None


def _opens(message: ModelMessage) -> bool:
    return (
        isinstance(message, ModelRequest)
        and any(isinstance(part, UserPromptPart) for part in message.parts)
        and all(_answers(part) is None for part in message.parts)
    )


# --- cutting ---------------------------------------------------------------------------------------------------------


def cut_outputs(messages: Sequence[ModelMessage], *, keep: int = _HEAD) -> list[ModelMessage]:
    """The same messages with long tool outputs and all files cut. Messages that need no change are the same objects."""
    return [_cut_request(one, keep) if isinstance(one, ModelRequest) else one for one in messages]


def _cut_request(request: ModelRequest, keep: int) -> ModelRequest:
    parts = [_cut_part(part, keep) for part in request.parts]
    if all(new is old for new, old in zip(parts, request.parts, strict=True)):
        return request
    return replace(request, parts=parts)


def _cut_part(part: ModelRequestPart, keep: int) -> ModelRequestPart:
    if (
        isinstance(part, ToolReturnPart) and type(part) is ToolReturnPart
    ):  # its subclasses have contents of a fixed form
        text = part.model_response_str(wrap_if_error=False)
        if len(text) <= keep + _SLACK and not part.files:
            return part
        shortened: Any = _shortened(text, keep, had_files=bool(part.files))
        return replace(part, content=shortened)
    if isinstance(part, UserPromptPart) and not isinstance(part.content, str):
        if not any(isinstance(item, _media) for item in part.content):
            return part
        content: list[UserContent] = [_FILE_GONE if isinstance(item, _media) else item for item in part.content]
        return replace(part, content=content)
    return part


def _shortened(text: str, keep: int, *, had_files: bool) -> str:
    gone = f"\n{_FILE_GONE}" if had_files else ""
    if len(text) <= keep + _SLACK:
        return text + gone
    return f"{text[:keep]}\n(… {len(text) - keep} more characters were here. Call the tool again if they matter.){gone}"


# --- summaries -------------------------------------------------------------------------------------------------------


class Summaries:
    """Summaries of beginnings of conversations, by what they cover, so that none is made twice.

    One per run; those that were made by other runs of this process are found, too. :meth:`dump` goes into the run's
    conversation, and :meth:`load` takes it from there in later runs.
    """

    _MOST = 256
    _shared: OrderedDict[str, str] = OrderedDict()  # noqa: RUF012  of the process, on purpose: keys are contents

    def __init__(self) -> None:
        self._mine: dict[str, str] = {}

    def get(self, covers: str) -> str | None:
        """The summary of what has this key."""
        return self._mine.get(covers) or self._shared.get(covers)

    def put(self, covers: str, text: str) -> None:
        """Remember one."""
        self._mine[covers] = text
        self._shared[covers] = text
        self._shared.move_to_end(covers)
        while len(self._shared) > self._MOST:
            self._shared.popitem(last=False)

    def dump(self) -> list[dict[str, str]]:
        """The newest of this run, as JSON can say it; it covers what the ones before it did."""
        return [{"covers": covers, "text": text} for covers, text in list(self._mine.items())[-1:]]

    def load(self, dumped: object) -> None:
        """What an earlier run's :meth:`dump` gave. What is no such thing is passed over."""
        for one in dumped if isinstance(dumped, list) else ():
            if isinstance(one, dict) and isinstance(one.get("covers"), str) and isinstance(one.get("text"), str):
                self._mine[one["covers"]] = one["text"]


def _prefix_keys(messages: Sequence[ModelMessage]) -> Iterator[str]:
    """The key of each beginning of the messages: item ``i`` covers the first ``i``. By content, not by time."""
    digest = hashlib.sha256()
    yield digest.hexdigest()
    for message in messages:
        for part in message.parts:
            digest.update(_mark(part).encode("utf-8", "replace"))
        digest.update(message.kind.encode())
        yield digest.hexdigest()


def _mark(part: Any) -> str:
    if isinstance(part, BaseToolReturnPart):
        text = part.model_response_str()
    elif isinstance(part, BaseToolCallPart):
        text = part.args_as_json_str()
    else:
        content = getattr(part, "content", "")
        text = content if isinstance(content, str) else str(_part_tokens(part))
    call = getattr(part, "tool_call_id", "")
    return f"{part.part_kind}|{call}|{len(text)}|{crc32(text.encode('utf-8', 'replace'))};"


def _with_note(suffix: Sequence[ModelMessage], note: str, systems: Sequence[SystemPromptPart]) -> list[ModelMessage]:
    """The rest of a conversation, its first message preceded by a word on what came before."""
    first, *rest = suffix
    return [replace(first, parts=[*systems, UserPromptPart(content=note), *first.parts]), *rest]  # type: ignore[arg-type]


def _systems(messages: Sequence[ModelMessage]) -> list[SystemPromptPart]:
    return [part for message in messages for part in message.parts if isinstance(part, SystemPromptPart)]


# --- all together ----------------------------------------------------------------------------------------------------


async def fit(
    messages: Sequence[ModelMessage],
    *,
    model: Model | None = None,
    limit_tokens: int | None = None,
    summarise: Summarise | None = None,
    summaries: Summaries | None = None,
) -> list[ModelMessage]:
    """The conversation in at most ``limit_tokens`` (estimated; default: its share of the model's window).

    The last turn is left as it is unless it alone is too long; its user's words always are. When even that does not
    fit, the shortest that there is comes out, and the provider says what it thinks of it.
    """
    if limit_tokens is None:
        limit_tokens = int((window_of(model) if model is not None else DEFAULT_WINDOW) * SHARE)
    # In threads: thousands of messages take a second, and kernels share the loop.
    apart = len(messages) > _SMALL
    known = summaries if summaries is not None else Summaries()
    plan = (
        await asyncio.to_thread(_plan, messages, limit_tokens, known) if apart else _plan(messages, limit_tokens, known)
    )
    if isinstance(plan, list):
        return plan
    text = await _summary(plan, summarise)
    if text:
        known.put(plan.covers, text)
    return await asyncio.to_thread(plan.carry_out, text) if apart else plan.carry_out(text)


async def _summary(plan: _Plan, summarise: Summarise | None) -> str:
    """Empty when there is none to be had."""
    if summarise is None:
        return ""
    try:
        return _bounded((await summarise(plan.past)).strip(), plan.room)
    except (RunFailed, AgentRunError) as error:
        log.warning("summary_failed", error=type(error).__name__)
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """The oldest turns are to give way to a summary that is not there yet."""

    past: Sequence[ModelMessage]
    """What it is made from: an earlier summary, if there is one, and the turns since."""
    covers: str
    """Its key."""
    rest: Sequence[ModelMessage]
    systems: Sequence[SystemPromptPart]
    """System prompts of what is left out: they count to the end."""
    room: int
    """Tokens that it may take."""
    limit: int

    def carry_out(self, text: str) -> list[ModelMessage]:
        """What is sent; without a text, a word that something is left out."""
        note = _SUMMARISED + text if text else _LEFT_OUT
        return _shorten_last(_with_note(self.rest, note, self.systems), self.limit)


def _plan(messages: Sequence[ModelMessage], limit: int, summaries: Summaries) -> list[ModelMessage] | _Plan:
    """What is sent, if that takes no new summary; else how to go on."""
    if tokens_of(messages) <= limit:
        return list(messages)
    starts = boundaries(messages)
    for recent in (3, 2, 1):
        if len(starts) >= recent:
            trimmed = [*cut_outputs(messages[: starts[-recent]]), *messages[starts[-recent] :]]
            if tokens_of(trimmed) <= limit:
                return trimmed
    if not starts or starts[-1] == 0:
        return _shorten_last(list(messages), limit)
    return _plan_summary(messages, trimmed, starts, limit, summaries)


def _plan_summary(
    whole: Sequence[ModelMessage],
    cut: Sequence[ModelMessage],
    starts: Sequence[int],
    limit: int,
    summaries: Summaries,
) -> list[ModelMessage] | _Plan:
    """With a summary that there is, if what it leaves is short enough; else for a new one that builds on it."""
    keys = list(_prefix_keys(whole))
    sizes = _sizes_from(cut)
    known = [(start, text) for start in starts if start and (text := summaries.get(keys[start]))]
    for start, text in known:
        if sizes[start] <= limit:
            trimmed = _with_note(cut[start:], _SUMMARISED + text, _systems(cut[:start]))
            if tokens_of(trimmed) <= limit:
                return trimmed
    room = min(_SUMMARY, limit // 4)
    start = _first_that_fits(sizes, starts, int(limit * _GOAL) - room)
    base = next(((at, text) for at, text in reversed(known) if at < start), None)
    return _Plan(
        past=cut[:start] if base is None else _with_note(cut[base[0] : start], _SUMMARISED + base[1], ()),
        covers=keys[start],
        rest=cut[start:],
        systems=_systems(cut[:start]),
        room=room,
        limit=limit,
    )


def _bounded(text: str, tokens: int) -> str:
    """A text of at most so many tokens."""
    while text and text_tokens(text) > tokens:
        text = text[: len(text) * tokens // (text_tokens(text) + 1)]
    return text


def _sizes_from(messages: Sequence[ModelMessage]) -> list[int]:
    """Item ``i``: the tokens of all messages from ``i`` on."""
    sizes = [tokens_of((message,)) for message in messages]
    return list(accumulate(reversed(sizes), initial=0))[::-1]


def _first_that_fits(sizes: Sequence[int], starts: Sequence[int], room: int) -> int:
    """The earliest turn from which on all fits; else the last."""
    return next((start for start in starts if start and sizes[start] <= room), starts[-1])


def _shorten_last(messages: list[ModelMessage], limit: int) -> list[ModelMessage]:
    """Cut outputs within the last turn, the newest last."""
    if tokens_of(messages) <= limit:
        return messages
    newest = max((index for index, one in enumerate(messages) if isinstance(one, ModelRequest)), default=0)
    for before, keep in ((newest, _HEAD), (newest, _TIGHT), (newest + 1, _HEAD * 4), (newest + 1, _TIGHT)):
        head = cut_outputs(messages[:before], keep=keep)
        messages = [*head, *messages[before:]]
        if tokens_of(messages) <= limit:
            break
    return messages
