"""One run of an agent by pydantic-ai: gathers what it works with, runs it, and keeps its conversation; its subagents.

Subagents are nested, in parallel, each with a profile and limits of its own. Their lifetime is their delegate call.

This module and those it imports load pydantic_ai (0.6 s): :mod:`.backend` imports it at the first run, in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic_ai import DeferredToolResults, ToolApproved
from pydantic_ai import ToolDenied as CallDenied
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model

from ...errors import NaviError, RunFailed, ToolDenied
from ...events import Attributed, Event, SubagentError, SubagentFinished, SubagentStarted
from ...log_setup import get_logger
from ...model.base import new_id
from ...model.sessions import Failure, OriginKind, needed_approval
from ...ports.agent import SubagentResult, ToolContext, Turn, TurnResult, subagent, tool_call, tool_context
from ..profiles.definitions import Profile, instructions
from ..providers.models import build_model
from ..registry import AgentParts
from ..tools.base import Tool
from ..tools.delegate import DELEGATE
from ..tools.result_text import cut
from ..trigger import trigger_of
from . import attachments, conversation
from .approvals import Allowances, ApprovalGate, approval_question, rejected_call
from .budgets import Budget, UsageMeter
from .context_window import ContextWindowModel
from .conversation import PausedRun
from .event_translation import Translator
from .graph import AgentResult, AgentTask, run_task
from .summarizer import Summaries
from .token_estimates import DEFAULT_WINDOW, tokens_of
from .toolset import AgentToolset

log = get_logger("agent")

Emit = Callable[[Event], None]


async def run_agent(turn: Turn, context: ToolContext, agent_parts: AgentParts, emit: Emit) -> TurnResult:
    """Do one turn, or go on with one that had paused. ``emit`` gets every event at once: it must not block.

    ``context.emit`` must lead to the same place, or the events of tools overtake their calls. Runs in a task of its
    own, whose context it changes. Raises RunFailed; lets cancellation through at once, which closes the provider's
    connection and ends the tools.
    """
    profile = agent_parts.profiles.get(turn.session.profile)
    paused = conversation.load_paused(turn.resumed) if turn.resumed is not None else PausedRun()
    if turn.origin.kind is OriginKind.RECALL and profile.headless_asks == "deny":
        # The user is not there, and this profile does not wait for them: an MCP server or a subagent must not either.
        context = replace(context, ask=None)
    scope = await _scope(turn, context, agent_parts, emit, paused)
    model = await scope.model(turn.model)
    prompt = None
    if turn.resumed is None:
        prompt = await attachments.prompt_content(turn.prompt, turn.attachments, context, model)
    context = replace(context, subagents=Subagents(scope, profile, context, turn.model, 0))
    tool_context.set(context)
    gate = ApprovalGate(agent_parts.permissions, profile, context, scope.allowances)
    translator = Translator(paused.calls)
    toolset = AgentToolset(
        await tools_for(scope, profile, context, 0),
        gate=gate,
        context=context,
        translator=translator,
        takes_images=attachments.takes_images(model),
    )
    result = await run_task(
        AgentTask(
            model=model,
            model_name=turn.model,
            prompt=prompt,
            history=[*conversation.history(turn.history), *paused.messages],
            results=_answers(turn, paused, gate, toolset) if turn.resumed is not None else None,
            requests=paused.requests,
            instructions=await _instructions(profile, turn, context, agent_parts),
            toolset=toolset,
            translator=translator,
            emit=emit,
            context=context,
            meter=scope.meter,
            over_budget=scope.over_budget,
            max_requests=min(profile.limits.max_iterations or turn.limits.max_iterations, turn.limits.max_iterations),
            timeout=turn.limits.run_timeout,
        )
    )
    return _turn_result(result, [*paused.messages, *result.messages], translator, scope, toolset.questions)


async def _scope(turn: Turn, context: ToolContext, agent_parts: AgentParts, emit: Emit, paused: PausedRun) -> RunScope:
    budget = Budget(turn.limits, context.spending, context)
    await budget.start()
    summaries = Summaries()
    summaries.load(conversation.stored_summaries(turn.history))
    allowances = Allowances()
    for name in paused.allowed:
        allowances.add(name)
    return RunScope(
        turn=turn,
        agent_parts=agent_parts,
        meter=UsageMeter(turn.run_id, emit, paused.usage),
        budget=budget,
        allowances=allowances,
        summaries=summaries,
    )


async def _instructions(profile: Profile, turn: Turn, context: ToolContext, agent_parts: AgentParts) -> str:
    text = instructions(profile, turn, context, await trigger_of(context, turn.now))
    gathered = await agent_parts.contexts.gather(profile, turn, context)
    return f"{text}\n\n{gathered}" if gathered else text


def _answers(turn: Turn, paused: PausedRun, gate: ApprovalGate, toolset: AgentToolset) -> DeferredToolResults:
    """The answers to the questions of a pause, by the provider's ids of the calls. A call without one is denied."""
    answers = {one.tool_call_id: one for one in turn.answers}
    results = DeferredToolResults()
    for provider_id, our_id in paused.calls.items():
        answer = answers.get(our_id)
        if answer is None:
            results.approvals[provider_id] = CallDenied(rejected_call("The user was not asked about this call."))
            continue
        decision = gate.take_answer(answer)
        if decision.approved:
            if decision.args is not None and decision.args != answer.args:
                toolset.edited[our_id] = decision.args
            results.approvals[provider_id] = ToolApproved(override_args=toolset.edited.get(our_id))
        else:
            results.approvals[provider_id] = CallDenied(rejected_call(decision.message))
    return results


