"""Functions of users' kernels as tools (``@navi.tool``): which kernel offers which, and calling them there.

In memory: a kernel's functions die with its process, and no kernel of this server outlives it. A kernel that another
program has started offers its functions too: they can be called while a cell of it waits. Not responsible for the
function's schema and the checking of its arguments: that is done in the kernel, where its types are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import InvalidRequest, LimitReached, NaviError, ToolUnavailable
from ...model.runs import Effect, KernelFunction
from ...output_text import output_images
from ...ports.agent import ToolContext, tool_context
from .argument_schemas import SchemaRefused, argument_schema
from .base import Tool, ToolOutput, refusal

SOURCE = "kernel"
_MOST = 100  # functions of one kernel
_MOST_OUTSIDE = 200  # kernels of other programs: of those it is not known when they end
_TIMEOUT = 3600.0  # Seconds. Longer than a run may take, so that the run's own limit counts.
_CALL = """\
import sys
_navi_toolbox = sys.modules.get("navi_jupyter.kernel.tools")
_navi_result = {{"missing": True}} if _navi_toolbox is None else {call}({name!r}, {arguments!r})
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Offer:
    """The functions of one kernel process."""

    process: object  # an object that identifies the process; None where it is not known
    known: bool  # whether it is a kernel of this server
    functions: dict[tuple[str, str], KernelFunction] = field(default_factory=dict)  # by owner and name


def with_usable_schemas(functions: Sequence[KernelFunction]) -> list[KernelFunction]:
    """The functions with the schemas of their arguments as every provider of models takes them.

    One that no provider takes would make every run of the session fail. Raises InvalidRequest. Takes milliseconds for
    each function: call it in a thread.
    """
    usable = []
    for one in functions:
        try:
            usable.append(one.but(parameters=argument_schema(one.parameters)))
        except SchemaRefused as refused:
            raise InvalidRequest(f"The function {one.name} cannot be a tool: {refused}.", field="tools") from None
    return usable


class KernelTools:
    """See the module. A ToolSource for runs of sessions with these kernels."""

    def __init__(
        self, *, process_of: Callable[[str], object], runs_ours: Callable[[str], bool], known: Callable[[str], bool]
    ) -> None:
        self._process_of = process_of  # the object that identifies a kernel's process: a restarted kernel has another
        self._runs_ours = runs_ours  # whether the kernel executes an agent's code now
        self._known = known
        self._offers: dict[str, _Offer] = {}

    def offer(self, kernel_id: str, functions: Sequence[KernelFunction], *, owner: str) -> list[Tool]:
        """Add functions, or replace them by new versions. Raises LimitReached.

        Functions that an agent's own code offers get the effect ``outside``: otherwise a model could write itself a
        tool that needs no approval.
        """
        offer = self._current(kernel_id) or self._first_offer(kernel_id)
        if len(offer.functions.keys() | {(owner, one.name) for one in functions}) > _MOST:
            raise LimitReached(f"A kernel can offer {_MOST} functions.")
        if self._runs_ours(kernel_id):
            functions = [one.but(effect=Effect.OUTSIDE) for one in functions]
        offer.functions.update({(owner, one.name): one for one in functions})
        return [self._tool(kernel_id, one) for one in functions]

    def withdraw(self, kernel_id: str, name: str, *, owner: str) -> None:
        """Remove a function. Raises ToolUnavailable when it was not offered."""
        offer = self._current(kernel_id)
        if offer is None or offer.functions.pop((owner, name), None) is None:
            raise ToolUnavailable(f"The kernel {kernel_id[:100]} offers no function {name[:100]}.")

    def lost(self, kernel_id: str, *_: object) -> None:
        """Remove the functions of a process that has ended, but not those that the next process offers already."""
        offer = self._current(kernel_id)
        if offer is not None and offer.process is None:
            del self._offers[kernel_id]

    def offered(self, kernel_id: str, *, owner: str) -> list[Tool]:
        """The functions that this user can call in the kernel now."""
        offer = self._current(kernel_id)
        functions = {} if offer is None else offer.functions
        return [self._tool(kernel_id, one) for (function_owner, _), one in functions.items() if function_owner == owner]

    async def tools(self, context: ToolContext) -> Sequence[Tool]:
        """The functions of the session's kernel."""
        kernels = context.jupyter.kernels
        if kernels is None or not self._offers:
            return ()
        try:
            kernel_id = (await kernels.state(context.session)).kernel_id
        except NaviError:
            return ()
        return () if kernel_id is None else self.offered(kernel_id, owner=context.user_id)

    def _first_offer(self, kernel_id: str) -> _Offer:
        offer = _Offer(process=self._process_of(kernel_id), known=self._known(kernel_id))
        self._offers[kernel_id] = offer
        outside = [name for name, one in self._offers.items() if not one.known]
        for oldest in outside[:-_MOST_OUTSIDE]:
            del self._offers[oldest]
        return offer

    def _current(self, kernel_id: str) -> _Offer | None:
        offer = self._offers.get(kernel_id)
        if offer is not None and (self._known(kernel_id), self._process_of(kernel_id)) != (offer.known, offer.process):
            del self._offers[kernel_id]
            return None
        return offer

    def _tool(self, kernel_id: str, function: KernelFunction) -> Tool:
        async def call(given: Mapping[str, Any]) -> ToolOutput:
            try:
                return await self._call(kernel_id, function, given)
            except NaviError as error:
                return refusal(error)

        return Tool(
            name=function.name,
            description=function.description,
            parameters=function.parameters,
            effect=function.effect,
            call=call,
            source=SOURCE,
        )

    async def _call(self, kernel_id: str, function: KernelFunction, given: Mapping[str, Any]) -> ToolOutput:
        context = tool_context.get()
        kernels = context.jupyter.kernels
        if kernels is None or self._current(kernel_id) is None:
            raise _unavailable(function.name)
        call = "await _navi_toolbox.call_async" if function.awaits else "_navi_toolbox.call"
        code = _CALL.format(call=call, name=function.name, arguments=json.dumps(dict(given)))
        # This kernel, although the notebook may have another one by now.
        session = context.session.but(kernel_id=kernel_id)
        answer = await kernels.evaluate(session, code, timeout=_TIMEOUT, lent=False)
        if answer.get("missing"):
            raise _unavailable(function.name)
        images, _ = output_images([{"data": answer.get("picture") or {}}], limit=1, max_bytes=4_000_000)
        return ToolOutput(content=answer.get("content"), images=images, failed=bool(answer.get("failed")))


def _unavailable(name: str) -> ToolUnavailable:
    return ToolUnavailable(
        f"The function {name} is not in the kernel any more: it was restarted, or the function was removed. "
        "It can be called again once the cell that defines it has run."
    )
