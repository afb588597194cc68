"""The backend that needs no key and no network: it understands the requests that make Navi useful.

It says what it is not. Everything it does goes through the tools that a model would call, and streams like a model's
answer: see :mod:`.answers`.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import Protocol, cast

from ..events import Event
from ..ports import ToolContext, Turn, TurnResult


class _Answer(Protocol):
    def __call__(self, turn: Turn, context: ToolContext) -> _Answer: ...

    def events(self) -> AsyncIterator[Event | TurnResult]: ...


class OfflineLoop:
    """Answers without a model. Stateless: everything of a run is in its turn."""

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        """See ``ports.AgentLoop``."""
        answers = await asyncio.to_thread(importlib.import_module, f"{__package__}.answers")
        async for item in cast("_Answer", answers.Answer)(turn, context).events():
            yield item
