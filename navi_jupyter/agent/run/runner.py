"""One run of an agent by pydantic-ai: gathers what it works with, runs it, and keeps its conversation.

This module and those it imports load pydantic_ai (0.6 s): :mod:`.backend` imports it at the first run, in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic_ai import DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.messages import ModelMessage

from ...events import Event
from ...model.sessions import OriginKind
from ...ports.agent import ToolContext, Turn, TurnResult, tool_context
from ..profiles.definitions import Profile, instructions
from ..registry import AgentParts
from ..trigger import trigger_of
from . import attachments, conversation
from .approvals import Allowances, ApprovalGate, approval_question, rejected_call
from .budgets import Budget, UsageMeter
from .conversation import PausedRun
from .event_translation import Translator
from .graph import AgentResult, AgentTask, run_task
from .subagents import RunScope, Subagents, tools_for
from .summarizer import Summaries
from .toolset import AgentToolset

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
    return _turn_result(result, [*paused.messages, *result.messages], translator, scope)


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
            results.approvals[provider_id] = ToolDenied(rejected_call("The user was not asked about this call."))
            continue
        decision = gate.take_answer(answer)
        if decision.approved:
            if decision.args is not None and decision.args != answer.args:
                toolset.edited[our_id] = decision.args
            results.approvals[provider_id] = ToolApproved(override_args=toolset.edited.get(our_id))
        else:
            results.approvals[provider_id] = ToolDenied(rejected_call(decision.message))
    return results


def _turn_result(
    result: AgentResult, messages: Sequence[ModelMessage], translator: Translator, scope: RunScope
) -> TurnResult:
    usage = scope.meter.total
    if not result.waiting:
        kept = conversation.dump(messages, scope.summaries.dump())
        return TurnResult(conversation=kept, usage=usage, failure=result.failure)
    waiting = {call.tool_call_id: translator.our_id(call.tool_call_id) or "" for call in result.waiting}
    paused = PausedRun(
        messages=messages, calls=waiting, usage=usage, requests=result.requests, allowed=sorted(scope.allowances.names)
    )
    asks = tuple(
        approval_question(call.tool_name, call.args_as_dict(), waiting[call.tool_call_id]) for call in result.waiting
    )
    return TurnResult(conversation=conversation.dump_paused(paused), asks=asks, usage=usage)
