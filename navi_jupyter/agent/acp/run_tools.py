"""The tools of a run for programs: for an agent program that answers it, or a client that makes one call in it.

Each call is judged, asked about, executed and bounded as a call of Navi's own agent is, and stands in the run's log.
Not responsible for how programs send their calls (``server.mcp_server``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Self

from ...errors import NaviError, ToolUnavailable
from ...events import (
    MAX_DELTA,
    ActivityDelta,
    ActivitySnapshot,
    Event,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from ...input.json_input import well_formed
from ...log_setup import get_logger
from ...model.base import new_id
from ...model.runs import ClientTool, Effect, Permission
from ...model.sessions import Failure, Session, needed_approval
from ...ports.agent import SteeredPrompt, ToolContext, Turn, call_expects, tool_call, tool_context
from ...ports.run_tools import CallResult, OfferedTool, Progress
from ...redaction import scrub
from ...text import one_line, plural
from ..registry import AgentParts
from ..run.approvals import Allowances, ApprovalGate, bound, rejected_call
from ..run.call_execution import MAX_IMAGES, changed_since_asked, execute_call, inquiry_of, note_of_change
from ..tools.ask_user import answer_output
from ..tools.base import Tool, ToolOutput, describe_call, refusal
from ..tools.client_tools import client_tools
from ..tools.delegate import DELEGATE
from ..tools.output import ACTIVITY as OUTPUT
from ..tools.permissions import Chain
from ..tools.result_text import render

log = get_logger("agent")

NO_RUN = (
    "No run is in progress in this session of Navi, so its tools cannot be called. Call them while you answer a prompt."
)
ASKS = "Waiting for the user's approval in Navi."
_STOPPED = "The run was ended before the call was done."
_CANCELLED = "The call was cancelled before it was done."
_LINGER = 5.0  # seconds that cancelled calls may take to end their work before they are left behind
_SHOWN = 300  # characters of a line of output that is reported as progress


class ProgramRun:
    """The calls that a program makes in one run. Entered while it may make them; leaving it ends those in progress."""

    def __init__(self, tools: Sequence[Tool], gate: ApprovalGate, context: ToolContext, allowances: Allowances) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self.gate = self._gate = gate
        self.context = self._context = context
        self._allowances = allowances
        self._calls: set[asyncio.Task[CallResult]] = set()
        # What changes something waits for the call before it, as the calls of a model do.
        self._order = asyncio.Lock()
        self._stopper: asyncio.Task[None] | None = None
        self._over = True

    async def __aenter__(self) -> Self:
        self._over = False
        self._stopper = asyncio.create_task(self._end_on_stop(), name=f"navi-program-stop-{self._context.run_id}")
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._over = True
        if self._stopper is not None:
            self._stopper.cancel()
        if calls := self._cancel_all():
            _, late = await asyncio.wait(calls, timeout=_LINGER)
            if late:
                log.warning("program_calls_linger", run_id=self._context.run_id, calls=len(late), seconds=_LINGER)

    @property
    def failure(self) -> Failure | None:
        """That a recall's run needed a tool, and the user could not be asked; None where there was no such call."""
        unasked = self._allowances.unasked
        return needed_approval(unasked) if unasked else None

    def note_steered(self, prompt: SteeredPrompt) -> None:
        """A prompt has joined the run. One of another origin ends what the run's recall may do without asking."""
        if prompt.origin != self._context.origin:
            self._allowances.joined = True

    def offered(self) -> Sequence[OfferedTool]:
        """The tools that can be called."""
        return [offer_of(tool) for tool in self._tools.values()]

    async def call(self, name: str, arguments: Mapping[str, Any], *, progress: Progress) -> CallResult:
        """See ``ports.run_tools.RunTools``."""
        if self._over or self._context.stop.stopping:
            raise ToolUnavailable(NO_RUN)
        tool = self._tools.get(name)
        if tool is None:
            # Not a call of this run: there is nothing that could be shown of it.
            known = ", ".join(sorted(self._tools))
            message = f"There is no tool {name[:100]!r} here. There are: {known}."
            return CallResult(text=rejected_call(message, "tool_not_found"), failed=True)
        call = _Call(tool, dict(arguments), self._gate, self._context, self._order, progress)
        task = asyncio.create_task(call.result(), name=f"navi-program-call-{call.id}")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        try:
            # Not the task itself: one that the run's end has cancelled is a result for the program.
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.cancelled():
            return CallResult(text=rejected_call(_STOPPED, "stopped"), failed=True)
        return task.result()

    def _cancel_all(self) -> Sequence[asyncio.Task[CallResult]]:
        calls = list(self._calls)
        for task in calls:
            task.cancel()
        return calls

    async def _end_on_stop(self) -> None:
        await self._context.stop.wait()
        self._cancel_all()


