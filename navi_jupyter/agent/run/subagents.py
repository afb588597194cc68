"""Subagents of a run: nested agents, in parallel, each with a profile and limits of its own, and what they share.

Their lifetime is their delegate call. A subagent has no more than the agent that started it: the profiles from the
session's own to its own bound it together. Not responsible for the run's own agent (``runner``).

Imports pydantic_ai: only modules that :mod:`.runner` loads may import this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model

from ...errors import NaviError, RunFailed, ToolDenied
from ...events import Attributed, Event, SubagentError, SubagentFinished, SubagentStarted
from ...input.json_input import well_formed
from ...log_setup import get_logger
from ...model.base import new_id
from ...model.sessions import Failure
from ...ports.agent import SteeredPrompt, SubagentResult, ToolContext, Turn, subagent, tool_call, tool_context
from ..profiles.definitions import Profile
from ..providers.models import build_model
from ..registry import AgentParts
from ..tools.base import Tool
from ..tools.delegate import DELEGATE
from ..tools.permissions import Chain, delegated_by, offered_by
from ..tools.result_text import cut
from . import attachments
from .approvals import Allowances, ApprovalGate, bound
from .budgets import Budget, UsageMeter
from .context_window import ContextWindowModel
from .event_translation import Translator
from .foreign_text import is_foreign_prompt
from .graph import AgentResult, AgentTask, run_task
from .summarizer import Summaries
from .token_estimates import DEFAULT_WINDOW, tokens_of
from .toolset import AgentToolset

log = get_logger("agent")

_MAX_DEPTH = 2  # a subagent may have subagents; those may not
_MAX_PARALLEL = 4  # subagents of one agent that work at the same time; more wait
_MAX_REQUESTS = 20  # of a subagent to the model, when its profile does not say
_MAX_SHOWN = 4_000  # characters of an answer in the event of its end; the delegating call's result has it in full

_ROLE = """\
You are a subagent. Another agent has given you the task below; the user does not talk to you. Do that task and \
nothing else, with the tools you have. Your last message goes back to that agent as the result: make it complete and \
to the point, say what you could not find or do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunScope:
    """What all agents of one run share."""

    turn: Turn
    agent_parts: AgentParts
    meter: UsageMeter
    budget: Budget
    allowances: Allowances
    summaries: Summaries

    def gate(self, chain: Chain, context: ToolContext, subagent_run_id: str | None = None) -> ApprovalGate:
        """What decides about the calls of an agent that these profiles bound."""
        parts = self.agent_parts
        return ApprovalGate(parts.permissions, parts.profiles.get, chain, context, self.allowances, subagent_run_id)

    def note_steered(self, prompt: SteeredPrompt) -> None:
        """A prompt has joined the run. One of another origin ends what the run's recall may do without asking."""
        if prompt.origin != self.turn.origin:
            self.allowances.joined = True
        if is_foreign_prompt(prompt.text, prompt.attachments) or prompt.shown is not None:
            self.allowances.foreign = True

    async def model(self, name: str) -> Model:
        """A model by its string, which sends only what it can read. Raises RunFailed."""
        return ContextWindowModel(await build_model(name), self.summaries, self.meter.add)

    def over_budget(self, messages: Sequence[ModelMessage]) -> Failure | None:
        """Why these may not be sent to a model: a budget that is reached, or would be. None when they may."""
        limits = self.turn.limits
        counts = limits.run_token_budget or limits.session_token_budget or limits.daily_token_budget
        # An estimate is costly and may be far too high: what is longer than a window is shortened before it is sent.
        upcoming = min(tokens_of(messages), DEFAULT_WINDOW) if counts else 0
        return self.budget.check(self.meter.total, upcoming_tokens=upcoming)


async def tools_for(scope: RunScope, chain: Chain, context: ToolContext, depth: int) -> list[Tool]:
    """The tools of an agent at this depth: those of all its profiles, and ``delegate`` where it may have subagents."""
    tools = [one for one in await scope.agent_parts.tools(chain, context) if one.name != DELEGATE.name]
    names = _delegates_of(chain, scope.agent_parts)
    if depth < _MAX_DEPTH and names and offered_by(chain, DELEGATE):
        tools.append(replace(DELEGATE, description=f"{DELEGATE.description}\n\nProfiles: {', '.join(names)}."))
    return tools


def _delegates_of(chain: Chain, agent_parts: AgentParts) -> list[str]:
    """The profiles that an agent with these profiles may delegate to."""
    return [name for name in agent_parts.profiles.names() if delegated_by(chain, name)]


def most_requests(chain: Chain, own: int) -> int:
    """How many requests to the model an agent with these profiles may make; ``own`` is what holds without them."""
    return min(own, *(profile.limits.max_iterations or own for profile in chain))


