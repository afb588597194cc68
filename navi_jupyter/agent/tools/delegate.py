"""Delegating: give a task to a worker, an agent of its own that works on it and answers."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Annotated, Protocol

from pydantic import Field

from ...errors import ToolUnavailable
from ...model.runs import Effect
from .base import ToolOutput
from .functions import tool


class Hiring(Protocol):
    """What a run has for this. Implemented by ``workers``."""

    async def hire(self, task: str, profile: str | None, instructions: str | None) -> ToolOutput:
        """A worker's answer, or why there is none."""
        ...


hiring: ContextVar[Hiring | None] = ContextVar("navi_hiring", default=None)
"""Set while an agent's tools execute."""


async def delegate(
    task: Annotated[
        str,
        Field(
            description="What to do, complete in itself: the worker sees nothing of this conversation. Say what you "
            "want back.",
            min_length=1,
            max_length=20_000,
        ),
    ],
    profile: Annotated[str | None, Field(description="The worker's profile. Default: your own.", max_length=64)] = None,
    instructions: Annotated[
        str | None, Field(description="How to work, besides the profile's instructions.", max_length=8_000)
    ] = None,
) -> ToolOutput:
    """Give a self-contained task to a worker: another agent with its own tools that works on it and answers you.

    Several calls in one answer work at the same time. Worth it for what is large and separate (look through many files,
    compare alternatives); for a single step call the tool yourself.
    """
    workers = hiring.get()
    if workers is None:
        raise ToolUnavailable("Nothing can be delegated here.")
    return await workers.hire(task, profile, instructions)


DELEGATE = tool(delegate, Effect.READ)
"""It only reads: what a worker's own tools do is asked about when they do it."""
TOOLS = (DELEGATE,)
