"""A model that is sent only what it can read: a conversation that is too long is shortened on the way.

In this order, until it fits: old tool outputs and images are cut; the oldest turns give way to a summary; outputs
within the last turn are cut. A *turn* is a user's message and all that follows up to the next. What comes out is as
valid for providers as what went in: every result still follows its call, and the first message is a user's.
The run's messages, the log and the stored conversation stay complete. Where the provider answers that a request was
still too long, it is shortened once more, harder, and sent once more. Not responsible for making a summary
(``summarizer``).

Imports pydantic_ai: only modules that :mod:`.runner` loads may import this one.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import AgentRunError, ModelAPIError, ModelContextWindowExceededError
from pydantic_ai.messages import (
    BaseToolCallPart,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    SystemPromptPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
    repair_messages,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from ...errors import RunFailed
from ...log_setup import get_logger
from ...model.sessions import Usage
from ..providers.past_messages import expanded, has_past, hidden_again
from .summarizer import Summaries, Summarizer, prefix_keys
from .token_estimates import MEDIA, SHARE, limited_tokens, text_tokens, tokens_from, tokens_of, window_of

log = get_logger("agent")

# A summary of these messages. Raises RunFailed or AgentRunError.
Summarize = Callable[[Sequence[ModelMessage]], Awaitable[str]]

# How much of its room is full after a summary: the rest lets the next turns do without another one.
_FILL_AFTER_SUMMARY = 0.6
_SUMMARY_TOKENS = 1_000  # that a summary may take of the room
# More messages than these are measured in a thread: thousands take a second, and kernels share the loop.
_MESSAGES_ON_LOOP = 60
_KEPT = 600  # characters that are left of an old tool output
_KEPT_AT_LAST = 200  # the same when nothing else makes the conversation fit
_SLACK = 200  # so few characters more than the limit are not worth a cut

_FILE_LEFT_OUT = "(A file or an image that was here is left out.)"
_TURNS_LEFT_OUT = "(The earlier part of this conversation is left out here; the session's history tool has it.)"
_SUMMARIZED = "(The earlier part of this conversation, summarised automatically:)\n\n"


async def fit(
    messages: Sequence[ModelMessage],
    limit: int,
    *,
    summarize: Summarize | None = None,
    summaries: Summaries | None = None,
) -> list[ModelMessage]:
    """The conversation in at most ``limit`` tokens (estimated).

    The last turn is left as it is unless it alone is too long; its user's words always are. When even that does not
    fit, the shortest version is the result, and the provider's error will say so.
    """
    threaded = len(messages) > _MESSAGES_ON_LOOP
    known = summaries if summaries is not None else Summaries()
    plan = await asyncio.to_thread(_plan, messages, limit, known) if threaded else _plan(messages, limit, known)
    if isinstance(plan, list):
        return plan
    text = await _summary(plan, summarize)
    if text:
        known.put(plan.covers, text)
    return await asyncio.to_thread(plan.messages, text) if threaded else plan.messages(text)


async def _summary(plan: _SummaryPlan, summarize: Summarize | None) -> str:
    """The summary of a plan; empty when it could not be made: the run goes on without it."""
    if summarize is None:
        return ""
    try:
        return limited_tokens((await summarize(plan.past)).strip(), plan.room)
    except (RunFailed, AgentRunError) as error:
        log.warning("summary_failed", error=type(error).__name__)
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _SummaryPlan:
    """The oldest turns are to give way to a summary that has to be made."""

    past: Sequence[ModelMessage]  # what it is made from: an earlier summary, if there is one, and the turns since
    covers: str  # its key
    rest: Sequence[ModelMessage]
    systems: Sequence[SystemPromptPart]  # system prompts of what is left out: they stay in force
    room: int  # tokens that it may take
    limit: int

    def messages(self, summary: str) -> list[ModelMessage]:
        """What is sent; without a summary, with a note that something is left out."""
        note = _SUMMARIZED + summary if summary else _TURNS_LEFT_OUT
        return _shorten_last_turn(_with_note(self.rest, note, self.systems), self.limit)


def _plan(messages: Sequence[ModelMessage], limit: int, summaries: Summaries) -> list[ModelMessage] | _SummaryPlan:
    """What is sent, if that takes no new summary; else the plan for one."""
    if tokens_of(messages) <= limit:
        return list(messages)
    starts = turn_starts(messages)
    # Outputs of the last turns are what the next answer is about: as many of these turns as fit stay as they are.
    for recent in (3, 2, 1):
        if len(starts) >= recent:
            shortened = [*cut_outputs(messages[: starts[-recent]]), *messages[starts[-recent] :]]
            if tokens_of(shortened) <= limit:
                return shortened
    if not starts or starts[-1] == 0:
        return _shorten_last_turn(list(messages), limit)
    return _plan_summary(messages, shortened, starts, limit, summaries)


def _plan_summary(
    messages: Sequence[ModelMessage],
    shortened: Sequence[ModelMessage],
    starts: Sequence[int],
    limit: int,
    summaries: Summaries,
) -> list[ModelMessage] | _SummaryPlan:
    """With a known summary, if what it leaves is short enough; else the plan for a new one that builds on it."""
    keys = list(prefix_keys(messages))
    sizes = tokens_from(shortened)
    known = [(start, text) for start in starts if start and (text := summaries.get(keys[start]))]
    for start, text in known:
        if sizes[start] <= limit:
            fitting = _with_note(shortened[start:], _SUMMARIZED + text, _system_prompts(shortened[:start]))
            if tokens_of(fitting) <= limit:
                return fitting
    room = min(_SUMMARY_TOKENS, limit // 4)
    target = int(limit * _FILL_AFTER_SUMMARY) - room
    start = next((start for start in starts if start and sizes[start] <= target), starts[-1])
    base = next(((at, text) for at, text in reversed(known) if at < start), None)
    return _SummaryPlan(
        past=shortened[:start] if base is None else _with_note(shortened[base[0] : start], _SUMMARIZED + base[1], ()),
        covers=keys[start],
        rest=shortened[start:],
        systems=_system_prompts(shortened[:start]),
        room=room,
        limit=limit,
    )


def _with_note(rest: Sequence[ModelMessage], note: str, systems: Sequence[SystemPromptPart]) -> list[ModelMessage]:
    """The rest of a conversation, with a note before its first message."""
    first, *others = rest
    return [replace(first, parts=[*systems, UserPromptPart(content=note), *first.parts]), *others]  # type: ignore[arg-type]


def _system_prompts(messages: Sequence[ModelMessage]) -> list[SystemPromptPart]:
    return [part for message in messages for part in message.parts if isinstance(part, SystemPromptPart)]


def _shorten_last_turn(messages: list[ModelMessage], limit: int) -> list[ModelMessage]:
    """Cut outputs within the last turn, the newest last."""
    if tokens_of(messages) <= limit:
        return messages
    newest = max((index for index, one in enumerate(messages) if isinstance(one, ModelRequest)), default=0)
    for before, keep in (
        (newest, _KEPT),
        (newest, _KEPT_AT_LAST),
        (newest + 1, _KEPT * 4),
        (newest + 1, _KEPT_AT_LAST),
    ):
        messages = [*cut_outputs(messages[:before], keep=keep), *messages[before:]]
        if tokens_of(messages) <= limit:
            break
    return messages


def turn_starts(messages: Sequence[ModelMessage]) -> list[int]:
    """Where a conversation can be cut in two: at the beginning of a turn, with every result behind its call."""
    found = []
    # Going backwards: results after this place whose call was not seen yet. A cut here would part the two.
    uncalled: set[str] = set()
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        for part in message.parts:
            if (call_id := _answered_call(part)) is not None:
                uncalled.add(call_id)
            elif isinstance(part, BaseToolCallPart):
                uncalled.discard(part.tool_call_id)
        if not uncalled and _starts_turn(message):
            found.append(index)
    return found[::-1]


def _answered_call(part: Any) -> str | None:
    """The id of the call that a part has the result of; None for other parts."""
    if isinstance(part, ToolReturnPart) or getattr(part, "part_kind", "") == "retry-prompt":
        call_id: str | None = part.tool_call_id
        return call_id
    return None


def _starts_turn(message: ModelMessage) -> bool:
    return (
        isinstance(message, ModelRequest)
        and any(isinstance(part, UserPromptPart) for part in message.parts)
        and all(_answered_call(part) is None for part in message.parts)
    )


def cut_outputs(messages: Sequence[ModelMessage], *, keep: int = _KEPT) -> list[ModelMessage]:
    """The messages with long tool outputs and all files cut. A message that needs no change is the same object."""
    return [_cut_request(one, keep) if isinstance(one, ModelRequest) else one for one in messages]


def _cut_request(request: ModelRequest, keep: int) -> ModelRequest:
    parts = [_cut_part(part, keep) for part in request.parts]
    if all(new is old for new, old in zip(parts, request.parts, strict=True)):
        return request
    return replace(request, parts=parts)


def _cut_part(part: ModelRequestPart, keep: int) -> ModelRequestPart:
    # By exact type: the subclasses of ToolReturnPart have contents of a fixed form.
    if isinstance(part, ToolReturnPart) and type(part) is ToolReturnPart:
        text = part.model_response_str(wrap_if_error=False)
        if len(text) <= keep + _SLACK and not part.files:
            return part
        shortened: Any = _cut_text(text, keep, had_files=bool(part.files))
        return replace(part, content=shortened)
    if isinstance(part, UserPromptPart) and not isinstance(part.content, str):
        if not any(isinstance(item, MEDIA) for item in part.content):
            return part
        content: list[UserContent] = [_FILE_LEFT_OUT if isinstance(item, MEDIA) else item for item in part.content]
        return replace(part, content=content)
    return part


def _cut_text(text: str, keep: int, *, had_files: bool) -> str:
    note = f"\n{_FILE_LEFT_OUT}" if had_files else ""
    if len(text) <= keep + _SLACK:
        return text + note
    return f"{text[:keep]}\n(… {len(text) - keep} more characters were here. Call the tool again if they matter.){note}"


_SECOND_TRY = 0.5  # how much of what was sent is sent again when that was too long
_CORRECTIONS = (0.5, 3.0)  # within these the estimate is corrected by what providers count
# Estimated tokens from which on a provider's count is used to correct the estimate: frames outweigh short texts.
_MEANINGFUL = 2_000
# How providers write the size of a model's window into their errors (OpenAI and vLLM; Anthropic; Google).
_WINDOW_IN_ERROR = (
    re.compile(r"maximum context length (?:is|of) (\d[\d,]*)", re.IGNORECASE),
    re.compile(r"> (\d[\d,]*) maximum", re.IGNORECASE),
    re.compile(r"maximum number of tokens allowed \((\d[\d,]*)\)", re.IGNORECASE),
)
_SMALLEST_WINDOW = 1_000  # a smaller number in an error is something else than a window

# Learned by model id, for the whole process: every run would learn the same.
_corrections: dict[str, float] = {}  # what a provider's count is to our estimate
_windows: dict[str, int] = {}  # the window that the provider wrote into an error


class ContextWindowModel(WrapperModel):
    """A model that is given only what it can read. ``on_usage`` gets the usage of summaries: they are requests, too."""

    def __init__(self, wrapped: Model, summaries: Summaries, on_usage: Callable[[Usage], None] | None = None) -> None:
        super().__init__(wrapped)
        self._summaries = summaries
        self._summarizer = Summarizer(wrapped, on_usage)

    # ``request`` is not overridden: runs and summaries are streamed, always.

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        overhead = _overhead(messages, model_request_parameters)
        sent = await self._fit(messages, overhead, self._limit())

        async def opened() -> StreamedResponse:
            given = sent
            if has_past(messages) and not has_past(
                sent
            ):  # they were not prepared before: it was not known that they are sent
                given = repair_messages(self.wrapped.prepare_messages(sent, model_request_parameters))
            return await stack.enter_async_context(
                self.wrapped.request_stream(given, model_settings, model_request_parameters, run_context)
            )

        async with AsyncExitStack() as stack:
            try:
                response = await opened()
            except ModelContextWindowExceededError as error:
                sent = await self._fit_harder(error, messages, sent, overhead)
                response = await opened()
            yield response
            self._learn(tokens_of(sent) + overhead, response.usage.input_tokens)

    def _limit(self) -> int:
        """Tokens, as the provider counts them, that a request may have."""
        return int(_windows.get(self.model_id, window_of(self.wrapped)) * SHARE)

    async def _fit(self, messages: Sequence[ModelMessage], overhead: int, limit: int) -> list[ModelMessage]:
        room = int(limit / _corrections.get(self.model_id, 1.0)) - overhead
        # Instructions and tools may leave next to nothing: some of the conversation is sent in any case.
        room = max(room, limit // 8)
        if has_past(messages) and tokens_of(messages) <= room:
            return list(messages)
        shortened, messages = messages, expanded(messages)
        fitting = await fit(messages, room, summarize=self._summarizer, summaries=self._summaries)
        if len(fitting) != len(messages) or any(new is not old for new, old in zip(fitting, messages, strict=True)):
            log.info(
                "conversation_trimmed",
                model=self.model_id,
                messages=len(messages),
                sent=len(fitting),
                tokens=tokens_of(messages),
                tokens_sent=tokens_of(fitting),
            )
        return hidden_again(fitting, shortened)

    async def _fit_harder(
        self, error: ModelAPIError, messages: Sequence[ModelMessage], sent: Sequence[ModelMessage], overhead: int
    ) -> list[ModelMessage]:
        """What to send instead. Raises the provider's error when nothing is left to leave out."""
        if (window := _window_in(error)) is not None:
            _windows[self.model_id] = window
        before = tokens_of(sent)
        limit = min(int((before + overhead) * _SECOND_TRY), self._limit())
        shorter = await self._fit(messages, overhead, limit)
        if tokens_of(shorter) >= before:
            raise error
        return shorter

    def _learn(self, estimated: int, counted: int) -> None:
        """Correct the estimate of the next requests by the provider's count: the mean of the old and the new ratio."""
        if estimated < _MEANINGFUL or not counted:
            return
        lowest, highest = _CORRECTIONS
        ratio = min(highest, max(lowest, counted / estimated))
        _corrections[self.model_id] = (_corrections.get(self.model_id, ratio) + ratio) / 2


def _window_in(error: ModelAPIError) -> int | None:
    """The size of the model's window, where the provider's error has it."""
    text = f"{error.message} {error.body}"
    for pattern in _WINDOW_IN_ERROR:
        if (match := pattern.search(text)) and (window := int(match[1].replace(",", ""))) >= _SMALLEST_WINDOW:
            return window
    return None


def _overhead(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> int:
    """Tokens of what goes with the messages: instructions and the tools' schemas."""
    instructions = next((one.instructions for one in reversed(messages) if isinstance(one, ModelRequest)), None) or ""
    tools = sum(
        text_tokens(tool.name + (tool.description or "")) + text_tokens(json.dumps(tool.parameters_json_schema))
        for tool in parameters.function_tools
    )
    return text_tokens(instructions) + tools
