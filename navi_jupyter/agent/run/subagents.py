"""Workers: agents that a run's agent gives tasks to. Nested, in parallel, with a profile and limits of their own.

They live and die with the call that hired them. Imports pydantic_ai: only :mod:`.driver` may import this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model

from ...errors import NaviError, RunFailed, ToolDenied
from ...events import Attributed, Custom, Event, SubagentError, SubagentFinished, SubagentStarted
from ...log_setup import get_logger
from ...model.base import new_id
from ...model.sessions import Failure
from ...ports.agent import ToolContext, Turn, subagent, tool_call, tool_context
from ..profiles.definitions import Profile
from ..providers.models import model_of
from ..registry import AgentParts
from ..tools.base import Tool, ToolOutput
from ..tools.delegate import DELEGATE, hiring
from ..tools.rendering import cut
from . import attachments
from .approvals import Allowances, ApprovalGate
from .budgets import Budget
from .context_window import DEFAULT_WINDOW, Summaries, tokens_of
from .event_translation import Translator
from .graph import AgentTask, Done, do
from .metering import Meter
from .model_wrapper import fitted
from .toolset import Calls, reached

log = get_logger("agent")

_DEEPEST = 2
"""A worker may have workers; those may not."""
_AT_ONCE = 4
"""Workers of one agent that work at the same time; more wait."""
_REQUESTS = 20
"""Of a worker to the model, when its profile does not say."""
_SHOWN = 4_000
"""Characters of an answer in the event of its end; the delegating call's result has it in full."""

_ROLE = """\
You are a worker. Another agent has given you the task below; the user does not talk to you. Do that task and nothing \
else, with the tools you have. Your last message goes back to that agent as the result: make it complete and to the \
point, say what you could not find or do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What all agents of one run share."""

    turn: Turn
    agent_parts: AgentParts
    meter: Meter
    budget: Budget
    allowances: Allowances
    summaries: Summaries

    async def model(self, name: str) -> Model:
        """A model by its string, which sends only what it can read. Raises RunFailed."""
        return fitted(await model_of(name), summaries=self.summaries, spent=self.meter.add)

    def affordable(self, messages: Sequence[ModelMessage]) -> Failure | None:
        """Why these may not be sent to a model: a budget that is reached, or would be. None when they may."""
        limits = self.turn.limits
        counts = limits.run_token_budget or limits.session_token_budget or limits.daily_token_budget
        upcoming = min(tokens_of(messages), DEFAULT_WINDOW) if counts else 0
        return self.budget.check(self.meter.total, upcoming_tokens=upcoming)


def listening(emit: Callable[[Event], None], translator: Translator) -> Callable[[Event], None]:
    """``emit`` that takes note of which tools have said how a stop ended them."""

    def heard(event: Event) -> None:
        if isinstance(event, Custom) and event.name == "navi.stop" and event.value.get("action") == "reached":
            translator.reached.add(tool_call.get())
        emit(event)

    return heard


def _attributed(emit: Callable[[Event], None], worker: str) -> Callable[[Event], None]:
    """``emit`` for what a worker and its tools say and do."""

    def named(event: Event) -> None:
        if isinstance(event, Attributed) and event.subagent_run_id is None:
            event = event.model_copy(update={"subagent_run_id": worker})
        emit(event)

    return named


async def equip(scope: Scope, profile: Profile, context: ToolContext, depth: int) -> list[Tool]:
    """The tools of an agent at this depth: those of its profile; to delegate, only if it has whom and may."""
    tools = [one for one in await scope.agent_parts.tools(profile, context) if one.name != DELEGATE.name]
    names = [name for name in _profile_names(scope.agent_parts) if profile.delegates_to(name)]
    if depth < _DEEPEST and names and profile.offers(DELEGATE):
        tools.append(replace(DELEGATE, description=f"{DELEGATE.description}\n\nProfiles: {', '.join(names)}."))
    return tools


def _profile_names(agent_parts: AgentParts) -> list[str]:
    return [str(entry["name"]) for entry in agent_parts.profiles.describe()]


