"""One run of a model by pydantic-ai: gathers what the run's agent works with, lets it walk, keeps the conversation.

This module and those it imports load pydantic_ai (0.6 s): :mod:`.loop` imports it at the first run, in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic_ai import DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.messages import ModelMessage

from ...events import Event
from ...model.sessions import OriginKind, Usage
from ...ports.agent import Ask, ToolContext, Turn, TurnResult, tool_context
from ..profiles.definitions import Profile, instructions
from ..registry import AgentParts
from ..tools.delegate import hiring
from ..trigger import wake_of
from . import attachments, conversation
from .approvals import Allowances, ApprovalGate, approval_question, rejected_call
from .budgets import Budget
from .context_window import Summaries
from .conversation import Paused
from .event_translation import Translator
from .graph import AgentTask, Done, do
from .metering import Meter
from .subagents import Scope, Subagents, equip, listening
from .toolset import Calls

Emit = Callable[[Event], None]


async def run_agent(turn: Turn, context: ToolContext, agent_parts: AgentParts, emit: Emit) -> TurnResult:
    """Do one turn, or go on with one that had paused. ``emit`` gets every body at once: it must not block.

    ``context.emit`` must lead to the same place, or what tools say overtakes their calls. Runs in a task of its own,
    whose context it changes. Raises RunFailed; lets cancellation through at once, which closes the provider's
    connection and ends the tools.
    """
    profile = agent_parts.profiles.get(turn.session.profile)
    paused = conversation.resume(turn.resumed) if turn.resumed is not None else Paused()
    translator = Translator(paused.calls)
    context = replace(context, emit=listening(context.emit, translator))
    if turn.origin.kind is OriginKind.RECALL and profile.headless_asks == "deny":
        context = replace(context, ask=None)  # nobody is there: an MCP server, or a worker, need not wait for them
    tool_context.set(context)
    scope = await _scope(turn, context, agent_parts, emit, paused)
    model = await scope.model(turn.model)
    prompt = (
        None if turn.resumed is not None else await attachments.content(turn.prompt, turn.attachments, context, model)
    )
    gate = ApprovalGate(agent_parts.permissions, profile, context, scope.allowances)
    hiring.set(Subagents(scope, profile, context, turn.model, 0))
    calls = Calls(
        await equip(scope, profile, context, 0),
        gate=gate,
        context=context,
        translator=translator,
        sees=attachments.sees(model),
    )
    done = await do(
        AgentTask(
            model=model,
            model_name=turn.model,
            prompt=prompt,
            history=[*conversation.history(turn.history), *paused.messages],
            results=_results(turn, paused, gate, calls) if turn.resumed is not None else None,
            requests=paused.requests,
            instructions=await _instructions(profile, turn, context, agent_parts),
            calls=calls,
            translator=translator,
            emit=emit,
            context=context,
            meter=scope.meter,
            affordable=scope.affordable,
            most_requests=min(profile.limits.max_iterations or turn.limits.max_iterations, turn.limits.max_iterations),
            timeout=turn.limits.run_timeout,
        )
    )
    return _result(done, [*paused.messages, *done.messages], translator, scope)


async def _scope(turn: Turn, context: ToolContext, agent_parts: AgentParts, emit: Emit, paused: Paused) -> Scope:
    budget = Budget(turn.limits, context.spending, context)
    await budget.start()
    summaries = Summaries()
    summaries.load(conversation.summaries(turn.history))
    allowances = Allowances()
    for name in paused.allowed:
        allowances.add(name)
    return Scope(
        turn=turn,
        agent_parts=agent_parts,
        meter=Meter(turn.run_id, emit, paused.usage),
        budget=budget,
        allowances=allowances,
        summaries=summaries,
    )


async def _instructions(profile: Profile, turn: Turn, context: ToolContext, agent_parts: AgentParts) -> str:
    said = instructions(profile, turn, context, await wake_of(context, turn.now))
    gathered = await agent_parts.contexts.gather(profile, turn, context)
    return f"{said}\n\n{gathered}" if gathered else said


def _results(turn: Turn, paused: Paused, gate: ApprovalGate, calls: Calls) -> DeferredToolResults:
    """The answers, by the provider's ids of the calls. What nobody has answered was not allowed."""
    answers = {one.tool_call_id: one for one in turn.answers}
    results = DeferredToolResults()
    for theirs, ours in paused.calls.items():
        answer = answers.get(ours)
        if answer is None:
            results.approvals[theirs] = ToolDenied(rejected_call("The user was not asked about this call."))
            continue
        decision = gate.take_answer(answer)
        if decision.approved:
            if decision.args is not None and decision.args != answer.args:
                calls.edited[ours] = decision.args
            results.approvals[theirs] = ToolApproved(override_args=calls.edited.get(ours))
        else:
            results.approvals[theirs] = ToolDenied(rejected_call(decision.message))
    return results


def _result(done: Done, messages: Sequence[ModelMessage], translator: Translator, scope: Scope) -> TurnResult:
    usage: Usage = scope.meter.total
    if not done.waiting:
        return TurnResult(
            conversation=conversation.keep(messages, scope.summaries.dump()), usage=usage, failure=done.failure
        )
    waiting = {call.tool_call_id: translator.ours(call.tool_call_id) or "" for call in done.waiting}
    paused = Paused(
        messages=messages,
        calls=waiting,
        usage=usage,
        requests=done.requests,
        allowed=sorted(scope.allowances.names),
    )
    asks: list[Ask] = [
        approval_question(call.tool_name, call.args_as_dict(), waiting[call.tool_call_id]) for call in done.waiting
    ]
    return TurnResult(conversation=conversation.pause(paused), asks=tuple(asks), usage=usage)
