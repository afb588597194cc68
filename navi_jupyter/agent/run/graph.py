"""One agent's steps through pydantic-ai's graph: requests, tools, steering, limits. A run's own agent or a subagent.

Imports pydantic_ai: only modules that :mod:`.runner` loads may import this one.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults
from pydantic_ai.agent import AgentRun
from pydantic_ai.exceptions import AgentRunError, ModelHTTPError, UsageLimitExceeded, UserError
from pydantic_ai.messages import (
    BaseToolCallPart,
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.models import Model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RunUsage, UsageLimits

from ...errors import RunFailed
from ...events import Event, ReasoningMessageContent, TextMessageContent, ToolCallArgs
from ...input.json_input import well_formed
from ...model.sessions import AnswerNotice, Failure
from ...ports.agent import SteeredPrompt, ToolContext
from ...ports.stop import stop_reached
from ...text import plural, truncate_middle
from ...visible_text import is_blank
from ..providers.errors import run_failure
from ..providers.past_messages import PastRequest
from ..providers.pricing import usage_of
from ..providers.sse_coalescing import DirectText, direct_text
from . import attachments
from .budgets import UsageMeter
from .conversation import make_well_formed
from .event_translation import Translator
from .request_spans import describe_response, request_span
from .toolset import AgentToolset

Prompt = str | list[UserContent]

# Seconds without a byte from the provider until a request is given up. Reasoning models are silent for long.
_REQUEST_TIMEOUT = 300.0
MAX_ANSWER, MAX_RUN = 4 * 2**20, 16 * 2**20
"""Characters (of text, reasoning and arguments of calls) in one response, and in all of a run. The longest that models
write are some 500,000; a server that never ends its stream would fill memory and database."""
_KEPT = 40_000  # characters of a response that was too long which the model reads in later turns
# The model is asked again when its output cannot be parsed; with plain text as output that happens rarely.
_OUTPUT_RETRIES = 3
# Words by which a provider's refusal is taken to be about an attached file: there is no code for it.
_FILE_WORDS = ("image", "vision", "multimodal", "multi-modal", "document", "pdf", "media", "content type", "file")


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentTask:
    """What one agent is to do, and with what."""

    model: Model
    model_name: str  # as the user wrote it
    prompt: Prompt | None  # None exactly when the run goes on after a pause
    history: Sequence[ModelMessage]
    instructions: str
    toolset: AgentToolset
    translator: Translator
    emit: Callable[[Event], None]
    context: ToolContext  # its ``steering`` is None for a subagent
    meter: UsageMeter
    # Why these messages may not be sent; None when they may.
    over_budget: Callable[[Sequence[ModelMessage]], Failure | None]
    max_requests: int  # to the model, those before a pause included
    timeout: float
    steered: Callable[[SteeredPrompt], None] = lambda _: None  # called with each prompt that joins the run
    results: DeferredToolResults | None = None  # answers to the questions with which it paused
    requests: int = 0  # how many were made before that pause


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentResult:
    """How one agent ended, or where it paused."""

    messages: Sequence[ModelMessage]  # this agent's new ones; what went before a pause is not among them
    requests: int
    waiting: Sequence[ToolCallPart] = ()  # calls that the user has to be asked about; not empty: it paused
    failure: Failure | None = None  # the limit that ended it
    notice: AnswerNotice | None = None  # what is the matter with its last response

    @property
    def answer(self) -> str:
        """The text of the last response."""
        last = next((one for one in reversed(self.messages) if isinstance(one, ModelResponse)), None)
        return "".join(part.content for part in last.parts if isinstance(part, TextPart)) if last else ""


@functools.cache
def _agent() -> Agent[None, Any]:
    # None is among the outputs: an empty answer, or one of tool calls only, is an answer, and no reason to ask the
    # model again at the user's cost. Tools are never retried by pydantic-ai: the model corrects a call itself.
    return Agent(
        output_type=[str, type(None), DeferredToolRequests],
        deps_type=type(None),
        retries={"tools": 1_000_000, "output": _OUTPUT_RETRIES},
        name="navi",
    )


async def run_task(task: AgentTask) -> AgentResult:
    """Run one agent to its end, to a pause, or to a limit. Raises RunFailed; lets cancellation through at once."""
    settings = ModelSettings(timeout=min(_REQUEST_TIMEOUT, task.timeout), request_timeout=task.timeout)
    try:
        async with (
            task.model,  # entered, so that its connections close with the run
            _agent().iter(
                task.prompt,
                message_history=list(task.history),
                deferred_tool_results=task.results,
                model=task.model,
                instructions=task.instructions,
                usage=RunUsage(requests=task.requests),
                usage_limits=UsageLimits(request_limit=task.max_requests),
                model_settings=settings,
                toolsets=[task.toolset],
                infer_name=False,
            ) as run,
        ):
            return await _GraphRun(task, run).result()
    except (AgentRunError, UserError) as error:
        raise _failure_of(error, task) from error
    except RecursionError:
        # Of the provider's package, which reads JSON of any depth; its traceback has a thousand frames.
        message = f"{task.model_name}: the provider's answer is nested too deeply to be read. Try again."
        raise RunFailed(message, run_code="provider_error") from None


def _failure_of(error: Exception, task: AgentTask) -> RunFailed:
    failure = run_failure(error, task.model_name)
    refused = isinstance(error, ModelHTTPError) and error.status_code in (400, 404, 415, 422)
    about_files = any(word in f"{error} {getattr(error, 'body', '')}".lower() for word in _FILE_WORDS)
    if refused and about_files and failure.run_code == "provider_error" and _has_files(task.prompt):
        return RunFailed(
            f"{failure.message} Switch to a model that reads what you attached, or remove it.",
            run_code=attachments.UNSUPPORTED,
        )
    return failure


def _has_files(prompt: Prompt | None) -> bool:
    return isinstance(prompt, list) and any(isinstance(one, BinaryContent) for one in prompt)


class _AnswerTooLong(Exception):
    """The model has written more than an answer, or all answers of a run, may have."""


@dataclass(slots=True)
class _GraphRun:
    task: AgentTask
    run: AgentRun[None, Any]
    unsent: ModelRequest | None = None  # the request that is to be sent next; not among the run's messages until it is
    # Steering prompts that were taken and have not reached the model.
    undelivered: list[UserPromptPart] = field(default_factory=list)
    answer_size: int = 0  # characters that the model has written in the present response
    run_size: int = 0  # and in the run
    cut: ModelResponse | None = None  # what is kept of a response that was too long
    asking: asyncio.Task[Any] | None = None  # the task that makes the present request

    async def result(self) -> AgentResult:
        try:
            failure = await self._steps()
        except UsageLimitExceeded:
            failure = _out_of_requests(self.task.max_requests)
        except _AnswerTooLong:
            failure = _too_long(whole_run=self.answer_size <= MAX_ANSWER)
        output = self.run.result.output if self.run.result is not None else None
        messages = self._messages()
        return AgentResult(
            messages=messages,
            requests=self.run.usage.requests,
            waiting=tuple(output.approvals) if isinstance(output, DeferredToolRequests) else (),
            failure=failure,
            notice=None if failure is not None else _notice_of(messages),
        )

    async def _steps(self) -> Failure | None:
        """Go from node to node to the end of the graph; the budget that ended it before, if one did."""
        async for node in self.run:
            if Agent.is_model_request_node(node):
                self.unsent = node.request
                if (failure := self.task.over_budget([*self.run.all_messages(), node.request])) is not None:
                    return failure
                await self._steer()
                await self._request(node)
            elif Agent.is_call_tools_node(node):
                self.task.translator.name_calls(node.model_response, self._earlier_calls(node.model_response))
                make_well_formed(node.model_response)
                async with node.stream(self.run.ctx) as results:
                    async for result in results:
                        self._emit(result)
                # Here too: what comes while the last answer is written makes one more request instead of the end.
                # A pause is no end; what waits then is taken when the run goes on.
                if not self.task.toolset.pausing:
                    await self._steer()
        return None

    def _earlier_calls(self, response: ModelResponse) -> Iterator[str]:
        """The ids of all calls of the conversation before this response."""
        for message in self.run.all_messages():
            if isinstance(message, PastRequest):
                yield from chain.from_iterable(turn.calls for turn in message.past)
            elif isinstance(message, ModelResponse) and message is not response:
                yield from (part.tool_call_id for part in message.parts if isinstance(part, BaseToolCallPart))

    async def _request(self, node: Any) -> None:
        """One request to the model, streamed; its usage counts, however it ends. Raises LeaseLost."""
        self.task.context.require_lease()
        stream = None
        complete = False
        self.answer_size = 0
        self.asking = asyncio.current_task()
        direct = direct_text.set(DirectText(given=self.task.translator.given, write=self._write))
        try:
            with request_span(self.task.model, self.task.model_name) as span:
                async with node.stream(self.run.ctx) as stream:
                    self.unsent = None
                    async for event in stream:
                        self._emit(event)
                describe_response(span, stream.response, [*self.run.all_messages()])
            complete = True
            self.undelivered.clear()
        except _AnswerTooLong:
            self.cut = None if stream is None else _beginning_of(stream.response)
            raise
        except asyncio.CancelledError:
            context = self.task.context
            if context.stop.stopping:
                self.task.emit(stop_reached(context.run_id, "model", "The request to the model was cut off."))
            raise
        finally:
            direct_text.reset(direct)
            if stream is not None:
                used = stream.response.usage
                # A request that was cut off before the provider counted anything is not known to have cost anything.
                if complete or used.input_tokens or used.output_tokens:
                    self.task.meter.add(usage_of(used, self.task.model))
        for event in self.task.translator.end_response():
            self.task.emit(event)

    async def _steer(self) -> None:
        """Give the model the prompts that have come since: it reads them with its next request."""
        steering = self.task.context.steering
        if steering is None or not steering.waiting:
            return
        for prompt in await steering.take():
            self.task.steered(prompt)
            if prompt.shown is not None:
                self.task.context.page.shown = prompt.shown
            content = await attachments.steering_content(
                prompt.text, prompt.attachments, self.task.context, self.task.model, prompt.shown
            )
            part = UserPromptPart(content=content)
            self.undelivered.append(part)
            self.run.enqueue(part)

    def _write(self, text: str) -> bool:
        """See ``DirectText``. What would make the answer too long is not written: pydantic-ai has it before the end.

        Nothing is once the run is to end, though the task that asks the model may not have left the stream yet.
        """
        if self.task.context.stop.stopping or (self.asking is not None and self.asking.cancelling()):
            return False
        size = len(text)
        translator = self.task.translator
        if self.answer_size + size > MAX_ANSWER or self.run_size + size > MAX_RUN or not translator.can_go_ahead:
            return False
        self._emit_all(translator.ahead(text))
        return True

    def _emit(self, stream_event: object) -> None:
        self._emit_all(self.task.translator.translate(stream_event))

    def _emit_all(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, TextMessageContent | ReasoningMessageContent | ToolCallArgs):
                self.answer_size += len(event.delta)
                self.run_size += len(event.delta)
                if self.answer_size > MAX_ANSWER or self.run_size > MAX_RUN:
                    raise _AnswerTooLong
            self.task.emit(event)

    def _messages(self) -> list[ModelMessage]:
        """This run's messages; at a limit also what was about to be sent: results of tools, prompts of the user."""
        messages = list(self.run.new_messages())
        if self.unsent is not None and all(message is not self.unsent for message in messages):
            messages.append(self.unsent)
        if self.cut is not None:
            # pydantic-ai may have kept the beginning of the response, at its whole length.
            messages = [*messages[:-1], self.cut] if isinstance(messages[-1], ModelResponse) else [*messages, self.cut]
        if self.undelivered:
            messages.append(ModelRequest(parts=list(self.undelivered)))
        return messages