class Subagents:
    """Those of one agent: ``tools.workers.Hiring``."""

    def __init__(self, scope: Scope, profile: Profile, context: ToolContext, model: str, depth: int) -> None:
        self._scope = scope
        self._profile = profile
        self._context = context
        self._model = model
        """The agent's own; a worker's, unless its profile names one."""
        self._depth = depth
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def hire(self, task: str, profile: str | None, instructions: str | None) -> ToolOutput:
        """See ``tools.workers.Hiring``. Runs in the task of the call, and is cancelled with it."""
        chosen = self._chosen(profile)
        async with self._slots:
            return await self._watched(task, chosen, instructions)

    def _chosen(self, name: str | None) -> Profile:
        if name is None or name == self._profile.name:
            if name is None or self._profile.delegates_to(name):
                return self._profile
        elif self._profile.delegates_to(name):
            return self._scope.agent_parts.profiles.get(name)
        names = [one for one in _profile_names(self._scope.agent_parts) if self._profile.delegates_to(one)]
        raise ToolDenied(f"You may not delegate to a worker of the profile {name!r}. You may to: {', '.join(names)}.")

    async def _watched(self, task: str, profile: Profile, instructions: str | None) -> ToolOutput:
        """A worker from its first event to its last, whatever becomes of it."""
        worker = new_id("w")
        emit = self._context.emit
        emit(
            SubagentStarted(
                subagent_run_id=worker,
                name=profile.name,
                description=cut(task, limit=300),
                parent_subagent_run_id=subagent.get(),
                parent_tool_call_id=tool_call.get(),
            )
        )
        nested = _Nested(self._scope, profile, self._context, worker, self._depth + 1)
        try:
            async with asyncio.timeout(profile.limits.timeout.total_seconds() if profile.limits.timeout else None):
                done = await nested.work(task, instructions, self._model)
        except asyncio.CancelledError:
            nested.close("(The worker was stopped.)")
            emit(SubagentError(subagent_run_id=worker, message="It was stopped.", code="stopped"))
            if self._context.stop.stopping:
                emit(reached(self._context.run_id, "worker", "A worker was stopped."))
            raise
        except TimeoutError:
            return self._failed(nested, worker, "timed_out", "The worker took too long.")
        except RunFailed as error:
            return self._failed(nested, worker, error.run_code, error.message)
        except NaviError as error:
            return self._failed(nested, worker, error.code, error.message)
        except Exception as error:  # a supervisor: a worker's end is a result for who hired it, not the run's end
            log.warning("worker_failed", worker=worker, error=type(error).__name__, exc_info=True)
            return self._failed(nested, worker, "internal_error", f"The worker failed ({type(error).__name__}).")
        if done.failure is not None:
            return self._failed(nested, worker, done.failure.code, done.failure.message, done.answer)
        emit(SubagentFinished(subagent_run_id=worker, result=cut(done.answer, limit=_SHOWN)))
        return ToolOutput(content=done.answer or "(The worker ended without a word.)")

    def _failed(self, nested: _Nested, worker: str, code: str, message: str, so_far: str = "") -> ToolOutput:
        nested.close(f"(The worker ended: {message})")
        self._context.emit(SubagentError(subagent_run_id=worker, message=message, code=code))
        content = {"error": code, "message": message} | ({"so_far": so_far} if so_far else {})
        return ToolOutput(content=content, failed=True)


class _Nested:
    """One worker at work."""

    def __init__(self, scope: Scope, profile: Profile, context: ToolContext, worker: str, depth: int) -> None:
        self._scope = scope
        self._profile = profile
        self._worker = worker
        self._depth = depth
        self._translator = Translator()
        self._emit = _attributed(context.emit, worker)
        # Steering is for the run's own agent.
        self._context = replace(context, steering=None, emit=listening(self._emit, self._translator))

    async def work(self, task: str, instructions: str | None, model_name: str) -> Done:
        """To its end. Raises NaviError."""
        subagent.set(self._worker)  # the task is the call's own, and so are its context variables
        tool_context.set(self._context)
        scope, profile, context = self._scope, self._profile, self._context
        name = profile.model or model_name
        model = await scope.model(name)
        workers = Subagents(scope, profile, context, name, self._depth)
        hiring.set(workers)
        calls = Calls(
            await equip(scope, profile, context, self._depth),
            gate=ApprovalGate(scope.agent_parts.permissions, profile, context, scope.allowances, self._worker),
            context=context,
            translator=self._translator,
            sees=attachments.sees(model),
        )
        gathered = await scope.agent_parts.contexts.gather(profile, scope.turn, context)
        return await do(
            AgentTask(
                model=model,
                model_name=name,
                prompt=task,
                history=(),
                instructions="\n\n".join(filter(None, (profile.instructions, _ROLE, instructions, gathered))),
                calls=calls,
                translator=self._translator,
                emit=self._emit,
                context=context,
                meter=scope.meter,
                affordable=scope.affordable,
                most_requests=min(profile.limits.max_iterations or _REQUESTS, scope.turn.limits.max_iterations),
                timeout=scope.turn.limits.run_timeout,
            )
        )

    def close(self, why: str) -> None:
        """Close in the log what the worker has left open."""
        for body in self._translator.abandon(why):
            self._emit(body)