async def program_run(
    turn: Turn, context: ToolContext, parts: AgentParts, *, offers: Callable[[Tool], bool] = lambda _: True
) -> ProgramRun:
    """What a program may call in a run: the tools of its session's profile, of which ``offers`` chooses.

    ``context.emit`` has to lead into the run's log, in order with what the program itself says. Raises InvalidRequest
    for a profile that cannot be used.
    """
    return await run_of(turn.session, context, parts, offers=offers, client=turn.client_tools)


async def run_of(
    session: Session,
    context: ToolContext,
    parts: AgentParts,
    *,
    offers: Callable[[Tool], bool] = lambda _: True,
    client: Sequence[ClientTool] = (),
) -> ProgramRun:
    """As :func:`program_run`, for what is no run: a call that only reads what Navi itself knows.

    ``client``: tools of the program that sent the run's prompt.
    """
    parts = parts.of(context.configuration)
    chain: Chain = (parts.profiles.get(session.profile),)
    context = bound(context, chain)
    allowances = Allowances(chain, session.allowed_tools)
    allowances.foreign = True  # what a program reads besides is not known
    gate = ApprovalGate(parts.permissions, parts.profiles.get, chain, context, allowances)
    tools = await program_tools(context, parts, chain, offers=offers)
    tools += client_tools(client, chain, taken={tool.name for tool in tools})
    return ProgramRun(tools, gate, context, allowances)


async def program_tools(
    context: ToolContext, parts: AgentParts, chain: Chain, *, offers: Callable[[Tool], bool] = lambda _: True
) -> list[Tool]:
    """The tools that a program can call where these profiles hold. None starts subagents: they need our models."""
    return [tool for tool in await parts.tools(chain, context) if tool.name != DELEGATE.name and offers(tool)]


def offer_of(tool: Tool) -> OfferedTool:
    """A tool as programs see it."""
    return OfferedTool(
        name=tool.name,
        description=tool.description,
        parameters=tool.parameters,
        reads_only=tool.effect is Effect.READ,
        open_world=not tool.own,
    )


class ProgramTools:
    """The tools of an agent program: those of the run that it works on. Implements ``ports.run_tools.RunTools``."""

    def __init__(self) -> None:
        self._run: ProgramRun | None = None
        self._offered: Sequence[OfferedTool] = ()

    @asynccontextmanager
    async def working_on(self, run: ProgramRun) -> AsyncIterator[None]:
        """While it is entered, the program's calls are made in that run. Leaving it ends those in progress."""
        async with run:
            self._run, self._offered = run, run.offered()
            try:
                yield
            finally:
                self._run = None

    async def offered(self) -> Sequence[OfferedTool]:
        """Those of the present run; between two runs those of the last one."""
        return self._offered

    async def call(self, name: str, arguments: Mapping[str, Any], *, progress: Progress) -> CallResult:
        """See ``ports.run_tools.RunTools``."""
        if self._run is None:
            raise ToolUnavailable(NO_RUN)
        return await self._run.call(name, arguments, progress=progress)


