"""The backend of runs that make one tool call for a program outside of Navi, which waits for its result (MCP).

So the call has a log, a live view, questions, a stop, a ceiling and leases as every run has. What is to be called waits
in memory: a program that is gone, with its server, waits for nothing, and then nothing is called.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import RunFailed
from ..events import Event
from ..model.base import new_id
from ..ports.agent import ToolContext, Turn, TurnResult
from ..ports.run_tools import CallResult, Progress
from .acp.run_tools import program_run
from .registry import AgentParts
from .run.approvals import rejected_call

PREFIX = "mcp-call:"
"""Of the model strings of such runs. No user can choose one: it is valid only while its call waits."""
CONVERSATION = b'{"format":"call/1"}'
_NOT_OF_A_NAME = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramCall:
    """A call that a program waits for."""

    program: str  # what it calls itself
    tool: str
    arguments: Mapping[str, Any]
    progress: Progress
    result: asyncio.Future[CallResult] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, result: CallResult) -> None:
        """The first result counts."""
        if not self.result.done():
            self.result.set_result(result)


class ProgramCalls:
    """The calls that programs wait for, by the model string of the run that makes each. One per server process."""

    def __init__(self) -> None:
        self._waiting: dict[str, ProgramCall] = {}

    def add(self, call: ProgramCall) -> str:
        """The model string of its run."""
        name = _NOT_OF_A_NAME.sub("-", call.program.lower()).strip("-")[:40] or "program"
        model = f"{PREFIX}{name}/{new_id('p')}"
        self._waiting[model] = call
        return model

    def find(self, model: str) -> ProgramCall | None:
        """None for a call that is over, or was another server process's."""
        return self._waiting.get(model)

    def forget(self, model: str) -> None:
        """The program does not wait any more."""
        self._waiting.pop(model, None)


class ProgramCallBackend:
    """Makes the call of a turn that is one. Stateless but for the calls that wait."""

    def __init__(self, agent_parts: AgentParts, calls: ProgramCalls) -> None:
        self._agent_parts = agent_parts
        self._calls = calls

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        """See ``ports.AgentLoop``. The events of the call go straight into the log."""
        call = self._calls.find(turn.model)
        if call is None:
            raise RunFailed(
                "The program that wanted this call does not wait for it any more, so it was not made.",
                run_code="caller_gone",
            )
        try:
            async with await program_run(turn, context, self._agent_parts) as run:
                call.settle(await run.call(call.tool, call.arguments, progress=call.progress))
        finally:
            stopped = rejected_call("The run was ended before the call was done.", "stopped")
            call.settle(CallResult(text=stopped, failed=True))
        yield TurnResult(conversation=CONVERSATION)
