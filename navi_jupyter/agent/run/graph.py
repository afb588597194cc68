"""The way of one agent through pydantic-ai's graph: requests, tools, steering, limits. A run's own agent or a worker.

Imports pydantic_ai: only :mod:`.driver` and what it loads may import this module (it is loaded at the first run).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults
from pydantic_ai.agent import AgentRun
from pydantic_ai.exceptions import AgentRunError, ModelHTTPError, UsageLimitExceeded, UserError
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RunUsage, UsageLimits

from ...errors import RunFailed
from ...events import Event
from ...model.sessions import Failure, Usage
from ...ports.agent import ToolContext
from ..providers import pricing
from ..providers.errors import failed
from . import attachments
from .event_translation import Translator
from .metering import Meter
from .toolset import Calls, reached

Prompt = str | list[UserContent]
Output = str | DeferredToolRequests | None

_SILENCE = 300.0
"""Seconds without a byte from the provider until a request is given up. Reasoning models are silent for long."""
_OUTPUT_RETRIES = 3
_ABOUT_FILES = ("image", "vision", "multimodal", "multi-modal", "document", "pdf", "media", "content type", "file")


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentTask:
    """What one agent is to do, and with what."""

    model: Model
    model_name: str
    """As the user wrote it."""
    prompt: Prompt | None
    """None exactly when the run goes on after a pause."""
    history: Sequence[ModelMessage]
    instructions: str
    calls: Calls
    translator: Translator
    emit: Callable[[Event], None]
    context: ToolContext
    """Its ``steering`` is None for a worker."""
    meter: Meter
    affordable: Callable[[Sequence[ModelMessage]], Failure | None]
    """Why these may not be sent; None when they may."""
    most_requests: int
    """To the model, those before a pause included."""
    timeout: float
    results: DeferredToolResults | None = None
    """Answers to the questions with which it paused."""
    requests: int = 0
    """How many were made before that pause."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """How far it came."""

    messages: Sequence[ModelMessage]
    """This agent's new ones; what went before a pause is not among them."""
    requests: int
    waiting: Sequence[ToolCallPart] = ()
    """The calls that the user has to be asked about. Not empty: it paused."""
    failure: Failure | None = None
    """The limit that ended it."""

    @property
    def answer(self) -> str:
        """The text of the last response."""
        last = next((one for one in reversed(self.messages) if isinstance(one, ModelResponse)), None)
        return "".join(part.content for part in last.parts if isinstance(part, TextPart)) if last else ""


@functools.cache
def _agent() -> Agent[None, Any]:
    # None among the outputs: an empty answer, or one of tool calls only, is an answer. No retries that users would pay.
    return Agent(
        output_type=[str, type(None), DeferredToolRequests],
        deps_type=type(None),
        retries={"tools": 1_000_000, "output": _OUTPUT_RETRIES},
        name="navi",
    )


async def do(errand: AgentTask) -> Done:
    """To the end, to a pause, or to a limit. Raises RunFailed; lets cancellation through at once."""
    walk = _GraphRun(errand)
    settings = ModelSettings(timeout=min(_SILENCE, errand.timeout), request_timeout=errand.timeout)
    try:
        async with (
            errand.model,  # entered, so that its connections close with the run
            _agent().iter(
                errand.prompt,
                message_history=list(errand.history),
                deferred_tool_results=errand.results,
                model=errand.model,
                instructions=errand.instructions,
                usage=RunUsage(requests=errand.requests),
                usage_limits=UsageLimits(request_limit=errand.most_requests),
                model_settings=settings,
                toolsets=[errand.calls],
                infer_name=False,
            ) as run,
        ):
            return await walk.whole(run)
    except (AgentRunError, UserError) as error:
        raise _told(error, errand) from error


def _told(error: Exception, errand: AgentTask) -> RunFailed:
    told = failed(error, errand.model_name)
    refused = isinstance(error, ModelHTTPError) and error.status_code in (400, 404, 415, 422)
    about_files = any(word in f"{error} {getattr(error, 'body', '')}".lower() for word in _ABOUT_FILES)
    if refused and about_files and told.run_code == "provider_error" and _has_files(errand.prompt):
        return RunFailed(
            f"{told.message} Switch to a model that reads what you attached, or remove it.",
            run_code=attachments.UNSUPPORTED,
        )
    return told


