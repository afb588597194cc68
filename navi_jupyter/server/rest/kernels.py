"""What kernels offer: functions of the user's as tools."""

from __future__ import annotations

from ...errors import KernelUnavailable, LimitReached, ToolUnavailable
from ...model.runs import KernelFunctions
from ..http import NOTHING, Reply
from ..wire import agent as wire
from .routing import Call, OperationTable, reply

TABLE = OperationTable()


@TABLE.add(
    "POST kernels/{kid}/tools",
    "Offer functions of a kernel as tools (`@navi.tool` does), or their new versions.",
    action="execute",
    body="KernelFunctions",
    answers="ToolPage",
    errors=(KernelUnavailable, LimitReached),
)
async def offer_functions(call: Call) -> Reply:
    request: KernelFunctions = call.body()
    tools = call.agent.kernel_tools.offer(call.parameters["kid"], request.tools, owner=call.owner)
    return reply(wire.ToolPage(tools=call.agent.tool_infos(tools), next=None))


@TABLE.add("GET kernels/{kid}/tools", "The functions that a kernel offers as tools.", action="read", answers="ToolPage")
async def list_functions(call: Call) -> Reply:
    tools = call.agent.kernel_tools.offered(call.parameters["kid"], owner=call.owner)
    return reply(wire.ToolPage(tools=call.agent.tool_infos(tools), next=None))


@TABLE.add(
    "DELETE kernels/{kid}/tools/{name}",
    "Offer a function no longer.",
    action="execute",
    answers=None,
    status=204,
    errors=(ToolUnavailable,),
)
async def withdraw_function(call: Call) -> Reply:
    call.agent.kernel_tools.withdraw(call.parameters["kid"], call.parameters["name"], owner=call.owner)
    return NOTHING