def _notice_of(messages: Sequence[ModelMessage]) -> AnswerNotice | None:
    """What is the matter with the last response; None when nothing is, or when it is not the last word (a pause)."""
    last = messages[-1] if messages else None
    if not isinstance(last, ModelResponse) or last.tool_calls:
        return None
    match last.finish_reason:
        case "length":
            return AnswerNotice(
                code="answer_cut",
                message="The answer is cut off: it reached the most that this model writes at once. Ask to go on.",
            )
        case "error":
            return AnswerNotice(
                code="answer_cut",
                message="The answer is cut off: the provider ended it with an error. Ask to go on, or ask again.",
            )
        case "content_filter":
            return AnswerNotice(
                code="answer_filtered",
                message="The provider's filter ended the answer. Ask in other words, or switch to another model.",
            )
        case _ if any(isinstance(part, TextPart) and not is_blank(part.content) for part in last.parts):
            return None
        case _:
            more = " It only shows its reasoning." if any(isinstance(one, ThinkingPart) for one in last.parts) else ""
            return AnswerNotice(
                code="answer_empty",
                message=f"The model ended without an answer.{more} Ask again, or switch to another model.",
            )


def _beginning_of(response: ModelResponse) -> ModelResponse:
    """What later turns read of a response that was too long: its text, shortened. Its calls were not made."""
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    note = "(This answer ended here: it was too long.)"
    return ModelResponse(parts=[TextPart(content=well_formed(f"{truncate_middle(text, _KEPT)}\n\n{note}".strip()))])


def _too_long(*, whole_run: bool) -> Failure:
    most = f"{MAX_RUN // 2**20} MB in one run" if whole_run else f"{MAX_ANSWER // 2**20} MB in one answer"
    return Failure(
        code="answer_too_long",
        message=f"Stopped: the model wrote more than {most}. What was shown is kept; ask for less at once.",
    )


def _out_of_requests(limit: int) -> Failure:
    return Failure(
        code="max_iterations",
        message=f"Stopped after {plural(limit, 'request')} to the model in one run (trait max_iterations). "
        "What was done is kept; ask to continue.",
    )
