"""One run of a model by pydantic-ai: builds the model, walks the agent's graph, emits bodies, keeps the conversation.

This module and those it imports load pydantic_ai (0.6 s): :mod:`.loop` imports it at the first run, in a thread.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from pydantic_ai import Agent, Tool
from pydantic_ai.agent import AgentRun
from pydantic_ai.exceptions import AgentRunError, UsageLimitExceeded, UserError
from pydantic_ai.messages import ModelMessage, ModelRequest
from pydantic_ai.models import Model, infer_model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import UsageLimits

from ..errors import RunFailed
from ..events import Event
from ..model import Failure, Usage
from ..ports import ToolContext, Turn, TurnResult, tool_context
from . import conversation
from .context import wake_of
from .failures import failed
from .profiles import Profile, instructions
from .tools import TOOLS
from .translate import Translator

Emit = Callable[[Event], None]

_SILENCE = 300.0
"""Seconds without a byte from the provider until a request is given up. Reasoning models are silent for long."""
_RETRIES = 2
"""How often a model may correct a tool call that did not fit."""


async def drive(turn: Turn, context: ToolContext, profile: Profile, emit: Emit) -> TurnResult:
    """Do one turn. ``emit`` gets every body at once: it must not block, or the provider's stream stalls.

    Runs in a task of its own, whose context it changes. Raises RunFailed; lets cancellation through at once, which
    closes the provider's connection.
    """
    tool_context.set(context)
    wake = await wake_of(context, turn.now)
    model = await _model(turn.model)
    walk = _Walk(turn, emit)
    try:
        async with (
            model,  # entered, so that its connections close with the run
            _agent(profile).iter(
                turn.prompt,
                message_history=conversation.history(turn.history),
                model=model,
                instructions=instructions(profile, turn, context, wake),
                usage_limits=UsageLimits(request_limit=turn.limits.max_iterations),
                model_settings=ModelSettings(
                    timeout=min(_SILENCE, turn.limits.timeout), request_timeout=turn.limits.timeout
                ),
                infer_name=False,
            ) as run,
        ):
            return await walk.whole(run)
    except AgentRunError as error:
        raise failed(error, turn.model) from error
    except UserError as error:
        raise failed(error, turn.model) from error


async def _model(name: str) -> Model:
    """The model, built in a thread: a provider's package may take a second to import. Raises RunFailed."""
    try:
        return await asyncio.to_thread(infer_model, name)
    except Exception as error:
        # Providers raise their own kinds for a missing key or endpoint; all of them mean the same to the user.
        unusable = failed(error, name)
        raise RunFailed(unusable.message, run_code="model_unavailable") from error


@functools.lru_cache(maxsize=16)
def _agent(profile: Profile) -> Agent[None, str]:
    tools = [Tool[None](TOOLS[name], takes_ctx=False, name=name) for name in profile.tools]
    return Agent(tools=tools, deps_type=type(None), retries=_RETRIES, name=profile.name)


class _Walk:
    """The way through one run's graph."""

    def __init__(self, turn: Turn, emit: Emit) -> None:
        self._turn = turn
        self._emit = emit
        self._translator = Translator()
        self._unsent: ModelRequest | None = None
        """The request that is to be sent next; not among the run's messages until it is."""

    async def whole(self, run: AgentRun[None, str]) -> TurnResult:
        """To the end, or to the limit."""
        failure = None
        try:
            await self._to_the_end(run)
        except UsageLimitExceeded:
            limit = self._turn.limits.max_iterations
            requests = "request" if limit == 1 else "requests"
            failure = Failure(
                code="max_iterations",
                message=f"Stopped after {limit} {requests} to the model in one run (trait max_iterations). "
                "What was done is kept; ask to continue.",
            )
        usage = Usage(
            input_tokens=run.usage.input_tokens,
            output_tokens=run.usage.output_tokens,
            requests=run.usage.requests,
        )
        return TurnResult(conversation=conversation.keep(self._messages(run)), usage=usage, failure=failure)

    async def _to_the_end(self, run: AgentRun[None, str]) -> None:
        async for node in run:
            if Agent.is_model_request_node(node):
                self._unsent = node.request
                async with node.stream(run.ctx) as stream:
                    self._unsent = None
                    async for event in stream:
                        self._say(event)
                for body in self._translator.response_over():
                    self._emit(body)
            elif Agent.is_call_tools_node(node):
                async with node.stream(run.ctx) as results:
                    async for result in results:
                        self._say(result)

    def _say(self, event: object) -> None:
        for body in self._translator.on(event):
            self._emit(body)

    def _messages(self, run: AgentRun[None, str]) -> list[ModelMessage]:
        """This run's messages; at the limit also the tools' results that were about to be sent."""
        messages = list(run.new_messages())
        if self._unsent is not None and all(message is not self._unsent for message in messages):
            messages.append(self._unsent)
        return messages
