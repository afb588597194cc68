"""The backend that needs no key and no network: it understands the requests that make Navi useful.

Its answers admit that it is no language model. Everything it does goes through the tools that a model would call, and
streams like the answer of a model: see :mod:`.answers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import ModuleType

from ...events import Event
from ...ports.agent import ToolContext, Turn, TurnResult
from ..registry import AgentParts, default_parts


class OfflineBackend:
    """Answers without a model. Stateless: everything of a run is in its turn."""

    def __init__(self, agent_parts: AgentParts | None = None) -> None:
        self._agent_parts = agent_parts or default_parts()

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        answers = await asyncio.to_thread(_import_answers)
        async for item in answers.OfflineRun(turn, context, self._agent_parts).events():
            yield item


def _import_answers() -> ModuleType:
    """The module of the answers, imported at the first run: its patterns take a while to compile, which no start of
    the server is to wait for."""
    from . import answers

    return answers