class Subagents:
    """The subagents of one agent. Implements ``ports.SubagentSpawner``."""

    def __init__(self, scope: RunScope, chain: Chain, context: ToolContext, model: str, depth: int) -> None:
        """``chain``: what bounds that agent, its own profile last."""
        self._scope = scope
        self._first = tuple(chain)
        self._context = context
        self._model = model  # the agent's own; a subagent's, unless its profile names one
        self._depth = depth
        self._places = asyncio.Semaphore(_MAX_PARALLEL)

    @property
    def _chain(self) -> Chain:
        """What bounds the agent now: its session may have got a stricter profile since the run began."""
        return self._scope.allowances.bounding(self._first)

    async def spawn(self, task: str, profile: str | None, instructions: str | None) -> SubagentResult:
        """See ``ports.SubagentSpawner``. Runs in the task of the call, and is cancelled with it."""
        chosen = self._profile_named(profile)
        async with self._places:
            return await self._run(task, chosen, instructions)

    def _profile_named(self, name: str | None) -> Profile:
        own = self._chain[-1]
        if name is None:
            return own
        if delegated_by(self._chain, name):
            return own if name == own.name else self._scope.agent_parts.profiles.get(name)
        names = ", ".join(_delegates_of(self._chain, self._scope.agent_parts))
        raise ToolDenied(f"You may not delegate to a subagent of the profile {name!r}. You may to: {names}.")

    async def _run(self, task: str, profile: Profile, instructions: str | None) -> SubagentResult:
        """One subagent from its first event to its last. Only cancellation is raised: all else is its result."""
        run_id = new_id("w")
        emit = self._context.emit
        emit(
            SubagentStarted(
                subagent_run_id=run_id,
                name=profile.name,
                description=cut(task, limit=300),
                parent_subagent_run_id=subagent.get(),
                parent_tool_call_id=tool_call.get(),
            )
        )
        nested = _SubagentRun(self._scope, (*self._chain, profile), self._context, run_id, self._depth + 1)
        try:
            # Those of the profiles before this one run already, around this call.
            async with asyncio.timeout(profile.limits.timeout.total_seconds() if profile.limits.timeout else None):
                result = await nested.work(task, instructions, self._model)
        except asyncio.CancelledError:
            nested.close("(The subagent was stopped.)")
            emit(SubagentError(subagent_run_id=run_id, message="It was stopped.", code="stopped"))
            if self._context.stop.stopping:
                self._context.report_stop("worker", "A subagent was stopped.")
            raise
        except TimeoutError:
            failure = Failure(code="timed_out", message="The subagent took too long.")
        except RunFailed as error:
            failure = Failure(code=error.run_code, message=error.message)
        except NaviError as error:
            failure = Failure(code=error.code, message=error.message)
        except Exception as error:  # one subagent's defect is a result for its agent, and not the end of the run
            log.warning("subagent_failed", subagent=run_id, error=type(error).__name__, exc_info=True)
            failure = Failure(code="internal_error", message=f"The subagent failed ({type(error).__name__}).")
        else:
            if result.failure is None:
                answer = result.answer
                if result.notice is not None:  # the agent that asked must not take a part for the whole
                    answer = f"{answer}\n\n({result.notice.message})".strip()
                emit(SubagentFinished(subagent_run_id=run_id, result=cut(answer, limit=_MAX_SHOWN)))
                return SubagentResult(answer=answer)
            return self._failed(nested, run_id, result.failure, result.answer)
        return self._failed(nested, run_id, failure)

    def _failed(self, nested: _SubagentRun, run_id: str, failure: Failure, answer: str = "") -> SubagentResult:
        nested.close(f"(The subagent ended: {failure.message})")
        self._context.emit(SubagentError(subagent_run_id=run_id, message=failure.message, code=failure.code))
        return SubagentResult(answer=answer, failure=failure)


class _SubagentRun:
    def __init__(self, scope: RunScope, chain: Chain, context: ToolContext, run_id: str, depth: int) -> None:
        self._scope = scope
        self._chain = tuple(chain)
        self._run_id = run_id
        self._depth = depth
        self._translator = Translator()
        self._emit = _attributed(context.emit, run_id)
        # Steering is for the run's own agent: the user sees and talks to that one.
        self._context = bound(replace(context, steering=None, emit=self._emit), chain)

    async def work(self, task: str, instructions: str | None, model_name: str) -> AgentResult:
        """Do the task to its end. Raises NaviError."""
        scope, chain, profile = self._scope, self._chain, self._chain[-1]
        name = profile.model or model_name
        model = await scope.model(name)
        spawner = Subagents(scope, chain, self._context, name, self._depth)
        context = replace(self._context, subagents=spawner)
        # The present task is that of the delegate call, and so are its context variables.
        subagent.set(self._run_id)
        tool_context.set(context)
        toolset = AgentToolset(
            await tools_for(scope, chain, context, self._depth),
            gate=scope.gate(chain, context, self._run_id),
            context=context,
            translator=self._translator,
            takes_images=attachments.takes_images(model),
        )
        gathered = await scope.agent_parts.contexts.gather(profile, scope.turn, context)
        return await run_task(
            AgentTask(
                model=model,
                model_name=name,
                prompt=task,
                history=(),
                instructions=well_formed(
                    "\n\n".join(filter(None, (profile.instructions, _ROLE, instructions, gathered)))
                ),
                toolset=toolset,
                translator=self._translator,
                emit=self._emit,
                context=context,
                meter=scope.meter,
                over_budget=scope.over_budget,
                max_requests=most_requests(chain, self._most_requests()),
                timeout=scope.turn.limits.run_timeout,
            )
        )

    def _most_requests(self) -> int:
        most = self._scope.turn.limits.max_iterations
        return most if self._chain[-1].limits.max_iterations else min(most, _MAX_REQUESTS)

    def close(self, why: str) -> None:
        """Close in the log what the subagent has left open."""
        for event in self._translator.close_all(why):
            self._emit(event)


def _attributed(emit: Callable[[Event], None], run_id: str) -> Callable[[Event], None]:
    """``emit`` for the events of a subagent and of its tools."""

    def emit_attributed(event: Event) -> None:
        if isinstance(event, Attributed) and event.subagent_run_id is None:
            event = event.model_copy(update={"subagent_run_id": run_id})
        emit(event)

    return emit_attributed