def _turn_result(
    result: AgentResult,
    messages: Sequence[ModelMessage],
    translator: Translator,
    scope: RunScope,
    questions: Mapping[str, str | None],
) -> TurnResult:
    usage = scope.meter.total
    if not result.waiting:
        kept = conversation.dump(messages, scope.summaries.dump())
        unasked = scope.allowances.unasked
        failure = result.failure or (needed_approval(unasked) if unasked else None)
        return TurnResult(conversation=kept, usage=usage, failure=failure)
    waiting = {call.tool_call_id: translator.our_id(call.tool_call_id) or "" for call in result.waiting}
    paused = PausedRun(
        messages=messages, calls=waiting, usage=usage, requests=result.requests, allowed=sorted(scope.allowances.names)
    )
    asks = tuple(
        approval_question(call.tool_name, call.args_as_dict(), our_id, questions.get(our_id))
        for call in result.waiting
        for our_id in [waiting[call.tool_call_id]]
    )
    return TurnResult(conversation=conversation.dump_paused(paused), asks=asks, usage=usage)


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


async def tools_for(scope: RunScope, profile: Profile, context: ToolContext, depth: int) -> list[Tool]:
    """The tools of an agent at this depth: those of its profile, and ``delegate`` where it may have subagents."""
    tools = [one for one in await scope.agent_parts.tools(profile, context) if one.name != DELEGATE.name]
    names = _delegates_of(profile, scope.agent_parts)
    if depth < _MAX_DEPTH and names and profile.offers(DELEGATE):
        tools.append(replace(DELEGATE, description=f"{DELEGATE.description}\n\nProfiles: {', '.join(names)}."))
    return tools


def _delegates_of(profile: Profile, agent_parts: AgentParts) -> list[str]:
    """The profiles that an agent with this profile may delegate to."""
    names = (str(entry["name"]) for entry in agent_parts.profiles.describe())
    return [name for name in names if profile.delegates_to(name)]


class Subagents:
    """The subagents of one agent. Implements ``ports.SubagentSpawner``."""

    def __init__(self, scope: RunScope, profile: Profile, context: ToolContext, model: str, depth: int) -> None:
        self._scope = scope
        self._profile = profile
        self._context = context
        self._model = model  # the agent's own; a subagent's, unless its profile names one
        self._depth = depth
        self._places = asyncio.Semaphore(_MAX_PARALLEL)

    async def spawn(self, task: str, profile: str | None, instructions: str | None) -> SubagentResult:
        """See ``ports.SubagentSpawner``. Runs in the task of the call, and is cancelled with it."""
        chosen = self._profile_named(profile)
        async with self._places:
            return await self._run(task, chosen, instructions)

    def _profile_named(self, name: str | None) -> Profile:
        if name is None:
            return self._profile
        if self._profile.delegates_to(name):
            return self._profile if name == self._profile.name else self._scope.agent_parts.profiles.get(name)
        names = ", ".join(_delegates_of(self._profile, self._scope.agent_parts))
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
        nested = _SubagentRun(self._scope, profile, self._context, run_id, self._depth + 1)
        try:
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
                emit(SubagentFinished(subagent_run_id=run_id, result=cut(result.answer, limit=_MAX_SHOWN)))
                return SubagentResult(answer=result.answer)
            return self._failed(nested, run_id, result.failure, result.answer)
        return self._failed(nested, run_id, failure)

    def _failed(self, nested: _SubagentRun, run_id: str, failure: Failure, answer: str = "") -> SubagentResult:
        nested.close(f"(The subagent ended: {failure.message})")
        self._context.emit(SubagentError(subagent_run_id=run_id, message=failure.message, code=failure.code))
        return SubagentResult(answer=answer, failure=failure)


class _SubagentRun:
    def __init__(self, scope: RunScope, profile: Profile, context: ToolContext, run_id: str, depth: int) -> None:
        self._scope = scope
        self._profile = profile
        self._run_id = run_id
        self._depth = depth
        self._translator = Translator()
        self._emit = _attributed(context.emit, run_id)
        # Steering is for the run's own agent: the user sees and talks to that one.
        self._context = replace(context, steering=None, emit=self._emit)

    async def work(self, task: str, instructions: str | None, model_name: str) -> AgentResult:
        """Do the task to its end. Raises NaviError."""
        scope, profile = self._scope, self._profile
        name = profile.model or model_name
        model = await scope.model(name)
        spawner = Subagents(scope, profile, self._context, name, self._depth)
        context = replace(self._context, subagents=spawner)
        # The present task is that of the delegate call, and so are its context variables.
        subagent.set(self._run_id)
        tool_context.set(context)
        toolset = AgentToolset(
            await tools_for(scope, profile, context, self._depth),
            gate=ApprovalGate(scope.agent_parts.permissions, profile, context, scope.allowances, self._run_id),
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
                instructions="\n\n".join(filter(None, (profile.instructions, _ROLE, instructions, gathered))),
                toolset=toolset,
                translator=self._translator,
                emit=self._emit,
                context=context,
                meter=scope.meter,
                over_budget=scope.over_budget,
                max_requests=min(profile.limits.max_iterations or _MAX_REQUESTS, scope.turn.limits.max_iterations),
                timeout=scope.turn.limits.run_timeout,
            )
        )

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
