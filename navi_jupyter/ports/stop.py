"""The request that a run ends: how its tools read it, how its tool calls are ended, and the event of what it has ended.

Not responsible for who asks for it, or for how long a run may take to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..events import Custom, Event


class StopSignal:
    """The request that a run ends. Set once, never cleared. Readable from any thread."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()
        # By tool call, what of its work the stop has ended, and how: see :meth:`ToolContext.report_stop`.
        self.reports: dict[str, tuple[str, str]] = {}

    def set(self) -> None:
        """Ask the run to end. Loop thread only."""
        self._event.set()

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to end."""
        return self._event.is_set()

    @contextmanager
    def ends_call(self) -> Iterator[None]:
        """While it is entered, the present task executes a tool call: :meth:`cut` cancels it."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a tool call is made in a task")
        self._calls.add(task)
        try:
            yield
        finally:
            self._calls.discard(task)

    def cut(self) -> None:
        """End the run because it is not this server's any more: none of its tool calls takes another step.

        The cancellation of the run alone would reach its calls a few steps of the event loop later. Also in a handler
        of a signal.
        """
        self._event.set()
        for task in list(self._calls):
            task.cancel("lost")

    async def wait(self) -> None:
        """Return once the run was asked to end."""
        await self._event.wait()


def stop_reached(run_id: str, what: str, message: str) -> Event:
    """The event that a stop has ended this work of a run."""
    return Custom(name="navi.stop", value={"action": "reached", "run_id": run_id, "what": what, "message": message})
