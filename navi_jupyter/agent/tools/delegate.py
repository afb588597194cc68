"""The tool ``delegate``: gives a task to a subagent, which works on it by itself and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from ...errors import ToolUnavailable
from ...model.runs import Effect
from ...ports.agent import ToolContext, tool_context
from .base import ToolOutput, tool
from .call_details import CallDescription, argument_parts, text_part


async def delegate(
    task: Annotated[
        str,
        Field(
            description="What to do, complete in itself: the subagent sees nothing of this conversation. Say what you "
            "want back.",
            min_length=1,
            max_length=20_000,
        ),
    ],
    profile: Annotated[
        str | None, Field(description="The subagent's profile. Default: your own.", max_length=64)
    ] = None,
    instructions: Annotated[
        str | None, Field(description="How to work, besides the profile's instructions.", max_length=8_000)
    ] = None,
) -> ToolOutput:
    """Give a self-contained task to a subagent: another agent with its own tools that works on it and answers you.

    Several calls in one answer work at the same time. Worth it for what is large and separate (look through many files,
    compare alternatives); for a single step call the tool yourself.
    """
    subagents = tool_context.get().subagents
    if subagents is None:
        raise ToolUnavailable("Nothing can be delegated in this run. Do the task yourself.")
    result = await subagents.spawn(task, profile, instructions)
    if (failure := result.failure) is None:
        return ToolOutput(content=result.answer or "(The subagent ended without an answer.)")
    content = {"error": failure.code, "message": failure.message}
    return ToolOutput(content=content | ({"so_far": result.answer} if result.answer else {}), failed=True)


async def _describe(args: Mapping[str, Any], context: ToolContext) -> CallDescription:
    profile = args.get("profile") or f"{context.session.profile} (this conversation's own)"
    details = [text_part("Profile of the subagent", profile), text_part("Task", args.get("task", ""))]
    return CallDescription(details=(*details, *argument_parts(args, ("task", "profile"))))


# It only reads: the calls of a subagent's own tools are approved one by one when it makes them. What the subagent has
# read counts for the run by those calls, too.
DELEGATE = tool(delegate, Effect.READ, describes=_describe, own=True)
TOOLS = (DELEGATE,)
