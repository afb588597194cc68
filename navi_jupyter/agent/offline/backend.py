"""The backend that needs no key and no network: it understands the requests that make Navi useful.

Its answers admit that it is no language model. Everything it does goes through the tools that a model would call, and
streams like the answer of a model: see :mod:`.answers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import ModuleType
from typing import Any

from ...errors import InvalidRequest, ToolDenied
from ...events import Event
from ...ports.agent import ToolContext, Turn, TurnResult, tool_context
from ..registry import AgentParts, default_parts
from ..run.approvals import ApprovalGate, rejected_call
from ..tools.base import as_text, call_recorded
from ..tools.builtin import builtin_tools


class OfflineTools:
    """The built-in tools as one run without a model calls them."""

    def __init__(self, agent_parts: AgentParts, context: ToolContext) -> None:
        self._agent_parts = agent_parts
        self._context = context

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What a model would read of the call: text, or JSON. A call that is not allowed gives an error as JSON."""
        tool = (await asyncio.to_thread(builtin_tools))[name]
        try:
            profile = self._agent_parts.profiles.get(self._context.session.profile)
        except InvalidRequest as error:  # the user's file of the profile is broken
            return rejected_call(error.message, error.code)
        objection = ApprovalGate(self._agent_parts.permissions, profile, self._context).objection(tool)
        if objection is not None:
            return rejected_call(objection, ToolDenied.code)
        token = tool_context.set(self._context)
        try:
            return as_text(await call_recorded(tool, arguments, self._context))
        finally:
            tool_context.reset(token)


class OfflineBackend:
    """Answers without a model. Stateless: everything of a run is in its turn."""

    def __init__(self, agent_parts: AgentParts | None = None) -> None:
        self._agent_parts = agent_parts or default_parts()

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        """See ``ports.AgentLoop``."""
        answers = await asyncio.to_thread(_import_answers)
        async for item in answers.Answer(turn, context, OfflineTools(self._agent_parts, context)).events():
            yield item


def _import_answers() -> ModuleType:
    """The module of the answers, imported at the first run: its patterns take a while to compile, which no start of
    the server is to wait for."""
    from . import answers

    return answers
