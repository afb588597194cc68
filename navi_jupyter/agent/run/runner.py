"""One run of an agent by pydantic-ai: gathers what it works with, runs it, and keeps its conversation.

Not responsible for its subagents (``subagents``).

This module and those it imports load pydantic_ai (0.6 s): :mod:`.backend` imports it at the first run, in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic_ai import DeferredToolResults, ToolApproved
from pydantic_ai import ToolDenied as CallDenied
from pydantic_ai.messages import ModelMessage

from ...events import Event
from ...input.json_input import well_formed
from ...model.runs import InterruptKind
from ...model.sessions import needed_approval
from ...ports.agent import ToolContext, Turn, TurnResult, tool_context
from ..profiles.context_providers import NOTEBOOK, is_switched_on
from ..profiles.definitions import Profile, instructions
from ..providers.past_messages import PastTurnMessages
from ..registry import AgentParts
from ..tools.client_tools import client_tools
from ..tools.permissions import Chain
from ..trigger import trigger_of
from . import attachments, conversation
from .approvals import Allowances, ApprovalGate, bound, rejected_call
from .budgets import Budget, UsageMeter
from .conversation import PausedRun
from .event_translation import Translator
from .foreign_text import has_foreign_text
from .graph import AgentResult, AgentTask, run_task
from .subagents import RunScope, Subagents, most_requests, tools_for
from .summarizer import Summaries
from .toolset import AgentToolset

Emit = Callable[[Event], None]


async def run_agent(turn: Turn, context: ToolContext, agent_parts: AgentParts, emit: Emit) -> TurnResult:
    """Do one turn, or go on with one that had paused. ``emit`` gets every event at once: it must not block.

    ``context.emit`` must lead to the same place, or the events of tools overtake their calls. Runs in a task of its
    own, whose context it changes. Raises RunFailed; lets cancellation through at once, which closes the provider's
    connection and ends the tools.
    """
    agent_parts = agent_parts.of(context.configuration)
    profile = agent_parts.profiles.get(turn.session.profile)
    paused = conversation.load_paused(turn.resumed) if turn.resumed is not None else PausedRun()
    chain = _chain(profile, paused, agent_parts)
    turn = _bounded(turn, chain)
    context = bound(context, chain)
    scope = await _scope(turn, context, agent_parts, emit, paused, chain)
    past = await conversation.past_messages(turn.history)
    turn = scope.turn  # without its history: that is twice as large, and would be there until the answer has come
    try:
        return await _run(turn, context, emit, scope, paused, chain, past)
    finally:
        conversation.keep(past)


async def _run(
    turn: Turn,
    context: ToolContext,
    emit: Emit,
    scope: RunScope,
    paused: PausedRun,
    chain: Chain,
    past: Sequence[PastTurnMessages],
) -> TurnResult:
    profile, agent_parts = chain[-1], scope.agent_parts
    model = await scope.model(turn.model)
    prompt = None
    if turn.resumed is None:
        shown = turn.shown if is_switched_on(NOTEBOOK, profile, context) else None
        prompt = await attachments.prompt_content(turn.prompt, turn.attachments, context, model, shown)
    context = replace(context, subagents=Subagents(scope, chain, context, turn.model, 0))
    tool_context.set(context)
    gate = scope.gate(chain, context)
    translator = Translator(paused.calls)
    tools = await tools_for(scope, chain, context, 0)
    toolset = AgentToolset(
        [*tools, *client_tools(turn.client_tools, chain, taken={tool.name for tool in tools})],
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
            history=[*conversation.history(past, model), *paused.messages],
            results=_answers(turn, paused, gate, toolset) if turn.resumed is not None else None,
            requests=paused.requests,
            instructions=await _instructions(profile, turn, context, agent_parts),
            toolset=toolset,
            translator=translator,
            emit=emit,
            context=context,
            meter=scope.meter,
            over_budget=scope.over_budget,
            max_requests=most_requests(chain, turn.limits.max_iterations),
            steered=scope.note_steered,
            timeout=turn.limits.run_timeout,
        )
    )
    return await _turn_result(result, [*paused.messages, *result.messages], translator, scope, toolset)


def _chain(profile: Profile, paused: PausedRun, agent_parts: AgentParts) -> Chain:
    """What bounds the run's own agent: the session's profile, and those that the session had earlier in this run.

    A profile that was changed while the run was paused bounds it as it is now. Raises InvalidRequest for one that is
    gone: what it denied is not known any more.
    """
    earlier = [agent_parts.profiles.get(name) for name in paused.profiles if name != profile.name]
    return (*earlier, profile)


def _bounded(turn: Turn, chain: Chain) -> Turn:
    """The turn within the limits of all these profiles."""
    limits = turn.limits
    for profile in chain:
        limits = limits.within(profile.limits)
    return replace(turn, limits=limits)


async def _scope(
    turn: Turn, context: ToolContext, agent_parts: AgentParts, emit: Emit, paused: PausedRun, chain: Chain
) -> RunScope:
    budget = Budget(turn.limits, context.spending, context)
    await budget.start()
    summaries = Summaries()
    summaries.load(conversation.stored_summaries(turn.history))
    allowed = turn.session.allowed_tools if paused.session_allowed is None else paused.session_allowed
    allowances = Allowances(chain, allowed)
    allowances.joined = paused.joined
    allowances.foreign = paused.foreign or await has_foreign_text(turn)
    for name in paused.allowed:
        allowances.add(name)
    return RunScope(
        turn=replace(turn, history=()),
        agent_parts=agent_parts,
        meter=UsageMeter(turn.run_id, emit, paused.usage),
        budget=budget,
        allowances=allowances,
        summaries=summaries,
    )


async def _instructions(profile: Profile, turn: Turn, context: ToolContext, agent_parts: AgentParts) -> str:
    text = instructions(profile, turn, context, await trigger_of(context, turn.now))
    gathered = await agent_parts.contexts.gather(profile, turn, context)
    return well_formed(f"{text}\n\n{gathered}" if gathered else text)  # a notebook's text is among it


def _answers(turn: Turn, paused: PausedRun, gate: ApprovalGate, toolset: AgentToolset) -> DeferredToolResults:
    """The answers to the questions of a pause, by the provider's ids of the calls. A call without one is denied."""
    answers = {one.tool_call_id: one for one in turn.answers}
    results = DeferredToolResults()
    for provider_id, our_id in paused.calls.items():
        answer = answers.get(our_id)
        if answer is None:
            results.approvals[provider_id] = CallDenied(rejected_call("The user was not asked about this call."))
            continue
        if answer.kind is InterruptKind.QUESTION:  # its call makes the answer its result
            toolset.answers[our_id] = answer
            results.approvals[provider_id] = ToolApproved()
            continue
        decision = gate.take_answer(answer)
        if decision.approved:
            toolset.shown[our_id] = answer.fingerprint
            if decision.args is not None and decision.args != answer.args:
                toolset.edited[our_id] = decision.args
            results.approvals[provider_id] = ToolApproved(override_args=toolset.edited.get(our_id))
        else:
            results.approvals[provider_id] = CallDenied(rejected_call(decision.message))
    return results


async def _turn_result(
    result: AgentResult,
    messages: Sequence[ModelMessage],
    translator: Translator,
    scope: RunScope,
    toolset: AgentToolset,
) -> TurnResult:
    usage = scope.meter.total
    if not result.waiting:
        kept = conversation.dump(messages, scope.summaries.dump())
        unasked = scope.allowances.unasked
        failure = result.failure or (needed_approval(unasked) if unasked else None)
        return TurnResult(conversation=kept, usage=usage, failure=failure, notice=result.notice)
    waiting = {call.tool_call_id: translator.our_id(call.tool_call_id) or "" for call in result.waiting}
    allowances = scope.allowances
    paused = PausedRun(
        messages=messages,
        calls=waiting,
        usage=usage,
        requests=result.requests,
        allowed=sorted(allowances.names),
        profiles=tuple(allowances.profiles),
        session_allowed=allowances.allowed,
        joined=allowances.joined,
        foreign=allowances.foreign,
    )
    # Described last, when the other calls of the same answer have done what they do.
    asks = [
        await toolset.question(call.tool_name, call.args_as_dict(), waiting[call.tool_call_id])
        for call in result.waiting
    ]
    return TurnResult(conversation=conversation.dump_paused(paused), asks=tuple(asks), usage=usage)
