"""The execution of a tool call that may be made: what it gives, what it does where it fails, and how a stop ends it.

The same for the calls of a model (``toolset``) and of other programs (``agent.acp.run_tools``). Not responsible for
whether a call may be made (``approvals``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import NaviError, ToolUnavailable
from ...input.json_input import well_formed
from ...log_setup import get_logger
from ...ports.agent import Ask, ToolContext, call_expects
from ...ports.stop import stop_reached
from ...redaction import redact
from ..tools.ask_user import NO_ONE_TO_ASK
from ..tools.base import Tool, ToolOutput, call_recorded, describe_call, refusal
from ..tools.result_text import cut
from .approvals import ApprovalGate, rejected_call

log = get_logger("agent")

MAX_IMAGES = 8  # of one call that its caller is given
_CHANGED = (
    "What this call works on was changed after the user was asked about it, so it was not made. Look at it as it is "
    "now and call again if it is still right: the user is asked again, with what is there then."
)
_EDITED = (
    "The user changed the arguments to {args}. What is there was not shown to them, or was changed since, so the call "
    "was not made. Call with exactly these arguments: the user is asked again, with what is there then."
)


async def execute_call(tool: Tool, args: Mapping[str, Any], call_id: str | None, context: ToolContext) -> ToolOutput:
    """The output of the tool. What it raises becomes a failed output: the run goes on."""
    try:
        return await call_recorded(tool, args, context)
    except NaviError as error:
        return refusal(error)
    except asyncio.CancelledError:
        # A tool may let a cancellation of something of its own through: only one of this task ends the call.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            _emit_stop(tool, call_id, context)
            raise
        return _failed_output(tool, "it was cancelled from within")
    except Exception as error:  # tools are other people's code, too: none of them may end the run
        log.warning("tool_failed", tool=tool.name, source=tool.source, error=type(error).__name__, exc_info=True)
        return _failed_output(tool, f"{type(error).__name__}: {error}")


def _emit_stop(tool: Tool, call_id: str | None, context: ToolContext) -> None:
    """Emit how a stop has ended this call: what the tool has reported, else that it was cancelled."""
    stop = context.stop
    report = stop.reports.pop(call_id or "", None)
    if report is None and stop.stopping:
        report = ("tool", f"{tool.name} was cancelled.")
    if report is not None:
        context.emit(stop_reached(context.run_id, *report))


def _failed_output(tool: Tool, why: str) -> ToolOutput:
    message = redact(well_formed(cut(f"{tool.name} failed: {why}", limit=2000)))
    return ToolOutput(content={"error": "tool_failed", "message": message}, failed=True)


async def changed_since_asked(
    tool: Tool, args: Mapping[str, Any], shown: str | None, context: ToolContext, *, edited: bool
) -> str | None:
    """The result of a call that is not made any more, since what the user was shown is not what it would do now.

    None: it is made. ``shown``: the fingerprint of what the user was shown; None: they were not asked. ``edited``:
    whether they have changed the arguments.
    """
    if shown is None:
        return None
    now = await describe_call(tool, args, context)
    if now.fingerprint != shown:
        message = _EDITED.format(args=_written(args)) if edited else _CHANGED
        return rejected_call(message, "changed_since_asked")
    # Between here and the work there is time for one more change: the tool looks once more.
    call_expects.set(now.expects)
    return None


async def inquiry_of(
    tool: Tool, args: Mapping[str, Any], call_id: str | None, gate: ApprovalGate, context: ToolContext
) -> Ask:
    """The question that a call is. Raises NaviError where it is none, or the run must not ask."""
    if tool.inquires is None:
        raise TypeError(f"{tool.name} asks the user nothing")
    if not await gate.may_wait(tool):
        raise ToolUnavailable(NO_ONE_TO_ASK)
    return replace(tool.inquires(args, context), tool_call_id=call_id, waits=True)


def note_of_change(args: Mapping[str, Any] | None) -> str:
    """For the transcript and for the caller: the call was not made as it was written. ``args``: as it was made."""
    if args is None:
        return ""
    return f"(The user changed the arguments. It was called with {_written(args)}.)\n"


def _written(args: Mapping[str, Any]) -> str:
    return cut(json.dumps(args, ensure_ascii=False, default=str), limit=10_000)
