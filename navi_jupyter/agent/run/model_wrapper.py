"""A model wrapper that sends only what the model can read: a conversation that is too long is shortened on the way.

The run's own messages stay complete, so nothing of this is in the log or in what is stored. Where the provider answers
that the request was still too long, it is shortened once more, harder, and sent once more.
Not responsible for how a conversation is shortened (``context_window``).

Imports pydantic_ai: only modules that :mod:`.runner` loads may import this one.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.exceptions import ModelAPIError, ModelContextWindowExceededError
from pydantic_ai.messages import ModelMessage, ModelRequest
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from ...log_setup import get_logger
from ...model.sessions import Usage
from .context_window import fit
from .summarizer import Summaries, Summarizer
from .token_estimates import SHARE, text_tokens, tokens_of, window_of

log = get_logger("agent")

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
        """See ``Model.request_stream``."""
        overhead = _overhead(messages, model_request_parameters)
        sent = await self._fit(messages, overhead, self._limit())

        async def opened() -> StreamedResponse:
            return await stack.enter_async_context(
                self.wrapped.request_stream(sent, model_settings, model_request_parameters, run_context)
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
        fitting = await fit(messages, max(room, limit // 8), summarize=self._summarizer, summaries=self._summaries)
        if len(fitting) != len(messages) or any(new is not old for new, old in zip(fitting, messages, strict=True)):
            log.info(
                "conversation_trimmed",
                model=self.model_id,
                messages=len(messages),
                sent=len(fitting),
                tokens=tokens_of(messages),
                tokens_sent=tokens_of(fitting),
            )
        return fitting

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
