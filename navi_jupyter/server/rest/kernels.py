"""What kernels offer: functions of the user's as tools."""

from __future__ import annotations

from ...errors import KernelUnavailable, LimitReached, ToolUnavailable
from ...model.runs import KernelFunctions
from ..http import NOTHING, Reply
from ..wire import agent as wire
from .routing import Call, Operation, reply


async def offer_functions(call: Call) -> Reply:
    request: KernelFunctions = call.body()
    tools = call.agent.kernel_tools.offer(call.parameters["kid"], request.tools, owner=call.owner)
    return reply(wire.ToolPage(tools=call.agent.tool_infos(tools), next=None))


async def list_functions(call: Call) -> Reply:
    tools = call.agent.kernel_tools.offered(call.parameters["kid"], owner=call.owner)
    return reply(wire.ToolPage(tools=call.agent.tool_infos(tools), next=None))


async def withdraw_function(call: Call) -> Reply:
    call.agent.kernel_tools.withdraw(call.parameters["kid"], call.parameters["name"], owner=call.owner)
    return NOTHING


OPERATIONS = (
    Operation(
        method="GET",
        path="kernels/{kid}/tools",
        run=list_functions,
        summary="The functions that a kernel offers as tools.",
        action="read",
        answers="ToolPage",
    ),
    Operation(
        method="POST",
        path="kernels/{kid}/tools",
        run=offer_functions,
        summary="Offer functions of a kernel as tools (`@navi.tool` does), or their new versions.",
        action="execute",
        body="KernelFunctions",
        answers="ToolPage",
        errors=(KernelUnavailable, LimitReached),
    ),
    Operation(
        method="DELETE",
        path="kernels/{kid}/tools/{name}",
        run=withdraw_function,
        summary="Offer a function no longer.",
        action="execute",
        answers=None,
        status=204,
        errors=(ToolUnavailable,),
    ),
)