def _has_files(prompt: Prompt | None) -> bool:
    return isinstance(prompt, list) and any(isinstance(one, BinaryContent) for one in prompt)


@dataclass(slots=True)
class _GraphRun:
    errand: AgentTask
    unsent: ModelRequest | None = None
    """The request that is to be sent next; not among the run's messages until it is."""
    undelivered: list[UserPromptPart] = field(default_factory=list)
    """Steering prompts that were taken and have not reached the model."""

    async def whole(self, run: AgentRun[None, Any]) -> Done:
        failure = None
        try:
            failure = await self._to_the_end(run)
        except UsageLimitExceeded:
            failure = _out_of_requests(self.errand.most_requests)
        output = run.result.output if run.result is not None else None
        return Done(
            messages=self._messages(run),
            requests=run.usage.requests,
            waiting=tuple(output.approvals) if isinstance(output, DeferredToolRequests) else (),
            failure=failure,
        )

    async def _to_the_end(self, run: AgentRun[None, Any]) -> Failure | None:
        async for node in run:
            if Agent.is_model_request_node(node):
                self.unsent = node.request
                if (failure := self.errand.affordable([*run.all_messages(), node.request])) is not None:
                    return failure
                await self._steer(run)
                await self._ask(node, run)
            elif Agent.is_call_tools_node(node):
                async with node.stream(run.ctx) as results:
                    async for result in results:
                        self._say(result)
                # Here too: what comes while the last answer is written makes one more request instead of the end.
                # A pause is no end; what waits then is taken when the run goes on.
                if not self.errand.calls.pausing:
                    await self._steer(run)
        return None

    async def _ask(self, node: Any, run: AgentRun[None, Any]) -> None:
        """One request to the model, streamed; its usage counts whatever becomes of it."""
        stream = None
        whole = False
        try:
            async with node.stream(run.ctx) as stream:
                self.unsent = None
                async for event in stream:
                    self._say(event)
            whole = True
            self.undelivered.clear()
        except asyncio.CancelledError:
            context = self.errand.context
            if context.stop.stopping:
                self.errand.emit(reached(context.run_id, "model", "The request to the model was cut off."))
            raise
        finally:
            if stream is not None:
                self._spent(stream.response, whole=whole)
        for body in self.errand.translator.response_over():
            self.errand.emit(body)

    async def _steer(self, run: AgentRun[None, Any]) -> None:
        """Hand the model what the user has said meanwhile: it reads it with its next request."""
        steering = self.errand.context.steering
        if steering is None or not steering.waiting:
            return
        for prompt in await steering.take():
            content = await attachments.steered(prompt.text, prompt.attachments, self.errand.context, self.errand.model)
            part = UserPromptPart(content=content)
            self.undelivered.append(part)
            run.enqueue(part)

    def _say(self, event: object) -> None:
        for body in self.errand.translator.on(event):
            self.errand.emit(body)

    def _spent(self, response: ModelResponse, *, whole: bool) -> None:
        used = response.usage
        if not whole and not (used.input_tokens or used.output_tokens):
            return
        model = self.errand.model
        cost = pricing.cost_of(used, model.model_name, model.system)
        self.errand.meter.add(
            Usage(input_tokens=used.input_tokens, output_tokens=used.output_tokens, requests=1, cost=cost)
        )

    def _messages(self, run: AgentRun[None, Any]) -> list[ModelMessage]:
        """This run's messages; at a limit also what was about to be sent: the tools' results, the user's word."""
        messages = list(run.new_messages())
        if self.unsent is not None and all(message is not self.unsent for message in messages):
            messages.append(self.unsent)
        if self.undelivered:
            messages.append(ModelRequest(parts=list(self.undelivered)))
        return messages


def _out_of_requests(limit: int) -> Failure:
    requests = "request" if limit == 1 else "requests"
    return Failure(
        code="max_iterations",
        message=f"Stopped after {limit} {requests} to the model in one run (trait max_iterations). "
        "What was done is kept; ask to continue.",
    )
