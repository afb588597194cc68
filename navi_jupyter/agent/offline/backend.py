"""The backend that needs no key and no network: it understands the requests that make Navi useful.

It says what it is not. Everything it does goes through the tools that a model would call, and streams like a model's
answer: see :mod:`.answers`.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol, cast

from ...events import Event
from ...ports.agent import ToolContext, Turn, TurnResult
from ..registry import AgentParts
from ..tools.base import Tool

Objection = Callable[[Tool], str | None]
"""Why a tool may not be called; None: it may."""


class _Answer(Protocol):
    def __call__(self, turn: Turn, context: ToolContext, objection: Objection) -> _Answer: ...

    def events(self) -> AsyncIterator[Event | TurnResult]: ...


class OfflineBackend:
    """Answers without a model. Stateless: everything of a run is in its turn."""

    def __init__(self, equipment: AgentParts | None = None) -> None:
        self._equipment = equipment
        """Whose permissions hold; None: nothing is denied."""

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        """See ``ports.AgentLoop``."""
        answers = await asyncio.to_thread(importlib.import_module, f"{__package__}.answers")
        async for item in cast("_Answer", answers.Answer)(turn, context, self._objection(context)).events():
            yield item

    def _objection(self, context: ToolContext) -> Objection:
        equipment = self._equipment
        return lambda tool: None if equipment is None else equipment.objection(tool, context)
