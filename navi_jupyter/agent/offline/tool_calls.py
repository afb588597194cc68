"""The built-in tools as a run without a model calls them.

The permissions are those of any run, asked at the same gate. Not responsible for which tool a request needs
(``answers``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ...errors import InvalidRequest, ToolDenied
from ...ports.agent import ToolContext, tool_context
from ..registry import AgentParts
from ..run.approvals import ApprovalGate, rejected_call
from ..tools.base import as_text, call_recorded
from ..tools.builtin import builtin_tools


class OfflineTools:
    """The built-in tools, for one run."""

    def __init__(self, agent_parts: AgentParts, context: ToolContext) -> None:
        self._agent_parts = agent_parts
        self._context = context

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The output of the tool as a model would read it: text, or JSON.

        A call that is not allowed gives an error as JSON, and so does one whose arguments do not fit.
        """
        # In a thread: the first call imports the tools, whose schemas take some 50 ms.
        tool = (await asyncio.to_thread(builtin_tools))[name]
        try:
            profile = self._agent_parts.profiles.get(self._context.session.profile)
        except InvalidRequest as error:  # the user's file of the profile is broken
            return rejected_call(error.message, error.code)
        # This backend cannot pause for an answer: a call that would ask is refused, with how to allow it.
        objection = ApprovalGate(self._agent_parts.permissions, profile, self._context).objection(tool)
        if objection is not None:
            return rejected_call(objection, ToolDenied.code)
        token = tool_context.set(self._context)
        try:
            return as_text(await call_recorded(tool, arguments, self._context))
        finally:
            tool_context.reset(token)