class _Call:
    """One call, in a task of its own."""

    def __init__(
        self,
        tool: Tool,
        args: dict[str, Any],
        gate: ApprovalGate,
        context: ToolContext,
        order: asyncio.Lock,
        progress: Progress,
    ) -> None:
        self.id = new_id("t")
        self._tool = tool
        self._args = args
        self._gate = gate
        self._context = replace(context, emit=_reporting(context.emit, progress))
        self._order = order
        self._progress = progress

    async def result(self) -> CallResult:
        """Make the call. Only cancellation is raised: all else is its result."""
        tool_context.set(self._context)
        tool_call.set(self.id)
        call_expects.set(None)
        emit = self._context.emit
        emit(ToolCallStart(tool_call_id=self.id, tool_call_name=self._tool.name))
        text = well_formed(json.dumps(self._args, ensure_ascii=False, default=str))
        for at in range(0, len(text), MAX_DELTA):
            emit(ToolCallArgs(tool_call_id=self.id, delta=text[at : at + MAX_DELTA]))
        emit(ToolCallEnd(tool_call_id=self.id))
        try:
            result = await self._judged()
        except asyncio.CancelledError:
            why = (_STOPPED, "stopped") if self._context.stop.stopping else (_CANCELLED, "cancelled")
            self._end(rejected_call(*why))
            raise
        self._end(result.text)
        return result

    def _end(self, text: str) -> None:
        self._context.emit(ToolCallResult(message_id=new_id("m"), tool_call_id=self.id, content=text))

    async def _judged(self) -> CallResult:
        tool = self._tool
        try:
            if tool.inquires is not None:
                return _result_of(await self._answer())
            verdict = await self._gate.decide(tool, self._args)
            args, note, shown = self._args, "", None
            match verdict.permission:
                case Permission.DENY:
                    return _rejected(rejected_call(verdict.because, "not_allowed"))
                case Permission.ASK:
                    self._progress(ASKS)
                    description = await describe_call(tool, args, self._context)
                    decision = await self._gate.ask(tool, args, self.id, verdict.question, description)
                    if not decision.approved:
                        return _rejected(rejected_call(decision.message))
                    shown, note = description.fingerprint, note_of_change(decision.args)
                    args = decision.args or args
                case Permission.ALLOW:
                    pass
            changed = await changed_since_asked(tool, args, shown, self._context, edited=bool(note))
            if changed is not None:
                return _rejected(changed)
            self._gate.note_call(tool)
            return _result_of(await self._output(args), note)
        except NaviError as error:
            return _result_of(refusal(error))

    async def _answer(self) -> ToolOutput:
        """The user's answer to the question that this call is."""
        verdict = await self._gate.decide(self._tool, self._args)
        if verdict.permission is Permission.DENY:
            return ToolOutput(content=rejected_call(verdict.because, "not_allowed"), failed=True)
        ask = await inquiry_of(self._tool, self._args, self.id, self._gate, self._context)
        self._progress("Waiting for the user's answer in Navi.")
        answer = await self._gate.answer(ask)
        self._gate.note_call(self._tool)
        return (self._tool.answered or answer_output)(answer)

    async def _output(self, args: Mapping[str, Any]) -> ToolOutput:
        if self._tool.effect is Effect.READ:
            return await execute_call(self._tool, args, self.id, self._context)
        async with self._order:
            return await execute_call(self._tool, args, self.id, self._context)


def _rejected(text: str) -> CallResult:
    return CallResult(text=text, failed=True)


def _result_of(output: ToolOutput, note: str = "") -> CallResult:
    """An output as the program gets it: bounded, without secrets."""
    text, images = note + render(output.content), list(output.images)
    if len(images) > MAX_IMAGES:
        text += f"\n\n({plural(len(images), 'image')}, of which these are the first {MAX_IMAGES}.)"
    return CallResult(text=text, images=images[:MAX_IMAGES], failed=output.failed)


def _reporting(emit: Callable[[Event], None], progress: Progress) -> Callable[[Event], None]:
    """``emit`` that reports what a call does, in words, to the program that waits for it."""

    def emit_reported(event: Event) -> None:
        emit(event)
        message = _progress_of(event)
        if message:
            progress(one_line(scrub(message), _SHOWN))

    return emit_reported


def _progress_of(event: Event) -> str:
    """What an activity says in words; of printed text the last line that is complete, so that no secret is halved."""
    match event:
        case ActivitySnapshot(activity_type="navi.progress", content=content):
            return str(content.get("message", ""))
        case ActivityDelta(activity_type=kind, patch=patch) if kind == OUTPUT:
            added = [one.get("value") for one in patch if one.get("op") == "add"]
            texts = [str(one["text"]) for one in added if isinstance(one, dict) and one.get("output_type") == "stream"]
            lines = "".join(texts).rpartition("\n")[0].rstrip().rpartition("\n")
            return lines[2].strip()
        case _:
            return ""
