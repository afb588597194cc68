"""Tools of the program that sends a prompt (AG-UI's frontend tools): a call is a question, which that program answers.

The run pauses at the call as for ``ask_user``: durable, answerable in every view, over a restart. The program executes
the tool by its own rules, so the user is not asked whether it may; the administrator's ceiling and the profiles deny it
like any other one (``source:client``). Not responsible for how the program is reached (``server.agui``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...errors import ToolUnavailable
from ...log_setup import get_logger
from ...model.runs import ClientTool, Effect, Interrupt, InterruptKind, InterruptStatus
from ...ports.agent import Ask, ToolContext
from .argument_schemas import SchemaRefused, argument_schema
from .base import Tool, ToolOutput
from .call_details import argument_parts
from .permissions import Chain, offered_by

log = get_logger("agent")

CLIENT = "client"  # the source of these tools
_RESULT = {
    "type": "object",
    "properties": {
        "content": {"type": "string", "title": "Result"},
        "error": {"type": "string", "title": "Why it failed"},
    },
    "required": ["content"],
    "additionalProperties": False,
}
"""What answers a call: its result as text, and ``error`` where it has failed."""


def client_tools(offered: Sequence[ClientTool], chain: Chain, *, taken: Collection[str]) -> list[Tool]:
    """The tools that a run may call of those that its prompt brings.

    Left out, and named in the server's log: a name that another tool has (``taken``), a schema that no model takes,
    what the profiles do not have.
    """
    tools = []
    for one in offered:
        try:
            tool = _tool(one)
        except SchemaRefused as error:
            log.warning("client_tool_left_out", tool=one.name, reason=str(error))
            continue
        if one.name in taken or not offered_by(chain, tool):
            reason = "another tool has this name" if one.name in taken else "the profile does not have it"
            log.warning("client_tool_left_out", tool=one.name, reason=reason)
            continue
        tools.append(tool)
    return tools


def _tool(offered: ClientTool) -> Tool:
    def inquire(args: Mapping[str, Any], _context: ToolContext) -> Ask:
        return Ask(
            kind=InterruptKind.QUESTION,
            message=f"The program that sent the prompt is to run {offered.name}; the agent waits for the result.",
            source=CLIENT,
            details=tuple(argument_parts(args)),
            response_schema=_RESULT,
        )

    async def call(_args: Mapping[str, Any]) -> ToolOutput:
        raise ToolUnavailable("What answers here cannot wait for a tool of the program that sent the prompt.")

    return Tool(
        name=offered.name,
        description=offered.description,
        parameters=argument_schema(offered.parameters),
        effect=Effect.OUTSIDE,
        call=call,
        source=CLIENT,
        inquires=inquire,
        answered=call_result,
    )


def call_result(question: Interrupt) -> ToolOutput:
    """What became of a call, as its result."""
    payload = question.payload if isinstance(question.payload, dict) else {}
    match question.status:
        case InterruptStatus.RESOLVED if payload.get("error"):
            message = "\n".join(filter(None, [str(payload["error"]), str(payload.get("content", ""))]))
            return ToolOutput(content={"error": "tool_failed", "message": message}, failed=True)
        case InterruptStatus.RESOLVED:
            return ToolOutput(content=str(payload.get("content", "")))
        case InterruptStatus.EXPIRED:
            why = "The program that has this tool did not answer in time."
        case _:
            why = "The program that has this tool gave no result. It may have run or not."
    return ToolOutput(content={"error": "no_result", "message": why}, failed=True)
